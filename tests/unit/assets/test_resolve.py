"""Each stop, made to happen: landing stops and says the command, and goes on after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import given
from hypothesis import strategies as st
from lakes import (
    BROKEN,
    MAIN,
    QUARANTINE,
    Tampered,
    append,
    batch_of,
    everywhere,
    landing,
    log_of,
    mark_of,
    new_lake,
    numbered,
    offsets,
)
from pyiceberg.exceptions import CommitFailedException

from assets.accounting import read_books
from assets.checks import check_books, check_conservation, check_marks
from assets.landing import Trouble
from assets.remedies import CHOICES, MEANINGS, Choice, choices_for, command_for, explained
from assets.resolve import cut_off, find_stop, mark_after, missing, prepare, resolve
from lakehouse import Lake
from lakehouse.commit import _quarantine_first
from lakehouse.retention import drop_days
from lakehouse.tables import BOOKS, Gap, gap_properties, gaps_of
from penstock.buffer import Buffer
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId, Event, Mark
from penstock.errors import (
    EngineUnavailable,
    LogDamaged,
    LogReplaced,
    LogTruncated,
    NotFound,
    Stopped,
    TableReplaced,
    TableRolledBack,
    TableUnmarked,
    WrongState,
)

HOUR = 3_600_000_000
DAY = 24 * HOUR


# Deciding

runs = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda p: (p[0], sum(p))))


@given(runs, runs)
def test_a_partition_goes_on_behind_its_rows_and_what_was_given_up(
    rows: list[tuple[int, int]], gaps: list[tuple[int, int]]
) -> None:
    """A mark before a row doubles it; one behind a gap that is given up would not be reached."""
    upto = mark_after(rows, gaps)

    assert all(end <= upto for _, end in rows)
    assert not any(start <= upto < end for start, end in gaps)
    covered = {n for start, end in [*rows, *gaps] for n in range(start, end)}
    assert upto == 0 or upto - 1 in covered


@given(runs, st.integers(0, 20), st.integers(0, 10))
def test_what_is_cut_off_is_what_no_row_has(
    rows: list[tuple[int, int]], start: int, length: int
) -> None:
    """What quarantine has of a gap is not lost, and would be counted twice."""
    found = cut_off(rows, start, start + length)

    has = {n for first, end in rows for n in range(first, end)}
    lost = {n for first, end in found for n in range(first, end)}
    assert lost == set(range(start, start + length)) - has


def test_what_is_missing_is_told_as_runs() -> None:
    """They go into a property of the table: a number for each event would not."""
    assert missing([(0, 3), (7, 9)], 9, [(3, 5)]) == [(5, 7)]


gap_lists = st.lists(
    st.builds(
        lambda log, partition, start, length: Gap(f"log.{log}", partition, start, start + length),
        st.sampled_from("ab"),
        st.integers(0, 2),
        st.integers(0, 50),
        st.integers(1, 9),
    ),
    unique=True,
)


@given(gap_lists)
def test_gaps_are_read_as_they_were_written(gaps: list[Gap]) -> None:
    """They say for ever what was lost."""
    in_order = sorted(gaps, key=lambda gap: (gap.log_id, gap.partition, gap.start))

    read = gaps_of(gap_properties(in_order))

    assert sorted(read, key=str) == sorted(gaps, key=str)


def test_every_choice_is_explained_and_every_stop_has_one_or_none() -> None:
    """What is offered must exist; what exists must be told."""
    assert set(MEANINGS) == set(CHOICES)
    assert choices_for(LogDamaged("a frame is broken")) == ()
    assert command_for(FLIGHTS, LogDamaged("a frame is broken")) == "penstock log renew"
    others = CollectionId("rivals", "ships")
    assert command_for(others, LogTruncated("gone")) == (
        "penstock collection resolve rivals.ships --by loss"
    )
    assert explained(FLIGHTS, EngineUnavailable("away")) == "away"


# Making each happen


def settled(log: Buffer, lake: Lake, by: Choice, *, done: list[str] | None = None) -> None:
    """Resolve the stop, as the command does."""
    steps = [] if done is None else done
    resolve(log, lake, prepare(log, lake, FLIGHTS, by), done=steps.append)


def stopped(log: Buffer, lake: Lake, kind: type[Stopped], by: Choice) -> None:
    """Assert that landing stops with this, everywhere with the same command."""
    with pytest.raises(kind) as error:
        landing(log, lake).land_once(FLIGHTS)
    command = f"penstock collection resolve flights --by {by}"
    trouble = Trouble(collection=FLIGHTS, error=error.value, again_at=0)
    books = check_books(log, lake, FLIGHTS, NOON, None)
    assert command in trouble.reason
    assert not books.passed
    assert command in books.sentence
    assert type(find_stop(log, lake, FLIGHTS)) is kind


def sound(log: Buffer, lake: Lake) -> None:
    """Assert that landing goes on, to the end, and that the books add up then."""
    work = landing(log, lake)
    while work.land_once(FLIGHTS):
        pass
    for verdict in (
        check_books(log, lake, FLIGHTS, NOON, None),
        check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)),
        check_marks(log, lake, FLIGHTS),
    ):
        assert verdict.passed, verdict.sentence
    view, table = lake.view(FLIGHTS), lake.table(MAIN)
    assert view is not None
    assert table is not None
    repeats = table.scan("duplicate_of is not null", ("event_id",)).to_arrow().num_rows
    assert view.duplicates == repeats, "counted, and not looked for"
    assert find_stop(log, lake, FLIGHTS) is None


def landed(log: Buffer, lake: Lake) -> None:
    while landing(log, lake).land_once(FLIGHTS):
        pass


def repeated(count: int, *, at: int = 0) -> list[Event]:
    """Answer one event so many times."""
    return [event("{}", id="same", named=True, received_at=NOON + at) for _ in range(count)]


def roll_back(lake: Lake, name: Any = MAIN, *, to: int = 0) -> None:
    """Set a table back to one of its snapshots, as an engine would."""
    table = lake.table(name)
    assert table is not None
    snapshot = table.metadata.snapshots[to].snapshot_id
    table.manage_snapshots().rollback_to_snapshot(snapshot).commit()


def twice(folder: Path, *payloads: bytes | str) -> tuple[MemoryLog, Lake]:
    """Answer a log of which four events landed, then these in a second commit."""
    lake, log = new_lake(folder), log_of(*numbered(4))
    landed(log, lake)
    append(log, *payloads)
    landed(log, lake)
    return log, lake


class TestATableThatWasRolledBack:
    def test_its_marks_go_back_to_what_it_has_and_the_rest_lands_again(
        self, tmp_path: Path
    ) -> None:
        log, lake = twice(tmp_path, *numbered(3), BROKEN)
        roll_back(lake)
        append(log, *numbered(2))
        stopped(log, lake, TableRolledBack, "reset-marks")

        settled(log, lake, "reset-marks")

        assert mark_of(lake).next == 4
        assert log.released([FLIGHTS])[FLIGHTS] == {0: 4}, "the log keeps what has to land again"
        sound(log, lake)
        assert everywhere(lake) == Counter(range(10))
        assert offsets(lake, quarantine=True) == [7], "it was there all the time"

    def test_what_repeats_others_is_counted_once(self, tmp_path: Path) -> None:
        """The count is a property: the rollback took the rows away, and left that."""
        lake, log = new_lake(tmp_path), MemoryLog()
        for number in range(3):
            log.append(FLIGHTS, repeated(2, at=number))
            landed(log, lake)
        roll_back(lake)
        stopped(log, lake, TableRolledBack, "reset-marks")

        settled(log, lake, "reset-marks")

        view = lake.view(FLIGHTS)
        assert view is not None
        assert (view.rows, view.duplicates) == (2, 1)
        sound(log, lake)
        view = lake.view(FLIGHTS)
        assert view is not None
        assert (view.rows, view.duplicates) == (6, 5)

    def test_a_run_that_goes_on_meanwhile_lands_the_rest_without_a_new_event(
        self, tmp_path: Path
    ) -> None:
        """What the run knew of the marks is of before."""
        log, lake = twice(tmp_path, *numbered(3))
        looks = iter(range(1_000))
        troubles: list[object] = []
        work = landing(log, lake, clock=lambda: NOON + next(looks) * 60_000_000)
        steps = iter([lambda: roll_back(lake), lambda: append(log, *numbered(1))])

        def until() -> bool:
            step = next(steps, None)
            if step is not None:
                step()
            elif troubles == [True]:
                settled(log, lake, "reset-marks")
                troubles.append("settled")
            return sorted(everywhere(lake).elements()) == list(range(8))

        for outcome in work.drain(log.collections, until=until):
            if isinstance(outcome, Trouble) and not troubles:
                troubles.append(outcome.stopped)

        assert troubles == [True, "settled"]
        assert mark_of(lake).next == 8

    def test_the_rollback_is_undone_while_the_snapshot_is_kept(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, *numbered(3))
        roll_back(lake)
        append(log, *numbered(2))

        settled(log, lake, "undo-rollback")

        assert offsets(lake) == list(range(7))
        sound(log, lake)
        assert everywhere(lake) == Counter(range(9))

    def test_undoing_takes_nothing_away_that_was_written_since(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, *numbered(3))
        roll_back(lake)
        table = lake.table(MAIN)
        assert table is not None
        table.delete("log_offset = 0")

        with pytest.raises(WrongState, match="take it away"):
            prepare(log, lake, FLIGHTS, "undo-rollback")

    def test_undoing_says_when_it_is_too_late(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, *numbered(3))
        table = lake.table(MAIN)
        assert table is not None
        newest = table.metadata.current_snapshot_id
        roll_back(lake)
        table = lake.table(MAIN)
        assert table is not None
        assert newest is not None
        table.maintenance.expire_snapshots().by_id(newest).commit()

        with pytest.raises(WrongState, match="--by reset-marks"):
            prepare(log, lake, FLIGHTS, "undo-rollback")
        settled(log, lake, "reset-marks")
        sound(log, lake)
        assert everywhere(lake) == Counter(range(7))

    def test_a_quarantine_is_set_back_first_and_given_up_at_last(self, tmp_path: Path) -> None:
        """Its events lie between rows that are there: they cannot land again by themselves."""
        lake, log = new_lake(tmp_path), log_of(BROKEN, *numbered(2))
        landed(log, lake)
        append(log, BROKEN, *numbered(1))
        landed(log, lake)
        roll_back(lake, QUARANTINE)
        append(log, *numbered(1))
        append(log, BROKEN)
        stopped(log, lake, TableRolledBack, "undo-rollback")

        agreed = prepare(log, lake, FLIGHTS, "reset-marks")
        assert "1 events that the quarantine no longer has are lost" in agreed.says[0]
        resolve(log, lake, agreed, done=lambda _: None)

        sound(log, lake)
        books = read_books(log, lake, FLIGHTS)
        assert (books.parts["lost"], books.parts["quarantined"]) == (1, 2)
        assert everywhere(lake) == Counter([0, 1, 2, 4, 5, 6])

    def test_a_quarantine_that_was_rolled_back_comes_back_whole(self, tmp_path: Path) -> None:
        lake, log = new_lake(tmp_path), log_of(BROKEN, *numbered(2))
        landed(log, lake)
        append(log, BROKEN, *numbered(1))
        landed(log, lake)
        roll_back(lake, QUARANTINE)

        settled(log, lake, "undo-rollback")

        sound(log, lake)
        assert everywhere(lake) == Counter(range(5))

    def test_quarantine_that_is_ahead_of_a_table_rolled_back_keeps_what_it_has(
        self, tmp_path: Path
    ) -> None:
        """A landing broke off between its commits, and then the table was set back."""
        log, lake = twice(tmp_path, *numbered(2))
        append(log, BROKEN, *numbered(1))
        view = lake.view(FLIGHTS)
        assert view is not None
        _quarantine_first(lake, batch_of(log, view), lambda: NOON)
        roll_back(lake)

        settled(log, lake, "reset-marks")

        sound(log, lake)
        assert everywhere(lake) == Counter(range(8))


def dropped(lake: Lake) -> None:
    """Let retention drop what is not of today."""
    view = lake.view(FLIGHTS)
    assert view is not None
    drop_days(lake, MAIN, before=NOON // DAY)
    drop_days(lake, QUARANTINE, before=NOON // DAY, landed=view.marks)


def old(log: MemoryLog, *payloads: bytes | str) -> None:
    """Accept events of the day before yesterday."""
    for payload in payloads:
        log.append(FLIGHTS, [event(payload, received_at=NOON - 2 * DAY)])


def numbers_of(log: MemoryLog, lake: Lake) -> tuple[int, ...]:
    parts = read_books(log, lake, FLIGHTS).parts
    return tuple(parts[name] for name in ("landed", "quarantined", "expired", "lost"))


class TestAfterRetention:
    def test_marks_do_not_go_back_to_what_expired(self, tmp_path: Path) -> None:
        """The table has no row left of it, and yet it has landed."""
        lake, log = new_lake(tmp_path), log_of()
        old(log, BROKEN, *numbered(3))
        landed(log, lake)
        dropped(lake)
        append(log, *numbered(2))
        landed(log, lake)
        roll_back(lake, to=-2)

        settled(log, lake, "reset-marks")

        sound(log, lake)
        assert numbers_of(log, lake) == (2, 0, 4, 0)

    def test_a_drop_that_was_rolled_back_did_not_happen(self, tmp_path: Path) -> None:
        """Its rows are there again, and are counted once when they go."""
        lake, log = new_lake(tmp_path), log_of()
        old(log, *numbered(3))
        append(log, *numbered(1))
        landed(log, lake)
        dropped(lake)
        assert numbers_of(log, lake) == (1, 0, 3, 0)

        roll_back(lake, to=-2)

        assert find_stop(log, lake, FLIGHTS) is None
        assert numbers_of(log, lake) == (4, 0, 0, 0)
        sound(log, lake)
        append(log, *numbered(1))
        sound(log, lake)
        dropped(lake)
        assert numbers_of(log, lake) == (2, 0, 3, 0)
        sound(log, lake)

    def test_what_expired_of_quarantine_behind_the_mark_lands_again(self, tmp_path: Path) -> None:
        """Then it is a row, and must not be counted as expired beside that."""
        lake, log = new_lake(tmp_path), log_of()
        old(log, BROKEN, *numbered(1))
        landed(log, lake)
        old(log, BROKEN, *numbered(1))
        append(log, BROKEN)
        landed(log, lake)
        dropped(lake)
        assert numbers_of(log, lake) == (0, 1, 4, 0)
        roll_back(lake, to=1)

        agreed = prepare(log, lake, FLIGHTS, "reset-marks")
        steps: list[str] = []
        resolve(log, lake, agreed, done=steps.append)

        assert steps == ["quarantine", "table"]
        sound(log, lake)
        assert numbers_of(log, lake) == (3, 1, 1, 0)
        dropped(lake)
        assert numbers_of(log, lake) == (0, 1, 4, 0)
        sound(log, lake)

    def test_what_a_quarantine_lost_is_told_from_what_expired(self, tmp_path: Path) -> None:
        """Stated to be lost, it would be counted twice."""
        lake, log = new_lake(tmp_path), log_of()
        old(log, BROKEN, *numbered(2))
        append(log, BROKEN)
        landed(log, lake)
        dropped(lake)
        append(log, BROKEN, *numbered(1))
        landed(log, lake)
        roll_back(lake, QUARANTINE, to=-2)
        append(log, *numbered(1))
        stopped(log, lake, TableRolledBack, "undo-rollback")

        agreed = prepare(log, lake, FLIGHTS, "reset-marks")
        assert "1 events that the quarantine no longer has are lost" in agreed.says[0]
        resolve(log, lake, agreed, done=lambda _: None)

        sound(log, lake)
        assert numbers_of(log, lake) == (2, 1, 3, 1)


class TestALogThatIsAnotherOne:
    def test_it_is_landed_from_its_beginning_beside_the_old_one(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, *numbered(2), BROKEN)
        other = MemoryLog("00000000-0000-0000-0000-00000000000f")
        append(other, *numbered(3), BROKEN)
        stopped(other, lake, LogReplaced, "new-log")

        settled(other, lake, "new-log")

        sound(other, lake)
        books = read_books(other, lake, FLIGHTS)
        assert (books.accepted, books.parts["landed"], books.parts["quarantined"]) == (11, 9, 2)
        assert log.log_id(FLIGHTS) in {mark.log_id for mark in books.table.marks}  # type: ignore[union-attr]

    def test_events_that_come_while_somebody_decides_do_not_matter(self, tmp_path: Path) -> None:
        """Doors go on accepting: a plan that names how many would never hold."""
        _, lake = twice(tmp_path, *numbered(2))
        other = MemoryLog("00000000-0000-0000-0000-00000000000f")
        append(other, *numbered(3))
        agreed = prepare(other, lake, FLIGHTS, "new-log")
        append(other, *numbered(3))

        resolve(other, lake, agreed, done=lambda _: None)

        sound(other, lake)

    def test_what_a_table_loses_of_the_old_one_does_not_land_again(self, tmp_path: Path) -> None:
        """It was rolled back to before the new log: what is gone with the old one is told so."""
        log, lake = twice(tmp_path, *numbered(2), BROKEN)
        other = MemoryLog("00000000-0000-0000-0000-00000000000f")
        append(other, *numbered(3), BROKEN)
        settled(other, lake, "new-log")
        landed(other, lake)
        roll_back(lake)
        append(other, *numbered(1))
        stopped(other, lake, TableRolledBack, "reset-marks")

        agreed = prepare(other, lake, FLIGHTS, "reset-marks")
        resolve(other, lake, agreed, done=lambda _: None)

        again, lost = agreed.says
        assert f"0 of {other.log_id(FLIGHTS)} goes back from 4 to 0: 4 events land again" in again
        assert f"2 events of {log.log_id(FLIGHTS)} that the table no longer has are lost" in lost
        sound(other, lake)
        books = read_books(other, lake, FLIGHTS)
        assert (books.accepted, numbers_of(other, lake)) == (12, (8, 2, 0, 2))
        assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed

    def test_while_nobody_accepted_it_the_old_one_may_come_back(self, tmp_path: Path) -> None:
        """A setting may name the wrong log: what a table lost then is not lost yet."""
        log, lake = twice(tmp_path, *numbered(2), BROKEN)
        other = MemoryLog("00000000-0000-0000-0000-00000000000f")
        append(other, *numbered(3))
        roll_back(lake)

        settled(other, lake, "reset-marks")

        assert isinstance(find_stop(other, lake, FLIGHTS), LogReplaced)
        sound(log, lake)
        assert everywhere(lake) == Counter(range(7))


class TestALogThatLetGo:
    def cut(self, log: MemoryLog, upto: int) -> None:
        """Let go of what has not landed, as Kafka does by age."""
        log.release(FLIGHTS, [Mark(log.log_id(FLIGHTS), 0, upto, "")])
        log.trim(0)
        log.trim(HOUR)

    def test_what_is_gone_is_lost_in_the_books_for_ever(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, *numbered(2))
        append(log, *numbered(5))
        self.cut(log, 9)
        stopped(log, lake, LogTruncated, "loss")
        assert read_books(log, lake, FLIGHTS).difference == 3

        settled(log, lake, "loss")

        sound(log, lake)
        books = read_books(log, lake, FLIGHTS)
        assert (books.accepted, books.parts["landed"], books.parts["lost"]) == (11, 8, 3)
        assert books.partitions[0].lost == 3

        append(log, *numbered(4))
        self.cut(log, 13)
        settled(log, lake, "loss")
        sound(log, lake)
        assert read_books(log, lake, FLIGHTS).parts["lost"] == 5
        view = lake.view(FLIGHTS)
        assert view is not None
        assert [(gap.start, gap.end) for gap in view.lost] == [(6, 9), (11, 13)]

    def test_what_quarantine_has_of_it_is_not_lost(self, tmp_path: Path) -> None:
        """A landing broke off after its first commit, and did not come back in time."""
        log, lake = twice(tmp_path, *numbered(2))
        append(log, BROKEN, *numbered(2))
        view = lake.view(FLIGHTS)
        assert view is not None
        _quarantine_first(lake, batch_of(log, view), lambda: NOON)
        append(log, *numbered(1))
        self.cut(log, 9)

        settled(log, lake, "loss")

        sound(log, lake)
        books = read_books(log, lake, FLIGHTS)
        assert [books.parts[name] for name in ("landed", "quarantined", "lost")] == [7, 1, 2]

    def test_a_table_that_is_rolled_back_behind_a_loss_goes_on_behind_it(
        self, tmp_path: Path
    ) -> None:
        """Properties are not rolled back: what was lost stays lost, and is not waited for."""
        log, lake = twice(tmp_path, *numbered(2))
        append(log, *numbered(5))
        self.cut(log, 9)
        settled(log, lake, "loss")
        landed(log, lake)
        roll_back(lake, to=1)

        settled(log, lake, "reset-marks")

        assert mark_of(lake).next == 9
        sound(log, lake)
        assert everywhere(lake) == Counter([*range(6), 9, 10])


class TestAnotherTable:
    def copied(self, lake: Lake, where: str = "log_offset >= 0", name: Any = MAIN) -> None:
        """Make the table anew from its rows, as another engine would: its marks are lost."""
        table = lake.table(name)
        assert table is not None
        rows = table.scan(where).to_arrow()
        lake.catalog.drop_table(name)
        lake.catalog.create_table(name, table.schema()).append(rows)

    def test_a_copy_is_adopted_with_what_it_has(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, *numbered(2), BROKEN)
        log.append(FLIGHTS, repeated(3))
        landed(log, lake)
        self.copied(lake)
        append(log, *numbered(2))
        stopped(log, lake, TableUnmarked, "adopt-table")

        settled(log, lake, "adopt-table")

        sound(log, lake)
        assert everywhere(lake) == Counter(range(12))
        parts = read_books(log, lake, FLIGHTS).parts
        assert (parts["lost"], parts["duplicates"]) == (0, 2)
        table = lake.table(MAIN)
        assert table is not None
        assert table.properties["commit.manifest-merge.enabled"] == "true"

    def test_what_a_copy_lacks_is_stated_as_lost(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, *numbered(3))
        self.copied(lake, "log_offset <> 2")

        agreed = prepare(log, lake, FLIGHTS, "adopt-table")
        assert any("1 events before that are in neither table" in said for said in agreed.says)
        resolve(log, lake, agreed, done=lambda _: None)

        sound(log, lake)
        assert read_books(log, lake, FLIGHTS).parts["lost"] == 1

    def test_a_quarantine_that_was_copied_is_adopted_too(self, tmp_path: Path) -> None:
        log, lake = twice(tmp_path, BROKEN, *numbered(2))
        self.copied(lake, name=QUARANTINE)
        append(log, BROKEN)
        stopped(log, lake, TableUnmarked, "adopt-table")

        settled(log, lake, "adopt-table")

        sound(log, lake)
        assert everywhere(lake) == Counter(range(8))

    def test_a_run_goes_on_with_a_table_that_was_dropped_and_made_again(
        self, tmp_path: Path
    ) -> None:
        """The run knows which table it landed into, and will not land into another unasked."""
        log, lake = twice(tmp_path, *numbered(2))
        work = landing(log, lake)
        append(log, *numbered(1))
        assert work.land_once(FLIGHTS)
        for name in (MAIN, QUARANTINE):
            lake.catalog.drop_table(name)
        lake.create(FLIGHTS)
        with pytest.raises(TableReplaced) as error:
            work.land_once(FLIGHTS)
        assert "--by adopt-table" in explained(FLIGHTS, error.value)

        settled(log, lake, "adopt-table")

        while work.land_once(FLIGHTS):
            pass
        sound(log, lake)
        assert everywhere(lake) == Counter(range(7))

    def test_a_table_that_landing_did_not_make_is_refused(self, tmp_path: Path) -> None:
        import pyarrow as pa

        log, lake = twice(tmp_path, *numbered(2))
        lake.catalog.drop_table(MAIN)
        rows = pa.table({"n": pa.array([1, 2], pa.int64())})
        lake.catalog.create_table(MAIN, rows.schema).append(rows)

        with pytest.raises(WrongState, match="not made by landing"):
            prepare(log, lake, FLIGHTS, "adopt-table")


# Refusing, and being disturbed


def test_nothing_is_resolved_that_has_not_stopped(tmp_path: Path) -> None:
    """A command typed twice must do nothing the second time."""
    log, lake = twice(tmp_path, *numbered(2))

    for choice in ("new-log", "loss", "reset-marks", "undo-rollback"):
        with pytest.raises(WrongState, match="has not stopped"):
            prepare(log, lake, FLIGHTS, choice)
    with pytest.raises(NotFound):
        prepare(log, lake, CollectionId("main", "ships"), "loss")


def test_a_choice_for_another_stop_is_refused_with_the_one_that_fits(tmp_path: Path) -> None:
    """Adopting a table that was rolled back would double what lands again."""
    log, lake = twice(tmp_path, *numbered(2))
    roll_back(lake)

    with pytest.raises(WrongState, match="--by reset-marks or --by undo-rollback"):
        prepare(log, lake, FLIGHTS, "adopt-table")


def test_what_changed_since_it_was_agreed_to_is_not_done(tmp_path: Path) -> None:
    """The answer was to what was shown."""
    log, lake = twice(tmp_path, *numbered(5))
    append(log, *numbered(5))
    cut = TestALogThatLetGo()
    cut.cut(log, 11)
    agreed = prepare(log, lake, FLIGHTS, "loss")
    cut.cut(log, 13)

    with pytest.raises(WrongState, match="look at it again"):
        resolve(log, lake, agreed, done=lambda _: None)
    view = lake.view(FLIGHTS)
    assert view is not None
    assert view.lost == ()


def tampered(folder: Path, log: MemoryLog, **more: Callable[[int], None]) -> Lake:
    lake = new_lake(folder, lambda real: Tampered(real, **more))
    assert lake.view(FLIGHTS) is not None
    return lake


def test_a_commit_that_was_reported_as_failed_and_holds_is_done(tmp_path: Path) -> None:
    """Done again it would find nothing stopped, and say that it failed."""
    log, lake = twice(tmp_path, *numbered(3))
    roll_back(lake)

    def answer_gets_lost(_number: int) -> None:
        raise CommitFailedException("the answer got lost")

    told: list[str] = []
    settled(log, tampered(tmp_path, log, after=answer_gets_lost), "reset-marks", done=told)

    assert told == ["table"]
    sound(log, lake)
    assert everywhere(lake) == Counter(range(7))


def test_a_commit_that_meets_another_one_is_made_again_on_top_of_it(tmp_path: Path) -> None:
    """Upkeep works beside it, and must not make an operator type again."""
    log, lake = twice(tmp_path, *numbered(3))
    roll_back(lake)

    def somebody_first(number: int) -> None:
        if number == 1:
            table = lake.table(MAIN)
            assert table is not None
            table.manage_snapshots().create_tag(
                table.metadata.snapshots[0].snapshot_id, "t"
            ).commit()
            table = lake.table(MAIN)
            assert table is not None
            table.append(table.scan("log_offset < 0").to_arrow())

    settled(log, tampered(tmp_path, log, before=somebody_first), "reset-marks")

    sound(log, lake)
    assert everywhere(lake) == Counter(range(7))


def test_a_mark_that_is_set_without_a_fence_is_found(tmp_path: Path) -> None:
    """Mutant: properties alone are not checked against a landing that came first."""
    log, lake = twice(tmp_path, *numbered(3))
    roll_back(lake)
    agreed = prepare(log, lake, FLIGHTS, "reset-marks")
    (step,) = agreed.steps
    settled(log, lake, "reset-marks")
    landed(log, lake)

    table = lake.table(MAIN)
    assert table is not None
    with table.transaction() as change:
        change.set_properties(dict(step.properties))

    landing(log, lake).land_once(FLIGHTS)
    assert not check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
    assert not check_books(log, lake, FLIGHTS, NOON, None).passed


def test_what_tables_keep_beside_their_rows_is_read(tmp_path: Path) -> None:
    """Whoever takes rows away moves this number in the same commit."""
    log, lake = twice(tmp_path, *numbered(3))
    table = lake.table(MAIN)
    assert table is not None
    table.delete("log_offset = 2")
    table = lake.table(MAIN)
    assert table is not None
    with table.transaction() as change:
        change.set_properties({f"{BOOKS}expired": "1"})

    books = read_books(log, lake, FLIGHTS)

    assert (books.parts["expired"], books.difference) == (1, 0)
