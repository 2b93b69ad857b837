"""A payload as people read it: laid out, as text, as bytes. Pure, and bounded: it may be anything.

What cannot be seen, or would turn the text around it, is written as an escape, so that a page
shows what was sent and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from penstock.query.tree import Payload
from penstock.query.writing import condition_text, field_text

MOST_LINES = 1_500
MOST_TEXT = 200_000
"""Characters of a payload that a page shows."""
MOST_BYTES = 4_096
"""Bytes that it shows as such."""
LONGEST_VALUE = 2_000
_LARGEST = 4 << 20
_LONGEST_CONDITION = 300


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line. `query` finds the events that are alike in it."""

    kind: Literal["key", "text", "number", "word", "mark", "more"]
    text: str
    query: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a document that is laid out; `depth` is how far it stands in."""

    depth: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class LaidOut:
    """The first lines of a document, and whether there are more."""

    lines: tuple[Line, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Bytes:
    """The first bytes of a payload, sixteen in a line: (offset, in hex, as text)."""

    lines: tuple[tuple[str, str, str], ...]
    more: int
    """How many bytes are not shown."""


class _Number(str):
    """A number as it was written: no digit is lost."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """The members of an object as they were sent: keys may come twice."""


class _Full(Exception):
    """As many lines as there is room for."""


def laid_out(payload: bytes, *, most: int = MOST_LINES) -> LaidOut | None:
    """Lay a JSON document out; None for what is none, or is very large or very deep."""
    if len(payload) > _LARGEST:
        return None
    try:
        document = json.loads(
            payload.decode(),
            object_pairs_hook=_Object,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse,
        )
        writer = _Writer(most)
        try:
            writer.value(document, (), 0, [], "")
        except _Full:
            return LaidOut(tuple(writer.lines), more=True)
    except (ValueError, RecursionError):
        return None
    return LaidOut(tuple(writer.lines), more=False)


def _refuse(word: str) -> None:
    raise ValueError(word)


class _Writer:
    def __init__(self, most: int) -> None:
        self.lines: list[Line] = []
        self._most = most

    def value(
        self,
        value: Any,
        keys: tuple[str, ...],
        depth: int,
        before: list[Piece],
        after: str,
        *,
        listed: bool = False,
    ) -> None:
        """Write a value behind the pieces of its line."""
        if isinstance(value, _Object) and value:
            self._put(depth, [*before, Piece("mark", "{")])
            for n, (key, item) in enumerate(value):
                path = (*keys, key)
                name = Piece("key", written(key), query_of(path, item))
                comma = "," if n + 1 < len(value) else ""
                self.value(item, path, depth + 1, [name, Piece("mark", ": ")], comma)
            self._put(depth, [Piece("mark", "}" + after)])
        elif isinstance(value, list) and not isinstance(value, _Object) and value:
            self._put(depth, [*before, Piece("mark", "[")])
            for n, item in enumerate(value):
                comma = "," if n + 1 < len(value) else ""
                self.value(item, keys, depth + 1, [], comma, listed=True)
            self._put(depth, [Piece("mark", "]" + after)])
        else:
            self._put(
                depth, [*before, *_scalar(value, keys if listed else None), Piece("mark", after)]
            )

    def _put(self, depth: int, pieces: list[Piece]) -> None:
        if len(self.lines) == self._most:
            raise _Full
        self.lines.append(Line(depth, tuple(piece for piece in pieces if piece.text)))


def _scalar(value: Any, keys: tuple[str, ...] | None) -> Iterator[Piece]:
    """Answer the pieces of a value; in a list of `keys` it finds what is alike by itself."""
    query = None if keys is None or value is None else query_of(keys, value)
    match value:
        case _Number():
            yield Piece("number", value[:LONGEST_VALUE], query)
        case str():
            yield Piece("text", written(value[:LONGEST_VALUE]), query)
        case _Object():
            yield Piece("mark", "{}")
        case list():
            yield Piece("mark", "[]")
        case _:
            yield Piece("word", json.dumps(value), query)
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        yield Piece("more", f" … {len(value) - LONGEST_VALUE:,} more characters")


def query_of(keys: tuple[str, ...], value: Any) -> str | None:
    """Answer the search for events that have the same there; None if it would be very long."""
    field = Payload(keys)
    query: str | None
    if isinstance(value, list):
        # Without a leaf below it nothing is found by it.
        query = f"{field_text(field)}:*" if value else None
    elif value is None:
        query = f"{field_text(field)}:null"
    elif isinstance(value, bool):
        query = condition_text(field, "true" if value else "false")
    else:
        query = condition_text(field, str(value))
    return query if query is not None and len(query) <= _LONGEST_CONDITION else None


def written(text: str) -> str:
    """Write a text as JSON does, with an escape for what cannot be seen."""
    return visible(json.dumps(text, ensure_ascii=False))


def json_text(value: object) -> str:
    """Write a value as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)


def shortened(text: str, most: int = 40) -> str:
    """Answer the beginning of a long text, with a sign that there is more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def visible(text: str) -> str:
    """Write an escape for what cannot be seen, or would turn the text around it; lines stay."""
    return _UNSEEN.sub(lambda found: _escape(found[0]), text)


def visible_in_line(text: str) -> str:
    """Write a value as `visible` does, and on one line: an id, a name or a path may have ends."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"  # noqa: PLR2004 - as Python


# Control and format characters, separators of lines, and halves of pairs. A soft hyphen, marks of
# direction, joiners and tags are among them: they change what is read, and are not seen.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u08e2\u180e"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e007f]"
)


def as_text(payload: bytes) -> tuple[str, int] | None:
    """Answer the first of a text, and how many characters follow; None for what is no UTF-8."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    return visible(text[:MOST_TEXT].replace("\r\n", "\n")), max(0, len(text) - MOST_TEXT)


def as_bytes(payload: bytes) -> Bytes:
    """Answer the first bytes as `xxd` shows them."""
    shown = payload[:MOST_BYTES]
    lines = tuple(
        (
            f"{at:08x}",
            shown[at : at + 16].hex(" "),
            "".join(chr(b) if 32 <= b < 127 else "." for b in shown[at : at + 16]),  # noqa: PLR2004 - printable
        )
        for at in range(0, len(shown), 16)
    )
    return Bytes(lines, len(payload) - len(shown))
