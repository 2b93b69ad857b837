"""Landing's commit: every event of a batch once, whatever happens around it.

Each test of a race is run a second time with the rule it is about broken (a mutant), where the
rule is one that can be taken out: a test that a broken rule passes proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import FLIGHTS, NOON
from lakes import (
    BROKEN,
    HASTY,
    MAIN,
    PLACES,
    QUARANTINE,
    Tampered,
    append,
    batch_of,
    column,
    everywhere,
    lake_at,
    log_of,
    mark_of,
    new_lake,
    numbered,
    offsets,
    put,
)
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table, Transaction
from pyiceberg.types import StringType

from lakehouse import Lake, TableView, commit
from lakehouse.attempts import Patience
from lakehouse.columns import ShapeChanged, shape_of
from lakehouse.commit import (
    TOO_OLD,
    Committed,
    Held,
    Next,
    Staged,
    Stale,
    after_failure,
    opaque,
    settle,
)
from lakehouse.tables import PROPERTIES
from lakehouse.updates import same_table
from lakehouse.upkeep import compact
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Mark
from penstock.errors import EngineUnavailable, TableChanged
from penstock.schema.rows import QUARANTINE_SCHEMA, rows_schema
from penstock.schema.shape import Leaf, Struct

MERGED_AT = int(PROPERTIES["commit.manifest.min-count-to-merge"])
"""The commit that merges the manifests of those before it."""

START, MIDDLE, END = (Mark("log", 0, place, f"f{place}") for place in (10, 15, 20))


@pytest.fixture(params=PLACES)
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Let the lake of each test be here and in the real engines."""
    with lake_at(request.param, tmp_path) as folder:
        yield folder


def next_after(*marks: Mark, own: bool = False, same_schema: bool = True) -> Next:
    return after_failure(
        own_snapshot_seen=own,
        marks=marks,
        starts=[START],
        ends=[END],
        same_schema=same_schema,
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (next_after(START), Next.REBUILD),
        (next_after(START, same_schema=False), Next.REPLAN),
        (next_after(MIDDLE), Next.REPLAN),
        (next_after(END), Next.DONE),
        (next_after(replace(END, next=25)), Next.DONE),
        (next_after(END, same_schema=False), Next.DONE),
        (next_after(START, own=True), Next.DONE),
        (next_after(), Next.REPLAN),
        (next_after(replace(START, fingerprint="other")), Next.REPLAN),
        (next_after(replace(START, log_id="another")), Next.REPLAN),
    ],
)
def test_what_follows_a_failed_commit(answer: Next, expected: Next) -> None:
    """The table decides, never the kind of error."""
    assert answer is expected


def test_a_batch_of_two_partitions_is_done_when_both_are() -> None:
    """One of two marks at its end means that half of the batch would be doubled or lost."""
    other = Mark("log", 1, 5, "f5")
    starts, ends = [START, Mark("log", 1, 0, "")], [END, other]

    def decide(*marks: Mark) -> Next:
        return after_failure(
            own_snapshot_seen=False, marks=marks, starts=starts, ends=ends, same_schema=True
        )

    assert decide(END, other) is Next.DONE
    assert decide(END) is Next.REPLAN
    assert decide(START) is Next.REBUILD


def quarantined(*places: int) -> pa.Table:
    rows = [
        {
            "event_id": f"e{n}",
            "received_at": NOON,
            "source": "http",
            "payload": b"x",
            "log_id": "log",
            "log_partition": 0,
            "log_offset": n,
            "stage": "gate",
            "reason": "test",
            "attempts": 1,
        }
        for n in places
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)


def test_what_was_decided_stays_and_the_rest_is_free() -> None:
    """1 and 3 were quarantined before the crash, 0 to 3 were decided; now 0, 1, 4 would be."""
    rows = opaque(quarantined(2, 3, 5), rows_schema(Struct(())))

    main, aside = settle(rows, quarantined(0, 1, 4), [Held("log", 0, 4, frozenset({1, 3}))], opaque)

    assert main["log_offset"].to_pylist() == [0, 2, 5]
    assert aside["log_offset"].to_pylist() == [4]


