"""The shape of a collection's documents: which columns `data` has, and of what types.

A shape only grows: a field that has a column keeps the column's type for ever (Iceberg cannot
turn a long into a double), and what does not fit is kept beside it as a misfit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["bool", "long", "double", "string"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column of scalars."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class List:
    """A list; its elements may be null."""

    element: Type


@dataclass(frozen=True, slots=True)
class Struct:
    """An object: column names (see `penstock.schema.names`) and types, in order of discovery."""

    fields: tuple[tuple[str, Type], ...]


Type = Leaf | List | Struct

EMPTY = Struct(())
"""The shape of a collection whose documents never had a leaf: it has no column `data`."""


def columns(shape: Struct) -> list[tuple[str, str]]:
    """Answer every leaf column as people read it: ``("items[].price", "double")``."""
    return [(path, leaf.kind) for path, leaf in _leaves_of(shape, "")]


def count_columns(shape: Struct) -> int:
    """Answer how many leaf columns the shape has."""
    return sum(1 for _ in _leaves_of(shape, ""))


def count_repeated(shape: Struct) -> int:
    """Answer how many leaf columns have a cell for each object of a list, not one for each row."""
    return sum(1 for path, _ in _leaves_of(shape, "") if "[]." in path)


def below(path: str, name: str) -> str:
    """Answer the path of a field as people read it; `path` is that of its object."""
    return f"{path}.{name}" if path else name


def _leaves_of(kind: Type, path: str) -> Iterator[tuple[str, Leaf]]:
    match kind:
        case Leaf():
            yield path, kind
        case List(element):
            yield from _leaves_of(element, f"{path}[]")
        case Struct(fields):
            for name, field in fields:
                yield from _leaves_of(field, below(path, name))
