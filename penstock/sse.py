"""Server-sent events, as the platform writes and its client reads them. Pure.

Of the format of the HTML standard: lines of ``event``, ``id`` and ``data``, an empty line behind
each message, and comments, which are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

CONTENT_TYPE = "text/event-stream"

_LINE_END = re.compile(rb"\r\n|\r|\n")
MOST_BYTES = 512 << 20
"""Bytes of one message that a reader takes: far more than an event of the largest size."""


class Message(NamedTuple):
    """One message; `id` is what to go on from, None if it does not say."""

    event: str
    data: bytes
    id: str | None = None


def write(message: Message) -> bytes:
    """Answer a message as it is sent; its data are one line."""
    name = message.event.encode()
    place = b"" if message.id is None else b"id: " + message.id.encode() + b"\n"
    return b"event: " + name + b"\n" + place + b"data: " + message.data + b"\n\n"


class Parser:
    """Reads messages from pieces that may be cut anywhere."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._event = ""
        self._id: str | None = None
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Yield the messages that this piece completes; raise `ValueError` for one too long."""
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > MOST_BYTES:
            raise ValueError("a message is too long")
        # A line end may be two characters, of which the second comes with the next piece.
        if b"\n" not in piece and b"\r" not in piece[:-1]:
            return
        text = b"".join(self._pieces)
        rest = b""
        if text.endswith(b"\r"):
            text, rest = text[:-1], b"\r"
        *lines, last = _LINE_END.split(text)
        self._pieces = [last + rest]
        self._held = len(last) + len(rest)
        for line in lines:
            message = self._take(line)
            if message is not None:
                yield message

    def _take(self, line: bytes) -> Message | None:
        if not line:
            data, event, place = self._data, self._event, self._id
            self._data, self._event, self._id = [], "", None
            return Message(event or "message", b"\n".join(data), place) if data else None
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"event":
                self._event = value.decode(errors="replace")
            case b"id":
                self._id = value.decode(errors="replace")
            case b"data":
                self._data.append(value)
        return None
