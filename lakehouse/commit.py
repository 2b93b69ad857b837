"""Landing's commit: rows, new columns and marks become one snapshot, exactly once.

What holds after `land` returned: every row of the batch is in the main table or in quarantine,
once, and the main table's marks say so in the same commit that brought the rows.

The order, and why (each was seen to fail otherwise):

1. Quarantine first, main last. Only main's marks say where to start, so a crash in between
   repeats the batch; positions that reached quarantine stay there, everything else goes to main
   unconditionally. A contract changed in between neither loses nor doubles.
   Before anything goes to quarantine it is claimed in main, by a commit like any other: whoever
   lands those positions meets the claim, and lets quarantine decide first, even if it has nothing
   to put there. So two who disagree about an event do not put it into both tables.
2. The append is staged before the marks, and a batch without rows appends nothing but makes a
   snapshot all the same: a commit of properties alone is not checked against other commits, and
   moved a mark back.
3. The commit is sent once. PyIceberg's own retries would append a span that somebody else has
   landed in the meantime, and its clean-up deletes the files of a commit that was reported as
   failed but landed. After every error the table is loaded again and `after_failure` decides.
4. The current schema must be the one the batch was made for. Files are used again only under that
   schema: two lanes that discover different fields from one base give them the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile, ManifestFile, ManifestWriter
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    TableRequirement,
    TableUpdate,
    ValidatableTableRequirement,
    update_table_metadata,
)
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.typedef import Identifier

from lakehouse.catalog import main_table, quarantine_table
from lakehouse.columns import PARTITION, ShapeChanged, arrow_schema, evolve
from lakehouse.parquet import columns_of, data_file, write
from lakehouse.tables import (
    CLAIM,
    LANDED,
    REPEATS,
    Lake,
    TableView,
    held_back,
    mark_properties,
    read_view,
    repeats_property,
    scanned,
)
from lakehouse.updates import same_last_id, same_schema, set_schema
from penstock.envelope import Clock, Mark, Micros
from penstock.errors import (
    EngineUnavailable,
    TableChanged,
    TableReplaced,
    TableRolledBack,
    TableUnmarked,
)
from penstock.faults import fault
from penstock.schema.convert import Converted
from penstock.schema.repeats import Marked
from penstock.schema.shape import Struct

log = structlog.get_logger()

BATCH = "penstock.batch"

_DAY: Micros = 86_400_000_000

# The sweep may take files that nothing referred to for three days; a batch that old would be
# committed without complaint although its files are gone.
TOO_OLD: Micros = 3_600_000_000

# Conflicts are tried again until patience ends; a full disk or a bug is not.
_OTHER_ERRORS = 3


class Next(Enum):
    """What to do after a commit that raised."""

    DONE = "done"
    REBUILD = "rebuild"
    REPLAN = "replan"


@dataclass(frozen=True, slots=True)
class Committed:
    """The batch is in the table, as `view` shows. `here` is false where somebody else did it."""

    view: TableView
    rows: int
    quarantined: int
    file_bytes: int
    here: bool
    marked: Marked | None = None
    """The rows as they were written, where this landing did it."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The table moved on, by other marks or another schema: plan the batch again from `view`."""

    view: TableView


@dataclass(frozen=True, slots=True)
class Written:
    """Files that are not part of a table yet.

    `schema` is the table's with the columns that they add, None if they add none; their ids were
    given after `last_id`.
    """

    files: tuple[DataFile, ...]
    bytes: int
    at: Micros
    schema: Schema | None
    last_id: int


