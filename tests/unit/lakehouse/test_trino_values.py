"""Trino's values become columns of Arrow, whatever is nested in what."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from lakehouse.sql.trino_values import arrow_column, arrow_type


def plain(raw: str, *arguments: int) -> dict:
    return {"rawType": raw, "arguments": [{"kind": "LONG", "value": a} for a in arguments]}


def of(raw: str, *inner: dict) -> dict:
    return {"rawType": raw, "arguments": [{"kind": "TYPE", "value": i} for i in inner]}


def row(**fields: dict) -> dict:
    named = [
        {"kind": "NAMED_TYPE", "value": {"fieldName": {"name": n}, "typeSignature": f}}
        for n, f in fields.items()
    ]
    return {"rawType": "row", "arguments": named}


TEXT, LONG, DOUBLE = plain("varchar", 5), plain("bigint"), plain("double")


@pytest.mark.parametrize(
    ("signature", "values", "kind"),
    [
        (LONG, [1, None, -(2**63)], pa.int64()),
        (TEXT, ["a", None, ""], pa.string()),
        (plain("boolean"), [True, None], pa.bool_()),
        (of("array", LONG), [[1, None], None, []], pa.list_(pa.field("element", pa.int64()))),
        (
            of("array", of("array", TEXT)),
            [[["a"], None, []], None, [], [["b", "c"]]],
            None,
        ),
        (plain("json"), ['{"a":1}', None], pa.string()),
        (plain("unknown"), [None, None], pa.null()),
    ],
)
def test_values_that_python_has_stay_as_they_are(signature, values, kind) -> None:
    """Nulls and empty lists are two things, at every depth."""
    column = arrow_column(signature, values)

    column.validate(full=True)
    assert column.to_pylist() == values
    assert column.type == arrow_type(signature)
    assert kind in (None, column.type)


def test_rows_and_maps_keep_nulls_apart_from_empty_ones() -> None:
    """A row of nulls is no null."""
    signature = of("array", row(a=LONG, b=of("map", TEXT, DOUBLE)))
    values = [[[1, {"x": "NaN", "y": None}], None, [None, None]], None, [[2, {}]]]

    column = arrow_column(signature, values)

    column.validate(full=True)
    (first, *rest), second, third = column.to_pylist()
    assert (first["a"], str(first["b"])) == (1, "[('x', nan), ('y', None)]")
    assert rest == [None, {"a": None, "b": None}]
    assert (second, third) == (None, [{"a": 2, "b": []}])


def test_keys_of_maps_have_their_types_again() -> None:
    """JSON has made texts of them."""
    keyed = arrow_column(of("map", LONG, TEXT), [{"1": "a"}, {"-2": None}])

    assert keyed.to_pylist() == [[(1, "a")], [(-2, None)]]


def test_times_are_read_to_the_microsecond_in_every_zone() -> None:
    """Finer fractions are cut off, not rounded into the next day."""
    zoned = plain("timestamp with time zone", 9)
    utc = arrow_column(zoned, ["2026-01-02 03:04:05.999999999 UTC", None])
    mixed = arrow_column(
        zoned, ["2026-07-01 00:00:00.000 Europe/Berlin", "2026-07-01 00:00:00.5 -03:30", None]
    )

    assert utc.to_pylist() == [datetime(2026, 1, 2, 3, 4, 5, 999_999, UTC), None]
    assert mixed.to_pylist() == [
        datetime(2026, 6, 30, 22, tzinfo=UTC),
        datetime(2026, 7, 1, 3, 30, 0, 500_000, UTC),
        None,
    ]
    assert utc.type == mixed.type == pa.timestamp("us", tz="UTC")


def test_no_rows_have_types_too() -> None:
    """An empty answer still says what its columns are."""
    for signature in (LONG, of("array", row(a=TEXT)), plain("decimal", 10, 2), plain("date")):
        column = arrow_column(signature, [])
        assert (len(column), column.type) == (0, arrow_type(signature))
