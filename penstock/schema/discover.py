"""What documents hold that a shape has no place for, and how the shape grows by it.

A field gets its type from all values that one batch has for it: the type that most of them have,
the earlier one if two are as frequent; integers and fractions together make a double. Null, empty
objects and lists, and numbers that neither 64 bits nor a double can hold, decide nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Raw

from penstock.schema.check import LONG_MAX, LONG_MIN, NO_BLANKS, Blank, Place
from penstock.schema.fit import real
from penstock.schema.gate import decode_list, decode_object, value_of
from penstock.schema.names import clash_form, column_name, key_of, nameable
from penstock.schema.shape import EMPTY, Kind, Leaf, List, Struct, Type, below, count_columns

MOST_BLANKS = 256
"""Blank fields of one object that are let pass: each makes the check a little slower."""

_KINDS: dict[type, Kind] = {bool: "bool", int: "long", Raw: "double", str: "string"}


@dataclass(slots=True)
class Seen:
    """What stood at one place: values by their Python type, and what was below them."""

    times: dict[type, int] = dataclasses.field(default_factory=dict)
    first: dict[type, int] = dataclasses.field(default_factory=dict)
    """The row that had the first value of a type."""
    fields: dict[str, Seen] = dataclasses.field(default_factory=dict)
    element: Seen | None = None

    def count(self, form: type, row: int) -> None:
        """Count one more value of a Python type."""
        if form in self.times:
            self.times[form] += 1
        else:
            self.times[form], self.first[form] = 1, row

    @property
    def leafless(self) -> bool:
        """Whether no scalar stood here or anywhere below."""
        return (
            self.times.keys() <= {dict, list}
            and (self.element is None or self.element.leafless)
            and all(below.leafless for below in self.fields.values())
        )


class Discovery:
    """Looks at documents and remembers what the shape has no place for, without their values."""

    def __init__(self, top: Place, *, most: int, counting: bool) -> None:
        """Keep notes on `most` unknown fields: whoever sends events also chooses their keys.

        Unless `counting`, the first leaf that a field has is all that is noted of it.
        """
        self.seen = Seen()
        self._top = top
        self._left = most
        self._counting = counting

    def look(self, document: Raw, row: int) -> None:
        """Take note of the fields of an object that the shape does not have."""
        self._compare(document, self._top, self.seen, row)

    def _compare(self, text: Raw, place: Place, seen: Seen, row: int) -> None:
        head = bytes(text)[:1]
        if head == b"{" and isinstance(place.kind, Struct):
            for key, item in decode_object(text).items():
                known = place.fields.get(key)
                if known is None:
                    field = seen.fields.get(key)
                    if self._counting or field is None or field.leafless:
                        self._note_field(key, value_of(item), seen, row)
                elif known.grows and not known.holds(item):
                    self._compare(item, known, seen.fields.setdefault(key, Seen()), row)
        elif head == b"[" and place.element is not None:
            seen.element = seen.element or Seen()
            for item in decode_list(text):
                if not place.element.holds(item):
                    self._compare(item, place.element, seen.element, row)

    def _note_field(self, key: str, value: object, seen: Seen, row: int) -> None:
        field = seen.fields.get(key)
        if field is None:
            if self._left == 0:
                return
            self._left -= 1
            field = seen.fields[key] = Seen()
        if value is not None:
            self._note(value, field, row)

    def _note(self, value: object, seen: Seen, row: int) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._note_field(key, item, seen, row)
        elif isinstance(value, list):
            seen.element = seen.element or Seen()
            for item in value:
                if item is not None:
                    self._note(item, seen.element, row)
        elif isinstance(value, Raw):
            if real(value) is None:
                return
        elif isinstance(value, int) and not LONG_MIN <= value <= LONG_MAX:
            return
        seen.count(type(value), row)


@dataclass(frozen=True, slots=True)
class Added:
    """A leaf column that a shape got: its path as people read it, and the row it is due to."""

    path: str
    kind: Kind
    row: int


def widen(
    shape: Struct, seen: Seen, *, max_columns: int, max_depth: int
) -> tuple[Struct, Sequence[Added]]:
    """Answer the shape with a column for every leaf seen, as far as the bounds allow.

    What was in the shape stays as it is. A field of the top level is at depth 1, an element one
    deeper than its list. No column is made for a key without a name (`nameable`), nor where the
    object has a column that could be taken for it (`clash_form`).
    """
    growth = _Growth(room=max(0, max_columns - count_columns(shape)), max_depth=max_depth)
    return growth.of_struct(shape, seen, "", 0), growth.added


def extends(wider: Type, guess: Type) -> bool:
    """Say whether a guess came true: all of it is there, longs perhaps as doubles."""
    match wider, guess:
        case Struct(fields), Struct(guessed):
            kinds = dict(fields)
            return all(name in kinds and extends(kinds[name], kind) for name, kind in guessed)
        case List(element), List(guessed_element):
            return extends(element, guessed_element)
        case _:
            return wider == guess or (wider, guess) == (Leaf("double"), Leaf("long"))


class _Growth:
    def __init__(self, *, room: int, max_depth: int) -> None:
        self.added: list[Added] = []
        self._room = room
        self._max_depth = max_depth

    def of(self, kind: Type, seen: Seen, path: str, depth: int) -> Type:
        match kind:
            case Struct():
                return self.of_struct(kind, seen, path, depth)
            case List(element) if seen.element is not None:
                return List(self.of(element, seen.element, f"{path}[]", depth + 1))
            case _:
                return kind

    def of_struct(self, struct: Struct, seen: Seen, path: str, depth: int) -> Struct:
        fields = {key_of(name): kind for name, kind in struct.fields}
        taken = {clash_form(name) for name, _ in struct.fields}
        for key, field in seen.fields.items():
            known = fields.get(key)
            if known is None and (self._room == 0 or not nameable(key)):
                continue
            name = column_name(key)
            if known is not None:
                fields[key] = self.of(known, field, below(path, name), depth + 1)
            elif clash_form(name) not in taken:
                kind = self.new(field, below(path, name), depth + 1)
                if kind is not None:
                    fields[key] = kind
                    taken.add(clash_form(name))
        return Struct(tuple((column_name(key), kind) for key, kind in fields.items()))

    def new(self, seen: Seen, path: str, depth: int) -> Type | None:
        """Answer the type of most of the values that can have a column, None if none can."""
        for form, first in _by_frequency(seen):
            if depth > self._max_depth:
                break
            if form is dict:
                struct = self.of_struct(EMPTY, seen, path, depth)
                if struct.fields:
                    return struct
            elif form is list:
                element = self.new(seen.element or Seen(), f"{path}[]", depth + 1)
                if element is not None:
                    return List(element)
            else:
                self._room -= 1
                self.added.append(Added(path, _KINDS[form], first))
                return Leaf(_KINDS[form])
        return None


def _by_frequency(seen: Seen) -> list[tuple[type, int]]:
    """Answer each Python type with the row of its first value, the most frequent first."""
    times, first = dict(seen.times), dict(seen.first)
    if int in times and Raw in times:
        times[Raw] += times.pop(int)
        first[Raw] = min(first[Raw], first[int])
    return sorted(
        ((form, first[form]) for form in times), key=lambda found: (-times[found[0]], found[1])
    )


def blanks(kind: Type, seen: Seen) -> Blank:
    """Answer the blank fields beside the columns of a type."""
    fields: list[tuple[str, Blank]] = []
    element = None
    match kind:
        case Struct():
            columns = {key_of(name): column for name, column in kind.fields}
            for key, field in seen.fields.items():
                column = columns.get(key)
                if column is None:
                    if len(fields) < MOST_BLANKS and field.leafless and nameable(key):
                        fields.append((key, _all_blank(field)))
                elif (beside := blanks(column, field)) != NO_BLANKS:
                    fields.append((key, beside))
        case List() if seen.element is not None:
            beside = blanks(kind.element, seen.element)
            element = beside if beside != NO_BLANKS else None
    return Blank(tuple(fields), element)


def _all_blank(seen: Seen) -> Blank:
    fields = ((key, _all_blank(field)) for key, field in seen.fields.items() if nameable(key))
    return Blank(tuple(fields), None if seen.element is None else _all_blank(seen.element))
