"""A door that tunnels connect to, and a client that does what those in the field do.

They call `Connect` with their token and read the answer in one thread; a second one writes to the
bus, and the first waits for it once a single event is in between. After the call has ended they
call again, until they are refused. What they write to Kafka has the metadata as headers, and of
those whatever looks like Base64 is decoded.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvicorn
from door_builders import LIMITS, READER, FailingLog, known, token_record
from door_builders import until as started
from ports import free_port
from served import until

from ingest_api.accept import Door
from ingest_api.auth import Keyring
from ingest_api.grpc_server import start_grpc
from ingest_api.handover import HandOverDoor
from ingest_api.proto import events_pb2
from ingest_api.proto.services_pb2_grpc import DProxyStub
from ingest_api.tunnels import Tunnels
from penstock.clock import machine_clock
from penstock.metadata.records import TokenRecord
from penstock.metadata.tokens import new_token
from replay.doorway import Doorway

TUNNEL = new_token(b"t" * 32)
TUNNEL_TOKEN = token_record(TUNNEL, "tunnel", scopes=("tunnel",))

CALL_AGAIN_SECONDS = 0.05
"""Five seconds in the field."""


@dataclass
class TunnelDoor:
    """Where it is, and what it knows."""

    url: str
    grpc: str
    door: Door
    tunnels: Tunnels
    loop: asyncio.AbstractEventLoop

    @property
    def doorway(self) -> Doorway:
        return Doorway(self.url, lambda _: "", tunnels=lambda _: READER)

    def knows(self, *tokens: TokenRecord) -> None:
        """Let it know of these tokens beside those of all tests."""
        self.door.keyring.replace(known(2, tokens=tokens))

    def connected(self, name: str = "ships") -> int:
        return len(self.tunnels.connected("main", name))


@contextmanager
def tunnel_door(*, keep_alive_seconds: float = 15.0) -> Iterator[TunnelDoor]:
    """Serve a door's HTTP and gRPC in one loop, in a thread of its own."""
    made: list[TunnelDoor] = []
    servers: list[uvicorn.Server] = []
    port = free_port()

    async def main() -> None:
        keyring = Keyring(known(tokens=[TUNNEL_TOKEN]))
        door = Door(FailingLog(), keyring, LIMITS, clock=machine_clock, new_ids=lambda _: [])
        tunnels = Tunnels(door, keep_alive_seconds=keep_alive_seconds)
        calls = await start_grpc(door, "127.0.0.1", port, tunnels=tunnels)
        app = HandOverDoor(door, tunnels)
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, log_config=None, ws="none", lifespan="off")
        )
        servers.append(server)
        serving = asyncio.ensure_future(server.serve())
        await started(lambda: server.started)
        place = server.servers[0].sockets[0].getsockname()[1]
        made.append(
            TunnelDoor(
                f"http://127.0.0.1:{place}",
                f"127.0.0.1:{port}",
                door,
                tunnels,
                asyncio.get_running_loop(),
            )
        )
        await serving
        tunnels.close()
        await calls.stop(5)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        until(lambda: bool(made))
        yield made[0]
    finally:
        for server in servers:
            server.should_exit = True
        thread.join()


@dataclass
class Plumber:
    """The client. `written` is what its bus has."""

    address: str
    token: str = TUNNEL
    name: str = "ships"
    bus: str = "Kafka"
    tunnel_id: str = ""
    write: Callable[[Any], None] = lambda _: None
    """Called with each event before it is written; what it raises ends the process."""
    written: list[Any] = field(default_factory=list)
    replays: list[str] = field(default_factory=list)
    silent: int = 0
    """Messages that kept the connection open."""
    connected: int = 0
    refused: str | None = None
    _call: Any = None
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Plumber:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Go as a process does that is killed: without a word, and what was read is lost."""
        self._over.set()
        if self._call is not None:
            self._call.cancel()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        while not self._over.is_set():
            with grpc.insecure_channel(self.address, options=options) as channel:
                try:
                    if self._read(channel):
                        return
                except grpc.RpcError:
                    pass
                except _Killed:
                    return
            self._over.wait(CALL_AGAIN_SECONDS)

    def _read(self, channel: grpc.Channel) -> bool:
        """Read until the call ends; answer whether there is to be no other."""
        request = events_pb2.Tunnel(
            type=events_pb2.Tunnel.AUTH_REQUEST,
            auth_request=events_pb2.AuthRequest(
                token=self.token,
                message_bus=self.bus,
                name=self.name,
                tunnel_id=self.tunnel_id,
                plumber_id="p1",
            ),
        )
        stub: Any = DProxyStub(channel)
        metadata = (("plumber-stream-id", str(uuid.uuid4())),)
        self._call = stub.Connect(request, metadata=metadata, timeout=60)
        for message in self._call:
            match message.type:
                case events_pb2.Tunnel.AUTH_RESPONSE:
                    if not message.auth_response.authorized:
                        self.refused = message.auth_response.message
                        return True
                    self.connected += 1
                case events_pb2.Tunnel.OUTBOUND_MESSAGE:
                    outbound = message.outbound_message
                    if not outbound.last:
                        self._write(outbound)
                case events_pb2.Tunnel.UNSET:
                    self.silent += 1
                case events_pb2.Tunnel.TUNNEL_EVENT:
                    return True
        return False

    def _write(self, outbound: Any) -> None:
        try:
            self.write(outbound)
        except _Killed:
            self._over.set()
            raise
        self.replays.append(outbound.replay_id)
        self.written.append(outbound)


class _Killed(Exception):
    """The process is gone."""


def killed() -> Exception:
    """Answer what a `write` raises to be the end of the process."""
    return _Killed()


@contextmanager
def plumber(door: TunnelDoor, **more: Any) -> Iterator[Plumber]:
    """Have a client connected for the block."""
    made = Plumber(door.grpc, **more).start()
    try:
        until(lambda: made.connected > 0)
        yield made
    finally:
        made.stop()


def headers_of(outbound: Any) -> list[tuple[str, bytes]]:
    """Answer the headers of the record that is written to Kafka."""
    return [(name, _decoded(text)) for name, text in outbound.metadata.items()]


def _decoded(text: str) -> bytes:
    try:
        read = base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()
    if base64.b64encode(read).decode() != text or _is_number(text):
        return text.encode()
    return read


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal() and str(int(text)) == text and abs(int(text)) < 1 << 63


def payloads(clients: Sequence[Plumber]) -> list[bytes]:
    """Answer what the buses of all of them have."""
    return [each.blob for client in clients for each in client.written]
