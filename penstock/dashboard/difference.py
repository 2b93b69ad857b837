"""What a repair changed in a payload, for the eye. Pure."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from penstock.dashboard.payload import visible
from penstock.quarantine.place import escaped

_AROUND = 60
_MOST_SHOWN = 1_500
# Matching takes the square of them in time, for payloads that somebody made for it the cube.
_MOST_TOKENS = 300
_TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)


class Piece(NamedTuple):
    """A part of two texts: in both, in the first alone, in the second alone, or left out."""

    kind: Literal["same", "gone", "new", "cut"]
    text: str


def readable(payload: bytes) -> str:
    """Write a payload so that everything in it is seen; one that is no UTF-8 is all escapes."""
    try:
        return visible(payload.decode())
    except UnicodeDecodeError:
        return escaped(payload)


def beginning(payload: bytes, most: int) -> str:
    """Answer so many characters of a payload, readable, with a sign where it is cut."""
    part = payload[: 4 * most]
    if len(part) < len(payload):
        # A character that is cut in its middle does not make the rest no text.
        with suppress(UnicodeDecodeError):
            part = getincrementaldecoder("utf-8")().decode(part).encode()
    text = readable(part)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def difference(before: str, after: str) -> list[Piece]:
    """Answer the two texts as one, with what is the same shortened to what is around changes.

    However long they are, a few thousand characters are answered.
    """
    return list(_joined(_shortened(list(_compared(before, after)))))


def _compared(before: str, after: str) -> Iterator[Piece]:
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    yield Piece("same", before[:start])
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    a, b = _TOKEN.findall(old[: _MOST_TOKENS * 8]), _TOKEN.findall(new[: _MOST_TOKENS * 8])
    if max(len(a), len(b)) > _MOST_TOKENS or max(len(old), len(new)) > _MOST_TOKENS * 8:
        yield Piece("gone", old)
        yield Piece("new", new)
    else:
        for kind, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
            if kind == "equal":
                yield Piece("same", "".join(a[i:j]))
            else:
                yield Piece("gone", "".join(a[i:j]))
                yield Piece("new", "".join(b[k:m]))
    yield Piece("same", before[len(before) - end :] if end else "")


def _common(a: str, b: str) -> int:
    """Answer how many characters both begin with; by halves, which the interpreter does fast."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _shortened(pieces: Sequence[Piece]) -> Iterator[Piece]:
    room = _MOST_SHOWN
    changes = any(piece.kind != "same" and piece.text for piece in pieces)
    for number, (kind, text) in enumerate(pieces):
        if not text:
            continue
        if room <= 0:
            yield Piece("cut", f"{sum(len(one.text) for one in pieces[number:]):,}")
            return
        if kind != "same" or not changes:
            yield Piece(kind, text[:room])
            if len(text) > room:
                yield Piece("cut", f"{len(text) - room:,}")
            room -= len(text)
            continue
        left = 0 if number == 0 else _AROUND
        right = 0 if number == len(pieces) - 1 else _AROUND
        if len(text) <= left + right + _AROUND:
            yield Piece("same", text)
        else:
            yield Piece("same", text[:left])
            yield Piece("cut", f"{len(text) - left - right:,}")
            yield Piece("same", text[len(text) - right :])
        room -= left + right


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    return (piece for piece in pieces if piece.text)
