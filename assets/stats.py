"""The statistics of what has landed: told while it lands, or counted from the lake afterwards.

Landing never waits for them. A thread tells what landed; where the books are away, or begin before
what is told, the sums are dropped and the lake is asked later for what lies behind the mark. So
they are exact up to their marks at any time, and come to the lake's marks in the end.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from assets.landing import Landed
from assets.minutes import COLUMNS, Sums
from lakehouse import Lake
from lakehouse.catalog import main_table, quarantine_table
from lakehouse.tables import scanned
from penstock.envelope import Clock, CollectionId, Mark, Span
from penstock.errors import Unavailable
from penstock.stats import Batch, Stats

log = structlog.get_logger()

REST_SECONDS = 10.0
"""How long books that did not answer are left alone."""

SMALL = 500_000
"""Positions that a landing run counts from the lake beside its work; what is more waits for
upkeep, which has a process of its own."""

_AT_ONCE = 1_000_000
"""Positions that are counted in one transaction: who is killed begins again at the last one."""

_TOLD = 1_000
"""Batches that wait to be told. Those that find no room are counted from the lake."""


def gaps(stats: Stats, lake: Lake, collection: CollectionId) -> list[Span]:
    """Answer the spans of each log that have landed and are not counted."""
    return [span for _, span in _gaps(stats, lake, collection)]


def count_from_lake(stats: Stats, lake: Lake, collection: CollectionId, *, clock: Clock) -> int:
    """Count everything that has landed and is not counted yet; answer how many positions that was.

    Others may count beside us; what they were faster with is left to them.
    """
    positions = 0
    for log_id, gap in _gaps(stats, lake, collection):
        for start in range(gap.start, gap.end, _AT_ONCE):
            span = Span(collection, gap.partition, start, min(gap.end, start + _AT_ONCE))
            sums = Sums()
            for quarantine in (False, True):
                for events in _events(lake, log_id, span, quarantine=quarantine):
                    sums.add(events)
                    if quarantine:
                        sums.note("quarantined", events)
                    else:
                        repeats = pc.is_valid(events["duplicate_of"])
                        sums.note("duplicates", events.filter(repeats))
            batch = Batch(
                collection=collection,
                log_id=log_id,
                spans=(span,),
                minutes=sums.minutes(),
                landed_at=clock(),
                lag=None,
            )
            if not stats.add(batch):
                break
            positions += len(span)
    return positions


class Books:
    """Tells the statistics what lands, from a thread of its own, for as long as the block lasts."""

    def __init__(
        self,
        stats: Callable[[], Stats],
        lake: Callable[[], Lake],
        *,
        clock: Clock,
        steady: Callable[[], float] = time.monotonic,
        patience: float = 5.0,
    ) -> None:
        """Take what is needed; `patience` is how many seconds the end of the block may wait."""
        self._stats = stats
        self._lake = lake
        self._clock = clock
        self._steady = steady
        self._patience = patience
        self._told: queue.Queue[Landed | None] = queue.Queue(_TOLD)
        self._behind: set[CollectionId] = set()
        self._ask_at = steady()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="statistics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        self._ending.set()
        try:
            self._told.put_nowait(None)
        except queue.Full:
            log.warning("statistics are far behind, upkeep counts the rest")
        self._thread.join(self._patience)

    def tell(self, landed: Landed) -> None:
        """Let the batch be counted; returns at once, whatever becomes of it."""
        try:
            self._told.put_nowait(landed)
        except queue.Full:
            log.debug("statistics are behind", collection=str(landed.collection))

    def _run(self) -> None:
        while True:
            try:
                landed = self._told.get(timeout=1.0 if self._behind else None)
            except queue.Empty:
                self._catch_up()
                continue
            if landed is None:
                self._catch_up()
                return
            self._count(landed)
            if self._told.empty() and not self._ending.is_set():
                self._catch_up()

    def _count(self, landed: Landed) -> None:
        counts, behind = landed.counts, landed.collection in self._behind
        if counts is None or behind or not self._asked(lambda stats: stats.add(counts)):
            self._behind.add(landed.collection)

    def _catch_up(self) -> None:
        """Count small gaps from the lake; large ones are left to upkeep."""
        for collection in sorted(self._behind):

            def count(stats: Stats, collection: CollectionId = collection) -> bool:
                missing = sum(len(span) for span in gaps(stats, self._lake(), collection))
                if missing > SMALL:
                    log.info("statistics are counted by upkeep", missing=missing)
                    return True
                count_from_lake(stats, self._lake(), collection, clock=self._clock)
                return True

            if self._asked(count) is None and self._resting:
                return
            self._behind.discard(collection)

    @property
    def _resting(self) -> bool:
        return self._steady() < self._ask_at

    def _asked(self, question: Callable[[Stats], bool]) -> bool | None:
        """Answer what the books answer, None where they do not."""
        if self._resting:
            return None
        try:
            return question(self._stats())
        except Unavailable as error:
            self._ask_at = self._steady() + REST_SECONDS
            log.warning("statistics are away, landing goes on without them", reason=str(error))
        except Exception as error:  # noqa: BLE001 - landing is not for them
            # Without the error's own words: a library may quote what it could not read.
            log.warning("statistics not kept", error=type(error).__name__)
        return None


def _gaps(stats: Stats, lake: Lake, collection: CollectionId) -> list[tuple[str, Span]]:
    view = lake.view(collection)
    if view is None:
        return []
    counted = stats.marks(collection)

    def gap(mark: Mark) -> Span:
        start = counted.get((mark.log_id, mark.partition), 0)
        return Span(collection, mark.partition, min(start, mark.next), mark.next)

    found = ((mark.log_id, gap(mark)) for mark in view.marks)
    return [(log_id, span) for log_id, span in found if len(span)]


def _events(lake: Lake, log_id: str, span: Span, *, quarantine: bool) -> Iterator[pa.RecordBatch]:
    """Answer what statistics need to know of the events of a span.

    What lies below the table's mark does not change: quarantine has it before main says so.
    """
    collection = span.collection
    table = lake.table(quarantine_table(collection) if quarantine else main_table(collection))
    if table is None:
        return
    wanted = (
        f"log_partition = {span.partition} "
        f"and log_offset >= {span.start} and log_offset < {span.end}"
    )
    columns = (*COLUMNS, "log_id", *(() if quarantine else ("duplicate_of",)))
    for batch in scanned(table, columns, wanted):
        yield batch.filter(pc.equal(batch["log_id"], log_id))
