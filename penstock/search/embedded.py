"""Search with the embedded SQL engine: over the lake's rows, and over the tail as Arrow.

Each is asked by itself, with the shape it has, and the answers are put together here. First it is
found out where the events stand that belong on a page, then those are read and no others.

Where there is an index (`penstock.search.indexed`), it is asked in place of the rows it holds. What
it cannot answer, and everything while it is away, is answered without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import NamedTuple, TypeVar

import pyarrow as pa

from lakehouse import Lake, TableView
from lakehouse.duplicates import Duplicates
from lakehouse.fill import fill
from lakehouse.listing import EVER, Listed, Listing
from lakehouse.sql import Engine, Reader
from penstock.buffer import Buffer
from penstock.codec import TIME
from penstock.envelope import Clock, CollectionId, Micros
from penstock.errors import BadRequest, EngineUnavailable, NotFound
from penstock.query import Query, parse
from penstock.query.facets import facet_columns, facet_statement
from penstock.query.order import LAST, SortValue, sort_value
from penstock.query.pieces import ALWAYS, NEVER, Sql, all_of, any_of, sql, value
from penstock.query.pruning import need_of, opaque
from penstock.query.sql import (
    Parts,
    Rows,
    compile_before,
    compile_sql,
    part_query,
    reads_opaque,
)
from penstock.query.stored import LeafColumn, columns_of, telling
from penstock.query.tree import Field, Header, Metadata, Payload, Time
from penstock.query.writing import field_text, number_text
from penstock.schema.convert import Rules
from penstock.schema.names import keys_of
from penstock.schema.shape import EMPTY, Struct
from penstock.search import (
    Bar,
    Facet,
    FacetValue,
    Found,
    Histogram,
    Known,
    KnownField,
    Page,
    Place,
    SearchRequest,
    View,
)
from penstock.search import cursor as cursors
from penstock.search.around import Around, around
from penstock.search.cursor import Cursor
from penstock.search.cut import Cut, Cuts
from penstock.search.facts import told
from penstock.search.filling import words_of
from penstock.search.filters import Filters
from penstock.search.index import Index, State
from penstock.search.indexed import NoAnswer, Part, Shortcuts
from penstock.search.spans import (
    FIRST_STEP,
    WHOLE,
    Piece,
    Reading,
    Window,
    bounded,
    next_step,
    readings,
    whole_files,
    windows,
)
from penstock.search.tail import Tails

_Answer = TypeVar("_Answer")

MOST_EVENTS = 1_000
"""Events of one page."""

MOST_VALUES = 1_000
"""Values of one facet."""

MOST_ORDERED = 10_000
"""Events of all pages together in another order: each page puts those before it in order again."""

WINDOWS = (200_000, 2_000_000, 20_000_000)
"""So many of the newest events are searched first: most pages are full by then."""

# Events of a page that are looked for one by one while rows are read.
_FEW = 64

# A histogram counts in so many steps to a bar before it knows how long the bars will be.
_FINER = 32

_ENVELOPE = (
    "event_id, received_at, event_time, source, content_type, key, headers, metadata, payload, "
    "log_partition, log_offset"
)
_SHOWN: Mapping[View, str] = {
    "main": f"{_ENVELOPE}, duplicate_of, misfits",
    "quarantine": f"{_ENVELOPE}, stage, reason, detail, attempts",
}
_POSITION = "log_id, log_partition, log_offset"
_PLACE = Sql("epoch_us(received_at) AS received, log_partition, log_offset")


class EmbeddedSearcher:
    """Keeps the promise of `penstock.search.Searcher`. Threads may share it."""

    def __init__(
        self,
        lake: Lake,
        buffer: Buffer,
        engine: Engine,
        *,
        rules: Callable[[CollectionId], Rules],
        clock: Clock,
        index: Index | None = None,
        duplicates: Duplicates | None = None,
        filters: Filters | None = None,
        seconds: float = 30.0,
        tail_bytes: int = 256 << 20,
        windows: Sequence[int] = WINDOWS,
    ) -> None:
        """Search for `seconds` at most, and keep `tail_bytes` of what has not landed.

        With `filters` no rows are read that cannot be found by them.
        """
        self._shortcuts = Shortcuts(index)
        self._listing = Listing(lake)
        self._filters = filters
        self._windows = windows
        self._lake = lake
        self._told: dict[CollectionId, _Told] = {}
        self._cuts = Cuts(
            lake,
            buffer,
            Tails(buffer, rules, most_bytes=tail_bytes),
            duplicates or Duplicates(),
        )
        self._buffer = buffer
        self._engine = engine
        self._clock = clock
        self._seconds = seconds

    @property
    def cuts(self) -> Cuts:
        """What takes the cuts, with the tails that are kept for all who ask."""
        return self._cuts

    def search(self, asked: SearchRequest) -> Page:
        """Answer the first events found, or those after the request's cursor."""
        if not 1 <= asked.limit <= MOST_EVENTS:
            raise BadRequest(f"a page holds 1 to {MOST_EVENTS:,} events")
        cursor = cursors.read(asked, self._buffer.log_id(asked.collection))
        search = self._definite(asked, cursor)
        given = cursor.given if cursor else 0
        left = None if search.query.limit is None else search.query.limit - given
        limit = asked.limit if left is None else min(asked.limit, left)
        if not search.by_place and given + limit > MOST_ORDERED:
            raise BadRequest(
                f"in another order than that of receipt {MOST_ORDERED:,} events are told at most; "
                "look for fewer"
            )

        def look(looking: _Looking) -> tuple[list[Place], list[Found]]:
            if search.by_place:
                places = looking.first(limit + 1)
            else:
                places = looking.ordered(given + limit + 1)[given:]
            return places, looking.read(places[:limit])

        begun = self._begin(search)
        cut = self._cuts.take(asked.collection, asked.view, cursor.ends if cursor else None)
        (places, events), away = self._answer(search, begun, cut, look)

        more = len(places) > limit and limit != left
        return Page(
            events,
            self._next(search, cut, events[-1].place, given + limit) if more else None,
            complete_up_to=dict(cut.ends),
            unsearched=cut.unsearched,
            tail_rows=sum(rows.num_rows for rows, _ in search.tail(cut)),
            reads_payloads=search.reads_payloads,
            index_away=away,
            folded=self._folded(search, begun, cut) if cursor is None else None,
        )

    def _folded(self, search: _Search, begun: State | NoAnswer | None, cut: Cut) -> int:
        """Answer how many events of the cut would be found if those that repeat others were."""
        table = cut.table
        landed = table.duplicates if table is not None else 0
        waiting = (
            any(rows["duplicate_of"].null_count < rows.num_rows for rows, _ in search.tail(cut))
            if not search.quarantine
            else False
        )
        if not search.folds or not (landed or waiting):
            return 0
        alone = replace(search, asked=replace(search.asked, duplicates="only"))
        return self._answer(alone, begun, cut, lambda looking: looking.count())[0]

    def count(self, asked: SearchRequest) -> int:
        """Answer how many events are found."""
        search = self._definite(asked, None)
        begun = self._begin(search)
        count, _ = self._answer(search, begun, self._whole(asked), lambda looking: looking.count())
        return count

    def histogram(self, asked: SearchRequest, *, bars: int) -> Histogram:
        """Answer the events found over time."""
        if bars < 1:
            raise BadRequest("a histogram has 1 bar or more")
        search = self._definite(asked, None)
        begun = self._begin(search)
        drawn, _ = self._answer(
            search, begun, self._whole(asked), lambda looking: _histogram(looking, asked, bars)
        )
        return drawn

    def facets(self, asked: SearchRequest, fields: Sequence[Field], *, most: int) -> list[Facet]:
        """Answer for each field its `most` frequent values."""
        if not 1 <= most <= MOST_VALUES:
            raise BadRequest(f"a facet shows 1 to {MOST_VALUES:,} values")
        for field in fields:
            _refuse_uncountable(field)
        search = self._definite(asked, None)
        cut = self._whole(asked)
        with self._engine.reader(seconds=self._seconds) as reader:
            return [
                self._looking(_counting(search, field), cut, reader).facet(field, most)
                for field in fields
            ]

    def known(self, collection: CollectionId, view: View, *, newest: int) -> Known:
        """Answer which fields there are."""
        search = self._definite(SearchRequest(collection=collection, view=view), None)
        cut = self._cuts.take(collection, view)
        shapes = [piece.shape for piece in cut.tail]
        main = cut.table if view == "main" else self._cuts.main(collection)
        if main is not None:
            shapes.append(main.shape)
        with self._engine.reader(seconds=self._seconds) as reader:
            looking = self._looking(search, cut, reader)
            since = looking.since_newest(newest)
            fields = [*_columns_known(shapes), *looking.names_since(since)]
        return Known(tuple({known.field: known for known in fields}.values()), since)

    def event(self, collection: CollectionId, event_id: str) -> Found:
        """Answer the newest event with this id, in quarantine or not."""
        newest: Found | None = None
        views: tuple[View, View] = ("main", "quarantine")
        for view in views:
            search = self._definite(SearchRequest(collection=collection, view=view), None)
            cut = self._cuts.take(collection, view)
            with self._engine.reader(seconds=self._seconds) as reader:
                looking = self._looking(search, cut, reader)
                newest = looking.newer(event_id, newest)
        if newest is None:
            raise NotFound("event", event_id)
        return newest

    def around(self, collection: CollectionId, event: Found, *, most: int) -> Around:
        """Answer what stands about an event that was found."""
        return around(self._cuts, self._engine, collection, event, most=most, seconds=self._seconds)

    def _begin(self, search: _Search) -> State | NoAnswer | None:
        """Answer how far the index is; before the cut is taken, so that the lake is ahead of it."""
        if not search.by_place or search.quarantine:
            return None
        try:
            return self._shortcuts.begin(search.asked.collection)
        except NoAnswer as error:
            return error

    def _answer(
        self,
        search: _Search,
        begun: State | NoAnswer | None,
        cut: Cut,
        look: Callable[[_Looking], _Answer],
    ) -> tuple[_Answer, bool]:
        """Answer what `look` finds, and whether it had to do without an index that is away."""
        away = isinstance(begun, NoAnswer) and begun.away
        state = None if isinstance(begun, NoAnswer) else begun
        asked = search.asked
        with self._engine.reader(seconds=self._seconds) as reader:
            part = self._shortcuts.part(
                state,
                cut,
                search.query,
                since=asked.since,
                until=asked.until,
                duplicates=asked.duplicates,
            )
            if part is not None:
                try:
                    return look(self._looking(search, cut, reader, part=part)), False
                except NoAnswer as error:
                    away = error.away
            looking = self._looking(search, cut, reader, telling=self._telling(search, cut))
            return look(looking), away

    def _looking(
        self,
        search: _Search,
        cut: Cut,
        reader: Reader,
        *,
        part: Part | None = None,
        telling: Sequence[LeafColumn] = (),
    ) -> _Looking:
        def files() -> _Files | None:
            view = cut.table
            if view is None or view.snapshot_id is None or search.quarantine:
                return None
            listed = self._listing.files(view)
            return None if listed is None else _Files(listed, view.uuid, self._filters)

        return _Looking(
            search,
            cut,
            reader,
            self._engine,
            self._windows,
            files=files,
            part=part,
            telling=telling,
        )

    def _telling(self, search: _Search, cut: Cut) -> tuple[LeafColumn, ...]:
        """Answer by which columns rows of documents are known, where that makes a search faster."""
        view = cut.table
        if view is None or search.quarantine or not reads_opaque(search.query.where):
            return ()
        known = self._told.get(view.collection)
        if known is None or known.schema_id != view.schema_id or 2 * known.rows < view.rows:
            found = fill(self._lake, view.collection)
            columns = telling(view.shape, found.values, found.rows) if found else ()
            known = self._told[view.collection] = _Told(view.schema_id, view.rows, columns)
        return known.columns

    def _definite(self, asked: SearchRequest, cursor: Cursor | None) -> _Search:
        if asked.since is not None and asked.until is not None and asked.since >= asked.until:
            raise BadRequest("nothing lies between these times: since is not before until")
        now = cursor.now if cursor else self._clock()
        query = parse(asked.query, now=now)
        search = _Search(asked, query, now, None)
        return replace(search, after=cursor.last) if cursor and search.by_place else search

    def _whole(self, asked: SearchRequest) -> Cut:
        """Answer a cut that leaves nothing out: a number says nothing about what it misses."""
        cut = self._cuts.take(asked.collection, asked.view)
        if cut.unsearched:
            raise EngineUnavailable(
                f"{cut.unsearched:,} events more than can be searched wait to land; "
                "they can be counted when landing has caught up",
                retry_after=10,
            )
        return cut

    def _next(self, search: _Search, cut: Cut, last: Place, given: int) -> str:
        ends = dict(cut.ends)
        digest = cursors.digest(search.asked)
        return cursors.write(Cursor(digest, search.now, cut.log_id, ends, last, given))


