"""Penstock and Trino on the same tables, at the same time, both writing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trino
from builders import FLIGHTS, NOON, event
from engines.fresh import FreshLake, fresh_lake
from engines.places import HOST, TRINO_PORT
from lakes import BROKEN, HASTY, MAIN, STORE, append, everywhere, landing, log_of, mark_of, numbered

from lakehouse import Lake
from lakehouse.catalog import open_catalog
from lakehouse.sql import open_engine
from lakehouse.upkeep import compact
from penstock.buffer.memory import MemoryLog
from replay.plan import Planner
from replay.request import read_request

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("trino")]

NESTED = (
    '{"carrier": "UA", "delay": 3, "ratio": 1.5, "on": true,'
    ' "route": {"from": {"City": "Oslo"}}, "legs": [{"no": 1, "km": 2.5}, {"no": 2}]}'
)


@dataclass
class Shared:
    """A lake, and Trino on it."""

    lake: Lake
    sql: Any

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        cursor = self.sql.cursor()
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]


@pytest.fixture
def fresh() -> Iterator[FreshLake]:
    with fresh_lake() as lake:
        yield lake


@pytest.fixture
def shared(fresh: FreshLake) -> Iterator[Shared]:
    lake = Lake(open_catalog(fresh.catalog_url, fresh.warehouse_url, STORE), HASTY)
    connection = trino.dbapi.connect(
        host=HOST, port=TRINO_PORT, user="tests", catalog=fresh.trino_catalog, schema="main"
    )
    yield Shared(lake, connection)
    connection.close()


def land_all(lake: Lake, log: MemoryLog) -> None:
    work = landing(log, lake)
    while work.land_once(FLIGHTS):
        pass


def test_trino_reads_every_kind_of_column(shared: Shared) -> None:
    """Nested objects, lists of objects, maps, bytes, microseconds, days, quarantine."""
    log = MemoryLog()
    one = event(NESTED, id="e0", received_at=NOON + 1, headers=(("h", b"\x00\xff"), ("h", b"2")))
    log.append(FLIGHTS, [one, event(BROKEN, id="e1", received_at=NOON + 2)]).result()
    land_all(shared.lake, log)

    assert shared.rows(
        'select data.carrier, data.delay, data.ratio, data."on", data.route."from".city,'
        " data.legs[1].km, cardinality(data.legs), data.legs[2].km from flights"
    ) == [("UA", 3, 1.5, True, "Oslo", 2.5, 2, None)]
    assert shared.rows("select payload, headers[1].value, cardinality(headers) from flights") == [
        (NESTED.encode(), b"\x00\xff", 2)
    ]
    received = datetime.fromtimestamp(NOON // 1_000_000, UTC).replace(microsecond=1)
    assert shared.rows("select received_at from flights") == [(received,)]
    assert shared.rows("select cardinality(metadata) from flights")[0][0] in {0, None}
    assert shared.rows('select partition.received_at_day, record_count from "flights$partitions"')
    assert shared.rows('select stage, reason from "main__quarantine".flights') == [
        ("gate", "invalid_json")
    ]


def test_columns_grow_and_old_snapshots_stay_readable(shared: Shared) -> None:
    """Evolution and time travel mean the same to both."""
    log = log_of('{"a": 1}')
    land_all(shared.lake, log)
    first = shared.lake.view(FLIGHTS)
    assert first is not None
    append(log, '{"a": 2, "b": {"c": "x"}}')
    land_all(shared.lake, log)

    assert shared.rows("select data.a, data.b.c from flights order by log_offset") == [
        (1, None),
        (2, "x"),
    ]
    old = f"select count(*) from flights for version as of {first.snapshot_id}"
    assert shared.rows(old) == [(1,)]
    snapshots = shared.rows('select snapshot_id from "flights$snapshots"')
    assert (first.snapshot_id,) in snapshots


def test_what_trino_writes_is_read_here_and_marks_survive(shared: Shared, tmp_path) -> None:
    """A deletion, a new column, a property: landing goes on where it was."""
    log = log_of(*numbered(5))
    land_all(shared.lake, log)
    before = mark_of(shared.lake)

    shared.rows("delete from flights where log_offset = 2")
    shared.rows("alter table flights add column note varchar")
    shared.rows("update flights set note = 'seen' where log_offset = 3")
    shared.rows("comment on table flights is 'ours'")

    assert mark_of(shared.lake) == before
    append(log, *numbered(2, 5))
    land_all(shared.lake, log)
    assert everywhere(shared.lake) == Counter([0, 1, 3, 4, 5, 6])
    assert mark_of(shared.lake).next == 7
    view = shared.lake.view(FLIGHTS)
    assert view is not None
    engine = open_engine(tmp_path, memory="200MB", s3=STORE)
    with engine.reader() as reader:
        text = f"SELECT log_offset, note FROM {reader.lake(view)} ORDER BY 1"
        found = reader.rows(text).to_pylist()
    engine.close()
    assert [row["log_offset"] for row in found] == [0, 1, 3, 4, 5, 6]
    assert [row["note"] for row in found] == [None, None, "seen", None, None, None]
    # Rows that Trino deleted beside their file stay deleted.
    compact(shared.lake, MAIN, below=1 << 30, new_name=lambda: "merged", fewest=2)
    assert everywhere(shared.lake) == Counter([0, 1, 3, 4, 5, 6])
    assert shared.rows("select count(*) from flights") == [(6,)]


def test_landing_beside_optimize_loses_and_doubles_nothing(shared: Shared) -> None:
    """Both replace what they loaded; the loser of each race begins again."""
    log = log_of(*numbered(3))
    land_all(shared.lake, log)
    over = threading.Event()
    done: list[str] = []

    def optimize() -> None:
        while not over.is_set():
            try:
                shared.rows("alter table flights execute optimize")
                done.append("merged")
            except trino.exceptions.TrinoQueryError as error:
                done.append(error.error_name)

    thread = threading.Thread(target=optimize)
    thread.start()
    rounds = 0
    # A server that has just begun takes seconds for its first statements.
    until = time.monotonic() + 90
    while done.count("merged") < 4 and time.monotonic() < until:
        append(log, *numbered(2, 3 + 2 * rounds))
        land_all(shared.lake, log)
        rounds += 1
        time.sleep(0.2)
    over.set()
    thread.join(60)

    assert done.count("merged") >= 4, done
    assert everywhere(shared.lake) == Counter(range(3 + 2 * rounds))
    assert mark_of(shared.lake).next == 3 + 2 * rounds
    assert shared.rows("select count(*), count(distinct log_offset) from flights") == [
        (3 + 2 * rounds, 3 + 2 * rounds)
    ]


def test_what_a_plan_pinned_survives_trinos_clean_up(shared: Shared) -> None:
    """At no retention at all: the pinned snapshot keeps every file it needs."""
    log = log_of(*numbered(4))
    land_all(shared.lake, log)
    view = shared.lake.view(FLIGHTS)
    assert view is not None
    assert view.snapshot_id is not None
    shared.lake.pin(FLIGHTS, view.snapshot_id, "replay-1")
    for more in range(3):
        append(log, *numbered(1, 4 + more))
        land_all(shared.lake, log)
    shared.rows("delete from flights where log_offset < 2")
    shared.rows("alter table flights execute optimize")
    shared.rows("alter table flights execute expire_snapshots(retention_threshold => '0s')")
    shared.rows("alter table flights execute remove_orphan_files(retention_threshold => '0s')")

    assert shared.lake.pins(FLIGHTS) == {"replay-1": view.snapshot_id}
    table = shared.lake.table(MAIN)
    assert table is not None
    assert len(table.metadata.snapshots) == 2
    pinned = table.scan(snapshot_id=view.snapshot_id).to_arrow()
    assert sorted(pinned["log_offset"].to_pylist()) == [0, 1, 2, 3]
    append(log, *numbered(1, 7))
    land_all(shared.lake, log)
    assert everywhere(shared.lake) == Counter(range(2, 8))


@pytest.mark.parametrize("deleted", [{4}, {0}, {9}, {0, 9}, {3, 4, 5}, {0, 1, 8}, set(range(9))])
def test_what_trino_deleted_is_not_replayed(
    shared: Shared, tmp_path: Path, deleted: set[int]
) -> None:
    """Deletions lie beside the file; whoever took its rows by their numbers would send them."""
    log = log_of(*numbered(10))
    land_all(shared.lake, log)
    listed = ", ".join(map(str, deleted))
    shared.rows(f"delete from flights where log_offset in ({listed})")
    engine = open_engine(tmp_path, memory="200MB", s3=STORE)
    planner = Planner(shared.lake, log, engine, clock=lambda: NOON)
    request = read_request({"collection": FLIGHTS.name, "destination": "d1"}, team=FLIGHTS.team)

    plan = planner.plan(request, wake=lambda _: None)
    matches = planner.open(request, plan)
    assert matches is not None
    sent = [o.position.offset for b in matches.batches(matches.buckets(), None) for o in b]
    engine.close()

    assert sent == [n for n in range(10) if n not in deleted]
