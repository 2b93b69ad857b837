"""Days of small commits with upkeep beside them: nothing is lost, and nothing is left over."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from balance import compare
from builders import FLIGHTS, NOON, event
from evidence import sheet
from lakes import HASTY, MAIN, Tampered, landing, new_lake
from pyiceberg.table import Table

from assets.checks import check_conservation
from assets.retention import first_kept
from lakehouse import Lake, upkeep
from lakehouse.files import Files
from lakehouse.retention import drop_days
from lakehouse.updates import AssertUnreferenced
from lakehouse.upkeep import (
    DAY,
    GROWING,
    HOUR,
    ORPHAN_AGE,
    OVER,
    SETTLED,
    Candidate,
    Rule,
    candidates,
    compact,
    expire,
    look,
    sweep_orphans,
)
from penstock.buffer.memory import MemoryLog
from penstock.errors import EngineUnavailable, NotFound, PenstockError

DAYS = int(os.environ.get("UPKEEP_DAYS", "2"))
"""How many days go by."""

APART = 3 * HOUR
"""From one commit to the next."""

EVERY = 3
"""Commits from one upkeep to the next."""

KEPT = 8
"""Snapshots."""

KEPT_DAYS = 1
MOST_PINS = 4
ROWS = 3
"""What is landed in a commit."""

TARGET = 64 << 10
"""Of some seven commits: a day fills more than one file, and has something left over."""

STEPS = ("drop", "compact", "expire", "sweep")
"""What upkeep does, in its order."""


class Beside(Tampered):
    """A catalog of which each commit and each load of upkeep meets what the others do."""

    def __init__(self, real: Any, happens: Callable[[], None]) -> None:
        super().__init__(real, before=lambda _number: happens())
        self._happens = happens

    def load_table(self, name: Any) -> Any:
        self._happens()
        return self.real.load_table(name)


@dataclass
class World:
    """One collection over days, with an upkeep after every few commits and others beside it."""

    folder: Path
    days: int = 2
    steps: tuple[str, ...] = STEPS
    seed: int = 7
    quiet: bool = False
    """Whether nobody does anything beside upkeep."""
    now: int = NOON - NOON % DAY
    held: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    """What each pin has to show: its snapshot, and the positions that were in it."""
    received: list[int] = field(default_factory=list)
    """The days of all events."""
    most_snapshots: int = 0
    most_held: int = 0
    deleted: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.lake = new_lake(self.folder)
        self.lake.create(FLIGHTS)
        self.log = MemoryLog()
        self.work = landing(self.log, self.lake, clock=lambda: self.now)
        self.tended = Lake(Beside(self.lake.catalog, self.meanwhile), HASTY)  # type: ignore[arg-type]  # a stand-in
        self.names = itertools.count()

    @property
    def table(self) -> Table:
        """The table as it is now."""
        table = self.lake.table(MAIN)
        assert table is not None
        return table

    def land(self) -> None:
        """Land some events in a commit of their own."""
        events = [
            event(
                f'{{"x": "{self.chance.randbytes(2_000).hex()}"}}',
                id=f"e{len(self.received) + number}",
                received_at=self.now,
            )
            for number in range(ROWS)
        ]
        self.received += [self.now // DAY] * ROWS
        self.log.append(FLIGHTS, events)
        self.work.land_once(FLIGHTS)

    def meanwhile(self) -> None:
        """Do what somebody may do between any two steps of upkeep."""
        what = 1.0 if self.quiet else self.chance.random()
        if what < 0.2:
            self.land()
        elif what < 0.5 and len(self.held) < MOST_PINS:
            self.pin()
        elif what < 0.6 and self.held:
            name = self.chance.choice(sorted(self.held))
            self.lake.unpin(FLIGHTS, name)
            del self.held[name]

    def pin(self) -> None:
        """Pin one of the oldest snapshots: those are about to go."""
        old = sorted(self.table.metadata.snapshots, key=lambda s: s.sequence_number or 0)[:4]
        if not old:
            return
        snapshot = self.chance.choice(old).snapshot_id
        name = f"replay-{next(self.names)}"
        try:
            self.lake.pin(FLIGHTS, snapshot, name)
        except NotFound:
            return
        self.held[name] = (snapshot, self.positions(snapshot))
        self.most_held = max(self.most_held, len(self.held))

    def positions(self, snapshot: int) -> list[int]:
        """Read the log positions of all rows of a snapshot, out of its files."""
        rows = self.table.scan(snapshot_id=snapshot, selected_fields=("log_offset",)).to_arrow()
        return sorted(rows["log_offset"].to_pylist())

    def tend(self) -> None:
        """Do all of upkeep, with others in between; what nothing refers to goes at once."""
        for step in self.steps:
            self.do(step)

    def do(self, step: str) -> None:
        """Do a step of upkeep."""
        match step:
            case "drop":
                drop_days(self.tended, MAIN, before=first_kept(KEPT_DAYS, self.now))
            case "compact":
                compact(
                    self.tended,
                    MAIN,
                    below=TARGET,
                    target=TARGET,
                    new_name=lambda: f"merged-{next(self.names)}",
                    clock=lambda: self.now,
                )
            case "expire":
                expire(self.tended, MAIN, keep=KEPT, clock=lambda: self.now)
                self.most_snapshots = max(self.most_snapshots, len(self.table.metadata.snapshots))
            case "sweep":
                swept = sweep_orphans(self.tended, MAIN, {}, self.now, age=0)
                self.deleted += len(swept.deleted)

    def live(self, *, looking: bool = False) -> list[str]:
        """Let days go by; answer what is wrong at the end or, `looking`, as soon as it is.

        The end is at noon: of the two days that are kept one is over, and the other goes on.
        """
        for number in range(1, (self.days * DAY + DAY // 2) // APART + 1):
            self.now += APART
            try:
                self.land()
                if number % EVERY == 0:
                    self.tend()
            except (OSError, EngineUnavailable) as error:
                return [f"a file is gone: {type(error).__name__}"]
            if looking and number % EVERY == 0 and (found := self.faults()):
                return found
        self.quiet = True
        self.land()
        self.tend()
        return self.faults() or [*self.left_over(), *self.too_many()]

    def faults(self) -> list[str]:
        """Answer what is wrong with what somebody needs."""
        found = []
        for name, (snapshot, positions) in sorted(self.held.items()):
            try:
                if self.positions(snapshot) != positions:
                    found.append(f"{name} does not show what it had")
            except (PenstockError, ValueError, OSError) as error:
                found.append(f"{name} cannot be read: {type(error).__name__}")
        try:
            verdict = check_conservation(self.lake, FLIGHTS, self.log.log_id(FLIGHTS))
        except EngineUnavailable as error:
            return [*found, f"the table cannot be read: {type(error).__name__}"]
        return found + ([] if verdict.passed else [verdict.sentence])

    def left_over(self) -> list[str]:
        """Answer what is wrong with the files that are there, by what PyIceberg says of them."""
        table = self.table
        there = set(cast("Files", table.io).list(table.location()))
        needed = {
            table.metadata_location,
            *table.inspect.metadata_log_entries()["file"].to_pylist(),
            *(snapshot.manifest_list for snapshot in table.metadata.snapshots),
            *table.inspect.all_manifests()["path"].to_pylist(),
            *table.inspect.all_files()["file_path"].to_pylist(),
        }
        return [
            f"{len(some)} files {what}"
            for some, what in ((there - needed, "are left over"), (needed - there, "are gone"))
            if some
        ]

    def too_many(self) -> list[str]:
        """Answer what there is more of than upkeep promises, with nobody beside it."""
        table, found = self.table, []
        # One may land between the load and the commit of an expiry.
        most = max(self.most_snapshots, len(table.metadata.snapshots))
        if most > KEPT + MOST_PINS + 1:
            found.append(f"{most} snapshots")
        files = list(candidates(table, table.scan().plan_files()))
        if old := [file for file in files if file.day < first_kept(KEPT_DAYS, self.now)]:
            found.append(f"{len(old)} files of old days")
        left: defaultdict[tuple[int, Rule], list[Candidate]] = defaultdict(list)
        for file in files:
            if file.bytes < TARGET // 2:
                left[file.day, self.rule_of(file)].append(file)
        return found + [
            f"{len(some)} small files of day {day}"
            for (day, rule), some in left.items()
            if len(some) > most_left(some, rule)
        ]

    def rule_of(self, file: Candidate) -> Rule:
        """Answer which of the rules a file is for."""
        if file.newest > self.now - HOUR:
            return GROWING
        return OVER if (file.day + 1) * DAY + HOUR <= self.now else SETTLED


def most_left(files: list[Candidate], rule: Rule) -> int:
    """Answer how many files of these rows a rule leaves alone at the most.

    Each but the `fewest - 1` smallest has more than 1 / (ratio - 1) of the rows of all that are
    smaller; otherwise they are merged. So each multiplies the sum by ratio / (ratio - 1) at least.
    """
    if len(files) < rule.fewest:
        return rule.fewest - 1
    first = (rule.fewest - 1) * min(file.rows for file in files)
    grown = sum(file.rows for file in files) / first
    return rule.fewest - 1 + math.floor(math.log(grown, rule.ratio / (rule.ratio - 1)))


@pytest.mark.breaks("snapshots and files, by an upkeep of days beside landings and pins")
def test_days_of_small_commits_end_as_few_files_and_few_snapshots(tmp_path: Path) -> None:
    """Counted, not timed: with upkeep beside it a table is the same after a hundred days.

    So many days go by as UPKEEP_DAYS says.
    """
    world = World(tmp_path, days=DAYS)
    assert world.live() == []
    assert world.most_held == MOST_PINS
    assert world.held, "pins have been held to the end"
    assert world.deleted > len(world.received) // ROWS, "of landings, of merges and of metadata"

    files = [task.file.file_size_in_bytes for task in world.table.scan().plan_files()]
    assert min(files) < TARGET // 2 <= max(files) <= TARGET, "some are whole, and some are left"
    condition = look(world.lake, MAIN, keep=KEPT, now=world.now, below=TARGET, target=TARGET)
    assert condition is not None
    assert (condition.late_files, condition.late_snapshots) == (0, 0)
    view = world.lake.view(FLIGHTS)
    assert view is not None
    first = first_kept(KEPT_DAYS, world.now)
    old = sum(day < first for day in world.received)
    assert sum(one.rows for one in view.expired.values()) == old > 0
    kept = [offset for offset, day in enumerate(world.received) if day >= first]
    current = world.table.current_snapshot()
    assert current is not None
    there = ((offset, None) for offset in world.positions(current.snapshot_id))
    sheet.happened("deleted files", world.deleted)
    sheet.found(tables=compare(dict.fromkeys(kept), there))

    # What a pin held goes with the pin, once the sweep has seen for long enough that it may.
    for name in list(world.held):
        world.lake.unpin(FLIGHTS, name)
        del world.held[name]
    world.do("expire")
    assert len(world.table.metadata.snapshots) == KEPT
    seen = sweep_orphans(world.lake, MAIN, {}, world.now)
    assert not seen.deleted
    assert len(seen.seen) > 0
    early = sweep_orphans(world.lake, MAIN, seen.seen, world.now + ORPHAN_AGE - 1)
    assert not early.deleted
    swept = sweep_orphans(world.lake, MAIN, seen.seen, world.now + ORPHAN_AGE)
    assert set(swept.deleted) == set(seen.seen)
    assert world.left_over() == []
    assert world.faults() == []


def metadata_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep what was listed after the snapshots were read."""

    def sweep(lake: Lake, name: Any, seen: Any, now: int, *, age: int) -> upkeep.Swept:
        table = lake.table(name)
        assert table is not None
        referenced = upkeep._referenced(table)
        lake.table(name)  # what happens in between
        listed = list(cast("Files", table.io).list(table.location()))
        swept = upkeep.sort_out(listed, referenced, seen, now, age=age)
        for file in swept.deleted:
            table.io.delete(file)
        return swept

    monkeypatch.setitem(globals(), "sweep_orphans", sweep)


