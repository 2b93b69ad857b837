"""The checks: what they say, and that they can say no."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from builders import FLIGHTS, NOON
from hypothesis import given
from hypothesis import strategies as st
from lakes import (
    BROKEN,
    MAIN,
    QUARANTINE,
    append,
    batch_of,
    landing,
    log_of,
    new_lake,
    numbered,
    put,
)

from assets.checks import (
    Account,
    Verdict,
    account,
    check_conservation,
    check_freshness,
    check_marks,
    checked,
    conserved,
    fresh,
    runs_of,
)
from lakehouse import Lake
from lakehouse.tables import mark_properties
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Mark
from penstock.errors import LogTruncated

SECOND = 1_000_000

positions = st.lists(st.integers(0, 30))


@given(st.lists(positions, max_size=4), st.integers(0, 30))
def test_an_account_is_what_counting_one_by_one_says(batches: list[list[int]], upto: int) -> None:
    """Runs keep a hundred million positions in a few bytes; the sums must not change by it."""
    runs = [run for batch in batches for run in runs_of(pa.array(batch, pa.int64()))]
    flat = [place for batch in batches for place in batch]

    found = account(runs, upto)

    assert found.rows == len(flat)
    assert found.doubled == len(flat) - len(set(flat))
    assert found.beyond == sum(place >= upto for place in flat)
    missing = [place for start, end in found.missing for place in range(start, end)]
    assert missing == [place for place in range(upto) if place not in flat]


def test_a_check_that_fails_says_what_and_where() -> None:
    """Whoever is woken by it needs the positions."""
    good = conserved({0: Account(5, 0, (), 0), 1: Account(0, 0, (), 0)})
    bad = conserved({0: Account(5, 1, ((2, 3), (7, 9)), 2)})

    assert good.passed
    assert good.sentence == "5 events landed, each once"
    assert not bad.passed
    assert "[0]:2-3, [0]:7-9" in bad.sentence
    assert bad.facts == {"rows": 5, "doubled": 1, "missing": 3, "beyond": 2, "expired": 0}


@pytest.mark.parametrize(("oldest", "passed"), [(None, True), (NOON - SECOND, True), (0, False)])
def test_freshness_is_the_age_of_the_oldest_that_waits(oldest: int | None, passed: bool) -> None:
    """A mean would hide the one collection that stands still."""
    assert fresh(oldest, NOON, limit=SECOND).passed is passed


def filled(folder: Path, count: int = 6) -> tuple[Lake, MemoryLog]:
    lake = new_lake(folder)
    log = log_of(*numbered(count), BROKEN)
    landing(log, lake).land_once(FLIGHTS)
    return lake, log


def test_a_sound_collection_passes_everything(tmp_path: Path) -> None:
    """A check that cries without reason is soon switched off."""
    lake, log = filled(tmp_path)

    conservation = check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS))
    assert conservation.passed
    assert conservation.facts["rows"] == 7
    assert check_freshness(log, lake, FLIGHTS, NOON, limit=SECOND).passed
    assert check_marks(log, lake, FLIGHTS).passed


def test_a_collection_without_a_table_passes(tmp_path: Path) -> None:
    """It never got an event."""
    lake = new_lake(tmp_path)
    log = MemoryLog()

    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
    assert check_freshness(log, lake, FLIGHTS, NOON, limit=SECOND).passed
    assert check_marks(log, lake, FLIGHTS).passed


def test_a_batch_that_is_in_flight_is_no_finding(tmp_path: Path) -> None:
    """Quarantine commits first: for a moment it is ahead of the marks."""
    lake, log = filled(tmp_path)
    view = lake.view(FLIGHTS)
    assert view is not None
    append(log, BROKEN)
    ahead = batch_of(log, view)
    put(lake, ahead)
    set_mark(lake, Mark(log.log_id(FLIGHTS), 0, 7, view.marks[0].fingerprint))

    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def set_mark(lake: Lake, mark: Mark) -> None:
    """Move the mark by force, as no landing would."""
    table = lake.table(MAIN)
    assert table is not None
    with table.transaction() as change:
        change.set_properties(mark_properties([mark]))


def test_lost_and_doubled_events_are_found(tmp_path: Path) -> None:
    """Seeded: without it nobody knows that the check can fail."""
    lake, log = filled(tmp_path)
    table = lake.table(MAIN)
    assert table is not None
    table.delete("log_offset = 2")

    lost = check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS))
    assert (lost.passed, lost.facts["missing"]) == (False, 1)
    assert "[0]:2-3" in lost.sentence

    set_mark(lake, Mark(log.log_id(FLIGHTS), 0, 0, ""))
    landing(log, lake).land_once(FLIGHTS)
    doubled = check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS))
    assert (doubled.passed, doubled.facts["doubled"]) == (False, 5)


def test_rows_behind_the_mark_are_found(tmp_path: Path) -> None:
    """A mark that moved back: the next landing would double them."""
    lake, log = filled(tmp_path)
    set_mark(lake, Mark(log.log_id(FLIGHTS), 0, 4, ""))

    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).facts["beyond"] == 2


def test_an_event_that_waits_too_long_is_found(tmp_path: Path) -> None:
    """Landing may be dead without a word."""
    lake, log = filled(tmp_path)
    append(log, *numbered(3))

    late = check_freshness(log, lake, FLIGHTS, NOON + 100 * SECOND, limit=60 * SECOND)

    assert not late.passed
    assert late.facts["seconds"] == 99


@pytest.mark.parametrize(
    "mark",
    [
        Mark(MemoryLog().log_id(FLIGHTS), 0, 99, "x"),
        Mark(MemoryLog().log_id(FLIGHTS), 0, 7, "another record"),
        Mark(MemoryLog().log_id(FLIGHTS), 3, 7, ""),
    ],
    ids=["behind the end", "another record", "no such partition"],
)
def test_a_mark_that_the_log_does_not_know_is_found(tmp_path: Path, mark: Mark) -> None:
    """A log that was restored from a backup has other events at the same offsets."""
    lake, log = filled(tmp_path)
    set_mark(lake, mark)

    assert not check_marks(log, lake, FLIGHTS).passed


def test_another_log_is_found(tmp_path: Path) -> None:
    """Landing has stopped; the check says why."""
    lake, _ = filled(tmp_path)
    other = MemoryLog("00000000-0000-0000-0000-00000000000f")

    assert "another log" in check_marks(other, lake, FLIGHTS).sentence


def test_a_rolled_back_table_is_found(tmp_path: Path) -> None:
    """Its marks promise rows that are not there."""
    lake, log = filled(tmp_path, 2)
    append(log, *numbered(2))
    landing(log, lake).land_once(FLIGHTS)
    table = lake.table(MAIN)
    assert table is not None
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[0].snapshot_id).commit()

    assert not check_marks(log, lake, FLIGHTS).passed
    assert not check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_a_quarantine_that_was_rolled_back_is_found(tmp_path: Path) -> None:
    """Landing stops for it as well."""
    lake, log = filled(tmp_path, 2)
    append(log, BROKEN)
    landing(log, lake).land_once(FLIGHTS)
    append(log, BROKEN)
    landing(log, lake).land_once(FLIGHTS)
    table = lake.table(QUARANTINE)
    assert table is not None
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[0].snapshot_id).commit()

    assert "rolled back" in check_marks(log, lake, FLIGHTS).sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LogTruncated("records 3 to 9 are gone"), "records 3 to 9 are gone"),
        (ValueError("secret of the sender"), "could not be checked: ValueError"),
    ],
)
def test_what_cannot_be_checked_has_not_passed(error: Exception, sentence: str) -> None:
    """One collection that cannot be read must neither look healthy nor hide the others."""

    def check() -> Verdict:
        raise error

    assert checked(check) == Verdict(False, sentence)
