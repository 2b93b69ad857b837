"""The values that an event has of a field, as SQL.

A field may have several leaves, of several types. Numbers are doubles; `true` and `false` are
texts, as a search cannot tell them from the words. Header values and keys that are not UTF-8 are
no values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from penstock.query.dialects import DUCKDB, Dialect
from penstock.query.pieces import Sql, all_of, any_of, sql, value
from penstock.query.sql import IS_JSON_STRING, Rows, opaque_text
from penstock.query.stored import LeafColumn, all_values, columns_of, read
from penstock.query.tree import Column, Field, Header, Metadata, Payload, Quarantine, Time
from penstock.schema.names import path_text
from penstock.schema.shape import Struct

Told = Callable[[Sql], Sql]


class Values(NamedTuple):
    """What an event has of a field: one value at most of each column, and lists of others.

    None stands for no value and for no list; any of them may be NULL in SQL, elements too.
    """

    number: Sql | None = None
    text: Sql | None = None
    numbers: Sql | None = None
    texts: Sql | None = None


def values_of(
    field: Field,
    shape: Struct,
    *,
    dialect: Dialect = DUCKDB,
    rows: Rows = "rows",
    misfits: bool = True,
    told: Told = lambda text: text,
) -> Values:
    """Answer the values of a field, texts as `told` writes them.

    The relation is as for `compile_sql`. Without `misfits` there are none of this field in it.
    """
    match field:
        case Payload(keys):
            return _leaves(path_text(keys), shape, dialect, rows, told, misfits=misfits)
        case Time(name):
            return Values(number=sql(dialect.micros, Sql(name)))
        case Column("log_partition" | "log_offset" as name):
            return Values(number=Sql(f"CAST({name} AS DOUBLE)"))
        case Column("key"):
            return Values(text=told(sql(dialect.text_of_bytes, Sql("key"))))
        case Quarantine() if rows != "quarantine":
            return Values()
        case Column() | Quarantine():
            return Values(text=told(Sql(field.name)))
        case Header(str(name)):
            named = sql("lower(h.key) = {0}", value(name))
            headers = sql(dialect.filtered, Sql("headers"), Sql("h"), named)
            text = told(sql(dialect.text_of_bytes, Sql("h.value")))
            return Values(texts=sql(dialect.mapped, headers, Sql("h"), text))
        case Metadata(str(name)):
            return Values(text=told(sql(dialect.map_value, Sql("metadata"), value(name))))
        case _:
            return Values()


def _leaves(
    path: str, shape: Struct, dialect: Dialect, rows: Rows, told: Told, *, misfits: bool
) -> Values:
    found = Values()
    for column in columns_of(shape):
        if column.path == path:
            found = _with_column(found, column, dialect, told)
    if not path and rows != "quarantine":
        found = found._replace(text=told(opaque_text(shape, dialect=dialect)))

    if not misfits:
        return found
    here = sql("m.path = {0}", value(path))
    json, named = Sql("m.value"), Sql("m")
    is_text = any_of(Sql(IS_JSON_STRING), Sql("m.value IN ('true', 'false')"))
    strings = sql(dialect.filtered, Sql("misfits"), named, all_of(here, is_text))
    others = sql(dialect.filtered, Sql("misfits"), named, here)
    numbers = sql(dialect.mapped, others, named, sql(dialect.double_of_json, json))
    texts = sql(dialect.mapped, strings, named, told(sql(dialect.text_of_json, json)))
    return found._replace(
        numbers=_chained(found.numbers, numbers, dialect),
        texts=_chained(found.texts, texts, dialect),
    )


def _with_column(found: Values, column: LeafColumn, dialect: Dialect, told: Told) -> Values:
    def text(leaf: Sql) -> Sql:
        return told(sql("CAST({0} AS VARCHAR)", leaf))

    def number(leaf: Sql) -> Sql:
        return sql("CAST({0} AS DOUBLE)", leaf)

    if column.kind in ("long", "double"):
        if None not in column.steps:
            return found._replace(number=number(read(column)))
        numbers = all_values(dialect, column, number)
        return found._replace(numbers=_chained(found.numbers, numbers, dialect))
    if None not in column.steps:
        return found._replace(text=text(read(column)))
    texts = all_values(dialect, column, text)
    return found._replace(texts=_chained(found.texts, texts, dialect))


def _chained(first: Sql | None, second: Sql, dialect: Dialect) -> Sql:
    return second if first is None else sql(dialect.chained, first, second)
