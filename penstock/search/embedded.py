"""Search with the embedded SQL engine: over the lake's rows, and over the tail as Arrow.

Each is asked by itself, with the shape it has, and the answers are put together here. First it is
found out where the events stand that belong on a page, then those are read and no others.

Where there is an index (`penstock.search.indexed`), it is asked in place of the rows it holds. What
it cannot answer, and everything while it is away, is answered without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from lakehouse import Lake
from lakehouse.duplicates import Duplicates
from lakehouse.fill import fill
from lakehouse.listing import Listing
from lakehouse.sql import Engine, Reader
from penstock.buffer import Buffer
from penstock.envelope import Clock, CollectionId
from penstock.errors import BadRequest, EngineUnavailable, NotFound
from penstock.query import parse
from penstock.query.sql import (
    reads_opaque,
)
from penstock.query.stored import LeafColumn, telling
from penstock.query.tree import Field
from penstock.schema.convert import Rules
from penstock.search import (
    Facet,
    Found,
    Histogram,
    Known,
    Page,
    Place,
    SearchRequest,
    View,
)
from penstock.search import cursor as cursors
from penstock.search.around import Around, around
from penstock.search.bars import histogram
from penstock.search.cursor import Cursor
from penstock.search.cut import Cut, Cuts
from penstock.search.filters import Filters
from penstock.search.index import Index, State
from penstock.search.indexed import NoAnswer, Part, Shortcuts
from penstock.search.looking import (
    Definite,
    Looking,
    TableFiles,
    columns_known,
    counting,
    refuse_uncountable,
)
from penstock.search.tail import Tails
from penstock.search.values import KnownValues

_Answer = TypeVar("_Answer")

MOST_EVENTS = 1_000
"""Events of one page."""

MOST_VALUES = 1_000
"""Values of one facet."""

MOST_ORDERED = 10_000
"""Events of all pages together in another order: each page puts those before it in order again."""

WINDOWS = (200_000, 2_000_000, 20_000_000)
"""So many of the newest events are searched first: most pages are full by then."""


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
        self._values = KnownValues()
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

        def look(looking: Looking) -> tuple[list[Place], list[Found]]:
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

    def _folded(self, search: Definite, begun: State | NoAnswer | None, cut: Cut) -> int:
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
            search, begun, self._whole(asked), lambda looking: histogram(looking, asked, bars)
        )
        return drawn

    def facets(self, asked: SearchRequest, fields: Sequence[Field], *, most: int) -> list[Facet]:
        """Answer for each field its `most` frequent values, all of them counted in one reading.

        An index counts those of fields with few values; of others it says where few events are.
        """
        if not 1 <= most <= MOST_VALUES:
            raise BadRequest(f"a facet shows 1 to {MOST_VALUES:,} values")
        for field in fields:
            refuse_uncountable(field)
        if not fields:
            return []
        search = counting(self._definite(asked, None), fields)
        begun = self._begin(search)
        cut = self._whole(asked)
        found, _ = self._answer(search, begun, cut, lambda looking: looking.facets(most))
        return found

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
            fields = [*columns_known(shapes), *looking.names_since(since)]
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

    def _begin(self, search: Definite) -> State | NoAnswer | None:
        """Answer how far the index is; before the cut is taken, so that the lake is ahead of it."""
        if not search.by_place or search.quarantine:
            return None
        try:
            return self._shortcuts.begin(search.asked.collection)
        except NoAnswer as error:
            return error

    def _answer(
        self,
        search: Definite,
        begun: State | NoAnswer | None,
        cut: Cut,
        look: Callable[[Looking], _Answer],
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
        search: Definite,
        cut: Cut,
        reader: Reader,
        *,
        part: Part | None = None,
        telling: Sequence[LeafColumn] = (),
    ) -> Looking:
        def files() -> TableFiles | None:
            view = cut.table
            if view is None or view.snapshot_id is None or search.quarantine:
                return None
            listed = self._listing.files(view)
            if listed is None:
                return None
            return TableFiles(
                listed, view.uuid, self._filters, self._listing.payloads, self._values
            )

        return Looking(
            search,
            cut,
            reader,
            self._engine,
            self._windows,
            files=files,
            part=part,
            telling=telling,
        )

    def _telling(self, search: Definite, cut: Cut) -> tuple[LeafColumn, ...]:
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

    def _definite(self, asked: SearchRequest, cursor: Cursor | None) -> Definite:
        if asked.since is not None and asked.until is not None and asked.since >= asked.until:
            raise BadRequest("nothing lies between these times: since is not before until")
        now = cursor.now if cursor else self._clock()
        query = parse(asked.query, now=now)
        search = Definite(asked, query, now, None)
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

    def _next(self, search: Definite, cut: Cut, last: Place, given: int) -> str:
        ends = dict(cut.ends)
        digest = cursors.digest(search.asked)
        return cursors.write(Cursor(digest, search.now, cut.log_id, ends, last, given))


class _Told(NamedTuple):
    """By which columns rows of documents were known, when a table was so large."""

    schema_id: int
    rows: int
    columns: tuple[LeafColumn, ...]