def tags_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expire what is old, whoever has pinned it."""
    real = upkeep.expendable
    unpinned = partial(real, pinned=set())
    monkeypatch.setattr(
        upkeep, "expendable", lambda some, *, keep, pinned: unpinned(some, keep=keep)
    )
    tags_of_the_load(monkeypatch)


def tags_of_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the tags before, and do not require that there are none when the commit is made."""
    monkeypatch.setattr(AssertUnreferenced, "validate", lambda _self, _metadata: None)


@pytest.mark.parametrize("mutant", [metadata_first, tags_ignored, tags_of_the_load])
def test_upkeep_that_deletes_what_somebody_needs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Mutants: without them nobody knows that the test above could fail."""
    mutant(monkeypatch)

    found = World(tmp_path).live(looking=True)

    assert any("gone" in one or "cannot be read" in one for one in found), found


@pytest.mark.parametrize(
    ("steps", "days", "told"),
    [
        (("drop", "sweep", "compact", "expire"), 1, "left over"),
        (("drop", "compact", "expire"), 1, "left over"),
        (("drop", "compact", "sweep"), 1, "snapshots"),
        (("drop", "expire", "sweep"), 1, "small files"),
        (("compact", "expire", "sweep"), 2, "old days"),
    ],
    ids=["sweep before expiry", "no sweep", "no expiry", "no compaction", "no drop"],
)
def test_upkeep_that_leaves_something_behind_is_found(
    tmp_path: Path, steps: tuple[str, ...], days: int, told: str
) -> None:
    """Mutants: what expiry lets go of is for a sweep that comes after it, and each step counts."""
    found = World(tmp_path, days=days, steps=steps).live()

    assert any(told in one for one in found), found
