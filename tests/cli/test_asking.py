"""Facets and saved searches on the command line, and a query that points at its mistake."""

from __future__ import annotations

import pytest
from builders import NOON
from cli_home import Installation, Penstock

from penstock.errors import BadQuery
from penstock.search import SearchRequest


def test_facets_are_tables_with_what_they_leave_out(here: Installation, penstock: Penstock) -> None:
    """A table alone would look as if it were all there is."""
    said = penstock(
        "search", "flights", "x", "--facet", "carrier", "--facet", "headers.x-id", home=here.home
    )

    lines = [line.split() for line in said.out.splitlines()]
    assert ["carrier", "events"] in lines
    assert ["headers.x-id", "events"] in lines
    assert ["UA", "3"] in lines
    assert "1 of 5 events have none; there are 2 other values" in said.err
    told = penstock("search", "flights", "--facet", "carrier", "--json", home=here.home).json()
    assert [value["count"] for value in told["facets"][0]["values"]] == [3, 1]


def test_a_search_is_saved_and_made_again(here: Installation, penstock: Penstock) -> None:
    """Relative times are kept as they are: tomorrow they mean tomorrow."""
    first = penstock(
        *("search", "flights", "dep_delay:>120", "origin:JFK", "--since", "2h", "--oldest"),
        *("--duplicates", "--save", "late"),
        home=here.home,
    )
    again = penstock("search", "--saved", "late", home=here.home)
    counted = penstock("search", "--saved", "late", "--count", "--since", "1h", home=here.home)

    assert "search --saved late" in first.err
    assert first.out == again.out
    assert counted.out == "3\n"
    asked = here.searcher.asked[1]
    assert asked == SearchRequest(
        collection=asked.collection,
        query="dep_delay:>120 origin:JFK",
        since=NOON - 7_200_000_000,
        duplicates="include",
        newest_first=False,
        limit=20,
    )
    kept = penstock("searches", "show", "late", "--json", home=here.home).json()
    assert (kept["since"], kept["until"], kept["order"]) == ("now-2h", None, "oldest")


def test_fixed_times_stay_fixed(here: Installation, penstock: Penstock) -> None:
    """Also those with another zone."""
    penstock(
        *("search", "flights", "--since", "2025-11-22T10:00:00+02:00", "--until", "2025-11-23"),
        *("--save", "then"),
        home=here.home,
    )

    kept = penstock("searches", "show", "then", "--json", home=here.home).json()
    assert kept["since"] == "2025-11-22T08:00:00.000000Z"
    assert kept["since_at"] == "2025-11-22T08:00:00Z"
    assert kept["until"] == "2025-11-23T00:00:00.000000Z"


def test_saved_searches_are_listed_shown_and_forgotten(
    here: Installation, penstock: Penstock
) -> None:
    """An empty list says how to fill it."""
    assert "--save NAME" in penstock("searches", "list", home=here.home).out

    penstock("search", "flights", "a:1", "--since", "1d", "--save", "one", home=here.home)
    listed = penstock("searches", "list", home=here.home).out
    shown = penstock("searches", "show", "one", home=here.home).out

    assert [line.split() for line in listed.splitlines()][-1] == [
        *("one", "flights", "a:1", "from", "now-1d")
    ]
    assert "search --saved one" in shown
    assert penstock("searches", "list", "orders", "--json", home=here.home).json() == []
    assert penstock("searches", "delete", "one", home=here.home).out == "deleted one\n"
    assert penstock("search", "--saved", "one", home=here.home).code == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--count",),
        ("flights", "--saved", "one"),
        ("--saved", "one", "--save", "two"),
        ("--saved", "one", "--oldest"),
        ("--saved", "one", "--quarantine"),
    ],
)
def test_what_does_not_go_together_is_wrong_use(
    here: Installation, penstock: Penstock, words: tuple[str, ...]
) -> None:
    """Better than leaving a word out of account."""
    assert penstock("search", *words, home=here.home).code == 2


def test_a_caret_points_at_what_cannot_be_read(here: Installation, penstock: Penstock) -> None:
    """The same for a field of a facet, and for a search that is only saved."""
    said = penstock("search", "flights", "--facet", "a b", home=here.home)
    kept = penstock("search", "flights", "a OR (b", "--save", "x", home=here.home)

    assert said.code == kept.code == 2
    assert said.err.splitlines()[1:3] == ["a b", " ^"]
    assert kept.err.splitlines()[1:3] == ["a OR (b", "       ^"]
    assert BadQuery("a b", 1, "").pointer() == "a b\n ^"
    assert penstock("searches", "list", "--json", home=here.home).json() == []
