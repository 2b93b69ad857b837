"""Files merged by another engine: what is asked of it comes to an end, and the table decides."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON
from lakes import (
    MAIN,
    Tampered,
    append,
    everywhere,
    landing,
    log_of,
    mark_of,
    new_lake,
    numbered,
    offsets,
)
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from lakehouse import Lake
from lakehouse.commit import write_days
from lakehouse.optimize import (
    ATTEMPTS,
    STATEMENT,
    Due,
    Ended,
    Share,
    days_due,
    days_late,
    late_files,
    open_merger,
    optimize,
    shares,
    shares_of,
)
from lakehouse.sql.trino_merging import only_commits, properties_of, statement_of
from lakehouse.tables import HOLD, held_back
from lakehouse.upkeep import DAY, HOUR, Candidate, Compacted, _Rewriting
from penstock.buffer.memory import MemoryLog
from penstock.errors import BadSetting, EngineUnavailable

MB = 1 << 20
MINUTE = 60_000_000

# --- What is asked -------------------------------------------------------------------------------


def file(size: int = MB, *, day: int = 1, at: int = 0, newest: int = 0) -> Candidate:
    return Candidate(f"{day}-{at}", day, size, (0, at), rows=size // 1_000, newest=newest)


def due(*files: tuple[int, Candidate], now: int = 30 * DAY) -> list[Due]:
    return days_due(shares(files), now=now, below=4 * MB, target=10 * MB)


def test_a_day_is_asked_for_up_to_its_largest_file_that_is_worth_it() -> None:
    """Asked for all that is small, it would write the rows of the morning all day long."""
    ones = [(n, file(at=n)) for n in range(3)]

    assert due() == []
    assert due(*ones[:1]) == []
    assert due(*ones) == [Due(1, MB, 3)]
    assert due(*ones, (9, file(3 * MB + 1, at=9))) == [Due(1, 3 * MB + 1, 4)]
    tenths = [(n, file(MB // 10, at=n)) for n in range(3)]
    assert due(*tenths, (9, file(3 * MB, at=9))) == [Due(1, MB // 10, 3)]
    assert due(*ones, (9, file(4 * MB, at=9))) == [Due(1, MB, 3)]
    assert due(*ones[:2], *((n, file(day=2, at=n)) for n in range(4))) == [
        Due(2, MB, 4),
        Due(1, MB, 2),
    ]
    assert due(*ones, *((5 + n, file(MB // 4, at=5 + n)) for n in range(2)), now=DAY) == []
    assert due(*((n, file(at=n)) for n in range(5)), now=DAY) == [Due(1, MB, 5)]


def test_what_a_snapshot_added_counts_as_one_file() -> None:
    """An engine with four writers leaves four files: merged once more they would be four again."""
    mine = [(7, file(at=n)) for n in range(3)]

    assert due(*mine) == []
    assert due(*mine, (8, file(3 * MB, at=9))) == [Due(1, 3 * MB, 4)]
    assert due(*((7, file(2 * MB, at=n)) for n in range(3))) == []
    assert [share.files for share in shares([*mine, (7, file(day=2)), (8, file())])] == [3, 1, 1]


def test_a_day_is_late_when_it_was_due_an_hour_ago() -> None:
    """What landed in the last two hours is no reason to call somebody."""
    known = shares((n, file(at=n, newest=3 * DAY)) for n in range(2))

    def late(now: int) -> list[Due]:
        return days_late(known, now=now, below=4 * MB, target=10 * MB)

    assert late(3 * DAY + HOUR) == []
    assert late(3 * DAY + 2 * HOUR) == [Due(1, MB, 2)]


class Day:
    """Files while a day of commits comes in; each merging leaves so many files as `writers`."""

    def __init__(self, *, row: int, writers: int, apart: bool = False) -> None:
        self.row, self.writers, self.apart = row, writers, apart
        self.target = 128 * MB
        self.files: list[tuple[int, Candidate]] = []
        self.rewritten = self.landed = self.asked = 0
        self.snapshots = itertools.count()

    def written(self, at: int, rows: int, newest: int, day: int) -> Candidate:
        size = 10_000 + rows * self.row
        return Candidate(f"{at}+{rows}", day, size, (0, at), rows=rows, newest=newest)

    def land(self, now: int, rows: int) -> None:
        written = self.written(self.landed, rows, now, now // DAY)
        self.files.append((next(self.snapshots), written))
        self.landed += rows

    def shares(self) -> list[Share]:
        """Answer what there is; the mutant takes each file for itself."""
        if self.apart:
            return shares((n, one) for n, (_, one) in enumerate(self.files))
        return shares(self.files)

    def tend(self, now: int) -> None:
        over: set[int] = set()
        while True:
            found = days_due(self.shares(), now=now, below=self.target, target=self.target)
            found = [one for one in found if one.day not in over]
            if not found:
                return
            (one, *_) = found
            over.add(one.day)
            self.merge(one)

    def merge(self, asked: Due) -> None:
        taken = [
            both
            for both in self.files
            if both[1].day == asked.day and both[1].bytes <= asked.largest
        ]
        assert len(taken) > 1
        rows = sum(one.rows for _, one in taken)
        newest = max(one.newest for _, one in taken)
        parts = max(self.writers, -(-rows * self.row // self.target))
        cuts = [rows * n // parts for n in range(parts + 1)]
        at = min(one.first[1] for _, one in taken)
        snapshot = next(self.snapshots)
        self.files = [both for both in self.files if both not in taken] + [
            (snapshot, self.written(at + start, end - start, newest, asked.day))
            for start, end in itertools.pairwise(cuts)
            if end > start
        ]
        self.rewritten += rows
        self.asked += 1


def lived(day: Day, *, rows: int) -> Day:
    """Let 26 hours of commits go by."""
    for minute in range(26 * 60):
        now = 20 * DAY + minute * MINUTE
        day.land(now, rows)
        if minute % 10 == 9:
            day.tend(now)
    assert sum(one.rows for _, one in day.files) == day.landed
    return day


@pytest.mark.parametrize(
    ("row", "rows", "writers", "amplification", "small"),
    [
        (100, 1, 1, 4.0, 1),
        (1_000, 20, 1, 4.0, 1),
        (1_000, 20, 4, 4.0, 4),
        (1_000, 2_000, 1, 1.8, 0),
        (1_000, 20_000, 1, 1.0, 0),
    ],
    ids=["a trickle", "slow", "slow, by four writers", "busy", "full"],
)
def test_what_is_asked_writes_no_row_again_and_again(
    row: int, rows: int, writers: int, amplification: float, small: int
) -> None:
    """Asked at each upkeep for all that is small, it would write each row 70 times."""
    day = lived(Day(row=row, writers=writers), rows=rows)

    yesterday = [one for _, one in day.files if one.day == 20]
    assert round(day.rewritten / day.landed, 1) == amplification
    assert sum(one.bytes < day.target // 2 for one in yesterday) == small
    assert late(day, 21 * DAY + 2 * HOUR) == []


def late(day: Day, now: int) -> list[Due]:
    return days_late(day.shares(), now=now, below=day.target, target=day.target)


def test_files_taken_for_themselves_are_written_again_and_again() -> None:
    """The mutant: four files of one statement are four files to merge, at each upkeep anew."""
    day = lived(Day(row=1_000, writers=4, apart=True), rows=20)

    assert day.rewritten > 6 * day.landed


def test_the_statement_names_a_day_and_the_largest_file() -> None:
    """A day is a partition: of a part of one Trino would not know which files to rewrite."""
    assert statement_of(('main"x', "shop"), Due(20_000, 1_234, 3)) == (
        """ALTER TABLE "main""x"."shop" EXECUTE optimize(file_size_threshold => '1235B')"""
        " WHERE received_at >= TIMESTAMP '2024-10-04 00:00:00 UTC'"
        " AND received_at < TIMESTAMP '2024-10-05 00:00:00 UTC'"
    )
    assert properties_of("lake", target=MB)["lake.target_max_file_size"] == "1048576B"


# --- What becomes of it --------------------------------------------------------------------------


@dataclass
class StandIn:
    """An engine that merges by itself, or does what `scene` says of a statement by its number."""

    lake: Lake
    scene: Callable[[int], Ended | None] = lambda _number: None
    lost: bool = False
    asked: list[tuple[tuple[str, ...], Due]] = field(default_factory=list)
    waited: list[bool] = field(default_factory=list)
    held_back: list[bool] = field(default_factory=list)

    def held(self) -> bool:
        """Say whether landing waits now."""
        return held_back(loaded(self.lake).metadata, lambda: NOON)

    def merge(
        self, name: tuple[str, ...], due: Due, *, target: int, committing: Callable[[], None]
    ) -> Ended:
        """Rewrite the day's files up to the size in one snapshot, which bears the statement."""
        self.asked.append((name, due))
        number = len(self.asked)
        self.waited.append(self.held())
        committing()
        self.held_back.append(self.held())
        table = loaded(self.lake)
        ended = self.scene(number)
        if ended is not None:
            return ended
        tasks = [
            task for task in table.scan().plan_files()
            if task.file.partition[0] == due.day and task.file.file_size_in_bytes <= due.largest
        ]  # fmt: skip
        assert len(tasks) == len(list(table.scan().plan_files())), "of one day, all small"
        rows = table.scan().to_arrow()
        files = write_days(table, table.metadata.schema(), rows, name=f"other-{number}", dense=True)
        rewriting = _Rewriting(table)
        overwrite = rewriting.update_snapshot({STATEMENT: f"q{number}"}).overwrite()
        for task in tasks:
            overwrite.delete_data_file(task.file)
        for written in files:
            overwrite.append_data_file(written)
        overwrite.commit()
        rewriting.commit_transaction()
        if self.lost:
            raise EngineUnavailable("Trino cannot be reached now")
        return Ended(f"q{number}")

    def check(self, name: tuple[str, ...] | None) -> None:
        """Let everybody do it."""


