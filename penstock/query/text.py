"""Words, case and numbers: the rules of text that every compiler and every engine share."""

from __future__ import annotations

import re
from collections.abc import Callable

# `\w` is exactly the Unicode categories L and N, and the underscore (a test counts them).
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def lower(text: str) -> str:
    """Answer the text in lower case, one code point for one, as SQL engines do it.

    `str.lower` makes two code points of ``İ`` and looks at the neighbours of ``Σ``.
    """
    if text.isascii() or not ("İ" in text or "Σ" in text):
        return text.lower()
    return "".join("i" if character == "İ" else character.lower() for character in text)


def words(text: str) -> tuple[str, ...]:
    """Answer the maximal runs of letters and digits, in lower case."""
    return tuple(words_in(lower(text)))


words_in: Callable[[str], list[str]] = _WORD.findall
"""Answers the same of a text that is in lower case."""


def number(text: str) -> float | None:
    """Answer the double that a number written as in JSON stands for; None for other text.

    ``02134`` and ``+1`` are text. A number beyond all doubles is infinite.
    """
    return float(text) if _NUMBER.fullmatch(text) else None
