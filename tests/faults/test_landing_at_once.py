"""Kill a landing run that has batches of several collections under way at the same time.

Each goes by the marks of its own table: whatever the others had reached changes nothing for it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from balance import Findings, compare
from builders import NOON, event
from evidence.sheet import found
from lakes import (
    BROKEN,
    PLACES,
    begin_process,
    child,
    finished,
    lake_at,
    landing,
    log_url,
    new_lake,
    stored,
)

from assets.checks import check_conservation, check_marks
from assets.landing import Landing, Limits
from lakehouse.catalog import main_table
from penstock.buffer import open_appender, open_buffer
from penstock.clock import machine_clock
from penstock.envelope import CollectionId

pytestmark = pytest.mark.crash

COLLECTIONS = [CollectionId("main", f"c{number}") for number in range(5)]
EVENTS = 20
AT_ONCE = 4
BATCH_BYTES = 90 * AT_ONCE
"""A batch of one that is landed beside others has some eight events: three of each collection."""

POINTS = ["span_read", "mid_parquet", "before_commit", "after_commit"]


def payload(number: int) -> bytes:
    return BROKEN if number % 7 == 3 else b'{"n": %d}' % number


def land_all_in_process(folder: Path, fault: str | None) -> None:
    """Land what waits of every collection as a run does; leave how many were under way at once."""
    begin_process(fault)
    buffer = open_buffer(log_url(folder))
    limits = Limits(batch_bytes=BATCH_BYTES, patience=0, most_patience=0, at_once=AT_ONCE)
    work = landing(buffer, new_lake(folder), clock=machine_clock, limits=limits)
    most = _most_at_once(work)
    for _ in work.drain(partial(list, COLLECTIONS), until=lambda: False, idle=0):
        pass
    buffer.close()
    (folder / "at-once").write_text(str(max(most)))


def _most_at_once(work: Landing) -> list[int]:
    """Answer a list to which the landing adds how many batches are under way, at each beginning."""
    told, guard, real = [0], threading.Lock(), work.land_once
    under_way = 0

    def land_once(collection, **more):
        nonlocal under_way
        with guard:
            under_way += 1
            told.append(under_way)
        try:
            return real(collection, **more)
        finally:
            with guard:
                under_way -= 1

    work.land_once = land_once
    return told


@pytest.fixture(params=PLACES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Answer a folder with a log of numbered events of each collection."""
    with lake_at(request.param, tmp_path):
        appender = open_appender(log_url(tmp_path))
        for collection in COLLECTIONS:
            events = [
                event(payload(n), id=f"{collection.name}-{n}", received_at=NOON + n)
                for n in range(EVENTS)
            ]
            appender.append(collection, events).result(10)
        yield tmp_path
        appender.close()


def assert_each_once(home: Path) -> None:
    lake, buffer = new_lake(home), open_buffer(log_url(home))
    whole = Findings(events=0)
    for collection in COLLECTIONS:
        there = {number: payload(number) for number in range(EVENTS)}
        whole += compare(there, stored(lake, collection))
        assert check_conservation(lake, collection, buffer.log_id(collection)).passed
        assert check_marks(buffer, lake, collection).passed
    buffer.close()
    found(tables=whole)


@pytest.mark.breaks("landing, while it lands several collections at once")
@pytest.mark.parametrize("nth", [2, 5, 8])
@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_killed_amid_several_batches_goes_on_with_each(
    home: Path, point: str, nth: int
) -> None:
    killed = child(land_all_in_process, home, f"{point}:{nth}:kill")
    killed.start()
    assert finished(killed) == -signal.SIGKILL

    after = child(land_all_in_process, home, None)
    after.start()
    assert finished(after) == 0

    assert int((home / "at-once").read_text()) > 1
    assert_each_once(home)


def test_a_row_of_one_of_them_that_went_is_found(home: Path) -> None:
    """A mutant of the checker's subject: all collections are looked at, not the first."""
    once = child(land_all_in_process, home, None)
    once.start()
    assert finished(once) == 0
    table = new_lake(home).table(main_table(COLLECTIONS[-1]))
    assert table is not None
    table.delete("log_offset == 5")

    with pytest.raises(AssertionError):
        assert_each_once(home)
