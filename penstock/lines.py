"""Events as lines of JSON, each with everything that stands beside its payload.

``{"partition":0,"offset":17,"id":"…","received_at":"…",…,"payload":{"n":1}}``

A payload that is JSON on one line stands in its line as it is, byte for byte; any other in
``payload_base64``. Key and values of headers are text, or ``{"base64": "…"}`` where they are none.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from penstock.envelope import Enveloped, Event, Micros, Position
from penstock.errors import Malformed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BLANKS = b" \t"


class Packed(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Bytes that are no text."""

    base64: str


class Line(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a line says, in its order. Who writes lines by hand needs a payload only."""

    partition: int | None = None
    offset: int | None = None
    id: str = ""
    received_at: str = ""
    event_time: str | None = None
    source: str = ""
    content_type: str | None = None
    key: str | Packed | None = None
    headers: Sequence[tuple[str, str | Packed]] = ()
    metadata: dict[str, str] = {}
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    payload_base64: str | None = None


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the event of a line was on its log."""

    partition: int
    offset: int


_encode = msgspec.json.Encoder().encode
_lines = msgspec.json.Decoder(Line)
_any = msgspec.json.Decoder()

# Bad UTF-8 and deep nesting have errors of Python's own.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def line_of(
    event: Event,
    position: Position,
    *,
    headers: Sequence[tuple[str, bytes]],
    received_at: str,
    event_time: str | None,
) -> bytes:
    """Write the line of an event, with its end, with these headers in place of its own.

    Raises `UnicodeEncodeError` where a text of the event is none.
    """
    plain = stands_as_it_is(event.payload)
    return (
        _encode(
            Line(
                partition=position.partition,
                offset=position.offset,
                id=event.id,
                received_at=received_at,
                event_time=event_time,
                source=event.source,
                content_type=event.content_type,
                key=None if event.key is None else _text(event.key),
                headers=[(name, _text(value)) for name, value in headers],
                metadata=event.metadata,
                payload=msgspec.Raw(event.payload) if plain else msgspec.UNSET,
                payload_base64=None if plain else base64.b64encode(event.payload).decode(),
            )
        )
        + b"\n"
    )


def stands_as_it_is(payload: bytes) -> bool:
    """Say whether a payload is JSON that can stand in a line, and be taken out again unchanged."""
    if b"\n" in payload or b"\r" in payload or payload.strip(_BLANKS) != payload:
        return False
    try:
        payload.decode()
        _any.decode(payload)
    except _UNREADABLE:
        return False
    return True


def read_line(line: bytes) -> Line:
    """Read a line; raise `Malformed` for what is none."""
    try:
        told = _lines.decode(line)
    except _UNREADABLE as error:
        raise Malformed("the line is no event with its envelope") from error
    if (told.payload is msgspec.UNSET) == (told.payload_base64 is None):
        raise Malformed("a line has one of payload and payload_base64")
    return told


def enveloped(line: Line) -> Enveloped:
    """Answer what a door is sent of a line; raise `Malformed` where bytes or times are none."""
    return Enveloped(
        payload=payload_of(line),
        id=line.id,
        content_type=line.content_type,
        key=None if line.key is None else bytes_of(line.key),
        headers=tuple((name, bytes_of(value)) for name, value in line.headers),
        metadata=line.metadata,
        event_time=None if line.event_time is None else micros_of(line.event_time),
    )


def payload_of(line: Line) -> bytes:
    """Answer the payload, byte for byte."""
    if isinstance(line.payload, msgspec.Raw):
        return bytes(line.payload)
    return bytes_of(Packed(line.payload_base64 or ""))


def bytes_of(value: str | Packed) -> bytes:
    """Answer the bytes that a value stands for."""
    if isinstance(value, str):
        return value.encode()
    try:
        return base64.b64decode(value.base64, validate=True)
    except ValueError as error:
        raise Malformed("what is called base64 is none") from error


def micros_of(text: str) -> Micros:
    """Read a time of a line."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError) as error:
        raise Malformed("a time is written as 2026-11-22T13:00:00Z") from error


def _text(value: bytes) -> str | Packed:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Packed(base64.b64encode(value).decode())
