"""Kill landing at each of its points: nothing is lost, nothing is doubled.

Each death is a SIGKILL of a process of its own, on the embedded log and a lake on disk.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from evidence.sheet import found
from lakes import (
    BROKEN,
    MAIN,
    PLACES,
    child,
    column,
    finished,
    lake_at,
    land_in_process,
    mark_of,
    new_lake,
    offsets,
    stored,
    tend_once_in_process,
)

from assets.checks import check_conservation, check_marks
from lakehouse import Lake
from penstock.buffer import open_appender, open_buffer

pytestmark = pytest.mark.crash

EVENTS = 24
BATCH_BYTES = 90
"""Some eight events, so that the log takes three batches."""

POINTS = ["span_read", "mid_parquet", "after_parquet", "before_commit", "after_commit"]
QUARANTINED = {3, 4, 11, 20}


@pytest.fixture(params=PLACES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Answer a folder with a log of numbered events, of which some belong to quarantine."""
    with lake_at(request.param, tmp_path):
        yield from with_events(tmp_path)


def with_events(tmp_path: Path) -> Iterator[Path]:
    appender = open_appender(f"embedded://{tmp_path / 'log'}")
    for number in range(EVENTS):
        done = appender.append(
            FLIGHTS, [event(payload(number), id=f"e{number}", received_at=NOON + number)]
        )
        assert done.result(10)[0].offset == number  # type: ignore[union-attr]  # else the test fails
    yield tmp_path
    appender.close()


def payload(number: int) -> bytes:
    return BROKEN if number in QUARANTINED else b'{"n": %d}' % number


def assert_each_once(home: Path) -> None:
    lake = new_lake(home)
    buffer = open_buffer(f"embedded://{home / 'log'}")
    found(tables=compare({number: payload(number) for number in range(EVENTS)}, stored(lake)))
    assert set(offsets(lake, quarantine=True)) == QUARANTINED
    assert [n for n in column(lake, "n") if n in QUARANTINED] == []
    assert mark_of(lake).next == EVENTS
    assert check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS)).passed
    assert check_marks(buffer, lake, FLIGHTS).passed
    assert buffer.released([FLIGHTS])[FLIGHTS] == {0: EVENTS}
    buffer.close()


@pytest.mark.breaks("landing, at each of its points")
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", POINTS)
def test_a_landing_that_is_killed_goes_on_where_it_was(home: Path, point: str, nth: int) -> None:
    """The second visit of a commit's points is the main table's, the first quarantine's."""
    killed = child(land_in_process, home, f"{point}:{nth}:kill", BATCH_BYTES)
    killed.start()
    assert finished(killed) == -signal.SIGKILL

    after = child(land_in_process, home, None, BATCH_BYTES)
    after.start()
    assert finished(after) == 0

    assert_each_once(home)


@pytest.mark.breaks("landing, at one point after the other")
def test_a_landing_that_is_killed_again_and_again_comes_to_its_end(home: Path) -> None:
    """Each death leaves something behind: files, a quarantine that is ahead, a log not released."""
    for point in POINTS:
        killed = child(land_in_process, home, f"{point}:2:kill", BATCH_BYTES)
        killed.start()
        finished(killed)
    after = child(land_in_process, home, None, BATCH_BYTES)
    after.start()
    assert finished(after) == 0

    assert_each_once(home)


@pytest.mark.breaks("upkeep, at each of its points")
@pytest.mark.parametrize("point", ["mid_parquet", "compact_before_commit", "expire_mid"])
def test_upkeep_that_is_killed_leaves_the_table_as_it_was(home: Path, point: str) -> None:
    """It may be killed at any time and begin anew; what it had written is an orphan."""
    work = child(land_in_process, home, None, BATCH_BYTES)
    work.start()
    assert finished(work) == 0

    for fault, code in ((f"{point}:1:kill", -signal.SIGKILL), (None, 0)):
        upkeep = child(tend_once_in_process, home, fault)
        upkeep.start()
        assert finished(upkeep) == code
        assert_each_once(home)


def test_the_check_would_find_a_doubled_and_a_lost_event(home: Path) -> None:
    """A checker that cannot fail proves nothing: seed both and look."""
    once = child(land_in_process, home, None, BATCH_BYTES)
    once.start()
    assert finished(once) == 0
    lake = new_lake(home)
    buffer = open_buffer(f"embedded://{home / 'log'}")

    double_a_file(lake)
    doubled = check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS))
    assert not doubled.passed
    assert doubled.facts["doubled"] > 0
    with pytest.raises(AssertionError):
        assert_each_once(home)

    table = lake.table(MAIN)
    assert table is not None
    table.delete("log_offset = 5")
    lost = check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS))
    assert lost.facts["missing"] == 1
    buffer.close()


def double_a_file(lake: Lake) -> None:
    """Commit a data file of the table a second time, as a landing without marks would."""
    table = lake.table(MAIN)
    assert table is not None
    (file, *_) = (task.file for task in table.scan().plan_files())
    with table.transaction() as change, change.update_snapshot().fast_append() as append:
        append.append_data_file(file)
