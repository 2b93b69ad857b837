"""etcd and RabbitMQ end under a running installation: the door goes on, and catches up after."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from balance import compare
from builders import FLIGHTS
from door_builders import TOKEN, UNKNOWN, token_record
from engines.etcd import Etcd
from engines.places import HOST, PASSWORD, USER
from engines.rabbitmq import RabbitMQ
from evidence.sheet import found, happened
from metadata_builders import collection
from own_engines import own_engine
from ports import free_ports
from ready_store import ready_store

from penstock.api.publishing import Publisher
from penstock.buffer import open_buffer, start_of
from penstock.bus import KNOWN, open_bus
from penstock.cache import open_cache
from penstock.errors import EngineUnavailable
from penstock.metadata.store import Store

pytestmark = [pytest.mark.engines, pytest.mark.crash, pytest.mark.xdist_group("own engines")]

ACCEPTED = 202


@contextmanager
def platform(store: Store, cache_url: str, bus_url: str) -> Iterator[Publisher]:
    """Do for the block what the platform does: publish, and catch up every second."""
    cache, bus = open_cache(cache_url), open_bus(bus_url, lambda: store)
    publisher = Publisher(store, cache, tell=lambda version: bus.publish(KNOWN, str(version)))
    ended = threading.Event()

    def catch_up() -> None:
        while not ended.wait(1.0):
            with suppress(EngineUnavailable):
                publisher.catch_up()

    thread = threading.Thread(target=catch_up)
    thread.start()
    try:
        yield publisher
    finally:
        ended.set()
        thread.join()
        cache.close()
        bus.close()


@contextmanager
def door(home: Path, port: int, **settings: str) -> Iterator[None]:
    """Run the door's process for the block, and wait until it answers."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environ |= {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    environ |= {"PENSTOCK_HTTP_PORT": str(port), "PENSTOCK_GRPC_PORT": str(port + 1)}
    with (home / "door.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "serve", "door", "--home", str(home)],
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        log_so_far = (home / "door.log").read_text
        assert soon(lambda: Sender(port).sent("nobody") == 401, 60.0), log_so_far()
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


@dataclass
class Sender:
    """Sends numbered events to a door, and remembers which of them were acknowledged."""

    port: int
    number: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)
    """By their ids."""

    def sent(self, token: str) -> int:
        """Send an event and answer the status; 0 where nobody listens."""
        self.number += 1
        payload = b'{"a": %d}' % self.number
        try:
            answer = httpx.post(
                f"http://{HOST}:{self.port}/v1/events/flights",
                content=payload,
                headers={"Authorization": f"Bearer {token}"},
                trust_env=False,
            )
        except httpx.TransportError:
            return 0
        if answer.status_code == ACCEPTED:
            self.kept |= dict.fromkeys(answer.json()["ids"], payload)
        return answer.status_code


def on_log(home: Path) -> list[tuple[str, bytes]]:
    """Answer id and payload of each event on the log of a door's home."""
    with closing(open_buffer(f"embedded://{home / 'log'}")) as buffer:
        mark = start_of(buffer.log_id(FLIGHTS), 0)
        rows = buffer.read(FLIGHTS, mark, end=1 << 60, max_bytes=1 << 30).rows
    return [*zip(rows["event_id"].to_pylist(), rows["payload"].to_pylist(), strict=True)]


def soon(true: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def free_pair() -> int:
    free = sorted(free_ports(2_000))
    return next(port for port in free if port + 1 in free)


@pytest.mark.breaks("etcd and RabbitMQ, under a door that is started anew meanwhile")
def test_the_door_goes_on_is_started_anew_and_catches_up(tmp_path: Path) -> None:
    """What a door needs to accept is the log; what it needs to know it has seen before."""
    home, port = tmp_path / "door", free_pair()
    sender = Sender(port)
    home.mkdir()
    store = ready_store(tmp_path)
    store.create_collection(collection(), token_record(TOKEN, "sender"))
    with (
        own_engine(Etcd, tmp_path) as etcd,
        own_engine(RabbitMQ, tmp_path) as broker,
    ):
        settings = {
            "cache_url": f"etcd://{HOST}:{etcd.port}",
            "bus_url": f"amqp://{USER}:{PASSWORD}@{HOST}:{broker.port}/%2F",
        }
        with platform(store, **settings) as publisher:
            with door(home, port, **settings):
                publisher.publish()
                assert soon(lambda: sender.sent(TOKEN) == ACCEPTED, 5.0)
                assert publisher.doors() is not None
                assert list((publisher.doors() or {}).values()) == [True]

                etcd.stop()
                broker.stop()
                happened("outages", 2)
                assert [sender.sent(TOKEN) for _ in range(20)] == [ACCEPTED] * 20
                assert sender.sent(UNKNOWN) == 401

            store.add_token(token_record(UNKNOWN, "made meanwhile"))
            store.revoke_token("main", "sender", 1)
            with pytest.raises(EngineUnavailable):
                publisher.publish()
            assert publisher.doors() is None

            # A door that is started now knows what the one before it saw last.
            with door(home, port, **settings):
                assert [sender.sent(TOKEN) for _ in range(20)] == [ACCEPTED] * 20
                assert sender.sent(UNKNOWN) == 401

                etcd.start()
                back = time.monotonic()
                assert soon(lambda: sender.sent(UNKNOWN) == ACCEPTED, 10.0)
                assert sender.sent(TOKEN) == 401
                assert time.monotonic() - back < 4.0
                broker.start()
    store.close()
    found(log=compare(sender.kept, on_log(home)))
    said = (home / "door.log").read_text()
    assert said.count("cache does not answer, going on with the last one") <= 4
