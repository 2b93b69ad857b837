"""A table's columns made anew in place: all rows stay, `data` and `misfits` are written again.

What holds after `rewrite` returned: the same table has, by one snapshot, the columns of the new
shape and no others, and every row that it had, those that landed meanwhile included. Marks,
claims, pins and history are as they were; a pinned snapshot reads as before.

How, and why so:

1. Columns that change get new ids. They are given out beforehand, by a commit that only adds a
   schema: whatever landing adds meanwhile gets others, so files that were written stay good.
2. Data files are read one after the other, a few thousand rows at a time, and each is written
   anew for the new schema. No table refers to the new ones until the commit.
3. The commit replaces exactly the files of the snapshot that it was made for, and requires that
   this snapshot and its schema are still the current ones. If something landed or was merged in
   the meantime, only what is new is converted, and it is tried again. Where others keep being
   faster, landing is asked by a property of the table to hold back for some seconds.
4. Landing's commits require the schema that their batch was made for, so whoever lands after the
   rewrite plans the batch again.
5. No file is deleted here: a commit that was reported as failed may have landed. The orphan sweep
   takes what is left over. It waits three days, and a rewrite gives up long before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import IntegerType, LongType

from lakehouse.catalog import main_table
from lakehouse.columns import DATA, arrow_schema, reshaped, shape_of
from lakehouse.commit import Sent, Staged, arranged, location_of, refuse_changed
from lakehouse.parquet import (
    BYTES_PER_GROUP,
    ROWS_PER_GROUP,
    batches,
    columns_of,
    data_file,
    uncompressed_bytes,
    write_groups,
)
from lakehouse.replacing import Packed, packed, plain, replace, tasks_of
from lakehouse.tables import HOLD, Lake, read_view
from lakehouse.updates import (
    add_schema,
    same_last_id,
    same_schema,
    set_current,
    set_schema,
)
from penstock.envelope import Clock, CollectionId, Micros
from penstock.errors import BadRequest, EngineUnavailable, NotFound, TableChanged, WrongState
from penstock.faults import fault
from penstock.schema.again import Made, Payloads, converted
from penstock.schema.convert import Rules
from penstock.schema.shape import Struct

log = structlog.get_logger()

TOO_OLD: Micros = 86_400_000_000
"""A rewrite whose oldest file is older gives up: the sweep may take it after three days."""

# Read at once: as much as lands in a batch.
_ROWS, _BYTES = 20_000, 32 << 20

# When fewer rows than these have landed since the last look, one can try to commit.
_FEW_ROWS = 100_000

# So often others may be faster before they are asked to wait.
_POLITE = 3

# Paths of misfits that are told apart; whoever sends events chooses them.
_PATHS = 1_000

_EQUALITY_DELETES = "total-equality-deletes"


class Renewal(Protocol):
    """What a table is rewritten for."""

    @property
    def rules(self) -> Rules:
        """The collection's contract and bounds."""
        ...

    @property
    def keeps_columns(self) -> bool:
        """Whether no row may lose all that it has in columns and misfits.

        It would where its payload was read in another format when it landed.
        """
        ...

    def shape(self, present: Struct, payloads: Payloads) -> Struct | None:
        """Answer the shape that the table shall have, None if it may stay as it is.

        `present` is the shape it has now. `payloads` reads those that were not there when this was
        asked the last time, in the order of the files.
        """
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rewrite is: rows looked at or written so far, of how many."""

    step: Literal["look", "write"]
    rows: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What became of a table, or would have; `snapshot_id` is None if nothing was written."""

    before: Struct
    after: Struct
    snapshot_id: int | None
    files: int
    rows: int
    misfits_before: Counter[str]
    """By path; those of a thousand paths are told apart, and the others are at the path "…"."""
    misfits_after: Counter[str]
    refused: int
    """Rows whose payload is none of the format of today: no columns, and misfits if it is JSON."""


