"""The same text finds the same events, wherever their leaves are stored.

A fixed corpus, and random events and searches, go through the compiler and DuckDB, and through
Trino on the real engines; a slow reference, written from the language's page alone, says which
events should have been found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import FLIGHTS, ticking
from lakes import new_lake
from log_batches import log_batch
from query_corpus import EVENTS, MANY, READS, SEARCHES, found, many
from query_corpus import FACTS as ASKED_OF_PAYLOADS
from query_reference import NOW, Asked, Read, Searches, micros
from ugly_events import NUMBERS, TEXTS, UglyEvents

from assets.landing import Landing
from lakehouse import Lake, TableView
from lakehouse.sql import Engine, Reader, open_engine
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Event
from penstock.query import Fact, Query, parse
from penstock.query.dialects import DUCKDB, TRINO, Dialect
from penstock.query.order import sort_value
from penstock.query.pieces import Sql, sql
from penstock.query.sql import Rows, compile_parts, compile_sql
from penstock.schema.convert import Rules, convert
from penstock.schema.rows import QUARANTINE_SCHEMA
from penstock.schema.shape import EMPTY, Struct
from penstock.search.facts import with_facts, with_leaves

FACTS = frozenset(Fact)

AT_ONCE = 40
"""Searches of one statement: Trino plans one for longer than it takes to read 2,000 rows."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("sql"), memory="1GB", threads=1)
    yield engine
    engine.close()


@dataclass(frozen=True)
class Stored:
    """Events in one place, and how they are searched there."""

    rows_of: Callable[[str, Sequence[object]], Sequence[Sequence[Any]]]
    """Runs SQL with these parameters; answers the rows."""
    source: str
    shape: Struct
    rows: Rows = "rows"
    dialect: Dialect = DUCKDB

    def found(self, query: Query, *, with_parts: bool = True) -> list[str]:
        """Answer the ids by the whole condition, after checking that its parts say the same."""
        more: dict[str, Any] = {"rows": self.rows, "dialect": self.dialect}
        whole = self._matching(compile_sql(query, self.shape, **more))
        parts = compile_parts(query, self.shape, **more) if with_parts else ()
        if len(parts) > 1:
            together = [found for part in parts for found in self._matching(part)]
            assert sorted(together) == sorted(whole), f"the parts find others: {query.text}"
        return whole

    def _matching(self, condition: Sql) -> list[str]:
        text = f"SELECT event_id FROM {self.source} WHERE {condition.text}"
        return [row[0] for row in self.rows_of(text, condition.parameters)]

    def found_each(self, queries: Sequence[Query]) -> list[list[str]]:
        """Answer the ids of each query, all of them asked in one statement: a column for each."""
        more: dict[str, Any] = {"rows": self.rows, "dialect": self.dialect}
        conditions = [compile_sql(query, self.shape, **more) for query in queries]
        columns = ", ".join(f"({condition.text})" for condition in conditions)
        parameters = [one for condition in conditions for one in condition.parameters]
        rows = self.rows_of(f"SELECT event_id, {columns} FROM {self.source}", parameters)
        return [[row[0] for row in rows if row[n]] for n in range(1, len(queries) + 1)]


def by_duckdb(reader: Reader) -> Callable[[str, Sequence[object]], Sequence[Sequence[Any]]]:
    """Answer how to ask the embedded engine."""

    def rows_of(text: str, parameters: Sequence[object]) -> Sequence[Sequence[Any]]:
        columns = reader.rows(text, parameters).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    return rows_of


def discovered(reader: Reader, events: list[Event], rules: Rules) -> Stored:
    """Land the events in three batches; the columns are those that landing discovers."""
    shape: Struct = EMPTY
    third = len(events) // 3 + 1
    tables = []
    for start in range(0, len(events), third):
        batch = log_batch(*events[start : start + third])
        converted = convert(batch, shape, rules)
        assert not converted.quarantined.num_rows
        shape = converted.shape
        tables.append(converted.rows)
    rows = _widened(tables)
    rows = pa.Table.from_batches([with_facts(rows, FACTS)])
    return Stored(by_duckdb(reader), reader.arrow(rows), shape)


