"""Retypings and rebuilds beside landing from Kafka, the table in PostgreSQL and S3, and killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from engines.fresh import fresh_name
from engines.places import KAFKA
from evidence.sheet import found
from lakes import (
    MAIN,
    begin_process,
    child,
    finished,
    lake_at,
    landing,
    log_url,
    new_lake,
    tell_log,
    urls,
)
from leaf_books import unbalanced

from assets.checks import check_conservation
from assets.landing import Limits
from assets.rebuild import rebuild
from assets.retype import retype
from lakehouse import Lake
from lakehouse.attempts import Patience
from lakehouse.catalog import open_catalog
from penstock.buffer import Keeping, open_appender, open_buffer, open_keeper
from penstock.clock import machine_clock
from penstock.errors import LogUnavailable
from penstock.schema.convert import Rules
from penstock.schema.shape import columns

pytestmark = [pytest.mark.engines, pytest.mark.crash]

WHOLE, FRACTIONS = 40, 40
PARTITIONS = 2


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Answer a folder with a log of numbers, whole ones first, all of which have landed."""
    tell_log(tmp_path, f"kafka://{KAFKA}/{fresh_name()}")
    with lake_at("engines", tmp_path):
        _until_there_is_a_topic(tmp_path)
        for first in range(0, WHOLE + FRACTIONS, 20):
            send(tmp_path, first, first + 20)
            land(tmp_path)
        yield tmp_path


def _until_there_is_a_topic(home: Path) -> None:
    """Ask again, as whoever is answered 503: a busy broker may take longer than one call waits."""
    keeper = open_keeper(log_url(home), Keeping(partitions=PARTITIONS, hours=1))
    deadline = time.monotonic() + 60
    while True:
        try:
            keeper.ensure(FLIGHTS)
        except LogUnavailable:
            assert time.monotonic() < deadline, "the broker makes no topic"
        else:
            break
    keeper.close()


def patient_lake(home: Path) -> Lake:
    """Answer the lake for those who meet each other: they wait as they do in production."""
    return Lake(open_catalog(*urls(home)), Patience(seconds=60.0))


def number(place: int) -> float:
    """Answer what an event says: the first ones are whole, so the column is one of longs."""
    return 5 + place if place < WHOLE else place + 0.99


def send(home: Path, first: int, end: int) -> None:
    appender = open_appender(log_url(home), keeping=Keeping(partitions=PARTITIONS, hours=1))
    events = [
        event(
            f'{{"price": {number(place)}, "lines": [{{"p": {number(place)}}}]}}',
            id=f"e{place}",
            received_at=NOON + place,
            key=f"{place % 7}".encode(),
        )
        for place in range(first, end)
    ]
    appender.append(FLIGHTS, events).result(30)
    appender.close()


def land(home: Path) -> None:
    buffer = open_buffer(log_url(home))
    # By the clock of the rewrite, which may ask landing to hold back until some time.
    limits = Limits(batch_bytes=600, patience=0)
    work = landing(buffer, patient_lake(home), limits=limits, clock=machine_clock)
    while work.land_once(FLIGHTS):
        pass
    buffer.close()


def send_and_land_in_process(home: Path) -> None:
    """Send and land more events, ten at a time, until the file `enough` is there."""
    begin_process(None)
    end = WHOLE + FRACTIONS
    while not (home / "enough").exists():
        send(home, end, end + 10)
        land(home)
        end += 10
        (home / "landed").write_text(str(end))


def landed(home: Path) -> int:
    """Answer how many events have landed when ten more have; raise after a minute."""
    known, deadline = _landed(home), time.monotonic() + 60
    while _landed(home) == known:
        assert time.monotonic() < deadline, "nothing lands any more"
        time.sleep(0.05)
    return _landed(home)


def _landed(home: Path) -> int:
    file = home / "landed"
    return int(file.read_text() or 0) if file.exists() else 0


def rewrite_in_process(home: Path, how: str, fault: str | None) -> None:
    """Retype or rebuild the table; `fault` may kill it."""
    begin_process(fault)
    act = {"retype": retype, "rebuild": rebuild}[how]
    act(patient_lake(home), FLIGHTS, rules=Rules(), clock=machine_clock, chance=os.urandom)


def kinds(lake: Lake) -> dict[str, str]:
    view = lake.view(FLIGHTS)
    assert view is not None
    return dict(columns(view.shape))


def assert_whole(home: Path, count: int) -> None:
    """Assert that every event is a row once, with all its leaves."""
    lake, buffer = new_lake(home), open_buffer(log_url(home))
    rows = lake.table(MAIN).scan(selected_fields=("event_id",)).to_arrow()  # type: ignore[union-attr]
    ids = rows["event_id"].to_pylist()
    told = dict.fromkeys(f"e{place}" for place in range(count))
    found(tables=compare(told, ((one, None) for one in ids)))
    assert check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS)).passed
    assert unbalanced(lake) == []
    buffer.close()


def misfits(lake: Lake) -> int:
    table = lake.table(MAIN)
    assert table is not None
    return sum(map(len, table.scan().to_arrow()["misfits"].drop_null().to_pylist()))


@pytest.mark.parametrize("how", ["retype", "rebuild"])
def test_five_and_then_a_fraction_are_one_column_while_landing_goes_on(
    home: Path, how: str
) -> None:
    """Killed in the middle of it twice, and asked for once more: no misfit is left of it."""
    assert kinds(new_lake(home)) == {"price": "long", "lines[].p": "long"}
    assert misfits(new_lake(home)) == 2 * FRACTIONS
    beside = child(send_and_land_in_process, home)
    beside.start()
    try:
        for fault in ("mid_parquet:1:kill", "before_commit:1:kill", None):
            landed(home)
            rewriting = child(rewrite_in_process, home, how, fault)
            rewriting.start()
            assert finished(rewriting, 120) == (-signal.SIGKILL if fault else 0)
            assert kinds(new_lake(home))["price"] == ("long" if fault else "double")
        landed(home)
    finally:
        (home / "enough").touch()
    assert finished(beside, 120) == 0

    assert_whole(home, _landed(home))
    assert kinds(new_lake(home)) == {"price": "double", "lines[].p": "double"}
    assert misfits(new_lake(home)) == 0


@pytest.mark.breaks("a rewrite of all columns, at its points, on the engines")
@pytest.mark.parametrize("how", ["retype", "rebuild"])
@pytest.mark.parametrize("point", ["rewrite_reserved", "rewrite_file", "after_commit"])
def test_a_rewrite_that_is_killed_is_there_or_not(home: Path, point: str, how: str) -> None:
    """Landing goes on from Kafka after it, and the next one finds all as it should be."""
    killed = child(rewrite_in_process, home, how, f"{point}:1:kill")
    killed.start()
    assert finished(killed, 120) == -signal.SIGKILL
    assert_whole(home, WHOLE + FRACTIONS)
    assert kinds(new_lake(home))["price"] == ("double" if point == "after_commit" else "long")

    end = WHOLE + FRACTIONS + 20
    send(home, WHOLE + FRACTIONS, end)
    land(home)
    again = child(rewrite_in_process, home, how, None)
    again.start()
    assert finished(again, 120) == 0

    assert_whole(home, end)
    assert kinds(new_lake(home)) == {"price": "double", "lines[].p": "double"}
    assert misfits(new_lake(home)) == 0
