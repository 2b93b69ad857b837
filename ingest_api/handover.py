"""The door's HTTP side of tunnels: what replays bring for them, and who is connected.

A bare ASGI application, for the scope `replay`: whoever may replay may send to any destination of
the team.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec

from ingest_api.accept import Door
from ingest_api.answers import Answer, refusal, wrong_method
from ingest_api.headers import by_name, token_of
from ingest_api.http import Receive, Scope, Send, forget_frames, log_unexpected, respond
from ingest_api.proto import events_pb2
from ingest_api.tunnels import Tunnels
from penstock.errors import Malformed, NotFound, Overloaded, PenstockError, TooLarge
from penstock.handover import MOST_BYTES, TUNNELS, Connections, HandedOver, HandOver

_MOST_HELD_BYTES = 64 << 20
_LONGEST_PATIENCE = 600.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_JSON = (b"content-type", b"application/json")

_given = msgspec.msgpack.Decoder(HandOver)
_told = msgspec.json.Encoder()

# Bad UTF-8 in a text and deep nesting have errors of Python's own.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class HandOverDoor:
    """The routes below `TUNNELS`. Belongs to the event loop of the tunnels."""

    def __init__(self, door: Door, tunnels: Tunnels) -> None:
        self._door = door
        self._tunnels = tunnels
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            answer = await self._answer(scope, receive)
        except Exception as error:  # noqa: BLE001 - the last place before the server's own text
            if not isinstance(error, PenstockError):
                log_unexpected(error)
            answer = refusal(error)
            forget_frames(error)
        if answer is not None:
            await respond(answer, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        name = scope["path"].removeprefix(TUNNELS)
        if not _NAME.fullmatch(name):
            raise NotFound("address", scope["path"])
        if scope["method"] not in ("GET", "POST"):
            return wrong_method("GET, POST")
        grant = self._door.may(token_of(by_name(scope["headers"])), "replay")
        if scope["method"] == "GET":
            return _answer(Connections(self._tunnels.connected(grant.team, name)))
        body = await self._body(receive)
        if body is None:
            return None
        self._held_bytes += len(body)
        try:
            given = _read(body)
            told = await _unless_gone(
                self._tunnels.give(
                    grant.team, name, _messages(given), min(given.patience, _LONGEST_PATIENCE)
                ),
                receive,
            )
        finally:
            self._held_bytes -= len(body)
        return None if told is None else _answer(told)

    async def _body(self, receive: Receive) -> bytes | None:
        """Answer the whole body, None if its sender left."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > MOST_BYTES:
                raise TooLarge("body", size, MOST_BYTES)
            if self._held_bytes + size > _MOST_HELD_BYTES:
                raise Overloaded("too much is being handed to tunnels at once")
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


async def _unless_gone(giving: Any, receive: Receive) -> HandedOver | None:
    """Answer what became of it, None once its sender has left: what is not written then stays."""
    task = asyncio.ensure_future(giving)
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, gone):
            each.cancel()


def _read(body: bytes) -> HandOver:
    try:
        return _given.decode(body)
    except _UNREADABLE as error:
        raise Malformed("the body is no MessagePack of events for a tunnel") from error


def _messages(given: HandOver) -> list[bytes]:
    """Make the messages of the wire."""
    return [
        events_pb2.Tunnel(
            type=events_pb2.Tunnel.OUTBOUND_MESSAGE,
            replay_id=given.replay,
            outbound_message=events_pb2.Outbound(
                replay_id=given.replay,
                blob=each.payload,
                metadata=each.metadata,
                ingest_timestamp_nano=each.received_at * 1_000,
            ),
        ).SerializeToString()
        for each in given.events
    ]


def _answer(told: Connections | HandedOver) -> Answer:
    return Answer(200, (_JSON,), _told.encode(told))
