"""A door for tests: what it knows, a log that fails when told to, a client without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from builders import FLIGHTS, NOON, numbered, ticking

from ingest_api.accept import Door
from ingest_api.auth import Keyring
from ingest_api.http import HttpDoor
from ingest_api.limits import Limits
from penstock.envelope import CollectionId, Event, Position
from penstock.metadata.records import CollectionRecord, Known, TokenRecord
from penstock.metadata.tokens import digest, hint, new_token

SHIPS = CollectionId("main", "ships")
PAUSED = CollectionId("main", "paused")
ECHO = CollectionId("main", "echo")
THEIRS = CollectionId("other", "theirs")

TOKEN = new_token(b"1" * 32)
BOUND = new_token(b"2" * 32)
READER = new_token(b"3" * 32)
ADMIN = new_token(b"4" * 32)
REVOKED = new_token(b"5" * 32)
EXPIRED = new_token(b"6" * 32)
OTHER_TEAM = new_token(b"7" * 32)
UNKNOWN = new_token(b"8" * 32)

LIMITS = Limits(max_event_bytes=1_000, max_body_bytes=200_000, max_ratio=20, events_per_second=0)


def token_record(text: str, name: str, *, team: str = "main", **other: Any) -> TokenRecord:
    """Answer the record of a token that may ingest."""
    given: dict[str, Any] = {"scopes": ("ingest",), **other}
    return TokenRecord(
        id=name,
        team=team,
        name=name,
        digest=digest(text),
        hint=hint(text),
        created_at=NOON - 1_000_000,
        **given,
    )


def known(version: int = 1, *, tokens: Iterable[TokenRecord] = ()) -> Known:
    """Answer what the door of these tests knows, and more tokens if there are any."""
    return Known(
        version=version,
        collections=tuple(
            CollectionRecord(id=id_, created_at=NOON, paused=id_ == PAUSED, allow_loops=id_ == ECHO)
            for id_ in (FLIGHTS, SHIPS, PAUSED, ECHO, THEIRS)
        ),
        tokens=(
            token_record(TOKEN, "sender"),
            token_record(BOUND, "bound", collection="flights"),
            token_record(READER, "reader", scopes=("read", "replay")),
            token_record(ADMIN, "admin", scopes=("admin",)),
            token_record(REVOKED, "revoked", revoked_at=NOON + 10**12),
            token_record(EXPIRED, "expired", expires_at=NOON),
            token_record(OTHER_TEAM, "stranger", team="other"),
            *tokens,
        ),
    )


@dataclass
class FailingLog:
    """The writing side of a log, in memory, that fails as it is told.

    `error` fails whole appends; `broken` payloads fail alone; while `held` is set nothing becomes
    durable before `release`.
    """

    error: Exception | None = None
    broken: dict[bytes, Exception] = field(default_factory=dict)
    held: bool = False
    stored: list[tuple[CollectionId, Event]] = field(default_factory=list)
    waiting: list[tuple[Future[Sequence[Position | Exception]], CollectionId, list[Event]]] = field(
        default_factory=list
    )

    def append(
        self, collection: CollectionId, events: Sequence[Event]
    ) -> Future[Sequence[Position | Exception]]:
        """Keep the promise of `Appender.append`."""
        future: Future[Sequence[Position | Exception]] = Future()
        self.waiting.append((future, collection, list(events)))
        if not self.held:
            self.release()
        return future

    def release(self) -> None:
        """Make durable what is waiting."""
        waiting, self.waiting = self.waiting, []
        for future, collection, events in waiting:
            if self.error is not None:
                future.set_exception(self.error)
                continue
            outcomes: list[Position | Exception] = []
            for event in events:
                if event.payload in self.broken:
                    outcomes.append(self.broken[event.payload])
                else:
                    outcomes.append(Position(0, len(self.stored)))
                    self.stored.append((collection, event))
            future.set_result(outcomes)

    def close(self) -> None:
        """Nothing is open."""

    @property
    def events(self) -> list[Event]:
        """What was stored, in order."""
        return [event for _, event in self.stored]

    @property
    def payloads(self) -> list[bytes]:
        """The payloads of what was stored."""
        return [event.payload for event in self.events]


def door_on(
    log: FailingLog,
    *,
    limits: Limits = LIMITS,
    keyring: Keyring | None = None,
    learn: Callable[[], bool] = bool,
) -> Door:
    """Answer a door with the tokens above, a clock that ticks and ids that count."""
    ring = Keyring(known()) if keyring is None else keyring
    return Door(log, ring, limits, clock=ticking(), new_ids=numbered(), learn=learn)


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Answer the body as JSON."""
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """What the problem document says."""
        return str(self.json()["detail"])


@dataclass
class Client:
    """Calls an ASGI application as a server would, without one.

    `pieces_read` says how much of the last body it asked for.
    """

    app: Any
    pieces_read: int = 0

    def post(
        self,
        body: bytes | Sequence[bytes] = b"",
        path: str = "/v1/events/flights",
        *,
        token: str | None = TOKEN,
        method: str = "POST",
        **headers: str,
    ) -> Reply:
        """Send a request (a sequence of bytes: in these pieces) and answer the reply.

        Names of headers are given with ``_`` for ``-``.
        """
        given = [(n.replace("_", "-").encode(), v.encode("latin-1")) for n, v in headers.items()]
        reply = asyncio.run(self.call(body, path, token=token, method=method, headers=given))
        assert reply is not None
        return reply

    async def call(
        self,
        body: bytes | Sequence[bytes] = b"",
        path: str = "/v1/events/flights",
        *,
        token: str | None = TOKEN,
        method: str = "POST",
        disconnect: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> Reply | None:
        """Do what `post` does, inside a running loop and with headers as they are on the wire.

        `disconnect` leaves after the last piece, with the body unfinished. Answers None where the
        application did not reply.
        """
        pieces = [body] if isinstance(body, bytes) else list(body)
        sent = list(headers)
        if token is not None:
            sent.append((b"authorization", b"Bearer " + token.encode()))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "http_version": "1.1",
            "headers": sent,
        }
        replies: list[dict[str, Any]] = []
        self.pieces_read = 0

        async def receive() -> dict[str, Any]:
            if not pieces:
                return {"type": "http.disconnect"}
            self.pieces_read += 1
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces) or disconnect}

        async def send(message: dict[str, Any]) -> None:
            replies.append(message)

        await self.app(scope, receive, send)
        if not replies:
            return None
        start, *rest = replies
        return Reply(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in rest),
        )


def client_on(door: Door, *, max_held_bytes: int = 1 << 20) -> Client:
    """Answer a client of the door's HTTP side."""
    return Client(HttpDoor(door, max_held_bytes=max_held_bytes))


async def until(true: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Let the loop run until something is true; raise `TimeoutError` if it never is."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)
