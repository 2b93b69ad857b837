"""How many events have a value: put together from what a statement and an index tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lakehouse.listing import Listed
from penstock.query.parse import field_of
from penstock.schema.shape import EMPTY
from penstock.search import Facet, FacetValue
from penstock.search.values import (
    MOST_KNOWN,
    KnownValues,
    Tally,
    facet_of,
    tally_of,
    together,
)

STATE = field_of("data.state")


def test_numbers_come_before_texts_that_are_as_frequent() -> None:
    told = Tally(events=9, missing=1, values={"b": 2, 3.0: 2, -1.0: 2, "a": 2, "z": 5}, others=4)

    assert facet_of(told, 4) == Facet(
        (
            FacetValue("z", False, 5),
            FacetValue("-1", True, 2),
            FacetValue("3", True, 2),
            FacetValue("a", False, 2),
        ),
        found=9,
        missing=1,
        others=5,
    )


def test_texts_that_differ_in_case_are_put_together() -> None:
    """A number and a text that looks like it are not."""
    one = Tally(events=7, missing=2, values={"paid": 3, 40.0: 2})
    other = Tally(events=5, missing=1, values={"PAID": 1, "40": 2, "Łódź": 1})

    both = Tally(events=12, missing=3, values={"PAID": 4, 40.0: 2, "40": 2, "Łódź": 1})
    assert together(one, other) == both
    assert together(other, one) == both


@pytest.mark.parametrize("other", [Tally(others=1), Tally(values={"a": 1}, others=3)])
def test_what_is_not_told_whole_is_not_put_together(other: Tally) -> None:
    """A value that is left out there may be frequent in both."""
    assert together(Tally(values={"a": 1}), other) is None
    assert together(other, Tally(values={"a": 1})) is None


def test_a_statement_tells_of_no_event_at_all() -> None:
    assert tally_of([]) == Tally()


class Files:
    """Files of a table with values, of which it is known how often somebody looked."""

    def __init__(self, **values: Sequence[str | float]) -> None:
        self.values = values
        self.looked: list[str] = []
        self.known = KnownValues()

    def told(self, *names: str) -> list[tuple[str | float, ...]] | None:
        files = [Listed(f"{name}.parquet", 1, 1, 0, 0, EMPTY, ()) for name in names]
        return self.known.of("table", [STATE], files, self._look)

    def _look(self, files: Sequence[Listed]) -> list[Tally]:
        names = [Path(one.path).stem for one in files]
        self.looked += names
        values = [value for name in names for value in self.values[name]]
        varies = len({str(v).lower() for v in values}) < len({*values})
        return [Tally(len(values), 0, dict.fromkeys(values, 1), 0, varies)]


def test_each_file_is_looked_into_once() -> None:
    files = Files(a=["paid", 7.0], b=["sent"], c=["paid", "new"])

    assert files.told("a", "b") == [("paid", 7.0, "sent")]
    assert files.told("b", "a") == [("paid", 7.0, "sent")]
    assert files.told("a", "b", "c") == [("paid", 7.0, "sent", "new")]
    assert files.told("c") == [("paid", 7.0, "sent", "new")]
    assert files.looked == ["a", "b", "c"]


@pytest.mark.parametrize(
    "values",
    [["Paid"], ["x" * 2_000], [f"order {n}" for n in range(MOST_KNOWN)]],
    ids=["of two spellings", "long", "many"],
)
def test_of_some_values_an_index_cannot_be_asked(values: Sequence[str]) -> None:
    """Until files are others; looking again and again would cost what it is to save."""
    files = Files(a=["paid"], b=values, c=["paid", "sent"])

    assert files.told("a") == [("paid",)]
    assert files.told("a", "b") is None
    assert files.told("a", "b", "c") is None
    assert files.looked == ["a", "b"]
    assert files.told("c") == [("paid", "sent")]


def test_a_file_of_two_spellings_is_known_by_itself() -> None:
    assert Files(a=["paid", "Paid"]).told("a") is None
