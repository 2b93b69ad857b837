"""Parquet files: readable by id, checked by page, and described to the manifests."""

from __future__ import annotations

import io
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import FLIGHTS
from lakes import log_of
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema

from lakehouse.columns import arrow_schema, evolve, main_schema
from lakehouse.parquet import BOUND_LENGTH, METRICS, batches, columns_of, data_file, read, write
from penstock.buffer import start_of
from penstock.schema.convert import Rules, convert
from penstock.schema.shape import EMPTY, Leaf, List, Struct

BASE = main_schema()


def schema_for(shape: Struct) -> Schema:
    return evolve(BASE, shape, last_id=BASE.highest_field_id, schema_id=1) or BASE


def rows_of(*payloads: bytes | str) -> tuple[pa.Table, Schema]:
    """Answer rows, and the schema of a table for them."""
    log = log_of(*payloads)
    portion = log.read(
        FLIGHTS, start_of(log.log_id(FLIGHTS), 0), end=len(payloads), max_bytes=1 << 30
    )
    converted = convert(portion.rows, EMPTY, Rules())
    return converted.rows, schema_for(converted.shape)


def written(rows: pa.Table, schema: Schema, *, dense: bool = False) -> tuple[bytes, DataFile]:
    out = io.BytesIO()
    columns = columns_of(schema)
    footer = write(rows, arrow_schema(schema), columns, out, dense=dense)
    entry = data_file("file:///x", len(out.getvalue()), footer, columns, day=20416, spec=0)
    return out.getvalue(), entry


def chunk_of(content: bytes, path: str) -> Any:
    """Answer what the footer says of a column in the first row group."""
    group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    chunks = [group.column(position) for position in range(group.num_columns)]
    return next(chunk for chunk in chunks if chunk.path_in_schema == path)


def bounds(entry: DataFile, schema: Schema, name: str) -> tuple[bytes | None, bytes | None]:
    number = schema.find_field(name).field_id
    return entry.lower_bounds.get(number), entry.upper_bounds.get(number)


@pytest.mark.parametrize("dense", [False, True])
def test_rows_are_read_back_as_they_were(dense: bool) -> None:
    """Everything else stands on it, nulls and empty lists included."""
    rows, schema = rows_of(
        '{"a": 1, "l": [], "o": {"x": "é"}}', '{"a": null, "l": [null, 2]}', "7", "[1]"
    )

    content, entry = written(rows, schema, dense=dense)

    assert read(io.BytesIO(content), arrow_schema(schema)).to_pylist() == rows.to_pylist()
    assert entry.record_count == 4
    assert entry.partition[0] == 20416


@pytest.mark.parametrize("size", [2, 100])
@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (0, 8), (1, 2), (2, 3), (3, 5), (4, 4), (7, 8), (8, 8)]
)
def test_some_rows_are_read_from_the_row_groups_that_hold_them(
    monkeypatch: pytest.MonkeyPatch, first: int, last: int, size: int
) -> None:
    """The others are not unpacked."""
    monkeypatch.setattr("lakehouse.parquet.ROWS_PER_GROUP", 3)
    rows, schema = rows_of(*(f'{{"n": {n}}}' for n in range(9)))
    content, _ = written(rows, schema)
    wanted = pa.schema([arrow_schema(schema).field(name) for name in ("payload", "event_id")])

    found = list(batches(io.BytesIO(content), wanted, first=first, last=last, size=size))

    assert pq.ParquetFile(io.BytesIO(content)).metadata.num_row_groups == 3
    assert all(0 < batch.num_rows <= size for batch in found)
    whole = pa.Table.from_batches(found, wanted)
    assert whole["payload"].to_pylist() == [b'{"n": %d}' % n for n in range(first, last + 1)]
    assert whole.to_pylist() == rows.select(wanted.names).slice(first, last - first + 1).to_pylist()


def test_a_file_carries_the_ids_of_its_columns() -> None:
    """Readers go by id: with names a renamed column would come back empty."""
    rows, schema = rows_of('{"a": {"b": [1]}}')

    content, _ = written(rows, schema)

    text = str(pq.ParquetFile(io.BytesIO(content)).schema)
    for name in ("payload", "data.a", "data.a.b", "data.a.b.element", "metadata.key"):
        assert f"field_id={schema.find_field(name).field_id} " in text
    assert "field_id=-1 data" not in text


def test_a_damaged_page_is_noticed() -> None:
    """A disk or a store may return other bytes than it was given."""
    rows, schema = rows_of(*(f'{{"word": "{"abcdefgh" * 50}{n}"}}' for n in range(50)))
    content, _ = written(rows, schema)
    payload = chunk_of(content, "payload")
    broken = bytearray(content)
    broken[payload.data_page_offset + payload.total_compressed_size - 3] ^= 0x10

    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        read(io.BytesIO(bytes(broken)), arrow_schema(schema))


