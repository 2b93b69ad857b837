"""Rows to Parquet files as Iceberg wants them, and what a manifest has to know about a file.

Our own writing, because an event's row is known better here than to a general writer: the payload
needs no statistics and no dictionary, most envelope columns hold one value for a whole batch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import InputStream, OutputStream
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from lakehouse.columns import DATA
from penstock.faults import fault

# Readers skip whole row groups, and a group is held in memory while it is written.
ROWS_PER_GROUP = 100_000
BYTES_PER_GROUP = 128 << 20

# Metrics of a file are read and rewritten with every manifest; engines prune by few columns.
# 100 columns is where Iceberg's own writers stop, too.
METRICS = 100

# Iceberg's default: enough to prune by, and no long value is copied into metadata.
BOUND_LENGTH = 16

# zstd 3 saves nothing over 1 on events, 9 saves a tenth and costs five times the CPU.
_LEVEL = 1

# Plain pages of 0.04 us a value compress as well as dictionaries of 0.1 us on most columns.
# These few hold one value, or a handful, for a whole batch.
_DICTIONARY = (
    "source",
    "content_type",
    "log_id",
    "log_partition",
    "headers.list.element.key",
    "metadata.key_value.key",
    "metadata.key_value.value",
)

# Rise by small steps, so that the differences take a bit or two.
_DELTA = ("received_at", "log_offset")

# A page is unpacked whole for one value of it. Pages of a quarter of Parquet's usual size add a
# hundredth to a file of events; writing and scanning it take as long.
_PAGE_BYTES = 256 << 10

# One answer in a hundred is a false alarm, for 1.2 bytes an event.
_FALSE_ALARMS = 0.01

_SURROGATES = range(0xD800, 0xE000)
_LAST_CHARACTER = 0x10FFFF
_LAST_BYTE = 0xFF

_PACK: dict[type[IcebergType], struct.Struct] = {
    BooleanType: struct.Struct("<?"),
    IntegerType: struct.Struct("<i"),
    DateType: struct.Struct("<i"),
    LongType: struct.Struct("<q"),
    TimestampType: struct.Struct("<q"),
    TimestamptzType: struct.Struct("<q"),
    FloatType: struct.Struct("<f"),
    DoubleType: struct.Struct("<d"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of scalars, in the order of the file. `measured`: its metrics go to manifests."""

    field_id: int
    kind: IcebergType
    path: str
    measured: bool


@dataclass(slots=True)
class _Metrics:
    """What is known of one column over the row groups seen so far."""

    size: int = 0
    values: int = 0
    nulls: int | None = 0
    bounded: bool = True
    least: Any = None
    most: Any = None


def columns_of(schema: Schema) -> list[Column]:
    """Answer the columns of scalars of a file with this schema, in its order."""
    discovered = 0
    columns = []
    for number, kind, path, repeated in _scalars(schema):
        discovered += path.startswith(f"{DATA}.")
        beyond = path.startswith(f"{DATA}.") and discovered > METRICS
        measured = not repeated and path != "payload" and not beyond
        columns.append(Column(number, kind, path, measured))
    return columns


def write(
    rows: pa.Table, schema: pa.Schema, columns: list[Column], out: OutputStream, *, dense: bool
) -> pq.FileMetaData:
    """Write the rows to `out` as one Parquet file with this schema; answer its footer.

    `dense` takes a fifth more time and tries a dictionary on every column (for files that stay).
    `out` is left open.
    """
    group = _rows_per_group(rows.num_rows, rows.nbytes)
    parts = (rows.slice(start, group) for start in range(0, rows.num_rows, group))
    most = min(group, max(rows.num_rows, 1))
    return write_groups(parts, schema, columns, out, dense=dense, most=most)


def write_groups(
    groups: Iterable[pa.Table],
    schema: pa.Schema,
    columns: list[Column],
    out: OutputStream,
    *,
    dense: bool,
    most: int,
) -> pq.FileMetaData:
    """Do so with rows that come a row group at a time, each of at most `most` rows."""
    with pq.ParquetWriter(
        out,
        schema,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=_dictionary(columns, dense=dense),
        column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        write_statistics=[column.path for column in columns if column.measured],
        write_page_checksum=True,
        data_page_size=_PAGE_BYTES,
        bloom_filter_options={"event_id": {"ndv": most, "fpp": _FALSE_ALARMS}},
        # Readers go by field ids; the Arrow schema would be a third of a file of one event.
        store_schema=False,
    ) as writer:
        for part in groups:
            writer.write_table(pa.Table.from_arrays(part.columns, schema=schema), most)
            fault("mid_parquet")
    return writer.writer.metadata


