"""Names, and the text of what is on the log."""

from __future__ import annotations

import pytest
from builders import FLIGHTS
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.envelope import CollectionId, Mark, Span, check_name, parse_collection
from penstock.errors import BadName


@pytest.mark.parametrize("name", ["a", "flights", "a1", "a_1", "a_", "x" * 63, "pen_stock"])
def test_a_good_name_is_kept(name: str) -> None:
    """These can be a Kafka topic, a table and a part of a URL."""
    assert check_name(name, what="collection") == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "1a", "_a", "A", "a-b", "a.b", "a/b", "..", "a b", "ä", "a\n", "x" * 64),
        *("a__b", "flights__quarantine", "flights__distinct", "penstock", "penstock_system"),
    ],
)
def test_a_bad_name_is_refused(name: str) -> None:
    """It would be a path, a reserved table, or differ between two stores."""
    with pytest.raises(BadName):
        check_name(name, what="collection")


@settings(deadline=None)
@given(st.text(max_size=70))
def test_a_name_is_safe_as_a_file(text: str) -> None:
    """Names become paths: none may leave its folder."""
    try:
        check_name(text, what="team")
    except BadName:
        return
    assert text.isascii()
    assert not set(text) & set("/\\.\0 ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flights", CollectionId("main", "flights")),
        ("shop.orders", CollectionId("shop", "orders")),
        ("penstock_system.changes", CollectionId("penstock_system", "changes")),
    ],
)
def test_a_collection_is_read_from_its_text(text: str, expected: CollectionId) -> None:
    """The text of a collection is how people and files name it."""
    assert parse_collection(text) == expected
    assert parse_collection(str(expected)) == expected


def test_a_collection_without_a_team_is_in_the_callers() -> None:
    """A token's team decides, not the default."""
    assert parse_collection("orders", team="shop") == CollectionId("shop", "orders")


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a.b.c", "penstock.a", "penstock_x.a"])
def test_what_names_no_collection_is_refused(text: str) -> None:
    """A dot too many would make two collections share a file."""
    with pytest.raises(BadName):
        parse_collection(text)


def test_the_text_of_spans_and_marks() -> None:
    """They stand in log lines and table properties."""
    assert str(Span(FLIGHTS, 0, 5, 9)) == "main.flights[0]:5-9"
    assert len(Span(FLIGHTS, 0, 5, 9)) == 4
    assert str(Mark("log", 0, 9, "1-00ff")) == "9:1-00ff"
