"""The tables of collections: what one load of a table says, and the lake that holds them.

Marks are table properties, because no engine touches those: Trino writes snapshots without our
summary keys, and its clean-up deletes old summaries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import NamedTuple, cast

import pyarrow as pa
import structlog
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io import FileIO, InputStream
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot, ancestors_of
from pyiceberg.table.update import TableRequirement, TableUpdate, ValidatableTableRequirement
from pyiceberg.typedef import Identifier

from lakehouse.attempts import Patience
from lakehouse.catalog import (
    QUARANTINE_SUFFIX,
    RememberingCatalog,
    closed_table,
    main_table,
    quarantine_table,
)
from lakehouse.columns import (
    arrow_schema,
    main_schema,
    partition_spec,
    quarantine_schema,
    shape_of,
)
from lakehouse.parquet import batches
from lakehouse.pins import over
from lakehouse.updates import (
    AssertPresent,
    remove_properties,
    remove_ref,
    same_ref,
    same_table,
    set_properties,
    set_tag,
)
from penstock.envelope import Clock, CollectionId, Mark, Micros
from penstock.errors import (
    AlreadyExists,
    EngineUnavailable,
    NotFound,
    PenstockError,
    TableChanged,
    Unavailable,
)
from penstock.schema.shape import Struct

log = structlog.get_logger()

MARK = "penstock.mark."
CLAIM = "penstock.claim."
LANDED = "penstock.landed.sequence"
REPEATS = "penstock.landed.duplicates"
LEAVING = "penstock.leaving"
LOST = "penstock.lost."
CARRIED = "penstock.carried."
BOOKS = "penstock.books."
ADOPTED = "penstock.adopted"
HOLD = "penstock.hold"
EXPIRED = "penstock.expired."
EXPIRED_BEFORE = "penstock.expired-before"

_DAY: Micros = 86_400_000_000
_ALL = AlwaysTrue()

# Loading waits for the store most of the time.
_LOADED_AT_ONCE = 4

LONGEST_HOLD: Micros = 10_000_000
"""How long landing may be asked to hold back, once."""

PROPERTIES = {
    # PyIceberg cannot write version 3, and Trino 476 reads 2 best.
    "format-version": "2",
    # What other engines write into these tables shall look like what landing writes.
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "1",
    # Off by default in PyIceberg: planning 400 commits took 0.40 s, merged 0.02 s.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    # The default of 8 MB is some ten thousand files to rewrite within one landing.
    "commit.manifest.target-size-bytes": str(1 << 20),
    # 60 MB of metadata after 400 commits otherwise. Readers hold a location for seconds.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # Serializable fails a compaction at every landing beside it.
    "write.delete.isolation-level": "snapshot",
    "write.update.isolation-level": "snapshot",
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Positions of a log partition, `end` exclusive, that will not land."""

    log_id: str
    partition: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Expired:
    """How many rows retention dropped, all of them at log offsets below `upto`.

    `repeats` of them repeated others.
    """

    rows: int = 0
    upto: int = 0
    repeats: int = 0

    def __add__(self, other: Expired) -> Expired:
        """Answer what both are together."""
        return Expired(
            self.rows + other.rows, max(self.upto, other.upto), self.repeats + other.repeats
        )


NOTHING_EXPIRED = Expired()


class Drop(NamedTuple):
    """What had expired once the snapshot with this sequence number had dropped its days."""

    sequence: int
    all: Expired

    def __str__(self) -> str:
        return f"{self.sequence}:{self.all.rows}:{self.all.upto}:{self.all.repeats}"


def drops_of(properties: Mapping[str, str]) -> dict[tuple[str, int], list[Drop]]:
    """Read the drops from table properties, by log id and partition, the last one last."""
    found = {}
    for name, value in properties.items():
        if name.startswith(EXPIRED):
            log_id, _, partition = name.removeprefix(EXPIRED).rpartition(".")
            numbers = [[int(number) for number in drop.split(":")] for drop in value.split(",")]
            drops = [Drop(sequence, Expired(*some)) for sequence, *some in numbers]
            found[log_id, int(partition)] = drops
    return found


