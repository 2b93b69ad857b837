"""Drop the oldest days of a table, and keep the count of what was dropped with it.

One snapshot drops all of the days and moves the count, so that no reader sees half a day and no
row is counted twice: the commit is fenced by the table's newest snapshot, as a landing's is. Marks
stay, so nothing of it lands again. A snapshot that somebody pinned keeps its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa
import structlog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _OverwriteFiles
from pyiceberg.typedef import Identifier

from lakehouse.columns import PARTITION, arrow_schema
from lakehouse.commit import Staged
from lakehouse.parquet import batches
from lakehouse.tables import (
    EXPIRED_BEFORE,
    NOTHING_EXPIRED,
    Expired,
    Lake,
    expired_of,
    expired_properties,
)
from penstock.envelope import Mark
from penstock.errors import EngineUnavailable
from penstock.faults import fault

log = structlog.get_logger()

_ORIGIN = date(1970, 1, 1)
_PLACE = ("log_id", "log_partition", "log_offset")
_REPEATS = "duplicate_of"
_ROWS_AT_ONCE = 100_000

# As in landing: a full disk or a bug does not pass by being tried again.
_OTHER_ERRORS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day of a table: how many rows and bytes its files have, deleted rows included."""

    day: date
    rows: int
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Old:
    """The days of a table that are due, and the tags that keep some of their files."""

    days: tuple[Day, ...] = ()
    pinned_by: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows they have."""
        return sum(one.rows for one in self.days)


NOTHING_OLD = Old()


def date_of(day: int) -> date:
    """Answer the date of a day that is counted from the first of 1970."""
    return _ORIGIN + timedelta(days=day)


def old_days(
    lake: Lake,
    name: Identifier,
    *,
    before: int,
    landed: Iterable[Mark] | None = None,
    spared: frozenset[date] = frozenset(),
) -> Old:
    """Answer what `drop_days` would drop now; nothing without a table."""
    table = lake.table(name)
    if table is None:
        return NOTHING_OLD
    tasks = _decided(table, _tasks(table, before, spared), landed, {})
    found: dict[int, list[FileScanTask]] = {}
    for task in tasks:
        found.setdefault(task.file.partition[0], []).append(task)
    days = tuple(
        Day(
            day=date_of(day),
            rows=sum(task.file.record_count for task in of_day),
            bytes=sum(task.file.file_size_in_bytes for task in of_day),
            files=len(of_day),
        )
        for day, of_day in sorted(found.items())
    )
    return Old(days, _pinned_by(table, {task.file.file_path for task in tasks}))


def drop_days(
    lake: Lake,
    name: Identifier,
    *,
    before: int,
    landed: Iterable[Mark] | None = None,
    spared: frozenset[date] = frozenset(),
) -> int:
    """Drop the days before `before` (counted from 1970); answer how many rows those were.

    With `landed`, the marks of the main table, a day stays that has a position they do not cover:
    until then quarantine says what becomes of it. So do those that are `spared`. Raises
    `EngineUnavailable` where others keep changing the table.
    """
    known: dict[str, dict[tuple[str, int], Expired]] = {}
    sent: list[tuple[int, int]] = []
    errors: list[Exception] = []
    for _ in lake.patience.attempts():
        table = lake.table(name)
        if table is None:
            return 0
        # A commit that was reported as failed may have been made.
        for snapshot, rows in sent:
            if table.metadata.snapshot_by_id(snapshot) is not None:
                return rows
        if len(errors) >= _OTHER_ERRORS:
            raise errors[-1]
        tasks = _decided(table, _tasks(table, before, spared), landed, known)
        if not tasks:
            return 0
        staged, rows = _stage(table, tasks, before, known)
        sent.append((staged.snapshot_id, rows))
        fault("retention_before_commit")
        try:
            staged.send(lake)
        except CommitFailedException as error:
            log.info("retention met another commit", table=".".join(name), error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the table tells what holds
            log.warning("retention failed", table=".".join(name), error=type(error).__name__)
            errors.append(error)
        else:
            log.info("days dropped", table=".".join(name), rows=rows)
            return rows
    raise EngineUnavailable(f"{'.'.join(name)} kept changing beside the drop of its old days")


def _stage(
    table: Table,
    tasks: Iterable[FileScanTask],
    before: int,
    known: dict[str, dict[tuple[str, int], Expired]],
) -> tuple[Staged, int]:
    """Stage the drop of the files, and the count with them; answer the rows it drops."""
    dropped: dict[tuple[str, int], Expired] = {}
    staged = Staged(table)
    # PyIceberg's own `overwrite()` would call it an overwrite; nothing is written.
    drop = _OverwriteFiles(
        operation=Operation.DELETE,
        transaction=staged,
        io=table.io,
        snapshot_properties={"penstock.upkeep": "retention"},
    )
    rows = 0
    for task in tasks:
        drop.delete_data_file(task.file)
        for place, expired in _counted(table, task, known).items():
            dropped[place] = dropped.get(place, NOTHING_EXPIRED) + expired
            rows += expired.rows
    drop.commit()
    staged.snapshot_id = drop.snapshot_id
    before_it = expired_of(table.metadata)
    totals = {p: before_it.get(p, NOTHING_EXPIRED) + more for p, more in dropped.items()}
    counts = expired_properties(table.metadata, totals)
    staged.set_properties({**counts, EXPIRED_BEFORE: str(date_of(before))})
    return staged, rows


def _tasks(table: Table, before: int, spared: frozenset[date]) -> list[FileScanTask]:
    """Answer the files of the days before that are not spared."""
    # Another engine may have partitioned the table anew: then nothing says of what day a file is.
    if [field.name for field in table.metadata.spec().fields] != [PARTITION]:
        log.warning("not by days any more, nothing is dropped", table=".".join(table.name()))
        return []
    until = f"{date_of(before).isoformat()}T00:00:00+00:00"
    spec = table.metadata.default_spec_id
    return [
        task
        for task in table.scan(row_filter=f"received_at < '{until}'").plan_files()
        if task.file.spec_id == spec
        and task.file.partition[0] < before
        and date_of(task.file.partition[0]) not in spared
    ]


def _decided(
    table: Table,
    tasks: list[FileScanTask],
    landed: Iterable[Mark] | None,
    known: dict[str, dict[tuple[str, int], Expired]],
) -> list[FileScanTask]:
    """Leave out days with a position that the marks do not cover."""
    if landed is None:
        return tasks
    marks: Mapping[tuple[str, int], int] = {(m.log_id, m.partition): m.next for m in landed}
    open_days = {
        task.file.partition[0]
        for task in tasks
        for place, expired in _counted(table, task, known).items()
        if expired.upto > marks.get(place, 0)
    }
    return [task for task in tasks if task.file.partition[0] not in open_days]


def _counted(
    table: Table, task: FileScanTask, known: dict[str, dict[tuple[str, int], Expired]]
) -> dict[tuple[str, int], Expired]:
    """Count the rows of a file by log and partition; those deleted beside it are not there."""
    path = task.file.file_path
    # What is deleted beside a file may become more between two attempts.
    key = (
        path
        if not task.delete_files
        else f"{path} {sorted(d.file_path for d in task.delete_files)}"
    )
    if key not in known:
        found: dict[tuple[str, int], Expired] = {}
        for batch in _places(table, task):
            counted = [("log_offset", "count"), ("log_offset", "max")]
            if _REPEATS in batch.schema.names:
                counted.append((_REPEATS, "count"))
            sums = (
                pa.Table.from_batches([batch])
                .group_by(["log_id", "log_partition"])
                .aggregate(counted)
            )
            for row in sums.to_pylist():
                place = (row["log_id"], row["log_partition"])
                more = Expired(
                    row["log_offset_count"],
                    row["log_offset_max"] + 1,
                    row.get(f"{_REPEATS}_count", 0),
                )
                found[place] = found.get(place, NOTHING_EXPIRED) + more
        known[key] = found
    return known[key]


def _places(table: Table, task: FileScanTask) -> Iterator[pa.RecordBatch]:
    schema = table.metadata.schema()
    # Those of quarantine repeat nothing.
    names = [name for name in (*_PLACE, _REPEATS) if name in schema.column_names]
    if task.delete_files:
        wanted = schema.select(*names)
        yield from ArrowScan(table.metadata, table.io, wanted, AlwaysTrue()).to_record_batches(
            [task]
        )
        return
    arrow = arrow_schema(schema)
    columns = pa.schema([arrow.field(name) for name in names])
    with table.io.new_input(task.file.file_path).open() as stream:
        last = task.file.record_count - 1
        yield from batches(stream, columns, first=0, last=last, size=_ROWS_AT_ONCE)


def _pinned_by(table: Table, files: set[str]) -> tuple[str, ...]:
    """Answer the names that point at a snapshot which has one of the files."""
    metadata = table.metadata
    holds: dict[int, bool] = {}
    found = []
    for name, ref in metadata.refs.items():
        number = ref.snapshot_id
        if name == MAIN_BRANCH or not files:
            continue
        if number not in holds:
            tasks = table.scan(snapshot_id=number).plan_files()
            holds[number] = any(task.file.file_path in files for task in tasks)
        if holds[number]:
            found.append(name)
    return tuple(sorted(found))
