"""Old days go in one commit with their count; what is pinned stays, and nothing lands again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import (
    BROKEN,
    HASTY,
    MAIN,
    PLACES,
    QUARANTINE,
    Tampered,
    lake_at,
    landing,
    mark_of,
    new_lake,
    offsets,
    urls,
)
from pyiceberg.exceptions import CommitFailedException

from assets.checks import check_conservation
from assets.retention import due, first_kept, retain
from lakehouse import Lake
from lakehouse.catalog import open_catalog
from lakehouse.retention import date_of, drop_days
from lakehouse.tables import Expired, expired_of
from lakehouse.upkeep import ORPHAN_AGE, compact, expire, sweep_orphans
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Mark
from penstock.errors import EngineUnavailable

DAY = 86_400_000_000
TODAY = NOON // DAY


@pytest.fixture(params=PLACES)
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Let the lake of each test be here and in the real engines."""
    with lake_at(request.param, tmp_path) as folder:
        yield folder


class NoStats:
    """Statistics that remember from when on they were told to forget."""

    def __init__(self) -> None:
        self.before: list[int] = []

    def forget_before(self, _collection: object, before: int) -> None:
        self.before.append(before)


def landed(folder: Path, *days_ago: int, broken: tuple[int, ...] = ()) -> tuple[Lake, MemoryLog]:
    """Land an event of each of these days, and one that cannot be read of each in `broken`."""
    lake, log = new_lake(folder), MemoryLog()
    work = landing(log, lake)
    for number, ago in enumerate(days_ago):
        payload: Any = BROKEN if ago in broken else f'{{"n": {number}}}'
        log.append(FLIGHTS, [event(payload, id=f"e{number}", received_at=NOON - ago * DAY)])
        work.land_once(FLIGHTS)
    return lake, log


def dropped(lake: Lake, keep_days: int, *, now: int = NOON) -> tuple[int, int, int]:
    done = retain(
        lake,
        FLIGHTS,
        keep_days=keep_days,
        now=now,
        unindex=lambda _before: None,
        stats=NoStats,  # type: ignore[arg-type]  # a stand-in
    )
    return done.days, done.rows, done.quarantined


def expired(lake: Lake, name: tuple[str, str] = MAIN) -> list[Expired]:
    table = lake.table(name)
    assert table is not None
    return list(expired_of(table.metadata).values())


def test_a_day_goes_when_its_last_moment_is_old_enough() -> None:
    """An event of 23:59 is kept as long as one of 00:00 is kept longer."""
    midnight = TODAY * DAY

    assert first_kept(1, midnight) == TODAY - 1
    assert first_kept(1, midnight - 1) == TODAY - 2
    assert first_kept(90, NOON) == TODAY - 90


def test_old_days_are_dropped_with_their_count_and_nothing_lands_again(tmp_path: Path) -> None:
    """The marks stay: events that are dropped on purpose were landed all the same."""
    lake, log = landed(tmp_path, 5, 4, 4, 3, 1, 0, broken=(4,))
    mark = mark_of(lake)
    found = due(lake, FLIGHTS, keep_days=3, now=NOON)

    assert [(one.day, one.rows) for one in found.days] == [
        (date_of(TODAY - 5), 1),
        (date_of(TODAY - 4), 2),
    ]
    assert dropped(lake, 3) == (2, 1, 2)
    assert dropped(lake, 3) == (0, 0, 0)

    assert offsets(lake) == [3, 4, 5]
    assert offsets(lake, quarantine=True) == []
    assert expired(lake) == [Expired(1, 1)]
    assert expired(lake, QUARANTINE) == [Expired(2, 3)]
    assert mark_of(lake) == mark
    assert landing(log, new_lake(tmp_path)).land_once(FLIGHTS) is None
    view = new_lake(tmp_path).view(FLIGHTS)
    assert view is not None
    assert not view.rolled_back
    assert view.expired_before == first_kept(3, NOON) * DAY


def test_one_snapshot_drops_all_of_it(tmp_path: Path) -> None:
    """Half a day in an answer looks like lost events."""
    lake, _ = landed(tmp_path, 5, 5, 4, 0)
    before = lake.table(MAIN)
    assert before is not None

    dropped(lake, 2)

    after = lake.table(MAIN)
    assert after is not None
    new = [s for s in after.metadata.snapshots if before.snapshot_by_id(s.snapshot_id) is None]
    assert [s.summary.operation.value for s in new if s.summary] == ["delete"]
    assert [s.parent_snapshot_id for s in new] == [before.metadata.current_snapshot_id]
    summary = new[0].summary
    assert summary is not None
    assert summary.additional_properties["deleted-records"] == "3"
    assert summary.additional_properties["total-records"] == "1"


