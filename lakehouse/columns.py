"""Between the shape of a collection, Iceberg's types and Arrow's. Pure.

Iceberg knows a column by its id, not its name: an id is given once, by `evolve`, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pyarrow as pa
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DoubleType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestamptzType,
)

from penstock.codec import ENVELOPE
from penstock.schema.rows import QUARANTINE_TAIL, ROWS_TAIL
from penstock.schema.shape import EMPTY, Kind, Leaf, List, Struct, Type

DATA = "data"
PARTITION = "received_at_day"

_NewId = Callable[[], int]

_SCALARS: dict[pa.DataType, PrimitiveType] = {
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.timestamp("us", tz="UTC"): TimestamptzType(),
}
_KINDS: dict[Kind, PrimitiveType] = {
    "bool": BooleanType(),
    "long": LongType(),
    "double": DoubleType(),
    "string": StringType(),
}
_KIND_IN: dict[pa.DataType, Kind] = {
    pa.bool_(): "bool",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.string(): "string",
}
_KIND_OF: dict[type[IcebergType], Kind] = {type(kind): name for name, kind in _KINDS.items()}
_ARROW: dict[type[IcebergType], pa.DataType] = {
    BooleanType: pa.bool_(),
    DoubleType: pa.float64(),
    **{type(kind): arrow for arrow, kind in _SCALARS.items()},
}


class ShapeChanged(ValueError):
    """A shape that does not contain the columns of the table it is for."""


def table_schema(tail: pa.Schema) -> Schema:
    """Answer the schema of a new table: the envelope, then the columns of `tail`."""
    new_id = count(1).__next__
    fields = list(ENVELOPE) + list(tail)
    # Parents get their ids before their children, siblings before nephews, as Iceberg does it.
    ids = [new_id() for _ in fields]
    return Schema(
        *(
            NestedField(number, field.name, _from_arrow(field.type, new_id), not field.nullable)
            for number, field in zip(ids, fields, strict=True)
        )
    )


def main_schema() -> Schema:
    """Answer the schema of a new collection's table; `data` joins with its first leaf."""
    return table_schema(ROWS_TAIL)


def quarantine_schema() -> Schema:
    """Answer the schema of a new quarantine table."""
    return table_schema(QUARANTINE_TAIL)


def partition_spec(schema: Schema) -> PartitionSpec:
    """Answer the partitioning of every table: by the day an event was received."""
    source = schema.find_field("received_at").field_id
    return PartitionSpec(
        PartitionField(source, PARTITION_FIELD_ID_START, DayTransform(), PARTITION)
    )


def shape_of(schema: Schema) -> Struct:
    """Answer the shape of the payloads that a table with this schema holds."""
    for field in schema.fields:
        if field.name == DATA:
            shape = _shape(field.field_type)
            if not isinstance(shape, Struct):
                raise ShapeChanged(f"the column {DATA!r} is {field.field_type}, not a struct")
            return shape
    return EMPTY


def shape_in(schema: pa.Schema) -> Struct | None:
    """Answer the shape of the payloads in rows with these columns; None where it is no shape."""
    position = schema.get_field_index(DATA)
    try:
        shape = EMPTY if position < 0 else _shape_of(schema.field(position).type)
    except KeyError:
        return None
    return shape if isinstance(shape, Struct) else None


def evolve(schema: Schema, shape: Struct, *, last_id: int, schema_id: int) -> Schema | None:
    """Answer the schema with the columns that `shape` adds, or None when it adds none.

    New columns get the ids above `last_id`, in the order of the shape: two writers that add the
    same column to the same schema give it the same id. Raises `ShapeChanged` unless the shape
    has every column of the schema, with its type.
    """
    before = shape_of(schema)
    if shape == before:
        return None
    new_id = count(last_id + 1).__next__
    known = {field.name: field for field in schema.fields}
    if DATA in known:
        data = known[DATA]
        grown = _grow(data.field_type, shape, new_id, DATA)
        fields = [
            _with_type(field, grown) if field.name == DATA else field for field in schema.fields
        ]
    else:
        number = new_id()
        added = NestedField(number, DATA, _from_shape(shape, new_id), required=False)
        # Beside the payload it was read from, before what is said about the row.
        place = next(i for i, f in enumerate(schema.fields) if f.name == ROWS_TAIL.names[0])
        fields = [*schema.fields[:place], added, *schema.fields[place:]]
    return Schema(*fields, schema_id=schema_id)


