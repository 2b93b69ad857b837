"""Saved searches, as callers see them."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from metadata_builders import collection
from platform_stand_ins import Caller, grant

from penstock.api.platform import Platform

SEARCHES = "/api/v1/searches"


@pytest.fixture(autouse=True)
def flights(here: Platform) -> None:
    here.store.create_collection(collection())


@pytest.fixture
def reader(app: FastAPI, here: Platform) -> Caller:
    return Caller(app, grant(here.store, "read"))


LATE = {
    "name": "late",
    "collection": "flights",
    "query": "dep_delay:>120",
    "since": "now-24h",
    "order": "oldest",
}


def test_a_search_is_kept_shown_changed_and_forgotten(
    admin: Caller, reader: Caller, rival: Caller
) -> None:
    """All who read see it, those who run the place change it, and others never hear of it."""
    made = admin("POST", SEARCHES, LATE)
    assert made.status_code == 201
    told = made.json()
    assert {**told, **LATE} == told
    assert told["since_at"] == "2025-11-23T16:00:00.000000Z"
    assert told["until_at"] is None
    assert told["created_at"] == told["changed_at"] == "2025-11-24T16:00:00.000000Z"

    assert reader("GET", SEARCHES).json() == [told]
    assert reader("GET", f"{SEARCHES}?collection=orders").json() == []
    assert reader("GET", f"{SEARCHES}/late").json() == told
    assert rival("GET", SEARCHES).json() == []
    assert rival("GET", f"{SEARCHES}/late").status_code == 404
    assert admin("POST", SEARCHES, LATE).status_code == 409

    changed = admin("PUT", f"{SEARCHES}/late", {"collection": "flights", "view": "quarantine"})
    assert changed.json()["view"] == "quarantine"
    assert changed.json()["query"] == ""
    assert admin("PUT", f"{SEARCHES}/none", {"collection": "flights"}).status_code == 404

    assert admin("DELETE", f"{SEARCHES}/late").status_code == 204
    assert admin("DELETE", f"{SEARCHES}/late").status_code == 404


def test_a_token_that_reads_changes_nothing(reader: Caller, admin: Caller) -> None:
    """It may be in many hands."""
    admin("POST", SEARCHES, LATE)

    assert reader("POST", SEARCHES, {**LATE, "name": "other"}).status_code == 403
    assert reader("PUT", f"{SEARCHES}/late", {"collection": "flights"}).status_code == 403
    assert reader("DELETE", f"{SEARCHES}/late").status_code == 403


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"query": "a ("}, 400),
        ({"since": "yesterday"}, 400),
        ({"since": "2026-13-01"}, 400),
        ({"since": "now", "until": "now-1h"}, 400),
        ({"name": "Late Ones"}, 400),
        ({"collection": "nowhere"}, 404),
        ({"limit": 5}, 400),
    ],
)
def test_a_search_that_could_not_be_made_is_not_kept(
    admin: Caller, given: dict[str, object], status: int
) -> None:
    """It would fail for whoever opens the link."""
    answer = admin("POST", SEARCHES, {**LATE, **given})

    assert answer.status_code == status
    assert admin("GET", SEARCHES).json() == []