def test_the_books_add_up_after_a_drop(tmp_path: Path) -> None:
    """Events that retention dropped are missing on purpose, and exactly those."""
    lake, log = landed(tmp_path, 5, 4, 3, 1, 0, broken=(4,))
    dropped(lake, 2)

    good = check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS))
    assert (good.passed, good.facts["expired"]) == (True, 3)

    # Mutants: rows that went without their count, a count that went without its rows.
    uncounted = new_lake(tmp_path)
    table = uncounted.table(MAIN)
    assert table is not None
    table.delete(f"log_offset = {max(offsets(lake))}")
    lost = check_conservation(new_lake(tmp_path), FLIGHTS, log.log_id(FLIGHTS))
    assert (lost.passed, lost.facts["missing"]) == (False, 1)


def test_a_count_without_its_drop_is_found(tmp_path: Path) -> None:
    """The mutant: the property moves in a commit of its own, and the drop does not follow."""
    lake, log = landed(tmp_path, 5, 0)
    table = lake.table(MAIN)
    assert table is not None
    with table.transaction() as transaction:
        sequence = table.metadata.last_sequence_number
        counted = f"{sequence}:1:1:0"
        transaction.set_properties({f"penstock.expired.{log.log_id(FLIGHTS)}.0": counted})

    verdict = check_conservation(new_lake(tmp_path), FLIGHTS, log.log_id(FLIGHTS))

    assert (verdict.passed, verdict.facts["doubled"]) == (False, 1)


def test_a_landing_beside_a_drop_loses_nothing(tmp_path: Path) -> None:
    """The drop is fenced by the newest snapshot, and begins again."""
    lake, log = landed(tmp_path, 5, 4, 0)
    log.append(FLIGHTS, [event("{}", id="late", received_at=NOON - 5 * DAY)])
    other = landing(log, new_lake(tmp_path))

    def land_first(number: int) -> None:
        if number == 1:
            other.land_once(FLIGHTS)

    between = Tampered(open_catalog(*urls(tmp_path)), before=land_first)
    rows = drop_days(Lake(between, HASTY), MAIN, before=TODAY - 1)  # type: ignore[arg-type]  # a stand-in

    assert between.commits == 2
    assert rows == 3
    assert offsets(lake) == [2]
    assert expired(lake) == [Expired(3, 4)]
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_a_compaction_beside_a_drop_brings_nothing_back(tmp_path: Path) -> None:
    """Both replace the same files; a day that is merged meanwhile is dropped merged."""
    lake, log = landed(tmp_path, 5, 5, 5, 0)

    def merge_first(number: int) -> None:
        if number == 1:
            names = itertools.count()
            compact(new_lake(tmp_path), MAIN, new_name=lambda: f"merged-{next(names)}", fewest=2)

    between = Tampered(open_catalog(*urls(tmp_path)), before=merge_first)
    rows = drop_days(Lake(between, HASTY), MAIN, before=TODAY - 1)  # type: ignore[arg-type]  # a stand-in

    assert rows == 3
    assert offsets(lake) == [3]
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_a_drop_beside_a_compaction_stays(tmp_path: Path) -> None:
    """The other way round: merged rows of a dropped day would be back."""
    lake, log = landed(tmp_path, 5, 5, 5, 0)

    def drop_first(number: int) -> None:
        if number == 1:
            drop_days(new_lake(tmp_path), MAIN, before=TODAY - 1)

    between = Tampered(open_catalog(*urls(tmp_path)), before=drop_first)
    names = itertools.count()
    done = compact(
        Lake(between, HASTY),  # type: ignore[arg-type]  # a stand-in
        MAIN,
        new_name=lambda: f"merged-{next(names)}",
        fewest=2,
    )

    assert done.given_up == 1
    assert offsets(lake) == [3]
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


