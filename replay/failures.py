"""Why events of a replay failed, from the rows of the ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from penstock.envelope import Position

EXAMPLES = 10


class LedgerRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an outcome in the ledger says of one event, or of `events` that follow each other."""

    event_id: str
    partition: int
    offset: int
    attempt: int
    at: str
    reason: str | None = None
    status: int | None = None
    events: int = 1


class Failure(msgspec.Struct, frozen=True):
    """Why events failed for good, how many, and the first rows that say so."""

    reason: str
    status: int | None
    events: int
    examples: tuple[LedgerRow, ...]


def failures(payloads: Iterable[bytes]) -> list[Failure]:
    """Group outcomes by what they say, the most frequent first.

    A row may be there twice if the door's answer to it was lost: an event fails once.
    """
    seen: set[Position] = set()
    found: dict[tuple[str, int | None], Failure] = {}
    for payload in payloads:
        row = _decoder.decode(payload)
        position = Position(row.partition, row.offset)
        if position in seen:
            continue
        seen.add(position)
        reason = row.reason or "no reason was given"
        old = found.get((reason, row.status)) or Failure(reason, row.status, 0, ())
        found[reason, row.status] = replace(
            old,
            events=old.events + row.events,
            examples=old.examples if len(old.examples) == EXAMPLES else (*old.examples, row),
        )
    return sorted(found.values(), key=lambda one: (-one.events, one.reason))


_decoder = msgspec.json.Decoder(LedgerRow)