class _Files(NamedTuple):
    """The data files of a table, and the filters there are of them."""

    listed: tuple[Listed, ...]
    table: str
    filters: Filters | None


class _Told(NamedTuple):
    """By which columns rows of documents were known, when a table was so large."""

    schema_id: int
    rows: int
    columns: tuple[LeafColumn, ...]


@dataclass(frozen=True, slots=True)
class _Search:
    """A request made definite: its query read, the moment of ``now`` fixed."""

    asked: SearchRequest
    query: Query
    now: Micros
    after: Place | None

    @property
    def descending(self) -> bool:
        """Whether what the events are ordered by falls: newest first, unless told otherwise."""
        return self.query.descending if self.query.order_by else self.asked.newest_first

    @property
    def quarantine(self) -> bool:
        return self.asked.view == "quarantine"

    @property
    def folds(self) -> bool:
        """Whether events that repeat others are left out."""
        return self.asked.duplicates == "fold" and not self.quarantine

    @property
    def by_place(self) -> bool:
        """Whether events come in the order of their places."""
        return self.query.unique is None and self.query.order_by in (None, Time("received_at"))

    @property
    def reads_payloads(self) -> bool:
        """Whether only payloads can tell which events are found."""
        return bool(self.query.facts) or (self.quarantine and self.query.reads_payload)

    def tail(self, cut: Cut) -> Iterator[tuple[pa.Table, Struct]]:
        """Answer what of the cut's tail this view shows, a table for each shape."""
        shown = [
            (piece.quarantined, EMPTY) if self.quarantine else (piece.rows, piece.shape)
            for piece in cut.tail
        ]
        for shape, same in groupby((s for s in shown if s[0].num_rows), lambda s: s[1]):
            yield pa.concat_tables([rows for rows, _ in same]), shape

    def where(self) -> Sql:
        """Answer the conditions on the envelope that hold for lake and tail alike."""
        parts = list(_received(since=self.asked.since, until=self.asked.until))
        if self.folds:
            parts.append(Sql("duplicate_of IS NULL"))
        elif self.asked.duplicates == "only" and not self.quarantine:
            parts.append(Sql("duplicate_of IS NOT NULL"))
        if self.after is not None:
            parts.append(_beyond(self.after, newest_first=self.descending))
        return all_of(*parts)


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows to be searched, in the lake or in memory, with the shape they have.

    Of files, `opaque` says where there may be payloads that are text and no JSON.
    """

    rows: TableView | pa.Table | Reading | None
    shape: Struct
    counts: Sql
    """Which of the rows lie before the cut."""
    opaque: Reading | None = None

    def of(self, reader: Reader) -> tuple[str, Sql] | None:
        """Answer what to write behind FROM, and the condition that goes with it."""
        return _read(reader, self.rows, self.counts)

    def of_opaque(self, reader: Reader) -> tuple[str, Sql] | None:
        """Answer the same of what opaque payloads may be in; None where there are none."""
        here = self.opaque if self.rows is None or isinstance(self.rows, Reading) else self.rows
        return _read(reader, here, self.counts)


def _read(
    reader: Reader, rows: TableView | pa.Table | Reading | None, counts: Sql
) -> tuple[str, Sql] | None:
    match rows:
        case None:
            return None
        case TableView():
            return reader.lake(rows), counts
        case Reading(paths, _, within):
            return reader.files(paths), all_of(counts, within)
        case _:
            return reader.arrow(rows), counts


class _Looking:
    """One search of one cut, with a connection."""

    def __init__(
        self,
        search: _Search,
        cut: Cut,
        reader: Reader,
        engine: Engine,
        windows: Sequence[int] = (),
        *,
        files: Callable[[], _Files | None] = lambda: None,
        part: Part | None = None,
        telling: Sequence[LeafColumn] = (),
    ) -> None:
        self._telling = telling
        self._search = search
        self._part = part
        self._widths = windows
        self._cut = cut
        self._reader = reader
        self._engine = engine
        self._list_files = files
        self._rest = part.rest(cut) if part is not None else ALWAYS
        """Which rows of the lake are not answered by the index; None if there are none."""
        self._tail = [_Source(rows, shape, ALWAYS) for rows, shape in search.tail(cut)]
        self._open = ALWAYS
        if cut.closed is not None and not search.asked.closed:
            # Row by row: what is closed may be many, and lies where the table was partitioned.
            closed = f"SELECT ROW({_POSITION}) FROM {reader.lake(cut.closed)}"  # noqa: S608 - ours
            self._open = Sql(f"ROW({_POSITION}) NOT IN ({closed})")

    @cached_property
    def _files(self) -> _Files | None:
        """The files of the table, None where it is no one's but the engine's to read them."""
        return self._list_files()

    @cached_property
    def _lake(self) -> list[_Source]:
        """All rows of the lake."""
        return self._table if self._files is None else self._lake_within(WHOLE)

    @cached_property
    def _table(self) -> list[_Source]:
        """All rows of the lake, read by the engine from the table's metadata on."""
        cut = self._cut
        if cut.table is None or cut.table.snapshot_id is None:
            return []
        return [_Source(cut.table, cut.table.shape, cut.landed())]

    def _lake_within(self, *times: Window) -> list[_Source]:
        """Answer the files of the lake that have something of one of these times."""
        if self._files is None:
            return self._table
        files = whole_files(
            one
            for one in self._files.listed
            if any(one.first <= time.last and one.last >= time.first for time in times)
        )
        landed = self._cut.landed()
        return [_Source(one, one.shape, landed, one) for one in readings(files, WHOLE)]

    @cached_property
    def _pieces(self) -> tuple[list[Piece], list[Piece]]:
        """Where in the files events may be that are found, and those with opaque payloads."""
        assert self._files is not None  # noqa: S101 - asked where there are files
        listed, table, filters = self._files
        search = self._search
        since, until, after = search.asked.since, search.asked.until, search.after
        time = Window(EVER[0] if since is None else since, EVER[1] if until is None else until - 1)
        if after is not None and search.descending:
            time = Window(time.first, min(time.last, after.received_at))
        elif after is not None:
            time = Window(max(time.first, after.received_at), time.last)
        within = [one for one in listed if one.first <= time.last and one.last >= time.first]
        if filters is None:
            every = bounded(whole_files(within), time)
            return every, every
        need = need_of(search.query.where, lambda text: words_of(self._reader, text))
        return (
            bounded(filters.pieces(table, within, need), time),
            bounded(filters.pieces(table, within, opaque(need)), time),
        )

    def _found_within(self, window: Window) -> list[_Source]:
        """Answer where in a time events of the lake may be that are found."""
        stored, opaque_ = self._pieces
        by_shape = {one.shape: one for one in readings(opaque_, window)}
        landed = self._cut.landed()
        found = [
            _Source(one, one.shape, landed, by_shape.pop(one.shape, None))
            for one in readings(stored, window)
        ]
        return [*found, *(_Source(None, one.shape, landed, one) for one in by_shape.values())]

    @cached_property
    def _found(self) -> list[_Source]:
        """Where events of the lake may be that are found."""
        return self._lake if self._files is None else self._found_within(WHOLE)

    def _unindexed(self, sources: Sequence[_Source]) -> list[_Source]:
        """Answer the sources without the rows that the index answers for."""
        rest = self._rest
        if rest is None:
            return []
        return [replace(one, counts=all_of(one.counts, rest)) for one in sources]

    def ask(self, select: Sql, rest: str = "", within: Sql = ALWAYS) -> Iterator[pa.Table]:
        """Select from tail and lake, but for what the index answers.

        There are several answers, to be put together.
        """
        for source in (*self._unindexed(self._found), *self._tail):
            yield from self._ask(source, select, rest, within)

    def count(self) -> int:
        """Answer how many events are found."""
        count = sum(int(table["n"][0].as_py()) for table in self.ask(Sql("count(*) AS n")))
        if self._part is not None:
            count += self._part.count() + len(self._looked_up(self._part.doubts()))
        return count

    def _looked_up(self, doubts: Sequence[Place]) -> list[Place]:
        """Answer those of the places at which there is an event that is meant."""
        if not doubts:
            return []
        here = at_places(doubts)
        times = [Window(place.received_at, place.received_at) for place in doubts]
        sources = self._lake_within(*times)
        tables = (t for source in sources for t in self._ask(source, _PLACE, "", here))
        return sorted({place for table in tables for place in _places(table)} & set(doubts))

    def first(self, wanted: int) -> list[Place]:
        """Answer the places of the first events found."""
        rest = _first_places(wanted, descending=self._search.descending)
        places: set[Place] = set()
        if self._part is not None:
            search = self._search
            found, doubts = self._part.first(
                wanted, descending=search.descending, after=search.after
            )
            places.update(found, self._looked_up(doubts))
        for source in self._tail:
            for table in self._ask(source, _PLACE, rest):
                places.update(_places(table))
        if self._rest is not None:
            for window, sources in self._steps(wanted, places):
                for source, within in sources:
                    for table in self._ask(source, _PLACE, rest, within):
                        places.update(_places(table))
                if self._beyond(places, window) >= wanted:
                    break
        return sorted(places, reverse=self._search.descending)[:wanted]

    def _steps(
        self, wanted: int, found: Collection[Place]
    ) -> Iterator[tuple[Window, list[tuple[_Source, Sql]]]]:
        """Answer what of the lake to search one after the other, and the time that each is.

        Steps grow with what is `found` when the next one is asked for.
        """
        if self._files is not None:
            steps = _steps(wanted, found)
            newest_first = self._search.descending
            for window in windows(self._pieces[0], newest_first=newest_first, steps=steps):
                sources = self._unindexed(self._found_within(window))
                yield window, [(source, ALWAYS) for source in sources]
            return
        for source in self._unindexed(self._lake):
            for start, within in self._windows(source):
                window = WHOLE if start is None else Window(start, EVER[1])
                yield window, [(source, within)]

    def _beyond(self, places: Iterable[Place], window: Window) -> int:
        """Answer how many places come before every one that is not in this time, nor was before."""
        if self._search.descending:
            if window.first == EVER[0]:
                return 0
            return sum(place.received_at >= window.first for place in places)
        if window.last == EVER[1]:
            return 0
        return sum(place.received_at <= window.last for place in places)

    def ordered(self, wanted: int) -> list[Place]:
        """Answer the places of the first events in the order that the query's modifiers say."""
        query = self._search.query
        order = "DESC" if self._search.descending else "ASC"
        sorting = (
            f"rank, number {order} NULLS LAST, text {order} NULLS LAST, "
            "received DESC, log_partition DESC, log_offset DESC"
        )
        rest = f"ORDER BY {sorting} LIMIT {wanted}"
        if query.unique is not None:
            same = "unique_rank, unique_number, unique_text"
            rest = (
                f"QUALIFY row_number() OVER (PARTITION BY {same} ORDER BY {sorting}) = 1 "
                f"AND unique_rank < {LAST} {rest}"
            )
        rows = [
            row
            for source in (*self._found, *self._tail)
            for table in self._ask(source, self._sorted_by(source), rest)
            for row in _ordered_rows(table)
        ]
        return first_of(rows, descending=self._search.descending)[:wanted]

    def read(self, places: Sequence[Place]) -> list[Found]:
        """Read the events at these places, in that order."""
        if not places:
            return []
        where = at_places(places)
        events: dict[Place, Found] = {}
        columns = Sql(_SHOWN[self._search.asked.view])
        for rows in self._select(self._tail, columns, where):
            events.update((found.place, found) for found in found_of(rows))
        if len(events) < len(places):  # not all of them are new
            times = {place.received_at for place in places if place not in events}
            sources = self._lake_within(*(Window(time, time) for time in times))
            for rows in self._select(sources, columns, where):
                events.update((found.place, found) for found in found_of(rows))
        if self._part is not None and any(place not in events for place in places):
            # Rows went, or came back otherwise, by other means than landing.
            raise NoAnswer("the index finds events that the lake does not have", away=False)
        return [events[place] for place in places]

    def newer(self, event_id: str, newest: Found | None) -> Found | None:
        """Answer the newest event with exactly this id, or the one given if none is newer."""
        columns = Sql(_SHOWN[self._search.asked.view])
        by_id = sql("event_id = {0}", value(event_id))
        order = _first_places(1, descending=True)
        if not self._search.quarantine:
            order = order.replace("ORDER BY ", "ORDER BY duplicate_of NULLS FIRST, ", 1)
        # With the time of one in the tail, engines need not look into any file of the lake.
        for source in (*self._tail, *self._table):
            # One that repeats another gives way to it, however old that is.
            known = newest if newest is not None and newest.duplicate_of is None else None
            since = all_of(*_received(since=known.received_at if known else None, until=None))
            for rows in self._select([source], columns, all_of(since, by_id), order):
                found = [*found_of(rows), *([newest] if newest else [])]
                newest = max(found, key=_first_to_show, default=None)
        return newest

    def _select(
        self, sources: Iterable[_Source], select: Sql, where: Sql, rest: str = ""
    ) -> Iterator[pa.Table]:
        """Select from all rows of the sources before the cut, whatever is searched for."""
        for source in sources:
            read = source.of(self._reader)
            if read is not None:
                relation, counts = read
                yield _selected(self._reader, select, relation, all_of(counts, where), rest)

    def span(self) -> tuple[Micros, Micros] | None:
        """Answer from when to when, both included, events were received, found or not."""
        since, until = self._search.asked.since, self._search.asked.until
        if since is not None and until is not None:
            return since, until - 1
        columns = Sql("epoch_us(min(received_at)) AS first, epoch_us(max(received_at)) AS last")
        ends = []
        for found in self._select((*self._lake, *self._tail), columns, self._search.where()):
            ends += [
                (row["first"], row["last"]) for row in found.to_pylist() if row["first"] is not None
            ]
        if not ends:
            return None
        first, last = min(first for first, _ in ends), max(last for _, last in ends)
        return first if since is None else since, last if until is None else until - 1

    def counts(
        self, step: Micros, *, since: Micros | None = None, until: Micros | None = None
    ) -> dict[int, int]:
        """Answer how many events are found in each step of time that has any."""
        columns = Sql(f"epoch_us(received_at) // {step:d} AS bar, count(*) AS n")
        counts: Counter[int] = Counter()
        for table in self.ask(columns, "GROUP BY 1", all_of(*_received(since=since, until=until))):
            for bar, n in zip(table["bar"].to_pylist(), table["n"].to_pylist(), strict=True):
                counts[bar] += n
        if self._part is not None:
            counts.update(self._part.bars(step, since, until))
            counts.update(
                place.received_at // step
                for place in self._looked_up(self._part.doubts())
                if (since is None or place.received_at >= since)
                and (until is None or place.received_at < until)
            )
        return counts

    def _windows(self, source: _Source) -> Iterator[tuple[Micros | None, Sql]]:
        """Answer spans of time to search one after the other, each with its beginning.

        Together they are all of it. Only from the newest event back it is known where to begin.
        """
        newer: Sql = ALWAYS
        if self._search.descending:
            for width in self._widths:
                start = self._received_by_newest([source], width)
                if start is None:
                    break
                moment = sql("make_timestamptz({0})", value(start))
                yield start, all_of(sql("received_at >= {0}", moment), newer)
                newer = sql("received_at < {0}", moment)
        yield None, newer

    def _received_by_newest(self, sources: Sequence[_Source], width: int) -> Micros | None:
        """Answer when the earliest of the newest `width` events was received; None if that is all.

        On a later page only events that come after the last one are meant.
        """
        after = self._search.after
        ends = dict(self._cut.ends)
        if after is not None and after.partition in ends:
            ends[after.partition] = min(ends[after.partition], after.offset)
        # Less than as much again is not worth a search of its own.
        if any(end < 2 * width for end in ends.values()):
            return None
        edges = any_of(
            *(
                sql(
                    "(log_partition = {0} AND log_offset BETWEEN {1} AND {2})",
                    value(partition),
                    value(end - width),
                    value(end),
                )
                for partition, end in sorted(ends.items())
            )
        )
        columns = Sql("epoch_us(min(received_at)) AS received")
        found = [table["received"][0].as_py() for table in self._select(sources, columns, edges)]
        return min((one for one in found if one is not None), default=None)

    def _sorted_by(self, source: _Source) -> Sql:
        """Answer what to select to put events in order, and to tell them apart."""
        query = self._search.query
        rows: Rows = "quarantine" if self._search.quarantine else "rows"
        field = query.order_by or Time("received_at")
        by = sort_value(field, source.shape, descending=self._search.descending, rows=rows)
        columns = [_PLACE, *_named(by, "")]
        if query.unique is not None:
            same = sort_value(query.unique, source.shape, descending=False, rows=rows)
            columns += _named(same, "unique_")
        text = ", ".join(column.text for column in columns)
        return Sql(text, tuple(p for column in columns for p in column.parameters))

    def facet(self, field: Field, most: int) -> Facet:
        """Answer the values of a field that most of the events found have."""
        rows: Rows = "quarantine" if self._search.quarantine else "rows"
        with ExitStack() as opened:
            events: list[Sql] = []
            for source in (*self._found, *self._tail):
                columns = facet_columns(field, source.shape, rows=rows)
                for relation, where in self._parts(source, ALWAYS, opened):
                    text = f"SELECT {columns.text} FROM {relation} WHERE {where.text}"  # noqa: S608
                    events.append(Sql(text, (*columns.parameters, *where.parameters)))
            if not events:
                return Facet((), found=0, missing=0, others=0)
            statement = facet_statement(events, most)
            return _facet(self._reader.rows(statement.text, statement.parameters))

    def since_newest(self, newest: int) -> Micros | None:
        """Answer when the earliest of about so many newest events was received."""
        return self._received_by_newest(self._lake, newest) if self._lake else None

    def names_since(self, since: Micros | None) -> Iterator[KnownField]:
        """Answer the headers, the metadata and the misfits of events received since then."""
        names: dict[str, set[str]] = {kind: set() for kind in _NAMES}
        sources = self._lake_within(Window(EVER[0] if since is None else since, EVER[1]))
        for source in (*sources, *self._tail):
            select = ", ".join(
                f"list_distinct(flatten(array_agg({told}))) AS {kind}"
                for kind, told in _NAMES.items()
                if not (kind == "misfit" and self._search.quarantine)
            )
            where = all_of(*_received(since=since, until=None))
            for found in self._select([source], Sql(select), where):
                for kind in found.column_names:
                    names[kind].update(found[kind][0].as_py() or ())
        for kind, some in names.items():
            for name in sorted(some)[:_MOST_NAMES]:
                yield KnownField(_FIELD_OF[kind](name), kind)

    def _ask(
        self, source: _Source, select: Sql, rest: str, window: Sql = ALWAYS
    ) -> Iterator[pa.Table]:
        with ExitStack() as opened:
            for relation, where in self._parts(source, window, opened):
                yield _selected(self._reader, select, relation, where, rest)

    def _parts(self, source: _Source, window: Sql, opened: ExitStack) -> Iterator[tuple[str, Sql]]:
        """Answer relations with a condition each; every event meant fulfils exactly one of them.

        They can be read while what is `opened` for them is.
        """
        search = self._search
        bounds = all_of(search.where(), window, self._open)
        rows: Rows = "quarantine" if search.quarantine else "rows"
        stored, opaque_ = source.of(self._reader), source.of_opaque(self._reader)
        if search.reads_payloads:
            if stored is not None:
                condition = compile_sql(search.query, source.shape, rows=rows)
                before = compile_before(search.query, source.shape, rows=rows)
                yield self._with_payloads(source, all_of(bounds, before), opened), condition
            return
        # Groups of rows that are told apart must not be parted themselves.
        compiled = part_query if search.query.unique is None else _as_one_part
        telling = () if isinstance(source.rows, pa.Table) else self._telling
        parts = compiled(search.query, source.shape, rows=rows, telling=telling)
        for read, part in ((stored, parts.stored), (opaque_, parts.opaque)):
            if read is not None and part != NEVER:
                relation, counts = read
                yield relation, all_of(bounds, counts, part)

    def _with_payloads(self, source: _Source, bounds: Sql, opened: ExitStack) -> str:
        """Answer a relation with the columns that only payloads tell, which are made on the way."""
        # One connection cannot read a result and run another statement at once.
        other = opened.enter_context(self._engine.reader())
        read = source.of(other)
        assert read is not None  # noqa: S101 - asked where there are rows
        relation, counts = read
        where = all_of(bounds, counts)
        text = f"SELECT * FROM {relation} WHERE {where.text}"  # noqa: S608
        batches = other.batches(text, where.parameters)
        search = self._search
        return self._reader.arrow(told(batches, search.query.facts, quarantine=search.quarantine))


