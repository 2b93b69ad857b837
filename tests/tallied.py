"""What the ledger's rows of a replay say, event by event: the checker of replays. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from penstock.envelope import Position
from replay.progress import Attempt


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger's rows of one replay say, event by event."""

    delivered: int
    failed: int
    skipped: int
    unknown: int
    retrying: int
    """Events that failed and may be tried again."""
    open: int
    """Events with nothing but intents that have no outcome: a sender is at them, or died."""
    repeats: int
    """Attempts beyond the first that may have been delivered, over all events."""
    attempts: int


def tally(rows: Iterable[Attempt]) -> Tally:
    """Count the ledger of one replay. What an event ends as is the best that was seen of it."""
    intents: dict[tuple[int, Position, int], str] = {}
    ends: dict[Position, str] = {}
    for row in rows:
        outcome = row.outcome or "open"
        # An intent may cover offsets of events that were not asked for; an outcome covers none.
        last = row.offset if row.kind == "intent" else row.last
        for offset in range(row.offset, last + 1):
            event = Position(row.partition, offset)
            attempt = (row.epoch, event, row.attempt)
            intents[attempt] = max(intents.get(attempt, "open"), outcome, key=_RANK.__getitem__)
            ends[event] = max(ends.get(event, "open"), outcome, key=_RANK.__getitem__)
    landed: dict[Position, int] = {}
    for (_, event, _), outcome in intents.items():
        if outcome in _MAYBE_DELIVERED:
            landed[event] = landed.get(event, 0) + 1
    count = list(ends.values()).count
    return Tally(
        delivered=count("delivered"),
        failed=count("failed"),
        skipped=count("skipped"),
        unknown=count("unknown"),
        retrying=count("retry"),
        open=count("open"),
        repeats=sum(times - 1 for times in landed.values()),
        attempts=sum(1 for outcome in intents.values() if outcome != "skipped"),
    )


# An outcome beats what says less: a row `unknown` is written without looking at the ledger.
_RANK = {"open": 0, "retry": 1, "skipped": 2, "unknown": 3, "failed": 4, "delivered": 5}
_MAYBE_DELIVERED = {"open", "unknown", "delivered"}
