"""Two hundred senders whose documents change their shape at random, and every engine reads them.

Before columns are rebuilt and after: every leaf that was sent is in its row once, in a column or
as a misfit, as DuckDB and Trino read it; a search under the path of a misfit finds its events; and
a rebuilt table is one that had known its whole shape from the start.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_bytes
from typing import Any, Protocol

import pyarrow as pa
import pytest
from builders import NOON, event
from lakes import STORE, landing, new_lake
from leaf_reference import missing_and_made_up, parsed, path
from query_reference import Read, lowered, number_of
from shape_sequences import sequence

from assets.rebuild import rebuild
from assets.retype import retype
from lakehouse import Lake, TableView
from lakehouse.columns import arrow_schema
from lakehouse.sql import Engine, open_engine
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId, Mark
from penstock.query import parse
from penstock.query.dialects import DUCKDB, TRINO, Dialect
from penstock.query.pieces import Sql
from penstock.query.sql import compile_sql
from penstock.schema.convert import Rules, convert
from penstock.schema.shape import EMPTY
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher

SEQUENCES, TOGETHER = 200, 8
"""Sequences in all, and in one table: a table costs more than what is sent to it."""

STORIES = SEQUENCES // TOGETHER
SHARE = (STORIES + 1) // 2
"""Tables of one test."""

SOME_SEARCHES = 20
"""So many once the same misfits were searched for, and in Trino, which compiles each."""

MOST_SEARCHES = 100
"""Misfits of one table that are searched for; only ten thousand keys have more."""

RULES = Rules()

Row = dict[str, Any]


@dataclass(frozen=True)
class Story:
    """A collection, and the payloads it is sent, batch by batch."""

    collection: CollectionId
    batches: list[list[str]]

    @property
    def payloads(self) -> list[str]:
        """Answer them in the order of the log."""
        return [payload for batch in self.batches for payload in batch]


def story(number: int) -> Story:
    """Answer some sequences side by side: one in four as it is, the others below a name."""
    batches: list[list[str]] = [[] for _ in sequence(0).batches]
    for seed in range(number * TOGETHER, (number + 1) * TOGETHER):
        for batch, more in zip(batches, sequence(seed).batches, strict=True):
            batch.extend(more if seed % 4 == 0 else [f'{{"s{seed}": {one}}}' for one in more])
    return Story(CollectionId("main", f"story{number}"), batches)


def told(lake: Lake, stories: Iterable[Story]) -> MemoryLog:
    """Land the stories; each batch is a commit."""
    log = MemoryLog()
    work = landing(log, lake, rules=RULES)
    for one in stories:
        offsets = itertools.count()
        for batch in one.batches:
            for payload in batch:
                offset = next(offsets)
                sent = event(payload, id=f"e{offset}", received_at=NOON + offset)
                log.append(one.collection, [sent])
            assert work.land_once(one.collection) is not None
    return log


def rebuilding(lake: Lake, story: Story) -> bool:
    done = rebuild(lake, story.collection, rules=RULES, clock=lambda: NOON, chance=token_bytes)
    assert done is not None
    assert done.refused == 0
    return True


def retyping(lake: Lake, story: Story) -> bool:
    """Answer whether a column was due."""
    done = retype(lake, story.collection, rules=RULES, clock=lambda: NOON, chance=token_bytes)
    return done.rewritten is not None


def view_of(lake: Lake, story: Story) -> TableView:
    view = lake.view(story.collection)
    assert view is not None
    return view


def data_type(lake: Lake, story: Story) -> pa.DataType:
    table = lake.table((story.collection.team, story.collection.name))
    assert table is not None
    schema = arrow_schema(table.schema())
    return schema.field("data").type if "data" in schema.names else pa.struct([])


# What is promised, whoever has read the rows


def assert_whole(story: Story, rows: list[Row], data: pa.DataType) -> None:
    """Assert that each payload is a row once, and each of its leaves is there once."""
    assert [row["log_offset"] for row in rows] == list(range(len(story.payloads)))
    for row, payload in zip(rows, story.payloads, strict=True):
        faults = missing_and_made_up({**row, "payload": payload}, data)
        assert faults == (Counter(), Counter()), f"{story.collection}: {payload}"


def without_nulls(value: Any) -> Any:
    """Leave fields without a value out: engines have a null for a column that a file lacks."""
    if isinstance(value, dict):
        found = {key: without_nulls(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not None} or None
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def contents(rows: Iterable[Row]) -> list[tuple[Any, Any]]:
    return [(without_nulls(row.get("data")), row["misfits"]) for row in rows]


def assert_as_known_from_the_start(
    lake: Lake, log: MemoryLog, story: Story, rows: list[Row]
) -> None:
    """Assert that the table is what one conversion of the whole log makes."""
    start = Mark(log.log_id(story.collection), 0, 0, "")
    everything = log.read(story.collection, start, end=len(story.payloads), max_bytes=1 << 30).rows
    whole = convert(everything, EMPTY, RULES).shape
    known = convert(everything, whole, RULES)
    assert known.shape == whole == view_of(lake, story).shape
    assert contents(rows) == contents(known.rows.to_pylist())


@contextmanager
def asking(url: str) -> Iterator[Callable[[str, Sequence[object]], list[list[Any]]]]:
    """Connect with Trino's own client."""
    import trino
    from engines.places import HOST, TRINO_PORT

    with closing(
        trino.dbapi.connect(
            host=HOST, port=TRINO_PORT, user="tests", catalog=url.rpartition("/")[2], schema="main"
        )
    ) as connection:

        def ask(text: str, parameters: Sequence[object]) -> list[list[Any]]:
            cursor = connection.cursor()
            cursor.execute(text, list(parameters) or None)
            rows: list[list[Any]] = cursor.fetchall()
            return rows

        yield ask


