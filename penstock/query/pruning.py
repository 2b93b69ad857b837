"""From the tree of a search to what rows must hold to be found. Pure.

Of some rows together it is known which words and values are in them, in a filter that may say yes
without cause, but never no. So a need is only ever weaker than the search: what is not needed for
certain is left out, and below a NOT nothing is needed.

A need asks for digests of tokens. `word_text` and the others say how a token is written, here and
in the filters (`penstock.search.filters`), which are made by an engine: a digest is half an MD5,
that both can compute.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from penstock.query.text import lower
from penstock.query.tree import (
    And,
    Condition,
    Equals,
    Everything,
    Node,
    Not,
    Or,
    Payload,
    Words,
)

MOST_WHOLE = 1 << 53
"""Numbers beyond this are one number to a filter."""

OPAQUE = "o"
"""The token of rows whose payload is text and no JSON."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token has to be there."""

    digest: int


@dataclass(frozen=True, slots=True)
class All:
    """All of these have to be fulfilled; of nothing it is fulfilled by everything."""

    parts: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """One of these has to be fulfilled, of two or more."""

    parts: tuple[Need, ...]


Need = Token | All | Any

NOTHING = All(())
"""Nothing is needed: any row may be found."""

Split = Callable[[str], Sequence[str]]
"""Answers the words of a text as the engine parts them, whose letters may be other ones."""


def digest(token: str) -> int:
    """Answer the lower half of the MD5 of a token, as DuckDB's ``md5_number_lower`` does."""
    whole = hashlib.md5(token.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(whole[8:], "little")


def word_text(word: str) -> str:
    """Answer the token of a word in a text, in lower case."""
    return f"w{word}"


def text_text(text: str) -> str:
    """Answer the token of a whole text, in lower case, that is more or less than one word."""
    return f"t{text}"


def number_text(number: float) -> str:
    """Answer the token of a number; numbers with one whole part have one token."""
    return f"n{whole(number)}"


def path_token(path: str) -> int:
    """Answer the digest of the path of a misfit."""
    return digest(f"p{path}")


def whole(number: float) -> int:
    """Answer the greatest whole number that is not above this one, within bounds."""
    return math.floor(max(-MOST_WHOLE, min(MOST_WHOLE, number)))


def need_of(node: Node, split: Split) -> Need:
    """Answer what a row needs to fulfil this."""
    match node:
        case And(parts):
            return all_of(need_of(part, split) for part in parts)
        case Or(parts):
            return any_of(need_of(part, split) for part in parts)
        case Not() | Everything():
            return NOTHING
        case _:
            return _condition(node, split)


def opaque(need: Need) -> Need:
    """Answer what one of the rows needs whose payload is text and no JSON."""
    return all_of((Token(digest(OPAQUE)), need))


def all_of(parts: Iterable[Need]) -> Need:
    """Answer the conjunction."""
    kept = tuple(part for part in parts if part != NOTHING)
    return kept[0] if len(kept) == 1 else All(kept)


def any_of(parts: Iterable[Need]) -> Need:
    """Answer the disjunction; nothing is needed as soon as one part needs nothing."""
    kept = tuple(parts)
    if not kept or NOTHING in kept:
        return NOTHING
    return kept[0] if len(kept) == 1 else Any(kept)


def _condition(condition: Condition, split: Split) -> Need:
    match condition:
        case Words(None | Payload(), words, number):
            texts = all_of(
                _token(word_text(piece)) for word in words for piece in _pieces(word, split)
            )
            return texts if number is None else any_of((texts, _token(number_text(number))))
        # Bools are true in some row of nearly any chunk, and false in another.
        case Equals(Payload(), text, number, None):
            here = lower(text)
            one_word = _pieces(here, split) == [here]
            texts = _token(word_text(here) if one_word else text_text(here))
            return texts if number is None else any_of((texts, _token(number_text(number))))
        case _:
            return NOTHING


_PLAIN = re.compile(r"[a-z0-9]+")


def _pieces(text: str, split: Split) -> list[str]:
    """Answer the words of a text in lower case; the engine is asked where letters may differ."""
    return _PLAIN.findall(text) if text.isascii() else list(split(text))


def _token(text: str) -> Need:
    return Token(digest(text))
