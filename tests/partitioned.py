"""A log in memory that has partitions, for tests of what lanes do to one collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from zlib import crc32

import pyarrow as pa

from penstock.buffer import Glance, Glanced, Kept, Portion, glanced
from penstock.buffer.memory import MemoryLog
from penstock.codec import LOG_SCHEMA
from penstock.envelope import CollectionId, Event, Extent, Mark, Position


class PartitionedLog:
    """Keeps the promises of `Appender` and of `Buffer`, with several partitions.

    An event goes where Kafka's would: by its key, else by the id its sender gave, else to the
    first one.
    """

    def __init__(self, partitions: int = 2) -> None:
        self._logs = [MemoryLog() for _ in range(partitions)]

    def append(
        self, collection: CollectionId, events: Sequence[Event]
    ) -> Future[Sequence[Position | Exception]]:
        """Keep the events; the future is done already."""
        places = [self._place(event) for event in events]
        found: dict[int, list[int]] = {}
        for partition, log in enumerate(self._logs):
            part = [e for e, place in zip(events, places, strict=True) if place == partition]
            if part:
                found[partition] = [
                    position.offset for position in log.append(collection, part).result()
                ]
        future: Future[Sequence[Position | Exception]] = Future()
        future.set_result([Position(place, found[place].pop(0)) for place in places])
        return future

    def log_id(self, collection: CollectionId) -> str:
        """Answer one id for all partitions."""
        return self._logs[0].log_id(collection)

    def collections(self) -> Sequence[CollectionId]:
        """Answer every collection that ever had a record, sorted."""
        return sorted({name for log in self._logs for name in log.collections()})

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        """Answer what each partition holds."""
        return {number: log.extents(collection)[0] for number, log in enumerate(self._logs)}

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer where each partition ends."""
        return {c: {p: e.end for p, e in self.extents(c).items()} for c in collections}

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        """Answer what is kept of each."""
        return {c: Kept(self.log_id(c), self.extents(c)) for c in collections}

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        """Answer when the first record of each span was received."""
        return [glanced(self.read, one) for one in asked]

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        """Answer the records from `mark` on."""
        inner = replace(mark, partition=0)
        portion = self._logs[mark.partition].read(collection, inner, end=end, max_bytes=max_bytes)
        columns = dict(zip(LOG_SCHEMA.names, portion.rows.columns, strict=True))
        number = pa.scalar(mark.partition, pa.int32())
        columns["log_partition"] = pa.repeat(number, portion.rows.num_rows)
        rows = pa.RecordBatch.from_arrays(list(columns.values()), schema=LOG_SCHEMA)
        return Portion(rows, replace(portion.mark, partition=mark.partition))

    def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        """Keep everything."""

    def released(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer that nothing was let go."""
        return {c: dict.fromkeys(self.extents(c), 0) for c in collections}

    def close(self) -> None:
        """Nothing is open."""

    def _place(self, event: Event) -> int:
        by = event.key if event.key is not None else event.id.encode() if event.named else None
        return 0 if by is None else crc32(by) % len(self._logs)
