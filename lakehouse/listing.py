"""The data files of a table as one load of it names them: where they are, and what is in them.

Manifests and data files never change, so each is looked into once and remembered by its name. A
search can then open just those files in which something may be, and none of the metadata.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from pyiceberg.conversions import from_bytes
from pyiceberg.io import InputStream
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import TimestamptzType

from lakehouse.columns import DATA, arrow_schema, shape_in
from lakehouse.files import SCHEME
from lakehouse.payloads import Chunk, OtherPagesError, Read, chunk_of, payloads_in
from lakehouse.tables import Lake, TableView
from penstock.envelope import Micros
from penstock.errors import EngineUnavailable
from penstock.schema.shape import Struct

log = structlog.get_logger()

MOST_SHAPES = 8
"""Files of so many shapes are read shape by shape; with more the engine puts them together."""

_MOST_TABLES = 256
_MOST_COLUMNS = 1_000

_Remembered = TypeVar("_Remembered")

# Engines take the others for patterns of names.
_PLAIN_PATH = re.compile(r"[^*?\[\]{}]+")

EVER = (-(1 << 63), (1 << 63) - 1)
"""Of a file that does not say when its events were received."""


class Group(NamedTuple):
    """A row group: its rows, and from when to when their events were received, both included.

    `payloads` is where they are, if single ones can be read; `ids` are the least and the greatest
    id of its events, if it says so.
    """

    rows: int
    first: Micros
    last: Micros
    payloads: Chunk | None = None
    ids: tuple[str, str] | None = None

    def may_have(self, event_id: str) -> bool:
        """Say whether an event may be in it that has this id."""
        # As bytes: engines compare them so, and Python's letters have the same order.
        return self.ids is None or self.ids[0] <= event_id <= self.ids[1]


@dataclass(frozen=True, slots=True)
class Listed:
    """A data file: its events were received from `first` to `last`, both included.

    `shape` is that of its payloads.
    """

    path: str
    rows: int
    bytes: int
    first: Micros
    last: Micros
    shape: Struct
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class _Named:
    """What a manifest says of a file."""

    path: str
    rows: int
    bytes: int
    first: Micros
    last: Micros


@dataclass(frozen=True, slots=True)
class _Footer:
    """What a file says of itself, and the columns it has with their ids, also as bytes."""

    written: bytes
    columns: pa.Schema
    shape: Struct
    groups: tuple[Group, ...]


class _ReadOtherwise(Exception):
    """Reading the files by themselves would not be reading the table."""


class Listing:
    """Remembers what is in the files of tables. Threads may share it."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._guard = threading.Lock()
        self._manifests: OrderedDict[str, dict[str, tuple[_Named, ...]]] = OrderedDict()
        self._footers: OrderedDict[str, dict[str, _Footer]] = OrderedDict()
        self._columns: dict[bytes, tuple[bytes, pa.Schema, Struct]] = {}
        self._answers: OrderedDict[str, tuple[str, tuple[Listed, ...] | None]] = OrderedDict()

    def files(self, view: TableView) -> tuple[Listed, ...] | None:
        """Answer the files of the main table as it was viewed.

        None where reading them by themselves would not be reading the table: rows are deleted
        beside a file, a file's columns are not those of the table by name and by id, or there are
        too many shapes. Raises `EngineUnavailable` if the metadata cannot be read.
        """
        with self._guard:
            known = self._answers.get(view.uuid)
        if known is not None and known[0] == view.metadata_location:
            return known[1]
        try:
            found = self._read(view)
        except _ReadOtherwise as reason:
            log.info("files are not read by themselves", table=view.uuid, reason=str(reason))
            found = None
        except (OSError, pa.ArrowException, ValueError) as error:
            raise EngineUnavailable("the tables cannot be read now") from error
        with self._guard:
            _remember(self._answers, view.uuid, (view.metadata_location, found), _MOST_TABLES)
        return found

    def payloads(self, file: Listed, rows: Sequence[int]) -> list[bytes] | None:
        """Answer the payloads of these rows of a file, whose numbers rise.

        None where single ones cannot be read. Raises `EngineUnavailable` if they cannot be now.
        """
        found: list[bytes] = []
        first = 0
        with self._lake.open(file.path) as stream:
            for group in file.groups:
                end = first + group.rows
                here = [row - first for row in rows if first <= row < end]
                first = end
                if not here:
                    continue
                if group.payloads is None:
                    return None
                try:
                    found += payloads_in(_reading(stream, file, group.payloads), here)
                except OtherPagesError:
                    return None
        return found

    def _read(self, view: TableView) -> tuple[Listed, ...]:
        table = self._lake.at(view)
        snapshot = table.metadata.current_snapshot()
        manifests = snapshot.manifests(table.io) if snapshot is not None else []
        if any(one.content != ManifestContent.DATA and _names_any(one) for one in manifests):
            raise _ReadOtherwise("rows are deleted beside files")
        with self._guard:
            before = self._manifests.get(view.uuid, {})
        read = {
            one.manifest_path: before.get(one.manifest_path) or _named(table, one)
            for one in manifests
            if one.content == ManifestContent.DATA
        }
        with self._guard:
            _remember(self._manifests, view.uuid, read, _MOST_TABLES)
            known = self._footers.get(view.uuid, {})
        footers: dict[str, _Footer] = {}
        try:
            found = list(self._listed(table, read.values(), known, footers))
        finally:
            # Those of files that were merged are not needed any more.
            with self._guard:
                _remember(self._footers, view.uuid, footers, _MOST_TABLES)
        if len({one.shape for one in found}) > MOST_SHAPES:
            raise _ReadOtherwise("they have many shapes")
        return tuple(sorted(found, key=lambda one: (one.first, one.path)))

    def _listed(
        self,
        table: Table,
        manifests: Iterable[Iterable[_Named]],
        known: Mapping[str, _Footer],
        footers: dict[str, _Footer],
    ) -> Iterator[Listed]:
        """Go through the files, and put the footer of each into `footers`."""
        columns = arrow_schema(table.schema())
        fitting: dict[bytes, bool] = {}
        for named in chain.from_iterable(manifests):
            footer = known.get(named.path) or self._footer(table, named.path)
            footers[named.path] = footer
            if footer.written not in fitting:
                fitting[footer.written] = _same_columns(footer.columns, columns)
            if not fitting[footer.written]:
                raise _ReadOtherwise("columns of a file are not those of the table")
            yield Listed(
                path=named.path,
                rows=named.rows,
                bytes=named.bytes,
                first=named.first,
                last=named.last,
                shape=footer.shape,
                groups=footer.groups,
            )

    def _footer(self, table: Table, path: str) -> _Footer:
        with table.io.new_input(path).open() as stream:
            metadata = pq.read_metadata(stream)
        columns = metadata.schema.to_arrow_schema()
        shape = shape_in(columns)
        if shape is None:
            raise _ReadOtherwise("a file has columns that no table has")
        groups = tuple(_groups(metadata))
        written = columns.serialize().to_pybytes()
        with self._guard:
            # Most files have the columns of others.
            written, columns, shape = self._columns.setdefault(written, (written, columns, shape))
            while len(self._columns) > _MOST_COLUMNS:
                del self._columns[next(iter(self._columns))]
        return _Footer(written, columns, shape, groups)


