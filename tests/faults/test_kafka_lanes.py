"""Several lanes land one collection from Kafka at once: each event once."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from engines.fresh import fresh_name
from engines.places import KAFKA
from lakes import (
    BROKEN,
    MAIN,
    QUARANTINE,
    Counting,
    child,
    finished,
    land_lane_in_process,
    landing,
    new_lake,
)
from pyiceberg.catalog import Catalog
from pyiceberg.table import CommitTableResponse, Table
from sending import until

from assets.checks import check_conservation
from assets.landing import Lane
from lakehouse import Lake
from penstock.buffer import Buffer, Keeping, open_appender, open_buffer

pytestmark = [pytest.mark.engines, pytest.mark.crash]

EVENTS = 400
PARTITIONS = 4
LANES = 2


def payload(number: int) -> str | bytes:
    """Answer a payload: now and then a new field, or one for quarantine."""
    if number % 17 == 3:
        return BROKEN
    if number % 11 == 5:
        return f'{{"n": {number}, "field_{number % 4}": "x"}}'
    return f'{{"n": {number}}}'


@pytest.fixture
def url() -> str:
    """Answer a log with a collection of four partitions, full of events."""
    url = f"kafka://{KAFKA}/{fresh_name()}"
    appender = open_appender(url, keeping=Keeping(partitions=PARTITIONS, hours=1))
    events = [
        event(payload(n), id=f"e{n}", received_at=NOON + n, key=f"{n % 23}".encode())
        for n in range(EVENTS)
    ]
    appender.append(FLIGHTS, events).result(timeout=30)
    appender.close()
    return url


def check(lake: Lake, buffer: Buffer) -> None:
    """Check that every event of every partition is there once."""
    places = []
    for table in (MAIN, QUARANTINE):
        rows = lake.table(table).scan(selected_fields=("log_partition", "log_offset")).to_arrow()
        places += list(
            zip(rows["log_partition"].to_pylist(), rows["log_offset"].to_pylist(), strict=True)
        )
    extents = buffer.extents(FLIGHTS)
    expected = [(p, offset) for p, one in extents.items() for offset in range(one.start, one.end)]
    assert Counter(places) == Counter(expected)
    assert len(places) == EVENTS
    assert len(extents) == PARTITIONS
    assert all(extent.end for extent in extents.values())
    assert check_conservation(lake, FLIGHTS, buffer.log_id(FLIGHTS)).passed
    assert buffer.released([FLIGHTS])[FLIGHTS] == {p: extent.end for p, extent in extents.items()}


def test_one_lane_lands_all_partitions(tmp_path: Path, url: str) -> None:
    """A batch holds a part of each partition, and the table a mark for each."""
    lake, buffer = new_lake(tmp_path), open_buffer(url)
    work = landing(buffer, lake)

    while work.land_once(FLIGHTS):
        pass

    check(lake, buffer)
    view = lake.view(FLIGHTS)
    assert view is not None
    assert sorted(mark.partition for mark in view.marks) == [0, 1, 2, 3]
    buffer.close()


class Meeting(Counting):
    """A catalog whose first commit of the main table waits until each lane is about to make one."""

    def __init__(self, folder: Path, real: Catalog) -> None:
        super().__init__(real)
        self._mine, self._folder = folder / f"waits-{os.getpid()}", folder

    def commit_table(
        self, table: Table, requirements: tuple[Any, ...], updates: tuple[Any, ...]
    ) -> CommitTableResponse:
        if table.name() == MAIN and not self._mine.exists():
            self._mine.touch()
            until(lambda: len(list(self._folder.glob("waits-*"))) == LANES, "one lane came alone")
        return super().commit_table(table, requirements, updates)


def land_lane_that_meets(folder: Path, url: str, lane: Lane) -> None:
    """Land what waits in a lane, from a first commit that meets one of the other lane."""
    land_lane_in_process(folder, url, lane, 700, partial(Meeting, folder))


def test_two_lanes_at_once_land_each_event_once(tmp_path: Path, url: str) -> None:
    """They share a table: commits of one meet those of the other."""
    new_lake(tmp_path).create(FLIGHTS)
    lanes = [
        child(land_lane_that_meets, tmp_path, url, Lane(number, LANES)) for number in range(LANES)
    ]
    for lane in lanes:
        lane.start()
    assert [finished(lane, 120) for lane in lanes] == [0] * LANES

    buffer = open_buffer(url)
    check(new_lake(tmp_path), buffer)
    buffer.close()
    assert sum(int(file.read_text()) for file in tmp_path.glob("conflicts-*")) > 0
