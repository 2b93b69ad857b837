"""Trino merges files beside landing: rows, marks, pins and books stay, and both get on."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from engines import trino
from engines.fresh import FreshLake, fresh_lake, fresh_name
from engines.places import HOST, TRINO_PORT
from evidence.sheet import found, happened
from lakes import (
    BROKEN,
    HASTY,
    MAIN,
    STORE,
    append,
    everywhere,
    landing,
    mark_of,
    numbered,
    stored,
)
from pyiceberg.table import Table

from assets.checks import check_conservation
from assets.upkeep import Aims, Notes, check_upkeep, tend
from lakehouse import Lake
from lakehouse.attempts import Patience
from lakehouse.catalog import open_catalog
from lakehouse.columns import arrow_schema
from lakehouse.optimize import Merger, open_merger, optimize
from lakehouse.parquet import read
from lakehouse.sql import open_engine
from lakehouse.tables import HOLD, LONGEST_HOLD
from lakehouse.upkeep import DAY, Compacted, expire, sweep_orphans
from penstock.buffer.memory import MemoryLog
from penstock.errors import BadSetting
from replay.plan import Planner
from replay.request import read_request

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("trino")]

MB = 1 << 20
LATER = NOON + 3 * DAY


@dataclass
class Shared:
    """A lake that Trino sees, too."""

    lake: Lake
    fresh: FreshLake
    merger: Merger

    def merge(self, **more: Any) -> Any:
        """Have Trino merge whatever is worth it."""
        sizes = {"below": 32 * MB, "target": 64 * MB}
        return optimize(self.lake, MAIN, self.merger, **{"clock": lambda: LATER, **sizes, **more})


def merger_at(catalog: str, fresh: FreshLake) -> Merger:
    url = f"trino://tests@{HOST}:{TRINO_PORT}/{catalog}"
    merger = open_merger(url, catalog_url=fresh.catalog_url)
    assert merger is not None
    return merger


@pytest.fixture
def shared() -> Iterator[Shared]:
    with fresh_lake() as fresh:
        lake = Lake(open_catalog(fresh.catalog_url, fresh.warehouse_url, STORE), HASTY)
        yield Shared(lake, fresh, merger_at(fresh.trino_catalog, fresh))


def loaded(lake: Lake) -> Table:
    table = lake.table(MAIN)
    assert table is not None
    return table


def rows_of(lake: Lake, snapshot: int | None = None) -> pa.Table:
    """Answer every column of every row, in the order of the log."""
    rows = loaded(lake).scan(snapshot_id=snapshot).to_arrow()
    return rows.sort_by([("log_partition", "ascending"), ("log_offset", "ascending")])


def ours(lake: Lake) -> dict[str, str]:
    """Answer the table's properties."""
    return dict(loaded(lake).metadata.properties)


def payload(number: int) -> str:
    """Answer one of many shapes: nested, lists, longs, doubles, misfits, texts."""
    return json.dumps(
        {
            "n": number,
            "odd": f"text {number}" if number % 7 == 0 else number,
            "ratio": number + 0.25,
            "on": number % 2 == 0,
            "route": {"from": {"City": f"O{number}"}},
            "legs": [{"no": number}, {"km": 2.5}],
            f"c{number % 5}": "x" * (number % 90) + "é\0",
        }
    )


def land(shared: Shared, log: MemoryLog, first: int, count: int, *, at: int = NOON) -> None:
    """Land events in a commit of their own."""
    events = [
        event(
            payload(number),
            id=f"e{number}",
            received_at=at + number,
            headers=(("Tenant", b"\x00\xff"), ("n", str(number).encode())),
        )
        for number in range(first, first + count)
    ]
    log.append(FLIGHTS, events).result()
    while landing(log, shared.lake, clock=lambda: at).land_once(FLIGHTS):
        pass


