r"""How leaves are written as terms of an index: by whoever fills it, and by whoever asks it.

A leaf is named after its path, and its terms begin with that name. In names only letters, digits,
``_``, ``-`` and ``.`` stand for themselves; anything else of a key is written ``\`` with its code
and ``;``. So names have no blank and none of the signs that follow them here:

- ``name=text``: a string leaf in lower case, or ``name#digest`` for one of more than `LONGEST_TEXT`
  characters
- ``name!true``, ``name!false``: a bool
- ``name=0123456789abcdef``: a number, in hex digits that sort as the doubles do; ``*=…`` for one at
  any path
- ``name=word``: a word of a string leaf, where the words are in a row with a field

Terms of an engine have a bound (32,766 bytes; 255 characters for a word), so that what is longer is
written as a digest: names level by level, words and texts as a whole.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from hashlib import blake2b

from penstock.query.text import words_in

LONGEST_NAME = 60
"""Characters of a name. With a word of the same length it stays below 255 of UTF-16."""

LONGEST_WORD = 60
LONGEST_TEXT = 1_024

ANY_NUMBER = "*="
"""What stands before a number that may be at any path."""

ANY_PATH = "*"
"""The path that every event with a leaf has."""

HEADERS, METADATA, COLUMNS = "@headers", "@metadata", "@column"

REPEATS = f"{COLUMNS}.duplicate_of"
"""The path of events that repeat others."""
"""What names outside the payload begin with; no name of a leaf has such a sign."""

_UNSAFE = re.compile(r"[^\w-]")
_pack = struct.Struct(">d").pack

# The sign is the highest bit. It is set for positive numbers, and all bits are turned of others.
_POSITIVE = dict(zip("01234567", "89abcdef", strict=True))
_NEGATIVE = str.maketrans("0123456789abcdef", "fedcba9876543210")


def below(name: str | None, key: str) -> str:
    """Answer the name of a field; `name` is that of its object, None for the document itself."""
    step = _UNSAFE.sub(_spelt, key)
    whole = step if name is None else f"{name}.{step}"
    return whole if len(whole) <= LONGEST_NAME else f"\\{_digest(whole)}"


def name_of(keys: Iterable[str]) -> str:
    """Answer the name of the leaves at these keys; without keys that of the document itself."""
    name = None
    for key in keys:
        name = below(name, key)
    return name or ""


def text_term(name: str, text: str) -> str:
    """Answer the term of a string leaf; `text` is in lower case."""
    if len(text) > LONGEST_TEXT:
        return f"{name}#{_digest(text)}"
    return f"{name}={text}"


def flag_term(name: str, flag: bool) -> str:
    """Answer the term of a bool leaf."""
    return f"{name}!true" if flag else f"{name}!false"


def sortable(number: float) -> str:
    """Answer hex digits that compare as the doubles do; -0 and 0 have the same."""
    digits = _pack(number + 0.0).hex()
    first = _POSITIVE.get(digits[0])
    return digits.translate(_NEGATIVE) if first is None else first + digits[1:]


def double(number: float | str) -> float:
    """Answer a number, or its text, as a double; beyond all doubles it is infinite."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")  # type: ignore[operator]  # an int


def word_term(word: str) -> str:
    """Answer the term of a word in lower case."""
    return word if len(word) <= LONGEST_WORD else f"~{_digest(word)}"


def word_terms(text: str) -> list[str]:
    """Answer the terms of the words of a text in lower case."""
    found = words_in(text)
    if len(text) <= LONGEST_WORD:
        return found
    return [word if len(word) <= LONGEST_WORD else word_term(word) for word in found]


def _spelt(character: re.Match[str]) -> str:
    return f"\\{ord(character[0]):x};"


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=20).hexdigest()
