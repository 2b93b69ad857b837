"""Replay to a tunnel: through the door that holds its connection.

What carries what: the payload is the message's body; headers, content type and key are its
metadata, where one of each name has room. The client decodes whatever looks like Base64 there, so
what does is encoded once more, and so is what is no text.

The wire has no acknowledgement. An event is delivered when the connection took it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import msgspec

from penstock.envelope import CollectionId
from penstock.handover import TUNNELS, Carried, Connected, Connections, HandedOver, HandOver
from replay.doorway import Doorway
from replay.targets import (
    BROKEN,
    NOT_CONFIRMED,
    TOO_LARGE,
    Delivered,
    Failed,
    Message,
    Outcome,
    Retry,
)
from replay.targets.added import CONTENT_TYPE, Added, has_type
from replay.targets.door import Door
from replay.targets.turns import Turns

BATCH = 1_000
MOST_BYTES = 4 << 20
"""Of a message, as clients take it by default: over it their connection breaks. And of a body."""

_ENVELOPE_BYTES = 1_024
"""What stands beside payload and metadata, at most."""

_ENTRY_BYTES = 16
_EXAMINE_SECONDS = 10.0
# Of the time that a send may take, for who hands over: the rest is for the answer.
_PATIENT = 0.8
_KEY = "penstock-key"

_DELIVERED = Delivered(None)
_NOT_CARRIED = Failed("the event's id, content type or names of headers are no text")
_BEHIND = Retry("the events before it were not taken")
NOBODY = Retry("no tunnel of this name is connected")
_SLOW = Retry("the tunnel took no more events in time")
_BROKE = Retry("the tunnel's connection ended")
_STOPPED = {"none": NOBODY, "broke": _BROKE, "slow": _SLOW, None: NOT_CONFIRMED}

_encoder = msgspec.msgpack.Encoder()
_handed = msgspec.json.Decoder(HandedOver)
_connections = msgspec.json.Decoder(Connections)


class TunnelTarget:
    """Sends events to the tunnel of one name. Opens nothing before the first `send`."""

    most = BATCH
    ordered = True

    def __init__(
        self,
        name: str,
        doorway: Doorway,
        *,
        team: str,
        replay_id: str,
        collection: CollectionId,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        timeout: float = 30.0,
    ) -> None:
        url = f"{doorway.url.rstrip('/')}{TUNNELS}{name}"
        self._door = Door(url, partial(doorway.tunnels, team))
        self._replay = replay_id
        self._added = Added(replay_id, collection, headers, marked=marked)
        self._seconds = timeout
        self._turns = Turns(_BEHIND)

    def carried(self, message: Message) -> Carried | Failed:
        """Answer an event as the door takes it."""
        event = message.event
        try:
            metadata = self._metadata(message)
            size = sum(len(n.encode()) + len(t) + _ENTRY_BYTES for n, t in metadata.items())
        except UnicodeEncodeError:
            return _NOT_CARRIED
        if size + len(event.payload) + _ENVELOPE_BYTES > MOST_BYTES:
            return TOO_LARGE
        return Carried(event.payload, event.received_at, metadata)

    def _metadata(self, message: Message) -> dict[str, str]:
        event = message.event
        pairs = [*self._added.kept(event.headers)]
        if event.content_type is not None and not has_type(pairs):
            pairs.append((CONTENT_TYPE, event.content_type.encode()))
        if event.key is not None and self._added.adds:
            pairs.append((_KEY, event.key))
        pairs += [(name, text.encode()) for name, text in self._added.pairs(message)]
        return {name: as_metadata(value) for name, value in pairs}

    def check(self, message: Message) -> Failed | None:
        """Make the message."""
        made = self.carried(message)
        return made if isinstance(made, Failed) else None

    async def examine(self) -> str | None:
        """Ask the door whether a tunnel is connected."""
        found = await self.found()
        if isinstance(found, Retry):
            return found.reason
        return None if found else NOBODY.reason

    async def found(self) -> Sequence[Connected] | Retry:
        """Answer the tunnels that are connected, the one that gets the events first."""
        told = await self._ask("GET", None, _EXAMINE_SECONDS)
        if isinstance(told, Retry):
            return told
        try:
            return _connections.decode(told).tunnels
        except msgspec.MsgspecError:
            return BROKEN

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Hand over all of them, in as few requests as their sizes allow."""
        return await self._turns.take(messages, self._send)

    async def _send(self, messages: Sequence[Message]) -> list[Outcome]:
        made = [self.carried(message) for message in messages]
        outcomes: list[Outcome] = [each if isinstance(each, Failed) else _BEHIND for each in made]
        for numbers, body in self._bodies(made):
            handed, stopped = await self._post(body, len(numbers))
            for number in numbers[:handed]:
                outcomes[number] = _DELIVERED
            for number in numbers[handed:]:
                outcomes[number] = stopped
            if handed < len(numbers):
                break
        return outcomes

    def _bodies(self, made: Sequence[Carried | Failed]) -> Iterator[tuple[list[int], bytes]]:
        """Answer the numbers of events that go together, with their body."""
        numbers: list[int] = []
        events: list[Carried] = []
        held = 0
        for number, each in enumerate(made):
            if isinstance(each, Failed):
                continue
            size = len(each.payload) + sum(len(n) + len(t) for n, t in each.metadata.items())
            if events and held + size > MOST_BYTES:
                yield numbers, self._body(events)
                numbers, events, held = [], [], 0
            numbers.append(number)
            events.append(each)
            held += size
        if events:
            yield numbers, self._body(events)

    def _body(self, events: Sequence[Carried]) -> bytes:
        return _encoder.encode(HandOver(self._replay, self._seconds * _PATIENT, events))

    async def _post(self, body: bytes, count: int) -> tuple[int, Retry]:
        """Hand one body over; answer how many were taken, and what is to be said of others."""
        told = await self._ask("POST", body, self._seconds)
        if isinstance(told, Retry):
            return 0, told
        try:
            answer = _handed.decode(told)
        except msgspec.MsgspecError:
            return 0, BROKEN
        return max(0, min(answer.handed, count)), _STOPPED[answer.stopped]

    async def _ask(self, method: str, body: bytes | None, seconds: float) -> bytes | Retry:
        answer = await self._door.ask(method, body, seconds)
        if isinstance(answer, Retry):
            return answer
        if answer.status != 200:  # noqa: PLR2004
            return Retry(f"answered {answer.status}", answer.status)
        return answer.body

    async def close(self) -> None:
        """Let go of every connection."""
        await self._door.close()


def as_metadata(value: bytes) -> str:
    """Answer a value as metadata says it, so that clients read the same bytes again.

    One that is a whole number is encoded too: whether they take that for Base64 depends on it.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
    return base64.b64encode(value).decode() if _looks_encoded(text) else text


def _looks_encoded(text: str) -> bool:
    """Say whether a text is what Base64 of some bytes would be."""
    try:
        read = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return bool(text) and base64.b64encode(read).decode() == text