def after_failure(
    *,
    own_snapshot_seen: bool,
    marks: Sequence[Mark],
    starts: Sequence[Mark],
    ends: Sequence[Mark],
    same_schema: bool,
) -> Next:
    """Decide what follows a commit that raised, from what the table says now.

    A conflict can be reported for a commit that landed, so the own snapshot decides before the
    kind of error does. `starts` and `ends` hold one mark for each partition of the batch.
    """
    now = {(mark.log_id, mark.partition): mark for mark in marks}
    if own_snapshot_seen:
        return Next.DONE
    reached = [now.get((end.log_id, end.partition)) for end in ends]
    if all(mark and mark.next >= end.next for mark, end in zip(reached, ends, strict=True)):
        return Next.DONE
    unmoved = all(
        mark == start or (mark is None and start.next == 0)
        for mark, start in zip(reached, starts, strict=True)
    )
    return Next.REBUILD if unmoved and same_schema else Next.REPLAN


def refuse_changed(view: TableView, *, quarantine: bool = False) -> None:
    """Raise `TableRolledBack` if the table lost what it had, `TableUnmarked` if it has no marks."""
    if view.rolled_back:
        raise TableRolledBack(
            f"the {_which(quarantine)} of {view.collection} was rolled back: its marks say that "
            "events landed which it no longer has",
            quarantine=quarantine,
        )
    if view.rows and not view.marks:
        raise TableUnmarked(
            f"the {_which(quarantine)} of {view.collection} has rows but no marks: it was copied "
            "or made anew by something else, and landing into it could double what it has"
        )


def refuse_either_changed(main: TableView, quarantine: TableView | None) -> None:
    """Raise as `refuse_changed` does for a collection's tables, the main one first."""
    refuse_changed(main)
    if quarantine is not None:
        refuse_changed(quarantine, quarantine=True)


def _which(quarantine: bool) -> str:
    return "quarantine" if quarantine else "table"


@dataclass(frozen=True, slots=True)
class Held:
    """What quarantine has of a batch that was begun before.

    All positions below `until` were decided then, and those in `offsets` went to quarantine.
    """

    log_id: str
    partition: int
    until: int
    offsets: frozenset[int]


AsRows = Callable[[pa.Table, pa.Schema], pa.Table]
"""Turns quarantined events into rows of the given schema."""


Look = Callable[[Table, pa.Table], Marked]
"""Marks those of the rows that repeat others, of them or of this load of the table."""


def unmarked(_table: Table, rows: pa.Table) -> Marked:
    """Answer the rows as they are."""
    return Marked(rows)


def opaque(quarantined: pa.Table, schema: pa.Schema) -> pa.Table:
    """Turn quarantined events into rows without columns of their own; the payload says it all."""
    count = quarantined.num_rows
    return pa.Table.from_arrays(
        [
            quarantined.column(field.name)
            if field.name in quarantined.column_names
            else pa.nulls(count, field.type)
            for field in schema
        ],
        schema=schema,
    )


def settle(
    rows: pa.Table, quarantined: pa.Table, held: Sequence[Held], as_rows: AsRows
) -> tuple[pa.Table, pa.Table]:
    """Answer the rows for main and for quarantine, after what was decided the first time.

    A position that quarantine holds stays there; one that was decided and is not there goes to
    main, even if it would go to quarantine now.
    """
    for part in held:
        rows = rows.filter(pc.invert(_in(rows, part)))
        decided = pc.and_(_of(quarantined, part), pc.less(quarantined["log_offset"], part.until))
        forced = quarantined.filter(pc.and_not(decided, _in(quarantined, part)))
        quarantined = quarantined.filter(pc.invert(decided))
        if forced.num_rows:
            rows = pa.concat_tables([rows, as_rows(forced, rows.schema)])
            rows = rows.sort_by([("log_partition", "ascending"), ("log_offset", "ascending")])
    return rows, quarantined


def held_by_quarantine(table: Table, view: TableView, starts: Sequence[Mark]) -> tuple[Held, ...]:
    """Answer what quarantine absorbed beyond main's marks: nothing, but after a crash."""
    held = []
    for start in starts:
        until = view.mark(start.log_id, start.partition).next
        if until > start.next:
            log.info(
                "quarantine is ahead of the table, an earlier landing broke off",
                collection=str(view.collection),
                partition=start.partition,
                start=start.next,
                until=until,
            )
            held.append(Held(start.log_id, start.partition, until, _offsets(table, start, until)))
    return tuple(held)