def rewrite(
    lake: Lake,
    collection: CollectionId,
    renewal: Renewal,
    *,
    why: Mapping[str, str],
    new_name: Callable[[], str],
    clock: Clock,
    tell: Callable[[Progress], None] = lambda _progress: None,
    dry_run: bool = False,
) -> Rewritten | None:
    """Give the collection's table the columns that `renewal` wants; None if it has them.

    `why` is noted in the snapshot. `new_name` gives a file a name that nobody else gives. With
    `dry_run` everything is converted, and nothing written or changed. Killed anywhere, the table
    is as before or as after.

    Raises `NotFound` if there is no table, `BadRequest` if it holds rows whose deletion cannot be
    read here, `WrongState` if rows would lose what the renewal keeps, `TableChanged` if it was
    replaced or rolled back, `EngineUnavailable` if catalog or files do not answer or others were
    faster for too long.
    """
    work = _Work(lake, collection, renewal, new_name=new_name, clock=clock, tell=tell, dry=dry_run)
    while True:
        ready = work.prepared(work.load())
        if ready is None:
            return None
        if dry_run:
            return work.result(ready, None)
        # What landed while all of it was converted is less each time.
        if ready.fresh <= _FEW_ROWS:
            break
    sent = Sent()
    staged: Staged | None = None
    for attempt in lake.patience.attempts():
        table = work.load()
        if staged is not None and sent.landed(table.metadata):
            return work.result(ready, staged.snapshot_id)
        sent.stop_if_hopeless()
        again = work.prepared(work.held(table) if attempt >= _POLITE else table)
        if again is None:
            return None
        ready = again
        staged = work.staged(ready, why)
        if sent.send(lake, staged):
            return work.result(ready, staged.snapshot_id)
    if staged is not None and sent.landed(work.load().metadata):
        return work.result(ready, staged.snapshot_id)
    raise EngineUnavailable(f"the table of {collection} kept changing beside its rewrite")


@dataclass(frozen=True, slots=True)
class _Copy:
    """What was written for a data file: the same rows, but for those that were `deleted`."""

    deletes: frozenset[str]
    file: Packed | None
    at: Micros
    rows: int
    before: Counter[str]
    after: Counter[str]
    refused: int


@dataclass(frozen=True, slots=True)
class _Ready:
    """A load of the table with a copy of each of its files. `fresh` rows were converted for it."""

    table: Table
    target: Schema
    tasks: Sequence[FileScanTask]
    fresh: int


@dataclass(slots=True)
class _Tally:
    """What is counted while a file is converted."""

    rows: int = 0
    refused: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)


