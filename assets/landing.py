"""Landing: from the log to the lake, batch by batch.

Nothing here knows Dagster. A run calls `drain`, `penstock land --once` calls it with no patience,
and both may be killed at any point: the table's marks say where the next one goes on.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from assets.minutes import COLUMNS as COUNTED
from assets.minutes import minutes_of
from assets.remedies import explained
from lakehouse import Lake, TableView
from lakehouse.closings import settle_releases
from lakehouse.commit import Batch, Committed, Look, land, opaque, refuse_changed, unmarked
from lakehouse.duplicates import Duplicates
from penstock.buffer import Buffer
from penstock.codec import ENVELOPE, LOG_SCHEMA
from penstock.envelope import Clock, CollectionId, Extent, Mark, Micros, Span
from penstock.errors import (
    EngineUnavailable,
    LogChanged,
    LogReplaced,
    NotFound,
    PenstockError,
    Stopped,
    TableReplaced,
    Unavailable,
)
from penstock.faults import fault
from penstock.memory import giving_back
from penstock.schema.convert import Change, Converted, Rules, TooWide, convert
from penstock.schema.repeats import Marked
from penstock.schema.shape import Struct, count_columns
from penstock.stats import Batch as Counts

log = structlog.get_logger()

_Of = TypeVar("_Of")

_SECOND: Micros = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one commit takes, and how long events may wait for it."""

    batch_bytes: int = 64 << 20
    """Payload bytes of one commit."""
    batch_cells: int = 16_000_000
    """Values of discovered columns of one commit, nulls included: some 20 bytes of memory each.
    50,000 small events with 1,000 different fields have 50 million."""
    patience: Micros = 2 * _SECOND
    """How long an event waits while few collections are busy."""
    most_patience: Micros = 50 * _SECOND
    """How long it waits at most, however many are, its turn among them included."""
    plenty: int = 20_000
    """Waiting events that are landed without any patience."""
    share: float = 0.25
    """The part of a core that small commits may take."""
    at_once: int = 1
    """So many small batches are landed at the same time: a commit mostly waits for its stores.
    Each has its part of the limits above."""
    shortest_back_off: Micros = _SECOND
    longest_back_off: Micros = 60 * _SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """One batch that is in the lake."""

    collection: CollectionId
    spans: tuple[Span, ...]
    rows: int
    quarantined: int
    bytes: int
    """Payload bytes."""
    file_bytes: int
    """What they take in the lake, typed columns included."""
    columns: int
    changes: tuple[Change, ...]
    snapshot_id: int | None
    seconds: float
    lag: Micros
    """How old the oldest event of the batch was when it had landed."""
    waiting: int
    """Events that were behind the batch when it was read."""
    counts: Counts | None = None
    """What statistics are told; None where only the lake can say it."""
    duplicates: int = 0
    """Rows that repeat another one."""
    reused: int = 0
    """Rows with the id of an earlier one, and other bytes."""
    duplicate_window: Micros | None = None
    """How far back was looked for what they repeat, where there was no room for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A collection that could not land; it is tried again at `again_at`."""

    collection: CollectionId
    error: Exception
    again_at: Micros

    @property
    def stopped(self) -> bool:
        """Whether an operator has to look before anything goes on."""
        return isinstance(self.error, Stopped)

    @property
    def passes(self) -> bool:
        """Whether it is expected to pass by itself."""
        return isinstance(self.error, Unavailable)

    @property
    def reason(self) -> str:
        """What people may read; of a library's error the name only: it may quote a payload."""
        if isinstance(self.error, PenstockError):
            return explained(self.collection, self.error)
        if isinstance(self.error, OSError) and self.error.strerror:
            return self.error.strerror
        return f"an unexpected {type(self.error).__name__}, see the log of the run"


@dataclass(frozen=True, slots=True)
class Lane:
    """A share of all log partitions: which of how many. The default is all of them."""

    number: int = 0
    of: int = 1

    def drains(self, collection: CollectionId, partition: int) -> bool:
        """Answer whether the partition is in this lane; those of one collection are in turn."""
        return (zlib.crc32(str(collection).encode()) + partition) % self.of == self.number

    def share(self, collection: CollectionId, partitions: Mapping[int, _Of]) -> Mapping[int, _Of]:
        """Answer the partitions of a collection that this lane drains."""
        if self.of == 1:
            return partitions
        return {p: of for p, of in partitions.items() if self.drains(collection, p)}


