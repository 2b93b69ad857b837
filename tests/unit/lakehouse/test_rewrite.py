"""A rewrite beside everybody else who changes the table: no row is lost, doubled or misread."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import FLIGHTS, NOON
from lakes import MAIN, Tampered, append, column, everywhere, landing, log_of, mark_of, new_lake
from leaf_books import unbalanced
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestWriterV2,
)
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import AddSnapshotUpdate
from pyiceberg.typedef import Record

from assets.checks import check_conservation
from lakehouse import Lake
from lakehouse.columns import main_schema, reshaped, shape_of
from lakehouse.commit import Staged
from lakehouse.listing import Listing
from lakehouse.rewrite import TOO_OLD, Renewal, Rewritten, rewrite
from lakehouse.tables import HOLD, LONGEST_HOLD, TableView, held_back
from lakehouse.upkeep import Compacted, compact, expire
from penstock.buffer.memory import MemoryLog
from penstock.errors import BadRequest, EngineUnavailable, TableChanged
from penstock.schema.convert import Rules
from penstock.schema.retype import columns_of, longs_of, widened
from penstock.schema.shape import Leaf, List, Struct

LONG, DOUBLE, STRING = Leaf("long"), Leaf("double"), Leaf("string")


class Doubles:
    """Wants every column of longs that there is at first to be one of doubles."""

    rules = Rules()
    keeps_columns = True

    def __init__(self, *paths: str) -> None:
        self._paths = paths

    def shape(self, present: Struct, payloads: object) -> Struct | None:
        chosen = [one for one in longs_of(present) if one.path in self._paths]
        return widened(present, chosen) if chosen else None


def doubled(lake: Lake, renewal: Renewal | None = None, **more: Any) -> Rewritten | None:
    numbers = itertools.count()
    given: dict[str, Any] = {
        "clock": lambda: NOON,
        "new_name": lambda: f"again-{next(numbers)}",
        **more,
    }
    return rewrite(lake, FLIGHTS, renewal or Doubles("n"), why={"test": "yes"}, **given)


def filled(folder: Path, *payloads: str, catalog: Any = None) -> tuple[Lake, MemoryLog]:
    """Answer a lake in which each of these events landed for itself, and what comes next."""
    log = log_of()
    work = landing(log, new_lake(folder))
    for payload in payloads:
        append(log, payload)
        assert work.land_once(FLIGHTS)
    return new_lake(folder, catalog) if catalog else new_lake(folder), log


def books(lake: Lake, log: MemoryLog) -> None:
    """Assert that every event is there once, and every leaf of it."""
    count = log.extents(FLIGHTS)[0].end
    assert everywhere(lake) == Counter(range(count))
    assert mark_of(lake).next == count
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
    assert unbalanced(lake) == []


RESERVED, REPLACED = 1, 2
"""The commits of a rewrite that meets nobody."""


@pytest.mark.parametrize("at", [RESERVED, REPLACED])
@pytest.mark.parametrize(
    "payload", ['{"n": 8.25}', '{"n": 8, "city": "Oslo", "at": {"x": 1}}', '{"m": 3}', "{broken"]
)
def test_what_lands_while_it_works_is_converted_too(tmp_path: Path, payload: str, at: int) -> None:
    """Between read and commit a landing puts a row, or a column, under the old schema."""
    work: list[Callable[[], object]] = []
    lake, log = filled(
        tmp_path,
        '{"n": 5}',
        '{"n": 5.5}',
        catalog=lambda real: Tampered(real, before=lambda n: n == at and work.pop()()),
    )

    def land() -> None:
        append(log, payload, '{"n": 9}')
        landing(log, new_lake(tmp_path)).land_once(FLIGHTS)

    work.append(land)

    done = doubled(lake)

    assert done is not None
    assert work == []
    books(lake, log)
    landing_again = landing(log, lake)
    append(log, '{"n": 1.75, "city": "Rome"}')
    assert landing_again.land_once(FLIGHTS)
    books(lake, log)
    assert column(lake, "n")[-1] == 1.75
    assert ("n", DOUBLE) in shape(lake).fields


def shape(lake: Lake) -> Struct:
    view = lake.view(FLIGHTS)
    assert view is not None
    return view.shape


def test_who_converted_for_the_old_columns_plans_again(tmp_path: Path) -> None:
    """A landing whose rewrite came in between would write values where nobody looks for them."""
    lake, log = filled(tmp_path, '{"n": 5}', '{"n": 5.5}')
    append(log, '{"n": 6, "new": 1}', '{"n": 6.5}')
    beside = new_lake(
        tmp_path, lambda real: Tampered(real, before=lambda n: n == 1 and doubled(lake))
    )

    assert landing(log, beside).land_once(FLIGHTS)

    books(lake, log)
    assert column(lake, "n") == [5.0, 5.5, 6.0, 6.5]


def test_a_rewrite_that_meets_another_table_leaves_it_and_says_where_to_read_on(
    tmp_path: Path,
) -> None:
    """It was begun for rows that are gone; whoever wants it starts it again."""
    lake, _ = filled(
        tmp_path,
        '{"n": 5}',
        '{"n": 5.5}',
        catalog=lambda real: Tampered(real, before=lambda n: n == REPLACED and replaced(real)),
    )

    def replaced(real: Any) -> None:
        real.drop_table(MAIN)
        new_lake(tmp_path).create(FLIGHTS)

    with pytest.raises(TableChanged, match=r"by another one; see 'When landing has stopped' in "):
        doubled(lake)

    assert sum(everywhere(new_lake(tmp_path)).values()) == 0


class Unfenced(Tampered):
    """A catalog that lets pass what replaces files, whatever the table has become meanwhile."""

    def commit_table(
        self, table: Table, requirements: tuple[Any, ...], updates: tuple[Any, ...]
    ) -> CommitTableResponse:
        self._before(self.commits + 1)
        number = self.real.load_table(table.name()).metadata.next_sequence_number()
        forced = [
            # Iceberg itself refuses a number that was given before.
            AddSnapshotUpdate(snapshot=one.snapshot.model_copy(update={"sequence_number": number}))
            if isinstance(one, AddSnapshotUpdate)
            else one
            for one in updates
        ]
        self.commits += 1
        return self.real.commit_table(table, (), tuple(forced))


def test_without_the_fence_the_books_find_what_was_lost(tmp_path: Path) -> None:
    """A mutant: the checks above must be able to fail."""
    work: list[Callable[[], object]] = []
    lake, log = filled(
        tmp_path,
        '{"n": 5}',
        '{"n": 5.5}',
        catalog=lambda real: Unfenced(real, before=lambda n: n == REPLACED and work.pop()()),
    )

    def land() -> None:
        append(log, '{"n": 9}')
        landing(log, new_lake(tmp_path)).land_once(FLIGHTS)

    work.append(land)
    doubled(lake)

    with pytest.raises(AssertionError):
        books(lake, log)
    assert not check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_a_file_that_is_not_converted_is_found_by_its_leaves(tmp_path: Path) -> None:
    """A mutant: the new schema without new files reads nulls where values were."""
    lake, log = filled(tmp_path, '{"n": 5}', '{"n": 5.5}')
    table = lake.table(MAIN)
    assert table is not None
    schema = table.metadata.schema()
    wanted = widened(shape_of(schema), longs_of(shape_of(schema)))
    with table.update_schema() as change:
        change.delete_column("data.n")
    table = lake.table(MAIN)
    assert table is not None
    with table.update_schema() as change:
        change.add_column(
            ("data", "n"),
            reshaped(schema, wanted, last_id=99, schema_id=1).find_field("data.n").field_type,
        )

    assert shape(lake) == Struct((("n", DOUBLE),))
    assert everywhere(lake) == Counter(range(2))
    assert unbalanced(lake) == [b'{"n": 5}']
    assert log.extents(FLIGHTS)[0].end == 2


def test_columns_that_landing_adds_meanwhile_get_other_ids(tmp_path: Path) -> None:
    """Two columns of one id: card numbers were read as cities."""
    work: list[Callable[[], object]] = []
    lake, log = filled(
        tmp_path,
        '{"n": 5}',
        catalog=lambda real: Tampered(real, before=lambda n: n == REPLACED and work.pop()()),
    )

    def land() -> None:
        append(log, '{"card_number": 4111}')
        landing(log, new_lake(tmp_path)).land_once(FLIGHTS)

    work.append(land)
    doubled(lake)

    table = lake.table(MAIN)
    assert table is not None
    ids = {
        name: table.schema().find_field(f"data.{name}").field_id for name in ("n", "card_number")
    }
    assert len(set(ids.values())) == 2
    assert (column(lake, "n"), column(lake, "card_number")) == ([5.0, None], [None, 4111])
    books(lake, log)


@pytest.mark.parametrize("at", [RESERVED, REPLACED])
def test_a_compaction_and_an_expiry_beside_it_lose_nothing(tmp_path: Path, at: int) -> None:
    """The files that were converted are gone from the table; the merged one is converted."""
    work: list[Callable[[], object]] = []
    lake, log = filled(
        tmp_path,
        *(f'{{"n": {number}}}' for number in range(4)),
        '{"n": 4.5}',
        catalog=lambda real: Tampered(real, before=lambda n: n == at and work.pop()()),
    )
    merged: list[Compacted] = []

    def tend() -> None:
        other = new_lake(tmp_path)
        merged.append(compact(other, MAIN, below=1 << 20, new_name=lambda: "merged", fewest=2))
        expire(other, MAIN, keep=1)

    work.append(tend)
    doubled(lake)

    assert [(one.read, one.written) for one in merged] == [(5, 1)]
    books(lake, log)
    assert column(lake, "n") == [0.0, 1.0, 2.0, 3.0, 4.5]


def test_a_rewrite_within_a_compaction_makes_it_give_way(tmp_path: Path) -> None:
    """What it merged has the old columns: committed, it would take the new ones away."""
    lake, log = filled(tmp_path, '{"n": 5}', '{"n": 5.5}', '{"n": 6}')
    beside = new_lake(
        tmp_path, lambda real: Tampered(real, before=lambda n: n == 1 and doubled(lake))
    )

    names = itertools.count()
    compact(beside, MAIN, below=1 << 20, new_name=lambda: f"merged-{next(names)}", fewest=2)

    books(lake, log)
    assert column(lake, "n") == [5.0, 5.5, 6.0]


def test_a_commit_that_landed_although_it_failed_is_not_made_again(tmp_path: Path) -> None:
    """An answer can be lost; the own snapshot decides, and no file of it is deleted."""

    def lost(number: int) -> None:
        if number == REPLACED:
            raise CommitFailedException("somebody was faster, it says")

    lake, log = filled(
        tmp_path, '{"n": 5}', '{"n": 5.5}', catalog=lambda real: Tampered(real, after=lost)
    )
    before = new_lake(tmp_path).view(FLIGHTS)
    assert before is not None

    done = doubled(lake)

    table = lake.table(MAIN)
    assert table is not None
    snapshots = [s for s in table.metadata.snapshots if s.parent_snapshot_id == before.snapshot_id]
    assert [snapshot.snapshot_id for snapshot in snapshots] == [done and done.snapshot_id]
    books(lake, log)


def test_it_ends_when_others_are_faster_for_too_long_and_leaves_the_table(tmp_path: Path) -> None:
    """Bounded by patience; and landing is asked to wait before that."""
    work: list[Callable[[], object]] = []
    commits: list[int] = []

    def refuse(number: int) -> None:
        commits.append(number)
        if number > 1:
            table = new_lake(tmp_path).table(MAIN)
            assert table is not None
            work.append(lambda: None)
            raise CommitFailedException("always somebody")

    lake, log = filled(
        tmp_path, '{"n": 5}', '{"n": 5.5}', catalog=lambda real: Tampered(real, before=refuse)
    )
    lake.patience = type(lake.patience)(seconds=0.5, wait=lambda _seconds: None)

    with pytest.raises(EngineUnavailable, match="kept changing"):
        doubled(lake)

    books(new_lake(tmp_path), log)
    assert shape(new_lake(tmp_path)) == Struct((("n", LONG),))


def test_a_rewrite_that_takes_more_than_a_day_is_not_committed(tmp_path: Path) -> None:
    """The sweep takes files that nothing refers to after three days."""
    lake, log = filled(tmp_path, '{"n": 5}')
    times = itertools.chain((NOON,), itertools.repeat(NOON + TOO_OLD + 1))

    with pytest.raises(EngineUnavailable, match="more than a day"):
        doubled(lake, clock=lambda: next(times))

    books(lake, log)


def test_landing_holds_back_for_a_moment_only() -> None:
    """Whoever asked for it may have died, or have a clock that is wrong."""
    lake_says = type("Metadata", (), {"properties": {HOLD: str(NOON + LONGEST_HOLD)}})()

    assert held_back(lake_says, lambda: NOON)
    assert not held_back(lake_says, lambda: NOON + LONGEST_HOLD)
    assert not held_back(lake_says, lambda: NOON - 1)
    assert not held_back(type("Metadata", (), {"properties": {}})(), lambda: NOON)


def test_rows_that_were_deleted_beside_their_file_do_not_come_back(tmp_path: Path) -> None:
    """Trino deletes so: the numbers of the rows stand in another file."""
    lake, log = filled(tmp_path, '{"n": 5}')
    append(log, '{"n": 6}', '{"n": 7.5}', '{"n": 8}')
    landing(log, lake).land_once(FLIGHTS)
    (newest, *_) = files(lake, first=1)
    delete_beside(lake, newest, [0, 2])

    done = doubled(lake)

    assert done is not None
    assert done.rows == 2
    assert everywhere(lake) == Counter([0, 2])
    assert column(lake, "n") == [5.0, 7.5]
    table = lake.table(MAIN)
    assert table is not None
    assert not any(task.delete_files for task in table.scan().plan_files())


def test_rows_that_were_deleted_by_their_values_are_a_refusal(tmp_path: Path) -> None:
    """What cannot be read here must not come back."""
    lake, _ = filled(tmp_path, '{"n": 5}')
    (file,) = files(lake)
    delete_beside(lake, file, [0], content=DataFileContent.EQUALITY_DELETES)

    with pytest.raises(BadRequest, match="equality deletes"):
        doubled(lake)


def test_files_beside_which_rows_are_deleted_are_not_read_by_themselves(tmp_path: Path) -> None:
    """They would be back."""
    lake, _ = filled(tmp_path, '{"n": 5}')
    (file,) = files(lake)
    before = Listing(lake).files(view_of(lake))
    delete_beside(lake, file, [0])

    assert before is not None
    assert Listing(lake).files(view_of(lake)) is None


def view_of(lake: Lake) -> TableView:
    view = lake.view(FLIGHTS)
    assert view is not None
    return view


def files(lake: Lake, first: int = 0) -> list[DataFile]:
    table = lake.table(MAIN)
    assert table is not None
    rows = {
        task.file.file_path: task.file.lower_bounds[
            table.schema().find_field("log_offset").field_id
        ]
        for task in table.scan().plan_files()
    }
    return [
        task.file
        for task in table.scan().plan_files()
        if int.from_bytes(rows[task.file.file_path], "little") >= first
    ]


class OfDeletes(ManifestWriterV2):
    """Writes a manifest of delete files, which PyIceberg itself does not write."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def delete_beside(
    lake: Lake,
    file: DataFile,
    rows: list[int],
    content: DataFileContent = DataFileContent.POSITION_DELETES,
) -> None:
    """Delete rows of a file as another engine does."""
    table = lake.table(MAIN)
    assert table is not None
    location = file.file_path.replace(".parquet", "-deletes.parquet")
    deleted = pa.table(
        {"file_path": [file.file_path] * len(rows), "pos": pa.array(rows, pa.int64())}
    )
    output = table.io.new_output(location)
    with output.create() as stream:
        pq.write_table(deleted, stream)
    beside = DataFile.from_args(
        content=content,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(file.partition[0]),
        record_count=len(rows),
        file_size_in_bytes=len(output),
        equality_ids=[1] if content == DataFileContent.EQUALITY_DELETES else None,
    )
    beside.spec_id = file.spec_id
    staged = Staged(table)
    append_ = staged.update_snapshot().fast_append()
    append_.append_data_file(beside)
    append_.new_manifest_writer = lambda spec: OfDeletes(  # type: ignore[method-assign]
        spec, append_.schema(), append_.new_manifest_output(), append_.snapshot_id, "deflate"
    )
    append_.commit()
    staged.send(lake)