class _Work:
    """A rewrite under way: what has been looked at and converted so far."""

    def __init__(
        self,
        lake: Lake,
        collection: CollectionId,
        renewal: Renewal,
        *,
        new_name: Callable[[], str],
        clock: Clock,
        tell: Callable[[Progress], None],
        dry: bool,
    ) -> None:
        self._lake = lake
        self._collection = collection
        self._renewal = renewal
        self._new_name = new_name
        self._clock = clock
        self._tell = tell
        self._dry = dry
        self._uuid: str | None = None
        self._before: Struct | None = None
        self._seen: set[str] = set()
        self._target: Schema | None = None
        self._copies: dict[str, _Copy] = {}
        self._paths: set[str] = set()

    def load(self) -> Table:
        """Load the table; raise if it is not the one that this began with."""
        table = self._lake.table(main_table(self._collection))
        if table is None:
            raise NotFound("table", str(self._collection))
        view = read_view(self._collection, table)
        refuse_changed(view)
        if self._uuid not in {None, view.uuid}:
            raise TableChanged(f"the table of {self._collection} was replaced by another one")
        self._uuid = view.uuid
        if self._before is None:
            self._before = view.shape
        return table

    def held(self, table: Table) -> Table:
        """Ask landing to hold back for a moment; answer the table as it is then."""
        return self._lake.hold(table, self._clock) or self.load()

    def prepared(self, table: Table) -> _Ready | None:
        """Convert what is not converted yet; None if the table may stay as it is."""
        for _ in self._lake.patience.attempts():
            tasks = _planned(table, self._collection)
            shape = self._shape(table, tasks)
            if shape is None or not tasks:
                return None
            metadata = table.metadata
            target = reshaped(
                metadata.schema(),
                shape,
                self._target,
                last_id=metadata.last_column_id,
                schema_id=max(schema.schema_id for schema in metadata.schemas) + 1,
            )
            if self._dry or target.highest_field_id <= metadata.last_column_id:
                return self._converted(table, tasks, target)
            reserved = self._reserve(table, target)
            table = reserved or self.load()
        raise EngineUnavailable(f"the table of {self._collection} kept getting columns")

    def _shape(self, table: Table, tasks: Sequence[FileScanTask]) -> Struct | None:
        """Answer the shape to be, which files that were not looked at may have a say in."""
        fresh = [task for task in tasks if task.file.file_path not in self._seen]
        shape = self._renewal.shape(
            shape_of(table.metadata.schema()), lambda: self._payloads(table, fresh)
        )
        self._seen.update(task.file.file_path for task in fresh)
        return shape

    def _payloads(self, table: Table, tasks: Sequence[FileScanTask]) -> Iterator[pa.Array]:
        wanted = pa.schema([arrow_schema(table.metadata.schema()).field("payload")])
        of, rows = sum(task.file.record_count for task in tasks), 0
        for task in tasks:
            for part in _rows_of(table, task, wanted):
                rows += part.num_rows
                yield part.column("payload")
                self._tell(Progress("look", rows, of))

    def _reserve(self, table: Table, target: Schema) -> Table | None:
        """Give out the new ids of a schema; None where somebody else gave some out before."""
        try:
            after = self._lake.send(table, (add_schema(target),), (same_last_id(table.metadata),))
        except CommitFailedException as error:
            log.info("ids of columns not given out", error=str(error))
            return None
        self._take(target)
        fault("rewrite_reserved")
        return after

    def _take(self, target: Schema) -> None:
        """Convert for this schema from now on; forget copies in which it would not find all."""
        if self._target is not None and not _ids(self._target) <= _ids(target):
            self._copies.clear()
        self._target = target

    def _converted(self, table: Table, tasks: Sequence[FileScanTask], target: Schema) -> _Ready:
        self._take(target)
        missing = [task for task in tasks if not self._has(task)]
        of, rows = sum(task.file.record_count for task in missing), 0
        for task in missing:
            self._copies[task.file.file_path] = copy = self._copy(table, task, target, rows, of)
            rows += task.file.record_count
            if copy.file is not None:
                fault("rewrite_file")
        return _Ready(table, target, tasks, rows)

    def _has(self, task: FileScanTask) -> bool:
        """Say whether the file was copied as it is now: rows may have been deleted since."""
        copy = self._copies.get(task.file.file_path)
        return copy is not None and copy.deletes == _deletes(task)

    def _copy(self, table: Table, task: FileScanTask, target: Schema, done: int, of: int) -> _Copy:
        """Write the rows of a file anew; nothing refers to the new file yet."""
        tally, at = _Tally(), self._clock()
        file = None
        parts = self._parts(table, task, target, tally, done, of)
        if self._dry:
            for _ in parts:
                pass
        else:
            file = self._write(table, task, target, parts)
        return _Copy(_deletes(task), file, at, tally.rows, tally.before, tally.after, tally.refused)

    def _write(
        self, table: Table, task: FileScanTask, target: Schema, parts: Iterator[pa.Table]
    ) -> Packed | None:
        groups = _grouped(parts)
        first = next(groups, None)
        if first is None:
            return None
        columns = columns_of(target)
        day = task.file.partition[0]
        location = location_of(table, day, self._new_name())
        output = table.io.new_output(location)
        with output.create() as stream:
            footer = write_groups(
                chain((first,), groups),
                arrow_schema(target),
                columns,
                stream,
                dense=True,
                most=min(ROWS_PER_GROUP, task.file.record_count),
            )
        return packed(
            data_file(location, len(output), footer, columns, day=day, spec=task.file.spec_id)
        )

    def _parts(
        self, table: Table, task: FileScanTask, target: Schema, tally: _Tally, done: int, of: int
    ) -> Iterator[pa.Table]:
        """Answer the rows of a file with new `data` and `misfits`, some at a time."""
        arrow, shape = arrow_schema(target), shape_of(target)
        keeps = self._renewal.keeps_columns
        stored = arrow_schema(table.metadata.schema())
        wanted = [one for one in stored if one.name != DATA or keeps]
        for rows in _rows_of(table, task, pa.schema(wanted)):
            for part, made in converted(rows, shape, self._renewal.rules):
                if keeps:
                    self._refuse_losses(part, made)
                self._count(tally.before, part.column("misfits"))
                self._count(tally.after, made.misfits)
                tally.rows += part.num_rows
                tally.refused += made.refused
                names = [name for name in part.schema.names if name != DATA]
                columns = [
                    made.misfits if name == "misfits" else part.column(name) for name in names
                ]
                data = {} if made.data is None else {DATA: made.data}
                yield arranged(pa.table({**dict(zip(names, columns, strict=True)), **data}), arrow)
            self._tell(Progress("write", done + tally.rows, of))

    def _refuse_losses(self, part: pa.RecordBatch, made: Made) -> None:
        if lost := made.lost(part):
            raise WrongState(
                f"{lost} rows of {self._collection}, or more, landed in an earlier format, and "
                "would have no columns in that of today: 'penstock collection rebuild' makes the "
                "columns of all rows again by the format of today"
            )

    def _count(self, counts: Counter[str], misfits: pa.Array | pa.ChunkedArray) -> None:
        if misfits.null_count == len(misfits):
            return
        for found in pc.value_counts(pc.struct_field(pc.list_flatten(misfits), "path")).to_pylist():
            path = found["values"]
            if path not in self._paths and len(self._paths) < _PATHS:
                self._paths.add(path)
            counts[path if path in self._paths else "…"] += found["counts"]

    def staged(self, ready: _Ready, why: Mapping[str, str]) -> Staged:
        """Stage the one commit: the new schema, then all files replaced by their copies."""
        copies = [self._copies[task.file.file_path] for task in ready.tasks]
        if self._clock() - min(copy.at for copy in copies) > TOO_OLD:
            raise EngineUnavailable(
                f"the rewrite of {self._collection} took more than a day and was not committed"
            )
        base, target = ready.table.metadata, ready.target
        staged = Staged(ready.table)
        staged.require(same_schema(base))
        if target.as_struct() != base.schema().as_struct():
            known = [s.schema_id for s in base.schemas if s.as_struct() == target.as_struct()]
            update = set_current(known[0]) if known else set_schema(target)
            staged.change(update, same_last_id(base))
        # Its requirement is that the branch is at the snapshot that was read.
        staged.snapshot_id = replace(
            staged,
            dict(why),
            [task.file for task in ready.tasks],
            [copy.file for copy in copies if copy.file is not None],
        )
        if HOLD in base.properties:
            staged.remove_properties(HOLD)
        return staged

    def result(self, ready: _Ready, snapshot_id: int | None) -> Rewritten:
        """Answer what was done."""
        copies = [self._copies[task.file.file_path] for task in ready.tasks]
        assert self._before is not None  # noqa: S101 - nothing is ready before it was loaded
        return Rewritten(
            before=self._before,
            after=shape_of(ready.target),
            snapshot_id=snapshot_id,
            files=len(copies),
            rows=sum(copy.rows for copy in copies),
            misfits_before=sum((copy.before for copy in copies), Counter()),
            misfits_after=sum((copy.after for copy in copies), Counter()),
            refused=sum(copy.refused for copy in copies),
        )


