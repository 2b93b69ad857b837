"""What to order events by, or tell them apart by: the value of a field, as SQL.

A field may have several leaves, of several types. In rising order an event counts by its least
leaf, numbers before text; in falling order by its greatest, text before numbers. Case is ignored,
`true` and `false` are text, and events without the field come last either way.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.query.dialects import DUCKDB, Dialect
from penstock.query.pieces import Sql, sql
from penstock.query.sql import Rows
from penstock.query.tree import Field
from penstock.query.values import values_of
from penstock.schema.shape import Struct

LAST = 2
"""The rank of events without the field."""


@dataclass(frozen=True, slots=True)
class SortValue:
    """What to order by: first `rank`, rising, then the others in the order asked for.

    Of `number` and `text` at most one is not NULL.
    """

    rank: Sql
    number: Sql
    text: Sql


def sort_value(
    field: Field,
    shape: Struct,
    *,
    descending: bool,
    dialect: Dialect = DUCKDB,
    rows: Rows = "rows",
) -> SortValue:
    """Answer the value of a field; the relation is as for `compile_sql`."""
    numbers, texts = _lists(field, shape, dialect, rows)
    extreme = dialect.greatest if descending else dialect.least
    number, text = sql(extreme, numbers), sql(extreme, texts)
    first, second = (text, number) if descending else (number, text)
    rank = sql(
        f"CASE WHEN {{0}} IS NOT NULL THEN 0 WHEN {{1}} IS NOT NULL THEN 1 ELSE {LAST} END",
        first,
        second,
    )
    second = sql("CASE WHEN {0} IS NULL THEN {1} END", first, second)
    return SortValue(rank, *((second, first) if descending else (first, second)))


def _lists(field: Field, shape: Struct, dialect: Dialect, rows: Rows) -> tuple[Sql, Sql]:
    """Answer the list of a field's numbers, and the list of its texts in lower case."""
    found = values_of(
        field, shape, dialect=dialect, rows=rows, told=lambda text: sql("lower({0})", text)
    )
    return (
        _list(Sql(dialect.no_numbers), found.number, found.numbers, dialect),
        _list(Sql(dialect.no_texts), found.text, found.texts, dialect),
    )


def _list(nothing: Sql, one: Sql | None, others: Sql | None, dialect: Dialect) -> Sql:
    found = nothing if one is None else sql(dialect.chained, nothing, sql(dialect.one, one))
    return found if others is None else sql(dialect.chained, found, others)