def _offsets(table: Table, start: Mark, until: int) -> frozenset[int]:
    """Answer the positions from `start` until `until` (exclusive) that the table has."""
    wanted = (
        f"log_partition = {start.partition} and log_offset >= {start.next} and log_offset < {until}"
    )
    found: set[int] = set()
    for rows in scanned(table, ("log_id", "log_offset"), wanted):
        found.update(rows.filter(pc.equal(rows["log_id"], start.log_id))["log_offset"].to_pylist())
    return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What `land` is to put into the tables.

    It holds every record from `based_on`'s marks to `marks`, converted for `based_on`'s schema.
    `batch_id` names the files for people; `run_id` makes the names unique.
    """

    converted: Converted
    based_on: TableView
    marks: tuple[Mark, ...]
    batch_id: str
    run_id: str
    as_rows: AsRows = opaque
    look: Look = unmarked

    @property
    def starts(self) -> list[Mark]:
        """Where the batch begins, a mark for each in `marks`."""
        return [self.based_on.mark(mark.log_id, mark.partition) for mark in self.marks]

    def file_name(self, attempt: int) -> str:
        """Name a file that was never written before, nor by anybody else."""
        return f"{self.batch_id}-{self.run_id}-{attempt}"


def land(lake: Lake, batch: Batch, *, clock: Clock) -> Committed | Stale:
    """Put the batch into the collection's tables, exactly once, and move main's marks.

    Answers `Stale` where the batch has to be planned again. Raises `TableChanged` if the table is
    another one than the batch was made for or was rolled back, `EngineUnavailable` if the catalog
    does not answer or others were faster for too long, and whatever the file system raises; the
    batch may then have landed, which the next look at the marks tells.
    """
    decided = _quarantine_first(lake, batch, clock)
    if not isinstance(decided, _Decided):
        return decided
    return _main_last(lake, batch, decided, clock)


@dataclass(frozen=True, slots=True)
class _Decided:
    """The rows that are left for main, and the quarantine from which that follows."""

    rows: pa.Table
    quarantine: TableView


def claimed_beyond(main: TableView, quarantine: TableView, batch: Batch) -> bool:
    """Say whether somebody may yet put events of the batch into quarantine."""
    for start, end in zip(batch.starts, batch.marks, strict=True):
        decided = quarantine.mark(end.log_id, end.partition).next
        claimed = main.claim(end.log_id, end.partition).next
        if decided < end.next and claimed > max(start.next, decided):
            return True
    return False


def _quarantine_first(lake: Lake, batch: Batch, clock: Clock) -> _Decided | Committed | Stale:
    """Let quarantine decide about the batch, where it must; answer the rows left for main."""
    name = quarantine_table(batch.based_on.collection)
    sent = Sent()
    claimed = False
    for attempt in lake.patience.attempts():
        table = _load(lake, name)
        view = read_view(batch.based_on.collection, table)
        refuse_changed(view, quarantine=True)
        # One load serves the look and the commit: nobody can quarantine anything in between.
        held = held_by_quarantine(table, view, batch.starts)
        rows, quarantined = settle(
            batch.converted.rows, batch.converted.quarantined, held, batch.as_rows
        )
        if not quarantined.num_rows and not claimed_beyond(batch.based_on, view, batch):
            return _Decided(rows, view)
        if quarantined.num_rows and not claimed:
            overtaken = _claim(lake, batch, clock)
            if overtaken:
                return overtaken
            claimed = True
        sent.stop_if_hopeless()
        files = _write(table, None, quarantined, name=batch.file_name(attempt), at=clock())
        ahead = [m for m in batch.marks if m.next > view.mark(m.log_id, m.partition).next]
        after = sent.send(lake, _stage(table, files, ahead, batch.batch_id))
        if after:
            return _Decided(rows, read_view(view.collection, after))
    raise _kept_changing(batch)


def _claim(lake: Lake, batch: Batch, clock: Clock) -> Committed | Stale | None:
    """Claim the batch for quarantine in main; answer how it was overtaken, None if it was not."""
    sent = Sent()
    for _ in lake.patience.attempts():
        table = _load(lake, main_table(batch.based_on.collection))
        view = read_view(batch.based_on.collection, table)
        _refuse_other_table(view, batch.based_on)
        refuse_changed(view)
        step = _step(view, batch, own_snapshot_seen=False)
        if step is Next.DONE:
            return Committed(view, 0, 0, 0, here=False)
        if step is Next.REPLAN:
            return Stale(view)
        ahead = [m for m in batch.marks if m.next > view.claim(m.log_id, m.partition).next]
        if not ahead:
            return None
        if held_back(table.metadata, clock):
            continue
        sent.stop_if_hopeless()
        if sent.send(lake, _stage_claim(table, ahead, batch.batch_id)):
            return None
    raise _kept_changing(batch)


def _step(view: TableView, batch: Batch, *, own_snapshot_seen: bool) -> Next:
    return after_failure(
        own_snapshot_seen=own_snapshot_seen,
        marks=view.marks,
        starts=batch.starts,
        ends=batch.marks,
        same_schema=view.schema_id == batch.based_on.schema_id,
    )


def _main_last(lake: Lake, batch: Batch, decided: _Decided, clock: Clock) -> Committed | Stale:
    """Put the rows and the marks into the main table."""
    name = main_table(batch.based_on.collection)
    rows = decided.rows
    events = batch.converted.rows.num_rows + batch.converted.quarantined.num_rows
    quarantined = events - rows.num_rows
    sent = Sent()
    files: Written | None = None
    marked: Marked | None = None
    for attempt in lake.patience.attempts():
        table = _load(lake, name)
        view = read_view(batch.based_on.collection, table)
        _refuse_other_table(view, batch.based_on)
        refuse_changed(view)
        landed = sent.landed(table.metadata)
        step = _step(view, batch, own_snapshot_seen=landed)
        if step is Next.DONE:
            size = files.bytes if files and landed else 0
            mine = marked if landed else None
            return Committed(view, rows.num_rows, quarantined, size, here=landed, marked=mine)
        if step is Next.REPLAN or claimed_beyond(view, decided.quarantine, batch):
            return Stale(view)
        if held_back(table.metadata, clock):
            continue
        sent.stop_if_hopeless()
        # After each lost race again: what was faster may have brought what these rows repeat.
        before, marked = marked, batch.look(table, rows)
        stale = before is not None and not _same_marks(before.rows, marked.rows)
        if files is None or stale or files.last_id != table.metadata.last_column_id:
            schema = _evolved(table.metadata, batch.converted.shape)
            files = _write(table, schema, marked.rows, name=batch.file_name(attempt), at=clock())
            fault("after_parquet")
        if clock() - files.at > TOO_OLD:
            raise EngineUnavailable(f"a batch of {view.collection} is an hour old, not committed")
        staged = _stage(table, files, batch.marks, batch.batch_id, repeats=marked.repeats)
        after = sent.send(lake, staged)
        if after:
            view = read_view(view.collection, after)
            count = rows.num_rows
            return Committed(view, count, quarantined, files.bytes, here=True, marked=marked)
    raise _kept_changing(batch)


class Staged(Transaction):
    """Updates of a table that go to the catalog once, as they are."""

    snapshot_id: int
    _applied: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The metadata with the staged updates.

        PyIceberg copies all of it at each of some twenty looks: 70 of the 100 ms of a commit.
        """
        base, updates = self._table.metadata, self._updates
        applied = self._applied
        if applied is None or applied[0] is not base or applied[1] is not updates:
            metadata = update_table_metadata(base, updates) if updates else base
            applied = self._applied = (base, updates, metadata)
        return applied[2]

    def _register_snapshot_producer(self, producer: _SnapshotProducer[Any]) -> None:
        """Have the manifests looked at apart.

        PyIceberg does it in threads, with one evaluator that keeps the bounds it looks at: a thread
        that took those of another's manifest missed a file that is there.
        """
        super()._register_snapshot_producer(producer)
        one = producer._build_manifest_evaluator  # noqa: SLF001

        def apart(spec_id: int) -> Callable[[ManifestFile], bool]:
            def look(manifest: ManifestFile) -> bool:
                return one(spec_id)(manifest)

            return look

        producer._build_manifest_evaluator = apart  # type: ignore[method-assign]  # noqa: SLF001
        new_writer = producer.new_manifest_writer

        def telling(spec: PartitionSpec) -> AbstractContextManager[ManifestWriter]:
            return _telling(new_writer(spec))

        producer.new_manifest_writer = telling  # type: ignore[method-assign, assignment]

    def require(self, requirement: ValidatableTableRequirement) -> None:
        """Add what must hold when the commit is made."""
        self._requirements += (cast("TableRequirement", requirement),)

    def change(
        self, updates: tuple[TableUpdate, ...], requirement: ValidatableTableRequirement
    ) -> None:
        """Add updates, and what must hold for them."""
        self.require(requirement)
        self._updates += updates

    def send(self, lake: Lake) -> Table:
        """Commit through the lake's catalog; see `Lake.send` for what holds after an error."""
        return lake.send(self._table, self._updates, self._requirements)


