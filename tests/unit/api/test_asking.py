"""Facets and completion, as callers see them."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from metadata_builders import collection
from platform_stand_ins import Caller, StandInSearcher, grant

from penstock.api.platform import Platform

FLIGHTS = "/api/v1/collections/flights"


@pytest.fixture(autouse=True)
def searcher(here: Platform) -> StandInSearcher:
    here.store.create_collection(collection())
    searcher = here.searcher
    assert isinstance(searcher, StandInSearcher)
    return searcher


@pytest.fixture
def reader(app: FastAPI, here: Platform) -> Caller:
    return Caller(app, grant(here.store, "read"))


def test_facets_are_told_with_the_search_for_each_value(
    reader: Caller, searcher: StandInSearcher
) -> None:
    """A click on a value narrows the search to it."""
    asked = {"query": "x", "fields": ["data.source", "headers.X-Id"], "duplicates": "include"}

    told = reader("POST", f"{FLIGHTS}/facets", asked).json()

    assert told["found"] == 5
    assert told["facets"][0] == {
        "field": "data.source",
        "values": [
            {"value": "UA", "kind": "text", "count": 3, "query": "data.source:UA"},
            {"value": "-5", "kind": "number", "count": 1, "query": 'data.source:"-5"'},
        ],
        "missing": 1,
        "others": 2,
    }
    assert told["facets"][1]["field"] == "headers.x-id"
    assert (searcher.asked[0].query, searcher.asked[0].duplicates) == ("x", "include")


@pytest.mark.parametrize(
    ("fields", "position"), [(["a b"], 1), (["a:b"], 1), (["("], 0), (["ok", "a["], 1)]
)
def test_a_field_that_is_none_is_pointed_at(
    reader: Caller, fields: list[str], position: int
) -> None:
    """As in a search."""
    answer = reader("POST", f"{FLIGHTS}/facets", {"fields": fields})

    assert answer.status_code == 400
    assert (answer.json()["query"], answer.json()["position"]) == (fields[-1], position)


@pytest.mark.parametrize("asked", [{}, {"fields": []}, {"fields": ["a"] * 11}, {"fields": [""]}])
def test_no_fields_and_too_many_are_refused(reader: Caller, asked: dict[str, object]) -> None:
    """Each is a question of its own to the engine."""
    assert reader("POST", f"{FLIGHTS}/facets", asked).status_code == 400


def test_an_unfinished_search_is_completed(reader: Caller) -> None:
    """Somebody is typing."""
    told = reader("POST", f"{FLIGHTS}/complete", {"query": "NOT car", "position": 6}).json()
    values = reader("POST", f"{FLIGHTS}/complete", {"query": "carrier:U"}).json()

    assert told == {
        "start": 4,
        "end": 7,
        "suggestions": [{"text": "carrier:", "kind": "string", "count": None}],
    }
    assert values["suggestions"] == [{"text": "UA", "kind": "text", "count": 3}]
    assert reader("POST", f"{FLIGHTS}/complete", {"position": -1}).status_code == 400


def test_a_rivals_collection_is_not_completed(rival: Caller) -> None:
    """Names of fields tell much of what is in it."""
    assert rival("POST", f"{FLIGHTS}/complete", {}).status_code == 404
    assert rival("POST", f"{FLIGHTS}/facets", {"fields": ["a"]}).status_code == 404
