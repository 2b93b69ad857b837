"""The columns that hold the leaves of payloads, and how they are read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from penstock.query.dialects import Dialect
from penstock.query.pieces import Sql, quoted, sql
from penstock.schema.names import join, key_of
from penstock.schema.shape import Kind, Leaf, List, Struct, Type


class LeafColumn(NamedTuple):
    """A column of scalars: the path of its leaves, and the steps to it from `data`."""

    path: str
    kind: Kind
    steps: tuple[str | None, ...]
    """Names of struct fields; None steps into a list."""


@lru_cache(maxsize=64)
def columns_of(shape: Struct) -> tuple[LeafColumn, ...]:
    """Answer every column of scalars."""
    return tuple(_columns(shape, None, ()))


_TELLING = 6
"""Each column takes some 20 ms of a processor for a million rows."""


def telling(shape: Struct, filled: Mapping[str, int], rows: int) -> tuple[LeafColumn, ...]:
    """Answer few columns of which nearly every row of documents has one, told how full they are.

    Where events of several kinds share a collection, each kind has columns of its own. So after the
    fullest column comes the fullest of those that its rows leave room for.
    """
    chosen: list[LeafColumn] = []
    left = rows
    known = [column for column in columns_of(shape) if None not in column.steps]
    counts = {column: filled.get(".".join(map(str, column.steps)), 0) for column in known}
    for column in sorted(known, key=lambda column: (-counts[column], len(column.steps))):
        if not counts[column] or len(chosen) == _TELLING:
            break
        if counts[column] <= left:
            chosen.append(column)
            left -= counts[column]
    return tuple(chosen)


def all_values(dialect: Dialect, column: LeafColumn, told: Callable[[Sql], Sql]) -> Sql:
    """Answer the list of what is `told` of every leaf of a column, which is in a list or not."""
    if None not in column.steps:
        return sql(dialect.one, told(read(column)))
    return _values(dialect, "data", column.steps, told, 0)


def _values(
    dialect: Dialect, at: str, steps: Sequence[str | None], told: Callable[[Sql], Sql], depth: int
) -> Sql:
    place = steps.index(None)
    name, rest = f"v{depth}", steps[place + 1 :]
    elements = Sql(_dotted(at, steps[:place]))
    if None not in rest:
        return sql(dialect.mapped, elements, Sql(name), told(Sql(_dotted(name, rest))))
    inner = _values(dialect, name, rest, told, depth + 1)
    return sql(dialect.flattened, sql(dialect.mapped, elements, Sql(name), inner))


def _dotted(at: str, steps: Sequence[str | None]) -> str:
    return ".".join([at, *(quoted(step) for step in steps if step is not None)])


def _columns(kind: Type, path: str | None, steps: tuple[str | None, ...]) -> Iterator[LeafColumn]:
    match kind:
        case Leaf(scalar):
            yield LeafColumn(path or "", scalar, steps)
        case List(element):
            yield from _columns(element, path, (*steps, None))
        case Struct(fields):
            for name, field in fields:
                yield from _columns(field, join(path, key_of(name)), (*steps, name))


def read(column: LeafColumn) -> Sql:
    """Answer the value of a column that is in no list."""
    return Sql(_dotted("data", column.steps))
