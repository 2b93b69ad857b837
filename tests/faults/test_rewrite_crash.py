"""Kill a rewrite at each of its points: the table is as before or as after, and landing goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from evidence.sheet import found
from lakes import (
    PLACES,
    begin_process,
    child,
    column,
    finished,
    lake_at,
    land_in_process,
    mark_of,
    new_lake,
    stored,
)
from leaf_books import unbalanced

from assets.checks import check_conservation
from assets.rebuild import rebuild
from assets.retype import retype
from penstock.buffer import open_appender, open_buffer
from penstock.clock import machine_clock
from penstock.schema.convert import Rules
from penstock.schema.shape import columns

pytestmark = pytest.mark.crash

EVENTS = 24
BATCH_BYTES = 90
"""Some eight events, so that the log takes three batches."""

POINTS = ["rewrite_reserved", "mid_parquet", "rewrite_file", "before_commit", "after_commit"]


@pytest.fixture(params=PLACES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Answer a folder with a log of numbers, whole ones first, half of which have landed."""
    with lake_at(request.param, tmp_path):
        send(tmp_path, 0, EVENTS)
        landed = child(land_in_process, tmp_path, None, BATCH_BYTES)
        landed.start()
        assert finished(landed) == 0
        yield tmp_path


def number(place: int) -> float:
    """Answer what an event says: the first ones are whole, so the column is one of longs."""
    return place if place < EVENTS // 2 else place + 0.5


def payload(place: int) -> bytes:
    return f'{{"n": {number(place)}, "l": [{{"p": {number(place)}}}]}}'.encode()


def send(home: Path, first: int, end: int) -> None:
    appender = open_appender(f"embedded://{home / 'log'}")
    for place in range(first, end):
        one = event(payload(place), id=f"e{place}", received_at=NOON + place)
        appender.append(FLIGHTS, [one]).result(10)
    appender.close()


def rewrite_in_process(home: Path, how: str, fault: str | None) -> None:
    """Retype or rebuild the table; `fault` may break it."""
    begin_process(fault)
    act = {"retype": retype, "rebuild": rebuild}[how]
    act(new_lake(home), FLIGHTS, rules=Rules(), clock=machine_clock, chance=os.urandom)


def kinds(home: Path) -> dict[str, str]:
    view = new_lake(home).view(FLIGHTS)
    assert view is not None
    return dict(columns(view.shape))


def assert_whole(home: Path, count: int) -> None:
    lake = new_lake(home)
    buffer = open_buffer(f"embedded://{home / 'log'}")
    found(tables=compare({place: payload(place) for place in range(count)}, stored(lake)))
    assert mark_of(lake).next == count
    assert check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS)).passed
    assert unbalanced(lake) == []
    assert kinds(home) in ({"n": "long", "l[].p": "long"}, {"n": "double", "l[].p": "double"})
    buffer.close()


@pytest.mark.breaks("a rewrite of all columns, at each of its points")
@pytest.mark.parametrize("how", ["retype", "rebuild"])
@pytest.mark.parametrize("point", POINTS)
def test_a_rewrite_that_is_killed_is_there_or_not(home: Path, point: str, how: str) -> None:
    """What it had written is an orphan; what landed before and lands after is there once."""
    killed = child(rewrite_in_process, home, how, f"{point}:1:kill")
    killed.start()
    assert finished(killed) == -signal.SIGKILL
    assert_whole(home, EVENTS)
    assert kinds(home)["n"] == ("double" if point == "after_commit" else "long")

    send(home, EVENTS, EVENTS + 8)
    for process in (
        child(land_in_process, home, None, BATCH_BYTES),
        child(rewrite_in_process, home, how, None),
    ):
        process.start()
        assert finished(process) == 0

    assert_whole(home, EVENTS + 8)
    assert kinds(home) == {"n": "double", "l[].p": "double"}
    assert column(new_lake(home), "n") == [number(place) for place in range(EVENTS + 8)]


def test_rewrites_and_landings_at_once_lose_and_double_nothing(home: Path) -> None:
    """Two people ask for it, an upkeep does it as well, and everything goes on landing."""
    send(home, EVENTS, EVENTS + 60)
    work = [
        child(rewrite_in_process, home, "retype", None),
        child(rewrite_in_process, home, "rebuild", None),
        child(land_in_process, home, None, 60),
        child(land_in_process, home, None, 110),
    ]
    for process in work:
        process.start()

    assert [finished(process) for process in work] == [0] * 4

    assert_whole(home, EVENTS + 60)
    assert kinds(home) == {"n": "double", "l[].p": "double"}
