"""Upkeep beside landing: rows stay, pins stay, and only what nobody needs is deleted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from builders import FLIGHTS, NOON, event
from lakes import (
    HASTY,
    MAIN,
    PLACES,
    Tampered,
    append,
    batch_of,
    column,
    lake_at,
    landing,
    log_of,
    mark_of,
    new_lake,
    numbered,
    offsets,
    put,
)
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import visitors

from lakehouse import Lake, TableView
from lakehouse.columns import arrow_schema
from lakehouse.commit import Staged
from lakehouse.files import Files
from lakehouse.parquet import read
from lakehouse.upkeep import (
    DAY,
    HOUR,
    ORPHAN_AGE,
    Candidate,
    Compacted,
    Condition,
    candidates,
    choose,
    compact,
    expendable,
    expire,
    look,
    sort_out,
    sweep_orphans,
    unused_schemas,
    weighed,
)
from penstock.buffer.memory import MemoryLog
from penstock.clock import machine_clock

MB = 1 << 20


@pytest.fixture(params=PLACES)
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Let the lake of each test be here and in the real engines."""
    with lake_at(request.param, tmp_path) as folder:
        yield folder


LONG_AGO = 30 * DAY
"""When the days of these tests, from the first of 1970 on, are over."""


def file(
    name: str, *, day: int = 1, size: int = MB, at: int = 0, memory: int = 0, newest: int = 0
) -> Candidate:
    return Candidate(name, day, size, (0, at), memory, rows=size // 1_000, newest=newest)


def named(groups: list[list[Candidate]]) -> list[str]:
    return ["".join(file.path for file in group) for group in groups]


def chosen(*files: Candidate, target: int = 10 * MB, now: int = LONG_AGO) -> list[str]:
    return named(choose(files, now=now, below=4 * MB, target=target))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (chosen(file("a", at=2), file("c", at=1), file("b", at=3)), ["cab"]),
        (chosen(file("a"), file("x", day=2), file("b"), file("y", day=2)), ["ab", "xy"]),
        (chosen(file("a"), file("b", size=4 * MB), file("c")), ["ac"]),
        (chosen(file("a", size=3 * MB), file("b", size=MB // 4)), []),
        (chosen(*(file(n, at=ord(n)) for n in "abcdef"), target=3 * MB), ["abc", "def"]),
        (chosen(*(file(n, at=ord(n)) for n in "abcd"), target=3 * MB), ["abc"]),
        (chosen(*(file(n, at=ord(n), memory=400 * MB) for n in "abcdef")), ["ab", "cd", "ef"]),
        (chosen(file("a", memory=600 * MB), file("b", memory=600 * MB)), []),
        (chosen(), []),
    ],
    ids=[
        "in log order",
        "by day",
        "small ones",
        "not worth it",
        "parts",
        "rest stays",
        "memory",
        "whole in memory",
        "nothing",
    ],
)
def test_small_files_of_a_day_are_merged(groups: list[str], expected: list[str]) -> None:
    """A file for every two seconds makes planning slower than reading."""
    assert groups == expected


def test_a_day_that_goes_on_waits_for_files_to_come() -> None:
    """Merged with each few that came, the rows of the morning were written all day long."""
    morning = file("m", size=3 * MB, at=0)
    others = [file(name, size=MB // 2, at=at) for at, name in enumerate("abcde", 1)]
    noon = DAY + 12 * HOUR

    assert chosen(morning, *others, now=noon) == ["abcde"]
    assert chosen(*others[:4], now=noon) == []
    assert chosen(morning, *others, *(file(n, size=MB // 2) for n in "fg"), now=noon) == [
        "fgmabcde"
    ]
    fresh = [replace(one, newest=noon - HOUR // 2) for one in (morning, *others)]
    assert chosen(*fresh, now=noon) == ["abcde"]
    assert chosen(*fresh[1:5], *others[4:], now=noon) == []
    assert chosen(morning, *others, now=2 * DAY + HOUR) == ["mabcde"]


def tidied(*files: Candidate, now: int = LONG_AGO, target: int = 10 * MB) -> list[str]:
    return named(choose(files, now=now, below=4 * MB, target=target, tidy=True))


WHOLE = (file("W", size=6 * MB, at=2), file("X", size=9 * MB, at=4))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (tidied(*WHOLE, file("a", at=9), file("b", size=MB // 9, at=1)), ["bXa"]),
        (tidied(*WHOLE, file("a", at=3)), ["Wa"]),
        (tidied(*WHOLE, file("a", at=1)), ["aW"]),
        (tidied(*WHOLE, file("a", at=3), file("b", at=5)), ["aXb"]),
        (tidied(*WHOLE, file("a", size=3 * MB, at=3), file("b", at=5)), ["ab"]),
        (tidied(file("W", size=9 * MB, memory=900 * MB), file("a", memory=200 * MB)), []),
        (tidied(file("W", size=11 * MB), file("a", at=1), file("b", size=MB // 9, at=2)), ["ab"]),
        (tidied(file("W", size=10 * MB), *(file(n, size=3 * MB) for n in "abcde")), ["abc", "de"]),
        (tidied(file("a", size=3 * MB, at=1), file("b", size=MB // 9, at=2)), ["ab"]),
        (tidied(file("W", size=9 * MB, day=2), file("a")), []),
        (tidied(*WHOLE, file("a", at=3), now=2 * DAY + HOUR - 1), []),
        (tidied(*WHOLE), []),
    ],
    ids=[
        "before it",
        "between",
        "after it",
        "two",
        "enough by itself",
        "memory",
        "too large already",
        "what fills a file does",
        "no whole one",
        "another day",
        "a day that goes on",
        "nothing left",
    ],
)
def test_of_a_day_that_is_over_nothing_small_is_left(
    groups: list[str], expected: list[str]
) -> None:
    """Rules by shares leave what is too little to be worth it, of each day one or two files."""
    assert groups == expected


class Day:
    """A collection's files while a day of commits of one row comes in, upkeep in between."""

    def __init__(
        self, *, row: int, target: int, rule: Callable[..., list[list[Candidate]]] = choose
    ) -> None:
        self.row, self.target, self.rule = row, target, rule
        self.files: list[Candidate] = []
        self.rewritten = self.landed = self.whole_rewritten = 0

    def land(self, now: int, *, rows: int) -> None:
        at = self.landed
        self.landed += rows
        self.files.append(self.written((0, at), rows, now, day=now // DAY))

    def written(self, first: tuple[int, int], rows: int, newest: int, *, day: int) -> Candidate:
        # A footer beside the rows, as real files have.
        size = 10_000 + rows * self.row
        return Candidate(f"{first[1]}+{rows}", day, size, first, rows=rows, newest=newest)

    def tend(self, now: int, **more: bool) -> None:
        tried: set[str] = set()
        while True:
            open_ = [one for one in self.files if one.path not in tried]
            groups = self.rule(open_, now=now, target=self.target, below=self.target, **more)
            if not groups:
                return
            (group, *_) = groups
            rows = sum(one.rows for one in group)
            merged = self.written(
                min(one.first for one in group),
                rows,
                max(one.newest for one in group),
                day=group[0].day,
            )
            tried.add(merged.path)
            gone = {one.path for one in group}
            self.files = [one for one in self.files if one.path not in gone] + [merged]
            self.rewritten += rows
            self.whole_rewritten += sum(2 * one.bytes >= self.target for one in group)


MINUTES = 60_000_000


@pytest.mark.parametrize(
    ("row", "rows", "amplification"),
    [(100, 1, 4.2), (1_000, 20, 4.2), (1_000, 2_000, 1.8), (1_000, 50_000, 1.0)],
    ids=["a trickle", "slow", "busy", "full"],
)
def test_compaction_ends_and_writes_no_row_again_and_again(
    row: int, rows: int, amplification: float
) -> None:
    """Each file that is merged with a few new ones at each upkeep is written 144 times a day."""
    day = Day(row=row, target=128 * MB)

    for minute in range(26 * 60):
        now = 20 * DAY + minute * MINUTES
        day.land(now, rows=rows)
        if minute % 10 == 9:
            day.tend(now)
        if minute % 60 == 59:
            of_day = [one for one in day.files if one.newest <= now - HOUR]
            small = [one for one in of_day if one.bytes < day.target // 2]
            assert len(small) <= 6

    yesterday = [one for one in day.files if one.day == 20]
    unfinished = [one for one in yesterday if one.bytes < day.target // 2]
    assert sum(one.rows for one in day.files) == day.landed
    assert len(unfinished) <= 2
    assert round(day.rewritten / day.landed, 1) == amplification
    assert not day.whole_rewritten
    assert max(one.bytes for one in day.files) <= day.target

    day.tend(22 * DAY, tidy=True)
    yesterday = [one for one in day.files if one.day == 20]
    assert len(yesterday) == 1 or min(one.bytes for one in yesterday) >= day.target // 2
    assert day.whole_rewritten <= 1
    assert max(one.bytes for one in day.files) <= 1.5 * day.target


def test_compaction_that_takes_what_is_there_writes_rows_again_and_again() -> None:
    """The mutant of the test before: what is small is merged, whatever it is merged with."""

    def eager(files: list[Candidate], *, below: int, **_: int) -> list[list[Candidate]]:
        small = [one for one in files if one.bytes < below]
        return [small] if len(small) > 1 else []

    day = Day(row=1_000, target=128 * MB, rule=eager)
    for minute in range(24 * 60):
        now = 20 * DAY + minute * MINUTES
        day.land(now, rows=20)
        if minute % 10 == 9:
            day.tend(now)

    assert day.rewritten > 30 * day.landed


def test_the_newest_snapshots_and_the_pinned_ones_stay() -> None:
    """A plan may be older than fifty landings."""
    snapshots = [(10 + sequence, sequence) for sequence in (1, 2, 3, 4, 5)]

    assert expendable(snapshots, keep=2, pinned={11, 15}) == [13, 12]
    assert expendable(snapshots, keep=9, pinned=set()) == []


def test_a_schema_id_is_never_given_again() -> None:
    """The newest schema stays although nothing uses it: the next id counts from it."""
    assert unused_schemas([0, 1, 2, 3], used={1}) == [0, 2]


def test_an_orphan_is_as_old_as_we_have_seen_it() -> None:
    """A file may be old and just have been let go, or be new and about to be committed."""
    first = sort_out(["a", "b", "c"], {"a"}, {}, 100, age=10)
    assert (first.deleted, first.seen) == ((), {"b": 100, "c": 100})

    # c was committed meanwhile, d is new.
    second = sort_out(["a", "b", "c", "d"], {"a", "c"}, first.seen, 109, age=10)
    assert (second.deleted, second.seen) == ((), {"b": 100, "d": 109})

    # c was let go again: its time starts anew.
    third = sort_out(["a", "b", "c", "d"], {"a"}, second.seen, 110, age=10)
    assert (third.deleted, third.seen) == (("b",), {"c": 110, "d": 109})


def namer() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"merged-{next(numbers)}"


def filled(folder: Path, *payloads: bytes | str) -> tuple[Lake, MemoryLog, TableView]:
    """Answer a lake in which each of these events landed for itself."""
    lake = new_lake(folder)
    log = log_of(*payloads)
    view = lake.create(FLIGHTS)
    for upto in range(1, len(payloads) + 1):
        view = put(lake, batch_of(log, view, upto=upto)).view
    return lake, log, view


def merge(lake: Lake, *, retries: int = 50) -> Compacted:
    return compact(lake, MAIN, below=MB, new_name=namer(), fewest=2, retries=retries)


def rows(lake: Lake, snapshot: int | None = None) -> list[dict[str, object]]:
    """Answer all rows as they are in the files: PyIceberg's reader makes null lists empty."""
    table = lake.table(MAIN)
    assert table is not None
    schema = arrow_schema(table.schema())
    found: list[dict[str, object]] = []
    for task in table.scan(snapshot_id=snapshot).plan_files():
        with table.io.new_input(task.file.file_path).open() as stream:
            found += read(stream, schema).to_pylist()
    return sorted(found, key=lambda row: cast("int", row["log_offset"]))


def test_compaction_changes_no_row(tmp_path: Path) -> None:
    """Columns that came later, nulls and empty lists: all stay what they were."""
    lake, _, view = filled(
        tmp_path, '{"a": 1}', '{"b": {"c": "x"}}', '{"l": []}', '{"l": [1, null]}', "[2]"
    )
    before = rows(lake)

    done = merge(lake)

    assert done == Compacted(read=5, written=1)
    assert rows(lake) == before
    after = lake.view(FLIGHTS)
    assert after is not None
    assert (after.files, after.rows, after.marks) == (1, 5, view.marks)
    assert not after.rolled_back
    assert merge(lake) == Compacted()


@pytest.mark.parametrize(
    "payload",
    [
        lambda n: f'{{"n": {n}, "text": "{"x" * 1_000_000}"}}',
        lambda n: "{" + ", ".join(f'"f{n}_{field}": 1' for field in range(200)) + "}",
        lambda n: f'{{"n": {n}, "l": [{", ".join(["{}"] * 50_000)}, {{"a": 1}}]}}',
    ],
    ids=["one text", "columns", "lists"],
)
def test_compaction_reads_no_more_than_memory_holds(
    tmp_path: Path, payload: Callable[[int], str]
) -> None:
    """Packed, the rows of a gigabyte are a file of a few kilobytes, and a day has thousands."""
    lake, _, _ = filled(tmp_path, *(payload(n) for n in range(4)))
    before = rows(lake)
    table = lake.table(MAIN)
    assert table is not None
    files = [task.file for task in table.scan().plan_files()]
    assert sum(file.file_size_in_bytes for file in files) < MB // 2
    memory: dict[str, int] = {}
    tasks = list(table.scan().plan_files())
    list(weighed(table, tasks, candidates(table, tasks), memory))
    most = max(memory.values())
    assert sum(memory.values()) > 2 * most

    kept = compact(lake, MAIN, below=MB, new_name=namer(), fewest=2, most_memory=most)
    merged = compact(lake, MAIN, below=MB, new_name=namer(), fewest=2, most_memory=4 * most)

    assert (kept.read, kept.written) == (0, 0)
    assert (merged.read, merged.written) == (4, 1)
    assert rows(lake) == before


def test_compaction_keeps_the_order_of_the_log(tmp_path: Path) -> None:
    """Replay reads in that order, and neighbours compress better."""
    lake, _, _ = filled(tmp_path, *numbered(4))
    merge(lake)

    table = lake.table(MAIN)
    assert table is not None
    assert table.scan().to_arrow()["log_offset"].to_pylist() == [0, 1, 2, 3]


def test_compaction_loses_nothing_that_lands_meanwhile(tmp_path: Path) -> None:
    """Planned on one load and committed on another, it replaced rows it never saw."""
    lake, log, view = filled(tmp_path, *numbered(3))
    append(log, '{"n": 3, "later": true}')
    batch = batch_of(log, view)
    between = Tampered(
        lake.catalog, before=lambda number: ignore(put(lake, batch)) if number == 1 else None
    )

    done = merge(Lake(between, HASTY))  # type: ignore[arg-type]  # a stand-in

    assert done == Compacted(read=3, written=1)
    assert between.commits == 2
    assert offsets(lake) == [0, 1, 2, 3]
    assert column(lake, "later") == [None, None, None, True]
    assert mark_of(lake).next == 4


def test_of_two_compactions_one_gives_way(tmp_path: Path) -> None:
    """Both merge the same files; both committed would double every row."""
    lake, _, _ = filled(tmp_path, *numbered(3))
    between = Tampered(
        lake.catalog,
        before=lambda number: (
            ignore(compact(lake, MAIN, below=MB, new_name=lambda: "other", fewest=2))
            if number == 1
            else None
        ),
    )

    done = merge(Lake(between, HASTY))  # type: ignore[arg-type]  # a stand-in

    assert done == Compacted(given_up=1)
    assert offsets(lake) == [0, 1, 2]


@pytest.mark.parametrize("retries", [0, 5])
def test_a_compaction_that_landed_and_was_reported_as_failed_stays(
    tmp_path: Path, retries: int
) -> None:
    """PyIceberg would delete the manifests of what it takes for a failure."""
    lake, _, _ = filled(tmp_path, *numbered(3))

    def fail(_: int) -> None:
        raise CommitFailedException("conflict")

    between = Tampered(lake.catalog, after=fail)

    done = merge(Lake(between, HASTY), retries=retries)  # type: ignore[arg-type]  # a stand-in

    assert done == Compacted(read=3, written=1)
    assert offsets(new_lake(tmp_path)) == [0, 1, 2]


def test_the_retries_of_a_compaction_do_not_stay_in_the_table(tmp_path: Path) -> None:
    """Trino reads that property, and a landing must not retry at all."""
    lake, _, _ = filled(tmp_path, *numbered(3))
    table = lake.table(MAIN)
    assert table is not None

    merge(lake)

    after = lake.table(MAIN)
    assert after is not None
    assert "commit.retry.num-retries" not in after.properties
    assert after.properties["write.delete.isolation-level"] == "snapshot"


def test_expiry_leaves_what_was_asked_for(tmp_path: Path) -> None:
    """Every commit reads and writes all snapshots; fifty are enough."""
    lake, _, _ = filled(tmp_path, *numbered(5))
    before = rows(lake)

    assert expire(lake, MAIN, keep=2) == 3
    assert expire(lake, MAIN, keep=2) == 0

    table = lake.table(MAIN)
    assert table is not None
    assert len(table.metadata.snapshots) == 2
    assert rows(lake) == before
    view = lake.view(FLIGHTS)
    assert view is not None
    assert not view.rolled_back


def test_expiry_forgets_schemas_that_no_snapshot_has(tmp_path: Path) -> None:
    """A collection that grows column by column carries all of them in every commit."""
    lake, log, view = filled(tmp_path, *(f'{{"c{n}": 1}}' for n in range(4)))

    expire(lake, MAIN, keep=1)

    table = lake.table(MAIN)
    assert table is not None
    assert [schema.schema_id for schema in table.metadata.schemas] == [4]
    append(log, '{"c9": 1}')
    put(lake, batch_of(log, view))
    assert column(lake, "c0") == [1, None, None, None, None]
    assert column(lake, "c9") == [None, None, None, None, 1]


def test_expiry_meets_a_landing_and_tries_again(tmp_path: Path) -> None:
    """Both change the same metadata; neither may undo the other."""
    lake, log, view = filled(tmp_path, *numbered(4))
    append(log, '{"new": 1}')
    batch = batch_of(log, view)
    between = Tampered(
        lake.catalog, before=lambda number: ignore(put(lake, batch)) if number == 1 else None
    )

    expire(Lake(between, HASTY), MAIN, keep=2)  # type: ignore[arg-type]  # a stand-in

    table = lake.table(MAIN)
    assert table is not None
    assert len(table.metadata.snapshots) == 2
    assert offsets(lake) == [0, 1, 2, 3, 4]


def looked(lake: Lake, now: int, *, keep: int = 50, below: int = MB) -> Condition:
    found = look(lake, MAIN, keep=keep, now=now, below=below, target=128 * MB)
    assert found is not None
    return found


def test_a_table_is_behind_when_upkeep_was_due_an_hour_ago(tmp_path: Path) -> None:
    """Between two upkeeps small files wait, which is no reason to wake anybody."""
    lake, _, _ = filled(tmp_path, *numbered(6))
    now = machine_clock()

    at_noon = looked(lake, NOON + HOUR // 2, keep=2)
    assert (at_noon.files, at_noon.snapshots) == (6, 6)
    assert (at_noon.late_files, at_noon.late_snapshots) == (0, 0)
    assert looked(lake, now, keep=2).late_files == 6
    assert looked(lake, now, keep=2).late_snapshots == 0
    assert looked(lake, now + HOUR, keep=2).late_snapshots == 4
    assert looked(lake, now + HOUR, keep=6).late_snapshots == 0
    merge(lake)
    expire(lake, MAIN, keep=2)
    assert looked(lake, now + HOUR).late_files == 0
    assert looked(lake, now + HOUR, keep=2).late_snapshots == 0


def test_compaction_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """One busy collection must not keep 300 others waiting."""
    lake, _, _ = filled(tmp_path, *numbered(4))

    none = compact(lake, MAIN, new_name=namer(), until=lambda: True)
    all_ = compact(lake, MAIN, new_name=namer())

    assert (none, none.more) == (Compacted(), True)
    assert (all_, all_.more) == (Compacted(read=4, written=1), False)
    assert all_.bytes > 0


def files_of(lake: Lake) -> set[str]:
    table = lake.table(MAIN)
    assert table is not None
    return set(cast("Files", table.io).list(table.location()))


def test_the_sweep_leaves_every_snapshot_readable(tmp_path: Path) -> None:
    """It deletes for good: one file too many and a plan cannot be replayed."""
    lake, _, view = filled(tmp_path, *numbered(6))
    pinned = view.snapshot_id or 0
    lake.pin(FLIGHTS, pinned, "replay-1")
    before = rows(lake)
    merge(lake)
    expire(lake, MAIN, keep=1)
    table = lake.table(MAIN)
    assert table is not None
    orphan = f"{table.location()}/data/received_at_day=2025-11-24/zombie.parquet"
    table.io.new_output(orphan).create().close()

    first = sweep_orphans(lake, MAIN, {}, NOON)
    assert first.deleted == ()
    assert orphan in first.seen
    early = sweep_orphans(lake, MAIN, first.seen, NOON + ORPHAN_AGE - 1)
    assert early.deleted == ()
    late = sweep_orphans(lake, MAIN, early.seen, NOON + ORPHAN_AGE)

    assert orphan in late.deleted
    assert late.seen == {}
    assert not files_of(lake) & set(late.deleted)
    fresh = new_lake(tmp_path)
    assert rows(fresh) == before
    assert rows(fresh, pinned) == before


def test_the_sweep_leaves_what_is_committed_while_it_looks(tmp_path: Path) -> None:
    """Listed after the metadata was read, a file that just landed looks like an orphan."""
    lake, log, view = filled(tmp_path, *numbered(2))
    append(log, *numbered(1))
    batch = batch_of(log, view)

    class Landing(Tampered):
        looks = 0

        def load_table(self, name: tuple[str, str]) -> object:
            self.looks += 1
            loaded = self.real.load_table(name)
            if self.looks == 2:
                put(lake, batch)
            return loaded

    swept = sweep_orphans(Lake(Landing(lake.catalog), HASTY), MAIN, {}, NOON, age=0)  # type: ignore[arg-type]  # a stand-in

    assert swept.deleted == ()
    assert len(rows(new_lake(tmp_path))) == 3


def ignore(_: object) -> None:
    """Take an answer that does not matter."""


def test_threads_that_look_at_manifests_do_not_mix_them_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is there was called missing: seldom, and whoever merged it failed by that."""
    lake, log = new_lake(tmp_path), log_of()
    for number in range(2):
        log.append(FLIGHTS, [event("{}", id=f"e{number}", received_at=NOON + number * DAY)])
        landing(log, lake).land_once(FLIGHTS)
    table = lake.table(MAIN)
    assert table is not None
    current = table.current_snapshot()
    assert current is not None
    (task, _) = sorted(table.scan().plan_files(), key=lambda one: one.file.partition[0])
    overwrite = Staged(table).update_snapshot().overwrite()
    overwrite.delete_data_file(task.file)
    overwrite.commit()
    looked_at = overwrite._build_manifest_evaluator(table.spec().spec_id)
    manifests = sorted(current.manifests(table.io), key=lambda one: one.sequence_number)
    together, visit = threading.Barrier(2, timeout=20), visitors.visit

    def waits(expression: Any, visitor: Any) -> Any:
        # Both have begun to look by now.
        if isinstance(visitor, visitors._ManifestEvalVisitor):
            together.wait()
        return visit(expression, visitor)

    monkeypatch.setattr(visitors, "visit", waits)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(looked_at, manifests))

    assert found == [True, False]