@dataclass(frozen=True)
class Asked:
    """A search under the path of a misfit, and the events that it has to find."""

    text: str
    wanted: frozenset[int]


def searches(story: Story, rows: list[Row], *, most: int = MOST_SEARCHES) -> list[Asked]:
    """Answer a search for each misfit of the rows, or so many, by its path and its value."""
    misfits = {(one["path"], one["value"]): None for row in rows for one in row["misfits"] or ()}
    chosen = list(misfits)
    if len(chosen) > most:
        chosen = random.Random(len(chosen)).sample(chosen, most)
    reads = [
        Read(event(payload, id=f"e{offset}"), partition=0, offset=offset)
        for offset, payload in enumerate(story.payloads)
    ]
    keys = {path(keys): keys for payload in story.payloads for keys in _paths(parsed(payload), ())}
    return [_asked(keys[where], where, value, reads) for where, value in chosen]


def _paths(value: object, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield keys
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*keys, key))
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, keys)


def _asked(keys: tuple[str, ...], where: str, value: str, reads: Sequence[Read]) -> Asked:
    scalar = json.loads(value, parse_int=str, parse_float=str)
    text = str(scalar).lower() if isinstance(scalar, bool) else scalar
    number = number_of(text)

    def same(leaf: object) -> bool:
        if isinstance(leaf, bool):
            return lowered(text) == str(leaf).lower()
        if isinstance(leaf, float):
            return number is not None and number == leaf
        return isinstance(leaf, str) and lowered(leaf) == lowered(text)

    wanted = frozenset(
        read.offset for read in reads if any(at == where and same(leaf) for at, leaf in read.leaves)
    )
    assert wanted, "no payload has this leaf"
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return Asked(f'{_field(keys)}:"{quoted}"', wanted)


def _field(keys: tuple[str, ...]) -> str:
    """Write a path as searches have it: whatever is no letter or digit has a backslash."""
    steps = ("".join(c if c.isalnum() else f"\\{c}" for c in key) for key in keys)
    return ".".join(("data", *steps))


class Place(Protocol):
    """An engine that reads the tables."""

    dialect: Dialect

    def rows(self, tables: Sequence[TableView]) -> list[list[Row]]:
        """Answer the rows of each table: offset, data, and misfits as SQL takes them from lists."""
        ...

    def found(self, table: TableView, conditions: Sequence[Sql]) -> list[set[int]]:
        """Answer the offsets of the rows for which each of the conditions is true."""
        ...


def assert_found(place: Place, table: TableView, asked: Sequence[Asked]) -> None:
    """Assert that each search finds its events."""
    compiled = [
        compile_sql(parse(one.text, now=NOON), table.shape, dialect=place.dialect) for one in asked
    ]
    for one, found in zip(asked, place.found(table, compiled), strict=True):
        assert found == one.wanted, f"{table.collection}: {one.text}"