def expired_of(metadata: TableMetadata) -> dict[tuple[str, int], Expired]:
    """Answer what retention dropped of the table as it is now, by log id and partition.

    Properties have no versions, so the drops say their snapshots: where such a one was taken out
    of the table its rows are back, and what had expired before it holds.
    """
    drops = drops_of(metadata.properties)
    if not drops:
        return {}
    line = [s.sequence_number or 0 for s in ancestors_of(metadata.current_snapshot(), metadata)]
    found = {}
    for place, some in drops.items():
        there = [drop.all for drop in some if not rolled_back(line, drop.sequence)]
        if there:
            found[place] = there[-1]
    return found


def expired_properties(
    metadata: TableMetadata, totals: Mapping[tuple[str, int], Expired]
) -> dict[str, str]:
    """Answer the properties that say what has expired once the next snapshot is there.

    What had expired before stays beside it for as long as there is a snapshot, to which somebody
    may set the table back, where that holds.
    """
    known = drops_of(metadata.properties)
    oldest = min((s.sequence_number or 0 for s in metadata.snapshots), default=0)
    properties = {}
    for place, total in totals.items():
        before = known.get(place, [])
        over = sum(drop.sequence <= oldest for drop in before)
        drops = [*before[max(0, over - 1) :], Drop(metadata.next_sequence_number(), total)]
        log_id, partition = place
        properties[f"{EXPIRED}{log_id}.{partition}"] = ",".join(map(str, drops))
    return properties


@dataclass(frozen=True, slots=True)
class TableView:
    """What one load of a table says; nothing in it comes from another moment."""

    collection: CollectionId
    uuid: str
    metadata_location: str
    snapshot_id: int | None
    schema_id: int
    shape: Struct
    marks: tuple[Mark, ...]
    """By log id and partition; a partition without one has not been absorbed at all."""
    landed_sequence: int
    """The sequence number of the snapshot that moved the marks last; 0 before the first."""
    rolled_back: bool
    """Whether that snapshot is no longer part of the table, so that the marks promise too much."""
    rows: int
    bytes: int
    files: int
    claims: tuple[Mark, ...] = ()
    """Up to where somebody may be about to put events into quarantine, see `lakehouse.commit`."""
    lost: tuple[Gap, ...] = ()
    """What an operator gave up because it is gone, by log id, partition and start."""
    carried: tuple[Gap, ...] = ()
    """What a renewal of the log carried over to another one, where it has other positions."""
    counted: tuple[tuple[str, int], ...] = ()
    """Parts of the books that are no rows (any more), by name, see `assets.accounting`."""
    adopted: str = ""
    """The id of the table that an operator took in place of another one."""
    duplicates: int = 0
    """Rows with `duplicate_of`: counted in the commits that bring and drop them, not by looking."""
    expired: Mapping[tuple[str, int], Expired] = field(default_factory=dict, hash=False)
    """What retention dropped, by log id and partition; see `lakehouse.retention`."""
    expired_before: Micros = 0
    """The midnight before which it did that last; 0 if it never did."""

    def mark(self, log_id: str, partition: int) -> Mark:
        """Answer where this log partition goes on."""
        return _of(self.marks, log_id, partition)

    def claim(self, log_id: str, partition: int) -> Mark:
        """Answer up to where quarantine is claimed in this log partition."""
        return _of(self.claims, log_id, partition)


def _of(marks: Iterable[Mark], log_id: str, partition: int) -> Mark:
    for mark in marks:
        if (mark.log_id, mark.partition) == (log_id, partition):
            return mark
    return Mark(log_id, partition, 0, "")