def test_a_shape_keeps_ids_where_types_stay(tmp_path: Path) -> None:
    """A name keeps its meaning, and an id its type, down to the elements of lists."""
    old = Struct(
        (
            ("a", LONG),
            ("b", STRING),
            ("l", List(LONG)),
            ("o", List(Struct((("p", LONG), ("q", STRING))))),
            ("gone", STRING),
        )
    )
    new = Struct(
        (
            ("a", DOUBLE),
            ("b", STRING),
            ("l", List(DOUBLE)),
            ("o", List(Struct((("p", DOUBLE), ("q", STRING), ("r", LONG))))),
        )
    )
    schema = reshaped(main_schema(), old, last_id=100, schema_id=1)

    after = reshaped(schema, new, last_id=schema.highest_field_id, schema_id=2)
    later = reshaped(
        reshaped(schema, old, last_id=300, schema_id=3), new, after, last_id=300, schema_id=4
    )

    def ids(of: Any, *names: str) -> list[int]:
        return [of.find_field(name).field_id for name in names]

    assert shape_of(after) == new
    assert len(columns_of(shape_of(after))) == 6
    same = ("data", "data.b", "data.o", "data.o.element", "data.o.element.q")
    assert ids(after, *same) == ids(schema, *same)
    fresh = ("data.a", "data.l", "data.l.element", "data.o.element.p", "data.o.element.r")
    assert min(ids(after, *fresh)) > schema.highest_field_id
    assert len(set(ids(after, *fresh))) == 5
    assert later.as_struct() == after.as_struct(), "what was given out before comes first"
