from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import msgspec
import pytest
from builders import FLIGHTS, NOON, event
from door_builders import (
    READER,
    TOKEN,
    UNKNOWN,
    FailingLog,
    client_on,
    door_on,
    known,
    token_record,
    until,
)
from far_sides import FarSide, sent
from ports import free_ports
from served import until as eventually
from structlog.testing import capture_logs
from tunnelling import TUNNEL, TUNNEL_TOKEN, Plumber

from ingest_api.auth import Keyring
from ingest_api.serve import Learning, listen
from penstock.buffer import open_buffer, start_of
from penstock.cache import open_cache
from penstock.errors import BadSetting, EngineUnavailable
from penstock.guard import Guard
from penstock.metadata.records import CollectionRecord, Known
from penstock.settings import load_settings
from replay.doorway import Doorway
from replay.targets import Delivered


class StandInCache:
    """A cache that answers what the test put there, or does not answer."""

    def __init__(self, known: Known | None = None) -> None:
        self.known = known
        self.away = False
        self.told: tuple[str, Known | None] | None = None

    def publish(self, ask: Callable[[], Known]) -> None:
        self.known = ask()

    def seen(self, door: str) -> None:
        self.told = (door, self.known)

    def read(self) -> Known | None:
        if self.away:
            raise EngineUnavailable("the cache does not answer")
        return self.known


def test_a_door_goes_on_with_what_it_knows_while_the_cache_is_away() -> None:
    """The door needs only the log and the cache, and the cache only to learn something new."""
    cache = StandInCache(known())
    keyring = Keyring()
    learning = Learning(keyring, cache)
    learning.look()
    client = client_on(door_on(FailingLog(), keyring=keyring))

    cache.away = True
    learning.look()

    assert client.post(b"x").status == 202


def test_a_door_starts_without_a_cache_and_learns_later() -> None:
    """Whoever starts first must not have to be started again."""
    cache = StandInCache()
    keyring = Keyring()
    learning = Learning(keyring, cache)
    client = client_on(door_on(FailingLog(), keyring=keyring))

    learning.look()
    assert client.post(b"x").status == 503
    cache.publish(known)
    learning.look()

    assert client.post(b"x").status == 202


@pytest.mark.parametrize(
    ("token", "path"), [(UNKNOWN, "/v1/events/flights"), (TOKEN, "/v1/events/paused")]
)
def test_a_door_refuses_nobody_for_what_it_has_not_heard_yet(token: str, path: str) -> None:
    """Who made a token, or resumed a collection, uses it in the very next request."""
    cache = StandInCache(known())
    keyring = Keyring(known())
    door = door_on(FailingLog(), keyring=keyring, learn=Learning(keyring, cache).look)
    client = client_on(door)
    before = client.post(b"x", path, token=token).status

    newer = known(version=2, tokens=[token_record(UNKNOWN, "new")])
    cache.publish(lambda: msgspec.structs.replace(newer, collections=running(newer.collections)))

    assert before in (401, 409)
    assert client.post(b"x", path, token=token).status == 202


def running(records: Iterable[CollectionRecord]) -> tuple[CollectionRecord, ...]:
    return tuple(msgspec.structs.replace(record, paused=False) for record in records)


def test_what_did_not_change_is_not_made_ready_twice() -> None:
    """Making thousands of tokens ready at every refusal would cost what requests need."""
    keyring = Keyring()
    learning = Learning(keyring, StandInCache(known()))
    looks = [learning.look()]
    ring = keyring._ring

    looks.append(learning.look())

    assert looks == [True, False]
    assert keyring._ring is ring


@pytest.mark.parametrize("version", [2, 9])
def test_whatever_was_published_last_is_believed(version: int) -> None:
    """A backup of the metadata that is put back counts from an older version, up to the same."""
    keyring = Keyring()
    cache = StandInCache(known(version=9, tokens=[token_record(UNKNOWN, "stolen")]))
    learning = Learning(keyring, cache)
    learning.look()
    client = client_on(door_on(FailingLog(), keyring=keyring))
    before = client.post(b"x", token=UNKNOWN).status

    cache.publish(lambda: known(version=version))
    learning.look()

    assert (before, client.post(b"x", token=UNKNOWN).status) == (202, 401)


