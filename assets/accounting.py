"""The books of a collection: how many events were accepted, and where each of them is.

    accepted = landed + duplicates + quarantined + closed + waiting + expired + lost + carried + …

`accepted` comes from the log: a partition whose next position is 7 has accepted 7 events, however
many of them it has let go of since. It never comes from what landed, or the sum would prove
nothing. The parts come from the tables, each from one load. `balance` puts them together, and is
the only place that does: `penstock status`, the API, the metrics, `penstock doctor` and the check
`books` all show what it says.

The order of the reads is what makes the sum right while events arrive and land:

1. The log's ends. They only grow, and the log keeps what has not landed: behind the marks that
   are read next there is nothing that the log has let go of before.
   So all ends are read before the first table.
2. The main table: rows and marks of one load. What landed since 1. is accepted as well, so a
   partition has accepted up to its end or its mark, whichever is further.
3. Quarantine, of the same moment or a later one. It is ahead of the marks for a moment in each
   landing, and after one that broke off; the rows at or behind the marks still count as waiting,
   so they are left out. Where rows behind those marks have landed and expired meanwhile nobody
   can tell how many that were, and 2. and 3. are done again.
4. What of it is closed. That is part of what quarantine has and never more, so whatever is closed
   in between changes how the two are told apart, and not their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from assets.landing import begin
from assets.remedies import explained
from lakehouse.commit import refuse_either_changed
from lakehouse.tables import Seen, TableView
from penstock.buffer import Buffer, Glance, Glanced, Kept
from penstock.envelope import Clock, CollectionId, Extent, Mark, Micros
from penstock.errors import (
    EngineUnavailable,
    LogTruncated,
    LogUnavailable,
    Stopped,
    Unavailable,
)
from penstock.search.index import Index

_SECOND: Micros = 1_000_000

_T = TypeVar("_T")

LOOKS = 3
"""So often tables are read at the most, if retention drops what has just landed."""

PARTS: Mapping[str, str] = {
    "landed": "rows of the table that repeat no other",
    "duplicates": "rows that repeat another one",
    "quarantined": "events in quarantine that are open",
    "closed": "events in quarantine that were released or discarded",
    "waiting": "events that the log holds and that have not landed yet",
    "expired": "rows that retention dropped when their day was over for long enough",
    "lost": "events that are gone, as an operator has stated by `collection resolve`",
    "carried": "events that `log renew` carried over to a new log, where they count again",
}
"""What an accepted event can be, in the order in which it is shown.

