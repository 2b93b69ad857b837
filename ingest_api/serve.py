"""The door process: HTTP and gRPC in front of one log."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Never

import structlog
import uvicorn
import uvloop

from ingest_api.accept import Door
from ingest_api.app import App, create_app
from ingest_api.auth import Keyring
from ingest_api.connections import DoorProtocol
from ingest_api.handover import HandOverDoor
from ingest_api.http import HttpDoor
from ingest_api.ids import Uuid7
from ingest_api.limits import Limits
from ingest_api.tunnels import Tunnels
from penstock.buffer import Appender, Keeping, open_appender
from penstock.bus import KNOWN, Bus, open_bus
from penstock.cache import DOOR_LASTS, LOOK_SECONDS, Cache, cache_of
from penstock.envelope import Micros
from penstock.errors import BadSetting, EngineUnavailable
from penstock.memory import giving_back, reuse_memory
from penstock.metadata.records import Known
from penstock.settings import Settings

log = structlog.get_logger()

# A door that says nothing for `DOOR_LASTS` is not counted any more.
_LOOKS_A_WORD = int(DOOR_LASTS / 3 / LOOK_SECONDS)

# The log's thread needs the interpreter for moments only; with Python's 5 ms a batch that is being
# taken apart may keep it that long after an fdatasync. 0.1 ms cost a tenth of all requests.
_SWITCH_SECONDS = 0.0005

# Files that are not connections over HTTP: the log, gRPC, Python's own.
_OTHER_FILES = 256
_MOST_CONNECTIONS = 8_192
_BACKLOG = 2_048
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 10


def serve(settings: Settings) -> None:
    """Take events over HTTP and gRPC until SIGTERM or SIGINT; then finish what was begun.

    Raises `BadSetting` and the errors of the log if it cannot start.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    reuse_memory()
    with giving_back(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from ingest_api.grpc_server import start_grpc

    cache = cache_of(settings, keeps_copy=True)
    keyring = Keyring()
    learning = Learning(keyring, cache, door=f"{socket.gethostname()}:{settings.http_port}")
    learning.look()
    appender = open_appender(
        settings.log,
        max_waiting_bytes=settings.max_waiting_bytes,
        keeping=Keeping(settings.log_partitions, settings.log_retention_hours),
        partitions_of=keyring.partitions,
    )
    try:
        door = create_door(settings, appender, keyring, learn=learning.look)
        http = HttpDoor(door, max_held_bytes=settings.max_waiting_bytes)
        checks = {"log": door.check_log, "cache": lambda: _check(cache)}
        tunnels = Tunnels(door)
        handing = HandOverDoor(door, tunnels)
        server = create_server(create_app(http, checks, door.metrics, handing=handing))
        listening = listen(settings.host, settings.http_port)
        grpc = await start_grpc(door, settings.host, settings.grpc_port, tunnels=tunnels)
        watching = asyncio.create_task(learning.go_on())
        bus = _hear_of_changes(settings, cache, learning)
        # What exists now lives as long as the process: nothing the collector has to walk.
        gc.freeze()
        log.info("door open", http=settings.http_port, grpc=settings.grpc_port)
        try:
            await server.serve(sockets=[listening])
        finally:
            watching.cancel()
            if bus is not None:
                bus.close()
            tunnels.close()
            await grpc.stop(_GRACE_SECONDS)
    finally:
        appender.close()
        cache.close()
        log.info("door closed")


def _hear_of_changes(settings: Settings, cache: Cache, learning: Learning) -> Bus | None:
    """Look at the cache when it calls, or a message comes, and not only twice a second.

    Answers the bus. The one in the metadata is nothing for a door, which goes on without it.
    """
    loop = asyncio.get_running_loop()

    def look_soon() -> None:
        with suppress(RuntimeError):  # the loop has ended, and so has the door
            loop.call_soon_threadsafe(learning.look)

    cache.listen(look_soon)
    if not settings.bus_url:
        return None
    bus = open_bus(settings.bus_url, _no_metadata)
    bus.subscribe(KNOWN, lambda _version: look_soon())
    return bus


def _no_metadata() -> Never:
    raise EngineUnavailable("doors work without the metadata")


def create_door(
    settings: Settings, appender: Appender, keyring: Keyring, *, learn: Callable[[], bool]
) -> Door:
    """Answer the door of these settings, with the machine's clock and chance."""
    limits = Limits(
        max_event_bytes=settings.max_event_bytes,
        max_body_bytes=settings.max_body_bytes,
        max_ratio=settings.max_ratio,
        events_per_second=settings.events_per_second,
    )
    # Ids have to be unique, not secret; the system's own chance costs a switch of threads.
    chance = random.Random(secrets.randbits(128))  # noqa: S311
    new_ids = Uuid7(machine_clock, chance.getrandbits)
    return Door(appender, keyring, limits, clock=machine_clock, new_ids=new_ids, learn=learn)


def listen(host: str, port: int) -> socket.socket:
    """Open the address for HTTP; raise `BadSetting` if that cannot be done."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise BadSetting(f"HTTP cannot listen on {host}:{port}: {error.strerror}") from error


def create_server(app: App, *, protocol: type[DoorProtocol] = DoorProtocol) -> Server:
    """Answer a server for the application; ``serve(sockets=…)`` runs it in the running loop."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        # It would write query strings, and people put tokens there.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_connections(),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return Server(config)


class Server(uvicorn.Server):
    """Ends on SIGTERM and SIGINT as uvicorn does, but lets the process finish its own work after.

    Uvicorn raises the signal again once it is done, and the process would die of it before the
    log is closed.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ask the server to exit when a signal comes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


class Learning:
    """Keeps a keyring at what a cache holds; while that says nothing, the door goes on."""

    def __init__(self, keyring: Keyring, cache: Cache, *, door: str = "door") -> None:
        self._keyring = keyring
        self._cache = cache
        self._door = door
        self._learnt: Known | None = None
        self._complained: str | None = None

    def look(self) -> bool:
        """Look at the cache once and answer whether it held anything new.

        Every refused request asks, so it may cost no more than the cache, and log nothing twice.
        """
        try:
            known = self._cache.read()
        except EngineUnavailable as error:
            self._complain(str(error))
            return False
        self._complained = None
        # The object, not its version: a database put back from a copy counts up to the same number
        # again, and what it holds then is something else.
        if known is None or known is self._learnt:
            return False
        self._learnt = known
        self._keyring.replace(known)
        self._cache.seen(self._door)
        log.info("tokens and collections read", version=known.version)
        return True

    async def go_on(self) -> None:
        """Look twice a second, and say what the door goes by every few seconds, for ever."""
        for look in itertools.count(1):
            await asyncio.sleep(LOOK_SECONDS)
            if not self.look() and look % _LOOKS_A_WORD == 0:
                self._cache.seen(self._door)

    def _complain(self, reason: str) -> None:
        if reason != self._complained:
            self._complained = reason
            log.warning("cache does not answer", reason=reason)


def machine_clock() -> Micros:
    """Answer the machine's time."""
    return time.time_ns() // 1_000


def _check(cache: Cache) -> None:
    if cache.read() is None:
        raise EngineUnavailable("nothing was ever published to the cache")


def _connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_OTHER_FILES, min(_MOST_CONNECTIONS, files - _OTHER_FILES))
