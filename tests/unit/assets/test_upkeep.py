"""Upkeep of a collection: both of its tables, beside landing."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from builders import FLIGHTS, NOON
from lakes import (
    BROKEN,
    MAIN,
    QUARANTINE,
    Unwilling,
    append,
    everywhere,
    landing,
    log_of,
    new_lake,
    numbered,
)

from assets.landing import Landing
from assets.upkeep import (
    AT_LATEST,
    SWEEP_EVERY,
    Aims,
    Notes,
    Tended,
    Untended,
    check_upkeep,
    tend,
    tend_all,
    tended_well,
)
from lakehouse import Lake
from lakehouse.upkeep import DAY, HOUR, ORPHAN_AGE, Condition
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId


def test_both_tables_are_tended_and_nothing_is_lost(tmp_path: Path) -> None:
    """Quarantine grows by as many small files as the table does."""
    lake = new_lake(tmp_path)
    log = log_of()
    work = landing(log, lake)
    for _ in range(6):
        append(log, *numbered(1), BROKEN)
        work.land_once(FLIGHTS)
    chance = itertools.count()
    now = NOON

    def tended(notes: Notes) -> Notes:
        done = tend(
            lake,
            FLIGHTS,
            aims=Aims(keep=1, below=1 << 20, target=1 << 30),
            notes=notes,
            clock=lambda: now,
            chance=lambda size: next(chance).to_bytes(size, "big"),
        )
        outcomes.append((done.compacted.read, done.compacted.written, done.expired, done.deleted))
        return done.notes

    outcomes: list[tuple[int, int, int, int]] = []
    notes = tended(Notes())
    now += ORPHAN_AGE
    assert tended(notes).seen == {}

    # Six landings and a compaction made seven snapshots of each table, six claims more of main.
    assert outcomes[0] == (12, 2, 18, 0)
    assert outcomes[1][:3] == (0, 0, 0)
    assert outcomes[1][3] == len(notes.seen) > 12
    assert everywhere(new_lake(tmp_path)) == Counter(range(12))
    for name in (MAIN, QUARANTINE):
        table = lake.table(name)
        assert table is not None
        assert len(list(table.scan().plan_files())) == 1


def test_days_that_are_over_are_tidied_once_a_day(tmp_path: Path) -> None:
    """Tidied by each upkeep, a whole file was written again with every event that comes late."""
    lake = new_lake(tmp_path)
    log = log_of()
    work = landing(log, lake)
    whole = sum(_landed(work, log, *numbered(2_000)))
    now = NOON - NOON % DAY + 2 * DAY + HOUR - 1
    notes = Notes()

    def files() -> int:
        nonlocal notes
        done = tend(
            lake,
            FLIGHTS,
            aims=Aims(keep=1, below=whole, target=2 * whole),
            notes=notes,
            clock=lambda: now,
            chance=os.urandom,
        )
        notes = done.notes
        return done.files

    _landed(work, log, *numbered(1))
    assert files() == 1
    _landed(work, log, *numbered(1))
    assert files() == 2
    now += 1
    assert files() == 1
    _landed(work, log, *numbered(1))
    now += DAY - 1
    assert files() == 2
    now += 1
    assert files() == 1


def _landed(work: Landing, log: MemoryLog, *payloads: str) -> list[int]:
    """Land the events; answer the bytes of the files that each landing wrote."""
    append(log, *payloads)
    sizes = []
    while (landed := work.land_once(FLIGHTS)) is not None:
        sizes.append(landed.file_bytes)
    return sizes


AIMS = Aims(keep=2, below=1 << 20, target=1 << 30)


def several(folder: Path, **commits: int) -> Lake:
    """Answer a lake with collections that landed so often."""
    lake = new_lake(folder)
    for name, count in commits.items():
        collection = CollectionId("main", name)
        log = log_of(collection=collection)
        work = landing(log, lake)
        for _ in range(count):
            append(log, *numbered(1), collection=collection)
            work.land_once(collection)
    return lake


def all_tended(
    lake: Lake, *, seconds: float, clock: Callable[[], int], notes: dict[CollectionId, Notes]
) -> list[tuple[str, bool]]:
    """Tend every collection; answer what was tended, and whether there was more to do."""
    order = []
    for done in tend_all(
        lake,
        lake.collections(),
        notes,
        aims=AIMS,
        seconds=seconds,
        clock=clock,
        chance=os.urandom,
    ):
        assert isinstance(done, Tended)
        notes[done.collection] = done.notes
        order.append((done.collection.name, done.compacted.more))
    return order


def test_each_collection_has_a_turn_the_busiest_first(tmp_path: Path) -> None:
    """One that lands all the time would be tended all the time, and 299 never."""
    lake = several(tmp_path, busy=8, calm=3, slow=5)

    # Each look at the clock takes a second: the busiest has no time to merge in its turn.
    ticks = itertools.count(NOON, 1_000_000)
    first = all_tended(lake, seconds=60, clock=lambda: next(ticks), notes={})

    assert [name for name, _ in first[:3]] == ["busy", "slow", "calm"]
    assert [more for _, more in first[-1:]] == [False]
    for name in ("busy", "calm", "slow"):
        view = lake.view(CollectionId("main", name))
        assert view is not None
        assert view.files == 1 if name != "calm" else view.files <= 3


def test_who_was_not_reached_is_the_first_of_the_next(tmp_path: Path) -> None:
    """The busiest first, again and again, and the rest would never be tended."""
    lake = several(tmp_path, a=6, b=5, c=4)
    notes: dict[CollectionId, Notes] = {}
    now = NOON

    def slow() -> int:
        nonlocal now
        now += 10_000_000
        return now

    reached = [name for name, _ in all_tended(lake, seconds=100, clock=slow, notes=notes)]
    now += AT_LATEST // 2
    again = [name for name, _ in all_tended(lake, seconds=10_000, clock=slow, notes=notes)]

    assert reached[0] == "a"
    assert "c" not in reached
    assert again[0] != "a"
    assert set(again) == {"a", "b", "c"}


def test_a_table_that_cannot_be_tended_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Its metadata is lost, say; the others grow meanwhile."""
    lake = several(tmp_path, good=3, lost=3)
    table = lake.table(("main", "lost"))
    assert table is not None
    Path(table.metadata_location.removeprefix("file://")).unlink()
    lake = new_lake(tmp_path)

    done = list(
        tend_all(
            lake,
            lake.collections(),
            {},
            aims=AIMS,
            seconds=60,
            clock=lambda: NOON,
            chance=os.urandom,
        )
    )

    assert [(one.collection.name, type(one)) for one in done] == [
        ("lost", Untended),
        ("good", Tended),
    ]