def _planned(
    table: Table, collection: CollectionId, place: Callable[[Schema, DataFile], Any] | None = None
) -> list[FileScanTask]:
    """Answer the data files in the order of their first log positions, or of `place`.

    They come without the metrics of their columns, which would take most of the memory.
    """
    snapshot = table.metadata.current_snapshot()
    summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    if int(summary.get(_EQUALITY_DELETES, "0")):
        raise BadRequest(
            f"rows of {collection} were deleted by their values (Iceberg's equality deletes), "
            "which cannot be read here: let the engine that wrote them rewrite the files first"
        )
    schema, place = table.metadata.schema(), place or first_position
    placed: list[tuple[Any, int, FileScanTask]] = []
    for number, task in enumerate(tasks_of(table)):
        for file in task.delete_files:
            positions = file.content == DataFileContent.POSITION_DELETES
            if not positions or file.file_format != FileFormat.PARQUET:
                raise BadRequest(
                    f"rows of {collection} were deleted beside their files in a form "
                    f"({file.file_format}) which cannot be read here: let the engine that wrote "
                    "it rewrite the files first"
                )
        bare = FileScanTask(plain(task.file), {plain(file) for file in task.delete_files})
        placed.append((place(schema, task.file), number, bare))
    return [task for _, _, task in sorted(placed, key=lambda one: one[:2])]


