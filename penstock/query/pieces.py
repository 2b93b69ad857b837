"""Pieces of SQL with the values for their marks, and how they are put together. Pure.

Names that came with payloads are quoted by `quoted` alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.query.dialects import DUCKDB, Dialect


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL, with the values for its question marks in order."""

    text: str
    parameters: tuple[object, ...] = ()


def quoted(name: str) -> str:
    """Answer a name as SQL writes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


ALWAYS = Sql("TRUE")
NEVER = Sql("FALSE")


def value(parameter: object) -> Sql:
    """Answer a mark with its value."""
    return Sql("?", (parameter,))


def sql(template: str, *operands: Sql) -> Sql:
    """Answer the template with the operands in place of ``{0}``, ``{1}`` …, each in order."""
    parameters: list[object] = []
    for position in re.findall(r"\{([0-9])\}", template):
        parameters += operands[int(position)].parameters
    return Sql(template.format(*(operand.text for operand in operands)), tuple(parameters))


def all_of(*parts: Sql) -> Sql:
    """Answer the conjunction; true of nothing is true."""
    kept = [part for part in parts if part != ALWAYS]
    return NEVER if NEVER in kept else _joined(kept, " AND ", ALWAYS)


def any_of(*parts: Sql) -> Sql:
    """Answer the disjunction; any of nothing is false."""
    kept = [part for part in parts if part != NEVER]
    return ALWAYS if ALWAYS in kept else _joined(kept, " OR ", NEVER)


def negated(part: Sql, dialect: Dialect = DUCKDB) -> Sql:
    """Answer the plain complement: NULL becomes true."""
    if part in (ALWAYS, NEVER):
        return NEVER if part == ALWAYS else ALWAYS
    return sql(dialect.negated, part)


def _joined(parts: Sequence[Sql], word: str, nothing: Sql) -> Sql:
    if len(parts) < 2:  # noqa: PLR2004 - one needs no word between
        return parts[0] if parts else nothing
    text = word.join(part.text for part in parts)
    return Sql(f"({text})", tuple(p for part in parts for p in part.parameters))


def listed(parts: Sequence[Sql]) -> Sql:
    """Answer the pieces one behind the other, as the arguments of a function."""
    return Sql(
        ", ".join(p.text for p in parts), tuple(p for part in parts for p in part.parameters)
    )
