"""One search of one cut: where in lake and tail events are found, and what is told of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice
from typing import NamedTuple

import pyarrow as pa

from lakehouse import TableView
from lakehouse.listing import EVER, Listed
from lakehouse.sql import Engine, Reader
from penstock.envelope import Micros
from penstock.errors import BadRequest
from penstock.query import Query
from penstock.query.elastic import Dsl, has_value, negated
from penstock.query.elastic import any_of as any_dsl
from penstock.query.facets import Has, facet_columns, facet_statement
from penstock.query.order import LAST, sort_value
from penstock.query.pieces import ALWAYS, NEVER, Sql, all_of, any_of, sql, value
from penstock.query.pruning import NOTHING, need_of, opaque
from penstock.query.spelling import UNKNOWN, Spelt
from penstock.query.sql import (
    Parts,
    Rows,
    compared_texts,
    compile_before,
    compile_sql,
    misfits_asked,
    part_query,
)
from penstock.query.stored import LeafColumn, columns_of
from penstock.query.tree import Field, Header, Metadata, Payload, Time
from penstock.query.writing import field_text
from penstock.schema.names import keys_of, path_text
from penstock.schema.shape import EMPTY, Struct
from penstock.search import (
    Facet,
    Found,
    KnownField,
    Place,
    SearchRequest,
)
from penstock.search.cut import Cut
from penstock.search.facts import told
from penstock.search.filling import words_of
from penstock.search.filters import Filters
from penstock.search.indexed import MOST_PLACES, NoAnswer, Part, Rest
from penstock.search.ordering import first_of, ordered_rows, sorting_columns
from penstock.search.places import (
    BUT_PAYLOADS,
    PLACE,
    SHOWN,
    at_places,
    beyond,
    exactly_at,
    first_places,
    found_of,
    places_of,
    received,
)
from penstock.search.spans import (
    FIRST_STEP,
    WHOLE,
    Piece,
    Reading,
    Window,
    bounded,
    few_spellings,
    next_step,
    readings,
    whole_files,
    windows,
    with_id,
)
from penstock.search.values import (
    MOST_KNOWN,
    KnownValues,
    Tally,
    ToldValue,
    facet_of,
    tally_of,
    together,
)

_MOST_BESIDE = 10_000
"""Values of a field that are put together with those of the index."""

_POSITION = "log_id, log_partition, log_offset"


class TableFiles(NamedTuple):
    """The data files of a table, and the filters there are of them."""

    listed: tuple[Listed, ...]
    table: str
    filters: Filters | None
    payloads: Callable[[Listed, Sequence[int]], list[bytes] | None]
    """Reads the payloads of rows of a file, whose numbers rise; None where it takes an engine."""
    values: KnownValues


@dataclass(frozen=True, slots=True)
class Definite:
    """A request made definite: its query read, the moment of ``now`` fixed."""

    asked: SearchRequest
    query: Query
    now: Micros
    after: Place | None
    counted: tuple[Field, ...] = ()
    """The fields whose values are counted of what is found."""

    @property
    def descending(self) -> bool:
        """Whether what the events are ordered by falls: newest first, unless told otherwise."""
        return self.query.descending if self.query.order_by else self.asked.newest_first

    @property
    def quarantine(self) -> bool:
        """Whether the quarantine is searched."""
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
        return bool(self.query.facts) or (
            self.quarantine
            and (self.query.reads_payload or any(isinstance(one, Payload) for one in self.counted))
        )

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
        parts = list(received(since=self.asked.since, until=self.asked.until))
        if self.folds:
            parts.append(Sql("duplicate_of IS NULL"))
        elif self.asked.duplicates == "only" and not self.quarantine:
            parts.append(Sql("duplicate_of IS NOT NULL"))
        if self.after is not None:
            parts.append(beyond(self.after, newest_first=self.descending))
        return all_of(*parts)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to be searched, in the lake or in memory, with the shape they have.

    Of files, `opaque` says where there may be payloads that are text and no JSON.
    """

    rows: TableView | pa.Table | Reading | None
    shape: Struct
    counts: Sql
    """Which of the rows lie before the cut."""
    opaque: Reading | None = None

    @property
    def misfits(self) -> bool:
        """Whether a misfit may decide which rows are found."""
        return not isinstance(self.rows, Reading) or self.rows.misfits

    @property
    def spelt(self) -> Spelt:
        """What is known of the columns whose texts are compared."""
        return self.rows.spelt if isinstance(self.rows, Reading) else UNKNOWN

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
        case Reading(paths, within=within):
            return reader.files(paths), all_of(counts, within)
        case _:
            return reader.arrow(rows), counts