def first_position(schema: Schema, file: DataFile) -> tuple[int, int]:
    """Answer the least log partition and the least offset of a file's rows."""
    least = file.lower_bounds or {}
    return (
        _bound(IntegerType(), least.get(schema.find_field("log_partition").field_id)),
        _bound(LongType(), least.get(schema.find_field("log_offset").field_id)),
    )


def _bound(kind: IntegerType | LongType, packed: bytes | None) -> int:
    return int(from_bytes(kind, packed)) if packed else 0


def _deletes(task: FileScanTask) -> frozenset[str]:
    return frozenset(file.file_path for file in task.delete_files)


def _rows_of(table: Table, task: FileScanTask, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Read a file's columns, a few thousand rows at a time, without the rows that were deleted."""
    file = task.file
    try:
        deleted = _deleted_rows(table, task)
        with table.io.new_input(file.file_path).open() as stream:
            raw = uncompressed_bytes(stream)
        size = max(1, min(_ROWS, _BYTES * file.record_count // max(1, raw)))
        with table.io.new_input(file.file_path).open() as stream:
            start = 0
            for part in batches(stream, wanted, first=0, last=file.record_count - 1, size=size):
                numbers = pa.array(range(start, start + part.num_rows), pa.int64())
                start += part.num_rows
                if deleted is None:
                    yield part
                else:
                    yield part.filter(pc.invert(pc.is_in(numbers, deleted)))
    except (OSError, pa.ArrowException) as error:
        raise EngineUnavailable("the tables cannot be read now") from error


def _deleted_rows(table: Table, task: FileScanTask) -> pa.ChunkedArray | None:
    """Answer the numbers of the rows of a file that were deleted beside it, None for none."""
    found = []
    for file in task.delete_files:
        with table.io.new_input(file.file_path).open() as stream:
            rows = pq.ParquetFile(stream).read(["file_path", "pos"])
        found.append(rows.filter(pc.equal(rows["file_path"], task.file.file_path))["pos"])
    if not found:
        return None
    return pa.chunked_array([chunk for one in found for chunk in one.chunks], pa.int64())


def _grouped(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Answer the rows in tables as large as a row group may be."""
    held: list[pa.Table] = []
    rows = size = 0
    for part in parts:
        if held and (rows + part.num_rows > ROWS_PER_GROUP or size + part.nbytes > BYTES_PER_GROUP):
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
        if part.num_rows:
            held.append(part)
            rows += part.num_rows
            size += part.nbytes
    if held:
        yield pa.concat_tables(held)


def _ids(schema: Schema) -> set[int]:
    """Answer the ids of all columns of scalars."""
    return {column.field_id for column in columns_of(schema)}


def newest(
    lake: Lake, collection: CollectionId, column: str, *, most_rows: int, most_files: int
) -> Iterator[pa.RecordBatch]:
    """Read a column of the rows that were received last, from few files, the newest first.

    Ends after the file with which there are `most_rows`, or after `most_files`. Raises as
    `rewrite` does.
    """
    table = lake.table(main_table(collection))
    if table is None:
        raise NotFound("table", str(collection))
    schema = table.metadata.schema()
    if column not in {one.name for one in schema.fields}:
        return
    received = schema.find_field("received_at").field_id

    def newest_first(_schema: Schema, file: DataFile) -> int:
        return -_bound(LongType(), (file.upper_bounds or {}).get(received))

    wanted = pa.schema([arrow_schema(schema).field(column)])
    rows = 0
    for task in _planned(table, collection, newest_first)[:most_files]:
        for part in _rows_of(table, task, wanted):
            rows += part.num_rows
            yield part
        if rows >= most_rows:
            return