def test_what_another_partition_holds_means_nothing_here() -> None:
    """Offsets count from 0 in each partition."""
    rows = opaque(quarantined(2), rows_schema(Struct(())))
    held = [Held("log", 1, 9, frozenset({2})), Held("another log", 0, 9, frozenset({2}))]

    main, aside = settle(rows, quarantined(1), held, opaque)

    assert (main["log_offset"].to_pylist(), aside["log_offset"].to_pylist()) == ([2], [1])


def started(folder: Path, log: MemoryLog, **tampering: Any) -> tuple[Lake, TableView, Tampered]:
    """Answer a lake with the collection's tables; its commits are tampered with from now on."""
    lake = new_lake(folder)
    view = lake.create(FLIGHTS)
    between = Tampered(lake.catalog, **tampering)
    return Lake(between, HASTY), view, between  # type: ignore[arg-type]  # a stand-in


def test_a_batch_lands_with_its_columns_and_marks(tmp_path: Path) -> None:
    """The plain case, as search and SQL will see it."""
    log = log_of(*numbered(3), BROKEN, '{"n": 4, "city": "Oslo"}')
    lake = new_lake(tmp_path)

    done = put(lake, batch_of(log, lake.create(FLIGHTS)))

    assert isinstance(done, Committed)
    assert (done.rows, done.quarantined, done.here) == (4, 1, True)
    assert offsets(lake) == [0, 1, 2, 4]
    assert offsets(lake, quarantine=True) == [3]
    assert column(lake, "n") == [0, 1, 2, 4]
    assert column(lake, "city") == [None, None, None, "Oslo"]
    assert mark_of(lake) == done.view.marks[0]
    assert mark_of(lake).next == 5
    assert done.view == lake.view(FLIGHTS)


