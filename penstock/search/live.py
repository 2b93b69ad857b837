"""Live tails: what is found among new events, the moment they are acknowledged.

A tail is a search that goes on. It looks at every position of the log once and in order: between
two cuts (`penstock.search.cut`) lie the events that came meanwhile, and each of them is read where
a search would read it, in the lake or behind its mark in the log. So a tail finds what a search
finds, misses nothing and shows nothing twice, whatever landing does beside it.

One thread follows the log of a collection for all who look at it. Those that keep up and ask the
same share what is found. One that does not keep up, or begins in the past, reads pages of its own
from its position on; nothing is kept for it.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from heapq import merge
from itertools import groupby
from traceback import extract_tb
from typing import Literal, NamedTuple

import pyarrow as pa
import structlog

from lakehouse import TableView
from lakehouse.sql import Engine, Reader
from penstock.buffer import Buffer
from penstock.envelope import Clock, CollectionId, Micros
from penstock.errors import BadRequest, EngineUnavailable, LogReplaced, PenstockError, Stopped
from penstock.query import Query, parse
from penstock.query.pieces import ALWAYS, Sql, all_of, any_of, sql, value
from penstock.query.sql import compile_before, compile_parts, compile_sql
from penstock.schema.rows import rows_schema
from penstock.schema.shape import EMPTY, Struct
from penstock.search import Found, Place, positions
from penstock.search.cut import Cut, Cuts
from penstock.search.facts import told
from penstock.search.places import at_places, found_of
from penstock.search.positions import Positions

log = structlog.get_logger()

# Asking an embedded log where it ends takes 10 µs, one on Kafka a request.
POLL_SECONDS = 0.1
_AWAY_SECONDS = 1.0

# Positions of one partition that are looked at in one step, and steps that are kept for tails
# that are a little late.
_STEP = 5_000
_STEPS = 16

MOST_EVENTS = 500
MOST_BYTES = 4 << 20
"""What one page may hold: so much, or one event, is all that a tail keeps."""

# Positions of the lake that are looked at together at first; four times as many each time that
# nothing was found.
_WIDTH = 100_000
_LAKE_SECONDS = 30.0

_STORED = frozenset(rows_schema(EMPTY).names)
_SHOWN = [one.name for one in fields(Found) if one.name in _STORED]
_PLACE = (
    'log_partition AS partition, log_offset AS "offset", epoch_us(received_at) AS received_at, '
    "octet_length(payload) AS size"
)

Spans = Mapping[int, tuple[int, int]]
"""By partition of the log, from which offset up to which one (exclusive)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a tail shows. Equal questions have equal answers."""

    query: Query
    since: Micros | None
    duplicates: Literal["fold", "include"]

    def bounds(self) -> Sql:
        """Answer the conditions on the envelope."""
        parts = []
        if self.since is not None:
            parts.append(sql("received_at >= make_timestamptz({0})", value(self.since)))
        if self.duplicates == "fold":
            parts.append(Sql("duplicate_of IS NULL"))
        return all_of(*parts)


def question(
    text: str, *, since: Micros | None, duplicates: Literal["fold", "include"], now: Micros
) -> Question:
    """Read a query as what a tail shows; ``now`` in it stays what it is.

    Raises `BadQuery`, and `BadRequest` for modifiers: events are shown as they come.
    """
    query = parse(text, now=now)
    if query.order_by is not None or query.limit is not None or query.unique is not None:
        raise BadRequest("a tail shows events as they come: leave out ORDER_BY, LIMIT and UNIQUE")
    return Question(query, since, duplicates)


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """The events found between two positions, those of each partition in the order of the log."""

    start: Positions
    events: tuple[Found, ...]
    after: Positions


class Missing(NamedTuple):
    """Events behind a position that nobody can show any more: `events` at most."""

    reason: Literal["expired", "lost"]
    events: int


def missing(table: TableView | None, at: Positions) -> list[Missing]:
    """Answer what retention has dropped behind a position, and what an operator gave up there."""
    if table is None:
        return []
    found = [
        Missing("expired", min(gone.rows, gone.upto - at[partition]))
        for (log_id, partition), gone in table.expired.items()
        if log_id == at.log_id and at[partition] < gone.upto and gone.rows
    ]
    found += [
        Missing("lost", gap.end - max(gap.start, at[gap.partition]))
        for gap in table.lost
        if gap.log_id == at.log_id and at[gap.partition] < gap.end
    ]
    return found


class Pages:
    """Reads pages of cuts. Threads may share it."""

    def __init__(
        self,
        engine: Engine,
        *,
        most_events: int = MOST_EVENTS,
        most_bytes: int = MOST_BYTES,
        width: int = _WIDTH,
    ) -> None:
        self._engine = engine
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._width = width

    def read(self, cut: Cut, asked: Question, at: Positions) -> Page:
        """Answer the first events from the positions on, the same share of each partition.

        Something is passed, found or not, unless the positions are the ends of the cut.
        """
        marks = _marks(cut)
        left = {p: (at[p], end) for p, end in cut.ends.items() if at[p] < end}
        landed = {p: (a, min(end, marks[p])) for p, (a, end) in left.items() if a < marks[p]}
        fresh = {p: span for p, span in left.items() if p not in landed}
        share = max(1, len(left))
        room = _Room(max(1, self._most_events // share), max(1, self._most_bytes // share))
        events: defaultdict[int, list[Found]] = defaultdict(list)
        reached: dict[int, int] = {}
        if landed and cut.table is not None:
            with self._engine.reader(seconds=_LAKE_SECONDS) as reader:
                lake = _Landed(cut.table, at.log_id, reader)
                width = self._width
                while landed and not events:
                    within = {p: (a, min(end, a + width)) for p, (a, end) in landed.items()}
                    full = self._take(lake, asked, within, room, events)
                    reached |= {p: end for p, (_, end) in within.items()} | full
                    landed = {p: (reached[p], end) for p, (_, end) in landed.items()}
                    landed = {p: span for p, span in landed.items() if span[0] < span[1]}
                    width *= 4
        if fresh:
            full = {}
            with self._engine.reader() as reader:
                for waiting in _waiting(cut, fresh, reader):
                    open_ = {p: fresh[p] for p in waiting.partitions if p not in full}
                    full |= self._take(waiting, asked, open_, room, events)
            reached |= {p: end for p, (_, end) in fresh.items()} | full
        # Those of a partition are in order, and stay so.
        together = merge(*events.values(), key=lambda one: one.received_at)
        return Page(at, tuple(together), at.moved(reached))

    def _take(
        self,
        source: _Landed | _Waiting,
        asked: Question,
        spans: Spans,
        room: _Room,
        events: dict[int, list[Found]],
    ) -> dict[int, int]:
        """Add the events for which there is room; answer where partitions go on that have none."""
        if not spans:
            return {}
        full: dict[int, int] = {}
        chosen: list[_Row] = []
        rows = sorted(self._ask(source, asked, spans, room.most_events + 1))
        for partition, same in groupby(rows, lambda row: row.partition):
            for row in same:
                if not room.takes(partition, row.size):
                    full[partition] = row.offset
                    break
                chosen.append(row)
        if chosen:
            found = source.read(chosen)
            for one in sorted(found, key=lambda one: (one.log_partition, one.log_offset)):
                events[one.log_partition].append(one)
        return full

    def _ask(
        self, source: _Landed | _Waiting, asked: Question, spans: Spans, most: int
    ) -> Iterator[_Row]:
        """Answer where the first events found are, so many of each partition or more."""
        query, reader = asked.query, source.reader
        bounds = all_of(source.within(spans), asked.bounds())
        rest = f"ORDER BY log_partition, log_offset LIMIT {most:d}"
        if len(spans) > 1:
            number = "row_number() OVER (PARTITION BY log_partition ORDER BY log_offset)"
            rest = f"QUALIFY {number} <= {most:d}"
        select = f"SELECT {_PLACE}, {source.nth} AS nth FROM"
        if not query.facts:
            for condition in source.conditions(query):
                where = all_of(bounds, condition)
                text = f"{select} {source.relation(reader)} WHERE {where.text} {rest}"
                yield from _rows(reader.rows(text, where.parameters))
            return
        # One connection cannot read a result and run another statement at once.
        before = all_of(bounds, compile_before(query, source.shape))
        condition = compile_sql(query, source.shape)
        with self._engine.reader(seconds=_LAKE_SECONDS) as other:
            text = f"SELECT * FROM {source.relation(other)} WHERE {before.text}"  # noqa: S608
            facts = told(other.batches(text, before.parameters), query.facts, quarantine=False)
            text = f"{select} {reader.arrow(facts)} WHERE {condition.text} {rest}"
            yield from _rows(reader.rows(text, condition.parameters))


class _Row(NamedTuple):
    """Where an event found is, and how large its payload."""

    partition: int
    offset: int
    received_at: Micros
    size: int
    nth: int


class _Room:
    """How much of each partition a page may hold yet; the first event of all always fits."""

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self.most_events = most_events
        self._most_bytes = most_bytes
        self._events: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()

    def takes(self, partition: int, size: int) -> bool:
        """Answer whether the next event of a partition fits, and count it if so."""
        held = self._events[partition]
        full = held >= self.most_events or self._bytes[partition] + size > self._most_bytes
        if held and full:
            return False
        self._events[partition] += 1
        self._bytes[partition] += size
        return True


class _Landed:
    """Rows of the lake."""

    nth = "0"

    def __init__(self, table: TableView, log_id: str, reader: Reader) -> None:
        self.shape = table.shape
        self.reader = reader
        self._table = table
        self._log_id = log_id

    def relation(self, reader: Reader) -> str:
        return reader.lake(self._table)

    def within(self, spans: Spans) -> Sql:
        return all_of(sql("log_id = {0}", value(self._log_id)), _within(spans))

    def conditions(self, query: Query) -> Sequence[Sql]:
        return compile_parts(query, self.shape)

    def read(self, chosen: Sequence[_Row]) -> list[Found]:
        places = {Place(row.received_at, row.partition, row.offset) for row in chosen}
        where = all_of(sql("log_id = {0}", value(self._log_id)), at_places(sorted(places)))
        text = f"SELECT {', '.join(_SHOWN)} FROM {self.relation(self.reader)} WHERE {where.text}"  # noqa: S608
        return [
            one for one in found_of(self.reader.rows(text, where.parameters)) if one.place in places
        ]


class _Waiting:
    """Rows that have not landed, of one shape."""

    nth = "nth"

    def __init__(
        self, rows: pa.Table, shape: Struct, partitions: Sequence[int], reader: Reader
    ) -> None:
        self.shape = shape
        self.reader = reader
        self.partitions = partitions
        self._rows = rows
        numbers = pa.array(range(rows.num_rows), pa.int64())
        self._numbered = rows.append_column("nth", numbers)

    def relation(self, reader: Reader) -> str:
        return reader.arrow(self._numbered)

    def within(self, spans: Spans) -> Sql:
        # There are no others, but for those of a partition that has no more room.
        return ALWAYS if set(self.partitions) == set(spans) else _within(spans)

    def conditions(self, query: Query) -> Sequence[Sql]:
        return [compile_sql(query, self.shape)]

    def read(self, chosen: Sequence[_Row]) -> list[Found]:
        return found_of(self._rows.select(_SHOWN).take([row.nth for row in chosen]))


def _waiting(cut: Cut, spans: Spans, reader: Reader) -> Iterator[_Waiting]:
    """Answer the rows of the cut's tail within the spans, those of one shape together."""
    pieces = [
        piece.between(*spans[piece.partition]) for piece in cut.tail if piece.partition in spans
    ]
    full = [piece for piece in pieces if piece.rows.num_rows]
    for shape, same in groupby(full, lambda piece: piece.shape):
        alike = list(same)
        rows = pa.concat_tables([piece.rows for piece in alike])
        yield _Waiting(rows, shape, sorted({piece.partition for piece in alike}), reader)


