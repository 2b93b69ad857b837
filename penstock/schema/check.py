"""The check that nearly every event passes: whether it fits its columns entirely.

From a shape msgspec types are generated, and a payload is decoded into them and dropped. That
happens in C and answers for syntax, UTF-8, fields, types and the size of numbers at once: what
can be decoded has a place in the columns for every leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any

import msgspec

from penstock.schema.gate import NOT_READ
from penstock.schema.names import clash_form, join, key_of
from penstock.schema.shape import Leaf, List, Struct, Type

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1

_SCALARS: dict[str, Any] = {
    "bool": bool,
    "long": Annotated[int, msgspec.Meta(ge=LONG_MIN, le=LONG_MAX)],
    # Every integer up to 2**53 is a double; beyond, it takes a closer look.
    "double": Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | float,
    "string": str,
}


@dataclass(frozen=True, slots=True)
class Blank:
    """Fields (by key) that documents have although there never is a leaf in them.

    Senders love ``"error": null`` and ``"tags": []``; without this, each such event would count
    as one that has something beside its columns.
    """

    fields: tuple[tuple[str, Blank], ...] = ()
    element: Blank | None = None


NO_BLANKS = Blank()


class Place:
    """A type of a shape, laid out for documents: its fields go by their keys."""

    def __init__(self, kind: Type, path: str | None, blank: Blank) -> None:
        self.kind = kind
        self.path = path
        """As in queries; None for the document itself."""
        self.fields: dict[str, Place] = {}
        self.element: Place | None = None
        self.type: Any
        match kind:
            case Struct(fields):
                below = dict(blank.fields)
                for name, field in fields:
                    key = key_of(name)
                    self.fields[key] = Place(field, join(path, key), below.pop(key, NO_BLANKS))
                types = {key: place.type for key, place in self.fields.items()}
                self.type = _object(types | {key: _nothing(rest) for key, rest in below.items()})
            case List(element):
                self.element = Place(element, path, blank.element or NO_BLANKS)
                self.type = list[self.element.type | None]  # type: ignore[name-defined]
            case Leaf(scalar):
                self.type = _SCALARS[scalar]

    @cached_property
    def check(self) -> Callable[[bytes | msgspec.Raw], object]:
        """A function that raises one of `NOT_READ` for a text that does not fit here entirely.

        Blank fields may be there as well, without a leaf.
        """
        nullable = self.path is not None
        return msgspec.json.Decoder(self.type | None if nullable else self.type).decode

    def holds(self, text: bytes | msgspec.Raw) -> bool:
        """Say whether a text fits here entirely."""
        try:
            self.check(text)
        except NOT_READ:
            return False
        return True

    @cached_property
    def forms(self) -> frozenset[str]:
        """What no further column of the object here may look like, see `clash_form`."""
        fields = self.kind.fields if isinstance(self.kind, Struct) else ()
        return frozenset(clash_form(name) for name, _ in fields)

    @cached_property
    def grows(self) -> bool:
        """Whether an object stands here, or in a list here, so that fields can be added to it."""
        return isinstance(self.kind, Struct) or (self.element is not None and self.element.grows)


# A process lands some hundred collections; their types are kept from batch to batch.
@lru_cache(maxsize=256)
def top_of(shape: Struct, blank: Blank = NO_BLANKS) -> Place:
    """Answer the place of whole documents."""
    return Place(shape, None, blank)


def failing(payloads: Iterable[bytes], place: Place) -> list[int]:
    """Answer where the payloads stand that do not fit the place entirely."""
    # Not by `holds`: a call of a Python function for each event would cost a tenth of the check.
    check = place.check
    found = []
    for position, payload in enumerate(payloads):
        try:
            check(payload)
        except NOT_READ:
            found.append(position)
    return found


def _nothing(blank: Blank) -> Any:
    """Answer the type of values without a leaf: null, and objects and lists of such values."""
    element = None if blank.element is None else _nothing(blank.element)
    fields = {key: _nothing(below) for key, below in blank.fields}
    return list[element] | _object(fields) | None  # type: ignore[valid-type]


def _object(types: dict[str, Any]) -> Any:
    """Answer the type of objects that may have these fields, and null in them, but no others."""
    keys = {f"f{number}": key for number, key in enumerate(types)}
    return msgspec.defstruct(
        "Object",
        [(field, types[key] | None, None) for field, key in keys.items()],
        rename=keys,
        forbid_unknown_fields=True,
        gc=False,
    )
