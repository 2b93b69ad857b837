"""The columns of a row in the lake and in quarantine, as Arrow schemas."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from penstock.codec import ENVELOPE
from penstock.schema.names import key_of
from penstock.schema.shape import EMPTY, Leaf, List, Struct, Type

MISFITS = pa.list_(
    pa.field("element", pa.struct([pa.field("path", pa.string()), pa.field("value", pa.string())]))
)

ROWS_TAIL = pa.schema([pa.field("duplicate_of", pa.string()), pa.field("misfits", MISFITS)])
"""The columns behind `data`."""

QUARANTINE_TAIL = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)

QUARANTINE_SCHEMA = pa.schema([*ENVELOPE, *QUARANTINE_TAIL])
"""The columns of an event that could not become a row."""

_SCALARS = {
    "bool": pa.bool_(),
    "long": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
}


def rows_schema(shape: Struct) -> pa.Schema:
    """Answer the columns of a row; `data` is missing while the shape is empty."""
    data = [] if shape == EMPTY else [pa.field("data", arrow_type(shape))]
    return pa.schema([*ENVELOPE, *data, *ROWS_TAIL])


def arrow_type(kind: Type) -> pa.DataType:
    """Answer the Arrow type of a column, or of `data` as a whole."""
    return _arrow_type(kind, str)


def arrow_type_by_key(kind: Type) -> pa.DataType:
    """Answer the same type with fields named by the keys of the documents."""
    return _arrow_type(kind, key_of)


def _arrow_type(kind: Type, naming: Callable[[str], str]) -> pa.DataType:
    match kind:
        case Leaf(scalar):
            return _SCALARS[scalar]
        case List(element):
            # PyIceberg finds the element of a list by this name.
            return pa.list_(pa.field("element", _arrow_type(element, naming)))
        case Struct(fields):
            return pa.struct(
                [pa.field(naming(name), _arrow_type(field, naming)) for name, field in fields]
            )
