"""What keeps a table fast: fewer and larger files, few snapshots, no files that nobody refers to.

All of it works beside landing, and nothing of it deletes a file but the sweep, which waits three
days: a commit that was reported as failed may have landed and need its files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.update import TableUpdate
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.typedef import Identifier
from pyiceberg.types import IntegerType, LongType, PrimitiveType

from lakehouse.columns import arrow_schema
from lakehouse.commit import Staged, write_days
from lakehouse.files import Files
from lakehouse.parquet import columns_of, read, uncompressed_bytes
from lakehouse.tables import LEAVING, Lake, Leaving, read_leaving
from lakehouse.updates import (
    AssertUnreferenced,
    remove_schemas,
    remove_snapshots,
    same_schema,
    set_properties,
)
from penstock.clock import machine_clock
from penstock.envelope import Clock, Micros
from penstock.errors import EngineUnavailable
from penstock.faults import fault

log = structlog.get_logger()

TARGET_BYTES = 128 << 20

# A file may hold a thousand times its size: a year of one event, or null in a thousand columns.
MOST_MEMORY = 1 << 30

# What a value takes in memory, about; a text takes its length as well.
_CELL_BYTES = 16

# Fewer are not worth a commit and the files that it replaces.
FEWEST_FILES = 5

# A pin is loaded and committed within two minutes at the most; see `expire`.
LEAD: Micros = 10 * 60_000_000

ORPHAN_AGE: Micros = 3 * 86_400_000_000

# A landing beside it commits every few seconds; each try here takes some 50 ms.
_RETRIES = {
    "commit.retry.min-wait-ms": "20",
    "commit.retry.max-wait-ms": "1000",
    "commit.retry.total-timeout-ms": "60000",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A data file as the choice of what to merge sees it.

    `first` is its least log position, `memory` about what its rows take when they are read.
    """

    path: str
    day: int
    bytes: int
    first: tuple[int, int]
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compaction did: how many files it read and wrote, and how many groups it gave up."""

    read: int = 0
    written: int = 0
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep deleted, and when it first saw each file that nothing refers to (`seen`)."""

    deleted: tuple[str, ...]
    seen: dict[str, Micros] = field(default_factory=dict)


def choose(
    files: Iterable[Candidate],
    *,
    below: int,
    target: int = TARGET_BYTES,
    most_memory: int = MOST_MEMORY,
    fewest: int = FEWEST_FILES,
) -> list[list[Candidate]]:
    """Answer the files to merge: small ones of one day, in log order, up to `target` bytes."""
    groups = []
    small = sorted((f for f in files if f.bytes < below), key=lambda f: (f.day, f.first))
    for _, of_day in groupby(small, key=lambda f: f.day):
        group: list[Candidate] = []
        size = memory = 0
        for file in of_day:
            full = size + file.bytes > target or memory + file.memory > most_memory
            if group and full:
                groups.append(group)
                group, size, memory = [], 0, 0
            group.append(file)
            size += file.bytes
            memory += file.memory
        groups.append(group)
    return [group for group in groups if len(group) >= fewest]


def expendable(snapshots: Sequence[tuple[int, int]], *, keep: int, pinned: set[int]) -> list[int]:
    """Answer the snapshots to expire: all but the newest `keep` and those a name points at.

    `snapshots` are pairs of id and sequence number.
    """
    newest_first = sorted(snapshots, key=lambda snapshot: snapshot[1], reverse=True)
    return [number for number, _ in newest_first[keep:] if number not in pinned]


def unused_schemas(schemas: Sequence[int], *, used: set[int]) -> list[int]:
    """Answer the schemas to forget. The newest stays: its id must not be given again."""
    return [number for number in schemas if number not in used and number != max(schemas)]


def sort_out(
    listed: Iterable[str],
    referenced: set[str],
    seen_before: Mapping[str, Micros],
    now: Micros,
    *,
    age: Micros = ORPHAN_AGE,
) -> Swept:
    """Answer which files to delete: those that nothing has referred to for `age`, as we saw it.

    A file's own time does not count: it may be written days before it is committed, or be old and
    just have been let go.
    """
    seen = {file: seen_before.get(file, now) for file in listed if file not in referenced}
    deleted = tuple(file for file, since in seen.items() if now - since >= age)
    for file in deleted:
        del seen[file]
    return Swept(deleted, seen)