def _within(spans: Spans) -> Sql:
    return any_of(
        *(
            Sql(f"(log_partition = {p:d} AND log_offset >= {a:d} AND log_offset < {end:d})")
            for p, (a, end) in sorted(spans.items())
        )
    )


def _rows(found: pa.Table) -> Iterator[_Row]:
    return map(_Row, *(found[name].to_pylist() for name in _Row._fields))


def _marks(cut: Cut) -> dict[int, int]:
    """Answer by partition up to where the cut's events are in the lake."""
    if cut.table is None:
        return dict.fromkeys(cut.ends, 0)
    return {p: cut.table.mark(cut.log_id, p).next for p in cut.ends}


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """What a feed went forward at once, and what was found in it."""

    start: Positions
    cut: Cut
    pages: dict[Question, Page] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def page(self, asked: Question, pages: Pages) -> Page:
        """Answer what is found from the start on; looked for once for all who ask the same."""
        with self.guard:
            found = self.pages.get(asked)
            if found is None:
                found = self.pages[asked] = pages.read(self.cut, asked, self.start)
            return found


class Feed:
    """Follows one log, for all who look at it."""

    def __init__(
        self, collection: CollectionId, buffer: Buffer, cuts: Cuts, *, poll: float = POLL_SECONDS
    ) -> None:
        """Begin at the end that the log has now. Raises as a search does."""
        self.collection = collection
        self._buffer = buffer
        self._cuts = cuts
        self._poll = poll
        self._ended = threading.Event()
        self._steps: OrderedDict[tuple[tuple[int, int], ...], _Step] = OrderedDict()
        self._wakes: dict[object, Callable[[], None]] = {}
        self._guard = threading.Lock()
        self.error: PenstockError | None = None
        """Why it goes no further, if it does not."""
        self.cut = cuts.take(collection, "main")
        """All that was there when the log was looked at last."""
        self.ends: Mapping[int, int] = self.cut.asked
        """Up to where events were acknowledged when the log was looked at last."""

    def start(self) -> None:
        """Follow the log in a thread, until `stop`."""
        name = f"tail of {self.collection}"
        threading.Thread(target=self._follow, name=name, daemon=True).start()

    def stop(self) -> None:
        """Let the thread end."""
        self._ended.set()

    def add(self, who: object, wake: Callable[[], None]) -> None:
        """Call `wake` whenever there is something new; from the feed's thread."""
        with self._guard:
            self._wakes[who] = wake

    def remove(self, who: object) -> bool:
        """Call it no more; answer whether anybody is left."""
        with self._guard:
            self._wakes.pop(who, None)
            return bool(self._wakes)

    def step_from(self, at: Positions) -> _Step | None:
        """Answer the step that begins exactly there, if it is one of the last."""
        with self._guard:
            return self._steps.get(at.key)

    def step(self) -> bool:
        """Go forward if the log did; answer whether it did."""
        extents = self._buffer.extents(self.collection)
        self.ends = {partition: extent.end for partition, extent in extents.items()}
        start = Positions(self.cut.log_id, self.cut.ends)
        if not start.behind(self.ends):
            return False
        upto = {p: min(end, start[p] + _STEP) for p, end in self.ends.items()}
        cut = self._cuts.take(self.collection, "main", upto)
        if cut.log_id != start.log_id and any(start.offsets.values()):
            raise LogReplaced(f"the log of {self.collection} is another one than it was")
        if not start.behind(cut.ends):
            return False  # more waits to land than can be searched
        # Not all of the tail: what has landed meanwhile would be kept by it.
        fresh = tuple(
            piece.between(start[piece.partition], cut.ends[piece.partition])
            for piece in cut.tail
            if piece.end > start[piece.partition]
        )
        step = _Step(Positions(cut.log_id, start.offsets), replace(cut, tail=fresh))
        with self._guard:
            self.cut = cut
            self._steps[start.key] = step
            while len(self._steps) > _STEPS:
                self._steps.popitem(last=False)
        return True

    def _follow(self) -> None:
        complained = False
        while not self._ended.is_set():
            pause = self._poll
            try:
                moved = self.step()
                complained = False
            except Stopped as error:
                self.error, moved = error, True
                self._ended.set()
            except PenstockError as error:
                if not complained:
                    log.warning("a tail waits for its stores", reason=str(error))
                complained, moved, pause = True, False, _AWAY_SECONDS
            except Exception as error:  # noqa: BLE001 - nobody else would ever hear of it
                # Not what it said: the text of an error may quote a payload.
                where = [
                    f"{at.filename}:{at.lineno}" for at in extract_tb(error.__traceback__)[-5:]
                ]
                log.error("a tail broke off", kind=type(error).__name__, where=where)  # noqa: TRY400
                self.error = EngineUnavailable(f"the tail of {self.collection} broke off")
                moved = True
                self._ended.set()
            if moved:
                self._tell()
            if not (moved and Positions("", self.cut.ends).behind(self.ends)):
                self._ended.wait(pause)

    def _tell(self) -> None:
        with self._guard:
            wakes: Iterable[Callable[[], None]] = list(self._wakes.values())
        for wake in wakes:
            wake()