A released event has two positions: the one it is closed at, and the one it was sent to again. So
has one that was carried over to a new log.
A part that is neither a row nor a position is a number that the table keeps beside its rows and
moves in the commit that takes the rows away: what expired by log partition, the others as the
property `penstock.books.<part>`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionBooks:
    """One partition of the log: what it keeps from `start` to `end`, and where the table is."""

    partition: int
    start: int
    end: int
    mark: int
    waiting: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What was accepted of a collection, and what became of it, at one moment."""

    collection: CollectionId
    log_id: str
    accepted: int
    parts: Mapping[str, int]
    """By the names in `PARTS`; all of them, and what the tables keep beside."""
    partitions: tuple[PartitionBooks, ...]
    """Those of the log that there is now."""
    table: TableView | None
    quarantine: TableView | None

    @property
    def difference(self) -> int:
        """How many accepted events are nowhere; less than 0 if some are there twice."""
        return difference(self.accepted, self.parts)

    @property
    def waiting(self) -> int:
        """How many events have not landed."""
        return self.parts["waiting"]

    @property
    def sentence(self) -> str:
        """Say whether the books add up, and the sum."""
        sum_ = " + ".join(f"{count:,} {name}" for name, count in shown(self.parts).items())
        found = f"{self.accepted:,} accepted, {sum_}"
        if not self.difference:
            return f"the books add up: {found}"
        what = "too few" if self.difference > 0 else "too many"
        return f"the books do not add up: {found}, which is {abs(self.difference):,} {what}"


def difference(accepted: int, parts: Mapping[str, int]) -> int:
    """Answer how many accepted events the parts do not account for."""
    return accepted - sum(parts.values())


def shown(parts: Mapping[str, int]) -> dict[str, int]:
    """Answer the parts that people see: three always, and what else there is any of."""
    always = ("landed", "quarantined", "waiting")
    return {name: count for name, count in parts.items() if count or name in always}


def balance(
    collection: CollectionId,
    *,
    log_id: str,
    extents: Mapping[int, Extent],
    table: TableView | None,
    quarantine: TableView | None,
    beyond: int,
    closed: int = 0,
) -> Books:
    """Put the books together from what was read, in the order that this module tells.

    `beyond` is how many rows of `quarantine` the marks of `table` do not cover, and `closed` how
    many of those that they cover are closed.
    """
    partitions = tuple(
        _partition(number, extent, table, log_id) for number, extent in sorted(extents.items())
    )
    # What landed from a log that is no more, or from a partition that it does not tell of.
    elsewhere = (
        mark.next
        for mark in (table.marks if table is not None else ())
        if mark.log_id != log_id or mark.partition not in extents
    )
    views = [view for view in (table, quarantine) if view is not None]
    parts = dict.fromkeys(PARTS, 0)
    for view in views:
        for name, count in view.counted:
            parts[name] = parts.get(name, 0) + count
        parts["expired"] += sum(one.rows for one in view.expired.values())
    rows = table.rows if table is not None else 0
    # Another engine may have deleted some of them.
    repeats = min(rows, table.duplicates) if table is not None else 0
    parts["landed"] += rows - repeats
    parts["duplicates"] += repeats
    aside = (quarantine.rows if quarantine is not None else 0) - beyond
    ended = min(aside, closed)
    parts["quarantined"] += aside - ended
    parts["closed"] += ended
    parts["waiting"] += sum(one.waiting for one in partitions)
    parts["lost"] += sum(map(len, table.lost)) if table is not None else 0
    parts["carried"] += sum(map(len, table.carried)) if table is not None else 0
    return Books(
        collection=collection,
        log_id=log_id,
        accepted=sum(max(one.end, one.mark) for one in partitions) + sum(elsewhere),
        parts=parts,
        partitions=partitions,
        table=table,
        quarantine=quarantine,
    )


def _partition(number: int, extent: Extent, table: TableView | None, log_id: str) -> PartitionBooks:
    mark = table.mark(log_id, number).next if table is not None else 0
    lost = (
        sum(len(gap) for gap in table.lost if (gap.log_id, gap.partition) == (log_id, number))
        if table is not None
        else 0
    )
    return PartitionBooks(
        partition=number,
        start=extent.start,
        end=extent.end,
        mark=mark,
        waiting=max(0, extent.end - max(mark, extent.start)),
        lost=lost,
    )


class Log(Protocol):
    """What the books ask of a log, see `penstock.buffer.Buffer`."""

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        """Answer what it keeps of each."""
        ...


class Tables(Protocol):
    """What the books ask of a lake, see `lakehouse.Lake`."""

    def seen(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Seen | Unavailable]:
        """Answer the tables of each, quarantine not as it was before the main one."""
        ...


def read_books(log: Log, tables: Tables, collection: CollectionId) -> Books:
    """Read log and tables of one collection; raise `Unavailable` if one does not answer."""
    return answered(read_all_books(log, tables, [collection])[collection])


def read_all_books(
    log: Log, tables: Tables, collections: Sequence[CollectionId]
) -> Mapping[CollectionId, Books | Unavailable]:
    """Read log and tables, in the one order in which no sum is wrong; see `balance`.

    All ends are read before the first table. Where log or tables of a collection do not answer,
    the error stands in the place of its books.
    """
    kept = _kept(log, collections)
    seen: dict[CollectionId, Seen | Unavailable] = {}
    again = [one for one in collections if isinstance(kept[one], Kept)]
    for _ in range(LOOKS):
        if not again:
            break
        seen |= tables.seen(again)
        again = [one for one in again if _expired_beyond(seen[one])]
    return {one: _books(one, kept[one], seen.get(one)) for one in collections}


def _kept(
    log: Log, collections: Sequence[CollectionId]
) -> Mapping[CollectionId, Kept | LogUnavailable]:
    try:
        found = log.kept(collections)
    except LogUnavailable as error:
        return dict.fromkeys(collections, error)
    return {
        one: found.get(one) or LogUnavailable(f"the log does not tell what it keeps of {one}")
        for one in collections
    }


def _expired_beyond(seen: Seen | Unavailable) -> bool:
    return isinstance(seen, Seen) and expired_beyond(seen.main, seen.quarantine)


def _books(
    collection: CollectionId, kept: Kept | LogUnavailable, seen: Seen | Unavailable | None
) -> Books | Unavailable:
    if not isinstance(kept, Kept):
        return kept
    if not isinstance(seen, Seen):
        return seen or EngineUnavailable(f"the tables of {collection} do not answer")
    return balance(
        collection,
        log_id=kept.log_id,
        extents=kept.extents,
        table=seen.main,
        quarantine=seen.quarantine,
        beyond=seen.beyond,
        closed=seen.closed,
    )


def answered(answer: _T | Unavailable) -> _T:
    """Answer it, or raise the error that stands in its place."""
    if isinstance(answer, Unavailable):
        raise answer
    return answer


def expired_beyond(table: TableView | None, quarantine: TableView | None) -> bool:
    """Say whether retention dropped something of quarantine that the marks do not cover."""
    dropped = quarantine.expired if quarantine is not None else {}
    return any(
        one.upto > (table.mark(*place).next if table is not None else 0)
        for place, one in dropped.items()
    )


def stop_of(books: Books, extents: Mapping[int, Extent]) -> Stopped | None:
    """Answer why landing cannot go on, None if it can, as far as it shows without a read.

    `extents` were read after the table: a mark is ahead of ends that were read before it whenever
    something landed in between. What the log has let go of is told by the ends read before: a log
    that lets go in between has everything behind the marks all the same.
    """
    if books.table is None:
        return None
    try:
        refuse_either_changed(books.table, books.quarantine)
        begin(books.table, books.log_id, extents)
    except Stopped as error:
        return error
    for one in books.partitions:
        if one.mark < one.start:
            return LogTruncated(
                f"the log of {books.collection} begins at {one.start} in partition "
                f"{one.partition}; what lies between the mark {one.mark} and that is gone"
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a collection stands: its books, what has stopped, and how far behind everything is."""

    books: Books
    stop: Stopped | None
    lake_lag: Micros | None
    """The age of the oldest event that has not landed, 0 if all have, None if nobody knows."""
    search_lag: Micros | None
    """Likewise of the index; None without one too. Where the log no longer holds the event it is
    the age of the oldest one that it holds, which is less."""
    search_waiting: int
    """Landed events that the index does not have."""
    newest: Micros | None
    """When the newest event was received that the log holds; None if it holds none."""
    at: Micros


