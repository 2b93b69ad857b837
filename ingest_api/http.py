"""The door's HTTP side: a bare ASGI application for the routes that take events.

Nothing is answered with success before the log has made every event of the request durable. What
can be refused without the body is refused before it is read (a client that sends
`Expect: 100-continue` then never sends it): a wrong token, an unknown or paused collection, a
length over the limit, an unknown coding, a replay that came back to its own collection.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from typing import Any

import structlog

from ingest_api.accept import ORIGIN, Door, Outcomes
from ingest_api.answers import COLLECTED, Answer, answer_to, refusal, wrong_method
from ingest_api.encoding import coding_of, decoded
from ingest_api.framing import Framed, Sent, frame, one_event
from ingest_api.headers import Headers, by_name, text_of, token_of
from ingest_api.release import refuse_all_but_admins, released
from ingest_api.waiting import Completions
from penstock.errors import Loop, Malformed, NotFound, Overloaded, PenstockError, TooLarge
from penstock.faults import fault

log = structlog.get_logger()

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EVENTS = "/v1/events/"
RELEASE = "/v1/release/"
BATCH_COLLECTION = "/v1/collection"

_ORIGIN = ORIGIN.encode()
_SUCCESS = range(200, 300)
# More digits than any length has; `int` takes its time with thousands of them.
_LENGTH_DIGITS = 18


class _Gone(Exception):
    """The client left before its request was whole; nobody is there to be answered."""


class HttpDoor:
    """The routes below `EVENTS` and `RELEASE`, and Batch's `POST /v1/collection`.

    `max_held_bytes` bounds the bodies that are being read, of all requests together; a request that
    would go over it gets 503. `log_seconds` is how long the log may take to make events durable;
    after that it is 503, too. Belongs to the event loop of its first request.
    """

    def __init__(self, door: Door, *, max_held_bytes: int, log_seconds: float = 10.0) -> None:
        self._door = door
        self._log_seconds = log_seconds
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._completions: Completions | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            answer = await self._answer(scope, receive)
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - the last place before the server's own text
            if not isinstance(error, PenstockError):
                log_unexpected(error)
            answer = refusal(error)
            forget_frames(error)
        await respond(answer, send)
        if answer.status in _SUCCESS:
            fault("after_ack")

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        fault("recv")
        collection = _collection_of(scope["path"])
        if scope["method"] != "POST":
            return wrong_method("POST")
        try:
            release = scope["path"].startswith(RELEASE)
            framed, stored = await self._take(
                collection, scope["headers"], receive, release=release
            )
        except _Gone:
            raise
        except Exception as error:
            self._door.metrics.refused(error)
            raise
        if self._completions is None:
            loop = asyncio.get_running_loop()
            self._completions = Completions(loop, seconds=self._log_seconds)
        outcomes = await self._completions.of(stored)
        fault("before_ack")
        answer = answer_to(framed, outcomes)
        return COLLECTED if collection is None and answer.status in _SUCCESS else answer

    async def _take(
        self, collection: str | None, headers: Headers, receive: Receive, *, release: bool
    ) -> tuple[Framed, Future[Outcomes]]:
        """Bring a request to the log: answer its events and what will become of them."""
        given = by_name(headers)
        grant, record = self._door.may_ingest(token_of(given), collection)
        if release:
            refuse_all_but_admins(grant)
        if _ORIGIN in given and not record.allow_loops:
            _refuse_loop(given[_ORIGIN], str(record.id))
        coding = coding_of(given.get(b"content-encoding"))
        self._check_length(given.get(b"content-length"))

        body = await self._body(receive)
        try:
            sent = Sent(
                headers=headers,
                given=given,
                content_type=text_of(given.get(b"content-type")),
                body=body if coding is None else self._decoded(body, coding),
                coding=coding,
                received_at=self._door.received(),
            )
            if release:
                framed = released(sent)
            elif collection is None:
                framed = one_event(sent, self._door.new_ids)
            else:
                framed = frame(
                    sent,
                    self._door.new_ids,
                    self._door.limits.max_event_bytes,
                    not_from=None if record.allow_loops else str(record.id),
                )
            fault("parsed")
            for error in framed.broken.values():
                self._door.metrics.refused(error)
            return framed, self._door.accept(grant, record.id, framed.events)
        finally:
            self._held_bytes -= len(body)

    async def _body(self, receive: Receive) -> bytes:
        """Answer the whole body, counted in `_held_bytes` until the caller lets go of it."""
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                part: bytes = message.get("body", b"")
                size += len(part)
                self._held_bytes += len(part)
                self._check_size(size)
                if self._held_bytes > self._max_held_bytes:
                    raise Overloaded("too many bodies are arriving at once")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        except BaseException:
            self._held_bytes -= size
            raise

    def _check_length(self, length: bytes | None) -> None:
        if length is None:
            return
        if not length.isdigit() or len(length) > _LENGTH_DIGITS:
            raise Malformed("the Content-Length is no number of bytes")
        self._check_size(int(length))

    def _check_size(self, size: int) -> None:
        limit = self._door.limits.max_body_bytes
        if size > limit:
            raise TooLarge("body", size, limit)

    def _decoded(self, body: bytes, coding: str) -> bytes:
        limits = self._door.limits
        return decoded(body, coding, max_bytes=limits.max_body_bytes, max_ratio=limits.max_ratio)


async def respond(answer: Answer, send: Send) -> None:
    """Send an answer; a client that has left meanwhile does not notice, and nor do we."""
    length = (b"content-length", b"%d" % len(answer.body))
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*answer.headers, length],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})


def log_unexpected(error: Exception) -> None:
    """Log an error that nobody raised on purpose: its kind and where, not its text.

    The text of an error may quote what it was raised for, and that may be a payload.
    """
    log.error(
        "a request failed unexpectedly",
        kind=type(error).__name__,
        where="".join(traceback.format_tb(error.__traceback__)),
    )


def forget_frames(error: Exception) -> None:
    """Let go of the frames that an error went through, once it has been answered.

    The future that told of it keeps the error, a frame keeps the future, and the frames keep the
    body: a ring that only the collector opens, which comes late where little else happens.
    """
    error.__traceback__ = None


def _refuse_loop(origins: bytes, collection: str) -> None:
    """Raise `Loop` if the request was replayed from this collection; the header may stand twice."""
    if collection.encode() in map(bytes.strip, origins.split(b",")):
        raise Loop(collection)


def _collection_of(path: str) -> str | None:
    """Answer the collection that the path names; None where the token has to name it."""
    if path == BATCH_COLLECTION:
        return None
    prefix = RELEASE if path.startswith(RELEASE) else EVENTS
    name = path.removeprefix(prefix)
    if not path.startswith(prefix) or not name or "/" in name:
        raise NotFound("address", path)
    return name
