"""What stands about an event, and who received it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import ugly
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from metadata_builders import collection
from platform_stand_ins import Caller, InProcess, StandInSearcher, found, grant

from penstock.api.events import about, deliveries
from penstock.api.platform import Platform
from penstock.client import Client
from penstock.errors import NotFound
from penstock.query import parse
from penstock.search import SearchRequest
from replay.ledger import ATTEMPTS
from replay.progress import Attempt

NOON_TEXT = "2025-11-24T16:00:00.000000Z"


def row(offset: int = 7, *, last: int | None = None, **given: Any) -> Attempt:
    values: dict[str, Any] = {
        "replay": "r1",
        "epoch": 1,
        "event_id": f"e{offset}",
        "team": "main",
        "collection": "flights",
        "partition": 0,
        "attempt": 1,
        "kind": "outcome",
        "outcome": "delivered",
        "at": NOON_TEXT,
        "destination": "billing",
        "who": "anna",
    }
    last = offset if last is None else last
    return Attempt(**{**values, "offset": offset, "last": last, **given})


def told(*rows: Attempt) -> list[tuple[int, str]]:
    event = found(event_id="e7")
    return [(one.attempt, one.outcome) for one in deliveries(FLIGHTS, event, rows)]


def test_an_attempt_is_told_by_its_outcome() -> None:
    first, second = {"kind": "intent", "outcome": None}, {"attempt": 2}

    assert told(row(**first), row(outcome="retry"), row(**second, **first), row(**second)) == [
        (1, "retry"),
        (2, "delivered"),
    ]
    assert told(row(**first)) == [(1, "open")]


def test_a_row_for_many_events_speaks_of_those_that_it_covers() -> None:
    assert told(row(5, last=9, events=5)) == [(1, "delivered")]
    assert told(row(8, last=9, events=2)) == []


def test_an_intent_with_gaps_says_nothing_of_events_that_may_lie_in_them() -> None:
    """Else a page tells of a delivery of an event that no replay ever looked at."""
    assert told(row(5, last=9, events=3, kind="intent", outcome=None)) == []


@pytest.mark.parametrize(
    "other", [{"team": "b"}, {"collection": "orders"}, {"partition": 1}, {"event_id": "of-old"}]
)
def test_rows_about_other_events_are_passed_over(other: dict[str, Any]) -> None:
    """The search for them ignores case, and a replaced log gives offsets out again."""
    assert told(row(**other)) == []


def test_the_ledger_is_asked_for_rows_that_cover_the_event() -> None:
    query = about(FLIGHTS, found(log_offset=7, log_partition=3))

    assert query == "team:main collection:flights data.partition:3 data.offset:<=7 data.last:>=7"
    parse(query, now=NOON)


@pytest.fixture
def searcher(here: Platform) -> StandInSearcher:
    here.store.create_collection(collection())
    searcher = here.searcher
    assert isinstance(searcher, StandInSearcher)
    return searcher


@pytest.fixture
def client(app: FastAPI, here: Platform) -> Client:
    return Client("http://penstock", grant(here.store, "read"), InProcess(app))


def test_deliveries_are_asked_of_the_ledger_and_told(
    client: Client, searcher: StandInSearcher
) -> None:
    attempt = {"event_id": "a/deliveries", "status": 200, "latency_ms": 12.5}
    rows = [json.dumps({**_fields(row()), **attempt}).encode(), b"no row of the ledger"]
    searcher.events = [found(event_id="a/deliveries"), *(found(one) for one in rows)]

    told = client.deliveries("flights", "a/deliveries")

    [one] = told.deliveries
    assert (one.replay, one.outcome, one.status, one.latency_ms) == ("r1", "delivered", 200, 12.5)
    assert searcher.asked[-1] == SearchRequest(
        collection=ATTEMPTS,
        query=about(FLIGHTS, found(log_offset=7)),
        since=NOON,
        newest_first=False,
        limit=1_000,
    )


def _fields(row: Attempt) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def test_what_stands_about_an_event_is_told(client: Client, searcher: StandInSearcher) -> None:
    searcher.events = [found(misfits=(("a", '"x"'),))]

    told = client.around("flights", "e1", most=1)

    assert [(cell.path, cell.type, cell.value) for cell in told.columns or ()] == [
        ("carrier", "string", "UA")
    ]
    assert [one.event_id for one in told.before] == ["e0"]
    assert [(one.path, one.why) for one in told.misfits] == [
        ("a", "there was no room for a column when it landed")
    ]
    with pytest.raises(NotFound):
        client.around("flights", "nope")


def test_an_event_is_told_whatever_its_id_is(client: Client, searcher: StandInSearcher) -> None:
    """Senders choose ids: one may have a newline, or read as the folder above."""
    searcher.events = [found(event_id=one) for one in ugly.IDS]

    for one in ugly.IDS:
        assert client.event("flights", one).event_id == one
        assert client.around("flights", one).log_offset == 7, one
        assert client.deliveries("flights", one).deliveries == [], one


def test_events_of_another_team_are_not_there(app: FastAPI, here: Platform) -> None:
    here.store.create_collection(collection())
    other = Caller(app, grant(here.store, "read", team="other"))

    for what in ("around", "deliveries"):
        assert other("GET", f"/api/v1/collections/flights/{what}/e1").status_code == 404