def test_days_are_files_of_their_own(tmp_path: Path) -> None:
    """A file belongs to one partition, and a batch may span midnight."""
    log = log_of(*numbered(4))
    lake = new_lake(tmp_path)
    batch = batch_of(log, lake.create(FLIGHTS))
    days = [NOON, NOON + 86_400_000_000, NOON, NOON + 3 * 86_400_000_000]
    received = pa.array(days, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    place = batch.converted.rows.schema.get_field_index("received_at")
    field = batch.converted.rows.schema.field(place)
    rows = batch.converted.rows.set_column(place, field, received)

    put(lake, replace(batch, converted=replace(batch.converted, rows=rows)))

    table = lake.table(MAIN)
    assert table is not None
    by_day = Counter(
        {task.file.partition[0]: task.file.record_count for task in table.scan().plan_files()}
    )
    day = NOON // 86_400_000_000
    assert by_day == {day: 2, day + 1: 1, day + 3: 1}
    assert offsets(lake) == [0, 1, 2, 3]


def test_a_batch_without_rows_is_fenced_like_any_other(tmp_path: Path) -> None:
    """A commit of properties alone is checked against nothing and moved a mark back."""
    log = log_of(BROKEN, BROKEN)
    other = new_lake(tmp_path)

    def overtake(number: int) -> None:
        if number == 3:
            put(other, batch_of(log, view))

    lake, view, _ = started(tmp_path, log, before=overtake)
    late = put(lake, batch_of(log, view, upto=1))

    assert isinstance(late, Committed)
    assert not late.here
    assert mark_of(lake).next == 2
    assert late.view.landed_sequence == 3  # two claims before it
    assert offsets(lake) == []
    assert everywhere(lake) == Counter(range(2))


def test_an_append_that_fails_moves_no_mark(tmp_path: Path) -> None:
    """Swallowed, it let the mark land alone."""
    log = log_of(*numbered(2))
    lake = new_lake(tmp_path)
    batch = batch_of(log, lake.create(FLIGHTS))
    broken = batch.converted.rows.drop_columns(["payload"])

    with pytest.raises(ShapeChanged, match="payload"):
        put(lake, replace(batch, converted=replace(batch.converted, rows=broken)))

    view = lake.view(FLIGHTS)
    assert view is not None
    assert view.marks == ()
    assert view.snapshot_id is None


def test_two_who_land_the_same_span_land_it_once(tmp_path: Path) -> None:
    """A run that was taken for dead comes back beside its successor."""
    log = log_of(*numbered(4), BROKEN)
    other = new_lake(tmp_path)

    def overtake(number: int) -> None:
        if number == 1:
            put(other, batch_of(log, view))

    lake, view, between = started(tmp_path, log, before=overtake)
    zombie = put(lake, batch_of(log, view))

    assert isinstance(zombie, Committed)
    assert not zombie.here
    assert everywhere(lake) == Counter(range(5))
    assert between.commits == 1


def test_who_was_overtaken_by_half_plans_again(tmp_path: Path) -> None:
    """The other one's batch ended earlier: the rest must still land, once."""
    log = log_of(*numbered(5))
    other = new_lake(tmp_path)

    def overtake(number: int) -> None:
        if number == 1:
            put(other, batch_of(log, view, upto=2))

    lake, view, _ = started(tmp_path, log, before=overtake)
    stale = put(lake, batch_of(log, view))

    assert isinstance(stale, Stale)
    assert [mark.next for mark in stale.view.marks] == [2]
    put(lake, batch_of(log, stale.view))
    assert everywhere(lake) == Counter(range(5))


def test_compaction_beside_a_landing_loses_nothing(tmp_path: Path) -> None:
    """The commit is built again on the compacted table, with the files that are written."""
    log = log_of(*numbered(6))
    other = new_lake(tmp_path)
    names = iter(range(100))

    def compact_first(number: int) -> None:
        if number == 6:
            compact(other, MAIN, below=1 << 20, new_name=lambda: f"m{next(names)}", fewest=2)

    lake, view, between = started(tmp_path, log, before=compact_first)
    for upto in range(1, 7):
        done = put(lake, batch_of(log, view, upto=upto))
        view = done.view

    assert between.commits == 7
    assert isinstance(done, Committed)
    assert done.here
    assert offsets(lake) == list(range(6))


def test_a_column_dropped_by_others_makes_the_batch_stale(tmp_path: Path) -> None:
    """Unnoticed, values ended in neither a column nor the misfits."""
    log = log_of('{"a": 1, "b": 2}', '{"a": 3, "b": 4}')
    other = new_lake(tmp_path)

    def drop(number: int) -> None:
        if number == 2:
            table = other.table(MAIN)
            assert table is not None
            with table.update_schema(allow_incompatible_changes=True) as update:
                update.delete_column(("data", "b"))

    lake, view, _ = started(tmp_path, log, before=drop)
    first = put(lake, batch_of(log, view, upto=1))
    stale = put(lake, batch_of(log, first.view))

    assert isinstance(stale, Stale)
    assert stale.view.shape == Struct((("a", Leaf("long")),))
    put(lake, batch_of(log, stale.view))
    assert column(lake, "a") == [1, 3]
    assert column(lake, "b")[1] == 4
    assert everywhere(lake) == Counter(range(2))


def test_two_lanes_that_find_different_fields_get_different_columns(tmp_path: Path) -> None:
    """Both give their field the next id; read by it, card numbers were cities."""
    cards = log_of('{"card_number": "4711"}')
    cities = MemoryLog("00000000-0000-0000-0000-000000000002")
    append(cities, '{"city": "Oslo"}')
    other = new_lake(tmp_path)

    def overtake(number: int) -> None:
        if number == 1:
            put(other, batch_of(cities, view))

    lake, view, _ = started(tmp_path, cards, before=overtake)
    stale = put(lake, batch_of(cards, view))

    assert isinstance(stale, Stale)
    put(lake, batch_of(cards, stale.view))
    assert sorted(column(lake, "city"), key=str) == [None, "Oslo"]
    assert sorted(column(lake, "card_number"), key=str) == ["4711", None]


def test_files_are_used_again_only_under_their_schema(tmp_path: Path) -> None:
    """The zombie's files hold ids that meanwhile mean another column."""
    log = log_of('{"card_number": "4711"}')
    other = new_lake(tmp_path)

    def add_column(number: int) -> None:
        table = other.table(MAIN)
        if number == 1 and table is not None:
            with table.update_schema() as update:
                update.add_column("note", StringType())

    lake, view, _ = started(tmp_path, log, before=add_column)
    stale = put(lake, batch_of(log, view))

    assert isinstance(stale, Stale)
    put(lake, batch_of(log, stale.view))
    table = lake.table(MAIN)
    assert table is not None
    assert table.scan().to_arrow()["note"].to_pylist() == [None]
    assert column(lake, "card_number") == ["4711"]
    assert shape_of(table.schema()) == Struct((("card_number", Leaf("string")),))


@pytest.mark.parametrize(
    "error", [CommitFailedException("conflict"), ConnectionError("lost"), TimeoutError()]
)
def test_a_commit_that_landed_and_was_reported_as_failed(tmp_path: Path, error: Exception) -> None:
    """A client that tries again reports a conflict with itself; its files must stay."""
    log = log_of(*numbered(3), BROKEN)

    def fail(_: int) -> None:
        raise error

    lake, view, between = started(tmp_path, log, after=fail)
    done = put(lake, batch_of(log, view))

    assert isinstance(done, Committed)
    assert done.here
    assert (done.rows, done.quarantined) == (3, 1)
    assert between.commits == 3  # the claim, quarantine, main
    assert everywhere(new_lake(tmp_path)) == Counter(range(4))


def test_an_error_that_stays_is_raised(tmp_path: Path) -> None:
    """A full disk must be seen, not tried for an hour."""
    log = log_of(*numbered(2))

    def fail(_: int) -> None:
        raise OSError(28, "no space left on device")

    lake, view, between = started(tmp_path, log, before=fail)

    with pytest.raises(OSError, match="no space"):
        put(lake, batch_of(log, view))

    assert between.commits == 3
    assert offsets(new_lake(tmp_path)) == []


def test_manifests_that_cannot_be_read_as_they_are_merged_are_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyIceberg says in its place that a manifest is empty, as if landing were at fault."""
    lake, log = new_lake(tmp_path), log_of(*numbered(MERGED_AT))
    view = lake.create(FLIGHTS)
    for number in range(1, MERGED_AT):
        committed = put(lake, batch_of(log, view, upto=number))
        view = committed.view
    away = EngineUnavailable("the object store does not answer")

    def nothing(*_: Any, **_more: Any) -> list[Any]:
        raise away

    with monkeypatch.context() as patch:
        patch.setattr(ManifestFile, "fetch_manifest_entry", nothing)
        with pytest.raises(EngineUnavailable) as told:
            put(lake, batch_of(log, view))

    assert told.value is away
    put(lake, batch_of(log, view))
    assert offsets(lake) == list(range(MERGED_AT))


def test_a_catalog_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    """Whether the commit landed is then unknown; the next look at the marks tells."""
    log = log_of(*numbered(2))
    away = False

    def leave(_: int) -> None:
        nonlocal away
        away = True
        raise ConnectionError("lost")

    lake, view, between = started(tmp_path, log, after=leave)
    load = between.real.load_table

    class Away(Tampered):
        def load_table(self, name: Any) -> Table:
            if away:
                raise ConnectionError("refused")
            return load(name)

    gone = Lake(Away(between), HASTY)  # type: ignore[arg-type]  # a stand-in
    with pytest.raises(EngineUnavailable):
        put(gone, batch_of(log, view))

    again = put(new_lake(tmp_path), batch_of(log, view))
    assert isinstance(again, Committed)
    assert not again.here
    assert everywhere(lake) == Counter(range(2))


def test_conflicts_end_with_patience(tmp_path: Path) -> None:
    """A batch that never gets through must not hold its lane for ever."""
    log = log_of(*numbered(2))

    def fail(_: int) -> None:
        raise CommitFailedException("conflict")

    _, view, between = started(tmp_path, log, before=fail)
    seconds = iter(range(100))
    hurried = Patience(seconds=9, clock=lambda: next(seconds), wait=lambda _: None)

    with pytest.raises(EngineUnavailable):
        put(Lake(between, hurried), batch_of(log, view))  # type: ignore[arg-type]  # a stand-in

    assert 2 < between.commits < 10


def test_a_batch_is_given_up_before_the_sweep_takes_its_files(tmp_path: Path) -> None:
    """A swept file is committed without complaint, and the table cannot be read any more."""
    log = log_of(*numbered(2))
    times = iter([NOON, NOON + TOO_OLD + 1])
    lake = new_lake(tmp_path)
    view = lake.create(FLIGHTS)

    with pytest.raises(EngineUnavailable, match="an hour"):
        commit.land(lake, batch_of(log, view), clock=lambda: next(times))

    assert offsets(lake) == []


def test_a_table_that_was_replaced_stops_landing(tmp_path: Path) -> None:
    """Marks of the old table say nothing about the new one."""
    log = log_of(*numbered(2))
    lake = new_lake(tmp_path)
    view = lake.create(FLIGHTS)
    lake.catalog.drop_table(MAIN)
    lake.create(FLIGHTS)

    with pytest.raises(TableChanged):
        put(lake, batch_of(log, view))


@pytest.mark.parametrize("name", [MAIN, QUARANTINE])
def test_a_table_whose_marks_are_gone_stops_landing(tmp_path: Path, name: tuple[str, str]) -> None:
    """A copy made by another engine has the rows but no properties: all would land again."""
    log = log_of(*numbered(2), BROKEN)
    lake = new_lake(tmp_path)
    put(lake, batch_of(log, lake.create(FLIGHTS)))
    old = lake.table(name)
    assert old is not None
    rows = old.scan().to_arrow()
    lake.catalog.drop_table(name)
    lake.catalog.create_table(name, old.schema(), partition_spec=old.spec()).append(rows)
    view = lake.view(FLIGHTS)
    assert view is not None
    append(log, BROKEN)

    with pytest.raises(TableChanged, match="no marks"):
        put(lake, batch_of(log, view))


@pytest.mark.parametrize("name", [MAIN, QUARANTINE])
@pytest.mark.parametrize("then", ["nothing", "written to"])
def test_a_table_that_was_rolled_back_stops_landing(
    tmp_path: Path, name: tuple[str, str], then: str
) -> None:
    """Rolled back, a table keeps its marks: 30 rows for mark 80."""
    log = log_of(*numbered(2), BROKEN, *numbered(2), BROKEN)
    lake = new_lake(tmp_path)
    first = put(lake, batch_of(log, lake.create(FLIGHTS), upto=3))
    second = put(lake, batch_of(log, first.view))
    append(log, *numbered(1), BROKEN)
    table = lake.table(name)
    assert table is not None
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[0].snapshot_id).commit()
    if then == "written to":
        with table.refresh().transaction() as other:
            other.update_snapshot().fast_append().commit()

    with pytest.raises(TableChanged, match="rolled back"):
        put(lake, batch_of(log, second.view))


class Crash(BaseException):
    """Ends a landing like a kill would: nothing catches it."""


def crash_before(count: int) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == count:
            raise Crash

    return before


def test_what_quarantine_got_before_a_crash_stays_there(tmp_path: Path) -> None:
    """Quarantine commits first; main's marks then repeat the batch."""
    log = log_of('{"n": 1}', BROKEN, '{"n": 2}', BROKEN)
    lake, view, _ = started(tmp_path, log, before=crash_before(3))
    with pytest.raises(Crash):
        put(lake, batch_of(log, view))
    assert offsets(lake, quarantine=True) == [1, 3]
    assert offsets(lake) == []

    append(log, BROKEN)
    again = put(new_lake(tmp_path), batch_of(log, view))

    assert isinstance(again, Committed)
    assert (again.rows, again.quarantined) == (2, 3)
    assert offsets(lake) == [0, 2]
    assert offsets(lake, quarantine=True) == [1, 3, 4]


def test_what_was_let_pass_before_a_crash_goes_to_main_after_it(tmp_path: Path) -> None:
    """The contract became stricter in between: the event is a row, without columns."""
    log = log_of('{"n": 1}', BROKEN, '{"n": 2}')
    lake, view, _ = started(tmp_path, log, before=crash_before(3))
    with pytest.raises(Crash):
        put(lake, batch_of(log, view))
    batch = batch_of(log, view)
    strict = replace(
        batch.converted,
        rows=batch.converted.rows.slice(0, 0),
        quarantined=quarantined_with_payload(log),
    )

    put(new_lake(tmp_path), replace(batch, converted=strict))

    assert offsets(lake) == [0, 2]
    assert offsets(lake, quarantine=True) == [1]
    assert column(lake, "n") == [None, None]


def test_what_was_quarantined_before_a_crash_is_not_doubled_by_a_lenient_contract(
    tmp_path: Path,
) -> None:
    """The contract became softer in between: the event is in quarantine and stays there."""
    log = log_of('{"n": 1}', BROKEN, '{"n": 2}')
    lake, view, _ = started(tmp_path, log, before=crash_before(3))
    with pytest.raises(Crash):
        put(lake, batch_of(log, view))
    batch = batch_of(log, view)
    rows = pa.concat_tables(
        [batch.converted.rows, opaque(batch.converted.quarantined, batch.converted.rows.schema)]
    )
    lenient = replace(
        batch.converted, rows=rows, quarantined=batch.converted.quarantined.slice(0, 0)
    )

    put(new_lake(tmp_path), replace(batch, converted=lenient))

    assert offsets(lake) == [0, 2]
    assert offsets(lake, quarantine=True) == [1]


def quarantined_with_payload(log: MemoryLog) -> pa.Table:
    """Answer all events of the log as events for quarantine."""
    table = quarantined(*range(log.extents(FLIGHTS)[0].end))
    place = table.schema.get_field_index("log_id")
    ids = pa.array([log.log_id(FLIGHTS)] * table.num_rows)
    return table.set_column(place, table.schema.field(place), ids)


class Retrying(Staged):
    """A mutant: PyIceberg's own retries and clean-up are on."""

    def send(self, lake: Lake) -> Table:
        return Transaction.commit_transaction(self)


def never_done(**facts: Any) -> Next:
    """Answer as a mutant that does not look at the marks."""
    return Next.DONE if facts["own_snapshot_seen"] else Next.REBUILD


def test_the_races_catch_a_commit_that_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PyIceberg's retries on, the overtaken span is appended a second time."""
    monkeypatch.setattr(commit, "Staged", Retrying)

    with pytest.raises(AssertionError):
        test_two_who_land_the_same_span_land_it_once(tmp_path)

    assert max(everywhere(new_lake(tmp_path)).values()) == 2


def test_the_races_catch_a_landing_that_ignores_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that is built again without looking doubles what the other one landed."""
    monkeypatch.setattr(commit, "after_failure", never_done)

    with pytest.raises(AssertionError):
        test_two_who_land_the_same_span_land_it_once(tmp_path)

    assert max(everywhere(new_lake(tmp_path)).values()) == 2


def test_the_races_catch_a_commit_that_does_not_ask_for_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropping a column makes no snapshot, so nothing else of the commit notices."""
    monkeypatch.setattr(commit, "same_schema", same_table)

    with pytest.raises(AssertionError):
        test_a_column_dropped_by_others_makes_the_batch_stale(tmp_path)


def test_a_clean_up_after_an_unknown_outcome_breaks_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why nothing is deleted: the commit had landed, and these were its manifests."""
    monkeypatch.setattr(commit, "Staged", Retrying)
    log = log_of(*numbered(3))

    def fail(number: int) -> None:
        if number == 2:
            raise CommitFailedException("conflict")

    lake, view, _ = started(tmp_path, log, after=fail)
    table = lake.table(MAIN)
    assert table is not None
    with table.transaction() as change:
        change.set_properties({"commit.retry.num-retries": "0"})
    put(lake, batch_of(log, view))

    with pytest.raises(FileNotFoundError):
        offsets(new_lake(tmp_path))
