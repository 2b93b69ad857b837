"""Several processes land the same log beside compaction and expiry: each event once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from evidence.sheet import found, happened
from lakes import (
    BROKEN,
    PLACES,
    child,
    column,
    finished,
    gate_for,
    lake_at,
    land_together_in_process,
    mark_of,
    new_lake,
    stored,
    tend_in_process,
)

from assets.checks import check_conservation
from penstock.buffer import open_appender, open_buffer

pytestmark = pytest.mark.crash

EVENTS = 120


@pytest.fixture(params=PLACES)
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Let the lake of each test be here and in the real engines."""
    with lake_at(request.param, tmp_path) as folder:
        yield folder


def payload(number: int) -> bytes:
    """Answer a payload: now and then a new field, a clash, or one for quarantine."""
    if number % 17 == 3:
        return BROKEN
    if number % 11 == 5:
        return b'{"n": %d, "field_%d": "x"}' % (number, number)
    return b'{"n": %d}' % number


@pytest.mark.breaks("the commits of four landings and upkeep, by each other")
def test_landings_upkeep_and_new_fields_at_once_double_and_lose_nothing(tmp_path: Path) -> None:
    """Zombie runs, two sensors, a compaction in between: the commit alone decides."""
    appender = open_appender(f"embedded://{tmp_path / 'log'}")
    new_lake(tmp_path).create(FLIGHTS)
    upkeep = child(tend_in_process, tmp_path)
    upkeep.start()
    events = 0
    codes = []
    # Again if they never met: then it has proved nothing.
    while conflicts(tmp_path) == 0 and events < 5 * EVENTS:
        for number in range(events, events + EVENTS):
            one = event(payload(number), id=f"e{number}", received_at=NOON + number)
            appender.append(FLIGHTS, [one]).result(10)
        events += EVENTS
        # Batches of other sizes end at other positions: same and overlapping spans.
        sizes = (60, 60, 110, 200)
        gate = gate_for(len(sizes))
        landings = [child(land_together_in_process, gate, tmp_path, size) for size in sizes]
        for process in landings:
            process.start()
        codes += [finished(process) for process in landings]
    (tmp_path / "enough").touch()
    codes.append(finished(upkeep))
    appender.close()

    assert not any(codes)
    lake = new_lake(tmp_path)
    buffer = open_buffer(f"embedded://{tmp_path / 'log'}")
    happened("conflicts", conflicts(tmp_path))
    found(tables=compare({n: payload(n) for n in range(events)}, stored(lake)))
    assert mark_of(lake).next == events
    assert check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS)).passed
    buffer.close()
    numbers = [n for n in column(lake, "n") if n is not None]
    assert numbers == [n for n in range(events) if n % 17 != 3]
    for number in range(5, events, 11):
        if number % 17 != 3:
            assert column(lake, f"field_{number}").count("x") == 1
    assert conflicts(tmp_path) > 0


def conflicts(folder: Path) -> int:
    """Answer how many commits of the landings met another one."""
    return sum(int(file.read_text()) for file in folder.glob("conflicts-*"))
