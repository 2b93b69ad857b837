"""The gRPC side of tunnels: `services.DProxy`, as clients in the field expect it.

They call `Connect` with one message, which holds their token, and read the answer for as long as it
lasts; they call again five seconds after it has ended, unless the first message of the answer
refused them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import DecodeError

from ingest_api.proto import events_pb2, services_pb2
from ingest_api.tunnels import Caller, Tunnels
from penstock.errors import Malformed, Rejected, TooSlow

log = structlog.get_logger()

SERVICE = services_pb2.DESCRIPTOR.services_by_name["DProxy"]

READING_SECONDS = 5.0
# Nothing is known of a caller before its message is read, and a message may have 100 MiB.
_READERS = 4

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Callable[[Any, _Context], Coroutine[Any, Any, None]]
Answering = Callable[[_Handler], _Handler]
"""Turns what a handler raises into the status of its call."""

KEEP_ALIVE = b""
"""A message of which nothing is set."""


class _Gone(Exception):
    """The call is over; nobody is there to be answered."""


def tunnel_handler(tunnels: Tunnels, answering: Answering) -> grpc.GenericRpcHandler:
    """Answer what serves every method of the service."""
    service = _Service(tunnels)
    handlers = {
        "Connect": service.connect,
        "Auth": service.auth,
        "DeleteTunnel": service.delete_tunnel,
    }
    # All as streams of bytes: so the handler decides when a message is read, and one that is
    # made for many tunnels is made once.
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.stream_stream_rpc_method_handler(answering(handle))
        for name, handle in handlers.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)


class _Service:
    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._readers = asyncio.Semaphore(_READERS)

    async def connect(self, _: Any, context: _Context) -> None:
        """Let a tunnel in, and write to it until one of the two ends the call."""

        async def write(message: bytes) -> None:
            try:
                await context.write(message)
            except Exception as error:
                # Whatever the library says of it, and it has several ways.
                raise _Gone from error

        request = await self._read(context, events_pb2.Tunnel)
        if request.type != events_pb2.Tunnel.AUTH_REQUEST:
            raise Malformed("a tunnel begins with an AUTH_REQUEST")
        asked = request.auth_request
        caller = Caller(asked.token, asked.name, asked.message_bus, asked.tunnel_id)
        try:
            tunnel = self._tunnels.admit(caller, _peer(context))
        except Rejected as error:
            # The client does not say why it gives up.
            log.warning("tunnel refused", reason=str(error), peer=_peer(context))
            await context.write(_answer(str(error)))
            return
        try:
            await write(_answer(None))
            await tunnel.carry(write, KEEP_ALIVE)
        except _Gone:
            return
        finally:
            self._tunnels.leave(tunnel)

    async def auth(self, _: Any, context: _Context) -> None:
        """Say whether a token may be a tunnel."""
        request = await self._read(context, events_pb2.AuthRequest)
        answer = events_pb2.AuthResponse(authorized=True)
        try:
            self._tunnels.team_of(request.token)
        except Rejected as error:
            answer = events_pb2.AuthResponse(authorized=False, message=str(error))
        await context.write(answer.SerializeToString())

    async def delete_tunnel(self, _: Any, context: _Context) -> None:
        """End the calls of a tunnel; its destination stays, and another tunnel may serve it."""
        request = await self._read(context, events_pb2.DeleteTunnelRequest)
        answer = events_pb2.DeleteTunnelResponse(success=True)
        try:
            self._tunnels.forget(request.token, request.tunnel_id)
        except Rejected as error:
            answer = events_pb2.DeleteTunnelResponse(success=False, message=str(error))
        await context.write(answer.SerializeToString())

    async def _read(self, context: _Context, kind: type[Any]) -> Any:
        try:
            async with asyncio.timeout(READING_SECONDS), self._readers:
                message = await context.read()
        except TimeoutError:
            raise TooSlow(f"no message arrived within {READING_SECONDS:g} seconds") from None
        if not isinstance(message, bytes):
            raise Malformed("the call ended without a message")
        try:
            return kind.FromString(message)
        except DecodeError:
            raise Malformed(f"the message is no {kind.DESCRIPTOR.name}") from None


def _answer(refusal: str | None) -> bytes:
    made = events_pb2.Tunnel(
        type=events_pb2.Tunnel.AUTH_RESPONSE,
        auth_response=events_pb2.AuthResponse(authorized=refusal is None, message=refusal or ""),
    )
    return made.SerializeToString()


def _peer(context: _Context) -> str:
    """Answer the address of who calls, without its port."""
    kind, _, rest = unquote(context.peer()).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else rest
