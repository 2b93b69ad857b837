"""Shapes and their Arrow types."""

from __future__ import annotations

import pyarrow as pa

from penstock.schema.rows import arrow_type, arrow_type_by_key, rows_schema
from penstock.schema.shape import EMPTY, Leaf, List, Struct, columns, count_columns

SHAPE = Struct(
    (
        ("id", Leaf("long")),
        ("a%2Eb", Struct((("ok", Leaf("bool")), ("%00", Leaf("string"))))),
        ("items", List(Struct((("price", Leaf("double")), ("tags", List(Leaf("string"))))))),
        ("grid", List(List(Leaf("double")))),
    )
)


def test_columns_are_shown_flat_with_lists_marked() -> None:
    """People read this list to learn what they can ask for."""
    assert columns(SHAPE) == [
        ("id", "long"),
        ("a%2Eb.ok", "bool"),
        ("a%2Eb.%00", "string"),
        ("items[].price", "double"),
        ("items[].tags[]", "string"),
        ("grid[][]", "double"),
    ]
    assert count_columns(SHAPE) == 6
    assert columns(EMPTY) == []


def test_arrow_types_name_the_elements_of_lists_as_iceberg_does() -> None:
    """PyIceberg finds fields by name: an element of another name would be a missing column."""
    price = pa.struct(
        [
            pa.field("price", pa.float64()),
            pa.field("tags", pa.list_(pa.field("element", pa.string()))),
        ]
    )
    inner = pa.list_(pa.field("element", pa.float64()))
    assert arrow_type(SHAPE) == pa.struct(
        [
            pa.field("id", pa.int64()),
            pa.field("a%2Eb", pa.struct([("ok", pa.bool_()), ("%00", pa.string())])),
            pa.field("items", pa.list_(pa.field("element", price))),
            pa.field("grid", pa.list_(pa.field("element", inner))),
        ]
    )
    assert arrow_type(SHAPE).field("items").type.value_field.name == "element"


def test_the_reader_is_given_keys_where_tables_have_columns() -> None:
    """Documents have `a.b`, tables have `a%2Eb`."""
    by_key = arrow_type_by_key(SHAPE)

    assert [field.name for field in by_key] == ["id", "a.b", "items", "grid"]
    assert [field.name for field in by_key.field("a.b").type] == ["ok", ""]


def test_a_row_has_no_data_column_while_there_is_nothing_for_it() -> None:
    """An empty struct cannot be written."""
    assert "data" not in rows_schema(EMPTY).names
    assert rows_schema(SHAPE).names[-3:] == ["data", "duplicate_of", "misfits"]
