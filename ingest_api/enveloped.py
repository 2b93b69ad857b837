"""Bodies of events that bring their envelopes with them, taken apart within bounds.

A few bytes of MessagePack can say a great many things. So how many events there are is read before
any of them, each is read by itself, and what they all have beside their payloads is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from penstock.envelope import Enveloped
from penstock.errors import BadRequest, Malformed, Rejected, TooLarge, TooMany

MOST_ENTRIES = 250_000
"""Headers and entries of metadata in one body, of all its events together."""

ENVELOPE_BYTES = 1 << 20
"""What an event may have beside its payload."""

_SHORT, _LONG, _LONGEST = 0x90, 0xDC, 0xDD
_OWN = "penstock_"

_parts = msgspec.msgpack.Decoder(list[msgspec.Raw])
_event = msgspec.msgpack.Decoder(Enveloped)

# Bad UTF-8 in a text and deep nesting have errors of Python's own.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def enveloped(body: bytes, *, most: int, max_event_bytes: int) -> Iterator[Enveloped | Rejected]:
    """Answer each event of a body, or why it is none.

    Raises `Malformed` if the body is no list, or its events have more beside their payloads than
    fits in memory, and `TooMany` over `most` events.
    """
    count = count_of(body)
    if count > most:
        raise TooMany("body", count, most)
    try:
        parts: Sequence[msgspec.Raw] = _parts.decode(body)
    except _UNREADABLE as error:
        raise Malformed("the body is no MessagePack list of events") from error
    entries = 0
    for part in parts:
        told = _read(part, max_event_bytes)
        if isinstance(told, Enveloped):
            entries += len(told.headers) + len(told.metadata)
        if entries > MOST_ENTRIES:
            raise Malformed(f"the events have more than {MOST_ENTRIES:,} headers and metadata")
        yield told


def count_of(body: bytes) -> int:
    """Answer how many elements the list has that a body of MessagePack says it is."""
    first = body[0] if body else 0
    if first & 0xF0 == _SHORT:
        return first & 0x0F
    if first in (_LONG, _LONGEST):
        return int.from_bytes(body[1 : 3 if first == _LONG else 5], "big")
    raise Malformed("the body is no MessagePack list of events")


def senders_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Leave out what doors and landing say themselves."""
    if any(name.startswith(_OWN) for name in metadata):
        return {name: text for name, text in metadata.items() if not name.startswith(_OWN)}
    return metadata


def _read(part: msgspec.Raw, max_event_bytes: int) -> Enveloped | Rejected:
    size = len(memoryview(part))
    if size > max_event_bytes + ENVELOPE_BYTES:
        return TooLarge("event", size, max_event_bytes)
    try:
        return _event.decode(part)
    except _UNREADABLE:
        return BadRequest("this is no event with its envelope")
