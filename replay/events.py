"""Matching events on their way from the lake to a destination, column by column.

An object for each event costs more than reading it and giving it to a bus. So events travel as
columns, and an `Event` is made where somebody asks for one: for each request of HTTP, never for
Kafka.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple, overload

import pyarrow as pa

from penstock.codec import TIME
from penstock.envelope import Event, Micros, Position
from replay.request import Timing

Headers = tuple[tuple[str, bytes], ...]


class Original(NamedTuple):
    """An event and where it was on the log."""

    position: Position
    event: Event


class Events(Sequence[Original]):
    """Events of one log partition in log order. The columns are of one length, and not changed."""

    __slots__ = (
        "content_types",
        "event_times",
        "headers",
        "ids",
        "keys",
        "metadata",
        "offsets",
        "partition",
        "payloads",
        "received_at",
        "sources",
    )

    def __init__(
        self,
        partition: int,
        *,
        offsets: list[int],
        ids: list[str],
        received_at: list[Micros],
        event_times: list[Micros | None],
        sources: list[str],
        content_types: list[str | None],
        keys: list[bytes | None],
        headers: list[Headers],
        metadata: list[dict[str, str]],
        payloads: list[bytes],
    ) -> None:
        self.partition = partition
        self.offsets = offsets
        self.ids = ids
        self.received_at = received_at
        self.event_times = event_times
        self.sources = sources
        self.content_types = content_types
        self.keys = keys
        self.headers = headers
        self.metadata = metadata
        self.payloads = payloads

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Original: ...
    @overload
    def __getitem__(self, index: slice) -> Events: ...
    def __getitem__(self, index: int | slice) -> Original | Events:
        if isinstance(index, int):
            return Original(self.position(index), self.event(index))
        return Events(
            self.partition,
            offsets=self.offsets[index],
            ids=self.ids[index],
            received_at=self.received_at[index],
            event_times=self.event_times[index],
            sources=self.sources[index],
            content_types=self.content_types[index],
            keys=self.keys[index],
            headers=self.headers[index],
            metadata=self.metadata[index],
            payloads=self.payloads[index],
        )

    def __iter__(self) -> Iterator[Original]:
        return (self[number] for number in range(len(self)))

    def position(self, number: int) -> Position:
        """Answer where one of them was on the log."""
        return Position(self.partition, self.offsets[number])

    def time(self, number: int, timing: Timing) -> Micros | None:
        """Answer the time of one of them: of its receipt, or its own."""
        return (self.event_times if timing == "event" else self.received_at)[number]

    def event(self, number: int) -> Event:
        """Answer one of them as an object."""
        return Event(
            id=self.ids[number],
            received_at=self.received_at[number],
            payload=self.payloads[number],
            source=self.sources[number],
            content_type=self.content_types[number],
            key=self.keys[number],
            headers=self.headers[number],
            metadata=self.metadata[number],
            event_time=self.event_times[number],
        )


Source = AsyncIterator[Events]
"""Matching events in log order, in batches, from just after a replay's `through`."""


class Feed:
    """A source, and how far it was taken."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._events: Events | None = None
        self._number = 0

    async def fill(self) -> bool:
        """Have something to take; answer False at the end of the source."""
        while not self.left:
            try:
                self._events, self._number = await anext(self._source), 0
            except StopAsyncIteration:
                self._events = None
                return False
        return True

    @property
    def left(self) -> int:
        """How many events can be taken before it has to be filled."""
        return 0 if self._events is None else len(self._events) - self._number

    @property
    def position(self) -> Position:
        """Where the next event was on the log. Only while something is left."""
        return self._filled().position(self._number)

    def next(self, most: int) -> tuple[Events, int, int]:
        """Answer columns, and from where to where the next events are in them."""
        events = self._filled()
        return events, self._number, min(self._number + most, len(events))

    def passed(self, count: int) -> None:
        """Say that so many were taken."""
        self._number += count

    def _filled(self) -> Events:
        assert self._events is not None  # noqa: S101 - something is left
        return self._events


def one_event(position: Position, event: Event) -> Events:
    """Answer the columns of a single event."""
    return Events(
        position.partition,
        offsets=[position.offset],
        ids=[event.id],
        received_at=[event.received_at],
        event_times=[event.event_time],
        sources=[event.source],
        content_types=[event.content_type],
        keys=[event.key],
        headers=[event.headers],
        metadata=[event.metadata],
        payloads=[event.payload],
    )


def events_of(rows: pa.RecordBatch, partition: int) -> Events:
    """Take rows of the lake, all of one partition and in order, out of Arrow."""
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    return Events(
        partition,
        offsets=columns["log_offset"].to_pylist(),
        ids=columns["event_id"].to_pylist(),
        received_at=columns["received_at"].cast(TIME).cast(pa.int64()).to_pylist(),
        event_times=columns["event_time"].cast(TIME).cast(pa.int64()).to_pylist(),
        sources=columns["source"].to_pylist(),
        content_types=columns["content_type"].to_pylist(),
        keys=columns["key"].to_pylist(),
        headers=_headers(columns["headers"]),
        metadata=_metadata(columns["metadata"]),
        payloads=columns["payload"].to_pylist(),
    )


def _headers(column: pa.ListArray) -> list[Headers]:
    """Answer the headers of each row; pairs are taken from flat columns, dicts would cost more."""
    if column.null_count == len(column):
        return [()] * len(column)
    pairs = column.flatten()
    flat = list(zip(pairs.field("key").to_pylist(), pairs.field("value").to_pylist(), strict=True))
    found = []
    start = 0
    for length in column.value_lengths().to_pylist():
        end = start + (length or 0)
        found.append(tuple(flat[start:end]))
        start = end
    return found


def _metadata(column: pa.MapArray) -> list[dict[str, str]]:
    # Most collections have none, and the general way takes 1 us a row.
    if column.null_count == len(column):
        return [{}] * len(column)
    return [each or {} for each in column.to_pylist(maps_as_pydicts="strict")]