def compact(
    lake: Lake,
    name: Identifier,
    *,
    below: int,
    new_name: Callable[[], str],
    target: int = TARGET_BYTES,
    most_memory: int = MOST_MEMORY,
    fewest: int = FEWEST_FILES,
    retries: int = 50,
) -> Compacted:
    """Merge the data files smaller than `below` bytes, day by day, into files of about `target`.

    Reads no more rows at once than about `most_memory` bytes hold.
    Rows stay the same, sorted by their log position; what lands meanwhile is kept, and a commit
    that meets another one is tried again `retries` times. `new_name` gives a file a name that
    nobody else gives.
    """
    done = Compacted()
    tried: set[str] = set()
    memory: dict[str, int] = {}
    while True:
        # One load for the look and the commit: rows that landed between two loads were lost.
        table = lake.table(name)
        tasks = {task.file.file_path: task for task in table.scan().plan_files()} if table else {}
        if table is None:
            return done
        # Rows that were deleted beside their file are only known to the engine that did it.
        whole = (t for path, t in tasks.items() if path not in tried and not t.delete_files)
        small = (task for task in whole if task.file.file_size_in_bytes < below)
        groups = choose(
            candidates(table, small, memory),
            below=below,
            target=target,
            most_memory=most_memory,
            fewest=fewest,
        )
        if not groups:
            return done
        group = [tasks[file.path] for file in groups[0]]
        tried.update(task.file.file_path for task in group)
        merged = _merge(lake, _patient(table, retries), group, new_name())
        tried.update(merged)
        done = (
            Compacted(done.read + len(group), done.written + len(merged), done.given_up)
            if merged
            else Compacted(done.read, done.written, done.given_up + 1)
        )


def expire(
    lake: Lake, name: Identifier, *, keep: int, clock: Clock = machine_clock, wait: Micros = LEAD
) -> int:
    """Leave the newest `keep` snapshots and those that are pinned; answer how many went.

    Their files stay until the sweep. Schemas that no snapshot refers to are forgotten, because
    all of them are read and written with every commit.

    Removing a snapshot takes its tags along, so the commit requires that there are none. A REST
    catalog cannot check that. There what is to go is announced in the table first; nobody pins it
    from then on, and it goes at the first expiry that comes `wait` later, when whoever had loaded
    the table before the announcement has long committed or given up.
    """
    for _ in lake.patience.attempts():
        table = lake.table(name)
        if table is None:
            return 0
        metadata = table.metadata
        numbered = [(s.snapshot_id, s.sequence_number or 0) for s in metadata.snapshots]
        pinned = {ref.snapshot_id for ref in metadata.refs.values()}
        old = expendable(numbered, keep=keep, pinned=pinned)
        updates: list[TableUpdate] = []
        if not lake.checks_ours:
            old, announced = _due(read_leaving(metadata), old, clock(), wait=wait)
            updates += [set_properties({LEAVING: str(announced)})] if announced else []
        if not old and not updates:
            return 0
        kept = [s for s in metadata.snapshots if s.snapshot_id not in set(old)]
        used = {s.schema_id for s in kept if s.schema_id is not None} | {metadata.current_schema_id}
        unused = unused_schemas([s.schema_id for s in metadata.schemas], used=used)
        updates += [remove_snapshots(old)] if old else []
        updates += [remove_schemas(unused)] if old and unused else []
        fault("expire_mid")
        try:
            lake.send(
                table,
                tuple(updates),
                (AssertUnreferenced(snapshots=frozenset(old)), same_schema(metadata)),
            )
        except CommitFailedException as error:
            log.info("expiry met another commit", table=".".join(name), error=str(error))
            continue
        return len(old)
    raise EngineUnavailable(f"{'.'.join(name)} kept changing beside the expiry of its snapshots")


def _due(
    before: Leaving, old: Sequence[int], now: Micros, *, wait: Micros
) -> tuple[list[int], Leaving | None]:
    """Answer what may go now, and what to announce (None: what was announced stays so).

    What was announced and has been pinned in time is not `old` any more, and stays.
    """
    if before.snapshots and now - before.since < wait:
        return [], None
    going = [number for number in old if number in before.snapshots]
    following = frozenset(old) - before.snapshots
    return going, Leaving(now, following) if following or before.snapshots else None


def sweep_orphans(
    lake: Lake,
    name: Identifier,
    seen_before: Mapping[str, Micros],
    now: Micros,
    *,
    age: Micros = ORPHAN_AGE,
) -> Swept:
    """Delete the files of a table that nothing has referred to for `age` microseconds.

    `seen_before` is the `seen` of the sweep before. Files are listed before the metadata is
    loaded: the other way round a file that was committed in between looks like an orphan.
    """
    before = lake.table(name)
    if before is None:
        return Swept(())
    listed = list(cast("Files", before.io).list(before.location()))
    table = lake.table(name)
    if table is None or table.metadata.table_uuid != before.metadata.table_uuid:
        return Swept(())
    swept = sort_out(listed, _referenced(table), seen_before, now, age=age)
    for file in swept.deleted:
        table.io.delete(file)
    if swept.deleted:
        log.info("orphans deleted", table=".".join(name), files=len(swept.deleted))
    return swept