def reshaped(
    schema: Schema, shape: Struct, earlier: Schema | None = None, *, last_id: int, schema_id: int
) -> Schema:
    """Answer the schema with just the columns of the shape below `data`.

    A column that keeps its type keeps its id, one of another type gets a new one: a name keeps its
    meaning, and an id its type. Where files were written for an `earlier` such schema its ids come
    first. New ids are those above `last_id`, and above all that `earlier` has.
    """
    new_id = count(max(last_id, earlier.highest_field_id if earlier else 0) + 1).__next__
    known = [
        field
        for one in (earlier, schema)
        if one is not None
        for field in one.fields
        if field.name == DATA
    ]
    fields = [field for field in schema.fields if field.name != DATA]
    if shape != EMPTY:
        number = known[0].field_id if known else new_id()
        kind = _reshaped(shape, [field.field_type for field in known], new_id)
        data = NestedField(number, DATA, kind, required=False)
        place = next(i for i, f in enumerate(fields) if f.name == ROWS_TAIL.names[0])
        fields.insert(place, data)
    return Schema(*fields, schema_id=schema_id)


def _reshaped(kind: Type, known: Sequence[IcebergType], new_id: _NewId) -> IcebergType:
    """Answer the type; `known` are types that may stand there, with the ids to be kept."""
    match kind:
        case Leaf():
            return _KINDS[kind.kind]
        case List(element):
            lists = [one for one in known if isinstance(one, ListType)]
            elements = [one.element_type for one in lists]
            number = lists[0].element_id if lists else new_id()
            return ListType(number, _reshaped(element, elements, new_id), element_required=False)
        case _:
            structs = [one for one in known if isinstance(one, StructType)]
            return StructType(
                *(_field(name, inner, structs, new_id) for name, inner in kind.fields)
            )


def _field(name: str, kind: Type, structs: Sequence[StructType], new_id: _NewId) -> NestedField:
    known = [
        f for one in structs for f in one.fields if f.name == name and _keeps(f.field_type, kind)
    ]
    number = known[0].field_id if known else new_id()
    inner = _reshaped(kind, [field.field_type for field in known], new_id)
    return NestedField(number, name, inner, required=False)


def _keeps(existing: IcebergType, kind: Type) -> bool:
    """Say whether the existing type is this one, but for fields of objects: those come and go."""
    match existing, kind:
        case StructType(), Struct():
            return True
        case ListType(), List(element):
            return _keeps(existing.element_type, element)
        case PrimitiveType(), Leaf():
            return existing == _KINDS[kind.kind]
        case _:
            return False


def arrow_schema(schema: Schema) -> pa.Schema:
    """Answer the Arrow schema of this table's files; each field carries its Iceberg id."""
    return pa.schema([_to_arrow(field) for field in schema.fields])


def _from_arrow(kind: pa.DataType, new_id: _NewId) -> IcebergType:
    if pa.types.is_map(kind):
        key_id, value_id = new_id(), new_id()
        key = _from_arrow(kind.key_type, new_id)
        value = _from_arrow(kind.item_type, new_id)
        return MapType(key_id, key, value_id, value, value_required=False)
    if pa.types.is_list(kind):
        element_id = new_id()
        element = _from_arrow(kind.value_type, new_id)
        return ListType(element_id, element, element_required=False)
    if pa.types.is_struct(kind):
        ids = [new_id() for _ in kind]
        return StructType(
            *(
                NestedField(number, field.name, _from_arrow(field.type, new_id), required=False)
                for number, field in zip(ids, kind, strict=True)
            )
        )
    return _SCALARS[kind]