@contextmanager
def _telling(writer: ManifestWriter) -> Iterator[ManifestWriter]:
    """Write a manifest in the block, and raise what the block raises.

    PyIceberg's writer, which writes what other manifests have, says that it is empty where reading
    the first of them failed: not that a store is away.
    """
    failed: Exception | None = None
    try:
        with writer:
            try:
                yield writer
            except Exception as error:
                failed = error
                raise
    except ValueError:
        if failed is None:
            raise
        # It leaves its file open, too.
        writer._writer.__exit__(type(failed), failed, None)  # noqa: SLF001
        raise failed from None


class Sent:
    """The commits that were sent for one purpose, and what went wrong with them."""

    def __init__(self) -> None:
        self._snapshots: list[int] = []
        self._errors: list[Exception] = []

    def send(self, lake: Lake, staged: Staged) -> Table | None:
        """Send; answer the table after it, or None where it raised: the outcome is not known."""
        fault("before_commit")
        self._snapshots.append(staged.snapshot_id)
        try:
            after = staged.send(lake)
        except CommitFailedException as error:
            log.info("commit met another one", error=str(error), snapshot=staged.snapshot_id)
            return None
        except Exception as error:  # noqa: BLE001 - whatever it was, the table tells what holds
            log.warning("commit failed", error=repr(error), snapshot=staged.snapshot_id)
            self._errors.append(error)
            return None
        fault("after_commit")
        return after

    def landed(self, metadata: TableMetadata) -> bool:
        """Say whether one of the commits is part of the table after all."""
        return any(metadata.snapshot_by_id(number) is not None for number in self._snapshots)

    def stop_if_hopeless(self) -> None:
        """Raise the last error that was no conflict, if there were several."""
        if len(self._errors) >= _OTHER_ERRORS:
            raise self._errors[-1]


