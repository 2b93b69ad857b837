"""Single payloads of data files: what the whole file says, without unpacking the whole file."""

from __future__ import annotations

import random
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.payloads import OtherPagesError, Read, chunk_of, payloads_in

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("payload", pa.binary(), nullable=False)])


def written(values: list[bytes], *, schema: pa.Schema = SCHEMA, **more) -> bytes:
    """Write a file of small pages as landing does."""
    out = BytesIO()
    rows = pa.Table.from_arrays([pa.array(range(len(values))), pa.array(values)], schema=schema)
    options = {
        "compression": "zstd",
        "use_dictionary": False,
        "write_statistics": False,
        "write_page_checksum": True,
        "data_page_size": 200,
        "write_batch_size": 5,
        **more,
    }
    pq.write_table(rows, out, **options)
    return out.getvalue()


def chunk(file: bytes, group: int = 0) -> bytes:
    found = chunk_of(pq.read_metadata(BytesIO(file)), group)
    assert found is not None
    return file[found.start : found.start + found.size]


def of(stored: bytes) -> Read:
    return lambda start, size: stored[start : start + size]


def read(file: bytes, rows: list[int], group: int = 0) -> list[bytes]:
    return list(payloads_in(of(chunk(file, group)), rows))


@given(st.lists(st.binary(max_size=150), min_size=1, max_size=120), st.data())
@settings(max_examples=60, deadline=None)
def test_rows_have_the_payloads_that_they_have_in_the_file(values: list[bytes], data) -> None:
    places = st.sets(st.integers(0, len(values) - 1))
    rows = sorted(data.draw(places))

    assert read(written(values), rows) == [values[row] for row in rows]


def test_headers_of_pages_may_be_long() -> None:
    """Writers may put the least and the greatest value of a page into it."""
    values = [bytes([65 + n]) * 700 for n in range(6)]
    file = written(values, write_statistics=True, compression_level=1)
    asked: list[int] = []
    stored = chunk(file)

    def read_some(start: int, size: int) -> bytes:
        asked.append(size)
        return stored[start : start + size]

    assert list(payloads_in(read_some, [0, 5])) == [values[0], values[5]]
    assert max(asked) > 1_000


def test_each_row_group_has_its_own() -> None:
    values = [f"event {n}".encode() for n in range(100)]
    file = written(values, row_group_size=40)

    assert read(file, [0, 39], 0) == [values[0], values[39]]
    assert read(file, [0, 19], 2) == [values[80], values[99]]


@pytest.mark.parametrize(
    "more",
    [
        {"compression": "snappy"},
        {"use_dictionary": True},
        {"use_dictionary": False, "column_encoding": {"payload": "DELTA_BYTE_ARRAY"}},
        {"schema": pa.schema([pa.field("id", pa.int64()), pa.field("payload", pa.binary())])},
        {"schema": pa.schema([pa.field("id", pa.int64()), pa.field("other", pa.binary())])},
    ],
)
def test_what_is_written_in_another_way_is_left_to_the_engine(more) -> None:
    assert chunk_of(pq.read_metadata(BytesIO(written([b"one", b"two"], **more))), 0) is None


@pytest.mark.parametrize("form", ["1.0", "2.4", "2.6"])
def test_the_version_of_the_file_does_not_matter(form: str) -> None:
    assert read(written([b"one", b"two"], version=form), [1]) == [b"two"]


def test_pages_of_another_kind_are_left_to_the_engine() -> None:
    with pytest.raises(OtherPagesError):
        read(written([b"one", b"two"], data_page_version="2.0"), [1])


def test_a_page_with_a_bit_that_fell_over_is_no_payload() -> None:
    """Nobody is shown what was never sent."""
    values = [random.Random(n).randbytes(20) for n in range(40)]
    stored = chunk(written(values))
    everything = list(range(40))

    for place in range(len(stored)):
        ill = bytearray(stored)
        ill[place] ^= 4
        try:
            found = list(payloads_in(of(bytes(ill)), everything))
        except (OSError, OtherPagesError):
            continue
        assert found == values, place
    for end in range(len(stored)):
        with pytest.raises(OSError, match="cannot be read"):
            list(payloads_in(of(stored[:end]), [39]))


def test_a_page_that_says_it_is_as_large_as_no_file_can_be_is_none() -> None:
    """Nobody seeks to its end."""
    size = bytes([*[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 0x03])
    stored = b"\x15\x00\x15\x04\x15" + size + b"\x2c\x15\x02\x15\x00\x00\x00"

    def sought(start: int, length: int) -> bytes:
        file = BytesIO(stored)
        file.seek(start)
        return file.read(length)

    with pytest.raises(OSError, match="cannot be read"):
        list(payloads_in(sought, [3]))


def test_pages_without_a_row_that_is_asked_for_stay_packed() -> None:
    """Unpacking is what takes the time: a page that cannot be is not noticed."""
    values = [random.Random(n).randbytes(20) for n in range(40)]
    stored = bytearray(chunk(written(values)))
    stored[stored.index(values[0])] ^= 4

    assert list(payloads_in(of(bytes(stored)), [39])) == [values[39]]
    with pytest.raises(OSError, match="cannot be read"):
        list(payloads_in(of(bytes(stored)), [0]))
