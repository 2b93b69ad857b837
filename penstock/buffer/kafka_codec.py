"""Events to Kafka records, and records to Arrow.

The record's value is the payload, its key the event's key, its headers the event's headers: any
Kafka client can read the log. What is left of an event stands in one more header, the first,
named ``penstock``: a MessagePack array that begins with the version of its format.

A record without that header was written by somebody else. It is an event like any other: its
source is ``kafka``, its id the place it has, its time that of the record.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa

from penstock.codec import LOG_SCHEMA, NO_ROWS, TIME, headers_array, metadata_array
from penstock.envelope import Event, Micros
from penstock.errors import LogDamaged

VERSION = 1

HEADER = "penstock"

_Pairs = tuple[tuple[str, bytes], ...]
Headers = list[tuple[str, bytes]]


class _Rest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What of an event is neither value, key nor header of its record."""

    version: int
    id: str
    received_at: Micros
    source: str
    content_type: str | None = None
    event_time: Micros | None = None
    metadata: dict[str, str] | None = None
    quarantine: bool = False
    headers: _Pairs | None = None
    """The event's headers, if one of them has a name that no record's header can have."""
    named: bool = False
    """Whether the sender gave the id; records of earlier releases do not say it."""


Message = Any
"""A consumed record, `confluent_kafka.Message`: only the adapter knows that library."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Rest).decode
_decode_all = msgspec.msgpack.Decoder(list[_Rest]).decode
# Decoding them as one array costs a third of decoding each.
_ARRAY = b"\xdd"


def headers_of(event: Event) -> Headers:
    """Answer the headers of the event's record.

    Raises `UnicodeEncodeError` for text that has no UTF-8.
    """
    # C ends a name at its first zero byte.
    fit = not any("\0" in name for name, _ in event.headers)
    rest = _encode(
        (
            VERSION,
            event.id,
            event.received_at,
            event.source,
            event.content_type,
            event.event_time,
            event.metadata or None,
            event.quarantine,
            None if fit else event.headers,
            event.named,
        )
    )
    return [(HEADER, rest), *event.headers] if fit else [(HEADER, rest)]


class Records:
    """Records of one partition on their way to one Arrow batch of `LOG_SCHEMA`."""

    def __init__(self) -> None:
        self.payload_bytes = 0
        self._rest: list[_Rest] = []
        self._keys: list[bytes | None] = []
        self._headers: list[Sequence[tuple[str, bytes | None]] | None] = []
        self._payloads: list[bytes] = []
        self._offsets: list[int] = []

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, messages: Sequence[Message], *, max_bytes: int) -> int:
        """Take the records up to the first that fills `max_bytes` in all; answer how many.

        Raises `LogDamaged` for a record that a newer release wrote.
        """
        payloads = [message.value() or b"" for message in messages]
        sizes = list(accumulate(map(len, payloads), initial=self.payload_bytes))
        taken = min(len(payloads), bisect_left(sizes, max_bytes, 1))
        messages = messages[:taken]
        headers, rest = _taken_apart(messages)
        self._payloads += payloads[:taken]
        self._keys += [message.key() for message in messages]
        self._offsets += [message.offset() for message in messages]
        self._headers += headers
        self._rest += rest
        self.payload_bytes = sizes[taken]
        return taken

    def batch(self, log_id: str, partition: int) -> pa.RecordBatch:
        """Answer what was added, in order."""
        rest, count = self._rest, len(self)
        if count == 0:
            return NO_ROWS
        return pa.RecordBatch.from_arrays(
            [
                pa.array([r.id for r in rest], pa.string()),
                pa.array([r.received_at for r in rest], pa.int64()).cast(TIME),
                _array([r.event_time for r in rest], pa.int64()).cast(TIME),
                _array([r.source for r in rest], pa.string()),
                _array([r.content_type for r in rest], pa.string()),
                _array(self._keys, pa.binary()),
                headers_array(self._headers),
                metadata_array([r.metadata for r in rest]),
                pa.array(self._payloads, pa.binary()),
                pa.repeat(pa.scalar(log_id, pa.string()), count),
                pa.repeat(pa.scalar(partition, pa.int32()), count),
                pa.array(self._offsets, pa.int64()),
                _array([r.quarantine for r in rest], pa.bool_()),
                _array([r.named for r in rest], pa.bool_()),
            ],
            schema=LOG_SCHEMA,
        )


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Build a column; most are one value all the way."""
    if values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


def _taken_apart(
    messages: Sequence[Message],
) -> tuple[list[Sequence[tuple[str, bytes | None]] | None], list[_Rest]]:
    """Answer the events' headers, and what else there is of them."""
    try:
        found = [message.headers() for message in messages]
        ours = [all_[0][1] for all_ in found if all_ and all_[0][0] == HEADER]
        if len(ours) == len(messages):
            size = len(ours).to_bytes(4, "big")
            rest = _decode_all(b"".join([_ARRAY, size, *ours]))
            if {r.version for r in rest} == {VERSION} and not any(r.headers for r in rest):
                return [all_[1:] if len(all_) > 1 else None for all_ in found], rest
    except (msgspec.DecodeError, TypeError, UnicodeDecodeError):
        pass  # one of them is not ours: look at each alone
    pairs = [_one(message) for message in messages]
    return [headers for headers, _ in pairs], [rest for _, rest in pairs]


def _one(message: Message) -> tuple[_Pairs, _Rest]:
    """Take one record apart, whoever wrote it."""
    try:
        found = tuple((name, value or b"") for name, value in message.headers() or ())
    except UnicodeDecodeError:
        return (), _foreign(message, {"kafka_headers": "left out, a name is not UTF-8"})
    if not found or found[0][0] != HEADER:
        return found, _foreign(message, {})
    try:
        rest = _decode(found[0][1])
    except msgspec.DecodeError:
        _refuse_newer(found[0][1])
        return found, _foreign(message, {})
    if rest.version != VERSION:
        _refuse_newer(found[0][1])
        return found, _foreign(message, {})
    return (found[1:] if rest.headers is None else rest.headers), rest


def _refuse_newer(header: bytes) -> None:
    """Raise `LogDamaged` for a header that a newer release of this program wrote."""
    try:
        version, *_ = msgspec.msgpack.decode(header, type=list[msgspec.Raw])
        number = msgspec.msgpack.decode(version, type=int)
    except (msgspec.DecodeError, ValueError):
        return
    if number > VERSION:
        raise LogDamaged(
            f"a record has format version {number}, this release reads {VERSION}; "
            "it was written by a newer one"
        )


def _foreign(message: Message, notes: dict[str, str]) -> _Rest:
    """Answer what is to be said of a record that somebody else wrote."""
    place = {
        "topic": message.topic(),
        "partition": str(message.partition()),
        "offset": str(message.offset()),
    }
    if message.value() is None:
        notes = {**notes, "kafka_value": "null"}
    _, milliseconds = message.timestamp()
    return _Rest(
        version=VERSION,
        id="-".join(place.values()),
        received_at=max(0, milliseconds) * 1_000,
        source="kafka",
        metadata={**place, **notes},
    )