def filled(folder: Path, count: int = 6) -> tuple[Lake, MemoryLog]:
    lake, log = new_lake(folder), log_of()
    work = landing(log, lake)
    for number in range(count):
        append(log, *numbered(2, 2 * number))
        work.land_once(FLIGHTS)
    return lake, log


def run(
    lake: Lake, merger: StandIn, clock: Callable[[], int] = lambda: NOON + 2 * DAY
) -> Compacted:
    return optimize(lake, MAIN, merger, below=MB, target=4 * MB, clock=clock)


def loaded(lake: Lake) -> Table:
    table = lake.table(MAIN)
    assert table is not None
    return table


def rows_of(lake: Lake, snapshot: int | None = None) -> str:
    rows = loaded(lake).scan(snapshot_id=snapshot).to_arrow().sort_by("log_offset")
    return json.dumps(rows.to_pylist(), default=repr, sort_keys=True)


def test_small_files_become_one_and_everything_else_stays(tmp_path: Path) -> None:
    """Rows, marks, a pin and what it shows; and then there is nothing left to ask."""
    lake, log = filled(tmp_path)
    pinned = loaded(lake).metadata.snapshots[2].snapshot_id
    lake.pin(FLIGHTS, pinned, "replay-1")
    before = rows_of(lake), rows_of(lake, pinned), mark_of(lake)
    merger = StandIn(lake)

    done = run(lake, merger)

    assert done == Compacted(read=6, written=1)
    assert done.bytes > 0
    assert (rows_of(lake), rows_of(lake, pinned), mark_of(lake)) == before
    assert lake.pins(FLIGHTS) == {"replay-1": pinned}
    assert run(lake, merger) == Compacted()
    assert len(merger.asked) == 1
    append(log, *numbered(1, 12))
    landing(log, lake).land_once(FLIGHTS)
    assert offsets(lake) == list(range(13))