class Looking:
    """One search of one cut, with a connection."""

    def __init__(
        self,
        search: Definite,
        cut: Cut,
        reader: Reader,
        engine: Engine,
        windows: Sequence[int] = (),
        *,
        files: Callable[[], TableFiles | None] = lambda: None,
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
        self._rest = part.rest(cut) if part is not None else Rest(ALWAYS, EVER[1])
        """Which rows of the lake are not answered by the index; None if there are none."""
        self._tail = [Source(rows, shape, ALWAYS) for rows, shape in search.tail(cut)]
        self._open = ALWAYS
        if cut.closed is not None and not search.asked.closed:
            # Row by row: what is closed may be many, and lies where the table was partitioned.
            closed = f"SELECT ROW({_POSITION}) FROM {reader.lake(cut.closed)}"  # noqa: S608 - ours
            self._open = Sql(f"ROW({_POSITION}) NOT IN ({closed})")

    @cached_property
    def _files(self) -> TableFiles | None:
        """The files of the table, None where it is no one's but the engine's to read them."""
        return self._list_files()

    @cached_property
    def _lake(self) -> list[Source]:
        """All rows of the lake."""
        return self._table if self._files is None else self._lake_within(WHOLE)

    @cached_property
    def _table(self) -> list[Source]:
        """All rows of the lake, read by the engine from the table's metadata on."""
        cut = self._cut
        if cut.table is None or cut.table.snapshot_id is None:
            return []
        return [Source(cut.table, cut.table.shape, cut.landed())]

    def _lake_with(self, event_id: str) -> list[Source]:
        """Answer what of the lake may have an event with this id."""
        if self._files is None:
            return self._table
        pieces, landed = with_id(self._files.listed, event_id), self._cut.landed()
        return [Source(one, one.shape, landed, one) for one in readings(pieces, WHOLE)]

    def _lake_within(self, time: Window) -> list[Source]:
        """Answer the files of the lake that have something of this time."""
        return self._whole_files(lambda one: one.first <= time.last and one.last >= time.first)

    def _lake_at(self, places: Collection[Place]) -> list[Source]:
        """Answer the files of the lake that may have events at these places."""
        times = sorted({place.received_at for place in places})

        def has(one: Listed) -> bool:
            following = bisect_left(times, one.first)
            return following < len(times) and times[following] <= one.last

        return self._whole_files(has)

    def _whole_files(self, chosen: Callable[[Listed], bool]) -> list[Source]:
        if self._files is None:
            return self._table
        landed = self._cut.landed()
        files = whole_files(one for one in self._files.listed if chosen(one))
        return [Source(one, one.shape, landed, one) for one in readings(files, WHOLE)]

    @cached_property
    def _pieces(self) -> tuple[list[Piece], list[Piece]]:
        """Where in the files events may be that are found, and those with opaque payloads."""
        assert self._files is not None  # noqa: S101 - asked where there are files
        listed, table, filters, _, _ = self._files
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
        paths = misfits_asked(search.query)
        if paths is not None:
            # What is counted is asked, too.
            paths |= {path_text(one.keys) for one in search.counted if isinstance(one, Payload)}
        # An opaque payload has no misfits, so that no file is read otherwise for having some.
        texts = [replace(one, misfits=True) for one in filters.pieces(table, within, opaque(need))]
        stored = filters.pieces(table, within, need, paths, compared=compared_texts(search.query))
        return bounded(few_spellings(stored), time), bounded(texts, time)

    def _found_within(self, window: Window) -> list[Source]:
        """Answer where in a time events of the lake may be that are found."""
        stored, opaque_ = self._pieces
        by_shape = {one.shape: one for one in readings(opaque_, window)}
        landed = self._cut.landed()
        found = [
            Source(one, one.shape, landed, by_shape.pop(one.shape, None))
            for one in readings(stored, window)
        ]
        return [*found, *(Source(None, one.shape, landed, one) for one in by_shape.values())]

    @cached_property
    def _found(self) -> list[Source]:
        """Where events of the lake may be that are found."""
        return self._lake if self._files is None else self._found_within(WHOLE)

    def _unindexed(self, window: Window = WHOLE) -> list[Source]:
        """Answer where in a time events may be that are found and not answered by the index."""
        if self._rest is None:
            return []
        where, last = self._rest
        if self._files is None:
            sources = self._lake
        else:
            sources = self._found_within(Window(window.first, min(window.last, last)))
        return [replace(one, counts=all_of(one.counts, where)) for one in sources]

    def ask(self, select: Sql, rest: str = "", within: Sql = ALWAYS) -> Iterator[pa.Table]:
        """Select from tail and lake, but for what the index answers.

        There are several answers, to be put together.
        """
        for source in (*self._unindexed(), *self._tail):
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
        sources = self._lake_at(doubts)
        tables = (t for source in sources for t in self._ask(source, PLACE, "", here))
        return sorted({place for table in tables for place in places_of(table)} & set(doubts))

    def first(self, wanted: int) -> list[Place]:
        """Answer the places of the first events found."""
        rest = first_places(wanted, descending=self._search.descending)
        places: set[Place] = set()
        if self._part is not None:
            search = self._search
            found, doubts = self._part.first(
                wanted, descending=search.descending, after=search.after
            )
            places.update(found, self._looked_up(doubts))
        for source in self._tail:
            for table in self._ask(source, PLACE, rest):
                places.update(places_of(table))
        if self._rest is not None:
            for window, sources in self._steps(wanted, places):
                for source, within in sources:
                    for table in self._ask(source, PLACE, rest, within):
                        places.update(places_of(table))
                if self._settled(places, window) >= wanted:
                    break
        return sorted(places, reverse=self._search.descending)[:wanted]

    def _steps(
        self, wanted: int, found: Collection[Place]
    ) -> Iterator[tuple[Window, list[tuple[Source, Sql]]]]:
        """Answer what of the lake to search one after the other, and the time that each is.

        Steps grow with what is `found` when the next one is asked for.
        """
        if self._files is not None and self._rest is not None:
            pieces = bounded(self._pieces[0], Window(EVER[0], self._rest.last))
            newest_first = self._search.descending
            for window in windows(pieces, newest_first=newest_first, steps=_steps(wanted, found)):
                yield window, [(source, ALWAYS) for source in self._unindexed(window)]
            return
        for source in self._unindexed():
            for start, within in self._windows(source):
                window = WHOLE if start is None else Window(start, EVER[1])
                yield window, [(source, within)]

    def _settled(self, places: Iterable[Place], window: Window) -> int:
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
            for row in ordered_rows(table)
        ]
        return first_of(rows, descending=self._search.descending)[:wanted]

    def read(self, places: Sequence[Place]) -> list[Found]:
        """Read the events at these places, in that order."""
        if not places:
            return []
        where = at_places(places)
        events: dict[Place, Found] = {}
        columns = Sql(SHOWN[self._search.asked.view])
        for rows in self._select(self._tail, columns, where):
            events.update((found.place, found) for found in found_of(rows))
        if len(events) < len(places):  # not all of them are new
            for source in self._lake_at([place for place in places if place not in events]):
                for rows in self._shown(source, where):
                    events.update((found.place, found) for found in found_of(rows))
        if self._part is not None and any(place not in events for place in places):
            # Rows went, or came back otherwise, by other means than landing.
            raise NoAnswer("the index finds events that the lake does not have", away=False)
        return [events[place] for place in places]

    def _shown(self, source: Source, where: Sql, rest: str = "") -> Iterator[pa.Table]:
        """Answer what is shown of rows of a source of the lake, which are few."""
        found = list(self._with_single_payloads(source, where, rest))
        if None in found:
            yield from self._select([source], Sql(SHOWN[self._search.asked.view]), where, rest)
        else:
            yield from (rows for rows in found if rows is not None)

    def _with_single_payloads(
        self, source: Source, where: Sql, rest: str
    ) -> Iterator[pa.Table | None]:
        """Answer the same without unpacking other payloads; None where that cannot be done."""
        if not isinstance(source.rows, Reading) or self._files is None:
            yield None
            return
        listed, _, _, read, _ = self._files
        paths = set(source.rows.paths)
        files = {self._reader.file_name(one.path): one for one in listed if one.path in paths}
        for unsorted in self._select([source], BUT_PAYLOADS, where, rest):
            rows = unsorted.sort_by([("filename", "ascending"), ("file_row", "ascending")])
            named = zip(rows["filename"].to_pylist(), rows["file_row"].to_pylist(), strict=True)
            payloads: list[bytes] = []
            for name, some in groupby(named, key=lambda one: one[0]):
                file = files.get(name)
                told = None if file is None else read(file, [row for _, row in some])
                if told is None:
                    yield None
                    return
                payloads += told
            column = pa.array(payloads, pa.binary())
            yield rows.drop_columns(["filename", "file_row"]).append_column("payload", column)

    def newer(self, event_id: str, newest: Found | None) -> Found | None:
        """Answer the newest event with exactly this id, or the one given if none is newer."""
        by_id = sql("event_id = {0}", value(event_id))
        order = first_places(1, descending=True)
        if not self._search.quarantine:
            order = order.replace("ORDER BY ", "ORDER BY duplicate_of NULLS FIRST, ", 1)
        for source in self._tail:
            newest = self._newer_in(source, by_id, order, newest)
        # With the time of one in the tail, engines need not look into any file of the lake.
        known = newest is not None and newest.duplicate_of is None
        for source in self._table if known else self._lake_with(event_id):
            newest = self._newer_in(source, by_id, order, newest)
        return newest

    def _newer_in(
        self, source: Source, by_id: Sql, order: str, newest: Found | None
    ) -> Found | None:
        # One that repeats another gives way to it, however old that is.
        known = newest if newest is not None and newest.duplicate_of is None else None
        since = all_of(*received(since=known.received_at if known else None, until=None))
        for rows in self._shown(source, all_of(since, by_id), order):
            found = [*found_of(rows), *([newest] if newest else [])]
            newest = max(found, key=_first_to_show, default=None)
        return newest

    def _select(
        self, sources: Iterable[Source], select: Sql, where: Sql, rest: str = ""
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
        for table in self.ask(columns, "GROUP BY 1", all_of(*received(since=since, until=until))):
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

    def _windows(self, source: Source) -> Iterator[tuple[Micros | None, Sql]]:
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

    def _received_by_newest(self, sources: Sequence[Source], width: int) -> Micros | None:
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

    def _sorted_by(self, source: Source) -> Sql:
        """Answer what to select to put events in order, and to tell them apart."""
        query = self._search.query
        rows: Rows = "quarantine" if self._search.quarantine else "rows"
        field = query.order_by or Time("received_at")
        by = sort_value(field, source.shape, descending=self._search.descending, rows=rows)
        columns = [PLACE, *sorting_columns(by, "")]
        if query.unique is not None:
            same = sort_value(query.unique, source.shape, descending=False, rows=rows)
            columns += sorting_columns(same, "unique_")
        text = ", ".join(column.text for column in columns)
        return Sql(text, tuple(p for column in columns for p in column.parameters))

    def facets(self, most: int) -> list[Facet]:
        """Answer of each field that is counted the values that most of the events found have."""
        return [facet_of(one, most) for one in self._tallies(most)]

    def _tallies(self, most: int) -> list[Tally]:
        part = self._part
        if part is None:
            return self._count(self._found, most)
        events = part.count()
        indexed = self._indexed(part, events) if events else None
        if indexed is not None:
            places = self._looked_up(part.doubts())
            rest = self._count(self._unindexed(), _MOST_BESIDE, places)
            both = [together(*each) for each in zip(indexed, rest, strict=True)]
            told = [one for one in both if one is not None]
            if len(told) == len(both):
                return told
        if events <= MOST_PLACES:
            # Read at their places: what a condition has to read may be much more.
            found, doubts = part.first(MOST_PLACES, descending=True, after=None)
            places = [*found, *self._looked_up(doubts)]
            return self._count(self._unindexed(), most, places)
        return self._count(self._found, most)

    def _indexed(self, part: Part, events: int) -> list[Tally] | None:
        """Answer what the index counts of the fields; None where it cannot be asked for all."""
        fields, files = self._search.counted, self._files
        if files is None or any(has_value(one, "") is None for one in fields):
            return None
        known = files.values.of(files.table, fields, files.listed, self._look_into)
        if known is None:
            return None
        asked: list[Dsl] = []
        for one, values in zip(fields, known, strict=True):
            queries = [query for v in values if (query := has_value(one, v)) is not None]
            asked += [*queries, negated(any_dsl(queries))]
        counts = iter(part.counts(asked))
        told = []
        for values in known:
            having = {v: n for v, n in zip(values, islice(counts, len(values)), strict=True) if n}
            told.append(Tally(events, next(counts), having))
        return told

    def _look_into(self, files: Sequence[Listed]) -> list[Tally]:
        """Answer how many rows of these files have which value of the fields, whatever is found."""
        assert self._files is not None  # noqa: S101 - whose files these are
        _, table, filters, _, _ = self._files
        fields = self._search.counted
        paths = frozenset(path_text(one.keys) for one in fields if isinstance(one, Payload))
        pieces = filters.pieces(table, files, NOTHING, paths) if filters else whole_files(files)
        events: dict[Has, list[Sql]] = {}
        for one in readings(pieces, WHOLE):
            source = Source(one, one.shape, ALWAYS)
            read = source.of(self._reader)
            self._add(events, source, [] if read is None else [read])
        return self._told(events, MOST_KNOWN)

    def _count(
        self, sources: Iterable[Source], most: int, places: Sequence[Place] = ()
    ) -> list[Tally]:
        """Count what is found in the sources and the tail, and the events at the places.

        Of each field the `most` frequent values are told.
        """
        events: dict[Has, list[Sql]] = {}
        if places:
            here = exactly_at(self._cut.log_id, places)
            for source in self._lake_at(places):
                read = source.of(self._reader)
                if read is not None:
                    relation, counts = read
                    self._add(events, source, [(relation, all_of(counts, here))])
        with ExitStack() as opened:
            for source in (*sources, *self._tail):
                self._add(events, source, self._parts(source, ALWAYS, opened))
            return self._told(events, most)

    def _add(
        self,
        events: dict[Has, list[Sql]],
        source: Source,
        relations: Iterable[tuple[str, Sql]],
    ) -> None:
        """Add what is to be counted of a source to the others whose events have such columns."""
        rows: Rows = "quarantine" if self._search.quarantine else "rows"
        columns, has = facet_columns(
            self._search.counted, source.shape, rows=rows, misfits=source.misfits
        )
        for relation, where in relations:
            text = f"SELECT {columns.text} FROM {relation} WHERE {where.text}"  # noqa: S608 - ours
            counted = Sql(text, (*columns.parameters, *where.parameters))
            events.setdefault(has, []).append(counted)

    def _told(self, events: Mapping[Has, Sequence[Sql]], most: int) -> list[Tally]:
        fields = len(self._search.counted)
        if not events:
            return [Tally()] * fields
        statement = facet_statement(events, fields, most)
        told = self._reader.rows(statement.text, statement.parameters).to_pylist()
        values: list[list[ToldValue]] = [[] for _ in range(fields)]
        for row in told:
            values[row["field"]].append(row)
        return [tally_of(some) for some in values]

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
            where = all_of(*received(since=since, until=None))
            for found in self._select([source], Sql(select), where):
                for kind in found.column_names:
                    names[kind].update(found[kind][0].as_py() or ())
        for kind, some in names.items():
            for name in sorted(some)[:_MOST_NAMES]:
                yield KnownField(_FIELD_OF[kind](name), kind)

    def _ask(
        self, source: Source, select: Sql, rest: str, window: Sql = ALWAYS
    ) -> Iterator[pa.Table]:
        with ExitStack() as opened:
            for relation, where in self._parts(source, window, opened):
                yield _selected(self._reader, select, relation, where, rest)

    def _parts(self, source: Source, window: Sql, opened: ExitStack) -> Iterator[tuple[str, Sql]]:
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
        parts = compiled(
            search.query,
            source.shape,
            rows=rows,
            telling=telling,
            misfits=source.misfits,
            spelt=source.spelt,
        )
        for read, part in ((stored, parts.stored), (opaque_, parts.opaque)):
            if read is not None and part != NEVER:
                relation, counts = read
                yield relation, all_of(bounds, counts, part)

    def _with_payloads(self, source: Source, bounds: Sql, opened: ExitStack) -> str:
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


def refuse_uncountable(field: Field) -> None:
    """Raise `BadRequest` for a field whose values are not worth counting, or that is many."""
    match field:
        case Time(name):
            raise BadRequest(f"nearly every event has a {name} of its own; ask for a histogram")
        case Header(None) | Metadata(None):
            raise BadRequest(f"name one of them, as in {field_text(field)}.NAME")


def counting(search: Definite, fields: Sequence[Field]) -> Definite:
    """Answer the search without modifiers, as one that counts the values of these fields."""
    query = replace(search.query, order_by=None, unique=None, limit=None)
    return replace(search, query=query, counted=tuple(fields))


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


def columns_known(shapes: Sequence[Struct]) -> Iterator[KnownField]:
    """Answer the fields that have columns in one of the shapes."""
    for shape in dict.fromkeys(shapes):
        for column in columns_of(shape):
            yield KnownField(Payload(keys_of(column.path)), column.kind)


def _as_one_part(
    query: Query,
    shape: Struct,
    *,
    rows: Rows,
    telling: Sequence[LeafColumn],  # noqa: ARG001 - as `part_query` takes them
    misfits: bool,
    spelt: Spelt,
) -> Parts:
    return Parts(compile_sql(query, shape, rows=rows, misfits=misfits, spelt=spelt), NEVER)


def _steps(wanted: int, found: Collection[Place]) -> Iterator[int]:
    """Answer how many rows to read in each step, without end."""
    rows, step = 0, FIRST_STEP
    while True:
        yield step
        rows += step
        step = next_step(rows, len(found), wanted)


def _first_to_show(one: Found) -> tuple[bool, Place]:
    return one.duplicate_of is None, one.place


def _selected(reader: Reader, select: Sql, relation: str, where: Sql, rest: str) -> pa.Table:
    text = f"SELECT {select.text} FROM {relation} WHERE {where.text} {rest}"  # noqa: S608
    return reader.rows(text, (*select.parameters, *where.parameters))
