"""What keeps a table fast: fewer and larger files, few snapshots, no files that nobody refers to.

All of it works beside landing, and nothing of it deletes a file but the sweep, which waits three
days: a commit that was reported as failed may have landed and need its files.

Compaction comes to an end. A file of half the target size is never read again, and a smaller one
only together with others that have their share of rows: as many as it has itself while its day
goes on, an eighth as many once that is over. So a row is written again as often as its file can
double, not as often as upkeep runs; see `choose`. What that leaves of a day that is over is taken
in by a whole file, once a day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.manifest import DataFile
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
BELOW_BYTES = TARGET_BYTES // 2

# A file may hold a thousand times its size: a year of one event, or null in a thousand columns.
MOST_MEMORY = 1 << 30

# What a value takes in memory, about; a text takes its length as well.
_CELL_BYTES = 16

HOUR: Micros = 3_600_000_000
DAY: Micros = 24 * HOUR

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

    `first` is its least log position, `memory` about what its rows take when they are read,
    `newest` when the last of its events was received.
    """

    path: str
    day: int
    bytes: int
    first: tuple[int, int]
    memory: int = 0
    rows: int = 1
    newest: Micros = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """When files that make no whole one are merged all the same.

    They have at least `ratio` times the rows of the largest of them, and are `fewest` or more.
    """

    ratio: float
    fewest: int


GROWING = Rule(ratio=4.0, fewest=5)
"""For files with an event of the newest hour: there are more to come."""

SETTLED = Rule(ratio=2.0, fewest=5)
"""For older ones of a day that is not over."""

