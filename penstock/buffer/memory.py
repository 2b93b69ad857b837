"""A log in the memory of one process, both sides in one object, for tests."""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import compress, takewhile

from penstock.buffer import Glance, Glanced, Kept, Portion, glanced
from penstock.buffer.released import KEPT_AFTER_RELEASE
from penstock.codec import Gathering, encode
from penstock.envelope import CollectionId, Event, Extent, Mark, Micros, Position
from penstock.errors import LogChanged, LogTruncated, LogUnavailable


@dataclass(frozen=True, slots=True)
class _Kept:
    """The events of one call of `append`."""

    first: int
    end: int
    block: bytes
    fingerprint: str


@dataclass(slots=True)
class _Records:
    """A collection: what is kept, and the fingerprint before it."""

    kept: list[_Kept] = field(default_factory=list)
    start: int = 0
    end: int = 0
    before: str = ""
    released: int = 0

    def fingerprint(self, offset: int) -> str:
        """Answer what a mark at an offset within start and end carries."""
        place = bisect_right(self.kept, offset - 1, key=lambda kept: kept.first) - 1
        return self.kept[place].fingerprint if place >= 0 else self.before


class MemoryLog:
    """Keeps the promises of `Appender` and of `Buffer`; what is appended is durable at once.

    While `failing` is set to an error, appends fail with it. `trim` lets old records go.
    """

    def __init__(self, log_id: str = "00000000-0000-0000-0000-000000000001") -> None:
        self.failing: Exception | None = None
        self._log_id = log_id
        self._collections: dict[CollectionId, _Records] = defaultdict(_Records)
        self._free_since: dict[tuple[CollectionId, int], Micros] = {}
        self._lock = threading.Lock()

    def log_id(self, collection: CollectionId) -> str:
        """Answer the id the log was made with, for every collection."""
        del collection
        return self._log_id

    def append(
        self, collection: CollectionId, events: Sequence[Event]
    ) -> Future[Sequence[Position | Exception]]:
        """Keep the events; the future is done already."""
        future: Future[Sequence[Position | Exception]] = Future()
        if not events:
            raise ValueError("append takes at least one event")
        if self.failing:
            future.set_exception(self.failing)
            return future
        try:
            block = encode(events)
        except Exception as error:  # noqa: BLE001 - it goes to the caller who gave the event
            future.set_exception(error)
            return future
        with self._lock:
            records = self._collections[collection]
            first, records.end = records.end, records.end + len(events)
            print_ = f"1-{zlib.crc32(block, first):08x}"
            records.kept.append(_Kept(first, records.end, block, print_))
        future.set_result([Position(0, offset) for offset in range(first, first + len(events))])
        return future

    def collections(self) -> Sequence[CollectionId]:
        """Answer every collection that ever had a record, sorted."""
        with self._lock:
            return sorted(name for name, records in self._collections.items() if records.end)

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        """Answer what partition 0, the only one, holds."""
        with self._lock:
            records = self._collections[collection]
            return {0: Extent(records.start, records.end)}

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer where partition 0 of each ends."""
        return {one: {0: self.extents(one)[0].end} for one in collections}

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        """Answer what is kept of each."""
        return {one: Kept(self._log_id, self.extents(one)) for one in collections}

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        """Answer when the first record of each span was received."""
        return [glanced(self.read, one) for one in asked]

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        """Answer the records from `mark` on; see `Buffer.read`."""
        gathering = Gathering()
        with self._lock:
            records = self._checked(collection, mark)
            place = bisect_right(records.kept, mark.next, key=lambda kept: kept.first) - 1
            for kept in records.kept[max(place, 0) :]:
                room = max_bytes - gathering.payload_bytes
                if mark.next >= end or room <= 0 or kept.end <= mark.next:
                    break
                stop = min(end, kept.end) - kept.first
                start = mark.next - kept.first
                stop = gathering.add(kept.block, kept.first, start, stop, max_bytes=room)
                mark = Mark(mark.log_id, 0, kept.first + stop, kept.fingerprint)
        return Portion(gathering.batch(self._log_id, 0), mark)

    def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        """Remember what every store has absorbed."""
        with self._lock:
            for mark in marks:
                self._checked(collection, mark).released = mark.next

    def released(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer the released offset of partition 0 of each."""
        with self._lock:
            return {one: {0: self._collections[one].released} for one in collections}

    def trim(self, now: Micros) -> int:
        """Let go of calls of which every event was released 15 minutes ago; answer how many."""
        gone = 0
        with self._lock:
            for collection, records in self._collections.items():
                free = [
                    self._may_go(collection, kept, records.released, now) for kept in records.kept
                ]
                for kept in list(compress(records.kept, takewhile(bool, free))):
                    records.kept.remove(kept)
                    records.start, records.before = kept.end, kept.fingerprint
                    gone += 1
        return gone

    def close(self) -> None:
        """Let go of the log: later appends fail, reading goes on."""
        self.failing = LogUnavailable("the log is closed")

    def _may_go(self, collection: CollectionId, kept: _Kept, released: int, now: Micros) -> bool:
        if kept.end > released:
            self._free_since.pop((collection, kept.first), None)
            return False
        since = self._free_since.setdefault((collection, kept.first), now)
        return now - since >= KEPT_AFTER_RELEASE

    def _checked(self, collection: CollectionId, mark: Mark) -> _Records:
        records = self._collections[collection]
        if mark.log_id != self._log_id or mark.partition != 0 or mark.next > records.end:
            raise LogChanged(f"the mark {mark} of {collection} is of another log")
        if mark.next < records.start:
            raise LogTruncated(f"the log of {collection} begins at {records.start}, after {mark}")
        if mark.next and mark.fingerprint not in ("", records.fingerprint(mark.next)):
            raise LogChanged(f"the log of {collection} holds another record before {mark}")
        return records
