from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest

from penstock.api.values import csv_header, csv_rows, rows_of, text_of, to_json
from penstock.errors import BadSql

MOMENT = datetime(2025, 11, 24, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (None, pa.int64(), "null"),
        (2**53 + 1, pa.int64(), "9007199254740993"),
        (Decimal("12345678901234567890.50"), pa.decimal128(38, 2), "12345678901234567890.50"),
        (1.5, pa.float64(), "1.5"),
        (float("nan"), pa.float64(), '"nan"'),
        (float("-inf"), pa.float64(), '"-inf"'),
        ("é\n", pa.string(), '"é\\n"'),
        (b"text", pa.binary(), '"text"'),
        (b"\xff\x00", pa.binary(), '{"base64":"/wA="}'),
        (MOMENT, pa.timestamp("us", "UTC"), '"2025-11-24T16:00:00.000000Z"'),
        (MOMENT, pa.timestamp("us", "Europe/Berlin"), '"2025-11-24T16:00:00.000000Z"'),
        (MOMENT.replace(tzinfo=None), pa.timestamp("us"), '"2025-11-24T16:00:00.000000"'),
        (date(2025, 11, 24), pa.date32(), '"2025-11-24"'),
        (time(10, 30), pa.time64("us"), '"10:30:00"'),
        ([b"a", None], pa.list_(pa.binary()), '["a",null]'),
        (
            {"a": MOMENT},
            pa.struct({"a": pa.timestamp("us", "UTC")}),
            '{"a":"2025-11-24T16:00:00.000000Z"}',
        ),
        ([("k", 1)], pa.map_(pa.string(), pa.int64()), '[["k",1]]'),
    ],
)
def test_a_value_is_written_so_that_nothing_of_it_is_lost(
    value: object, kind: pa.DataType, written: str
) -> None:
    [[told]] = rows_of(pa.table({"x": pa.array([value], kind)}))

    assert to_json(told).decode() == written
    json.loads(to_json(told))


@pytest.mark.parametrize(("number", "unit"), [(2**62, "us"), (1_577_836_800_123_456_789, "ns")])
def test_a_time_no_calendar_has_is_refused_with_advice(number: int, unit: str) -> None:
    times = pa.array([number], pa.int64()).cast(pa.timestamp(unit))

    with pytest.raises(BadSql, match=r"column 'x' .* cast it to VARCHAR"):
        rows_of(pa.table({"x": times}))


def test_rows_become_lines_of_csv() -> None:
    table = pa.table(
        {
            "a,b": ["x", 'with "quotes", commas\nand lines', None],
            "n": [1, None, 3],
            "list": [[1, 2], [], None],
            "flag": [True, False, None],
        }
    )

    text = (csv_header(table.schema) + csv_rows(table.to_batches()[0])).decode()

    assert text == (
        '"a,b",n,list,flag\n'
        'x,1,"[1,2]",true\n'
        '"with ""quotes"", commas\nand lines",,[],false\n'
        ",3,,\n"
    )


def test_bytes_are_text_only_where_they_are() -> None:
    assert text_of("é".encode()) == "é"
    assert text_of(b"\xe9") is None
    assert text_of(b"") == ""