@pytest.mark.breaks("the files of a table, by Trino that puts them together")
def test_rows_marks_pins_and_books_are_the_same_after_trino_merged(
    shared: Shared, tmp_path: Path
) -> None:
    """Whatever it does not know of is still there, and it takes only what it was asked for."""
    log = MemoryLog()
    for first in range(0, 60, 10):
        land(shared, log, first, 10, at=NOON + (first >= 30) * DAY)
    append(log, BROKEN)
    landing(log, shared.lake).land_once(FLIGHTS)
    lake = shared.lake
    pinned = loaded(lake).metadata.snapshots[2].snapshot_id
    lake.pin(FLIGHTS, pinned, "replay-1")
    before = rows_of(lake), rows_of(lake, pinned), mark_of(lake), ours(lake)
    planned = replayed(lake, log, tmp_path / "before")
    acknowledged = {n: payload(n).encode() for n in range(60)} | {60: BROKEN}

    done = shared.merge()

    happened("merges", done.written)
    found(tables=compare(acknowledged, stored(lake)))
    assert (done.read, done.written, done.given_up, done.trouble) == (6, 2, 0, "")
    assert rows_of(lake).equals(before[0])
    assert rows_of(lake, pinned).equals(before[1])
    assert (mark_of(lake), ours(lake)) == before[2:]
    assert lake.pins(FLIGHTS) == {"replay-1": pinned}
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
    assert replayed(lake, log, tmp_path / "after") == planned
    in_log_order(loaded(lake))
    assert shared.merge() == type(done)(), "there is nothing left to ask for"
    # What it replaced is there while a snapshot needs it, and goes with the sweep after that.
    expire(lake, MAIN, keep=2)
    assert rows_of(lake, pinned).equals(before[1])
    swept = sweep_orphans(lake, MAIN, {}, LATER, age=0)
    assert swept.deleted
    assert rows_of(lake).equals(before[0])
    assert rows_of(lake, pinned).equals(before[1])
    land(shared, log, 61, 5)
    acknowledged |= {n: payload(n).encode() for n in range(61, 66)}
    found(tables=compare(acknowledged, stored(lake)))


def in_log_order(table: Table) -> None:
    """Look into each data file itself."""
    for task in table.scan().plan_files():
        with table.io.new_input(task.file.file_path).open() as stream:
            rows = read(stream, arrow_schema(table.metadata.schema()))
        found = rows["log_offset"].to_pylist()
        assert found == sorted(found), task.file.file_path


def replayed(lake: Lake, log: MemoryLog, folder: Path) -> list[int]:
    """Answer the positions that a replay of everything sends, in its order."""
    folder.mkdir()
    engine = open_engine(folder, memory="200MB", s3=STORE)
    planner = Planner(lake, log, engine, clock=lambda: NOON)
    request = read_request({"collection": FLIGHTS.name, "destination": "d1"}, team=FLIGHTS.team)
    plan = planner.plan(request, wake=lambda _: None)
    matches = planner.open(request, plan)
    assert matches is not None
    sent = [one.position.offset for b in matches.batches(matches.buckets(), None) for one in b]
    engine.close()
    return sent


def test_files_that_are_large_enough_are_left_alone(shared: Shared) -> None:
    """Otherwise the rows of a day are written at each upkeep."""
    log = MemoryLog()
    land(shared, log, 0, 3_000)
    (large,) = [task.file for task in loaded(shared.lake).scan().plan_files()]
    for first in range(3_000, 3_005):
        land(shared, log, first, 1)

    below = large.file_size_in_bytes
    done = shared.merge(below=below, target=2 * below)

    assert (done.read, done.written) == (5, 1)
    paths = {task.file.file_path for task in loaded(shared.lake).scan().plan_files()}
    assert large.file_path in paths
    assert len(paths) == 2


@pytest.mark.breaks("landing and the merges of Trino, by each other")
def test_landing_and_merging_get_on_with_each_other(shared: Shared) -> None:
    """Neither loses or doubles a row, neither waits long, and the table grows columns meanwhile."""
    lake = Lake(shared.lake.catalog, Patience(seconds=60.0))
    log, enough = MemoryLog(), threading.Event()
    started = time.monotonic()

    def clock() -> int:
        # One for both, or landing does not know that it is to hold back. The day is long over, so
        # that every file is worth it.
        return LATER + int((time.monotonic() - started) * 1_000_000)

    took: list[float] = []
    acknowledged: list[bytes] = []

    def land_all_the_time() -> None:
        work = landing(log, lake, clock=clock)
        while not enough.is_set():
            count = len(acknowledged)
            payloads = [
                b'{"n": %d, "c%d": %d}' % (n, count % 40, n) for n in range(count, count + 5)
            ]
            append(log, *payloads)
            acknowledged.extend(payloads)
            began = time.monotonic()
            while work.land_once(FLIGHTS):
                pass
            took.append(time.monotonic() - began)

    thread = threading.Thread(target=land_all_the_time)
    thread.start()
    outcomes: list[Compacted] = []

    def merged() -> int:
        return sum(one.written > 0 for one in outcomes)

    try:
        deadline = time.monotonic() + 120
        while merged() < 3 and time.monotonic() < deadline:
            time.sleep(2)
            outcomes.append(shared.merge(clock=clock))
    finally:
        enough.set()
        thread.join(120)

    assert merged() >= 3, outcomes
    happened("merges", sum(one.written for one in outcomes))
    assert max(took) < LONGEST_HOLD / 1_000_000 + 5
    found(tables=compare(dict(enumerate(acknowledged)), stored(shared.lake)))
    assert mark_of(shared.lake).next == len(acknowledged)
    assert check_conservation(shared.lake, FLIGHTS, log.log_id(FLIGHTS)).passed