def _same_marks(before: pa.Table, after: pa.Table) -> bool:
    columns = ["duplicate_of", "metadata"]
    return before is after or bool(before.select(columns).equals(after.select(columns)))


def _stage(
    table: Table, files: Written, marks: Sequence[Mark], batch_id: str, *, repeats: int = 0
) -> Staged:
    """Stage one commit: the new schema, the files, then the marks and the count of repeats."""
    base = table.metadata
    staged = Staged(table)
    staged.require(same_schema(base))
    if files.schema:
        staged.change(set_schema(files.schema), same_last_id(base))
    append = staged.update_snapshot({BATCH: batch_id}).merge_append()
    for file in files.files:
        append.append_data_file(file)
    append.commit()
    staged.snapshot_id = append.snapshot_id
    landed = {LANDED: str(base.next_sequence_number())}
    told = repeats_property(int(base.properties.get(REPEATS, "0")) + repeats) if repeats else {}
    staged.set_properties({**mark_properties(marks), **landed, **told})
    return staged


def _stage_claim(table: Table, marks: Sequence[Mark], batch_id: str) -> Staged:
    """Stage a claim: a snapshot without files, so that who is about to commit meets it."""
    staged = Staged(table)
    append = staged.update_snapshot({BATCH: batch_id}).merge_append()
    append.commit()
    staged.snapshot_id = append.snapshot_id
    staged.set_properties(mark_properties(marks, CLAIM))
    return staged


