"""Events in another order than that of their places: what they are put in order by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from penstock.query.order import SortValue
from penstock.query.pieces import Sql, sql
from penstock.search import (
    Place,
)
from penstock.search.places import places_of


class Ordered(NamedTuple):
    """An event with what it is ordered by, and what it is told apart by."""

    place: Place
    value: Value
    same: Value | None


class Value(NamedTuple):
    """What `penstock.query.order.SortValue` came to."""

    rank: int
    number: float | None
    text: str | None


def first_of(rows: Sequence[Ordered], *, descending: bool) -> list[Place]:
    """Answer the places of the rows of all sources in order; of equal ones only the first."""
    # Sorts keep the order of equals, so the least important comes first.
    found = sorted(rows, key=lambda row: row.place, reverse=True)
    found.sort(key=lambda row: row.value.text or "", reverse=descending)
    found.sort(key=lambda row: row.value.number or 0.0, reverse=descending)
    found.sort(key=lambda row: row.value.rank)
    seen: set[Value] = set()
    places = []
    for row in found:
        if row.same is not None and row.same in seen:
            continue
        if row.same is not None:
            seen.add(row.same)
        places.append(row.place)
    return places


def ordered_rows(table: pa.Table) -> Iterator[Ordered]:
    """Read the rows of a statement that selects `sorting_columns`."""
    unique = "unique_rank" in table.column_names
    for place, row in zip(places_of(table), table.to_pylist(), strict=True):
        same = None
        if unique:
            same = Value(row["unique_rank"], row["unique_number"], row["unique_text"])
        yield Ordered(place, Value(row["rank"], row["number"], row["text"]), same)


def sorting_columns(by: SortValue, prefix: str) -> list[Sql]:
    """Answer what to select of a value, under names that begin with the prefix."""
    return [
        sql(f"{{0}} AS {prefix}rank", by.rank),
        sql(f"{{0}} AS {prefix}number", by.number),
        sql(f"{{0}} AS {prefix}text", by.text),
    ]
