"""What a caller's statement may be, decided from its syntax tree. Pure.

The engine's own locks come on top: this check is there so that nothing depends on them alone, and
so that refusals are sentences.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from lakehouse.sql import TableName
from penstock.errors import BadSql

# What makes rows out of its arguments. Every other table function reads files, settings or the
# catalog of the engine.
_TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}

# Those tell of the engine, or make it wait or write; `error` would make an error of a payload. The
# names with `pg_` look into its catalog.
_REFUSED_FUNCTIONS = {
    "current_setting",
    "currval",
    "error",
    "getvariable",
    "json_serialize_plan",
    "nextval",
    "sleep_ms",
    "write_log",
    "col_description",
    "obj_description",
    "shobj_description",
}
_ENGINE_PREFIX = "pg_"
_ENGINE_ALLOWED = {"pg_typeof"}

_DESCRIPTIONS = {"DESCRIBE", "SUMMARY"}
_REFUSED_SOURCES = {"COLUMN_DATA", "DELIM_GET", "BOUND_TABLE_REF"}

_BLANK = r"(?:\s|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/)"
_EXPLAIN = re.compile(rf"{_BLANK}*EXPLAIN(?={_BLANK}|\()", re.IGNORECASE)
_EXPLAIN_OPTION = re.compile(rf"{_BLANK}*(?:\(|(?:ANALYZE|ANALYSE|VERBOSE)\b)", re.IGNORECASE)


def explained(statement: str) -> str | None:
    """Answer the statement that this one explains; None if it is no EXPLAIN.

    Raises `BadSql` for options: `ANALYZE` runs what it explains, and that may be a COPY.
    """
    match = _EXPLAIN.match(statement)
    if match is None:
        return None
    rest = statement[match.end() :]
    if _EXPLAIN_OPTION.match(rest):
        raise BadSql("EXPLAIN takes no options here: it shows the plan and runs nothing")
    return rest


def tables_used(
    tree: dict[str, Any], tables: Collection[TableName], home: str
) -> frozenset[TableName]:
    """Answer the tables that a SELECT reads, from the tree that the engine makes of it.

    Raises `BadSql` for a table that is not among `tables`, and for whatever else could read
    anything but their rows.
    """
    return frozenset(_walk(tree, frozenset(tables), home, frozenset()))


def _walk(
    node: object, tables: frozenset[TableName], home: str, ctes: frozenset[str]
) -> Iterator[TableName]:
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, tables, home, ctes)
    if not isinstance(node, dict):
        return
    ctes |= _named_here(node)
    yield from _checked(node, tables, home, ctes)
    for item in node.values():
        yield from _walk(item, tables, home, ctes)


def _named_here(node: dict[str, Any]) -> frozenset[str]:
    """Answer the names that WITH gives to subqueries of this node; they hold only inside it."""
    named = {entry["key"].lower() for entry in (node.get("cte_map") or {}).get("map", ())}
    if node.get("type") == "RECURSIVE_CTE_NODE":
        named.add(node["cte_name"].lower())
    return frozenset(named)


def _checked(
    node: dict[str, Any], tables: frozenset[TableName], home: str, ctes: frozenset[str]
) -> Iterator[TableName]:
    """Answer the table that this node is, if it is one; refuse what is not allowed."""
    match node.get("type"):
        case "BASE_TABLE":
            yield from _table(node, tables, home, ctes)
        case "TABLE_FUNCTION":
            name = node["function"].get("function_name", "").lower()
            if name not in _TABLE_FUNCTIONS:
                raise BadSql(
                    f"a statement reads tables only, not {name}(…). {known_tables(tables, home)}"
                )
        case "SHOW_REF" if node["query"] is None or node["show_type"] not in _DESCRIPTIONS:
            raise BadSql(
                f"only DESCRIBE and SUMMARIZE can be asked here. {known_tables(tables, home)}"
            )
        case str(kind) if kind in _REFUSED_SOURCES:
            raise BadSql("a statement reads tables only")
    name = node.get("function_name")
    if isinstance(name, str) and _tells_of_engine(name.lower()):
        raise BadSql(f"{name.lower()}(…) is not offered here")


def _table(
    node: dict[str, Any], tables: frozenset[TableName], home: str, ctes: frozenset[str]
) -> Iterator[TableName]:
    catalog, schema, name = (
        node[part].lower() for part in ("catalog_name", "schema_name", "table_name")
    )
    if node.get("at_clause") is not None:
        raise BadSql("AT (…) is not offered here")
    if not catalog and not schema and name in ctes:
        return
    wanted = TableName(schema or home, name)
    if catalog or wanted not in tables:
        written = ".".join(part for part in (catalog, schema, name) if part)
        raise BadSql(f"there is no table {written!r}. {known_tables(tables, home)}")
    yield wanted


def _tells_of_engine(function: str) -> bool:
    if function.startswith(_ENGINE_PREFIX):
        return function not in _ENGINE_ALLOWED
    return function in _REFUSED_FUNCTIONS


def known_tables(tables: Collection[TableName], home: str) -> str:
    """Answer a sentence with the names that would have been right."""
    names = sorted(t.name if t.schema == home else str(t) for t in tables)
    if not names:
        return "There are no tables yet: a collection gets its table with its first events"
    shown = ", ".join(names[:20])
    return f"The tables are: {shown}{', …' if len(names) > 20 else ''}"  # noqa: PLR2004 - a line
