"""The values of fields and how many events have each: told by a statement, by an index, by both.

An index counts the events that have a value if it is told which: by itself it knows values in lower
case, and digests of long ones. So what the data files of a table hold is remembered, where that is
little; files never change.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, TypedDict

from lakehouse.listing import Listed
from penstock.query.text import lower
from penstock.query.tree import Field
from penstock.query.writing import number_text
from penstock.search import Facet, FacetValue

MOST_KNOWN = 200
"""Values of a field that an index is asked for: each is a query, and costs it about as much."""

_LONGEST = 1_000
_MOST_FIELDS = 256

Value = float | str
"""A number, or a text as events spell it."""


class ToldValue(TypedDict):
    """A row of `penstock.query.facets.facet_statement`."""

    events: int
    missing: int
    distinct_values: int
    number: float | None
    text: str | None
    varies: bool | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many events have each value of a field, and how many have none."""

    events: int = 0
    missing: int = 0
    values: Mapping[Value, int] = field(default_factory=dict)
    others: int = 0
    """Values there are besides."""
    varies: bool = False
    """Whether a text is spelt in several ways."""


def tally_of(rows: Sequence[ToldValue]) -> Tally:
    """Answer what a statement tells of one field."""
    if not rows:
        return Tally()
    values: dict[Value, int] = {}
    for row in rows:
        if row["n"] is not None:
            values[row["text"] or "" if row["number"] is None else row["number"]] = row["n"]
    told = rows[0]
    return Tally(
        told["events"],
        told["missing"],
        values,
        told["distinct_values"] - len(values),
        any(row["varies"] for row in rows),
    )


def together(one: Tally, other: Tally) -> Tally | None:
    """Answer what two tell of different events; None if one of them does not tell all values."""
    if one.others or other.others:
        return None
    counts: dict[Value, int] = {}
    spelt: dict[Value, Value] = {}
    for value, count in chain(one.values.items(), other.values.items()):
        same = _folded(value)
        counts[same] = counts.get(same, 0) + count
        before = spelt.get(same)
        spelt[same] = min(value, before) if isinstance(before, str) else value
    return Tally(
        one.events + other.events,
        one.missing + other.missing,
        {spelt[same]: count for same, count in counts.items()},
    )


def facet_of(told: Tally, most: int) -> Facet:
    """Answer the `most` frequent values."""
    ordered = sorted(told.values.items(), key=_from_the_most_frequent_on)
    values = tuple(
        FacetValue(value, False, count)
        if isinstance(value, str)
        else FacetValue(number_text(value), True, count)
        for value, count in ordered[:most]
    )
    others = told.others + len(ordered) - len(values)
    return Facet(values, found=told.events, missing=told.missing, others=others)


def _from_the_most_frequent_on(counted: tuple[Value, int]) -> tuple[int, bool, float, str]:
    value, count = counted
    return (-count, True, 0, value) if isinstance(value, str) else (-count, False, value, "")


def _folded(value: Value) -> Value:
    return lower(value) if isinstance(value, str) else value


class _Known(NamedTuple):
    """The values of a field in these files; None where they are many, or of several spellings."""

    paths: frozenset[str] = frozenset()
    values: tuple[Value, ...] | None = ()


class KnownValues:
    """Which values fields have in the files of tables, as far as was asked. Threads may share it.

    Values that are gone with their files may still be among them.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: OrderedDict[tuple[str, Field], _Known] = OrderedDict()

    def of(
        self,
        table: str,
        fields: Sequence[Field],
        files: Iterable[Listed],
        look: Callable[[Sequence[Listed]], Sequence[Tally]],
    ) -> list[tuple[Value, ...]] | None:
        """Answer all values of each field in the files; None where those of one are not known.

        What is in files that are new since is asked of `look`, for all of the fields.
        """
        listed = {one.path: one for one in files}
        paths = frozenset(listed)
        before = [self._before(table, one, paths) for one in fields]
        if any(one.values is None for one in before):
            return None
        unknown = paths.difference(frozenset.intersection(paths, *(one.paths for one in before)))
        told = (
            look([listed[path] for path in sorted(unknown)]) if unknown else [Tally()] * len(fields)
        )
        found = []
        for name, known, tally in zip(fields, before, told, strict=True):
            values = _with(known.values or (), tally)
            self._keep((table, name), _Known(paths, values))
            found.append(values)
        return None if None in found else [values or () for values in found]

    def _before(self, table: str, name: Field, paths: frozenset[str]) -> _Known:
        with self._guard:
            known = self._known.get((table, name), _Known())
        return _Known() if known.paths.isdisjoint(paths) else known

    def _keep(self, key: tuple[str, Field], known: _Known) -> None:
        with self._guard:
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > _MOST_FIELDS:
                self._known.popitem(last=False)


def _with(values: Sequence[Value], told: Tally) -> tuple[Value, ...] | None:
    """Answer these values and those that are told; None if an index is not asked for so many."""
    if told.varies or told.others:
        return None
    spelt = {_folded(value): value for value in values}
    for value in told.values:
        if isinstance(value, str) and len(value) > _LONGEST:
            return None
        if spelt.setdefault(_folded(value), value) != value:
            return None
    return tuple(spelt.values()) if len(spelt) <= MOST_KNOWN else None
