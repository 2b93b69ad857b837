"""Landing is killed when a commit's files are written and the commit is not made yet.

What reads a log into tables and tells the log how far it is, apart from the commit, loses here what
it has read: most of all before the first commit, when no table says where to begin again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from evidence.sheet import found
from lakes import (
    MAIN,
    PLACES,
    child,
    finished,
    lake_at,
    land_in_process,
    log_url,
    new_lake,
    stored,
    tell_log,
    urls,
)
from warehouses import in_warehouse, needed

from assets.checks import check_conservation, check_marks
from lakehouse.upkeep import DAY, ORPHAN_AGE, sweep_orphans
from penstock.buffer import open_appender, open_buffer, open_keeper
from penstock.envelope import Position

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3_600)]

EVENTS = int(os.environ.get("FAULT_EVENTS", "5000"))
KILLS = int(os.environ.get("FAULT_KILLS", "2"))
"""So often the first commit is never made."""

AT_ONCE = 1_000
COMMITS = 4
DAYS = 3
"""Of all commits: each writes a file for each day."""

POINTS = ("after_parquet", "before_commit")
SECONDS = 600.0


def payload(number: int) -> bytes:
    return b'{"n": %d, "of": "%06d"}' % (number, number % 1_000)


BATCH_BYTES = sum(len(payload(number)) for number in range(EVENTS)) // COMMITS


@pytest.fixture(params=PLACES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Answer a folder whose log has all the events, and whose lake has no table yet."""
    with lake_at(request.param, tmp_path):
        if request.param == "engines":
            # Only who wants an engine needs its client.
            from engines.fresh import fresh_name
            from engines.places import KAFKA

            tell_log(tmp_path, f"kafka://{KAFKA}/{fresh_name()}")
            with closing(open_keeper(log_url(tmp_path))) as keeper:
                keeper.ensure(FLIGHTS, partitions=1)
        with closing(open_appender(log_url(tmp_path))) as appender:
            for first in range(0, EVENTS, AT_ONCE):
                events = [
                    event(payload(n), id=f"e{n}", received_at=NOON + n + n % DAYS * DAY)
                    for n in range(first, min(first + AT_ONCE, EVENTS))
                ]
                outcomes = appender.append(FLIGHTS, events).result(60)
                assert all(isinstance(outcome, Position) for outcome in outcomes)
        yield tmp_path


def land(home: Path, fault: str | None) -> int:
    """Land what waits; answer how the process ended."""
    process = child(land_in_process, home, fault, BATCH_BYTES)
    process.start()
    return finished(process, SECONDS)


def landed(home: Path) -> int:
    """Answer how many events are in the lake, by its marks."""
    view = new_lake(home).view(FLIGHTS)
    return sum(mark.next for mark in view.marks) if view is not None else 0


def data_files(files: set[str]) -> set[str]:
    return {file for file in files if file.endswith(".parquet")}


@pytest.mark.breaks("landing, when files are written and their commit, mostly the first, is not")
def test_files_that_are_written_and_not_committed_lose_and_double_nothing(home: Path) -> None:
    """And nothing of them stays: a file is in a snapshot, or the sweep takes it at its age."""
    for number in range(KILLS):
        assert land(home, f"{POINTS[number % 2]}:1:kill") == -signal.SIGKILL
        assert landed(home) == 0
    for point in POINTS:
        before = landed(home)
        assert land(home, f"{point}:2:kill") == -signal.SIGKILL
        assert landed(home) > before
    assert land(home, None) == 0

    lake = new_lake(home)
    with closing(open_buffer(log_url(home))) as log:
        assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
        assert check_marks(log, lake, FLIGHTS).passed
    assert landed(home) == EVENTS
    found(tables=compare({n: payload(n) for n in range(EVENTS)}, stored(lake)))

    warehouse = urls(home)[1]
    orphans = in_warehouse(lake, warehouse) - needed(lake)
    assert len(data_files(orphans)) == (KILLS + len(POINTS)) * DAYS
    seen: dict[str, int] = {}
    for now, left in (
        (NOON, orphans),
        (NOON + ORPHAN_AGE - 1, orphans),
        (NOON + ORPHAN_AGE, set()),
    ):
        seen = sweep_orphans(lake, MAIN, seen, now).seen
        assert in_warehouse(lake, warehouse) - needed(lake) == left
    whole = ((file, None) for file in in_warehouse(lake, warehouse))
    found(warehouse=compare(dict.fromkeys(needed(lake)), whole))
