"""When a column of longs is to become one of doubles, and what a shape is then. Pure.

A field whose first batch had ``5`` is a long, and ``5.99`` is a misfit. Where such misfits add up
the column is retyped, which rewrites the table (`lakehouse.rewrite`). A double is never made a
long again, so this comes to an end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from msgspec import Raw

from penstock.schema.fit import real, whole
from penstock.schema.gate import value_of
from penstock.schema.names import key_of, path_text
from penstock.schema.shape import Kind, Leaf, List, Struct, Type, below

FEWEST = 100
"""So many misfits in the newest rows are enough, however many rows there are."""

SHARE = 0.01
"""So many misfits a row are enough, however few they are."""

_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Column:
    """A leaf column: the names of its fields from the top, None for the elements of a list."""

    steps: tuple[str | None, ...]
    kind: Kind

    @property
    def path(self) -> str:
        """As people read it: ``items[].price``."""
        path = ""
        for step in self.steps:
            path = f"{path}[]" if step is None else below(path, step)
        return path

    @property
    def misfit_path(self) -> str:
        """Where misfits of this column say they stood."""
        return path_text(key_of(step) for step in self.steps if step is not None)


@dataclass(frozen=True, slots=True)
class Counted:
    """What the newest rows say about a column of longs.

    `gained` misfits would be values of a column of doubles; `lost` values of it would be misfits
    there, for no double is that number.
    """

    column: Column
    gained: int = 0
    lost: int = 0


def longs_of(shape: Struct) -> list[Column]:
    """Answer every column of longs."""
    return [column for column in columns_of(shape) if column.kind == "long"]


def columns_of(shape: Type) -> list[Column]:
    """Answer every leaf column, in the order of the shape."""
    return list(_below(shape, ()))


def _below(kind: Type, steps: tuple[str | None, ...]) -> Iterator[Column]:
    match kind:
        case Leaf():
            yield Column(steps, kind.kind)
        case List(element):
            yield from _below(element, (*steps, None))
        case Struct(fields):
            for name, field in fields:
                yield from _below(field, (*steps, name))


def gains(text: str) -> bool:
    """Say whether the JSON text of a misfit is a number for doubles and not for longs."""
    value = value_of(text.encode())
    if isinstance(value, bool) or not isinstance(value, int | Raw):
        return False
    return whole(value) is None and real(value) is not None


def loses(number: int) -> bool:
    """Say whether no double is this very number."""
    return not -_EXACT <= number <= _EXACT and real(number) is None


def due(counted: Counted, rows: int, *, fewest: int = FEWEST, share: float = SHARE) -> bool:
    """Say whether the column is to become one of doubles, from what `rows` newest rows say.

    Never where that would cost more values than it brings: ids of 19 digits stay longs although
    somebody once sent a fraction.
    """
    many = counted.gained >= fewest or counted.gained >= share * rows
    return many and counted.gained > counted.lost


def widened(shape: Struct, columns: Collection[Column]) -> Struct:
    """Answer the shape with these columns of longs as doubles; what is none in it is left out."""
    chosen = {column.steps for column in columns}
    fields = tuple((name, _widened(field, (name,), chosen)) for name, field in shape.fields)
    return Struct(fields)


def _widened(
    kind: Type, steps: tuple[str | None, ...], chosen: Collection[tuple[str | None, ...]]
) -> Type:
    match kind:
        case Leaf("long") if steps in chosen:
            return Leaf("double")
        case List(element):
            return List(_widened(element, (*steps, None), chosen))
        case Struct(fields):
            return Struct(
                tuple((name, _widened(field, (*steps, name), chosen)) for name, field in fields)
            )
        case _:
            return kind


@dataclass(frozen=True, slots=True)
class Difference:
    """A leaf column that a rewrite changed; a type is None where there was, or is, no column."""

    path: str
    before: Kind | None
    after: Kind | None

    @property
    def what(self) -> str:
        """Whether it was added, removed or retyped."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "retyped"


def differences(before: Struct, after: Struct) -> list[Difference]:
    """Answer what is not the same in two shapes, column by column; their order does not count."""
    old = {column.path: column.kind for column in columns_of(before)}
    new = {column.path: column.kind for column in columns_of(after)}
    return [
        Difference(path, old.get(path), new.get(path))
        for path in [*old, *(path for path in new if path not in old)]
        if old.get(path) != new.get(path)
    ]