def _reading(stream: InputStream, file: Listed, chunk: Chunk) -> Read:
    """Answer what reads of a chunk.

    On a disk pieces are read where they are. Of an object store each would be a request: there the
    chunk is one.
    """
    if file.path.startswith(SCHEME):

        def piece(start: int, size: int) -> bytes:
            stream.seek(chunk.start + start)
            return stream.read(max(0, min(size, chunk.size - start)))

        return piece
    stream.seek(chunk.start)
    whole = memoryview(stream.read(chunk.size))
    return lambda start, size: whole[start : start + size]


def _remember(kept: OrderedDict[str, _Remembered], key: str, value: _Remembered, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def _groups(footer: pq.FileMetaData) -> Iterator[Group]:
    """Answer the row groups that have rows."""
    names = [footer.schema.column(number).path for number in range(footer.num_columns)]
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        times, ids = (
            _statistics(group, names.index(name)) if name in names else None
            for name in ("received_at", "event_id")
        )
        first, last = EVER if times is None else (times.min_raw, times.max_raw)
        within = None if ids is None else (ids.min, ids.max)
        if group.num_rows:
            yield Group(group.num_rows, first, last, chunk_of(footer, number), within)


def _statistics(group: pq.RowGroupMetaData, column: int) -> pq.Statistics | None:
    found = group.column(column).statistics
    return found if found is not None and found.has_min_max else None


def _names_any(manifest: ManifestFile) -> bool:
    """Say whether a manifest may name files that count; one that does not say may."""
    counts = (manifest.added_files_count, manifest.existing_files_count)
    return any(count is None or count > 0 for count in counts)


def _named(table: Table, manifest: ManifestFile) -> tuple[_Named, ...]:
    """Answer the files that a manifest adds or keeps."""
    at = _received(table.schema())
    entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    return tuple(
        _one(entry.data_file, at)
        for entry in entries
        if entry.status != ManifestEntryStatus.DELETED
    )


def _received(schema: Schema) -> int:
    return schema.find_field("received_at").field_id


def _one(file: DataFile, at: int) -> _Named:
    if file.content != DataFileContent.DATA or file.file_format != FileFormat.PARQUET:
        raise _ReadOtherwise("not all of them are Parquet files")
    if not _PLAIN_PATH.fullmatch(file.file_path):
        raise _ReadOtherwise("the path of a file would be taken for a pattern")
    low, high = (file.lower_bounds or {}).get(at), (file.upper_bounds or {}).get(at)
    kind = TimestamptzType()
    first = EVER[0] if low is None else int(from_bytes(kind, low))
    last = EVER[1] if high is None else int(from_bytes(kind, high))
    return _Named(file.file_path, file.record_count, file.file_size_in_bytes, first, last)


def _same_columns(file: pa.Schema, table: pa.Schema) -> bool:
    """Say whether a file's columns are columns of the table, by name, by id and by type.

    All of the envelope has to be there. The payload's columns may be fewer: a column that came
    later is null in every row of the file.
    """
    names = set(file.names)
    return all(field.name in names or field.name == DATA for field in table) and _within(
        list(file), {field.name: field for field in table}
    )


def _within(fields: Iterable[pa.Field], known: dict[str, pa.Field]) -> bool:
    for field in fields:
        other = known.get(field.name)
        if other is None or _id(field) != _id(other) or not _fits(field.type, other.type):
            return False
    return True


def _fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and pa.types.is_struct(wanted):
        return _within(list(kind), {field.name: field for field in wanted})
    if pa.types.is_list(kind) and pa.types.is_list(wanted):
        inner, other = kind.value_field, wanted.value_field
        return _id(inner) == _id(other) and _fits(inner.type, other.type)
    if pa.types.is_map(kind) and pa.types.is_map(wanted):
        return bool(kind.key_type == wanted.key_type and kind.item_type == wanted.item_type)
    return bool(kind == wanted)


def _id(field: pa.Field) -> bytes:
    number: bytes = (field.metadata or {}).get(b"PARQUET:field_id", b"")
    return number