def troubles(standing: Standing, retention: Micros | None) -> list[str]:
    """Answer a sentence for each thing about a collection that somebody has to look at.

    `retention` is how long the log keeps events whether or not they landed, None for ever.
    """
    said = []
    books = standing.books
    if standing.stop is not None:
        said.append(f"landing has stopped: {explained(books.collection, standing.stop)}")
    if books.difference:
        said.append(books.sentence)
    lag = standing.lake_lag
    if retention is not None and lag is not None and 2 * lag > retention:
        said.append(
            f"an event waits for {lag // _SECOND:,} s to land, more than half of the "
            f"{retention // _SECOND:,} s for which the log keeps it: then it is lost"
        )
    return said


def stand(
    buffer: Buffer, lake: Tables, index: Index | None, collection: CollectionId, *, now: Micros
) -> Standing:
    """Look at everything that belongs to a collection.

    Raises `Unavailable` if log or lake do not answer; an index that does not is not known.
    """
    return answered(stand_all(buffer, lake, index, [collection], now=now)[collection])


def stand_all(
    buffer: Buffer,
    lake: Tables,
    index: Index | None,
    collections: Sequence[CollectionId],
    *,
    now: Micros,
) -> Mapping[CollectionId, Standing | Unavailable]:
    """Look at everything that belongs to each of the collections, asked for together.

    Where log or lake do not answer for one, the error stands in its place.
    """
    books = read_all_books(buffer, lake, collections)
    there = [one for one, found in books.items() if isinstance(found, Books)]
    kept = _kept(buffer, there)
    looks = [
        _Look(read, after, index)
        for one in there
        if isinstance(read := books[one], Books) and isinstance(after := kept[one], Kept)
    ]
    answers = iter(_glanced(buffer, [glance for look in looks for glance in look.glances]))
    told: dict[CollectionId, Standing | Unavailable] = {}
    for look in looks:
        found = [next(answers) for _ in look.glances]
        told[look.books.collection] = look.standing(found, now)
    for one in collections:
        away = kept.get(one) if isinstance(books[one], Books) else books[one]
        if isinstance(away, Unavailable):
            told[one] = away
    return told


