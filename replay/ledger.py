"""Where attempts are recorded: the log of ``penstock_system.replay_attempts``, through a door.

Penstock keeps its books with its own pipe. A row is an event like any other: durable when the door
has acknowledged it, in the table when it has landed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import msgspec
from msgspec.structs import replace

from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.errors import EngineUnavailable
from replay.progress import Attempt, Attempts
from replay.targets import Retry
from replay.targets.door import Door

ATTEMPTS = CollectionId(SYSTEM_TEAM, "replay_attempts")

_ACCEPTED = 202
_SECONDS = 30.0


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
        self._door = Door(f"{door.rstrip('/')}/v1/events/{ATTEMPTS}", lambda: token)

    async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
        """Send the rows and wait for the door's acknowledgement."""
        headers = {"Idempotency-Key": key, "Content-Type": "application/x-ndjson"}
        body = bytearray()
        lines = sum(add_lines(body, each) for each in rows)
        said = await self._door.ask("POST", bytes(body), _SECONDS, headers=headers)
        if said.status is None:
            raise EngineUnavailable("the ledger's door does not answer")
        if isinstance(said, Retry):
            raise EngineUnavailable(f"the ledger's door answered {said.status}")
        if said.status != _ACCEPTED:
            raise EngineUnavailable(
                f"the ledger's door answered {said.status}", retry_after=_retry_after(said.after)
            )
        if accepted_of(said.body) != lines:
            raise EngineUnavailable("the ledger's door did not take every row")

    async def close(self) -> None:
        """Let go of every connection."""
        await self._door.close()


class _Answer(msgspec.Struct):
    accepted: int


def add_lines(body: bytearray, rows: Attempts) -> int:
    """Append the rows as lines of JSON; answer how many lines those are."""
    count = 0
    for count, row in enumerate(told(rows), 1):  # noqa: B007 - how many there were
        body += _encoder.encode(row)
        body += b"\n"
    return count


def told(rows: Attempts) -> Iterator[Attempt]:
    """Answer the rows as the ledger keeps them: one for events that go together.

    An intent covers all of them, and so perhaps offsets of events that are not among them. An
    outcome has to say exactly who it speaks of: it covers offsets that follow each other without a
    gap.
    """
    first, offsets = rows.first, [rows.first.offset, *rows.offsets]
    if first.kind == "intent" or offsets[-1] - offsets[0] == len(offsets) - 1:
        yield _over(first, len(offsets), offsets[-1])
        return
    ids = [first.event_id, *rows.ids]
    starts = [0, *(n for n in range(1, len(ids)) if offsets[n] != offsets[n - 1] + 1), len(ids)]
    for start, stop in pairwise(starts):
        row = replace(first, event_id=ids[start], offset=offsets[start], last=offsets[start])
        yield _over(row, stop - start, offsets[stop - 1])


def _over(row: Attempt, events: int, last: int) -> Attempt:
    return row if events == 1 else replace(row, events=events, last=last)


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