def _refuse_uncountable(field: Field) -> None:
    match field:
        case Time(name):
            raise BadRequest(f"nearly every event has a {name} of its own; ask for a histogram")
        case Header(None) | Metadata(None):
            raise BadRequest(f"name one of them, as in {field_text(field)}.NAME")


def _counting(search: _Search, field: Field) -> _Search:
    """Answer the search without modifiers, as one that reads what the values of a field need."""
    query = replace(search.query, order_by=field, unique=None, limit=None)
    return replace(search, query=query)


# What events have names for themselves for, and how to list those of one event.
_NAMES = {
    "header": "list_transform(headers, lambda h: lower(h.key))",
    "metadata": "map_keys(metadata)",
    "misfit": "list_transform(misfits, lambda m: m.path)",
}
_FIELD_OF: Mapping[str, Callable[[str], Field]] = {
    "header": Header,
    "metadata": Metadata,
    "misfit": lambda path: Payload(keys_of(path)),
}
_MOST_NAMES = 1_000


def _columns_known(shapes: Sequence[Struct]) -> Iterator[KnownField]:
    for shape in dict.fromkeys(shapes):
        for column in columns_of(shape):
            yield KnownField(Payload(keys_of(column.path)), column.kind)


def _facet(rows: pa.Table) -> Facet:
    events, missing, distinct = (
        rows[name][0].as_py() for name in ("events", "missing", "distinct_values")
    )
    values = [
        FacetValue(text if number is None else number_text(number), number is not None, n)
        for number, text, n in zip(
            *(rows[name].to_pylist() for name in ("number", "text", "n")), strict=True
        )
        if n is not None
    ]
    return Facet(tuple(values), found=events, missing=missing, others=distinct - len(values))


