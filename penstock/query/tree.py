"""What a search asks for, as a tree: the one form that every compiler reads.

An event is a bag of leaves, ``(path, scalar)``; a condition holds when some leaf fulfils it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from penstock.envelope import Micros

TextColumn = Literal["event_id", "source", "content_type", "key"]
NumberColumn = Literal["log_partition", "log_offset"]
TimeColumn = Literal["received_at", "event_time"]
QuarantineColumn = Literal["stage", "reason"]


@dataclass(frozen=True, slots=True)
class Payload:
    """A path in the payload; without keys it is the document itself."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """A header by its name in lower case; None means any."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Metadata:
    """A broker coordinate or property; None means any."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the envelope that holds one text or number."""

    name: TextColumn | NumberColumn


@dataclass(frozen=True, slots=True)
class Time:
    """A column of the envelope that holds a time."""

    name: TimeColumn


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A column that events in quarantine have, and no others."""

    name: QuarantineColumn


Field = Payload | Header | Metadata | Column | Time | Quarantine


class Wild(Enum):
    """The wildcards of a pattern."""

    ONE = "?"
    ANY = "*"


@dataclass(frozen=True, slots=True)
class Bound:
    """An end of a range of numbers."""

    value: float
    inclusive: bool


@dataclass(frozen=True, slots=True)
class TextBound:
    """An end of a range of ISO 8601 texts.

    A leaf is compared by its leading part, as long as `text`. It has to be ISO 8601 at least as
    fine as that, and to end with `zone` if there is one.
    """

    text: str
    zone: str
    inclusive: bool


@dataclass(frozen=True, slots=True)
class Everything:
    """Every event."""


@dataclass(frozen=True, slots=True)
class And:
    """All of these, two or more."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of these, two or more."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The plain complement: an event without the field matches, too."""

    part: Node


@dataclass(frozen=True, slots=True)
class Words:
    """Some string leaf contains the words in a row, or some number leaf equals `number`.

    Without a field, any leaf of the payload will do.
    """

    field: Field | None
    words: tuple[str, ...]
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Equals:
    """A string leaf equals `text`, case ignored, or a number or bool leaf what it stands for."""

    field: Field
    text: str
    number: float | None
    flag: bool | None


@dataclass(frozen=True, slots=True)
class Like:
    """A whole string leaf fits the pattern, case ignored."""

    field: Field
    pattern: tuple[str | Wild, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a leaf at or below the field."""

    field: Field


@dataclass(frozen=True, slots=True)
class IsNull:
    """The payload has an explicit null at the path."""

    field: Payload


@dataclass(frozen=True, slots=True)
class NumberRange:
    """A number leaf lies between the bounds, of which at least one is given."""

    field: Field
    low: Bound | None
    high: Bound | None


@dataclass(frozen=True, slots=True)
class TextRange:
    """A string leaf in ISO 8601 lies between the bounds, of which at least one is given."""

    field: Payload
    low: TextBound | None
    high: TextBound | None


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The time is at `start` or later, and before `end`; at least one is given."""

    field: Time
    start: Micros | None
    end: Micros | None


@dataclass(frozen=True, slots=True)
class Length:
    """A list at the path has a number of elements between the bounds; at least one is given."""

    field: Payload
    low: Bound | None
    high: Bound | None


Condition = Words | Equals | Like | Exists | IsNull | NumberRange | TextRange | TimeRange | Length
Node = Everything | And | Or | Not | Condition


class Fact(Enum):
    """What only the payload tells: a relation that is searched for it needs a column for it."""

    NULLS = "nulls"
    """list<string>: the paths of explicit nulls."""
    LENGTHS = "lengths"
    """list<struct<path: string, length: long>>: how many elements the lists have."""


@dataclass(frozen=True, slots=True)
class Query:
    """A search: which events, and Batch's modifiers, which say what to show of them."""

    text: str
    where: Node
    order_by: Field | None = None
    descending: bool = True
    limit: int | None = None
    unique: Field | None = None

    @property
    def facts(self) -> frozenset[Fact]:
        """What has to be read from each payload to answer this; slow if there is any."""
        kinds = {IsNull: Fact.NULLS, Length: Fact.LENGTHS}
        return frozenset(kinds[type(c)] for c in conditions(self.where) if type(c) in kinds)

    @property
    def reads_payload(self) -> bool:
        """Whether leaves of the payload decide, or what is shown of the events found."""
        fields = [self.order_by, self.unique, *(_field(c) for c in conditions(self.where))]
        return any(isinstance(field, Payload) for field in fields)


def conditions(node: Node) -> Iterator[Everything | Condition]:
    """Answer the leaves of the tree, from left to right."""
    match node:
        case And(parts) | Or(parts):
            for part in parts:
                yield from conditions(part)
        case Not(part):
            yield from conditions(part)
        case _:
            yield node


def _field(condition: Everything | Condition) -> Field | None:
    match condition:
        case Everything():
            return None
        case Words(None):
            return Payload(())
        case _:
            return condition.field
