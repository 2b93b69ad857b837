"""Live tails through a real server: what only shows while a connection stays open."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import FLIGHTS, NOON, event
from lakes import landing, new_lake
from metadata_builders import collection
from platform_stand_ins import grant, platform
from served import served, until

from lakehouse.sql import open_engine
from penstock.api import tail as tails
from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.api.tail import Pace
from penstock.api.turnstile import Seats
from penstock.buffer.memory import MemoryLog
from penstock.metadata.tokens import digest
from penstock.sse import Message, Parser

PATH = "/api/v1/collections/flights/tail"
QUICK = Pace(heartbeat=0.2, access=0.1, leaving=0.05, behind=0.05, stuck=1.0)


class Home:
    """A platform behind a socket, its log and its lake."""

    def __init__(self, folder: Path, url: str, here: Platform) -> None:
        self.url, self.here = url, here
        self.log = here.buffer
        self.token = grant(here.store, "read")

    def send(self, *payloads: bytes | str) -> None:
        events = [event(one, id=f"e-{one[:20]!s}", received_at=NOON) for one in payloads]
        self.log.append(FLIGHTS, events).result()  # type: ignore[attr-defined]

    def land(self) -> None:
        while landing(self.log, self.here.lake).land_once(FLIGHTS):
            pass

    @contextmanager
    def tail(self, token: str | None = None, headers: Any = None, **asked: Any) -> Iterator[Tail]:
        given = {"Authorization": f"Bearer {token or self.token}", **(headers or {})}
        with (
            httpx.Client(base_url=self.url, timeout=20) as client,
            client.stream("GET", PATH, params=asked, headers=given) as response,
        ):
            yield Tail(response)


class Tail:
    """What one client reads."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.messages = self._read()

    def _read(self) -> Iterator[Message]:
        parser = Parser()
        for piece in self.response.iter_raw():
            yield from parser.feed(piece)

    def next(self, name: str) -> tuple[Any, str | None]:
        """Answer data and id of the next message of this name."""
        for message in self.messages:
            if message.event == name:
                return json.loads(message.data), message.id
        pytest.fail(f"it ended without {name}")

    def payloads(self, count: int) -> list[str]:
        return [self.next("event")[0]["payload"] for _ in range(count)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(tails, "Pace", lambda: QUICK)
    engine = open_engine(tmp_path / "sql", memory="500MB", threads=1)
    here = platform(tmp_path, buffer=MemoryLog(), lake=new_lake(tmp_path), engine=engine)
    here.store.create_collection(collection())
    with served(create_app(here)) as url:
        yield Home(tmp_path, url, here)
    here.store.close()
    engine.close()


def test_events_are_told_as_a_search_tells_them(home: Home) -> None:
    with home.tail(query="a:1") as tail:
        assert tail.response.headers["content-type"].startswith("text/event-stream")
        assert tail.response.headers["cache-control"] == "no-cache, no-transform"
        assert tail.response.headers["x-accel-buffering"] == "no"
        assert tail.next("heartbeat")[0] == {"collection": "main.flights", "behind": 0}
        home.send('{"a": 1}', '{"a": 2}', '{"a": 1, "b": "\\n\\u2028"}')
        first, _ = tail.next("event")
        second, _ = tail.next("event")

    assert set(first) == set(second)
    assert (first["payload"], first["log_offset"]) == ('{"a": 1}', 0)
    assert second["payload"] == '{"a": 1, "b": "\\n\\u2028"}'


def test_a_tail_goes_on_where_it_was(home: Home) -> None:
    with home.tail() as tail:
        _, place = tail.next("heartbeat")
        home.send("1")
        _, place = tail.next("event")
    home.send("2")
    home.land()
    home.send("3")

    with home.tail(headers={"Last-Event-ID": place}) as tail:
        assert tail.payloads(2) == ["2", "3"]
    with home.tail(after=place) as tail:
        assert tail.payloads(2) == ["2", "3"]
    with home.tail(since="2025-11-24T16:00:00Z") as tail:
        assert tail.payloads(3) == ["1", "2", "3"]


def test_silence_is_broken_by_heartbeats_that_say_where_it_is(home: Home) -> None:
    """Also where nothing is found: a client must not begin far back after a quiet day."""
    with home.tail(query="no:1") as tail:
        tail.next("heartbeat")
        home.send("{}", "{}")
        until(lambda: tail.next("heartbeat")[1] == f"{home.log.log_id(FLIGHTS)};0=2")


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"query": "(a"}, 400, "at character"),
        ({"after": "x"}, 400, "position cannot be read"),
        ({"after": "x;0=5"}, 400, "another log"),
        ({"since": "yesterday"}, 400, "since"),
        ({"query": "a ${LIMIT 2}"}, 400, "as they come"),
        ({"duplicates": "only"}, 400, "duplicates"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_it_begins(
    home: Home, asked: dict[str, str], status: int, why: str
) -> None:
    with home.tail(**asked) as tail:
        told = json.loads(tail.response.read())

    assert (tail.response.status_code, why in told["detail"]) == (status, True), told
    assert home.here.live.feeds == 0
    assert home.here.seats.held == 0


def test_only_who_may_read_the_collection_follows_it(home: Home) -> None:
    for token, status in [
        ("nonsense", 401),
        (grant(home.here.store, "ingest", collection="flights"), 403),
        (grant(home.here.store, "read", team="rivals"), 404),
    ]:
        with home.tail(token) as tail:
            assert tail.response.status_code == status


def test_a_revoked_token_ends_the_tail(home: Home) -> None:
    with home.tail() as tail:
        tail.next("heartbeat")
        record = home.here.store.token_by_digest(digest(home.token))
        assert record is not None
        home.here.store.revoke_token("main", record.id, NOON)
        told, _ = tail.next("end")

        assert told["status"] == 401
        assert list(tail.messages) == []
    until(lambda: home.here.live.feeds == 0)


def test_a_platform_that_is_closed_says_so(home: Home) -> None:
    """Otherwise it would wait for tails until it is killed."""
    with home.tail() as tail:
        tail.next("heartbeat")
        home.here.leaving.set()
        told, _ = tail.next("end")
        assert told["status"] == 503
        assert list(tail.messages) == []


def test_a_client_that_goes_leaves_nothing_behind(home: Home) -> None:
    with home.tail() as tail:
        tail.next("heartbeat")
        assert (home.here.live.feeds, home.here.seats.held) == (1, 1)
    until(lambda: (home.here.live.feeds, home.here.seats.held) == (0, 0))


def test_a_team_has_so_many_tails_and_no_more(home: Home) -> None:
    object.__setattr__(home.here, "seats", Seats("live tails", each=1))
    with home.tail() as tail:
        tail.next("heartbeat")
        with home.tail() as refused:
            assert refused.response.status_code == 503
            assert refused.response.headers["retry-after"] == "10"
            assert b"has 1 live tails already" in refused.response.read()
        with home.tail(grant(home.here.store, "read", team="rivals")) as other:
            assert other.response.status_code == 404, "another team is not counted"


def test_a_slow_reader_is_told_how_far_it_is_behind_and_costs_a_page(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets everything in the end; nothing is kept for it meanwhile."""
    monkeypatch.setattr(tails, "Pace", lambda: replace(QUICK, stuck=60.0))
    body = json.dumps({"text": "x" * 2_000})
    with home.tail() as tail:
        tail.next("heartbeat")
        for _ in range(4):
            home.send(*[body] * 3_000)
        until(lambda: home.here.live._feeds[FLIGHTS].cut.ends[0] > 5_000)
        behind, count = [], 0
        for message in tail.messages:
            count += message.event == "event"
            if message.event == "behind":
                behind.append(json.loads(message.data)["behind"])
            if count == 12_000 and behind[-1] == 0:
                break

    assert count == 12_000
    assert max(behind) >= 1_000


def test_a_reader_that_takes_nothing_is_let_go(home: Home) -> None:
    with home.tail() as tail:
        tail.next("heartbeat")
        for _ in range(4):
            home.send(*[json.dumps({"text": "x" * 50_000})] * 100)
        until(lambda: home.here.seats.held == 0)


def test_many_tails_wait_beside_each_other(home: Home) -> None:
    """They hold no thread while they wait: other requests are answered."""
    found: list[list[str]] = [[] for _ in range(15)]
    ready = threading.Barrier(16)

    def follow(number: int) -> None:
        with home.tail(query=f"n:{number % 3}") as tail:
            tail.next("heartbeat")
            ready.wait()
            found[number] = tail.payloads(2)

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(15)]
    for thread in threads:
        thread.start()
    ready.wait()
    assert httpx.get(f"{home.url}/metrics").text.count("penstock_platform_tails 15.0") == 1
    home.send(*(f'{{"n": {n}}}' for n in [0, 1, 2, 0, 1, 2]))
    for thread in threads:
        thread.join()

    assert found == [[f'{{"n": {number % 3}}}'] * 2 for number in range(15)]
