"""A search as one statement of SQL that somebody can read, run and change. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from penstock.envelope import Micros
from penstock.errors import BadRequest
from penstock.query.dialects import DUCKDB, Dialect
from penstock.query.pieces import ALWAYS, Sql, quoted, sql, value
from penstock.query.sql import compile_sql
from penstock.query.tree import And, Query
from penstock.schema.shape import Struct

DISTINCT = "__distinct"
LIMIT = 100
_MOST_FIELDS = 20

# Marks stand outside of texts and names; expressions in texts have question marks of their own.
_PARTS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\?|[^'"?]+""")


def statement(
    query: Query,
    shape: Struct,
    table: str,
    *,
    team: str | None = None,
    since: Micros | None,
    until: Micros | None,
    duplicates: Literal["fold", "include", "only"],
    dialect: Dialect = DUCKDB,
) -> str:
    """Answer the SELECT that finds what the search finds among the rows that have landed.

    `team` is said where the table is not the asker's own. Raises `BadRequest` for a search that
    needs more than tables hold, or has modifiers.
    """
    if query.facts:
        raise BadRequest(
            "explicit nulls and lengths of lists are in the payloads alone: "
            "no statement can ask for them"
        )
    if query.order_by is not None or query.unique is not None:
        raise BadRequest("a search with ORDER_BY or UNIQUE has no statement of its own")
    conditions = [
        *_received(since, until, dialect),
        *([Sql("duplicate_of IS NOT NULL")] if duplicates == "only" else []),
        *(
            compile_sql(replace(query, where=part), shape, dialect=dialect)
            for part in (query.where.parts if isinstance(query.where, And) else (query.where,))
        ),
    ]
    kept = [filled(one) for one in conditions if one != ALWAYS]
    name = quoted(table + (DISTINCT if duplicates == "fold" else ""))
    source = name if team is None else f"{quoted(team)}.{name}"
    return "\n".join(
        [
            f"SELECT {', '.join(_columns(shape))}",
            f"FROM {source}",
            *(f"{'WHERE' if number == 0 else '  AND'} {text}" for number, text in enumerate(kept)),
            "ORDER BY received_at DESC",
            f"LIMIT {LIMIT if query.limit is None else query.limit}",
        ]
    )


def filled(piece: Sql) -> str:
    """Answer the piece with its values in place of their marks."""
    values = iter(piece.parameters)
    return "".join(
        literal(next(values)) if part == "?" else part for part in _PARTS.findall(piece.text)
    )


def literal(given: object) -> str:
    """Answer a value as DuckDB and Trino both write it."""
    match given:
        case bool():
            return "TRUE" if given else "FALSE"
        case int():
            return str(given)
        case float() if math.isfinite(given):
            text = repr(given)
            return text if "e" in text else f"{text}e0"
        case float():
            return f"CAST('{'-' if given < 0 else ''}Infinity' AS DOUBLE)"
        case str():
            # No engine takes a NUL inside of a text.
            parts = ["'" + part.replace("'", "''") + "'" for part in given.split("\0")]
            return parts[0] if len(parts) == 1 else f"({' || chr(0) || '.join(parts)})"
        case _:
            raise TypeError(f"no literal of SQL for a {type(given).__name__}")


def _columns(shape: Struct) -> Iterator[str]:
    yield from ("received_at", "event_id")
    names = [name for name, _ in shape.fields]
    if not names:
        yield "payload"
    yield from (f"data.{quoted(name)}" for name in names[:_MOST_FIELDS])


def _received(since: Micros | None, until: Micros | None, dialect: Dialect) -> Sequence[Sql]:
    bounds: list[Sql] = []
    if since is not None:
        bounds.append(sql("received_at >= {0}", sql(dialect.time, value(since))))
    if until is not None:
        bounds.append(sql("received_at < {0}", sql(dialect.time, value(until))))
    return bounds