def _widened(tables: list[pa.Table]) -> pa.RecordBatch:
    """Answer the rows of all batches with the columns of the last one."""
    whole = pa.concat_tables(tables, promote_options="permissive")
    offsets = pa.array(range(whole.num_rows), pa.int64())
    position = whole.schema.get_field_index("log_offset")
    whole = whole.set_column(position, whole.schema.field(position), offsets)
    (batch,) = whole.combine_chunks().to_batches(max_chunksize=whole.num_rows)
    return batch


def quarantined(reader: Reader, events: list[Event]) -> Stored:
    """Keep the events as quarantine does: payloads, and no columns of their leaves."""
    batch = log_batch(*events).drop_columns(["quarantine_wish", "named"])
    for name, text in (("stage", "gate"), ("reason", "Too Deep"), ("detail", None)):
        batch = batch.append_column(name, pa.array([text] * batch.num_rows, pa.string()))
    batch = batch.append_column("attempts", pa.array([1] * batch.num_rows, pa.int32()))
    assert batch.schema.names == QUARANTINE_SCHEMA.names
    batch = with_facts(with_leaves(batch), FACTS)
    return Stored(
        by_duckdb(reader), reader.arrow(pa.Table.from_batches([batch])), EMPTY, "quarantine"
    )


def landed(lake: Lake, events: list[Event], rules: Rules | None = None) -> TableView:
    """Keep the events in an Iceberg table, whose files name columns in their own way."""
    log = MemoryLog()
    clock = ticking()
    landing = Landing(log, lake, rules=lambda _: rules or Rules(), clock=clock, wait=lambda _: None)
    third = len(events) // 3 + 1
    for start in range(0, len(events), third):
        log.append(FLIGHTS, events[start : start + third]).result()
        while landing.land_once(FLIGHTS) is not None:
            pass
    view = lake.view(FLIGHTS)
    assert view is not None
    return view


def agree(engine: Engine, seed: int, folder: Path, *, events: int, searches: int) -> int:
    """Compare every way of storing with the reference; answer how many searches found something."""
    source = UglyEvents(seed)
    corpus = source.events(events)
    reads = [Read(e, partition=0, offset=offset) for offset, e in enumerate(corpus)]
    maker = Searches(random.Random(seed), source.paths, [*TEXTS, *NUMBERS], reads)
    hits = 0
    view = landed(new_lake(folder), corpus)
    with engine.reader() as reader:
        places = {
            "columns": discovered(reader, corpus, Rules()),
            "few columns": discovered(reader, corpus, Rules(max_columns=5, max_column_depth=2)),
            "quarantine": quarantined(reader, corpus),
            "lake": Stored(by_duckdb(reader), reader.lake(view), view.shape),
        }
        for _ in range(searches):
            asked = maker.search()
            wanted = {read.event.id for read in reads if asked.holds(read)}
            hits += bool(wanted) and len(wanted) < len(corpus)
            query = parse(asked.text, now=micros(NOW))
            for name, place in places.items():
                if name == "lake" and query.facts:
                    continue  # facts are columns that a search adds to the lake's rows
                found = place.found(query)
                assert len(found) == len(set(found))
                assert set(found) == wanted, _difference(name, asked, reads, wanted, set(found))
    return hits


def _difference(
    name: str, asked: Asked, reads: list[Read], wanted: set[str], found: set[str]
) -> str:
    lines = [f"{name} disagrees on {asked.text!r}"]
    for read in reads:
        if read.event.id in wanted ^ found:
            kind = "missed" if read.event.id in wanted else "wrong"
            lines.append(f"{kind}: {read.event.payload!r} {read.leaves}")
    return "\n".join(lines[:6])


