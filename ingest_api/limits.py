"""How much a door takes: sizes of one event and one body, and events per second of one token."""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.envelope import Micros
from penstock.errors import TooFast

_SECOND = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What one request may bring. `events_per_second` holds for each token, 0 for no limit."""

    max_event_bytes: int
    max_body_bytes: int
    max_ratio: int
    events_per_second: int


class Rates:
    """Events per second for each token: a bucket that holds one second's worth.

    A batch passes while anything is left and may take the bucket below zero: one larger than a
    second's worth could otherwise never pass, and the average stays what was set.
    """

    def __init__(self, events_per_second: int) -> None:
        self._rate = events_per_second
        self._buckets: dict[str, tuple[float, Micros]] = {}

    def take(self, token_id: str, events: int, now: Micros) -> TooFast | None:
        """Take the events from the token's bucket, or answer why not and when to come back."""
        rate = self._rate
        if rate == 0:
            return None
        level, since = self._buckets.get(token_id, (float(rate), now))
        level = min(rate, level + (now - since) * rate / _SECOND)
        if level < 1:
            self._buckets[token_id] = (level, now)
            return TooFast(
                f"this token may send {rate:,} events a second",
                retry_after=max(1, math.ceil((1 - level) / rate)),
            )
        self._buckets[token_id] = (level - events, now)
        return None