def read(stream: InputStream, schema: pa.Schema) -> pa.Table:
    """Read a whole file as rows of a table's schema, matching columns by their Iceberg ids.

    PyIceberg's own reader turns a list that is null into an empty one. Raises `OSError` if a page
    does not have the checksum that it was written with.
    """
    rows = pq.ParquetFile(stream, page_checksum_verification=True).read()
    return pa.Table.from_batches([_of(batch, schema) for batch in rows.to_batches()], schema)


def batches(
    stream: InputStream, schema: pa.Schema, *, first: int, last: int, size: int
) -> Iterator[pa.RecordBatch]:
    """Read the rows `first` to `last` of a file, both included, no more than `size` at a time.

    They have the columns of `schema`, found as in `read`; no more of the file is unpacked at once
    than a few pages of each.
    """
    file = pq.ParquetFile(stream, page_checksum_verification=True)
    wanted = {_id(field) for field in schema}
    names = [field.name for field in file.schema_arrow if _id(field) in wanted]
    groups, start = _groups(file.metadata, first, last + 1)
    for batch in file.iter_batches(size, groups, names, use_threads=False):
        end = start + batch.num_rows
        if end > first:
            yield _of(batch.slice(max(0, first - start), last + 1 - max(start, first)), schema)
        if end > last:
            return
        start = end


