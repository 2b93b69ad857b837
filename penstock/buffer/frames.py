"""The layout of the embedded log on disk; pure.

A log is one row of bytes, cut into segment files. A byte's *address* counts from the very first
byte of the log; a segment is named after the address of its first byte. A segment is a *head*
frame followed by *records* frames, each of them of one collection. The head says where every
collection that ever had a record ends there, so a segment is read without those before it.

Layout of a frame, little endian::

    4s   magic
    u32  CRC-32 of the rest of the header (it holds the body's, so it stands for the whole frame)
    u32  length of the body
    u32  CRC-32 of the body
    u64  address of this frame
    u64  durable end when the frame was written: everything below that address was durable
    u64  offset of the first event in its collection
    u32  incarnation of the log that wrote it
    u32  count of events
    u8   kind
    u8   length of the collection's name
    ...  the collection, as `team.name`
    ...  body: a block of `penstock.codec`; in a head, MessagePack of every collection's `Tail`

The header's CRC starts from a number made of the log's id: bytes of another log, or a payload
that looks like a frame, are no frame of this log.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import msgspec

from penstock.envelope import CollectionId

MAGIC = b"PsF1"
HEAD = 0
RECORDS = 1

_HEADER = struct.Struct("<4sIIIQQQIIBB")
# Behind the magic and the CRC itself.
_CHECKED = 8
LONGEST_HEADER = _HEADER.size + 255

_SEGMENT = re.compile(r"([0-9]{20})\.log")


class Tail(NamedTuple):
    """The end of a collection: its next offset, and which frame holds the record before."""

    next: int
    incarnation: int
    crc: int

    @property
    def fingerprint(self) -> str:
        """What a mark at `next` carries; empty where there is no record before."""
        return fingerprint(self.incarnation, self.crc) if self.next else ""


NOTHING = Tail(0, 0, 0)


class Frame(NamedTuple):
    """What a header says."""

    kind: int
    collection: CollectionId | None
    address: int
    durable: int
    incarnation: int
    first: int
    events: int
    crc: int
    header_size: int
    body_size: int
    body_crc: int

    @property
    def size(self) -> int:
        """Bytes of header and body."""
        return self.header_size + self.body_size

    @property
    def end(self) -> int:
        """The address just behind."""
        return self.address + self.header_size + self.body_size

    @property
    def tail(self) -> Tail:
        """The end of the collection once this frame is on the log."""
        return Tail(self.first + self.events, self.incarnation, self.crc)


_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(dict[str, tuple[int, int, int]])


def fingerprint(incarnation: int, crc: int) -> str:
    """Name a frame so that no other one, at the same place in another life, has that name."""
    return f"{incarnation}-{crc:08x}"


def segment_name(base: int) -> str:
    """Name the segment file whose first byte has that address; names sort like addresses."""
    return f"{base:020d}.log"


def base_of(name: str) -> int | None:
    """Answer the address in a segment's name, None for any other file."""
    match = _SEGMENT.fullmatch(name)
    return int(match[1]) if match else None


def seed_of(log_id: str) -> int:
    """Answer the number that the CRCs of a log's headers start from."""
    return zlib.crc32(UUID(log_id).bytes)


def pack_header(
    body: bytes,
    *,
    kind: int,
    collection: CollectionId | None,
    address: int,
    durable: int,
    incarnation: int,
    first: int,
    events: int,
    seed: int,
) -> tuple[bytes, Frame]:
    """Answer the header that goes before this body, and what it says."""
    name = str(collection).encode() if collection else b""
    body_crc = zlib.crc32(body)
    fixed = _HEADER.pack(
        MAGIC,
        0,
        len(body),
        body_crc,
        address,
        durable,
        first,
        incarnation,
        events,
        kind,
        len(name),
    )
    checked = fixed[_CHECKED:] + name
    crc = zlib.crc32(checked, seed)
    header = b"".join((MAGIC, crc.to_bytes(4, "little"), checked))
    frame = Frame(
        kind=kind,
        collection=collection,
        address=address,
        durable=durable,
        incarnation=incarnation,
        first=first,
        events=events,
        crc=crc,
        header_size=len(header),
        body_size=len(body),
        body_crc=body_crc,
    )
    return header, frame


def parse_header(data: bytes, at: int, address: int, seed: int) -> Frame | None:
    """Read the header at index `at` of the data; None unless it is whole and of that address."""
    if len(data) - at < _HEADER.size:
        return None
    (magic, crc, body_size, body_crc, where, durable, first, incarnation, events, kind, length) = (
        _HEADER.unpack_from(data, at)
    )
    if magic != MAGIC or where != address:
        return None
    header_size = _HEADER.size + length
    checked = data[at + _CHECKED : at + header_size]
    if len(checked) != header_size - _CHECKED or zlib.crc32(checked, seed) != crc:
        return None
    return Frame(
        kind,
        _collection(checked[header_size - _CHECKED - length :]) if length else None,
        address,
        durable,
        incarnation,
        first,
        events,
        crc,
        header_size,
        body_size,
        body_crc,
    )


@lru_cache(maxsize=4096)
def _collection(name: bytes) -> CollectionId:
    team, _, collection = name.decode().rpartition(".")
    return CollectionId(team, collection)


def whole(frame: Frame, data: bytes | memoryview) -> memoryview | None:
    """Answer the body of a frame from its bytes; None if they are not what was written."""
    body = memoryview(data)[frame.header_size : frame.size]
    if len(body) != frame.body_size or zlib.crc32(body) != frame.body_crc:
        return None
    return body


def pack_head(ends: Mapping[CollectionId, Tail]) -> bytes:
    """Answer the body of the head of a segment that begins where the collections end so."""
    return _encoder.encode({str(collection): tail for collection, tail in ends.items()})


def parse_head(body: memoryview) -> dict[CollectionId, Tail]:
    """Read the body of a head frame whose CRC was right."""
    ends = _head_decoder.decode(body)
    return {_collection(name.encode()): Tail(*tail) for name, tail in ends.items()}