def _glanced(buffer: Buffer, glances: Sequence[Glance]) -> Sequence[Glanced]:
    try:
        return buffer.glance(glances) if glances else []
    except LogUnavailable as error:
        return [error] * len(glances)


class _Look:
    """A collection whose books are read: what of the log has to be looked at, and what follows."""

    def __init__(self, books: Books, kept: Kept, index: Index | None) -> None:
        """Take what the log keeps after the tables were read, see `stop_of`."""
        self.books = books
        self._stop = stop_of(books, kept.extents)
        self._oldest = [_oldest(books, one) for one in books.partitions]
        self._newest = [_newest(books, one) for one in books.partitions if one.start < one.end]
        self._indexed = _indexed(index, books)

    @property
    def glances(self) -> list[Glance]:
        """What has to be looked at."""
        behind = self._indexed.glances if self._indexed is not None else ()
        return [*self._oldest, *self._newest, *behind]

    def standing(self, found: Sequence[Glanced], now: Micros) -> Standing | Unavailable:
        """Answer how the collection stands, from what `glances` found."""
        away = next((one for one in found if isinstance(one, Unavailable)), None)
        if away is not None:
            return away
        after, behind = len(self._oldest), len(self._oldest) + len(self._newest)
        oldest, newest, indexed = found[:after], found[after:behind], found[behind:]
        broken = next((one for one in oldest if isinstance(one, Stopped)), None)
        lag = None if broken is not None else max([0, *(now - at for at in _times(oldest))])
        # What is wrong with the log is told by what reads from the mark.
        return Standing(
            books=self.books,
            stop=self._stop or broken,
            lake_lag=lag,
            search_lag=None if self._indexed is None else self._indexed.lag(_times(indexed), now),
            search_waiting=0 if self._indexed is None else self._indexed.behind,
            newest=max(_times(newest), default=None),
            at=now,
        )


def _times(found: Iterable[Glanced]) -> list[Micros]:
    return [at for at in found if isinstance(at, Micros)]


def _oldest(books: Books, one: PartitionBooks) -> Glance:
    """Answer where the first waiting event of a partition is; the mark is checked in any case."""
    if books.table is None:
        mark = Mark(books.log_id, one.partition, one.start, "")
    else:
        mark = books.table.mark(books.log_id, one.partition)
    return Glance(books.collection, mark, one.end if one.waiting else mark.next)