def test_a_flood_of_refusals_does_not_fill_the_log_while_the_cache_is_away() -> None:
    """Anybody may send wrong tokens; who reads the log has to find the one sentence."""
    cache = StandInCache(known())
    keyring = Keyring(known())
    learning = Learning(keyring, cache)
    client = client_on(door_on(FailingLog(), keyring=keyring, learn=learning.look))

    with capture_logs() as logged:
        for away in (True, False, True):
            cache.away = away
            assert {client.post(b"x", token=UNKNOWN).status for _ in range(20)} == {401}

    assert [line["event"] for line in logged if line["log_level"] == "warning"] == [
        "cache does not answer",
        "cache does not answer",
    ]


def test_the_cache_is_looked_at_until_the_door_closes() -> None:
    """A revoked token must stop working without a restart."""
    keyring = Keyring(known(tokens=[token_record(UNKNOWN, "new")]))
    cache = StandInCache(known(version=2))

    async def scenario() -> None:
        watching = asyncio.ensure_future(Learning(keyring, cache).go_on())
        await until(lambda: keyring.version == 2)
        watching.cancel()

    asyncio.run(scenario())


def test_a_door_says_what_it_goes_by_at_once() -> None:
    """Who revoked a token waits for it."""
    cache = StandInCache(known())
    learning = Learning(Keyring(), cache, door="here:8080")
    learning.look()
    first = cache.told
    cache.publish(lambda: known(version=2))
    learning.look()

    assert first == ("here:8080", known())
    assert cache.told == ("here:8080", known(version=2))


def test_a_taken_port_stops_the_start_and_says_which() -> None:
    """A door that runs and does not listen looks well to whoever started it."""
    with listen("127.0.0.1", 0) as taken, pytest.raises(BadSetting, match="Address already in use"):
        listen("127.0.0.1", taken.getsockname()[1])


DOOR = """
import sys
from pathlib import Path
from ingest_api.serve import serve
from penstock.settings import load_settings
serve(load_settings(Path(sys.argv[1]), {}, http_port=sys.argv[2], grpc_port=sys.argv[3]))
"""


def test_the_process_takes_events_from_the_cache_alone_and_ends_in_order(tmp_path: Path) -> None:
    """Everything joined: cache, log, HTTP, and SIGTERM that leaves nothing half done."""
    http, grpc = free_ports(2)
    settings = load_settings(tmp_path, {})
    open_cache(settings.cache).publish(known)
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
    rows = buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=9, max_bytes=99).rows
    assert rows.column("payload").to_pylist() == [b"\x00canary"]
    assert rows.column("received_at").cast("int64")[0].as_py() > NOON
    buffer.close()


def test_the_process_hands_over_to_a_tunnel_and_ends_with_it_connected(tmp_path: Path) -> None:
    """A call that stays open for days must not hold up the end of the door."""
    http, grpc = free_ports(2)
    open_cache(load_settings(tmp_path, {}).cache).publish(lambda: known(tokens=[TUNNEL_TOKEN]))
    process = subprocess.Popen(
        [sys.executable, "-c", DOOR, str(tmp_path), str(http), str(grpc)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    client = Plumber(f"127.0.0.1:{grpc}")
    far = FarSide(
        "tunnel",
        "tunnel://ships",
        lambda _: [],
        Guard(),
        doorway=Doorway(f"http://127.0.0.1:{http}", lambda _: "", tunnels=lambda _: READER),
    )
    try:
        _when_up(process, f"http://127.0.0.1:{http}/healthz")
        client.start()
        eventually(lambda: client.connected > 0)
        assert sent(far.open(), [event(b"canary")]) == [Delivered(None)]
        eventually(lambda: len(client.written) == 1)
    finally:
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        output, _ = process.communicate(timeout=20)
        took = time.monotonic() - begun
        client.stop()

    assert process.returncode == 0, output.decode()
    assert took < 8, "it waited for the tunnel"
    assert b"canary" not in output
    assert TUNNEL.encode() not in output
    assert client.refused is None


def _when_up(process: subprocess.Popen[bytes], address: str) -> httpx.Response:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return httpx.get(address)
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the door did not open")