class _Rewriting(Staged):
    """A transaction that PyIceberg sends again after a conflict.

    Before each time it looks whether the files that are to be replaced are still there.
    """

    def _register_snapshot_producer(self, producer: _SnapshotProducer[Any]) -> None:
        super()._register_snapshot_producer(producer)
        producer._cleanup_uncommitted = _leave  # type: ignore[method-assign]  # noqa: SLF001
        producer._clean_all_uncommitted = _leave  # type: ignore[method-assign]  # noqa: SLF001


def _leave() -> None:
    """Delete nothing: a commit that was reported as failed may have landed."""


def _merge(lake: Lake, table: Table, group: Sequence[FileScanTask], name: str) -> list[str]:
    """Replace the files by merged ones; answer those, none where others were faster."""
    schema = table.metadata.schema()
    arrow = arrow_schema(schema)
    parts = []
    for task in group:
        with table.io.new_input(task.file.file_path).open() as stream:
            parts.append(read(stream, arrow))
    rows = _in_log_order(pa.concat_tables(parts))
    files = write_days(table, schema, rows, name=name, dense=True)
    rewriting = _Rewriting(table)
    overwrite = rewriting.update_snapshot({"penstock.upkeep": "compact"}).overwrite()
    for task in group:
        overwrite.delete_data_file(task.file)
    for file in files:
        overwrite.append_data_file(file)
    overwrite.commit()
    fault("compact_before_commit")
    try:
        rewriting.commit_transaction()
    except (CommitFailedException, ValidationException) as error:
        log.info("compaction gave way", table=".".join(table.name()), error=str(error))
        now = lake.table(table.name())
        if now is None or now.metadata.snapshot_by_id(overwrite.snapshot_id) is None:
            return []
    return [file.file_path for file in files]


def _patient(table: Table, retries: int) -> Table:
    """Answer the table with retries on, in memory only."""
    wanted = {**_RETRIES, "commit.retry.num-retries": str(retries)}
    properties = {**table.metadata.properties, **wanted}
    metadata = table.metadata.model_copy(update={"properties": properties})
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog)


def _in_log_order(rows: pa.Table) -> pa.Table:
    if _sorted(rows["log_partition"].combine_chunks(), rows["log_offset"].combine_chunks()):
        return rows
    return rows.sort_by([("log_partition", "ascending"), ("log_offset", "ascending")])


def _sorted(partitions: pa.Array, offsets: pa.Array) -> bool:
    """Say whether each row lies behind the one before it."""
    if len(offsets) <= 1:
        return True
    same = pc.equal(partitions[1:], partitions[:-1])
    behind = pc.and_(same, pc.greater(offsets[1:], offsets[:-1]))
    answer: bool = pc.all(pc.or_(behind, pc.greater(partitions[1:], partitions[:-1]))).as_py()
    return answer


def candidates(
    table: Table, tasks: Iterable[FileScanTask], memory: dict[str, int]
) -> Iterator[Candidate]:
    """Answer what the choice has to know of each file; `memory` keeps what is known from before."""
    schema = table.metadata.schema()
    columns = len(columns_of(schema))
    partition = schema.find_field("log_partition").field_id
    offset = schema.find_field("log_offset").field_id
    for file in (task.file for task in tasks):
        least = file.lower_bounds or {}
        first = (_bound(IntegerType(), least.get(partition)), _bound(LongType(), least.get(offset)))
        if file.file_path not in memory:
            with table.io.new_input(file.file_path).open() as stream:
                raw = uncompressed_bytes(stream)
            # Merged, it gets every column that the table has by now.
            cells = max(file.record_count * columns, sum((file.value_counts or {}).values()))
            memory[file.file_path] = raw + _CELL_BYTES * cells
        yield Candidate(
            file.file_path,
            file.partition[0],
            file.file_size_in_bytes,
            first,
            memory[file.file_path],
        )


def _bound(kind: PrimitiveType, packed: bytes | None) -> int:
    return int(from_bytes(kind, packed)) if packed else 0


def _referenced(table: Table) -> set[str]:
    """Answer every file that the table's metadata needs, whichever snapshot it is for."""
    metadata = table.metadata
    files = {table.metadata_location}
    files.update(entry.metadata_file for entry in metadata.metadata_log)
    files.update(entry.statistics_path for entry in metadata.statistics)
    files.update(entry.statistics_path for entry in metadata.partition_statistics)
    for snapshot in metadata.snapshots:
        files.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in files:
                continue
            files.add(manifest.manifest_path)
            files.update(
                entry.data_file.file_path
                for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            )
    return files
