"""Which rows of a table the index answers for, and which the lake."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from builders import FLIGHTS, NOON
from indexing import DAY

from lakehouse import TableView
from lakehouse.listing import EVER
from lakehouse.sql import Engine, open_engine
from penstock.codec import TIME
from penstock.envelope import Mark
from penstock.query import parse
from penstock.query.pieces import all_of
from penstock.schema.shape import EMPTY
from penstock.search.cut import Cut
from penstock.search.index import FIRST_DAY, State
from penstock.search.indexed import Part, Shortcuts
from penstock.search.spans import between

INDEX: Any = SimpleNamespace()


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(tmp_path_factory.mktemp("spill"), memory="200MB", threads=1)
    yield engine
    engine.close()


def table(
    marks: Mapping[int, int], *, logs: tuple[str, ...] = ("log",), expired_before: int = 0
) -> TableView:
    return TableView(
        collection=FLIGHTS,
        uuid="table",
        metadata_location="",
        snapshot_id=1,
        schema_id=0,
        shape=EMPTY,
        marks=tuple(Mark(log, p, end, "x") for log in logs for p, end in marks.items()),
        landed_sequence=1,
        rolled_back=False,
        rows=0,
        bytes=0,
        files=0,
        expired_before=expired_before,
    )


def cut(view: TableView | None, ends: Mapping[int, int]) -> Cut:
    return Cut(log_id="log", table=view, tail=(), ends=ends, asked=ends)


def state(marks: dict[int, int], **more: Any) -> State:
    days = {"penstock-main-flights-2025.11.24-aa": "id"}
    given = {"generation": "aa", "log_id": "log", "table": "table", "days": days, **more}
    return State(marks=marks, **given)


def part_of(known: State, there: Cut, **bounds: Any) -> Part | None:
    bounds = {"since": None, "until": None, **bounds}
    return Shortcuts(INDEX).part(known, there, parse("", now=0), **bounds)


def holds(query: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Answer whether a document fulfils a query of the kinds that bounds are made of."""
    ((kind, inner),) = query.items()
    match kind:
        case "match_all":
            return True
        case "term":
            return all(document.get(name) == value for name, value in inner.items())
        case "range":
            ((name, ends),) = inner.items()
            value = document[name]
            return value >= ends.get("gte", value) and value < ends.get("lt", value + 1)
    return (
        all(holds(one, document) for one in inner.get("filter", ()))
        and any(holds(one, document) for one in inner.get("should", [{"match_all": {}}]))
        and not any(holds(one, document) for one in inner.get("must_not", ()))
    )


@pytest.mark.parametrize("seed", range(24))
def test_every_row_before_the_cut_is_answered_for_once(sql: Engine, seed: int) -> None:
    """By the index or by the lake, whichever partitions lag and however far."""
    chance = random.Random(seed)
    marks = {p: chance.randint(0, 8) for p in range(3)}
    ends = {p: chance.randint(0, 10) for p in range(chance.choice([2, 3]))}
    indexed = {p: chance.randint(0, end) for p, end in marks.items() if chance.random() < 0.8}
    since = chance.choice([FIRST_DAY, NOON])
    logs = chance.choice([("log",), ("log", "older")])
    # What the table dropped may be in the index still, or some of it.
    dropped = chance.choice([0, NOON])
    known = state(indexed, since=since)
    there = cut(table(marks, logs=logs, expired_before=dropped), ends)
    rows = [
        {
            "log_id": log,
            "log_partition": p,
            "log_offset": offset,
            "received_at": NOON + chance.choice([-DAY, 0, DAY]),
        }
        for log in logs
        for p, end in marks.items()
        for offset in range(end)
    ]
    part = part_of(known, there)
    rest = part.rest(there) if part is not None else None
    schema = pa.schema(
        [
            ("log_id", pa.string()),
            ("log_partition", pa.int32()),
            ("log_offset", pa.int64()),
            ("received_at", TIME),
        ]
    )

    with sql.reader() as reader:
        kept = [row for row in rows if row["received_at"] >= dropped or chance.random() < 0.2]
        source = reader.arrow(pa.Table.from_pylist(kept, schema))

        def selected(condition: Any) -> set[tuple[str, int, int]]:
            text = f"SELECT log_id, log_partition, log_offset FROM {source} WHERE {condition.text}"
            return {tuple(r.values()) for r in reader.rows(text, condition.parameters).to_pylist()}

        wanted = selected(there.landed())
        if part is None:
            return
        lake = set()
        if rest is not None:
            within = between(EVER[0], rest.last)
            lake = selected(all_of(there.landed(), rest.where, within))
    (certain, _) = part._questions(1, descending=True, after=None)
    documents = {
        (row["log_id"], row["log_partition"], row["log_offset"])
        for row in rows
        # What was stored and is not behind the mark yet is in the index, too.
        if row["log_id"] == "log"
        and row["received_at"] >= since
        and holds(
            certain.query,
            {
                "at": row["received_at"],
                "partition": row["log_partition"],
                "offset": row["log_offset"],
            },
        )
    }

    assert documents.isdisjoint(lake)
    assert documents | lake == wanted


@pytest.mark.parametrize(
    ("known", "view"),
    [
        (state({0: 5}, log_id="another"), table({0: 9})),
        (state({0: 5}, table="another"), table({0: 9})),
        (state({0: 5}), table({0: 4})),
        (state({0: 5}), None),
        (state({}), table({0: 9})),
        (state({0: 5}, days={}), table({0: 9})),
    ],
    ids=["log", "table", "rolled back", "no table", "nothing yet", "no index"],
)
def test_an_index_that_is_not_of_this_table_is_not_asked(known, view) -> None:
    """It would answer for rows of another one."""
    assert part_of(known, cut(view, {0: 9})) is None


def test_indices_of_other_days_are_left_out() -> None:
    """A search of an hour must not look into a year of indices."""
    days = {f"penstock-main-flights-2025.11.{day}-aa": "id" for day in (22, 23, 24, 25)}
    part = part_of(
        state({0: 5}, days=days), cut(table({0: 9}), {0: 9}), since=NOON - DAY, until=NOON
    )
    assert part is not None
    (certain, doubtful) = part._questions(1, descending=True, after=None)

    assert certain.indices == doubtful.indices == [list(days)[1], list(days)[2]]
