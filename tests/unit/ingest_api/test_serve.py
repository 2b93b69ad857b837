from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
from builders import FLIGHTS, NOON
from door_builders import TOKEN, UNKNOWN, FailingLog, client_on, door_on, known, token_record, until

from ingest_api.auth import Keyring
from ingest_api.serve import listen, refresh, watch
from penstock.buffer import open_buffer, start_of
from penstock.cache import open_cache
from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata.records import CollectionRecord, Known
from penstock.settings import load_settings


class StandInCache:
    """A cache that answers what the test put there, or does not answer."""

    def __init__(self, known: Known | None = None) -> None:
        self.known = known
        self.away = False

    def publish(self, known: Known) -> None:
        self.known = known

    def read(self) -> Known | None:
        if self.away:
            raise EngineUnavailable("the cache does not answer")
        return self.known


def test_a_door_goes_on_with_what_it_knows_while_the_cache_is_away() -> None:
    """The door needs only the log and the cache, and the cache only to learn something new."""
    cache = StandInCache(known())
    keyring = Keyring()
    refresh(keyring, cache)
    client = client_on(door_on(FailingLog(), keyring=keyring))

    cache.away = True
    refresh(keyring, cache)

    assert client.post(b"x").status == 202


def test_a_door_starts_without_a_cache_and_learns_later() -> None:
    """Whoever starts first must not have to be started again."""
    cache = StandInCache()
    keyring = Keyring()
    client = client_on(door_on(FailingLog(), keyring=keyring))

    refresh(keyring, cache)
    assert client.post(b"x").status == 503
    cache.publish(known())
    refresh(keyring, cache)

    assert client.post(b"x").status == 202


@pytest.mark.parametrize(
    ("token", "path"), [(UNKNOWN, "/v1/events/flights"), (TOKEN, "/v1/events/paused")]
)
def test_a_door_refuses_nobody_for_what_it_has_not_heard_yet(token: str, path: str) -> None:
    """Who made a token, or resumed a collection, uses it in the very next request."""
    cache = StandInCache(known())
    keyring = Keyring(known())
    door = door_on(FailingLog(), keyring=keyring, learn=partial(refresh, keyring, cache))
    client = client_on(door)
    before = client.post(b"x", path, token=token).status

    newer = known(version=2, tokens=[token_record(UNKNOWN, "new")])
    cache.publish(msgspec.structs.replace(newer, collections=running(newer.collections)))

    assert before in (401, 409)
    assert client.post(b"x", path, token=token).status == 202


def running(records: Iterable[CollectionRecord]) -> tuple[CollectionRecord, ...]:
    return tuple(msgspec.structs.replace(record, paused=False) for record in records)


def test_the_same_version_is_not_read_twice() -> None:
    """Making thousands of tokens ready twice a second would cost what requests need."""
    keyring = Keyring()
    cache = StandInCache(known())
    refresh(keyring, cache)
    ring = keyring._ring

    refresh(keyring, cache)

    assert keyring._ring is ring


def test_an_older_version_is_believed_too() -> None:
    """Restoring a backup of the metadata takes the version back."""
    keyring = Keyring(known(version=9))

    refresh(keyring, StandInCache(known(version=2)))

    assert keyring.version == 2


def test_the_cache_is_looked_at_until_the_door_closes() -> None:
    """A revoked token must stop working without a restart."""
    keyring = Keyring(known(tokens=[token_record(UNKNOWN, "new")]))
    cache = StandInCache(known(version=2))

    async def scenario() -> None:
        watching = asyncio.ensure_future(watch(keyring, cache))
        await until(lambda: keyring.version == 2)
        watching.cancel()

    asyncio.run(scenario())


def test_a_taken_port_stops_the_start_and_says_which() -> None:
    """A door that runs and does not listen looks well to whoever started it."""
    with listen("127.0.0.1", 0) as taken, pytest.raises(BadSetting, match="Address already in use"):
        listen("127.0.0.1", taken.getsockname()[1])


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


DOOR = """
import sys
from pathlib import Path
from ingest_api.serve import serve
from penstock.settings import load_settings
serve(load_settings(Path(sys.argv[1]), {}, http_port=sys.argv[2], grpc_port=sys.argv[3]))
"""


def test_the_process_takes_events_from_the_cache_alone_and_ends_in_order(tmp_path: Path) -> None:
    """Everything joined: cache, log, HTTP, and SIGTERM that leaves nothing half done."""
    http, grpc = free_port(), free_port()
    settings = load_settings(tmp_path, {})
    open_cache(settings.cache).publish(known())
    process = subprocess.Popen(
        [sys.executable, "-c", DOOR, str(tmp_path), str(http), str(grpc)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    address = f"http://127.0.0.1:{http}"
    try:
        health = _when_up(process, f"{address}/healthz")
        assert health.json() == {
            "status": "ok",
            "adapters": {"log": {"responds": True}, "cache": {"responds": True}},
        }
        reply = httpx.post(
            f"{address}/v1/events/flights?token=canary",
            content=b"\x00canary",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert reply.status_code == 202
        with socket.create_connection(("127.0.0.1", grpc)):
            pass
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)

    assert process.returncode == 0, output.decode()
    assert b"canary" not in output
    assert TOKEN.encode() not in output
    buffer = open_buffer(settings.log)
    rows = buffer.read(FLIGHTS, start_of(buffer.log_id, 0), end=9, max_bytes=99).rows
    assert rows.column("payload").to_pylist() == [b"\x00canary"]
    assert rows.column("received_at").cast("int64")[0].as_py() > NOON
    buffer.close()


def _when_up(process: subprocess.Popen[bytes], address: str) -> httpx.Response:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return httpx.get(address)
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the door did not open")