def _histogram(looking: _Looking, asked: SearchRequest, bars: int) -> Histogram:
    span = looking.span()
    if span is None:
        return Histogram((), _NICE_STEPS[0])
    if asked.since is not None and asked.until is not None:
        step = nice_step(span[1] - span[0], bars)
        return _drawn(looking.counts(step), step, asked)
    # The events found may lie close together within the time of all events.
    fine = nice_step(span[1] - span[0], bars * _FINER)
    counts = looking.counts(fine)
    if not counts:
        return Histogram((), fine)
    first, last = min(counts) * fine, (max(counts) + 1) * fine - 1
    first = first if asked.since is None else asked.since
    last = last if asked.until is None else asked.until - 1
    step = nice_step(last - first, bars)
    if step % fine:
        return _drawn(looking.counts(step, since=first, until=last + 1), step, asked)
    coarse: dict[int, int] = {}
    for bar, n in counts.items():
        coarse[bar * fine // step] = coarse.get(bar * fine // step, 0) + n
    return _drawn(coarse, step, asked)


def at_places(places: Sequence[Place]) -> Sql:
    """Answer a condition that the events at these places fulfil, and hardly any others."""
    times = [place.received_at for place in places]
    # Not as parameters: DuckDB's package takes 0.3 ms for each.
    offsets = ", ".join(sorted(f"{place.offset:d}" for place in places))
    return all_of(
        sql("received_at >= make_timestamptz({0})", value(min(times))),
        sql("received_at <= make_timestamptz({0})", value(max(times))),
        Sql(f"log_offset IN ({offsets})"),
        # The engine leaves out row groups by IN. This it asks while it reads one, and reads
        # the other columns no further than the last event: half the time for 20 rare ones.
        # Of many, comparing takes longer than that.
        Sql(f"list_contains([{offsets}], log_offset)") if len(places) <= _FEW else ALWAYS,
    )


def _drawn(counts: Mapping[int, int], step: Micros, asked: SearchRequest) -> Histogram:
    """Answer the bars, from the bounds that were asked for or from the first event to the last."""
    if not counts and (asked.since is None or asked.until is None):
        return Histogram((), step)
    first = min(counts) if asked.since is None else asked.since // step
    last = max(counts) if asked.until is None else (asked.until - 1) // step
    # The first step may begin before the first year there is.
    bars = (Bar(max(bar * step, _LEAST), counts.get(bar, 0)) for bar in range(first, last + 1))
    return Histogram(tuple(bars), step)


def _received(*, since: Micros | None, until: Micros | None) -> Iterator[Sql]:
    if since is not None:
        yield sql("received_at >= make_timestamptz({0})", value(since))
    if until is not None:
        yield sql("received_at < make_timestamptz({0})", value(until))


def nice_step(span: Micros, bars: int) -> Micros:
    """Answer the shortest usual step that needs at most so many bars for a span."""
    for step in _NICE_STEPS:
        if span // step < bars:
            return step
    longest = _NICE_STEPS[-1]
    return longest * (span // longest // bars + 1)


_LEAST: Micros = -62_135_596_800_000_000
"""The beginning of the year 1."""

_NICE_STEPS: tuple[Micros, ...] = tuple(
    seconds * 1_000_000
    for seconds in (
        *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800),
        *(3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000),
    )
)


def found_of(rows: pa.Table) -> list[Found]:
    """Turn rows into events; columns that a view does not have keep their defaults."""
    for name in ("received_at", "event_time"):
        times = rows[name].cast(TIME).cast(pa.int64())
        rows = rows.set_column(rows.schema.get_field_index(name), name, times)
    events = []
    for record in rows.to_pylist(maps_as_pydicts="strict"):
        record["headers"] = tuple((h["key"], h["value"]) for h in record["headers"] or ())
        record["metadata"] = record["metadata"] or {}
        if "misfits" in record:
            record["misfits"] = tuple((m["path"], m["value"]) for m in record["misfits"] or ())
        events.append(Found(**record))
    return events


class Ordered(NamedTuple):
    """An event with what it is ordered by, and what it is told apart by."""

    place: Place
    value: _Value
    same: _Value | None


class _Value(NamedTuple):
    """What `penstock.query.order.SortValue` came to."""

    rank: int
    number: float | None
    text: str | None


def first_of(rows: Sequence[Ordered], *, descending: bool) -> list[Place]:
    """Answer the places of the rows of all sources in order; of equal ones only the first."""
    # Sorts keep the order of equals, so the least important comes first.
    found = sorted(rows, key=lambda row: row.place, reverse=True)
    found.sort(key=lambda row: row.value.text or "", reverse=descending)
    found.sort(key=lambda row: row.value.number or 0.0, reverse=descending)
    found.sort(key=lambda row: row.value.rank)
    seen: set[_Value] = set()
    places = []
    for row in found:
        if row.same is not None and row.same in seen:
            continue
        if row.same is not None:
            seen.add(row.same)
        places.append(row.place)
    return places


def _ordered_rows(table: pa.Table) -> Iterator[Ordered]:
    unique = "unique_rank" in table.column_names
    for place, row in zip(_places(table), table.to_pylist(), strict=True):
        same = None
        if unique:
            same = _Value(row["unique_rank"], row["unique_number"], row["unique_text"])
        yield Ordered(place, _Value(row["rank"], row["number"], row["text"]), same)


def _as_one_part(
    query: Query,
    shape: Struct,
    *,
    rows: Rows,
    telling: Sequence[LeafColumn],  # noqa: ARG001 - as `part_query` takes them
) -> Parts:
    return Parts(compile_sql(query, shape, rows=rows), NEVER)


def _named(by: SortValue, prefix: str) -> list[Sql]:
    return [
        sql(f"{{0}} AS {prefix}rank", by.rank),
        sql(f"{{0}} AS {prefix}number", by.number),
        sql(f"{{0}} AS {prefix}text", by.text),
    ]


def _steps(wanted: int, found: Collection[Place]) -> Iterator[int]:
    """Answer how many rows to read in each step, without end."""
    rows, step = 0, FIRST_STEP
    while True:
        yield step
        rows += step
        step = next_step(rows, len(found), wanted)


def _first_to_show(one: Found) -> tuple[bool, Place]:
    return one.duplicate_of is None, one.place


def _places(table: pa.Table) -> list[Place]:
    columns = (table[name].to_pylist() for name in ("received", "log_partition", "log_offset"))
    return [Place(*row) for row in zip(*columns, strict=True)]


def _first_places(count: int, *, descending: bool) -> str:
    order = "DESC" if descending else "ASC"
    columns = ("received_at", "log_partition", "log_offset")
    return f"ORDER BY {', '.join(f'{name} {order}' for name in columns)} LIMIT {count}"


def _beyond(place: Place, *, newest_first: bool) -> Sql:
    """Answer the condition for events that come after a place in the order of answers."""
    sign = "<" if newest_first else ">"
    at = sql("make_timestamptz({0})", value(place.received_at))
    partition, offset = value(place.partition), value(place.offset)
    return all_of(
        # By itself, so that engines can leave out partitions and row groups by it.
        sql(f"received_at {sign}= {{0}}", at),
        any_of(
            sql(f"received_at {sign} {{0}}", at),
            sql(f"log_partition {sign} {{0}}", partition),
            sql(f"(log_partition = {{0}} AND log_offset {sign} {{1}})", partition, offset),
        ),
    )


def _selected(reader: Reader, select: Sql, relation: str, where: Sql, rest: str) -> pa.Table:
    text = f"SELECT {select.text} FROM {relation} WHERE {where.text} {rest}"  # noqa: S608
    return reader.rows(text, (*select.parameters, *where.parameters))