def _of(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Answer the rows with the columns of a schema: found by id, those it lacks null."""
    there = {_id(field): position for position, field in enumerate(rows.schema)}
    columns = []
    for field in schema:
        position = there.get(_id(field))
        if position is None:
            columns.append(pa.nulls(rows.num_rows, field.type))
        else:
            columns.append(_as(rows.column(position), rows.schema.field(position), field))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _groups(footer: pq.FileMetaData, first: int, end: int) -> tuple[list[int], int]:
    """Answer the row groups that hold rows from `first` to before `end`, and their first row."""
    starts = list(
        accumulate((footer.row_group(i).num_rows for i in range(footer.num_row_groups)), initial=0)
    )
    groups = [i for i, (a, b) in enumerate(pairwise(starts)) if a < end and b > first]
    return groups, starts[groups[0]] if groups else first


def uncompressed_bytes(stream: InputStream) -> int:
    """Answer how long the columns of a file are when they are unpacked."""
    footer = pq.read_metadata(stream)
    return sum(footer.row_group(place).total_byte_size for place in range(footer.num_row_groups))


def _as(stored: pa.Array, was: pa.Field, wanted: pa.Field) -> pa.Array:
    """Answer the array in the wanted type: columns found by id, those it lacks null."""
    if was.equals(wanted, check_metadata=True):
        return stored
    kind = wanted.type
    if pa.types.is_struct(kind):
        there = {_id(field): position for position, field in enumerate(was.type)}
        children = []
        for field in kind:
            position = there.get(_id(field))
            children.append(
                pa.nulls(len(stored), field.type)
                if position is None
                else _as(stored.field(position), was.type.field(position), field)
            )
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=stored.is_null())
    if pa.types.is_list(kind):
        values = _as(stored.values, was.type.value_field, kind.value_field)
        validity, offsets = stored.buffers()[:2]
        return pa.Array.from_buffers(
            kind, len(stored), [validity, offsets], offset=stored.offset, children=[values]
        )
    return stored if stored.type == kind else stored.cast(kind)


def _id(field: pa.Field) -> bytes:
    number: bytes = (field.metadata or {}).get(b"PARQUET:field_id", b"")
    return number


def data_file(
    location: str, size: int, footer: pq.FileMetaData, columns: list[Column], *, day: int, spec: int
) -> DataFile:
    """Answer the manifest entry of a file of `size` bytes in the partition `day` (since 1970)."""
    metrics = _metrics(footer, columns)
    kinds = {column.field_id: column.kind for column in columns}
    lower = {n: low for n, m in metrics.items() if (low := lower_bound(kinds[n], m)) is not None}
    upper = {n: high for n, m in metrics.items() if (high := upper_bound(kinds[n], m)) is not None}
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        record_count=footer.num_rows,
        file_size_in_bytes=size,
        column_sizes={n: m.size for n, m in metrics.items()},
        value_counts={n: m.values for n, m in metrics.items()},
        null_value_counts={n: m.nulls for n, m in metrics.items() if m.nulls is not None},
        nan_value_counts={},
        lower_bounds=lower,
        upper_bounds=upper,
        key_metadata=None,
        split_offsets=[_start(footer.row_group(i)) for i in range(footer.num_row_groups)],
        equality_ids=None,
        sort_order_id=None,
    )
    file.spec_id = spec
    return file


def lower_bound(kind: IcebergType, metrics: _Metrics) -> bytes | None:
    """Answer a value that no value of the column is below, as Iceberg writes it, or None."""
    if not metrics.bounded or metrics.least is None:
        return None
    match kind:
        case StringType():
            text: str = metrics.least.decode()
            return text[:BOUND_LENGTH].encode()
        case BinaryType():
            value: bytes = metrics.least
            return value[:BOUND_LENGTH]
        case _:
            return _PACK[type(kind)].pack(metrics.least)


def upper_bound(kind: IcebergType, metrics: _Metrics) -> bytes | None:
    """Answer a value that no value of the column is above, as Iceberg writes it, or None."""
    if not metrics.bounded or metrics.most is None:
        return None
    match kind:
        case StringType():
            return _text_above(metrics.most.decode())
        case BinaryType():
            return _bytes_above(metrics.most)
        case _:
            return _PACK[type(kind)].pack(metrics.most)


def _text_above(text: str) -> bytes | None:
    """Answer the text if it is short, else a short one above everything that begins like it."""
    if len(text) <= BOUND_LENGTH:
        return text.encode()
    for last in range(BOUND_LENGTH - 1, -1, -1):
        following = ord(text[last]) + 1
        if following == _SURROGATES.start:
            following = _SURROGATES.stop
        if following <= _LAST_CHARACTER:
            return (text[:last] + chr(following)).encode()
    return None


def _bytes_above(value: bytes) -> bytes | None:
    if len(value) <= BOUND_LENGTH:
        return value
    for last in range(BOUND_LENGTH - 1, -1, -1):
        if value[last] < _LAST_BYTE:
            return value[:last] + bytes([value[last] + 1])
    return None


def _metrics(footer: pq.FileMetaData, columns: list[Column]) -> dict[int, _Metrics]:
    """Gather the metrics of the measured columns over all row groups, by field id."""
    gathered = {column.field_id: _Metrics() for column in columns if column.measured}
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        for position, column in enumerate(columns):
            if column.measured:
                _add(gathered[column.field_id], group.column(position))
    return gathered


def _add(metrics: _Metrics, chunk: pq.ColumnChunkMetaData) -> None:
    metrics.size += chunk.total_compressed_size
    metrics.values += chunk.num_values
    statistics = chunk.statistics
    if statistics is None or not statistics.has_null_count:
        metrics.nulls, metrics.bounded = None, False
        return
    if metrics.nulls is not None:
        metrics.nulls += statistics.null_count
    if statistics.has_min_max:
        least, most = statistics.min_raw, statistics.max_raw
        metrics.least = least if metrics.least is None else min(metrics.least, least)
        metrics.most = most if metrics.most is None else max(metrics.most, most)
    elif statistics.null_count != chunk.num_values:
        # Parquet leaves out bounds over 4 kB; a group without any says nothing about the file.
        metrics.bounded = False


def _start(group: pq.RowGroupMetaData) -> int:
    """Answer where the row group begins in the file."""
    first = group.column(0)
    pages: int = first.data_page_offset
    return min(pages, first.dictionary_page_offset) if first.has_dictionary_page else pages


def _rows_per_group(rows: int, size: int) -> int:
    if size <= BYTES_PER_GROUP:
        return ROWS_PER_GROUP
    return max(1, min(ROWS_PER_GROUP, rows * BYTES_PER_GROUP // size))


def _dictionary(columns: list[Column], *, dense: bool) -> list[str]:
    if not dense:
        return list(_DICTIONARY)
    return [c.path for c in columns if c.path not in (*_DELTA, "event_id", "payload")]


def _scalars(schema: Schema) -> Iterator[tuple[int, IcebergType, str, bool]]:
    """Answer id, type, path in the file, and whether a list or map lies above, of each scalar."""
    for field in schema.fields:
        yield from _below(field.field_id, field.field_type, field.name, repeated=False)


def _below(
    number: int, kind: IcebergType, path: str, *, repeated: bool
) -> Iterator[tuple[int, IcebergType, str, bool]]:
    match kind:
        case StructType():
            for field in kind.fields:
                inner = f"{path}.{field.name}"
                yield from _below(field.field_id, field.field_type, inner, repeated=repeated)
        case ListType():
            inner = f"{path}.list.element"
            yield from _below(kind.element_id, kind.element_type, inner, repeated=True)
        case MapType():
            inner = f"{path}.key_value"
            yield from _below(kind.key_id, kind.key_type, f"{inner}.key", repeated=True)
            yield from _below(kind.value_id, kind.value_type, f"{inner}.value", repeated=True)
        case _:
            yield number, kind, path, repeated
