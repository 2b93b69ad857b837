"""What to order events by, or tell them apart by: the value of a field, as SQL.

A field may have several leaves, of several types. In rising order an event counts by its least
leaf, numbers before text; in falling order by its greatest, text before numbers. Case is ignored,
`true` and `false` are text, and events without the field come last either way.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.query.dialects import DUCKDB, Dialect
from penstock.query.pieces import Sql, all_of, any_of, sql, value
from penstock.query.sql import IS_JSON_STRING, Rows
from penstock.query.stored import all_values, columns_of
from penstock.query.tree import Column, Field, Header, Metadata, Payload, Quarantine, Time
from penstock.schema.names import path_text
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
    numbers, texts = _values(field, shape, dialect, rows)
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


def _values(field: Field, shape: Struct, dialect: Dialect, rows: Rows) -> tuple[Sql, Sql]:
    """Answer the list of a field's numbers, and the list of its texts in lower case."""
    no_numbers, no_texts = Sql(dialect.no_numbers), Sql(dialect.no_texts)

    def one(leaf: Sql) -> Sql:
        return sql(dialect.one, leaf)

    match field:
        case Payload(keys):
            return _leaves(path_text(keys), shape, dialect)
        case Time(name):
            return one(sql(dialect.micros, Sql(name))), no_texts
        case Column("log_partition" | "log_offset" as name):
            return one(Sql(f"CAST({name} AS DOUBLE)")), no_texts
        case Column("key"):
            return no_numbers, one(sql("lower({0})", sql(dialect.text_of_bytes, Sql("key"))))
        case Quarantine() if rows != "quarantine":
            return no_numbers, no_texts
        case Column() | Quarantine():
            return no_numbers, one(Sql(f"lower({field.name})"))
        case Header(str(name)):
            named = sql("lower(h.key) = {0}", value(name))
            headers = sql(dialect.filtered, Sql("headers"), Sql("h"), named)
            text = sql("lower({0})", sql(dialect.text_of_bytes, Sql("h.value")))
            return no_numbers, sql(dialect.mapped, headers, Sql("h"), text)
        case Metadata(str(name)):
            text = sql(dialect.map_value, Sql("metadata"), value(name))
            return no_numbers, one(sql("lower({0})", text))
        case _:
            return no_numbers, no_texts


def _leaves(path: str, shape: Struct, dialect: Dialect) -> tuple[Sql, Sql]:
    numbers, texts = Sql(dialect.no_numbers), Sql(dialect.no_texts)
    for column in columns_of(shape):
        if column.path != path:
            continue
        if column.kind in ("long", "double"):
            found = all_values(dialect, column, lambda leaf: sql("CAST({0} AS DOUBLE)", leaf))
            numbers = sql(dialect.chained, numbers, found)
        else:
            found = all_values(
                dialect, column, lambda leaf: sql("lower(CAST({0} AS VARCHAR))", leaf)
            )
            texts = sql(dialect.chained, texts, found)

    here = sql("m.path = {0}", value(path))
    json, named = Sql("m.value"), Sql("m")
    is_text = any_of(Sql(IS_JSON_STRING), Sql("m.value IN ('true', 'false')"))
    strings = sql(dialect.filtered, Sql("misfits"), named, all_of(here, is_text))
    others = sql(dialect.filtered, Sql("misfits"), named, here)
    double = sql(dialect.double_of_json, json)
    text = sql("lower({0})", sql(dialect.text_of_json, json))
    return (
        sql(dialect.chained, numbers, sql(dialect.mapped, others, named, double)),
        sql(dialect.chained, texts, sql(dialect.mapped, strings, named, text)),
    )
