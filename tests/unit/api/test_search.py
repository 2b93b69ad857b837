from __future__ import annotations

from datetime import UTC, datetime

import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from metadata_builders import collection
from platform_stand_ins import Caller, InProcess, StandInSearcher, found, grant

from penstock.api.platform import Platform
from penstock.client import Client
from penstock.errors import BadQuery, NotFound
from penstock.search import Page, SearchRequest

NOON_TEXT = "2025-11-24T16:00:00.000000Z"
SEARCH = "/api/v1/collections/flights/search"


@pytest.fixture
def searcher(here: Platform) -> StandInSearcher:
    here.store.create_collection(collection())
    searcher = here.searcher
    assert isinstance(searcher, StandInSearcher)
    return searcher


@pytest.fixture
def reader(app: FastAPI, here: Platform) -> Caller:
    return Caller(app, grant(here.store, "read"))


@pytest.fixture
def client(app: FastAPI, here: Platform) -> Client:
    return Client("http://penstock", grant(here.store, "read"), InProcess(app))


def test_an_event_is_told_as_it_was_received(reader: Caller, searcher: StandInSearcher) -> None:
    searcher.events = [
        found(
            b'{"caf\xc3\xa9": 1}',
            key=b"k\xff",
            headers=(("x-a", b"1"), ("x-a", b"\xff")),
            metadata={"topic": "t"},
            event_time=NOON + 1,
            misfits=(("a", "1"),),
        )
    ]

    [told] = reader("POST", SEARCH, {}).json()["events"]

    assert told == {
        "event_id": "e1",
        "received_at": NOON_TEXT,
        "event_time": "2025-11-24T16:00:00.000001Z",
        "source": "http",
        "content_type": "application/json",
        "key": None,
        "key_base64": "a/8=",
        "headers": [["x-a", "1"], ["x-a", {"base64": "/w=="}]],
        "metadata": {"topic": "t"},
        "payload": '{"café": 1}',
        "payload_base64": None,
        "log_partition": 0,
        "log_offset": 7,
        "duplicate_of": None,
        "misfits": [{"path": "a", "value": "1"}],
        "stage": None,
        "reason": None,
        "detail": None,
        "attempts": None,
    }


@pytest.mark.parametrize(
    "payload", [b"", b"text", b"\xff\x00", "é\u0000\n".encode(), b"\xef\xbb\xbf{}"]
)
def test_every_payload_comes_back_byte_for_byte(
    client: Client, searcher: StandInSearcher, payload: bytes
) -> None:
    searcher.events = [found(payload)]

    [event] = client.search("flights").events

    assert event.payload_bytes() == payload


def test_the_whole_request_reaches_the_searcher(client: Client, searcher: StandInSearcher) -> None:
    since, until = (datetime(2025, 11, day, tzinfo=UTC) for day in (23, 24))
    client.search(
        "flights",
        "carrier:UA",
        since=since,
        until=until,
        limit=5,
        cursor="c",
        order="oldest",
        view="quarantine",
    )
    client.count("flights", "carrier:UA", since=since, view="quarantine", closed=True)

    day = 86_400_000_000
    assert searcher.asked == [
        SearchRequest(
            collection=FLIGHTS,
            query="carrier:UA",
            since=1_763_856_000_000_000,
            until=1_763_856_000_000_000 + day,
            view="quarantine",
            newest_first=False,
            limit=5,
            cursor="c",
        ),
        SearchRequest(
            collection=FLIGHTS,
            query="carrier:UA",
            since=1_763_856_000_000_000,
            view="quarantine",
            closed=True,
        ),
    ]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"order": "random"}, "order"),
        ({"view": "all"}, "view"),
        ({"since": "2025-11-24"}, "zone"),
        ({"querry": "x"}, "querry: there is no such field"),
        ({"query": "x" * 10_001}, "query"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    reader: Caller, searcher: StandInSearcher, body: dict[str, object], why: str
) -> None:
    refused = reader("POST", SEARCH, body)

    assert refused.status_code == 400
    assert why in refused.json()["detail"]
    assert searcher.asked == []


def test_pages_follow_each_other_to_the_end(client: Client, searcher: StandInSearcher) -> None:
    searcher.events = [found(), found(event_id="e2")]
    searcher.cursor = "next"

    events = [event.event_id for event in client.search_all("flights", page=2)]

    assert events == ["e1", "e2", "e1", "e2"]
    assert [asked.cursor for asked in searcher.asked] == [None, "next"]


def test_an_answer_says_what_it_does_not_cover(client: Client, searcher: StandInSearcher) -> None:
    """Whoever is told nothing believes that everything was looked at."""
    assert client.search("flights").unsearched == 0
    searcher.unsearched = 12_000_000

    assert client.search("flights").unsearched == 12_000_000


def test_counts_over_time(client: Client, searcher: StandInSearcher) -> None:
    searcher.number = 41
    counted = client.count("flights")
    bars = client.histogram("flights", bars=7)

    assert counted.count == 41
    assert [bar.count for bar in bars.bars] == [3, 7]
    assert bars.step_seconds == 1.5
    assert bars.bars[0].start == datetime(2025, 11, 24, 16, tzinfo=UTC)


@pytest.mark.parametrize("event_id", ["e1", "a/b", "sp ace?x=1#y", "é", "..", "%2F"])
def test_an_event_is_found_whatever_its_sender_called_it(
    client: Client, searcher: StandInSearcher, event_id: str
) -> None:
    searcher.events = [found(event_id=event_id)]

    assert client.event("flights", event_id).event_id == event_id
    with pytest.raises(NotFound):
        client.event("flights", event_id + "x")


def test_an_unreadable_query_points_at_the_character(
    client: Client, searcher: StandInSearcher, here: Platform
) -> None:
    class Strict(StandInSearcher):
        def search(self, asked: SearchRequest) -> Page:
            raise BadQuery("carrier:>", 9, "expected a number")

    searcher.__class__ = Strict
    with pytest.raises(BadQuery) as raised:
        client.search("flights", "carrier:>")

    assert raised.value.pointer() == "carrier:>\n         ^"