OVER = Rule(ratio=1.125, fewest=2)
"""For those of a day that is over for an hour; what comes late has to be worth it."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compaction did: how many files it read and wrote, and how many groups it gave up.

    `bytes` are those of the files written; `more` says that it ended before its work did. Where
    another engine was asked, `trouble` is what kept it from its work, and `away` says that there
    was nobody to ask.
    """

    read: int = 0
    written: int = 0
    given_up: int = 0
    bytes: int = field(default=0, compare=False)
    more: bool = field(default=False, compare=False)
    trouble: str = field(default="", compare=False)
    away: bool = field(default=False, compare=False)

    def __add__(self, other: Compacted) -> Compacted:
        """Answer what both did."""
        return Compacted(
            self.read + other.read,
            self.written + other.written,
            self.given_up + other.given_up,
            self.bytes + other.bytes,
            self.more or other.more,
            self.trouble or other.trouble,
            self.away or other.away,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a table is.

    `late_files` should have been merged an hour ago, `late_snapshots` should have gone then.
    """

    files: int
    bytes: int
    snapshots: int
    pinned: int
    late_files: int
    late_snapshots: int


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep deleted, and when it first saw each file that nothing refers to (`seen`)."""

    deleted: tuple[str, ...]
    seen: dict[str, Micros] = field(default_factory=dict)


class Late(Protocol):
    """Counts the files of a table that should have been merged an hour ago."""

    def __call__(self, table: Table, now: Micros, *, below: int, target: int) -> int:
        """Answer how many there are."""
        ...


def choose(
    files: Iterable[Candidate],
    *,
    now: Micros,
    below: int = BELOW_BYTES,
    target: int = TARGET_BYTES,
    most_memory: int = MOST_MEMORY,
    fewest: int | None = None,
    tidy: bool = False,
) -> list[list[Candidate]]:
    """Answer the groups of files to merge, those with the most files first.

    A group has files of one day that are smaller than `below` (half of `target` at the most), and
    becomes a file of up to `target` bytes. Groups that fill one are always worth it: what they
    become is not read again. For what is left over there are three rules, so that each time the
    file grows by its share; `fewest` stands in for theirs. With `tidy` nothing is left over of
    days that are over: a larger file takes it in, and has up to half a `target` more.
    """
    below = min(below, target // 2)
    groups = []
    known = list(files)
    small = [f for f in known if f.bytes < below and f.memory * 2 < most_memory]
    for (day, grows), of_day in _grouped(small, lambda f: (f.day, f.newest > now - HOUR)):
        over = (day + 1) * DAY + HOUR <= now
        rule = GROWING if grows else OVER if over else SETTLED
        rule = rule if fewest is None else replace(rule, fewest=fewest)
        if tidy and over:
            full, rest = _packed(of_day, target=target, most_memory=most_memory)
            whole = [f for f in known if f.day == day and below <= f.bytes <= target]
            groups += [*full, _taken_in(rest, whole, below=below, most_memory=most_memory)]
        else:
            groups += groups_of(of_day, rule, target=target, most_memory=most_memory)
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)


def groups_of(
    files: Iterable[Candidate], rule: Rule, *, target: int, most_memory: int = MOST_MEMORY
) -> list[list[Candidate]]:
    """Answer the groups that fill a file each, and what the rule wants merged of the rest.

    `files` are in the order of the log.
    """
    full, rest = _packed(files, target=target, most_memory=most_memory)
    return [*full, _worth(rest, rule.ratio, rule.fewest)]


def _grouped(
    files: Iterable[Candidate], key: Callable[[Candidate], tuple[int, bool]]
) -> Iterator[tuple[tuple[int, bool], list[Candidate]]]:
    """Split the files by `key`, those of each in log order."""
    ordered = sorted(files, key=lambda f: (key(f), f.first))
    for value, group in groupby(ordered, key=key):
        yield value, list(group)


def _packed(
    files: Iterable[Candidate], *, target: int, most_memory: int
) -> tuple[list[list[Candidate]], list[Candidate]]:
    """Answer the groups that fill a file, in log order, and what is left over."""
    full: list[list[Candidate]] = []
    group: list[Candidate] = []
    size = memory = 0
    for file in files:
        if group and (size + file.bytes > target or memory + file.memory > most_memory):
            full.append(group)
            group, size, memory = [], 0, 0
        group.append(file)
        size += file.bytes
        memory += file.memory
    return full, group


def _worth(files: Iterable[Candidate], ratio: float, fewest: int) -> list[Candidate]:
    """Answer as many of the smallest files as have `ratio` times the rows of their largest.

    By rows, not by bytes: a file of one row is nine tenths footer, and that is gone when merged.
    """
    ladder = sorted(files, key=lambda f: f.rows)
    rows = best = 0
    for count, file in enumerate(ladder, 1):
        rows += file.rows
        if count >= fewest and rows >= ratio * file.rows:
            best = count
    return sorted(ladder[:best], key=lambda f: f.first)


def _taken_in(
    rest: Sequence[Candidate], whole: Iterable[Candidate], *, below: int, most_memory: int
) -> list[Candidate]:
    """Answer what is left over with the file that takes it in.

    That is the one before it in the log, or else the first: neighbours are read together. By
    itself it is merged where it makes a file of `below` bytes, or no other can take it in.
    """
    in_order = sorted(whole, key=lambda f: f.first)
    if not rest or not in_order or sum(f.bytes for f in rest) >= below:
        return list(rest)
    before = [f for f in in_order if f.first < rest[-1].first]
    both = [before[-1] if before else in_order[0], *rest]
    if sum(f.memory for f in both) > most_memory:
        return list(rest)
    return sorted(both, key=lambda f: f.first)


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
    new_name: Callable[[], str],
    below: int = BELOW_BYTES,
    target: int = TARGET_BYTES,
    most_memory: int = MOST_MEMORY,
    fewest: int | None = None,
    tidy: bool = False,
    retries: int = 50,
    clock: Clock = machine_clock,
    until: Callable[[], bool] = lambda: False,
) -> Compacted:
    """Merge data files, day by day, into files of about `target` bytes; see `choose`.

    Reads no more rows at once than about `most_memory` bytes hold, and begins nothing new once
    `until` says so.
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
        if table is None:
            return done
        # Rows that were deleted beside a file are only known to the engine that did it.
        tasks = {
            task.file.file_path: task
            for task in table.scan().plan_files()
            if task.file.file_path not in tried and not task.delete_files
        }
        groups = _choice(
            table,
            tasks,
            memory,
            now=clock(),
            below=below,
            target=target,
            most_memory=most_memory,
            fewest=fewest,
            tidy=tidy,
        )
        if not groups:
            return done
        if until():
            return done + Compacted(more=True)
        group = [tasks[file.path] for file in groups[0]]
        tried.update(task.file.file_path for task in group)
        merged = _merge(lake, _patient(table, retries), group, new_name())
        tried.update(file.file_path for file in merged)
        size = sum(file.file_size_in_bytes for file in merged)
        done += Compacted(len(group), len(merged), 0, size) if merged else Compacted(given_up=1)


def _choice(
    table: Table,
    tasks: Mapping[str, FileScanTask],
    memory: dict[str, int],
    *,
    now: Micros,
    below: int,
    target: int,
    most_memory: int,
    fewest: int | None = None,
    tidy: bool = False,
) -> list[list[Candidate]]:
    """Answer the groups of the table's files to merge.

    What rows take in memory is in each file's footer. Those of a day with nothing to merge, as
    most are, are not opened.
    """

    def chosen(files: Iterable[Candidate]) -> list[list[Candidate]]:
        return choose(
            files,
            now=now,
            below=below,
            target=target,
            most_memory=most_memory,
            fewest=fewest,
            tidy=tidy,
        )

    files = list(candidates(table, tasks.values()))
    wanted = {file for group in chosen(files) for file in group}
    days = {file.day for file in wanted}
    opened = [f for f in files if f.day in days and (f.bytes < below or f in wanted)]
    return chosen(weighed(table, [tasks[f.path] for f in opened], opened, memory))


def late_here(table: Table, now: Micros, *, below: int, target: int) -> int:
    """Answer how many files should have been merged here an hour ago."""
    tasks = {
        task.file.file_path: task for task in table.scan().plan_files() if not task.delete_files
    }
    then = now - HOUR
    old = [f.path for f in candidates(table, tasks.values()) if f.newest <= then - HOUR]
    groups = _choice(
        table,
        {path: tasks[path] for path in old},
        {},
        now=then,
        below=below,
        target=target,
        most_memory=MOST_MEMORY,
    )
    return sum(len(group) for group in groups)


def look(
    lake: Lake,
    name: Identifier,
    *,
    keep: int,
    now: Micros,
    below: int,
    target: int,
    late: Late = late_here,
) -> Condition | None:
    """Answer how a table is, and what upkeep should have done an hour ago; None without a table.

    Ten minutes' landings are waiting at any time, and so is what the next upkeep will merge.
    `late` counts the files that should have been merged, where that is not done here.
    """
    table = lake.table(name)
    if table is None:
        return None
    metadata, then = table.metadata, now - HOUR
    current = table.current_snapshot()
    sums = current.summary.additional_properties if current and current.summary else {}
    pinned = {ref.snapshot_id for ref in metadata.refs.values()}
    numbered = [(s.snapshot_id, s.sequence_number or 0) for s in metadata.snapshots]
    going = set(expendable(numbered, keep=keep, pinned=pinned))
    # One that was the newest until a moment ago may be of any age: what counts is its successor.
    times = {s.parent_snapshot_id: s.timestamp_ms * 1_000 for s in metadata.snapshots}
    return Condition(
        files=int(sums.get("total-data-files", "0")),
        bytes=int(sums.get("total-files-size", "0")),
        snapshots=len(metadata.snapshots),
        pinned=len(pinned) - (metadata.current_snapshot_id in pinned),
        late_files=late(table, now, below=below, target=target),
        late_snapshots=sum(times.get(number, now) <= then for number in going),
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


def _merge(
    lake: Lake, table: Table, group: Sequence[FileScanTask], name: str
) -> tuple[DataFile, ...]:
    """Replace the files by merged ones; answer those, none where others were faster."""
    schema = table.metadata.schema()
    arrow = arrow_schema(schema)
    parts = []
    for task in group:
        with lake.open(task.file.file_path) as stream:
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
            return ()
    return files


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


def candidates(table: Table, tasks: Iterable[FileScanTask]) -> Iterator[Candidate]:
    """Answer what a manifest says of each file."""
    for task in tasks:
        yield candidate_of(table, task.file)


def candidate_of(table: Table, file: DataFile) -> Candidate:
    """Answer what a manifest says of a file of the table."""
    schema = table.metadata.schema()
    partition = schema.find_field("log_partition").field_id
    offset = schema.find_field("log_offset").field_id
    received = schema.find_field("received_at").field_id
    least, most = file.lower_bounds or {}, file.upper_bounds or {}
    day = file.partition[0]
    newest = most.get(received)
    return Candidate(
        file.file_path,
        day,
        file.file_size_in_bytes,
        (_bound(IntegerType(), least.get(partition)), _bound(LongType(), least.get(offset))),
        rows=file.record_count,
        newest=_bound(LongType(), newest) if newest else (day + 1) * DAY,
    )


def weighed(
    table: Table,
    tasks: Iterable[FileScanTask],
    files: Iterable[Candidate],
    memory: dict[str, int],
) -> Iterator[Candidate]:
    """Answer the files with what they take in memory; `memory` keeps what is known from before."""
    columns = len(columns_of(table.metadata.schema()))
    for task, known in zip(tasks, files, strict=True):
        file = task.file
        if file.file_path not in memory:
            try:
                with table.io.new_input(file.file_path).open() as stream:
                    raw = uncompressed_bytes(stream)
            except (OSError, pa.ArrowException) as error:
                raise EngineUnavailable("the tables cannot be read now") from error
            # Merged, it gets every column that the table has by now.
            cells = max(file.record_count * columns, sum((file.value_counts or {}).values()))
            memory[file.file_path] = raw + _CELL_BYTES * cells
        yield replace(known, memory=memory[file.file_path])


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