class Following:
    """One tail. Used by one caller at a time."""

    def __init__(
        self, live: Live, feed: Feed, pages: Pages, asked: Question, at: Positions
    ) -> None:
        self._live = live
        self._feed = feed
        self._pages = pages
        self._asked = asked
        self.at = at
        """Up to where it has looked."""
        self.missing: Sequence[Missing] = ()
        """What lies behind its beginning and is gone."""

    @property
    def collection(self) -> CollectionId:
        """What it looks at."""
        return self._feed.collection

    @property
    def behind(self) -> int:
        """How many acknowledged events it has not looked at."""
        return self.at.behind(self._feed.ends)

    def next(self) -> Page | None:
        """Answer what follows; None if there is nothing yet.

        Raises what keeps the collection from being searched.
        """
        if self._feed.error is not None:
            raise self._feed.error
        cut = self._feed.cut
        if cut.log_id != self.at.log_id:
            if self.at.key:
                raise LogReplaced(f"the log of {self._feed.collection} is another one than it was")
            self.at = Positions(cut.log_id, self.at.offsets)  # it had no record until now
        if not self.at.behind(cut.ends):
            return None
        step = self._feed.step_from(self.at)
        if step is not None:
            page = step.page(self._asked, self._pages)
        else:
            page = self._pages.read(cut, self._asked, self.at)
        self.at = page.after
        return page

    def close(self) -> None:
        """Look no more."""
        self._live.leave(self, self._feed)