def test_bounds_are_true_and_short() -> None:
    """They are copied into every manifest, and prune what lies outside them."""
    rows, schema = rows_of(
        '{"n": -5, "d": 0.5, "s": "aaaaaaaaaaaaaaaaaaaaaaaa"}',
        '{"n": 9, "d": 2.5, "s": "zzzzzzzzzzzzzzzz\\uffffzz"}',
    )

    _, entry = written(rows, schema)

    assert bounds(entry, schema, "data.n") == (
        (-5).to_bytes(8, "little", signed=True),
        b"\t" + bytes(7),
    )
    low, high = bounds(entry, schema, "data.s")
    assert low == b"a" * BOUND_LENGTH
    assert high == b"z" * (BOUND_LENGTH - 1) + b"{"
    assert bounds(entry, schema, "log_offset") == (struct.pack("<q", 0), struct.pack("<q", 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", b"short"),
        ("\ud7ff" * 17, ("\ud7ff" * 15 + "\ue000").encode()),
        ("a" + "\U0010ffff" * 17, b"b"),
        ("\U0010ffff" * 17, None),
    ],
    ids=["short", "before the surrogates", "last character", "only last characters"],
)
def test_an_upper_bound_is_never_below_the_text(text: str, expected: bytes | None) -> None:
    """Half of a surrogate pair is no text, and after the last character comes none."""
    rows, schema = rows_of(b"{}", f'{{"s": "{text}"}}'.encode())

    _, entry = written(rows, schema)

    assert bounds(entry, schema, "data.s")[1] == expected


def test_what_has_no_bounds_in_parquet_has_none_in_the_manifest() -> None:
    """Parquet leaves out bounds over 4 kB; those of the other rows would prune these away."""
    rows, schema = rows_of('{"s": "a"}', f'{{"s": "{"m" * 5_000}"}}')

    _, entry = written(rows, schema)

    assert bounds(entry, schema, "data.s") == (None, None)


def test_payloads_lists_and_the_hundredth_column_are_not_measured() -> None:
    """Metrics of a thousand columns would make every manifest a megabyte."""
    shape = Struct((("tags", List(Leaf("string"))), *((f"c{n}", Leaf("long")) for n in range(200))))
    schema = schema_for(shape)

    measured = [column.path for column in columns_of(schema) if column.measured]

    assert "payload" not in measured
    assert not any("list.element" in path for path in measured)
    assert {"event_id", "received_at", "log_offset", "duplicate_of"} < set(measured)
    assert len([path for path in measured if path.startswith("data.")]) == METRICS - 1


def test_an_id_can_be_looked_up_without_reading_the_file() -> None:
    """Finding one event by its id asks the bloom filter of each file."""
    rows, schema = rows_of(b"{}")
    content, _ = written(rows, schema)

    assert chunk_of(content, "event_id").bloom_filter_length
    assert not chunk_of(content, "payload").bloom_filter_length


def test_an_older_file_is_read_with_the_columns_of_today() -> None:
    """Compaction merges files of many schemas; a list that is null must not become empty."""
    old, before = rows_of('{"o": {"x": 1}, "l": [{"k": "v"}]}', "{}")
    content, _ = written(old, before)
    shape = Struct(
        (
            ("o", Struct((("x", Leaf("long")), ("y", Leaf("string"))))),
            ("l", List(Struct((("k", Leaf("string")), ("w", Leaf("bool")))))),
            ("new", List(Leaf("double"))),
        )
    )
    now = evolve(before, shape, last_id=before.highest_field_id, schema_id=2)
    assert now is not None

    rows = read(io.BytesIO(content), arrow_schema(now))

    assert rows.schema == arrow_schema(now)
    assert rows["data"].to_pylist()[0] == {
        "o": {"x": 1, "y": None},
        "l": [{"k": "v", "w": None}],
        "new": None,
    }
    assert rows["headers"].null_count == rows["misfits"].null_count == 2
    assert rows.drop_columns("data").equals(
        old.drop_columns("data").cast(rows.drop_columns("data").schema)
    )


def test_columns_are_found_by_id_not_by_name() -> None:
    """A column that was dropped and added again is another one of the same name."""
    rows, schema = rows_of('{"a": 1}')
    content, _ = written(rows, schema)
    again = schema_for(Struct((("b", Leaf("long")), ("a", Leaf("long")))))

    found = read(io.BytesIO(content), arrow_schema(again))

    # `data` is 23 in both, `data.a` 24 in the file and `data.b` 24 in the table.
    assert found["data"].to_pylist() == [{"b": 1, "a": None}]
