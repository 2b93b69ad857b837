"""Where attempts are recorded: the log of ``penstock_system.replay_attempts``, through a door.

Penstock keeps its books with its own pipe. A row is an event like any other: durable when the door
has acknowledged it, in the table when it has landed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import aiohttp
import msgspec
from msgspec.structs import replace

from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.errors import EngineUnavailable
from replay.progress import Attempts

ATTEMPTS = CollectionId(SYSTEM_TEAM, "replay_attempts")

_ACCEPTED = 202
_SECONDS = 30.0
# Lines that are put together at once: memory that is used again at once, and not new pages.
_LINES = 200


class Ledger(Protocol):
    """Where attempts are recorded."""

    async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
        """Record the rows, durably and in order.

        Raises `Unavailable` when it is not known whether they were recorded. The same rows may then
        be written again under the same `key`: readers count an attempt once, by its name.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


class NoLedger:
    """Records nothing: a dry run makes no attempt."""

    async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


class DoorLedger:
    """Sends the rows to a door of this installation as NDJSON, one request a call.

    `key` becomes the idempotency key, so that rows sent again have the ids of those sent before.
    Whatever the door says but 202 for all of them means to try again: a token that the door does
    not know yet, a collection that is paused for a moment.
    """

    def __init__(self, door: str, token: str) -> None:
        self._url = f"{door.rstrip('/')}/v1/events/{ATTEMPTS}"
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
        """Send the rows and wait for the door's acknowledgement."""
        session = self._session or self._open()
        headers = {"Idempotency-Key": key, "Content-Type": "application/x-ndjson"}
        body = bytearray()
        lines = sum(add_lines(body, each) for each in rows)
        try:
            async with session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status != _ACCEPTED:
                    raise EngineUnavailable(
                        f"the ledger's door answered {answer.status}",
                        retry_after=_retry_after(answer.headers.get("Retry-After")),
                    )
                said = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable("the ledger's door does not answer") from error
        if accepted_of(said) != lines:
            raise EngineUnavailable("the ledger's door did not take every row")

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
            trust_env=False,
        )
        return self._session

    async def close(self) -> None:
        """Let go of every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Answer(msgspec.Struct):
    accepted: int


def add_lines(body: bytearray, rows: Attempts) -> int:
    """Append the rows as lines of JSON; answer how many lines those are.

    Neighbouring events that are about to go together have one intent, which says so. What is the
    same in several lines is encoded once.
    """
    first = rows.first
    if rows.ids and first.kind == "intent":
        first = replace(first, events=len(rows), last=rows.offsets[-1])
    body += _encoder.encode(first)
    body += b"\n"
    if not rows.ids or first.kind == "intent":
        return 1
    line = _encoder.encode(replace(rows.first, event_id="", offset=0)).decode()
    # A quote within a string is written with a backslash, so these are the fields themselves.
    head, rest = line.split('"event_id":""', 1)
    middle, tail = rest.split('"offset":0,', 1)
    for start in range(0, len(rows.ids), _LINES):
        part = slice(start, start + _LINES)
        ids = _encoder.encode_lines(rows.ids[part]).decode().split("\n")
        ids.pop()  # behind the last line
        lines = [
            f'{head}"event_id":{event_id}{middle}"offset":{offset},{tail}\n'
            for event_id, offset in zip(ids, rows.offsets[part], strict=True)
        ]
        body += "".join(lines).encode()
    return len(rows)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Answer)


def accepted_of(body: bytes) -> int:
    """Answer how many events a door's 202 says are durable; 0 for what is no such answer."""
    try:
        return _decoder.decode(body).accepted
    except msgspec.DecodeError:
        return 0


def _retry_after(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 5 else 1  # noqa: PLR2004