def test_the_fixed_corpus_is_found_in_columns_and_misfits(engine: Engine) -> None:
    """Each of its events and searches is there because some engine has its own idea of it."""
    with engine.reader() as reader:
        places = {
            "columns": discovered(reader, list(EVENTS), Rules()),
            "few columns": discovered(reader, list(EVENTS), Rules(max_columns=5)),
            "quarantine": quarantined(reader, list(EVENTS)),
        }
        for asked in (*SEARCHES, *ASKED_OF_PAYLOADS):
            query = parse(asked.text, now=micros(NOW))
            wanted = found(asked)
            for name, place in places.items():
                here = set(place.found(query))
                assert here == wanted, _difference(name, asked, list(READS), wanted, here)


def test_no_search_of_the_fixed_corpus_is_idle() -> None:
    """One that finds nothing, or everything, proves little; a few of each are meant."""
    counts = [sum(map(asked.holds, READS)) for asked in (*SEARCHES, *ASKED_OF_PAYLOADS)]

    assert len(counts) > 100
    assert sum(count in (0, len(READS)) for count in counts) < 12


@pytest.mark.parametrize("seed", range(2))
def test_every_way_of_storing_finds_what_the_reference_finds(
    engine: Engine, seed: int, tmp_path: Path
) -> None:
    """A leaf beside its column, or an engine's own idea of case, would hide events from people."""
    hits = agree(engine, seed, tmp_path, events=60, searches=30)

    assert hits > 8, "the searches find nothing, so they prove nothing"


@pytest.mark.timeout(900)  # half a minute, unless others use the machine
def test_many_searches_find_what_the_reference_finds_among_many_events(engine: Engine) -> None:
    """What is rare in a small corpus comes together in a large one."""
    corpus, reads, searches = many()
    with engine.reader() as reader:
        place = discovered(reader, corpus, MANY)
        for asked, wanted in searches:
            found = place.found(parse(asked.text, now=micros(NOW)), with_parts=False)
            assert len(found) == len(set(found)), f"doubled by {asked.text!r}"
            assert set(found) == wanted, _difference("many", asked, reads, wanted, set(found))


def test_no_search_of_many_is_idle() -> None:
    """One that finds a few among the 2,000 events proves more than one that finds none of them."""
    corpus, _, searches = many()

    assert (len(corpus), len(searches)) == (2_000, 200)
    assert sum(0 < len(ids) < 2_000 for _, ids in searches) >= 195
    assert sum(5 <= len(ids) <= 1_995 for _, ids in searches) >= 100


@contextmanager
def in_trino(events: list[Event], rules: Rules | None = None) -> Iterator[Stored]:
    """Keep the events in a lake that Trino reads."""
    import trino
    from engine_lakes import trino_lake
    from engines.places import HOST, TRINO_PORT

    with trino_lake() as (lake, url):
        view = landed(lake, events, rules)
        catalog = url.rpartition("/")[2]
        with closing(
            trino.dbapi.connect(
                host=HOST, port=TRINO_PORT, user="tests", catalog=catalog, schema=FLIGHTS.team
            )
        ) as connection:

            def rows_of(text: str, parameters: Sequence[object]) -> Sequence[Sequence[Any]]:
                cursor = connection.cursor()
                cursor.execute(text, list(parameters) or None)
                return cursor.fetchall()

            yield Stored(rows_of, FLIGHTS.name, view.shape, dialect=TRINO)


@pytest.mark.engines
def test_trino_finds_the_fixed_corpus(engine: Engine) -> None:
    """Whoever takes a search to Trino gets the events that Penstock found."""
    with in_trino(list(EVENTS)) as place:
        for asked in SEARCHES:
            wanted = found(asked)
            here = place.found(parse(asked.text, now=micros(NOW)), with_parts=False)
            assert len(here) == len(set(here))
            assert set(here) == wanted, _difference("trino", asked, list(READS), wanted, set(here))