@pytest.mark.parametrize("error", [CommitFailedException("conflict"), OSError("no answer")])
def test_a_drop_that_was_reported_as_failed_is_counted_once(
    tmp_path: Path, error: Exception
) -> None:
    """Its answer got lost; the count must not move a second time."""
    lake, log = landed(tmp_path, 5, 4, 0)

    def fail(_: int) -> None:
        raise error

    between = Tampered(open_catalog(*urls(tmp_path)), after=fail)
    rows = drop_days(Lake(between, HASTY), MAIN, before=TODAY - 1)  # type: ignore[arg-type]  # a stand-in

    assert (rows, between.commits) == (2, 1)
    assert expired(lake) == [Expired(2, 2)]
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_a_pinned_snapshot_stays_whole_and_is_told(tmp_path: Path) -> None:
    """A replay that was planned yesterday sends what it counted."""
    lake, _ = landed(tmp_path, 5, 4, 0)
    view = lake.view(FLIGHTS)
    assert view is not None
    pinned = view.snapshot_id or 0
    lake.pin(FLIGHTS, pinned, "penstock-replay-7")

    found = due(lake, FLIGHTS, keep_days=1, now=NOON)
    dropped(lake, 1)
    now = NOON
    expire(lake, MAIN, keep=1)
    swept = sweep_orphans(lake, MAIN, {}, now)
    swept = sweep_orphans(lake, MAIN, swept.seen, now + ORPHAN_AGE)

    assert found.pinned_by == ("penstock-replay-7",)
    table = new_lake(tmp_path).table(MAIN)
    assert table is not None
    assert sorted(table.scan(snapshot_id=pinned).to_arrow()["log_offset"].to_pylist()) == [0, 1, 2]
    assert offsets(lake) == [2]

    # And once it is let go, nothing of it is left.
    lake.unpin(FLIGHTS, "penstock-replay-7")
    expire(lake, MAIN, keep=1)
    swept = sweep_orphans(lake, MAIN, {}, now)
    swept = sweep_orphans(lake, MAIN, swept.seen, now + ORPHAN_AGE)
    assert len([file for file in swept.deleted if "/data/" in file]) == 2


def test_quarantine_that_main_has_not_caught_up_with_stays(tmp_path: Path) -> None:
    """Dropped, the repeated landing would put those events into main as well."""
    lake, log = landed(tmp_path, 5, 5, broken=(5,))
    view = lake.view(FLIGHTS)
    assert view is not None

    behind = [Mark(mark.log_id, mark.partition, 1, "") for mark in view.marks]
    assert drop_days(lake, QUARANTINE, before=TODAY - 1, landed=behind) == 0
    assert offsets(lake, quarantine=True) == [0, 1]
    assert drop_days(lake, QUARANTINE, before=TODAY - 1, landed=view.marks) == 2
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_while_the_index_is_away_nothing_is_dropped(tmp_path: Path) -> None:
    """It would go on finding some events of those days, and others not."""
    lake, _ = landed(tmp_path, 5, 0)

    def away(_before: int) -> None:
        raise EngineUnavailable("the index does not answer")

    done = retain(
        lake,
        FLIGHTS,
        keep_days=1,
        now=NOON,
        unindex=away,
        stats=NoStats,  # type: ignore[arg-type]  # a stand-in
    )

    assert (done.days, done.postponed) == (0, "the index does not answer")
    assert offsets(lake) == [0, 1]


@settings(max_examples=8, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("land"), st.lists(st.integers(0, 6), min_size=1, max_size=4)),
            st.tuples(st.just("drop"), st.integers(1, 6)),
            st.tuples(st.just("merge"), st.just(0)),
            st.tuples(st.just("expire"), st.just(0)),
        ),
        min_size=2,
        max_size=7,
    )
)
def test_landing_retention_and_compaction_in_any_order_keep_the_books(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    """Each event is a row, is in quarantine, or was counted when it was dropped."""
    lake, log = new_lake(tmp_path_factory.mktemp("books")), MemoryLog()
    work = landing(log, lake)
    numbers = itertools.count()
    names = itertools.count()
    lake.create(FLIGHTS)
    ago_of: dict[int, int] = {}
    gone: set[int] = set()
    for what, how in steps:
        if what == "land":
            for ago in how:
                number = next(numbers)
                ago_of[number] = ago
                payload = BROKEN if number % 3 == 2 else "{}"
                log.append(FLIGHTS, [event(payload, id=f"e{number}", received_at=NOON - ago * DAY)])
            work.land_once(FLIGHTS)
        elif what == "drop":
            dropped(lake, how)
            gone |= {
                number for number, ago in ago_of.items() if TODAY - ago < first_kept(how, NOON)
            }
        elif what == "merge":
            compact(lake, MAIN, new_name=lambda: f"merged-{next(names)}", fewest=2)
        else:
            expire(lake, MAIN, keep=2)
        verdict = check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS))
        assert verdict.passed, verdict.sentence
        assert verdict.facts["expired"] == len(gone)
        left = sorted(offsets(lake) + offsets(lake, quarantine=True))
        assert left == sorted(ago_of.keys() - gone)