class Live:
    """The feeds of all collections that somebody looks at. Threads may share it."""

    def __init__(
        self,
        buffer: Buffer,
        cuts: Cuts,
        engine: Engine,
        *,
        clock: Clock,
        pages: Pages | None = None,
        start: Callable[[Feed], None] = Feed.start,
    ) -> None:
        """Follow logs with `start`: a test may do the steps itself."""
        self._start = start
        self._buffer = buffer
        self._cuts = cuts
        self._engine = engine
        self._clock = clock
        self._pages = pages or Pages(engine)
        self._feeds: dict[CollectionId, Feed] = {}
        self._guard = threading.Lock()

    @property
    def feeds(self) -> int:
        """How many logs are followed."""
        return len(self._feeds)

    def follow(
        self,
        collection: CollectionId,
        text: str,
        *,
        wake: Callable[[], None],
        since: Micros | None = None,
        after: str | None = None,
        duplicates: Literal["fold", "include"] = "fold",
    ) -> Following:
        """Begin a tail after a position, with the events since a time, or with those to come.

        `wake` is called, from another thread, whenever there may be something to read; the caller
        closes what is answered. Raises as a search does, and `BadRequest` for a position that is
        not one of this log.
        """
        asked = question(text, since=since, duplicates=duplicates, now=self._clock())
        who = object()
        feed = self._joined(collection, who, wake)
        try:
            cut = feed.cut
            if after is not None:
                at = positions.read(after, log_id=cut.log_id, ends=self._ends(collection))
            elif since is not None:
                at = self._since(cut, since)
            else:
                # What was acknowledged before is no news, seen by the feed or not.
                at = Positions(cut.log_id, self._ends(collection))
            following = Following(self, feed, self._pages, asked, at)
            if after is not None:
                following.missing = missing(cut.table, at)
            feed.add(following, wake)
        except BaseException:
            self._left(collection, feed, who)
            raise
        feed.remove(who)
        return following

    def leave(self, who: object, feed: Feed) -> None:
        """Forget a tail; a feed without any ends."""
        self._left(feed.collection, feed, who)

    def _joined(self, collection: CollectionId, who: object, wake: Callable[[], None]) -> Feed:
        with self._guard:
            feed = self._feeds.get(collection)
            if feed is not None and feed.error is None:
                feed.add(who, wake)
                return feed
        # Taking a cut may take a while; of two that begin at once, one is let go.
        fresh = Feed(collection, self._buffer, self._cuts)
        with self._guard:
            feed = self._feeds.get(collection)
            if feed is None or feed.error is not None:
                feed = self._feeds[collection] = fresh
                self._start(feed)
            feed.add(who, wake)
            return feed

    def _left(self, collection: CollectionId, feed: Feed, who: object) -> None:
        with self._guard:
            if feed.remove(who):
                return
            feed.stop()
            if self._feeds.get(collection) is feed:
                del self._feeds[collection]

    def _ends(self, collection: CollectionId) -> dict[int, int]:
        extents = self._buffer.extents(collection)
        return {partition: extent.end for partition, extent in extents.items()}

    def _since(self, cut: Cut, since: Micros) -> Positions:
        """Answer the positions before which nothing was received at that time or later.

        Doors do not agree to the microsecond, so that events from before it may follow.
        """
        ends = {p: min(mark, cut.ends[p]) for p, mark in _marks(cut).items()}
        if cut.table is not None and cut.table.snapshot_id is not None:
            with self._engine.reader(seconds=_LAKE_SECONDS) as reader:
                text = (
                    "SELECT log_partition, min(log_offset) AS first "  # noqa: S608
                    f"FROM {reader.lake(cut.table)} "
                    "WHERE log_id = ? AND received_at >= make_timestamptz(?) GROUP BY 1"
                )
                for row in reader.rows(text, (cut.log_id, since)).to_pylist():
                    p = row["log_partition"]
                    ends[p] = min(ends.get(p, row["first"]), row["first"])
        return Positions(cut.log_id, ends)