def marks_of(properties: Mapping[str, str], prefix: str = MARK) -> tuple[Mark, ...]:
    """Read the marks (or claims) from table properties, sorted."""
    marks = []
    for name, value in properties.items():
        if name.startswith(prefix):
            log_id, _, partition = name.removeprefix(prefix).rpartition(".")
            following, _, fingerprint = value.partition(":")
            marks.append(Mark(log_id, int(partition), int(following), fingerprint))
    return tuple(sorted(marks, key=lambda mark: (mark.log_id, mark.partition)))


def mark_properties(marks: Iterable[Mark], prefix: str = MARK) -> dict[str, str]:
    """Answer the table properties that say these marks (or claims)."""
    return {f"{prefix}{mark.log_id}.{mark.partition}": str(mark) for mark in marks}


def gaps_of(properties: Mapping[str, str], prefix: str = LOST) -> tuple[Gap, ...]:
    """Read what was given up (or carried over) from table properties, sorted."""
    gaps = []
    for name, value in properties.items():
        if name.startswith(prefix):
            log_id, _, partition = name.removeprefix(prefix).rpartition(".")
            for run in value.split(","):
                start, _, end = run.partition("-")
                gaps.append(Gap(log_id, int(partition), int(start), int(end)))
    return tuple(sorted(gaps, key=lambda gap: (gap.log_id, gap.partition, gap.start)))


def gap_properties(gaps: Iterable[Gap], prefix: str = LOST) -> dict[str, str]:
    """Answer the table properties that say all of these gaps."""
    runs: dict[str, list[str]] = {}
    for gap in gaps:
        runs.setdefault(f"{prefix}{gap.log_id}.{gap.partition}", []).append(
            f"{gap.start}-{gap.end}"
        )
    return {name: ",".join(some) for name, some in runs.items()}


def repeats_property(count: int) -> dict[str, str]:
    """Answer the table property that says how many rows repeat others."""
    return {REPEATS: str(count)}