def beside(rows: Iterable[Row], misfits: Iterable[Row]) -> list[Row]:
    """Put the misfits, in their order, to their rows."""
    found: dict[int, list[Row]] = {}
    for one in misfits:
        leaf = {"path": one["path"], "value": one["value"]}
        found.setdefault(one["log_offset"], []).append(leaf)
    ordered = sorted(rows, key=lambda row: int(row["log_offset"]))
    return [{**row, "misfits": found.get(row["log_offset"])} for row in ordered]


def true_where(columns: Sequence[Sequence[Any]], offsets: Sequence[int]) -> list[set[int]]:
    return [
        {offset for offset, true in zip(offsets, column, strict=True) if true} for column in columns
    ]


class InDuckdb:
    """Keeps the promise of `Place`."""

    dialect = DUCKDB

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(self, tables: Sequence[TableView]) -> list[list[Row]]:
        return [self._rows(table) for table in tables]

    def _rows(self, table: TableView) -> list[Row]:
        data = ", data" if table.shape != EMPTY else ""
        with self._engine.reader() as reader:
            source = reader.lake(table)
            rows = reader.rows(f"SELECT log_offset{data} FROM {source}").to_pylist()
            misfits = reader.rows(
                "SELECT log_offset, one.path AS path, one.value AS value "
                f"FROM (SELECT log_offset, unnest(misfits) AS one FROM {source})"
            )
        return beside(rows, misfits.to_pylist())

    def found(self, table: TableView, conditions: Sequence[Sql]) -> list[set[int]]:
        chosen = ", ".join(["log_offset", *(f"({one.text}) IS TRUE" for one in conditions)])
        parameters = [value for one in conditions for value in one.parameters]
        with self._engine.reader() as reader:
            rows = reader.rows(f"SELECT {chosen} FROM {reader.lake(table)}", parameters)
        offsets, *columns = (column.to_pylist() for column in rows.columns)
        return true_where(columns, offsets)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("sql"), memory="1GB", threads=1)
    yield engine
    engine.close()


def test_sequences_have_every_step_often() -> None:
    """What hardly ever happens is not proved by two hundred sequences."""
    steps = Counter(step for seed in range(SEQUENCES) for step in set(sequence(seed).steps))

    assert steps.pop("ten thousand keys") >= 3
    assert len(steps) == 14
    assert min(steps.values()) > SEQUENCES // 4, steps


@pytest.mark.parametrize("first", range(0, STORIES, SHARE))
def test_whatever_becomes_of_shapes_every_value_is_read_and_found(
    first: int, engine: Engine, tmp_path: Path
) -> None:
    """Landed by and by, retyped as upkeep does it, and rebuilt."""
    lake, place = new_lake(tmp_path), InDuckdb(engine)
    stories = [story(number) for number in range(STORIES)[first : first + SHARE]]
    log = told(lake, stories)
    searcher = EmbeddedSearcher(lake, log, engine, rules=lambda _: RULES, clock=lambda: NOON + 99)
    searched = retyped = 0
    for number, one in enumerate(stories):
        for step in (None, *([retyping] if number % 2 == 0 else []), rebuilding):
            if step is not None and not step(lake, one):
                continue
            retyped += step is retyping
            table = view_of(lake, one)
            (rows,) = place.rows([table])
            assert_whole(one, rows, data_type(lake, one))
            if step is rebuilding:
                assert_as_known_from_the_start(lake, log, one, rows)
            asked = searches(one, rows, most=MOST_SEARCHES if step is None else SOME_SEARCHES)
            searched += len(asked)
            assert_found(place, table, asked)
            request = SearchRequest(collection=one.collection, query=asked[0].text)
            page = searcher.search(request)
            assert {found.log_offset for found in page.events} == asked[0].wanted
    assert retyped
    assert searched > 40 * SHARE, "few misfits prove little"