def _from_shape(kind: Type, new_id: _NewId) -> IcebergType:
    match kind:
        case Leaf():
            return _KINDS[kind.kind]
        case List():
            element_id = new_id()
            element = _from_shape(kind.element, new_id)
            return ListType(element_id, element, element_required=False)
        case _:
            ids = [new_id() for _ in kind.fields]
            return StructType(
                *(
                    NestedField(number, name, _from_shape(inner, new_id), required=False)
                    for number, (name, inner) in zip(ids, kind.fields, strict=True)
                )
            )


def _grow(existing: IcebergType, kind: Type, new_id: _NewId, path: str) -> IcebergType:
    """Answer the existing type with what `kind` adds to it; ids that were given stay."""
    match existing, kind:
        case StructType(), Struct():
            return _grow_struct(existing, kind, new_id, path)
        case ListType(), List():
            element = _grow(existing.element_type, kind.element, new_id, f"{path}[]")
            return ListType(existing.element_id, element, element_required=False)
        case PrimitiveType(), Leaf() if existing == _KINDS[kind.kind]:
            return existing
        case _:
            raise ShapeChanged(f"the column {path} is {existing}, the shape says {kind}")


def _grow_struct(existing: StructType, kind: Struct, new_id: _NewId, path: str) -> StructType:
    wanted = dict(kind.fields)
    known = {field.name for field in existing.fields}
    if missing := known - wanted.keys():
        raise ShapeChanged(f"the shape lacks columns of {path}: {', '.join(sorted(missing))}")
    grown = [
        _with_type(
            field, _grow(field.field_type, wanted[field.name], new_id, f"{path}.{field.name}")
        )
        for field in existing.fields
    ]
    added = [(name, inner) for name, inner in kind.fields if name not in known]
    ids = [new_id() for _ in added]
    grown += [
        NestedField(number, name, _from_shape(inner, new_id), required=False)
        for number, (name, inner) in zip(ids, added, strict=True)
    ]
    return StructType(*grown)


def _with_type(field: NestedField, kind: IcebergType) -> NestedField:
    return NestedField(field.field_id, field.name, kind, required=field.required, doc=field.doc)


def _shape(kind: IcebergType) -> Type:
    match kind:
        case StructType():
            return Struct(tuple((field.name, _shape(field.field_type)) for field in kind.fields))
        case ListType():
            return List(_shape(kind.element_type))
        case _:
            return Leaf(_KIND_OF[type(kind)])


def _shape_of(kind: pa.DataType) -> Type:
    if pa.types.is_struct(kind):
        return Struct(tuple((field.name, _shape_of(field.type)) for field in kind))
    if pa.types.is_list(kind):
        return List(_shape_of(kind.value_type))
    return Leaf(_KIND_IN[kind])


def _to_arrow(field: NestedField) -> pa.Field:
    return _named(field.name, field.field_id, field.field_type, required=field.required)


def _named(name: str, number: int, kind: IcebergType, *, required: bool) -> pa.Field:
    return pa.field(
        name,
        _arrow_type(kind),
        nullable=not required,
        metadata={"PARQUET:field_id": str(number)},
    )


def _arrow_type(kind: IcebergType) -> pa.DataType:
    match kind:
        case StructType():
            return pa.struct([_to_arrow(field) for field in kind.fields])
        case ListType():
            return pa.list_(_named("element", kind.element_id, kind.element_type, required=False))
        case MapType():
            return pa.map_(
                _named("key", kind.key_id, kind.key_type, required=True),
                _named("value", kind.value_id, kind.value_type, required=False),
            )
        case _:
            return _ARROW[type(kind)]