def _write(
    table: Table, evolved: Schema | None, rows: pa.Table, *, name: str, at: Micros
) -> Written:
    """Write the rows to files beside the table's; no table refers to them yet."""
    metadata = table.metadata
    files = write_days(table, evolved or metadata.schema(), rows, name=name, dense=False)
    size = sum(file.file_size_in_bytes for file in files)
    return Written(files, size, at, evolved, metadata.last_column_id)


def write_days(
    table: Table, schema: Schema, rows: pa.Table, *, name: str, dense: bool
) -> tuple[DataFile, ...]:
    """Write the rows, a file for each day, durably; raise rather than write over a file."""
    arrow = arrow_schema(schema)
    columns = columns_of(schema)
    laid_out = arranged(rows, arrow)
    spec = table.metadata.default_spec_id
    files = []
    for day, part in _days(laid_out):
        location = location_of(table, day, name)
        output = table.io.new_output(location)
        with output.create() as stream:
            footer = write(part, arrow, columns, stream, dense=dense)
        files.append(data_file(location, len(output), footer, columns, day=day, spec=spec))
    return tuple(files)


def location_of(table: Table, day: int, name: str) -> str:
    """Answer where a data file of a day (since 1970) is to be."""
    folder = table.location_provider().data_path
    return f"{folder}/{PARTITION}={_date(day)}/{name}.parquet"


def _days(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Split the rows by the day (since 1970) they were received."""
    if not rows.num_rows:
        return
    received = rows["received_at"].cast(pa.int64())
    bounds = pc.min_max(received).as_py()
    first, last = bounds["min"] // _DAY, bounds["max"] // _DAY
    if first == last:
        yield first, rows
        return
    for day in range(first, last + 1):
        inside = pc.and_(
            pc.greater_equal(received, day * _DAY), pc.less(received, (day + 1) * _DAY)
        )
        part = rows.filter(inside)
        if part.num_rows:
            yield day, part


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def arranged(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Answer the rows with the columns of the table, in its order."""
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            if not field.nullable:
                raise ShapeChanged(f"the rows lack the column {field.name}")
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows.column(field.name)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _evolved(metadata: TableMetadata, shape: Struct) -> Schema | None:
    return evolve(
        metadata.schema(),
        shape,
        last_id=metadata.last_column_id,
        schema_id=max(schema.schema_id for schema in metadata.schemas) + 1,
    )


def _load(lake: Lake, name: Identifier) -> Table:
    table = lake.table(name)
    if table is None:
        raise TableChanged(f"the table {'.'.join(name)} is gone")
    return table


def _refuse_other_table(view: TableView, based_on: TableView) -> None:
    if view.uuid != based_on.uuid:
        raise TableReplaced(f"the table of {view.collection} was replaced by another one")


def _kept_changing(batch: Batch) -> EngineUnavailable:
    return EngineUnavailable(
        f"the tables of {batch.based_on.collection} kept changing beside this batch"
    )


def _of(rows: pa.Table, part: Held) -> pa.ChunkedArray:
    return pc.and_(
        pc.equal(rows["log_id"], part.log_id), pc.equal(rows["log_partition"], part.partition)
    )


def _in(rows: pa.Table, part: Held) -> pa.ChunkedArray:
    offsets = pa.array(sorted(part.offsets), pa.int64())
    return pc.and_(_of(rows, part), pc.is_in(rows["log_offset"], offsets))
