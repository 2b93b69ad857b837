"""What a format is, and the events that are written in all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
from builders import NOON, event

from penstock.envelope import Event, Position
from penstock.lines import Packed, bytes_of

WRITTEN = Path(__file__).parents[1] / "written"
HEX = ".hex"
_ROW = 16

EVENTS: tuple[Event, ...] = (
    event(
        '{"n": 1, "city": "Zürich", "at": {"gate": "A 1"}}',
        id="e-1",
        key=b"k1",
        headers=(("X-Shop", b"north"), ("x-raw", b"\xff\x00")),
        metadata={"topic": "orders", "partition": "3"},
        event_time=NOON - 1_500_000,
        named=True,
    ),
    event(b"\x00\x01\n", id="e-2", content_type=None, received_at=NOON + 1, source="grpc"),
)
"""One with everything that an event may have, and one with nothing; its payload is no text."""


class Format(NamedTuple):
    """Bytes that somebody else reads, or this program later."""

    name: str
    """Of the file, in which what is no text is hexadecimal (`HEX`)."""
    write: Callable[[], bytes]
    read: Callable[[bytes], object]
    means: object
    """What is read in it."""

    @property
    def file(self) -> Path:
        """Answer where the bytes are kept."""
        return WRITTEN / self.name

    def kept_as(self, data: bytes) -> bytes:
        """Answer how the file holds these bytes."""
        return in_hex(data) if self.file.suffix == HEX else data

    def kept(self) -> bytes:
        """Answer the bytes that the file holds."""
        content = self.file.read_bytes()
        return of_hex(content) if self.file.suffix == HEX else content


def in_hex(data: bytes) -> bytes:
    """Answer lines of sixteen bytes, the text in them beside."""
    lines = []
    for start in range(0, len(data), _ROW):
        part = data[start : start + _ROW]
        text = "".join(chr(one) if 0x20 < one < 0x7F else "." for one in part)
        lines.append(f"{part.hex(' '):<{3 * _ROW}} {text}\n")
    return "".join(lines).encode()


def of_hex(content: bytes) -> bytes:
    """Answer the bytes of such lines."""
    return b"".join(bytes.fromhex(line[: 3 * _ROW].decode()) for line in content.splitlines())


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record of Kafka as its client is given it."""

    topic: str
    partition: int
    milliseconds: int | None = None
    key: str | Packed | None
    value: str | Packed
    headers: list[tuple[str, str | Packed]]


class Consumed:
    """Stands where a record stands that a client of Kafka answers."""

    def __init__(self, record: Record, offset: int) -> None:
        self._record = record
        self._offset = offset

    def topic(self) -> str:
        return self._record.topic

    def partition(self) -> int:
        return self._record.partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._record.milliseconds or 0

    def key(self) -> bytes | None:
        return None if self._record.key is None else bytes_of(self._record.key)

    def value(self) -> bytes:
        return bytes_of(self._record.value)

    def headers(self) -> list[tuple[str, bytes]]:
        return [(name, bytes_of(value)) for name, value in self._record.headers]


def told(data: bytes) -> str | Packed:
    """Answer bytes as they stand in JSON: text, or base64 where they are none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Packed(msgspec.to_builtins(data))


def in_lines(records: list[Record]) -> bytes:
    """Answer the records as lines of JSON."""
    return b"".join(msgspec.json.encode(one) + b"\n" for one in records)


def of_lines(content: bytes) -> list[Record]:
    """Answer the records of such lines."""
    return msgspec.json.Decoder(Record).decode_lines(content)


def events_in(batch: pa.RecordBatch) -> list[tuple[Position, Event]]:
    """Answer the events of a batch that was read from a log, with their places."""
    names = ("received_at", "event_time")
    times = {name: batch.column(name).cast(pa.int64()).to_pylist() for name in names}
    return [
        (
            Position(row["log_partition"], row["log_offset"]),
            Event(
                id=row["event_id"],
                received_at=times["received_at"][number],
                event_time=times["event_time"][number],
                payload=row["payload"],
                source=row["source"],
                content_type=row["content_type"],
                key=row["key"],
                headers=tuple((one["key"], one["value"]) for one in row["headers"] or ()),
                metadata=dict(row["metadata"] or ()),
                quarantine=row["quarantine_wish"],
                named=row["named"],
            ),
        )
        for number, row in enumerate(batch.to_pylist())
    ]