class History(Protocol):
    """Where changes of a collection's columns are kept for people to read."""

    def add_schema_version(
        self, collection: CollectionId, at: Micros, changes: Sequence[Mapping[str, object]]
    ) -> int:
        """Add the changes as the next version; raise `NotFound` for an unknown collection."""
        ...


def due(waiting: int, oldest: Micros, *, plenty: int, patience: Micros) -> bool:
    """Land when there is plenty to land, or when something has waited long enough."""
    return waiting >= plenty or (waiting > 0 and oldest >= patience)


def patience_among(active: int, pace: Micros, limits: Limits) -> Micros:
    """Answer how long events wait while `active` collections have some, one landing each `pace`.

    One commit each per `patience` takes no more than the limits' share of a core: hundreds of
    small collections make their events wait rather than the machine. But who is the last of them
    in turn has waited for all the others as well, and both together have an end.
    """
    turn = active * pace
    fair = round(turn / limits.share)
    return max(limits.patience, min(fair, limits.most_patience - turn))


def back_off(failures: int, limits: Limits) -> Micros:
    """Answer how long a collection rests after it failed this many times in a row."""
    return min(limits.longest_back_off, limits.shortest_back_off << min(max(failures - 1, 0), 20))


def begin(view: TableView, log_id: str, extents: Mapping[int, Extent]) -> list[Mark]:
    """Answer where each partition of the log goes on.

    Raises `LogReplaced` if the table was filled from another log, `LogChanged` if it knows more of
    this one than there is, `TableRolledBack` and `TableUnmarked` as `refuse_changed` does.
    """
    refuse_changed(view)
    logs = {mark.log_id for mark in view.marks}
    if logs and log_id not in logs:
        raise LogReplaced(
            f"{view.collection} was landed from the log {', '.join(sorted(logs))}, this is {log_id}"
        )
    starts = [view.mark(log_id, partition) for partition in sorted(extents)]
    for mark in starts:
        end = extents[mark.partition].end
        if mark.next > end:
            raise LogChanged(
                f"the log of {view.collection} ends at {end} in partition {mark.partition}, "
                f"but {mark.next} events of it have landed"
            )
    return starts


def as_misfits(
    quarantined: pa.Table, schema: pa.Schema, *, shape: Struct, rules: Rules
) -> pa.Table:
    """Turn events that would go to quarantine into rows of `schema`: nothing gets a new column.

    For the repetition of a batch that was begun under another contract, see `lakehouse.commit`.
    """
    count = quarantined.num_rows
    # Neither a wish for quarantine nor a repetition: what it repeats is looked for afterwards.
    no = pa.repeat(pa.scalar(value=False), count)
    columns = [*quarantined.select(ENVELOPE.names).columns, no, no]
    again = _one_batch(pa.Table.from_arrays(columns, schema=LOG_SCHEMA))
    converted = convert(again, shape, replace(rules, contract="freeze"))
    return pa.concat_tables([converted.rows, opaque(converted.quarantined, schema)])


@dataclass(frozen=True)
class _Read:
    """What was read of a collection.

    `starts` are all its partitions, `marks` the ends in those that have something.
    """

    starts: list[Mark]
    marks: tuple[Mark, ...]
    batches: list[pa.RecordBatch]
    waiting: int

    @cached_property
    def rows(self) -> pa.RecordBatch:
        """The events of all partitions."""
        return self.batches[0] if len(self.batches) == 1 else pa.concat_batches(self.batches)


@dataclass(slots=True)
class _Seen:
    """What a drain knows of one collection."""

    landed: dict[int, int] = field(default_factory=dict)
    since: Micros | None = None
    failures: int = 0
    not_before: Micros = 0
    stopped: bool = False
    """Whether an operator has to look before it lands again."""
    overdue: bool = False
    """Whether it waited when this drain began: for how long, only the one before would know."""


class _Room(NamedTuple):
    """What one batch may have, bytes being those of payloads."""

    rows: int
    bytes: int


