"""Whatever happens to a collection, each accepted event is in its books once, also what expired."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from balance import Place, Row, Sent, look
from builders import FLIGHTS, NOON, event
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import BROKEN, MAIN, QUARANTINE, batch_of, landing, new_lake
from pyiceberg.table.metadata import TableMetadata

from assets.accounting import read_books
from assets.checks import check_books, check_conservation
from assets.rebuild import rebuild
from assets.remedies import choices_for
from assets.resolve import find_stop, prepare, resolve, unexplained
from assets.retention import first_kept, retain
from lakehouse import Lake, retention, tables
from lakehouse.catalog import closed_table
from lakehouse.closings import Closing, close
from lakehouse.commit import _quarantine_first
from lakehouse.duplicates import Duplicates
from lakehouse.tables import Drop, Expired, drops_of
from lakehouse.upkeep import compact, expire
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Mark
from penstock.quarantine.release import Origin, Release, marked
from penstock.schema.convert import Rules

DAY = 86_400_000_000
HOUR = 3_600_000_000
TODAY = NOON // DAY
PLACES = ("log_id", "log_partition", "log_offset")

Step = tuple[str, Any]


class Forgetful:
    """Statistics that nobody asks."""

    def forget_before(self, _collection: object, _before: int) -> None:
        return


@dataclass
class World:
    """A lake and its log, and which positions retention has to have dropped by now."""

    folder: Path
    lake: Lake = field(init=False)
    log: MemoryLog = field(default_factory=MemoryLog)
    sent: Sent = field(default_factory=Sent)
    gone: set[Place] = field(default_factory=set)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    names: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.lake = new_lake(self.folder)
        self.lake.create(FLIGHTS)

    # What happens

    def land(self, events: Sequence[tuple[int, str]]) -> None:
        """Accept events received so many days ago, and land."""
        for ago, kind in events:
            number = next(self.numbers)
            payload: Any = BROKEN if kind == "broken" else f'{{"n": {number}}}'
            made = event(payload, id=f"e{number}", received_at=NOON - ago * DAY)
            if kind == "repeat":
                made = event("{}", id="again", received_at=NOON - ago * DAY, named=True)
            self.accept(made, number)
        self.land_all()

    def accept(self, made: Any, number: int) -> None:
        self.sent.tries[number] += 1
        (position,) = self.log.append(FLIGHTS, [made]).result()
        self.sent.kept.append((number, (position.partition, position.offset)))  # type: ignore[union-attr]

    def land_all(self) -> None:
        work = landing(self.log, self.lake, duplicates=Duplicates(window=30 * DAY))
        while work.land_once(FLIGHTS):
            pass

    def drop(self, keep: int) -> None:
        """Drop what is older, and know which positions that has to be."""
        kept = first_kept(keep, NOON)
        for name in (MAIN, QUARANTINE):
            self.gone |= {place for place, day, _ in self.read(name) if day < kept}
        retain(
            self.lake,
            FLIGHTS,
            keep_days=keep,
            now=NOON,
            unindex=lambda _before: None,
            stats=Forgetful,  # type: ignore[arg-type]  # a stand-in
        )

    def close(self, origin: Origin, day: int) -> None:
        """Say that somebody discarded the event of that place and day."""
        closing = Closing(
            origin=origin,
            event_id="e",
            received_at=day * DAY,
            state="discarded",
            closed_at=NOON,
            closed_by="ann",
        )
        close(self.lake, FLIGHTS, [closing])

    def discard(self, which: int) -> None:
        for origin, day in self.open()[which : which + 1]:
            self.close(origin, day)

    def release(self, which: int) -> None:
        """Send a quarantined event to the log again, as two commands at once would: twice."""
        for origin, day in self.open()[which : which + 1]:
            for _ in range(2):
                number = next(self.numbers)
                release = Release("r", origin, "ann", day * DAY, 2)
                self.accept(event("{}", id=f"e{number}", metadata=marked({}, release)), number)
        self.land_all()

    def lose(self, count: int) -> None:
        """Let the log let go of what has not landed, and have somebody say so."""
        for _ in range(count + 1):
            self.accept(event("{}"), next(self.numbers))
        upto = self.log.extents(FLIGHTS)[0].end - 1
        self.log.release(FLIGHTS, [Mark(self.log.log_id(FLIGHTS), 0, upto, "")])
        self.log.trim(0)
        self.log.trim(HOUR)
        self.settle()
        self.land_all()

    def merge(self, _: int) -> None:
        for name in (MAIN, QUARANTINE):
            compact(self.lake, name, new_name=lambda: f"merged-{next(self.names)}", fewest=2)

    def forget(self, _: int) -> None:
        for name in (MAIN, QUARANTINE):
            expire(self.lake, name, keep=2)

    def rebuild(self, _: int) -> None:
        rebuild(self.lake, FLIGHTS, rules=Rules(), clock=lambda: NOON, chance=os.urandom)

    def roll_back(self, _: int) -> None:
        """Set the table back by a snapshot, have somebody say so, and land again."""
        table = self.lake.table(MAIN)
        assert table is not None
        current = table.current_snapshot()
        parents = {s.snapshot_id for s in table.metadata.snapshots}
        if current is None or current.parent_snapshot_id not in parents:
            return
        table.manage_snapshots().rollback_to_snapshot(current.parent_snapshot_id).commit()
        self.settle()
        self.land_all()
        # Rows that are back have not expired; what is gone again has.
        there = {place for name in (MAIN, QUARANTINE) for place, _, _ in self.read(name)}
        self.gone -= there | self.lost()

    def settle(self) -> None:
        while (stop := find_stop(self.log, self.lake, FLIGHTS)) is not None:
            by = choices_for(stop)[0]
            agreed = prepare(self.log, self.lake, FLIGHTS, by)
            resolve(self.log, self.lake, agreed, done=lambda _: None)

    # What is there

    def read(self, name: tuple[str, ...]) -> list[tuple[Place, int, bool]]:
        """Answer position and day of each row, and whether it repeats another."""
        table = self.lake.table(name)
        rows = table.scan().to_arrow().to_pylist() if table is not None else []
        return [
            (
                Place(*(row[column] for column in PLACES)),
                int(row["received_at"].timestamp()) // 86_400,
                row.get("duplicate_of") is not None,
            )
            for row in rows
        ]

    def lost(self) -> set[Place]:
        view = self.lake.view(FLIGHTS)
        gaps = view.lost if view is not None else ()
        return {Place(gap.log_id, 0, n) for gap in gaps for n in range(gap.start, gap.end)}

    def open(self) -> list[tuple[Origin, int]]:
        shut = {place for place, _, _ in self.read(closed_table(FLIGHTS))}
        aside = sorted(self.read(QUARANTINE))
        return [(Origin(*place), day) for place, day, _ in aside if place not in shut]

    def faults(self) -> list[str]:
        """Answer what is wrong, by counting position for position."""
        view = self.lake.view(FLIGHTS)
        assert view is not None
        log_id, lost = self.log.log_id(FLIGHTS), self.lost()
        numbers = {Place(log_id, *at): number for number, at in self.sent.kept}
        rows, aside = self.read(MAIN), self.read(QUARANTINE)
        there = [Row(place, numbers[place]) for place, _, _ in rows + aside]
        ends = {0: view.mark(log_id, 0).next}
        found = [*look(self.sent, log_id, ends, there, gone=self.gone | lost).said]
        books = read_books(self.log, self.lake, FLIGHTS)
        repeats = sum(repeats for _, _, repeats in rows)
        closed = len(self.read(closed_table(FLIGHTS)))
        told = {
            "landed": len(rows) - repeats,
            "duplicates": repeats,
            "quarantined": len(aside) - closed,
            "closed": closed,
            "waiting": 0,
            "expired": len(self.gone),
            "lost": len(lost),
            "carried": 0,
        }
        if books.parts != told:
            found.append(f"the books say {dict(books.parts)}, and there are {told}")
        held = Counter(place for place, _, _ in aside)
        stray = [place for place, _, _ in self.read(closed_table(FLIGHTS)) if not held[place]]
        if stray:
            found.append(f"closed and not in quarantine: {stray}")
        for verdict in (
            check_conservation(self.lake, FLIGHTS, log_id),
            check_books(self.log, self.lake, FLIGHTS, NOON, None),
        ):
            found += [] if verdict.passed else [verdict.sentence]
        return found


def first_fault(folder: Path, steps: Sequence[Step]) -> list[str]:
    """Answer what is wrong after the first step after which something is."""
    world = World(folder)
    for number, (what, how) in enumerate(steps):
        getattr(world, what)(how)
        found = world.faults()
        if found:
            return [f"after step {number}, {what} {how}", *found]
    return []


EVERYTHING: Sequence[Step] = (
    ("land", [(6, "good"), (6, "broken"), (5, "repeat"), (5, "broken"), (4, "broken")]),
    ("land", [(3, "repeat"), (2, "broken"), (1, "good"), (0, "repeat")]),
    ("discard", 0),
    ("release", 1),
    ("drop", 4),
    ("lose", 2),
    ("merge", 0),
    ("land", [(5, "good"), (5, "broken"), (0, "good")]),
    ("rebuild", 0),
    ("drop", 4),
    ("release", 0),
    ("forget", 0),
    ("roll_back", 0),
    ("land", [(2, "repeat"), (2, "broken")]),
    ("drop", 1),
    ("roll_back", 0),
    ("drop", 1),
    ("land", [(0, "good")]),
)

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("land"),
            st.lists(
                st.tuples(st.integers(0, 6), st.sampled_from(["good", "broken", "repeat"])),
                min_size=1,
                max_size=5,
            ),
        ),
        st.tuples(st.just("drop"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["discard", "release", "lose"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["merge", "forget", "rebuild", "roll_back"]), st.just(0)),
    ),
    min_size=2,
    max_size=7,
)


def test_everything_that_can_happen_keeps_the_books(tmp_path: Path) -> None:
    """One of each, in an order in which each meets what the others left."""
    assert first_fault(tmp_path, EVERYTHING) == []


@settings(max_examples=6, deadline=None)
@given(steps)
def test_in_any_order_it_keeps_the_books(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    """Landing, quarantine, release, discards, repeats, retention, losses, rebuild, rollback."""
    assert first_fault(tmp_path_factory.mktemp("books"), steps) == []


def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop days and say nothing of it."""
    monkeypatch.setattr(retention, "expired_properties", lambda *_: {})


def counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on counting a drop when the table was set back behind it."""

    def last(metadata: TableMetadata) -> dict[tuple[str, int], Expired]:
        return {place: drops[-1].all for place, drops in drops_of(metadata.properties).items()}

    monkeypatch.setattr(tables, "expired_of", last)
    monkeypatch.setattr(retention, "expired_of", last)


def repeats_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the rows, and not that some of them repeat others."""
    monkeypatch.setattr(retention, "_REPEATS", "nothing")


def kept_closings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what says how dropped events were closed."""
    monkeypatch.setattr("assets.retention._drop_closings", lambda *_: None)


@pytest.mark.parametrize("mutant", [uncounted, counted_for_ever, repeats_uncounted, kept_closings])
def test_retention_that_counts_otherwise_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Mutants: without them nobody knows that the tests above could fail."""
    mutant(monkeypatch)

    assert first_fault(tmp_path, EVERYTHING) != []


def test_a_day_that_went_uncounted_is_found_by_both_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what runs in every home; the count position by position is not."""
    uncounted(monkeypatch)
    world = World(tmp_path)
    world.land([(3, "good"), (3, "broken"), (0, "good")])
    world.lose(1)
    world.drop(1)

    positions = check_conservation(world.lake, FLIGHTS, world.log.log_id(FLIGHTS))
    books = check_books(world.log, world.lake, FLIGHTS, NOON, None)

    assert (positions.passed, positions.facts["missing"]) == (False, 2)
    assert (books.passed, books.facts["difference"]) == (False, 2)
    assert "2 too few" in books.sentence


def test_how_an_event_was_closed_stays_as_long_as_the_event(tmp_path: Path) -> None:
    """Without it the event looks open, and would be released a second time."""
    world = World(tmp_path)
    world.land([(3, "broken"), (3, "good")])
    world.discard(0)
    view = world.lake.view(FLIGHTS)
    assert view is not None
    # A landing that broke off: quarantine has one more of that day, and main is behind.
    world.accept(event(BROKEN, received_at=NOON - 3 * DAY), next(world.numbers))
    _quarantine_first(world.lake, batch_of(world.log, view), lambda: NOON)

    world.drop(1)
    assert len(world.read(QUARANTINE)) == 2
    assert len(world.read(closed_table(FLIGHTS))) == 1

    world.land_all()
    world.drop(1)
    assert world.read(QUARANTINE) == world.read(closed_table(FLIGHTS)) == []


def test_a_closing_that_came_after_its_day_had_gone_goes_too(tmp_path: Path) -> None:
    """Somebody discards what retention drops at that moment."""
    world = World(tmp_path)
    world.land([(3, "broken"), (0, "good")])
    [(origin, day)] = world.open()
    world.drop(1)
    world.close(origin, day)

    world.drop(1)

    assert world.read(closed_table(FLIGHTS)) == []


@given(st.sets(st.integers(0, 20)), st.integers(0, 21), st.data())
def test_of_missing_events_so_many_expired_and_no_more(
    missing: set[int], upto: int, data: st.DataObject
) -> None:
    """What is stated to be lost must not be counted as expired as well."""
    below = sum(n < upto for n in missing)
    rows = data.draw(st.integers(0, below))

    left = list(unexplained([(n, n + 1) for n in sorted(missing)], Expired(rows, upto)))

    assert sum(end - start for start, end in left) == len(missing) - rows
    stated = {n for start, end in left for n in range(start, end)}
    assert stated <= missing
    assert {n for n in missing if n >= upto} <= stated


def test_the_counts_of_drops_are_kept_while_a_table_may_be_set_back_to_them() -> None:
    """And no longer: they are in the metadata that every commit writes."""
    text = "3:1:4:0,7:2:9:1,12:5:9:1"

    [drops] = drops_of({"penstock.expired.log.1.0": text}).values()

    assert drops[1] == Drop(7, Expired(2, 9, 1))
    assert ",".join(map(str, drops)) == text