def test_files_are_listed_once_an_hour(tmp_path: Path) -> None:
    """Listing a bucket every ten minutes costs money, and what is there waits three days."""
    lake = several(tmp_path, a=3)
    notes: dict[CollectionId, Notes] = {}
    seen = []
    for now in (NOON, NOON + SWEEP_EVERY - 1, NOON + SWEEP_EVERY):
        all_tended(lake, seconds=60, clock=lambda now=now: now, notes=notes)
        seen.append(notes[CollectionId("main", "a")].swept - NOON)

    assert seen == [0, 0, SWEEP_EVERY]


def test_who_is_behind_is_told_what_to_run() -> None:
    """A check that only says that it failed leaves people with the documentation."""
    fine = Condition(files=3, bytes=9, snapshots=50, pinned=1, late_files=0, late_snapshots=0)
    late = Condition(files=900, bytes=9, snapshots=70, pinned=0, late_files=800, late_snapshots=7)

    good, bad = tended_well([fine, fine], FLIGHTS), tended_well([fine, late], FLIGHTS)

    assert (good.passed, good.sentence) == (True, "6 files, 100 snapshots")
    assert not bad.passed
    assert "800 small files" in bad.sentence
    assert "penstock upkeep main.flights" in bad.sentence


def test_upkeep_goes_on_while_who_merges_files_is_away(tmp_path: Path) -> None:
    """Snapshots go and orphans age all the same, and 300 collections do not wait 300 times."""
    lake, merger = several(tmp_path, a=6, b=5), Unwilling()

    done = [
        outcome
        for outcome in tend_all(
            lake,
            lake.collections(),
            {},
            aims=AIMS,
            seconds=60,
            clock=lambda: NOON + 2 * 86_400_000_000,
            chance=os.urandom,
            merger=merger,
        )
        if isinstance(outcome, Tended)
    ]

    assert [(one.collection.name, one.expired) for one in done] == [("a", 4), ("b", 3)]
    assert [one.compacted.trouble for one in done] == ["Trino cannot be reached now", ""]
    assert [one.notes.swept > 0 for one in done] == [True, True]
    assert merger.asked == 1
    late = check_upkeep(lake, done[1].collection, AIMS, NOON + 3 * 86_400_000_000, merger)
    assert late.facts["late files"] == 5