def counted_of(properties: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Read the parts of the books that a table keeps as numbers, sorted."""
    found = (
        (name.removeprefix(BOOKS), int(value))
        for name, value in properties.items()
        if name.startswith(BOOKS)
    )
    return tuple(sorted(found))


def rolled_back(ancestors: Iterable[int], landed: int) -> bool:
    """Say whether the snapshot with sequence number `landed` was taken out of the table.

    `ancestors` are the sequence numbers from the current snapshot back, as far as they are kept.
    Coming to an older one without meeting it means that it is gone; where the line ends before,
    upkeep expired it. A commit on top of a rolled back table does not hide it.
    """
    if not landed:
        return False
    seen = False
    for sequence in ancestors:
        seen = True
        if sequence == landed:
            return False
        if sequence < landed:
            return True
    return not seen


class Seen(NamedTuple):
    """The tables of a collection, as they are told together."""

    main: TableView | None
    quarantine: TableView | None
    beyond: int
    """How many rows of quarantine `main` does not cover."""
    closed: int
    """How many of those that it covers are closed."""


class Run(NamedTuple):
    """Neighbouring rows of one data file, by their numbers in it, both ends included."""

    file: str
    first: int
    last: int


class Lake:
    """The tables of all collections. Threads may share it."""

    def __init__(self, catalog: Catalog, patience: Patience | None = None) -> None:
        self.catalog = catalog
        self.patience = patience or Patience()
        self._views: dict[Identifier, TableView] = {}
        self._loaded: dict[Identifier, Table] = {}
        self._settled: dict[CollectionId, tuple[int, tuple[Mark, ...]]] = {}
        self._guard = threading.Lock()

    @property
    def checks_ours(self) -> bool:
        """Whether the catalog checks requirements of our own; one behind REST does not."""
        return getattr(self.catalog, "checks_ours", True)

    def view(self, collection: CollectionId) -> TableView | None:
        """Answer the collection's table as it is now; None before its first landing."""
        return self._view(collection, main_table(collection))

    def quarantine_view(self, collection: CollectionId) -> TableView | None:
        """Answer its quarantine table as it is now; None before its first landing."""
        return self._view(collection, quarantine_table(collection))

    def _quarantine(
        self, collection: CollectionId, table: Table | None, main: TableView | None
    ) -> tuple[TableView | None, int]:
        """Answer what quarantine is by this load, and how many of its rows `main` does not cover.

        Landing brings events to quarantine before main's marks say so: such rows lie at or behind
        those marks. They are counted only where quarantine's own marks are ahead.
        """
        if table is None:
            return None, 0
        view = self._known(collection, quarantine_table(collection), table)
        beyond = 0
        for mark in view.marks:
            start = main.mark(mark.log_id, mark.partition).next if main is not None else 0
            if start < mark.next:
                with _asking():
                    beyond += _rows_from(table, mark.log_id, mark.partition, start)
        return view, beyond

    def closed_view(self, collection: CollectionId) -> TableView | None:
        """Answer the table of closed positions as it is now; None while nothing is closed."""
        view = self._view(collection, closed_table(collection))
        return view if view is not None and view.rows else None

    def closed_beside(self, collection: CollectionId, main: TableView | None) -> int:
        """Answer how many quarantined events are closed that `main` covers.

        Landing closes copies of released events before it brings them to quarantine, so some may
        lie at or behind main's marks. They are looked for once for each version of the table.
        """
        return self._closed(collection, self.table(closed_table(collection)), main)

    def _closed(self, collection: CollectionId, table: Table | None, main: TableView | None) -> int:
        snapshot = table.metadata.current_snapshot() if table is not None else None
        if table is None or snapshot is None or main is None:
            return 0
        rows = _rows_in(snapshot)
        with self._guard:
            known, upto = self._settled.get(collection, (None, ()))
        reached = {(mark.log_id, mark.partition): mark.next for mark in main.marks}
        if known == snapshot.snapshot_id and all(
            reached.get((mark.log_id, mark.partition), 0) >= mark.next for mark in upto
        ):
            return rows
        with _asking():
            beyond = sum(
                _rows_from(table, mark.log_id, mark.partition, mark.next) for mark in main.marks
            )
        if not beyond:
            with self._guard:
                self._settled[collection] = (snapshot.snapshot_id, main.marks)
        return rows - beyond

    def seen(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Seen | Unavailable]:
        """Answer the tables of each collection, quarantine not as it was before the main one.

        A catalog in a SQL database says by one statement where all of them are at one moment, and
        only what has changed since it was seen is loaded. From others each is loaded, some at a
        time. Where a collection's tables do not answer, the error stands in their place.
        """
        found: dict[CollectionId, Seen | Unavailable] = {}
        try:
            there = self._locations(collections)
        except Unavailable as error:
            return dict.fromkeys(collections, error)
        left = list(collections)
        if there is not None:
            left = [one for one in left if not self._unchanged(one, there)]
            known = [one for one in collections if one not in set(left)]
            found = {one: self._seen(one, there) for one in known}
        if left:
            with ThreadPoolExecutor(min(_LOADED_AT_ONCE, len(left)), "tables") as threads:
                told = threads.map(lambda one: self._seen(one, there), left)
                found |= zip(left, told, strict=True)
        return found

    def _locations(self, collections: Sequence[CollectionId]) -> Mapping[Identifier, str] | None:
        """Answer where the metadata of all their tables is now; None where only loads tell."""
        if not isinstance(self.catalog, RememberingCatalog):
            return None
        with _asking():
            return self.catalog.locations([name for one in collections for name in _names(one)])

    def _unchanged(self, collection: CollectionId, there: Mapping[Identifier, str]) -> bool:
        """Say whether nothing has to be loaded of the collection."""
        return all(name not in there or self._loaded_at(name, there) for name in _names(collection))

    def _loaded_at(self, name: Identifier, there: Mapping[Identifier, str]) -> Table | None:
        with self._guard:
            table = self._loaded.get(name)
        return table if table and table.metadata_location == there.get(name) else None

    def _seen(
        self, collection: CollectionId, there: Mapping[Identifier, str] | None
    ) -> Seen | Unavailable:
        """Answer a collection's tables, at their places of one moment if they still are there."""
        try:
            if there is not None and isinstance(self.catalog, RememberingCatalog):
                try:
                    return self._seen_by(collection, partial(self._table_at, self.catalog, there))
                except FileNotFoundError:
                    log.debug("metadata was cleaned away before it was read", name=str(collection))
            return self._seen_by(collection, self.table)
        except Unavailable as error:
            return error

    def _seen_by(
        self, collection: CollectionId, table: Callable[[Identifier], Table | None]
    ) -> Seen:
        name, aside, ended = _names(collection)
        loaded = table(name)
        main = None if loaded is None else self._known(collection, name, loaded)
        quarantine, beyond = self._quarantine(collection, table(aside), main)
        # Most collections have nothing there: they need not be asked for one table more.
        rows = quarantine.rows if quarantine is not None else 0
        closed = self._closed(collection, table(ended), main) if rows > beyond else 0
        return Seen(main, quarantine, beyond, closed)

    def _table_at(
        self, catalog: RememberingCatalog, there: Mapping[Identifier, str], name: Identifier
    ) -> Table | None:
        if name not in there:
            return None
        known = self._loaded_at(name, there)
        if known is not None:
            return known
        try:
            return catalog.table_at(name, there[name])
        except FileNotFoundError:
            raise
        except Exception as error:
            raise _away(error) from error

    def table(self, name: Identifier) -> Table | None:
        """Load a table by its name; None where there is none.

        Raises `EngineUnavailable` if the catalog or its files do not answer.
        """
        try:
            with _asking():
                loaded = self._load(name)
        except NoSuchTableError:
            return None
        # Commits go through this lake's catalog, whichever one made the table.
        return Table(
            name, loaded.metadata, loaded.metadata_location, loaded.io, self.catalog, loaded.config
        )

    def at(self, view: TableView) -> Table:
        """Load the main table as it was when it was viewed, a moment ago.

        Raises `EngineUnavailable` if that cannot be read.
        """
        name = main_table(view.collection)
        with self._guard:
            known = self._loaded.get(name)
        if known is not None and known.metadata_location == view.metadata_location:
            return known
        io = self._files(view.metadata_location)
        with _asking():
            metadata = FromInputFile.table_metadata(io.new_input(view.metadata_location))
        return Table(name, metadata, view.metadata_location, io, self.catalog)

    def _load(self, name: Identifier) -> Table:
        try:
            return self.catalog.load_table(name)
        except FileNotFoundError:
            # Twenty commits since the database named this metadata: it was cleaned away.
            return self.catalog.load_table(name)

    def create(self, collection: CollectionId) -> TableView:
        """Make both tables unless they are there; safe beside others who do the same."""
        with _asking():
            self._create(quarantine_table(collection), quarantine_schema())
            self._create(main_table(collection), main_schema())
        view = self.view(collection)
        if view is None:
            raise NoSuchTableError(f"the table of {collection} was dropped while it was made")
        return view

    @contextmanager
    def open(self, path: str) -> Iterator[InputStream]:
        """Open a data file for the block. Raises `EngineUnavailable` if it cannot be read."""
        try:
            with self._files(path).new_input(path).open() as stream:
                yield stream
        except (OSError, pa.ArrowException) as error:
            raise EngineUnavailable("the tables cannot be read now") from error

    def _files(self, location: str) -> FileIO:
        """Answer what reads there as the catalog has it: its properties are not all that counts."""
        return self.catalog._load_file_io(location=location)  # noqa: SLF001

    def collections(self) -> list[CollectionId]:
        """Answer every collection that has a table, sorted."""
        found = []
        with _asking():
            for namespace in self.catalog.list_namespaces():
                team = ".".join(namespace)
                if not team.endswith(QUARANTINE_SUFFIX):
                    tables = self.catalog.list_tables(namespace)
                    found += [CollectionId(team, table[-1]) for table in tables]
        return sorted(found)

    def pin(
        self, collection: CollectionId, snapshot_id: int, name: str, *, quarantine: bool = False
    ) -> None:
        """Keep a snapshot of the collection's table, with all its files, until it is unpinned.

        With `quarantine` it is one of its quarantine table. Raises `NotFound` if there is no such
        snapshot (any more), `AlreadyExists` if the name pins another one.
        """
        for _ in self.patience.attempts():
            table = self._existing(collection, quarantine=quarantine)
            pinned = _tags(table.metadata).get(name)
            if pinned == snapshot_id:
                return
            if pinned is not None:
                raise AlreadyExists("pin", name)
            gone = table.metadata.snapshot_by_id(snapshot_id) is None
            # Where the catalog cannot check it, one that is about to go is gone.
            leaving = not self.checks_ours and snapshot_id in read_leaving(table.metadata).snapshots
            if gone or leaving:
                raise NotFound("snapshot", str(snapshot_id))
            try:
                self.send(
                    table,
                    (set_tag(name, snapshot_id),),
                    (AssertPresent(snapshot=snapshot_id), same_ref(name, None)),
                )
            except CommitFailedException:
                continue
            return
        raise _busy(collection)

    def unpin(self, collection: CollectionId, name: str, *, quarantine: bool = False) -> None:
        """Let go of a pinned snapshot; it is no error if the name pins nothing."""
        for _ in self.patience.attempts():
            table = self._existing(collection, quarantine=quarantine)
            pinned = _tags(table.metadata).get(name)
            if pinned is None:
                return
            try:
                self.send(table, (remove_ref(name),), (same_ref(name, pinned),))
            except CommitFailedException:
                continue
            return
        raise _busy(collection)

    def let_go(self, name: Identifier, now: Micros) -> int:
        """Let go of every snapshot of a table whose pin has ended; answer how many pins those were.

        See `lakehouse.pins`.
        """
        for _ in self.patience.attempts():
            table = self.table(name)
            tags = {} if table is None else _tags(table.metadata)
            due = {pin: snapshot for pin, snapshot in tags.items() if over(pin, now)}
            if table is None or not due:
                return 0
            try:
                self.send(
                    table,
                    tuple(remove_ref(pin) for pin in due),
                    tuple(same_ref(pin, snapshot) for pin, snapshot in due.items()),
                )
            except CommitFailedException:
                continue
            return len(due)
        raise EngineUnavailable(f"{'.'.join(name)} kept changing while its pins were looked at")

    def pins(self, collection: CollectionId, *, quarantine: bool = False) -> dict[str, int]:
        """Answer the pinned snapshots of the collection's table, by name."""
        return _tags(self._existing(collection, quarantine=quarantine).metadata)

    def hold(self, table: Table, clock: Clock) -> Table | None:
        """Ask landing to leave the table alone for a moment; answer the table as it is then.

        None where somebody was faster. See `held_back`.
        """
        until = str(clock() + LONGEST_HOLD)
        try:
            return self.send(table, (set_properties({HOLD: until}),), ())
        except CommitFailedException:
            return None

    def release(self, held: Table) -> None:
        """Let landing go on before the hold ends by itself, unless somebody else asked for it."""
        table = self.table(held.name())
        asked = held.metadata.properties[HOLD]
        if table is None or table.metadata.properties.get(HOLD) != asked:
            return
        try:
            self.send(table, (remove_properties([HOLD]),), ())
        except CommitFailedException as error:
            log.info("a hold ends by itself", table=".".join(table.name()), error=str(error))

    def send(
        self,
        table: Table,
        updates: tuple[TableUpdate, ...],
        requirements: tuple[ValidatableTableRequirement, ...],
    ) -> Table:
        """Commit to the catalog, once; answer the table as it then is.

        Nothing is tried again and nothing is deleted if it fails: a commit that was reported as
        failed may have landed. Raises `CommitFailedException` if a requirement does not hold or
        somebody else was faster; after any other error the outcome is not known.
        """
        asked = (same_table(table.metadata), *requirements)
        response = self.catalog.commit_table(
            table, cast("tuple[TableRequirement, ...]", asked), updates
        )
        kept = {entry.metadata_file for entry in response.metadata.metadata_log}
        for entry in table.metadata.metadata_log:
            if entry.metadata_file not in kept:
                table.io.delete(entry.metadata_file)
        return Table(
            table.name(), response.metadata, response.metadata_location, table.io, self.catalog
        )

    def batches(
        self,
        collection: CollectionId,
        runs: Iterable[Run],
        columns: Iterable[str],
        *,
        uuid: str,
        size: int,
        quarantine: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Read columns of the envelope straight from data files, run after run.

        No more than `size` rows come at a time, and as many fewer as a run holds. Whoever asks has
        pinned the files, and knows from an engine which of their rows there are: what was deleted
        beside a file is not looked at. Raises `TableChanged` if the table does not have this
        `uuid`, `EngineUnavailable` if a file cannot be read.
        """
        table = self._existing(collection, quarantine=quarantine)
        if str(table.metadata.table_uuid) != uuid:
            raise TableChanged(f"the table of {collection} is another one")
        arrow = arrow_schema(table.metadata.schema())
        wanted = pa.schema([arrow.field(name) for name in columns])
        for run in runs:
            try:
                with table.io.new_input(run.file).open() as stream:
                    yield from batches(stream, wanted, first=run.first, last=run.last, size=size)
            except (OSError, pa.ArrowException) as error:
                raise EngineUnavailable("the tables cannot be read now") from error

    def _view(self, collection: CollectionId, name: Identifier) -> TableView | None:
        table = self.table(name)
        return None if table is None else self._known(collection, name, table)

    def _known(self, collection: CollectionId, name: Identifier, table: Table) -> TableView:
        """Answer what this load says; the same metadata is not read again."""
        with self._guard:
            known = self._views.get(name)
        if known is not None and known.metadata_location == table.metadata_location:
            return known
        view = read_view(collection, table)
        with self._guard:
            self._views[name], self._loaded[name] = view, table
        return view

    def _existing(self, collection: CollectionId, *, quarantine: bool = False) -> Table:
        table = self.table(quarantine_table(collection) if quarantine else main_table(collection))
        if table is None:
            raise NotFound("table", str(collection))
        return table

    def _create(self, name: Identifier, schema: Schema) -> None:
        try:
            self.catalog.create_namespace(name[:-1])
        except NamespaceAlreadyExistsError:
            log.debug("namespace exists already", namespace=name[0])
        try:
            self.catalog.create_table(
                name, schema, partition_spec=partition_spec(schema), properties=PROPERTIES
            )
        except TableAlreadyExistsError:
            log.debug("table exists already", table=".".join(name))


@dataclass(frozen=True, slots=True)
class Leaving:
    """Snapshots that upkeep is about to expire, announced at a time (0: none are)."""

    since: Micros = 0
    snapshots: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"{self.since}:{','.join(map(str, sorted(self.snapshots)))}"


def read_leaving(metadata: TableMetadata) -> Leaving:
    """Answer what was announced in the table."""
    since, _, listed = metadata.properties.get(LEAVING, "").partition(":")
    if not listed:
        return Leaving()
    return Leaving(int(since), frozenset(map(int, listed.split(","))))


def held_back(metadata: TableMetadata, clock: Clock) -> bool:
    """Say whether landing is to leave the table alone for a moment, see `lakehouse.rewrite`.

    A hold ends by itself: whoever asked for it may be dead, or have a clock that is wrong.
    """
    asked = metadata.properties.get(HOLD)
    if asked is None:
        return False
    until, now = int(asked), clock()
    return now < until <= now + LONGEST_HOLD


@contextmanager
def _asking() -> Iterator[None]:
    """Tell by an error of ours that the catalog did not answer; what it answered stays."""
    try:
        yield
    except (PenstockError, NoSuchTableError):
        raise
    except Exception as error:
        raise _away(error) from error


def _away(error: Exception) -> EngineUnavailable:
    return EngineUnavailable(f"the catalog does not answer: {type(error).__name__}")


def _names(collection: CollectionId) -> tuple[Identifier, Identifier, Identifier]:
    """Answer the names of a collection's tables, in the order in which they are read."""
    return main_table(collection), quarantine_table(collection), closed_table(collection)


def read_view(collection: CollectionId, table: Table) -> TableView:
    """Answer what this load of the table says."""
    metadata = table.metadata
    snapshot = metadata.current_snapshot()
    summary = _summary(snapshot)
    landed = int(metadata.properties.get(LANDED, "0"))
    line = (s.sequence_number or 0 for s in ancestors_of(snapshot, metadata))
    expired = expired_of(metadata)
    return TableView(
        collection=collection,
        uuid=str(metadata.table_uuid),
        metadata_location=table.metadata_location,
        snapshot_id=snapshot.snapshot_id if snapshot else None,
        schema_id=metadata.current_schema_id,
        shape=shape_of(metadata.schema()),
        marks=marks_of(metadata.properties),
        landed_sequence=landed,
        rolled_back=rolled_back(line, landed),
        rows=_rows_in(snapshot) if snapshot else 0,
        bytes=int(summary.get("total-files-size", "0")),
        files=int(summary.get("total-data-files", "0")),
        claims=marks_of(metadata.properties, CLAIM),
        lost=gaps_of(metadata.properties),
        carried=gaps_of(metadata.properties, CARRIED),
        counted=counted_of(metadata.properties),
        adopted=metadata.properties.get(ADOPTED, ""),
        duplicates=int(metadata.properties.get(REPEATS, "0"))
        - sum(one.repeats for one in expired.values()),
        expired=expired,
        expired_before=_midnight(metadata.properties.get(EXPIRED_BEFORE)),
    )


def scanned(
    table: Table, columns: Sequence[str], wanted: str | BooleanExpression = _ALL
) -> Iterator[pa.RecordBatch]:
    """Read columns of the rows that are wanted, file after file, in whatever order they come.

    Raises `EngineUnavailable` if a file cannot be read.
    """
    try:
        yield from table.scan(wanted, tuple(columns)).to_arrow_batch_reader()
    except (OSError, pa.ArrowException) as error:
        raise EngineUnavailable("the tables cannot be read now") from error


def scanned_as(table: Table, schema: pa.Schema, wanted: str | BooleanExpression = _ALL) -> pa.Table:
    """Read the rows that are wanted with the columns and kinds of the schema; raises alike."""
    batches = scanned(table, schema.names, wanted)
    return pa.Table.from_batches((one.select(schema.names).cast(schema) for one in batches), schema)


def _summary(snapshot: Snapshot | None) -> Mapping[str, str]:
    return snapshot.summary.additional_properties if snapshot and snapshot.summary else {}


def _rows_in(snapshot: Snapshot) -> int:
    return int(_summary(snapshot).get("total-records", "0"))


def _rows_from(table: Table, log_id: str, partition: int, start: int) -> int:
    """Count the rows of a log partition from a position on."""
    wanted = f"log_partition = {partition} and log_offset >= {start}"
    return sum(
        batch.column("log_id").to_pylist().count(log_id)
        for batch in scanned(table, ("log_id",), wanted)
    )


def _midnight(day: str | None) -> Micros:
    """Answer when a day (UTC, as ``2025-11-26``) begins; 0 without one."""
    if day is None:
        return 0
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * _DAY


def _tags(metadata: TableMetadata) -> dict[str, int]:
    return {
        name: ref.snapshot_id
        for name, ref in metadata.refs.items()
        if name != MAIN_BRANCH and ref.snapshot_ref_type == SnapshotRefType.TAG
    }


def _busy(collection: CollectionId) -> EngineUnavailable:
    return EngineUnavailable(f"the table of {collection} kept changing beside this commit")
