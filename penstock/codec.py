"""Events to the bytes of a log record, and those bytes to Arrow.

A *block* is the events of one append, stored column by column: what all events of the block share
is written once, and the payloads stand in one piece beside the offsets that Arrow wants, so that
reading a block of a thousand events costs little more than reading one.

Layout, little endian::

    u8   version (1)
    u32  count of events
    u32  size of the envelope
    ...  envelope: MessagePack array of columns, each one value for all events or a list
    i32  x (count + 1) offsets into the payloads, the first is 0
    ...  payloads
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar, cast

import msgspec
import pyarrow as pa

from penstock.envelope import CollectionId, Event, Mark, Micros, Span
from penstock.errors import LogDamaged

VERSION = 1

HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))
TIME = pa.timestamp("us", tz="UTC")

ENVELOPE = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("received_at", TIME, nullable=False),
        pa.field("event_time", TIME),
        pa.field("source", pa.string(), nullable=False),
        pa.field("content_type", pa.string()),
        pa.field("key", pa.binary()),
        pa.field("headers", HEADERS),
        pa.field("metadata", pa.map_(pa.string(), pa.string())),
        pa.field("payload", pa.binary(), nullable=False),
        pa.field("log_id", pa.string(), nullable=False),
        pa.field("log_partition", pa.int32(), nullable=False),
        pa.field("log_offset", pa.int64(), nullable=False),
    ]
)
"""The columns every event has, from the log to the lake (design: an event's row)."""

WISH = pa.field("quarantine_wish", pa.bool_(), nullable=False)
NAMED = pa.field("named", pa.bool_(), nullable=False)
LOG_SCHEMA = ENVELOPE.append(WISH).append(NAMED)
"""What reading a log answers: the envelope, whether the sender asked for quarantine, and whether
it gave the id, so that the event may repeat another one."""

# Most reads of a quiet log answer this; making it takes as long as reading a hundred events.
NO_ROWS = pa.RecordBatch.from_pylist([], LOG_SCHEMA)

_T = TypeVar("_T")
_HEAD = struct.Struct("<BII")
_Pairs = tuple[tuple[str, bytes], ...]


class _Envelope(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The columns of a block beside the payloads; a scalar stands for every event."""

    ids: list[str]
    received_at: Micros | list[Micros]
    source: str | list[str]
    content_type: str | list[str | None] | None = None
    event_time: list[Micros | None] | None = None
    key: list[bytes | None] | None = None
    headers: list[_Pairs | None] | None = None
    metadata: dict[str, str] | list[dict[str, str] | None] | None = None
    quarantine: list[bool] | None = None
    # Not in blocks of earlier releases, which leave out what they do not know of this one.
    named: bool | list[bool] = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Envelope)


def encode(events: Sequence[Event]) -> bytes:
    """Answer the block of these events (at least one), in their order."""
    received = [e.received_at for e in events]
    sources = [e.source for e in events]
    types = [e.content_type for e in events]
    times = [e.event_time for e in events]
    keys = [e.key for e in events]
    headers: list[_Pairs | None] = [e.headers for e in events]
    metadata: list[dict[str, str] | None] = [e.metadata for e in events]
    wishes = [e.quarantine for e in events]
    payloads = [e.payload for e in events]
    count = len(events)

    envelope = _encoder.encode(
        _Envelope(
            ids=[e.id for e in events],
            received_at=_folded(received),
            source=_folded(sources),
            content_type=_folded(types),
            event_time=times if times.count(None) != count else None,
            key=keys if keys.count(None) != count else None,
            headers=headers if any(headers) else None,
            metadata=_folded(metadata) if any(metadata) else None,
            quarantine=wishes if True in wishes else None,
            named=_folded([e.named for e in events]),
        )
    )
    offsets = array("i", accumulate(map(len, payloads), initial=0))
    if sys.byteorder == "big":
        offsets.byteswap()
    return b"".join(
        [_HEAD.pack(VERSION, count, len(envelope)), envelope, offsets.tobytes(), *payloads]
    )


def _folded(column: list[_T]) -> _T | list[_T]:
    """Answer the one value that all events share, else the column."""
    return column[0] if column.count(column[0]) == len(column) else column


class _Column(Generic[_T]):
    """Values of one column; while all are the same, only that one and their count are kept."""

    __slots__ = ("_count", "_same", "_values")

    def __init__(self) -> None:
        self._count = 0
        self._same: _T | None = None
        self._values: list[_T] | None = None

    def add(self, column: _T | list[_T], part: slice, length: int) -> None:
        """Take `length` values: that part of a list, or the one value as often."""
        if self._values is None:
            if not isinstance(column, list) and (self._count == 0 or column == self._same):
                self._same = column
                self._count += length
                return
            # A cast, not a check: `None` is a value like any other in columns that allow it.
            self._values = [cast("_T", self._same)] * self._count
        self._values += column[part] if isinstance(column, list) else [column] * length
        self._count += length

    def values(self) -> list[_T]:
        """Answer every value, in order."""
        if self._values is None:
            return [cast("_T", self._same)] * self._count
        return self._values

    def array(self, kind: pa.DataType) -> pa.Array:
        """Answer the column as Arrow."""
        if self._values is None:
            return pa.repeat(pa.scalar(self._same, kind), self._count)
        return pa.array(self._values, kind)


class Gathering:
    """Blocks, or parts of them, on their way to one Arrow batch of `LOG_SCHEMA`."""

    def __init__(self) -> None:
        self.payload_bytes = 0
        self._ids: list[str] = []
        self._received_at: _Column[Micros] = _Column()
        self._event_time: _Column[Micros | None] = _Column()
        self._source: _Column[str] = _Column()
        self._content_type: _Column[str | None] = _Column()
        self._key: _Column[bytes | None] = _Column()
        self._headers: _Column[_Pairs | None] = _Column()
        self._metadata: _Column[dict[str, str] | None] = _Column()
        self._quarantine: _Column[bool] = _Column()
        self._named: _Column[bool] = _Column()
        self._offsets: list[range] = []
        self._payloads: list[pa.Array] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(
        self,
        block: bytes | memoryview,
        first_offset: int,
        start: int,
        stop: int,
        *,
        max_bytes: int = sys.maxsize,
    ) -> int:
        """Take the events `start` to `stop` (exclusive) of the block; answer where it stopped.

        It stops early after the first event that brings the payloads taken by this call to
        `max_bytes`. `first_offset` is the log offset of the block's first event. Raises
        `LogDamaged` for a block that this release cannot read.
        """
        view = memoryview(block)
        count, envelope, body = _opened(view)
        data = body + 4 * (count + 1)
        ends = view[body:data].cast("i")
        if data + ends[count] != len(view) or not 0 <= start < stop <= count:
            raise LogDamaged("a record does not hold the events it should")
        stop = bisect_left(ends, ends[start] + max_bytes, start + 1, stop)
        part = slice(start, stop)
        length = stop - start

        self._ids += envelope.ids[part]
        self._received_at.add(envelope.received_at, part, length)
        self._event_time.add(envelope.event_time, part, length)
        self._source.add(envelope.source, part, length)
        self._content_type.add(envelope.content_type, part, length)
        self._key.add(envelope.key, part, length)
        self._headers.add(envelope.headers, part, length)
        self._metadata.add(envelope.metadata, part, length)
        self._quarantine.add(envelope.quarantine or False, part, length)
        self._named.add(envelope.named, part, length)
        self._place(first_offset + start, first_offset + stop)

        payloads = pa.Array.from_buffers(
            pa.binary(), count, [None, pa.py_buffer(view[body:data]), pa.py_buffer(view[data:])]
        )
        self._payloads.append(payloads.slice(start, length))
        self.payload_bytes += ends[stop] - ends[start]
        return stop

    def _place(self, start: int, stop: int) -> None:
        if self._offsets and self._offsets[-1].stop == start:
            self._offsets[-1] = range(self._offsets[-1].start, stop)
        else:
            self._offsets.append(range(start, stop))

    def batch(self, log_id: str, partition: int) -> pa.RecordBatch:
        """Answer what was added, in order."""
        count = len(self)
        if count == 0:
            return NO_ROWS
        return pa.RecordBatch.from_arrays(
            [
                pa.array(self._ids, pa.string()),
                self._received_at.array(pa.int64()).cast(TIME),
                self._event_time.array(pa.int64()).cast(TIME),
                self._source.array(pa.string()),
                self._content_type.array(pa.string()),
                self._key.array(pa.binary()),
                headers_array(self._headers.values()),
                metadata_array(self._metadata.values()),
                pa.concat_arrays(self._payloads),
                pa.repeat(pa.scalar(log_id, pa.string()), count),
                pa.repeat(pa.scalar(partition, pa.int32()), count),
                pa.concat_arrays([pa.arange(r.start, r.stop) for r in self._offsets]),
                self._quarantine.array(pa.bool_()),
                self._named.array(pa.bool_()),
            ],
            schema=LOG_SCHEMA,
        )


def _opened(view: memoryview) -> tuple[int, _Envelope, int]:
    """Answer a block's count, its envelope, and where that ends."""
    try:
        version, count, size = _HEAD.unpack_from(view)
        if version != VERSION:
            raise LogDamaged(
                f"a record has format version {version}, this release reads {VERSION}; "
                "it was written by a newer one"
            )
        body = _HEAD.size + size
        envelope = _decoder.decode(view[_HEAD.size : body])
    except (struct.error, msgspec.DecodeError) as error:
        raise LogDamaged("a record cannot be decoded") from error
    if body + 4 * (count + 1) > len(view) or len(envelope.ids) != count or count == 0:
        raise LogDamaged("a record does not hold the events it should")
    return count, envelope, body


def cut(block: bytes | memoryview, start: int, stop: int) -> bytes:
    """Answer the block of its events `start` to `stop` (exclusive), each as it was.

    Raises `LogDamaged` for a block that this release cannot read.
    """
    view = memoryview(block)
    count, envelope, body = _opened(view)
    data = body + 4 * (count + 1)
    ends = view[body:data].cast("i")
    if data + ends[count] != len(view) or not 0 <= start < stop <= count:
        raise LogDamaged("a record does not hold the events it should")
    if (start, stop) == (0, count):
        return bytes(view)
    part = slice(start, stop)
    columns = {
        name: value[part] if isinstance(value, list) else value
        for name, value in msgspec.structs.asdict(envelope).items()
    }
    packed = _encoder.encode(_Envelope(**columns))
    offsets = array("i", (end - ends[start] for end in ends[start : stop + 1]))
    payloads = view[data + ends[start] : data + ends[stop]]
    head = _HEAD.pack(VERSION, stop - start, len(packed))
    return b"".join([head, packed, offsets.tobytes(), payloads])


def headers_array(rows: Sequence[Sequence[tuple[str, bytes | None]] | None]) -> pa.Array:
    """Build list<struct<key, value>> from flat columns; empty and absent headers are both null."""
    if not any(rows):
        return pa.nulls(len(rows), HEADERS)
    flat = [pair for row in rows if row for pair in row]
    offsets: list[int | None] = []
    end = 0
    for row in rows:
        offsets.append(end if row else None)
        end += len(row) if row else 0
    offsets.append(end)
    pairs = pa.StructArray.from_arrays(
        [pa.array([k for k, _ in flat], pa.string()), pa.array([v for _, v in flat], pa.binary())],
        fields=list(HEADERS.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pairs, type=HEADERS)


def metadata_array(rows: list[dict[str, str] | None]) -> pa.Array:
    """Build map<string, string>; empty and absent metadata are both null."""
    kind = pa.map_(pa.string(), pa.string())
    if not any(rows):
        return pa.nulls(len(rows), kind)
    return pa.array([list(row.items()) if row else None for row in rows], kind)


def span_of(batch: pa.RecordBatch, collection: CollectionId, mark: Mark) -> Span:
    """Answer the span of a batch that was read up to `mark`."""
    first = batch.column("log_offset")[0].as_py() if batch.num_rows else mark.next
    return Span(collection, mark.partition, first, mark.next)