def _newest(books: Books, one: PartitionBooks) -> Glance:
    """Answer where the last event of a partition is."""
    last = Mark(books.log_id, one.partition, one.end - 1, "")
    return Glance(books.collection, last, one.end)


@dataclass(frozen=True, slots=True)
class _Indexed:
    """How many landed events the index does not have, and where the first of them are."""

    behind: int
    glances: tuple[Glance, ...] = ()
    known: bool = True

    def lag(self, times: Sequence[Micros], now: Micros) -> Micros | None:
        """Answer the age of the oldest, None where nobody knows."""
        if not self.known or (self.behind and not times):
            return None
        return max([0, *(now - at for at in times)])


def _indexed(index: Index | None, books: Books) -> _Indexed | None:
    table = books.table
    if index is None:
        return None
    if table is None:
        return _Indexed(0)
    try:
        known = index.state(books.collection)
    except Unavailable:
        return _Indexed(0, known=False)
    state = known.state if known is not None else None
    if state is not None and (state.log_id, state.table) != (books.log_id, table.uuid):
        state = None
    behind, glances = 0, []
    for one in books.partitions:
        reached = state.next(one.partition) if state is not None else 0
        if reached < one.mark:
            behind += one.mark - reached
            begin_ = Mark(books.log_id, one.partition, max(reached, one.start), "")
            glances.append(Glance(books.collection, begin_, max(one.end, one.mark)))
    return _Indexed(behind, tuple(glances))


class Watch:
    """Remembers how collections stand, so that asking every few seconds costs little.

    One in which nothing waits, and to which nothing has come since, is looked at again after
    `idle` only: nothing has landed in it either. Threads may share it; one at a time looks.
    """

    def __init__(
        self,
        look: Callable[[Sequence[CollectionId]], Mapping[CollectionId, Standing | Unavailable]],
        ends: Callable[[Sequence[CollectionId]], Mapping[CollectionId, Mapping[int, int]]],
        *,
        clock: Clock,
        fresh: Micros = 10 * _SECOND,
        idle: Micros = 300 * _SECOND,
    ) -> None:
        self._look = look
        self._ends = ends
        self._clock = clock
        self._fresh = fresh
        self._idle = idle
        self._known: dict[CollectionId, Standing] = {}

    def standings(self, collections: Iterable[CollectionId]) -> Sequence[Standing]:
        """Answer how each of them stands, or stood at most `fresh` ago, or since when it rests.

        One that cannot be looked at is left out.
        """
        asked, now = list(collections), self._clock()
        resting = [one for one in asked if self._rests(one, now)]
        ends: Mapping[CollectionId, Mapping[int, int]] = {}
        if resting:
            with suppress(LogUnavailable):
                ends = self._ends(resting)
        same = {one for one in resting if ends.get(one) == _ends_of(self._known[one])}
        due = [one for one in asked if one not in same and not self._fresh_enough(one, now)]
        told = self._look(due) if due else {}
        for one, standing in told.items():
            if isinstance(standing, Standing):
                self._known[one] = standing
            else:
                self._known.pop(one, None)
        return [self._known[one] for one in asked if one in self._known]

    def _fresh_enough(self, collection: CollectionId, now: Micros) -> bool:
        known = self._known.get(collection)
        return known is not None and 0 <= now - known.at < self._fresh

    def _rests(self, collection: CollectionId, now: Micros) -> bool:
        """Say whether nothing but events that came can have changed it, for a while yet."""
        known = self._known.get(collection)
        if known is None or not self._fresh <= now - known.at < self._idle:
            return False
        books = known.books
        return not (
            books.waiting or known.search_waiting or known.stop is not None or books.difference
        )


def _ends_of(known: Standing) -> Mapping[int, int]:
    return {one.partition: one.end for one in known.books.partitions}