@contextmanager
def overtaken(fresh: FreshLake) -> Iterator[None]:
    """Let no commit of Trino's find the table as it read it, and every one of ours."""
    with psycopg.connect(fresh.catalog_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION overtake() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RETURN NULL; END $$"
        )
        connection.execute(
            "CREATE TRIGGER overtake BEFORE UPDATE ON iceberg_tables FOR EACH ROW "
            "WHEN (current_setting('application_name') LIKE '%JDBC%') EXECUTE FUNCTION overtake()"
        )
        yield
        connection.execute("DROP FUNCTION overtake CASCADE")


@pytest.mark.breaks("the commits of Trino, none of which finds the table as it was")
def test_a_day_that_is_overtaken_at_every_try_is_left_to_the_next_upkeep(shared: Shared) -> None:
    """By one who commits all the time and never holds back; nothing is lost by it."""
    lake, log = shared.lake, MemoryLog()
    for first in range(3):
        land(shared, log, first, 1)
    before, enough = rows_of(lake), threading.Event()
    held: set[bool] = set()

    def look_all_the_time() -> None:
        while not enough.is_set():
            held.add(HOLD in loaded(lake).metadata.properties)

    thread = threading.Thread(target=look_all_the_time)
    thread.start()
    try:
        with overtaken(shared.fresh):
            done = shared.merge()
    finally:
        enough.set()
        thread.join(60)

    assert (done.read, done.written, done.given_up, done.trouble) == (0, 0, 1, "")
    assert held == {False, True}, "others were asked to hold back"
    assert rows_of(lake).equals(before)
    happened("merges given up", done.given_up)
    assert shared.merge().read == 3
    acknowledged = {n: payload(n).encode() for n in range(3)}
    found(tables=compare(acknowledged, stored(lake)))


def test_upkeep_has_files_merged_by_trino(shared: Shared) -> None:
    """All tables of a collection, quarantine too; then nobody is behind."""
    log = MemoryLog()
    for first in range(4):
        append(log, *numbered(3, 3 * first), BROKEN)
        landing(log, shared.lake).land_once(FLIGHTS)
    aims = Aims(keep=2, below=32 * MB, target=64 * MB)
    assert not check_upkeep(shared.lake, FLIGHTS, aims, LATER, shared.merger).passed

    done = tend(
        shared.lake,
        FLIGHTS,
        aims=aims,
        notes=Notes(),
        clock=lambda: LATER,
        chance=lambda _size: b"",
        merger=shared.merger,
    )

    assert (done.compacted.read, done.compacted.written, done.files) == (8, 2, 2)
    verdict = check_upkeep(shared.lake, FLIGHTS, aims, LATER, shared.merger)
    assert verdict.facts["late files"] == 0
    assert everywhere(shared.lake) == Counter(range(16))


def test_who_may_not_merge_is_told_before_and_after(shared: Shared) -> None:
    """The catalog for callers cannot be written to."""
    log = MemoryLog()
    for first in range(3):
        land(shared, log, first, 1)
    name = fresh_name("readonly")
    database = shared.fresh.catalog_url.rpartition("/")[2]
    read_only = {"iceberg.security": "read_only"}
    trino.create_catalog(name, database, shared.fresh.warehouse_url, read_only)
    try:
        merger = merger_at(name, shared.fresh)
        with pytest.raises(BadSetting, match=r"it does not merge files of main\.flights"):
            merger.check(MAIN)
        done = optimize(shared.lake, MAIN, merger, below=MB, target=4 * MB, clock=lambda: LATER)
    finally:
        trino.drop_catalog(name)

    assert done.trouble == "main.flights: PERMISSION_DENIED"
    shared.merger.check(MAIN)
    shared.merger.check(None)
