"""Replay to another collection of the same installation: batches through a door.

What carries what: payload, id, key, content type, the event's own time and metadata are what they
are in the event received now; its headers are those it has, in their order, with the replay's
behind them. Time of receipt and source (``http``) are the door's, and metadata that begins with
``penstock_`` speaks of the life in the first collection and is left out.

The id makes a repetition a duplicate of what it repeats, so that after a crash, or a lost answer,
the collection shows each event once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec

from penstock.envelope import ENVELOPES, CollectionId, Enveloped
from replay.doorway import Doorway
from replay.targets import (
    GONE,
    NOT_CONFIRMED,
    TOO_LARGE,
    Delivered,
    Failed,
    Message,
    Outcome,
    Retry,
)
from replay.targets.added import Added
from replay.targets.door import Answered, Door
from replay.targets.turns import Turns

BATCH = 2_000
MOST_BYTES = 4 << 20
"""Of a body; an event that is larger goes alone."""

_EXAMINE_SECONDS = 10.0
_HEADERS = {"Content-Type": ENVELOPES}
_LONGEST_AFTER = 4
_THE_SENDERS = range(400, 500)

_DELIVERED = Delivered(202)
_REFUSED_EVENT = Failed("the destination refused the event", 400)
_ITS_OWN = Failed("the event was taken from this collection", 409)
_NOT_CARRIED = Failed("the event's id, headers or metadata are no text")
_NOT_TAKEN = Retry("the log did not take the event", 503)
_PAUSED = Retry("the collection is paused", 409)
_BEHIND = Retry("the events before it were not taken")


class _Part(msgspec.Struct):
    status: int


class _Answer(msgspec.Struct):
    accepted: int = 0
    outcomes: Sequence[_Part] = ()


class CollectionTarget:
    """Sends events to one collection. Opens nothing before the first `send`.

    Where the log takes the events of a request all or not at all, those of one key may go
    together, one request behind the other.
    """

    most = BATCH

    def __init__(
        self,
        to: CollectionId,
        doorway: Doorway,
        *,
        replay_id: str,
        collection: CollectionId,
        headers: Literal["add", "verbatim"] = "add",
        marked: bool = True,
        timeout: float = 30.0,
    ) -> None:
        self.ordered = doorway.whole
        url = f"{doorway.url.rstrip('/')}/v1/events/{to}"
        self._door = Door(url, partial(doorway.token, to))
        self._added = Added(replay_id, collection, headers, marked=marked)
        self._seconds = timeout
        self._turns = Turns(_BEHIND)

    def enveloped(self, message: Message) -> Enveloped:
        """Answer an event as the door takes it."""
        event = message.event
        added = [(name, text.encode()) for name, text in self._added.pairs(message)]
        return Enveloped(
            id=event.id,
            payload=event.payload,
            content_type=event.content_type,
            key=event.key,
            headers=(*self._added.kept(event.headers), *added),
            metadata={n: t for n, t in event.metadata.items() if not n.startswith("penstock_")},
            event_time=event.event_time,
        )

    def check(self, message: Message) -> Failed | None:
        """Make the message."""
        made = self._encoded(message)
        return made if isinstance(made, Failed) else None

    async def examine(self) -> str | None:
        """Bring the door a batch of no event: it says whether it would take one."""
        answer = await self._ask([], min(_EXAMINE_SECONDS, self._seconds))
        return answer.reason if isinstance(answer, Retry | Failed) else None

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Send all of them, in as few requests as their sizes allow."""
        if not self.ordered:
            return await self._send(messages)
        return await self._turns.take(messages, self._send)

    async def _send(self, messages: Sequence[Message]) -> list[Outcome]:
        outcomes: list[Outcome] = [_BEHIND] * len(messages)
        parts: dict[int, bytes] = {}
        for number, message in enumerate(messages):
            made = self._encoded(message)
            if isinstance(made, Failed):
                outcomes[number] = made
            else:
                parts[number] = made
        for numbers in _bodies(parts):
            told = await self._post(parts, numbers)
            for number, outcome in told.items():
                outcomes[number] = outcome
            if self.ordered and _again(told):
                break
        return outcomes

    async def _post(self, parts: Mapping[int, bytes], numbers: Sequence[int]) -> dict[int, Outcome]:
        """Send one body; in halves what the door refuses whole without naming an event."""
        answer = await self._ask([parts[number] for number in numbers])
        if isinstance(answer, list):
            return dict(zip(numbers, answer, strict=True))
        if not isinstance(answer, Failed) or len(numbers) == 1:
            return dict.fromkeys(numbers, answer)
        middle = len(numbers) // 2
        told = await self._post(parts, numbers[:middle])
        if self.ordered and _again(told):
            return {**told, **dict.fromkeys(numbers[middle:], _BEHIND)}
        return {**told, **await self._post(parts, numbers[middle:])}

    def _encoded(self, message: Message) -> bytes | Failed:
        try:
            return msgspec.msgpack.encode(self.enveloped(message))
        except UnicodeEncodeError:
            return _NOT_CARRIED

    async def _ask(
        self, parts: Sequence[bytes], seconds: float | None = None
    ) -> Outcome | list[Outcome]:
        """Send one request; answer what became of each event, or of all of them."""
        body = b"".join([_list_of(len(parts)), *parts])
        answer = await self._door.ask("POST", body, seconds or self._seconds, headers=_HEADERS)
        return answer if isinstance(answer, Retry) else _outcome(answer, len(parts))

    async def close(self) -> None:
        """Let go of every connection."""
        await self._door.close()


def _bodies(parts: Mapping[int, bytes]) -> Iterator[list[int]]:
    """Answer the numbers in bodies of a size that a door takes."""
    body: list[int] = []
    held = 0
    for number, part in parts.items():
        if body and held + len(part) > MOST_BYTES:
            yield body
            body, held = [], 0
        body.append(number)
        held += len(part)
    if body:
        yield body


def _list_of(count: int) -> bytes:
    """Answer what stands before so many elements of a list in MessagePack."""
    return b"\xdd" + count.to_bytes(4, "big")


def _again(told: Mapping[int, Outcome]) -> bool:
    return any(isinstance(outcome, Retry) for outcome in told.values())


def _outcome(answered: Answered, count: int) -> Outcome | list[Outcome]:
    """Read the door's answer to so many events."""
    status, body, after = answered
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.DecodeError:
        answer = _Answer()
    if len(answer.outcomes) == count and count:
        return [_outcome_of(part.status) for part in answer.outcomes]
    match status:
        case 202:
            return _DELIVERED if answer.accepted == count else NOT_CONFIRMED
        case 404:
            return Retry(GONE.reason, status)
        case 409:
            return _PAUSED
        case 413:
            return Failed(TOO_LARGE.reason, status)
        case 408 | 429 | 503:
            known = after is not None and after.isdecimal() and len(after) <= _LONGEST_AFTER
            return Retry(f"answered {status}", status, float(after or "") if known else None)
        case _ if status in _THE_SENDERS:
            return Failed(f"answered {status}", status)
        case _:
            return Retry(f"answered {status}", status)


def _outcome_of(status: int) -> Outcome:
    """Say what the door's word on one event means."""
    match status:
        case 202:
            return _DELIVERED
        case 409:
            return _ITS_OWN
        case 413:
            return Failed(TOO_LARGE.reason, status)
        case 429:
            return _NOT_TAKEN
        case _ if status in _THE_SENDERS:
            return _REFUSED_EVENT
        case _:
            return _NOT_TAKEN
