"""Bytes, times and rows as JSON and CSV. Pure."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from penstock.errors import BadSql

_encoder = msgspec.json.Encoder(decimal_format="number")


def text_of(content: bytes) -> str | None:
    """Answer the text that these bytes are in UTF-8; None if they are none."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def base64_of(content: bytes) -> str:
    """Answer the bytes in base 64."""
    return base64.b64encode(content).decode()


def to_json(value: object) -> bytes:
    """Write a value; decimals as numbers with all their digits."""
    return _encoder.encode(value)


def rows_of(table: pa.Table | pa.RecordBatch) -> list[list[Any]]:
    """Answer the rows as values that JSON has. Raises `BadSql` for a time no calendar has."""
    columns = [_values(table.column(place), field) for place, field in enumerate(table.schema)]
    return [list(row) for row in zip(*columns, strict=True)]


def csv_header(schema: pa.Schema) -> bytes:
    """Answer the first line."""
    return _lines([schema.names])


def csv_rows(batch: pa.RecordBatch) -> bytes:
    """Answer one line a row: null is empty, lists and objects are JSON text."""
    return _lines([[_cell(value) for value in row] for row in rows_of(batch)])


def _values(column: pa.ChunkedArray | pa.Array, field: pa.Field) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError) as error:
        # Nanoseconds, infinity, years after 9999.
        raise BadSql(
            f"column {field.name!r} holds times that cannot be told; cast it to VARCHAR"
        ) from error
    change = _change(field.type)
    return values if change is None else [None if v is None else change(v) for v in values]


def _change(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """Answer what makes JSON of a value of this type; None where it is JSON already."""
    plain = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_string(kind)
    if plain or pa.types.is_decimal(kind):
        return None
    return _plain


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str() | Decimal():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            text = text_of(value)
            return {"base64": base64_of(value)} if text is None else text
        case datetime():
            return _moment(value)
        case date() | time():
            return value.isoformat()
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case pa.MonthDayNano():
            return f"{value.months} months {value.days} days {value.nanoseconds} ns"
        case list() | tuple():
            return [_plain(item) for item in value]
        case other:
            return str(other)


def _moment(value: datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat(timespec="microseconds")
    moment = value.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _cell(value: object) -> object:
    if isinstance(value, list | dict):
        return to_json(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()
