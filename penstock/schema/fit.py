"""Part a document into what its columns can hold and the leaves that they cannot.

What becomes of those leaves is the contract's to say: they are gathered (`Misfits`), the first one
keeps the event out (`Barrier`), or they are left to the payload (`Dropped`).

Nothing is bent to fit: a column of strings takes no number, a column of longs takes ``1.0`` and
``1e3`` but not ``1.5``, a column of doubles takes an integer only if that very number is a double.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal, cast

from msgspec import Raw

from penstock.schema.check import LONG_MAX, LONG_MIN, Place
from penstock.schema.gate import Refused, decode_list, decode_object, value_of
from penstock.schema.leaves import Scalar, json_text, leaves
from penstock.schema.names import clash_form, column_name, join, nameable
from penstock.schema.shape import Leaf, Struct, Type


class Misfits:
    """The leaves of one document that its columns cannot hold: paths and JSON texts."""

    def __init__(self, room: int) -> None:
        """Take leaves until their paths and texts have `room` characters together."""
        self._leaves: list[tuple[str, str]] = []
        self._room = room

    @property
    def leaves(self) -> Sequence[tuple[str, str]]:
        """What was added, in order."""
        return self._leaves

    def add(self, value: object, path: str | None) -> None:
        """Add every leaf of a value; raises `Refused` when there is no room any more."""
        for where, scalar in leaves(value, path):
            text = json_text(scalar)
            self._room -= len(where) + len(text)
            if self._room < 0:
                raise Refused("too_many_misfits", "the leaves without a column take too much room")
            self._leaves.append((where, text))

    def add_field(self, value: object, place: Place, key: str) -> None:
        """Add every leaf of a field that the object at the place has no column for."""
        self.add(value, join(place.path, key))


class Barred(Exception):
    """The collection's contract lets no document in that has this leaf; the path says which."""

    def __init__(self, reason: Literal["new_field", "misfit"], path: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


class Barrier(Misfits):
    """Takes no leaf at all: the first one raises `Barred`."""

    def __init__(self, *, fields_are_new: bool = True) -> None:
        """Call fields without a column new, unless they are known and have none for once."""
        super().__init__(0)
        self._fields_are_new = fields_are_new

    def add(self, value: object, path: str | None) -> None:
        """Raise `Barred` if the value has a leaf; null, ``{}`` and ``[]`` have none."""
        for where, _ in leaves(value, path):
            raise Barred("misfit", where)

    def add_field(self, value: object, place: Place, key: str) -> None:
        """Raise `Barred` if the field has a leaf; it is new if a column could be made for it."""
        for where, _ in leaves(value, join(place.path, key)):
            if self._fields_are_new and could_have(place, key):
                raise Barred("new_field", where)
            raise Barred("misfit", where)


class Dropped(Misfits):
    """Forgets every leaf: the payload has it."""

    def __init__(self) -> None:
        super().__init__(0)

    def add(self, value: object, path: str | None) -> None:
        """Do nothing."""


def could_have(place: Place, key: str) -> bool:
    """Say whether the object at the place could get a column for a key that has none."""
    return nameable(key) and clash_form(column_name(key)) not in place.forms


def fit(text: Raw, place: Place, misfits: Misfits) -> object:
    """Answer what of a valid JSON text fits the place, and add every other leaf to `misfits`.

    What fits entirely is answered as it was sent; only the rest is taken apart. None stands for
    a value of which nothing fits: in a list it keeps the others where they are.
    """
    if place.holds(text):
        return text
    head = bytes(text)[:1]
    if head == b"{" and isinstance(place.kind, Struct):
        return fit_object(text, place, misfits)
    if head == b"[" and place.element is not None:
        return _fit_list(text, place.element, misfits)
    return _fit_value(value_of(text), place, misfits)


def fit_object(text: Raw, place: Place, misfits: Misfits) -> dict[str, object]:
    """Do the same for an object that is known not to fit entirely, at a place for objects."""
    fitting = {}
    for key, item in decode_object(text).items():
        field = place.fields.get(key)
        if field is None:
            misfits.add_field(value_of(item), place, key)
        elif (kept := fit(item, field, misfits)) is not None:
            fitting[key] = kept
    return fitting


def _fit_list(text: Raw, element: Place, misfits: Misfits) -> list[object]:
    if isinstance(element.kind, Leaf):
        # A check that fails takes a microsecond, and a list may have a million elements.
        values = cast("list[object]", value_of(text))
        return [_fit_value(value, element, misfits) for value in values]
    return [fit(item, element, misfits) for item in decode_list(text)]


def _fit_value(value: object, place: Place, misfits: Misfits) -> Scalar | None:
    scalar = _as_scalar(value, place.kind)
    if scalar is None:
        misfits.add(value, place.path)
    return scalar


def _as_scalar(value: object, kind: Type) -> Scalar | None:
    """Answer the value as a column of scalars holds it, None if it does not."""
    if not isinstance(kind, Leaf):
        return None
    match kind.kind, value:
        case ("bool", bool()) | ("string", str()):
            return cast("Scalar", value)
        case _, bool():
            return None
        case "long", int() | Raw():
            return whole(value)
        case "double", int() | Raw():
            return real(value)
        case _:
            return None


def whole(number: int | Raw) -> int | None:
    """Answer the same number as a 64-bit integer, if there is one."""
    if isinstance(number, int):
        return number if LONG_MIN <= number <= LONG_MAX else None
    if not -(2.0**63) <= float(bytes(number)) <= 2.0**63:
        return None
    # Beyond 2**53 a float has no digits behind the point, whatever was sent.
    try:
        exact = Decimal(bytes(number).decode())
    except InvalidOperation:
        return None
    integer = int(exact)
    return integer if integer == exact and LONG_MIN <= integer <= LONG_MAX else None


def real(number: int | Raw) -> float | None:
    """Answer the double nearest to a number with a fraction, or the very double of an integer."""
    try:
        double = float(number if isinstance(number, int) else bytes(number))
    except OverflowError:
        return None
    exact = double == number if isinstance(number, int) else math.isfinite(double)
    return double if exact else None
