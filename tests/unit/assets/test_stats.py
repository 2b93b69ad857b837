"""Statistics are told what lands, and come to the lake's marks whatever happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import BROKEN, append, landing, log_of, mark_of, new_lake, numbered

from assets.landing import Landed
from assets.stats import Books, count_from_lake, gaps
from lakehouse import Lake
from penstock import faults
from penstock.buffer.memory import MemoryLog
from penstock.errors import EngineUnavailable
from penstock.stats import MINUTE, Batch, Stats, Step, open_stats

HOUR = 60 * MINUTE


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return new_lake(tmp_path)


@pytest.fixture
def stats(tmp_path: Path) -> Iterator[Stats]:
    opened = open_stats(f"sqlite:///{tmp_path / 'stats.db'}")
    yield opened
    opened.close()


def land(log: MemoryLog, lake: Lake, **more: object) -> Landed:
    landed = landing(log, lake, **more).land_once(FLIGHTS)
    assert landed is not None
    return landed


def all_of(stats: Stats) -> Sequence[Step]:
    return stats.steps(FLIGHTS, 0, NOON + 24 * HOUR, MINUTE)


def sums(stats: Stats) -> tuple[int, int, int]:
    """Answer events, bytes and quarantined."""
    found = all_of(stats)
    return (
        sum(one.events for one in found),
        sum(one.bytes for one in found),
        sum(one.quarantined for one in found),
    )


def counted(stats: Stats, lake: Lake) -> bool:
    return gaps(stats, lake, FLIGHTS) == []


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def books(stats: Stats, lake: Lake, **more: object) -> Books:
    return Books(lambda: stats, lambda: lake, clock=lambda: NOON, **more)


class Away:
    """Books that answer when they are told to."""

    def __init__(self, real: Stats) -> None:
        self.real = real
        self.away = True
        self.asked = 0

    def __call__(self) -> Stats:
        self.asked += 1
        if self.away:
            raise EngineUnavailable("the database of the statistics does not answer")
        return self.real


def test_what_is_told_and_what_is_counted_from_the_lake_are_the_same(
    lake: Lake, stats: Stats, tmp_path: Path
) -> None:
    """Statistics are a function of the lake: forgetting them loses nothing but lags."""
    log = log_of(*numbered(20), BROKEN, "no JSON at all", *numbered(3))
    for at in (0, 3 * MINUTE, 3 * MINUTE):
        log.append(FLIGHTS, [event("{}", id="again", named=True, received_at=NOON + at)])
    landed = land(log, lake)
    assert landed.counts is not None
    assert stats.add(landed.counts)
    told = [replace(one, lag=None) for one in all_of(stats)]

    stats.forget(FLIGHTS)
    assert count_from_lake(stats, lake, FLIGHTS, clock=lambda: NOON) == 28

    assert all_of(stats) == told
    assert sums(stats) == (28, landed.bytes, landed.quarantined)
    assert [(one.start, one.duplicates) for one in told] == [(NOON, 0), (NOON + 3 * MINUTE, 2)]
    assert landed.quarantined > 0
    assert counted(stats, lake)
    assert count_from_lake(stats, lake, FLIGHTS, clock=lambda: NOON) == 0


def test_a_batch_that_a_crash_repeated_is_counted_as_it_is_in_the_lake(
    lake: Lake, stats: Stats
) -> None:
    """Its quarantine was decided before the crash, and is not decided again."""
    log = log_of(*numbered(3), BROKEN)
    faults.arm("before_commit:3:raise")  # the claim and quarantine were committed before
    try:
        with pytest.raises(faults.Injected):
            land(log, lake)
    finally:
        faults.arm(None)
    landed = land(log, lake)
    assert landed.counts is not None
    stats.add(landed.counts)
    told = sums(stats)

    stats.forget(FLIGHTS)
    count_from_lake(stats, lake, FLIGHTS, clock=lambda: NOON)
    assert sums(stats) == told
    assert told[::2] == (4, 1)


def test_what_only_the_lake_can_say_is_asked_of_the_lake(lake: Lake, stats: Stats) -> None:
    """A contract that changed in between: what this process decided is not what is there."""
    log = log_of(*numbered(3), BROKEN)
    with books(stats, lake) as opened:
        opened.tell(replace(land(log, lake), counts=None))
        until(lambda: counted(stats, lake))

    assert sums(stats)[::2] == (4, 1)


def test_what_lands_is_counted_while_it_lands(lake: Lake, stats: Stats) -> None:
    log = log_of(*numbered(5))
    with books(stats, lake) as open_books:
        open_books.tell(land(log, lake))
        append(log, *numbered(5), BROKEN)
        open_books.tell(land(log, lake, clock=lambda: NOON + 3_000_000))

    assert sums(stats)[0] == 11
    assert sums(stats)[2] == 1
    assert stats.marks(FLIGHTS) == {(log.log_id(FLIGHTS), 0): mark_of(lake).next}
    assert max(one.lag or 0 for one in all_of(stats)) == 3_000_000 - 5


def test_telling_never_waits_and_what_was_missed_is_made_good(lake: Lake, stats: Stats) -> None:
    """Landing goes on at its own pace while the statistics are away."""
    away = Away(stats)
    now = [0.0]
    log = log_of(*numbered(5))
    opened = Books(away, lambda: lake, clock=lambda: NOON, steady=lambda: now[0])
    with opened:
        opened.tell(land(log, lake))
        until(lambda: away.asked == 1)
        append(log, *numbered(5))
        opened.tell(land(log, lake))
        time.sleep(0.1)
        assert away.asked == 1  # it is left alone for a while
        assert sums(stats) == (0, 0, 0)
        away.away = False
        now[0] += 60
        append(log, *numbered(2))
        opened.tell(land(log, lake))
        until(lambda: counted(stats, lake))

    assert sums(stats)[0] == 12


def test_books_that_stay_away_hold_up_no_end(lake: Lake, stats: Stats) -> None:
    """A run that could not end would be taken for one that hangs."""
    never = threading.Event()

    def hangs() -> Stats:
        never.wait(30)
        raise EngineUnavailable("away")

    begun = time.monotonic()
    with Books(hangs, lambda: lake, clock=lambda: NOON, patience=0.2) as opened:
        for _ in range(3):
            opened.tell(land(log_of_more(lake), lake))
    took = time.monotonic() - begun
    never.set()

    assert took < 10
    assert count_from_lake(stats, lake, FLIGHTS, clock=lambda: NOON) == 3


_logs: dict[int, MemoryLog] = {}


def log_of_more(lake: Lake) -> MemoryLog:
    """Answer one log for the lake, with one event more each time."""
    log = _logs.setdefault(id(lake), MemoryLog())
    append(log, *numbered(1))
    return log


def test_whoever_was_killed_before_telling_is_made_good_by_the_next(
    lake: Lake, stats: Stats
) -> None:
    """The commit is in the lake, the statistics never heard of it."""
    log = log_of(*numbered(5))
    land(log, lake)  # and nobody tells
    append(log, *numbered(4))

    with books(stats, lake) as opened:
        opened.tell(land(log, lake))
        until(lambda: counted(stats, lake))

    assert sums(stats)[0] == 9


def test_a_large_gap_is_left_to_upkeep(
    lake: Lake, stats: Stats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a whole table beside landing would slow it down."""
    monkeypatch.setattr("assets.stats.SMALL", 6)
    log = log_of(*numbered(5))
    land(log, lake)
    append(log, *numbered(4))

    with books(stats, lake) as opened:
        opened.tell(land(log, lake))
    assert sums(stats)[0] == 0

    assert count_from_lake(stats, lake, FLIGHTS, clock=lambda: NOON) == 9
    assert sums(stats)[0] == 9


def test_a_long_count_goes_on_where_it_was_killed(
    lake: Lake, stats: Stats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.stats._AT_ONCE", 4)
    land(log_of(*numbered(10)), lake)

    class Killed(Exception):
        pass

    class DiesAtTheThird:
        def __init__(self) -> None:
            self.told: list[Batch] = []

        def marks(self, collection):
            return stats.marks(collection)

        def add(self, batch):
            self.told.append(batch)
            if len(self.told) == 3:
                raise Killed
            return stats.add(batch)

    with pytest.raises(Killed):
        count_from_lake(DiesAtTheThird(), lake, FLIGHTS, clock=lambda: NOON)
    assert sums(stats)[0] == 8

    assert count_from_lake(stats, lake, FLIGHTS, clock=lambda: NOON) == 2
    assert sums(stats)[0] == 10
