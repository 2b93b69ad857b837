"""Shapes, Iceberg's types and Arrow's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.columns import (
    ShapeChanged,
    arrow_schema,
    evolve,
    main_schema,
    partition_spec,
    quarantine_schema,
    shape_of,
)
from penstock.schema.rows import QUARANTINE_SCHEMA, rows_schema
from penstock.schema.shape import EMPTY, Leaf, List, Struct, Type

LONG, TEXT = Leaf("long"), Leaf("string")
BASE = main_schema()
LAST = BASE.highest_field_id

names = st.text(min_size=1, max_size=8).filter(lambda name: "." not in name)
leaf = st.sampled_from([Leaf("bool"), LONG, Leaf("double"), TEXT])


def structs(children: st.SearchStrategy[Type]) -> st.SearchStrategy[Struct]:
    fields = st.lists(st.tuples(names, children), min_size=1, max_size=4, unique_by=lambda f: f[0])
    return fields.map(lambda pairs: Struct(tuple(pairs)))


kinds = st.recursive(leaf, lambda inner: inner.map(List) | structs(inner), max_leaves=8)
shapes = structs(kinds)


def struct(**fields: Type) -> Struct:
    return Struct(tuple(fields.items()))


@given(shapes)
def test_a_shape_survives_the_table(shape: Struct) -> None:
    """The next batch is converted for what the table says its shape is."""
    schema = evolve(BASE, shape, last_id=LAST, schema_id=1)

    assert schema is not None
    assert shape_of(schema) == shape
    assert arrow_schema(schema) == rows_schema(shape)


def test_new_tables_have_the_columns_that_rows_have() -> None:
    """Conversion and table are written by different hands; they meet here."""
    assert arrow_schema(BASE) == rows_schema(EMPTY)
    assert arrow_schema(quarantine_schema()) == QUARANTINE_SCHEMA
    assert shape_of(BASE) == EMPTY


def test_days_of_receipt_are_the_partitions() -> None:
    """Partition by our own clock: a sender's wrong year must not make a partition."""
    assert str(partition_spec(BASE)).split() == ["[", "1000:", "received_at_day:", "day(2)", "]"]


def test_no_new_column_is_no_new_schema() -> None:
    """A schema for every batch would grow the metadata without end."""
    schema = evolve(BASE, struct(a=LONG), last_id=LAST, schema_id=1)
    assert schema is not None

    assert evolve(schema, struct(a=LONG), last_id=LAST + 2, schema_id=2) is None
    assert evolve(BASE, EMPTY, last_id=LAST, schema_id=1) is None


def test_columns_keep_their_ids_and_new_ones_come_after_all_others() -> None:
    """An id that is given twice makes one column be read as another."""
    first = evolve(BASE, struct(a=LONG, o=struct(x=TEXT)), last_id=LAST, schema_id=1)
    assert first is not None
    wider = struct(a=LONG, o=struct(x=TEXT, y=LONG), tags=List(TEXT))
    second = evolve(first, wider, last_id=LAST + 10, schema_id=2)
    assert second is not None

    before = {name: first.find_field(name).field_id for name in ("data.a", "data.o.x", "payload")}
    after = {name: second.find_field(name).field_id for name in before}
    added = [second.find_field(name).field_id for name in ("data.o.y", "data.tags")]
    assert after == before
    assert min(added) > LAST + 10
    assert shape_of(second) == wider


def test_two_who_add_the_same_to_the_same_give_the_same_ids() -> None:
    """A commit that is built again must find the ids that its files were written with."""
    shape = struct(a=LONG, o=struct(x=TEXT, l=List(struct(z=LONG))))

    assert evolve(BASE, shape, last_id=LAST, schema_id=1) == evolve(
        BASE, shape, last_id=LAST, schema_id=1
    )


@pytest.mark.parametrize("other", [struct(a=TEXT), struct(b=LONG), struct(a=List(LONG)), EMPTY])
def test_a_shape_that_contradicts_the_table_is_refused(other: Struct) -> None:
    """Its rows would be written under ids that mean something else."""
    schema = evolve(BASE, struct(a=LONG), last_id=LAST, schema_id=1)
    assert schema is not None

    with pytest.raises(ShapeChanged):
        evolve(schema, other, last_id=LAST + 2, schema_id=2)
