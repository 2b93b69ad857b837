"""Trying a destination reaches a real listener, and only one that replays may reach."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path

import pytest
from far_sides import far_side
from metadata_builders import destination
from platform_stand_ins import Caller, grant, platform
from tunnelling import plumber, tunnel_door

from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.guard import Guard
from penstock.metadata.records import Destination


class Listener(ThreadingHTTPServer):
    """Answers every POST with `status` and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 204
        self.got: list[tuple[str | None, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/events"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        listener = self.server
        assert isinstance(listener, Listener)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        listener.got.append((self.headers["Authorization"], body))
        self.send_response(listener.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def here(tmp_path: Path, listener: Listener) -> Iterator[Platform]:
    guard = Guard((ip_network("127.0.0.0/8"),), (listener.server_port,))
    made = platform(tmp_path, guard=guard)
    yield made
    made.store.close()


def add(here: Platform, url: str) -> None:
    here.store.add_destination(
        Destination(
            team="main",
            name="billing",
            url=url,
            headers=destination().headers,
            created_at=0,
        )
    )


def test_a_destination_gets_one_small_event_with_its_credentials(
    here: Platform, listener: Listener
) -> None:
    add(here, listener.url)
    answer = Caller(create_app(here), grant(here.store, "replay"))(
        "POST", "/api/v1/destinations/billing/test"
    )

    told = answer.json()
    assert (told["delivered"], told["status"], told["reason"]) == (True, 204, None)
    assert listener.got == [("Bearer hidden", b'{"penstock": "test"}')]


def test_a_refusal_is_told_with_its_status(here: Platform, listener: Listener) -> None:
    add(here, listener.url)
    listener.status = 403
    told = Caller(create_app(here), grant(here.store, "replay"))(
        "POST", "/api/v1/destinations/billing/test"
    ).json()

    assert (told["delivered"], told["status"]) == (False, 403)
    assert told["reason"]
    assert "hidden" not in str(told)


def test_an_address_the_guard_no_longer_lets_through_is_not_reached(
    tmp_path: Path, listener: Listener
) -> None:
    """The operator may have taken an exception back since the destination was made."""
    here = platform(tmp_path)
    add(here, listener.url)
    answer = Caller(create_app(here), grant(here.store, "replay"))(
        "POST", "/api/v1/destinations/billing/test"
    )
    here.store.close()

    assert answer.status_code == 400
    assert listener.got == []


def test_a_tunnel_is_looked_at_and_who_is_connected_is_told_and_kept(tmp_path: Path) -> None:
    """From where, and since when: that is all that can be known of its health."""
    with tunnel_door() as door:
        here = platform(tmp_path, doorway=door.doorway)
        caller = Caller(create_app(here), grant(here.store, "replay"))
        here.store.add_destination(
            Destination(team="main", name="in", kind="tunnel", url="tunnel://ships", created_at=0)
        )
        alone = caller("POST", "/api/v1/destinations/in/test").json()
        with plumber(door):
            told = caller("POST", "/api/v1/destinations/in/test").json()
        kept = caller("GET", "/api/v1/destinations/in").json()["tried"]
        here.store.close()

    assert (alone["delivered"], alone["found"]) == (False, [])
    assert alone["reason"] == "no tunnel of this name is connected"
    assert (told["delivered"], told["sent"]) == (True, False)
    [found] = told["found"]
    assert (found["bus"], found["peer"]) == ("Kafka", "127.0.0.1")
    assert found["since"].endswith("Z")
    assert kept == told


def test_a_collection_is_looked_at_through_its_door_and_nothing_is_sent(tmp_path: Path) -> None:
    """Paused, gone or without a door: that is known before the replay."""
    with far_side("collection") as far:
        here = platform(tmp_path, doorway=far.doorway)
        caller = Caller(create_app(here), grant(here.store, "replay"))
        said = {}
        for name in ("ships", "paused", "gone"):
            here.store.add_destination(
                Destination(
                    team="main",
                    name=name,
                    kind="collection",
                    url=f"collection://{name}",
                    created_at=0,
                )
            )
            told = caller("POST", f"/api/v1/destinations/{name}/test").json()
            assert not told["sent"]
            said[name] = told["reason"]
        here.store.close()
        assert far.took(0) == []

    assert said == {
        "ships": None,
        "paused": "the collection is paused",
        "gone": "the destination is not there",
    }