def test_whoever_writes_is_asked_for_the_order_of_the_log_once(tmp_path: Path) -> None:
    """Replays read neighbours at once; and a table that says it already is not changed again."""
    lake, _ = filled(tmp_path)
    run(lake, StandIn(lake))
    run(lake, StandIn(lake))

    metadata = loaded(lake).metadata
    names = [
        metadata.schema().find_column_name(one.source_id) for one in metadata.sort_order().fields
    ]
    assert names == ["log_partition", "log_offset"]
    assert len(metadata.sort_orders) == 2


def test_an_answer_that_got_lost_is_looked_up_in_the_table(tmp_path: Path) -> None:
    """It happened: asked again, the engine has nothing to do."""
    lake, _ = filled(tmp_path)
    merger = StandIn(lake, lost=True)

    done = run(lake, merger)

    assert (done.trouble, done.away) == ("Trino cannot be reached now", True)
    assert len(list(loaded(lake).scan().plan_files())) == 1
    assert run(lake, merger) == Compacted()
    assert everywhere(lake) == dict.fromkeys(range(12), 1)


def overtaken(times: int) -> Callable[[int], Ended | None]:
    """Answer a scene in which landing is faster so many times."""
    return lambda number: (
        Ended(f"q{number}", "ICEBERG_COMMIT_ERROR", conflict=True) if number <= times else None
    )


def test_who_is_overtaken_is_asked_again_and_landing_waits_for_the_commit(tmp_path: Path) -> None:
    """Not while files are read and written, and the hold is taken back as soon as it is over."""
    lake, _ = filled(tmp_path)
    merger = StandIn(lake, overtaken(ATTEMPTS - 1))
    done = optimize(lake, MAIN, merger, below=MB, target=4 * MB, clock=lambda: NOON)

    assert done == Compacted(read=6, written=1)
    assert merger.waited == [False, False, False]
    assert merger.held_back == [False, True, True]
    assert HOLD not in loaded(lake).metadata.properties