def test_the_checks_see_what_is_wrong(engine: Engine, tmp_path: Path) -> None:
    """Mutants: a value lost, made up, in another row or under another path, and a lost event."""
    lake, place, one = new_lake(tmp_path), InDuckdb(engine), story(3)
    told(lake, [one])
    table, data = view_of(lake, one), data_type(lake, one)
    (rows,) = place.rows([table])
    at, row = next((n, row) for n, row in enumerate(rows) if row["misfits"] and row["data"])
    misfit = row["misfits"][0]

    def with_row(**changed: Any) -> list[Row]:
        return [*rows[:at], {**row, **changed}, *rows[at + 1 :]]

    for wrong in (
        rows[1:],
        with_row(misfits=row["misfits"][1:]),
        with_row(misfits=[*row["misfits"], misfit]),
        with_row(misfits=[{**misfit, "path": "elsewhere"}, *row["misfits"][1:]]),
        with_row(data=None),
        [rows[0], *({**row, "data": None} for row in rows[1:])],
    ):
        with pytest.raises(AssertionError):
            assert_whole(one, wrong, data)
    assert_whole(one, rows, data)
    asked = searches(one, rows)
    mutant = [replace(asked[0], wanted=asked[0].wanted | {len(rows)}), *asked[1:]]
    with pytest.raises(AssertionError):
        assert_found(place, table, mutant)


class InTrino:
    """Keeps the promise of `Place`, with few statements: each costs Trino a plan."""

    dialect = TRINO

    def __init__(self, ask: Callable[[str, Sequence[object]], list[list[Any]]]) -> None:
        self._ask = ask

    def rows(self, tables: Sequence[TableView]) -> list[list[Row]]:
        return [
            found
            for start in range(0, len(tables), 10)
            for found in self._rows(tables[start : start + 10])
        ]

    def _rows(self, tables: Sequence[TableView]) -> list[list[Row]]:
        lists = "CROSS JOIN UNNEST(misfits) WITH ORDINALITY AS one(path, value, place)"
        parts = []
        for number, table in enumerate(tables):
            name = table.collection.name
            data = "null" if table.shape == EMPTY else "json_format(CAST(data AS json))"
            nothing = "CAST(null AS varchar)"
            parts += [
                f"SELECT {number}, log_offset, {data}, {nothing}, {nothing}, 0 FROM {name}",
                f"SELECT {number}, log_offset, {nothing}, path, value, place FROM {name} {lists}",
            ]
        found: list[tuple[list[Row], list[Row]]] = [([], []) for _ in tables]
        for number, offset, data, where, value, place in sorted(
            self._ask(" UNION ALL ".join(parts), ()), key=lambda row: (row[1], row[5])
        ):
            rows, misfits = found[number]
            if place:
                misfits.append({"log_offset": offset, "path": where, "value": value})
            else:
                rows.append({"log_offset": offset, "data": json.loads(data) if data else None})
        return [beside(rows, misfits) for rows, misfits in found]

    def found(self, table: TableView, conditions: Sequence[Sql]) -> list[set[int]]:
        chosen = ", ".join(
            ["log_offset", *(f"coalesce(({one.text}), false)" for one in conditions)]
        )
        parameters = [value for one in conditions for value in one.parameters]
        rows = self._ask(f"SELECT {chosen} FROM {table.collection.name}", parameters)
        offsets, *columns = zip(*rows, strict=True)
        return true_where(columns, offsets)


@pytest.mark.engines
@pytest.mark.timeout(900)
def test_duckdb_and_trino_read_the_same_of_every_shape(engine: Engine, tmp_path: Path) -> None:
    """The catalog in PostgreSQL, the files on S3: each reads all, and they agree."""
    from engine_lakes import trino_lake

    stories = [story(number) for number in range(STORIES)]
    with trino_lake() as (lake, url), asking(url) as ask:
        log = told(lake, stories)
        on_s3 = open_engine(tmp_path, memory="1GB", threads=1, s3=STORE)
        duckdb, trino = InDuckdb(on_s3), InTrino(ask)
        for again in (False, True):
            if again:
                for one in stories:
                    assert rebuilding(lake, one)
            tables = [view_of(lake, one) for one in stories]
            for one, table, here, there in zip(
                stories, tables, duckdb.rows(tables), trino.rows(tables), strict=True
            ):
                data = data_type(lake, one)
                assert_whole(one, here, data)
                assert_whole(one, there, data)
                assert contents(here) == contents(there)
                if again:
                    assert_as_known_from_the_start(lake, log, one, there)
                asked = searches(one, there, most=SOME_SEARCHES)
                assert_found(duckdb, table, asked)
                assert_found(trino, table, asked)
        on_s3.close()