@pytest.mark.engines
@pytest.mark.parametrize("seed", range(2))
def test_trino_finds_what_the_reference_finds(seed: int) -> None:
    """Random searches ask what nobody thought of."""
    source = UglyEvents(seed)
    corpus = source.events(60)
    reads = [Read(e, partition=0, offset=offset) for offset, e in enumerate(corpus)]
    maker = Searches(random.Random(seed), source.paths, [*TEXTS, *NUMBERS], reads)
    with in_trino(corpus) as place:
        for _ in range(25):
            asked = maker.search()
            query = parse(asked.text, now=micros(NOW))
            if query.facts:
                continue  # facts are columns that a search adds to the lake's rows
            wanted = {read.event.id for read in reads if asked.holds(read)}
            here = set(place.found(query))
            assert here == wanted, _difference("trino", asked, reads, wanted, here)


@pytest.mark.timeout(900)  # half a minute, unless others use the machine
@pytest.mark.engines
def test_trino_finds_what_the_reference_finds_among_many_events() -> None:
    """The same events and searches as the embedded engine."""
    corpus, reads, searches = many()
    queries = [parse(one.asked.text, now=micros(NOW)) for one in searches]
    # Facts are columns that a search adds to the lake's rows.
    put = [(one, query) for one, query in zip(searches, queries, strict=True) if not query.facts]
    with in_trino(corpus, MANY) as place:
        for start in range(0, len(put), AT_ONCE):
            some = put[start : start + AT_ONCE]
            answers = place.found_each([query for _, query in some])
            for ((asked, wanted), _), found in zip(some, answers, strict=True):
                assert len(found) == len(set(found)), f"doubled by {asked.text!r}"
                assert set(found) == wanted, _difference("trino", asked, reads, wanted, set(found))
    assert len(put) >= 180


@pytest.mark.engines
def test_trino_orders_events_as_duckdb_does(engine: Engine) -> None:
    """A page of a search goes on where the last one ended."""
    fields = ["n", "delay", "name", "city", "lines.qty", "received_at", "event_time", "key"]
    fields += ["log_offset", "headers.x-request-id", "metadata.topic", "carrier", "tags"]
    with in_trino(list(EVENTS)) as theirs, engine.reader() as reader:
        ours = discovered(reader, list(EVENTS), Rules())
        for field in fields:
            for direction in ("ASC", "DESC"):
                order = f"* ${{ORDER_BY {field} AND SORT {direction}}}"
                assert _ordered(theirs, order) == _ordered(ours, order), order


def _ordered(place: Stored, text: str) -> list[str]:
    query = parse(text, now=micros(NOW))
    assert query.order_by is not None
    by = sort_value(query.order_by, place.shape, descending=query.descending, dialect=place.dialect)
    direction = "DESC" if query.descending else "ASC"
    parts = [sql("{0}", by.rank), sql(f"{{0}} {direction}", by.number)]
    parts.append(sql(f"{{0}} {direction}", by.text))
    order = ", ".join(part.text for part in parts)
    parameters = [parameter for part in parts for parameter in part.parameters]
    text = f"SELECT event_id FROM {place.source} ORDER BY {order}, event_id"
    return [row[0] for row in place.rows_of(text, parameters)]


@pytest.mark.parametrize(
    "text",
    [
        "source:http OR alpha",
        "alpha OR (source:http AND NOT a:1)",
        "(source:http OR plain) (content_type:* OR text)",
        "data:~alpha OR log_offset:>20",
        "data:* OR source:grpc",
        "alpha bravo OR _exists_:key",
    ],
)
def test_the_parts_of_a_condition_share_no_event(engine: Engine, text: str) -> None:
    """They are asked one after the other and added up; what both find would count twice."""
    source = UglyEvents(5)
    corpus = source.events(60)
    query = parse(text, now=micros(NOW))
    with engine.reader() as reader:
        place = discovered(reader, corpus, Rules())

        assert len(compile_parts(query, place.shape)) == 2
        assert place.found(query)