class Landing:
    """Lands the collections of one log. Other processes may land beside it.

    One thread uses it; of its own it has those in which small batches land at the same time.
    """

    def __init__(
        self,
        buffer: Buffer,
        lake: Lake,
        history: History | None = None,
        *,
        rules: Callable[[CollectionId], Rules],
        clock: Clock,
        limits: Limits | None = None,
        lane: Lane | None = None,
        duplicates: Duplicates | None = None,
        chance: Callable[[int], bytes] = os.urandom,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take what landing needs.

        `rules` answers a collection's contract, asked before each batch. `chance(n)` answers n
        random bytes, for names that nobody else gives. `wait` sleeps for so many seconds.
        """
        self._buffer = buffer
        self._lake = lake
        self._history = history
        self._rules = rules
        self._clock = clock
        self._limits = limits or Limits()
        self._lane = lane or Lane()
        self._chance = chance
        self._duplicates = duplicates or Duplicates()
        self._wait = wait
        self._untold: deque[tuple[CollectionId, Micros, tuple[Change, ...]]] = deque(maxlen=1_000)
        self._telling = threading.Lock()
        self._uuids: dict[CollectionId, str] = {}
        self._fitting: dict[CollectionId, int] = {}
        """How many rows like the last ones a batch can take."""

    def land_once(self, collection: CollectionId, *, parts: int = 1) -> Landed | None:
        """Land one batch of the collection; None if nothing waits.

        The batch takes one of so many `parts` of what the limits allow.

        Raises `Stopped` if going on could skip or double events, `Unavailable` if trying again
        later can help. Whatever is raised, nothing is lost or doubled by trying again.
        """
        started = self._clock()
        view = self._lake.view(collection)
        read: _Read | None = None
        for _ in self._lake.patience.attempts():
            if view is None:
                mine = self._lane.share(collection, self._buffer.extents(collection))
                if not any(extent.end for extent in mine.values()):
                    return None
                view = self._lake.create(collection)
            self._refuse_another_table(view)
            extents = self._buffer.extents(collection)
            starts = begin(view, self._buffer.log_id(collection), extents)
            starts = [m for m in starts if self._lane.drains(collection, m.partition)]
            if read is None or read.starts != starts:
                read = self._read(collection, starts, extents, self._room(view, parts))
                fault("span_read")
            if not read.marks:
                return None
            rules = self._rules(collection)
            read, converted = self._convert(read, view, rules, extents, parts)
            converted = settle_releases(self._lake, collection, converted, clock=self._clock)
            outcome = land(self._lake, self._batch(view, read, converted, rules), clock=self._clock)
            view = outcome.view
            if isinstance(outcome, Committed) and outcome.here:
                return self._landed(read, converted, outcome, started)
        raise EngineUnavailable(f"others kept landing {collection} beside this process")

    def drain(
        self,
        collections: Callable[[], Sequence[CollectionId]],
        *,
        until: Callable[[], bool],
        idle: Micros | None = None,
        hurry: Callable[[], Container[CollectionId]] = tuple,
    ) -> Iterator[Landed | Trouble]:
        """Land what is due, again and again, and answer each batch and each trouble.

        Ends when `until` says so, or when nothing has waited for `idle` microseconds; with 0 of
        them one that has stopped is not waited for either.
        Collections in `hurry`, asked at each look, are landed without patience: somebody waits
        for them, a plan mostly. So is what waits at the first look, where others have landed
        before: it has waited for this drain.
        What goes wrong with one collection never stops the others: it rests, a little longer each
        time.
        """
        with giving_back(), ThreadPoolExecutor(self._limits.at_once, "landing") as threads:
            yield from self._drain(threads, collections, until, idle, hurry)

    def _drain(
        self,
        threads: Executor,
        collections: Callable[[], Sequence[CollectionId]],
        until: Callable[[], bool],
        idle: Micros | None,
        hurry: Callable[[], Container[CollectionId]],
    ) -> Iterator[Landed | Trouble]:
        seen: dict[CollectionId, _Seen] = {}
        # Nothing is known yet: then nobody waits for the sake of the machine.
        pace = 0
        busy_at = self._clock()
        while not until():
            now = self._clock()
            waiting = self._look(_known(collections), seen, now)
            patience = patience_among(len(waiting), pace, self._limits)
            urgent = hurry()
            ready = [
                collection
                for collection, count in waiting.items()
                if self._due(seen[collection], count, now, 0 if collection in urgent else patience)
            ]
            # The oldest first: one that is busy all the time must not starve the others.
            ready.sort(key=lambda c: seen[c].since or 0)
            begun = self._clock()
            for outcome in self._turn(threads, ready, waiting, seen, until):
                if outcome is not None:
                    yield outcome
                # What is done about a batch while it is answered keeps the next one waiting.
                ended = self._clock()
                if isinstance(outcome, Landed) and outcome.rows < self._limits.plenty:
                    took = max(0, ended - begun)
                    pace = (7 * pace + took) // 8 if pace else took
                begun = ended
            if until():
                return
            if any(idle or not seen[collection].stopped for collection in waiting):
                busy_at = self._clock()
            elif idle is not None and self._clock() - busy_at >= idle:
                return
            if not ready:
                self._wait(max(self._limits.patience / 4, _SECOND / 50) / _SECOND)

    def _turn(
        self,
        threads: Executor,
        ready: Sequence[CollectionId],
        waiting: Mapping[CollectionId, int],
        seen: Mapping[CollectionId, _Seen],
        until: Callable[[], bool],
    ) -> Iterator[Landed | Trouble | None]:
        """Try each in turn, and answer what came of them in that order.

        Small batches are landed some at a time. One with plenty has the machine for itself.
        """
        small = sum(waiting[collection] < self._limits.plenty for collection in ready)
        parts = max(1, min(small, self._limits.at_once))
        under_way: deque[Future[Landed | Trouble | None]] = deque()
        for collection in ready:
            alone = waiting[collection] >= self._limits.plenty
            while len(under_way) > (0 if alone else parts - 1):
                yield under_way.popleft().result()
            if until():
                break
            under_way.append(
                threads.submit(self._try, collection, seen[collection], 1 if alone else parts)
            )
            if alone:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _look(
        self, collections: Sequence[CollectionId], seen: dict[CollectionId, _Seen], now: Micros
    ) -> dict[CollectionId, int]:
        """Answer how many events of each collection wait, for those that have any.

        The catalog is asked once per collection: nobody but landing moves the marks, and where
        others land as well the batch that finds nothing says so.
        """
        waiting = {}
        ends = self._ends(collections)
        for collection in collections:
            known = seen.get(collection)
            if known is None:
                known = seen[collection] = _Seen()
                try:
                    self._remember(collection, known)
                    known.overdue = bool(known.landed)
                except Stopped:
                    # Landing itself meets it, and reports it, whether anything waits or not.
                    known.landed, known.overdue = {}, True
            mine = self._lane.share(collection, ends.get(collection, {}))
            count = sum(max(0, end - known.landed.get(p, 0)) for p, end in mine.items())
            if not count:
                known.since, known.overdue = None, False
                continue
            # A clock that was set back must not let events wait until it is there again.
            known.since = min(known.since or now, now)
            known.not_before = min(known.not_before, now + self._limits.longest_back_off)
            waiting[collection] = count
        return waiting

    def _ends(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer where the partitions end; of none while the log does not answer."""
        try:
            return self._buffer.ends(collections)
        except Unavailable as error:
            log.warning("log not looked at", error=str(error))
            return {}

    def _due(self, known: _Seen, count: int, now: Micros, patience: Micros) -> bool:
        waited = now - (known.since or now)
        patience = 0 if known.overdue else patience
        return now >= known.not_before and due(
            count, waited, plenty=self._limits.plenty, patience=patience
        )

    def _remember(self, collection: CollectionId, known: _Seen) -> None:
        """Take over what landed before, and let the log forget it: a crash may have kept that.

        Raises `Stopped` where the log is not as it was when that landed.
        """
        try:
            view = self._lake.view(collection)
            log_id = self._buffer.log_id(collection) if view is not None else ""
        except Exception as error:  # noqa: BLE001 - landing itself will meet it, and report it
            log.warning("table not loaded", collection=str(collection), error=repr(error))
            return
        if view is not None:
            marks = self._mine(collection, view, log_id)
            known.landed = {mark.partition: mark.next for mark in marks}
            self._release(collection, marks)

    def _try(self, collection: CollectionId, known: _Seen, parts: int) -> Landed | Trouble | None:
        begun = self._clock()
        try:
            landed = self.land_once(collection, parts=parts)
            if landed is None:
                # Somebody else landed it.
                self._remember(collection, known)
        except Exception as error:  # noqa: BLE001 - one collection must not stop the others
            known.failures += 1
            known.stopped = isinstance(error, Stopped)
            if known.stopped:
                # Whoever resolves it may set the marks back: nothing may have to come for that.
                known.landed = {}
            known.not_before = self._clock() + back_off(known.failures, self._limits)
            _report(collection, error)
            return Trouble(collection=collection, error=error, again_at=known.not_before)
        # What waits at the next look may have come while the others had their turn.
        known.failures, known.not_before, known.since = 0, 0, begun
        known.stopped = known.overdue = False
        if landed is not None:
            known.landed.update({span.partition: span.end for span in landed.spans})
        return landed

    def _room(self, view: TableView, parts: int) -> _Room:
        """Answer what a batch may have, from what is known before it is read."""
        wide = self._limits.batch_cells // max(1, count_columns(view.shape))
        rows = min(wide, self._fitting.get(view.collection, wide)) // parts
        return _Room(max(1, rows), self._limits.batch_bytes // parts)

    def _convert(
        self, read: _Read, view: TableView, rules: Rules, extents: Mapping[int, Extent], parts: int
    ) -> tuple[_Read, Converted]:
        """Convert what was read, or so much of it as the limit of cells allows."""
        collection, most = view.collection, self._limits.batch_cells // parts
        while True:
            try:
                converted = convert(read.rows, view.shape, rules, most_cells=most)
            except TooWide as wide:
                # Fewer each time: the bound of a single event is in the rules.
                room = _Room(wide.rows, self._limits.batch_bytes // parts)
                read = self._read(collection, read.starts, extents, room)
                continue
            # The next rows are like these, a little wider perhaps.
            rows, cells = read.rows.num_rows, max(1, converted.cells)
            self._fitting[collection] = 7 * rows * self._limits.batch_cells // (8 * cells)
            return read, converted

    def _read(
        self,
        collection: CollectionId,
        starts: list[Mark],
        extents: Mapping[int, Extent],
        room: _Room,
    ) -> _Read:
        """Read what follows the marks, a fair part of each partition that has something."""
        busy = [mark for mark in starts if mark.next < extents[mark.partition].end][: room.rows]
        share = max(1, room.bytes // max(len(busy), 1))
        rows = max(1, room.rows // max(len(busy), 1))
        batches, marks, waiting = [], [], 0
        for mark in busy:
            end = extents[mark.partition].end
            upto = min(end, mark.next + rows)
            portion = self._buffer.read(collection, mark, end=upto, max_bytes=share)
            waiting += end - portion.mark.next
            if portion.mark != mark:
                batches.append(portion.rows)
                marks.append(portion.mark)
        return _Read(starts, tuple(marks), batches, waiting)

    def _batch(self, view: TableView, read: _Read, converted: Converted, rules: Rules) -> Batch:
        shape = converted.shape
        return Batch(
            converted=converted,
            based_on=view,
            marks=read.marks,
            batch_id="_".join(
                f"{mark.partition}-{view.mark(mark.log_id, mark.partition).next}-{mark.next}"
                for mark in read.marks
            ),
            run_id=self._chance(8).hex(),
            as_rows=lambda events, schema: as_misfits(events, schema, shape=shape, rules=rules),
            look=self._marking(read),
        )

    def _marking(self, read: _Read) -> Look:
        """Answer what marks the rows that repeat others; nothing is asked where none can."""
        if not any(pc.any(batch["named"]).as_py() for batch in read.batches):
            return unmarked
        return self._duplicates.among(read.rows)

    def _landed(
        self, read: _Read, converted: Converted, committed: Committed, started: Micros
    ) -> Landed:
        """Say everywhere that the batch has landed, and answer what it was."""
        collection = committed.view.collection
        now = self._clock()
        log_id = read.starts[0].log_id
        self._release(collection, self._mine(collection, committed.view, log_id))
        if converted.changes and self._history is not None:
            self._untold.append((collection, now, converted.changes))
        self._tell()
        rows = read.rows
        oldest = pc.min(rows["received_at"].cast(pa.int64())).as_py()
        lag = max(0, now - oldest) if oldest is not None else 0
        spans = tuple(
            Span(collection, mark.partition, start.next, mark.next)
            for start in read.starts
            for mark in read.marks
            if mark.partition == start.partition
        )
        counts = None
        # After a crash quarantine may hold what this batch would have made rows, and the reverse.
        if (committed.rows, committed.quarantined) == (
            converted.rows.num_rows,
            converted.quarantined.num_rows,
        ):
            counts = Counts(
                collection=collection,
                log_id=log_id,
                spans=spans,
                minutes=minutes_of(read.batches, converted.quarantined, _repeats(committed.marked)),
                landed_at=now,
                lag=lag,
            )
        landed = Landed(
            collection=collection,
            spans=spans,
            rows=committed.rows,
            quarantined=committed.quarantined,
            bytes=pc.sum(pc.binary_length(rows["payload"])).as_py() or 0,
            file_bytes=committed.file_bytes,
            columns=count_columns(converted.shape),
            changes=converted.changes,
            snapshot_id=committed.view.snapshot_id,
            seconds=(now - started) / _SECOND,
            lag=lag,
            waiting=read.waiting,
            counts=counts,
            duplicates=committed.marked.repeats if committed.marked else 0,
            reused=committed.marked.reused if committed.marked else 0,
            duplicate_window=committed.marked.window if committed.marked else None,
        )
        log.info(
            "batch landed",
            spans=[str(span) for span in landed.spans],
            rows=landed.rows,
            quarantined=landed.quarantined,
            duplicates=landed.duplicates,
            changes=len(landed.changes),
            seconds=round(landed.seconds, 3),
        )
        return landed

    def _mine(self, collection: CollectionId, view: TableView, log_id: str) -> list[Mark]:
        """Answer the marks of the lane: of other lanes' partitions the table may know less."""
        return [
            mark
            for mark in view.marks
            if mark.log_id == log_id and self._lane.drains(collection, mark.partition)
        ]

    def _release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        """Let the log forget what has landed; that it could not is told, and tried again later."""
        try:
            self._buffer.release(collection, marks)
        except (Unavailable, OSError) as error:
            log.warning("log not released", collection=str(collection), error=repr(error))

    def _tell(self) -> None:
        """Enter new columns in the history; what it does not take now it gets next time."""
        with self._telling:
            while self._history is not None and self._untold:
                collection, at, changes = self._untold[0]
                try:
                    self._history.add_schema_version(
                        collection, at, [asdict(change) for change in changes]
                    )
                except NotFound:
                    log.warning("no such collection to note new columns for", name=str(collection))
                except Exception as error:  # noqa: BLE001 - the columns are in the table, not lost
                    log.warning("new columns not noted", name=str(collection), error=repr(error))
                    return
                self._untold.popleft()

    def _refuse_another_table(self, view: TableView) -> None:
        known = self._uuids.setdefault(view.collection, view.uuid)
        if view.adopted == view.uuid:
            self._uuids[view.collection] = view.uuid
        elif known != view.uuid:
            raise TableReplaced(
                f"the table of {view.collection} was replaced by another one while events landed"
            )


def _repeats(marked: Marked | None) -> pa.Table | None:
    """Answer the rows that repeat others, None where there are none."""
    if marked is None or not marked.repeats:
        return None
    rows = marked.rows.select([*COUNTED, "duplicate_of"])
    return rows.filter(pc.is_valid(rows["duplicate_of"]))


def _known(collections: Callable[[], Sequence[CollectionId]]) -> Sequence[CollectionId]:
    """Answer the collections; none while the log does not answer."""
    try:
        return collections()
    except Unavailable as error:
        log.warning("collections not known", error=str(error))
        return ()


def _report(collection: CollectionId, error: Exception) -> None:
    match error:
        case Stopped():
            log.error(
                "landing stopped, an operator has to look",
                collection=str(collection),
                reason=type(error).__name__,
                error=explained(collection, error),
            )
        case Unavailable():
            log.warning("landing waits", collection=str(collection), error=str(error))
        case _:
            # Without the error's own words: a library may quote what it could not read.
            log.error(
                "landing failed",
                collection=str(collection),
                error=type(error).__name__,
                where="".join(traceback.format_tb(error.__traceback__)[-3:]),
            )


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=rows.schema)