def test_who_is_overtaken_too_often_leaves_it_to_the_next_upkeep(tmp_path: Path) -> None:
    """Otherwise one collection would have it all to itself."""
    lake, _ = filled(tmp_path)
    merger = StandIn(lake, overtaken(ATTEMPTS))

    assert run(lake, merger) == Compacted(given_up=1)
    assert len(merger.asked) == ATTEMPTS
    assert HOLD not in loaded(lake).metadata.properties
    assert late_files(loaded(lake), NOON + 2 * DAY, below=MB, target=4 * MB) == 6
    assert run(lake, merger) == Compacted(read=6, written=1)


def test_a_hold_is_asked_for_again_where_landing_is_faster_than_it_too(tmp_path: Path) -> None:
    """It is a commit as well: whoever merges lost for the very reason that would fail it."""
    filled(tmp_path)
    holds = itertools.count(1)

    class Overtaken(Tampered):
        def commit_table(self, table: Table, requirements: Any, updates: Any) -> Any:
            if any(HOLD in getattr(update, "updates", {}) for update in updates) and (
                next(holds) < 3
            ):
                raise CommitFailedException("somebody was faster")
            return super().commit_table(table, requirements, updates)

    lake = new_lake(tmp_path, Overtaken)
    merger = StandIn(lake, overtaken(1))

    assert optimize(lake, MAIN, merger, below=MB, target=4 * MB, clock=lambda: NOON) == Compacted(
        read=6, written=1
    )
    assert merger.held_back == [False, True]
    assert next(holds) == 4
    assert HOLD not in loaded(lake).metadata.properties


def stages(first: str, *others: str) -> dict[str, Any]:
    """Answer what Trino says of a statement with these states of its stages, one below another."""
    below: list[dict[str, Any]] = []
    for state in reversed(others):
        below = [{"state": state, "subStages": below}]
    return {"state": "RUNNING", "rootStage": {"state": first, "subStages": below}}


def test_a_statement_commits_when_the_stages_that_write_are_finished() -> None:
    """Held back before, landing would wait for minutes; after, for nothing."""
    assert only_commits(stages("RUNNING", "FINISHED", "FINISHED"))
    assert not only_commits({"state": "QUEUED"})
    assert not only_commits({"state": "QUEUED", "rootStage": None})
    assert not only_commits(stages("RUNNING"))
    assert not only_commits(stages("RUNNING", "PLANNED", "PLANNED"))
    assert not only_commits(stages("RUNNING", "FINISHED", "RUNNING"))
    assert not only_commits(stages("RUNNING", "FLUSHING", "FINISHED"))
    assert not only_commits(stages("FINISHED", "FINISHED", "FINISHED"))
    assert not only_commits(stages("FAILED", "ABORTED", "FINISHED"))


def test_what_the_engine_refuses_is_told_and_not_asked_again(tmp_path: Path) -> None:
    """It may not do it, say: a hundred statements later it still may not."""
    lake, _ = filled(tmp_path)
    merger = StandIn(lake, lambda number: Ended(f"q{number}", "PERMISSION_DENIED"))

    done = run(lake, merger)

    assert (done.given_up, done.trouble, done.away) == (1, "main.flights: PERMISSION_DENIED", False)
    assert len(merger.asked) == 1


def test_nothing_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    """A day may take an hour."""
    lake, _ = filled(tmp_path)
    merger = StandIn(lake)

    done = optimize(
        lake, MAIN, merger, below=MB, target=4 * MB, clock=lambda: NOON, until=lambda: True
    )

    assert (done.more, merger.asked) == (True, [])


def test_shares_tell_files_by_their_snapshots(tmp_path: Path) -> None:
    """Manifests know which snapshot added a file, whoever merged the manifests since."""
    lake, _ = filled(tmp_path, 3)

    assert [(share.files, share.all.rows) for share in shares_of(loaded(lake))] == [(1, 2)] * 3


def test_settings_that_no_engine_can_follow_are_refused() -> None:
    """At the start, and without what is secret in them."""
    files, elsewhere = "sqlite:////tmp/catalog.db", "postgresql://db/lake"

    assert open_merger("", catalog_url=files) is None
    assert open_merger("trino://me@host/lake", catalog_url=elsewhere) is not None
    for url, catalog in (
        ("spark://me@host/lake", elsewhere),
        ("trino://me@host/lake", files),
        ("trino://me:hunter2@host/lake", elsewhere),
    ):
        with pytest.raises(BadSetting, match="compact_url") as refusal:
            open_merger(url, catalog_url=catalog)
        assert "hunter2" not in str(refusal.value)
    with pytest.raises(BadSetting, match="compact_password"):
        open_merger("trino+https://me@h/lake", catalog_url=elsewhere, password="a", token="b")
