"""Many small commits, one line in Dagster: sums of what was landed, at most one per interval.

A logged materialisation costs some 25 ms on SQLite, as much as a small commit. So there are only
so many of all collections together: of hundreds each is told about every few minutes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from assets.landing import Landed
from penstock.envelope import CollectionId, Micros

EVERY: Micros = 30_000_000

AT_ONCE = 30
"""So many are told in each `EVERY`: a fortieth of a run's time."""


@dataclass(slots=True)
class Sum:
    """What one collection landed since it was last told about."""

    since: Micros
    commits: int = 0
    rows: int = 0
    quarantined: int = 0
    duplicates: int = 0
    bytes: int = 0
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    """First and last offset (exclusive) by log partition."""
    newest: Landed | None = None

    def add(self, landed: Landed) -> None:
        """Take one commit in."""
        self.commits += 1
        self.rows += landed.rows
        self.quarantined += landed.quarantined
        self.duplicates += landed.duplicates
        self.bytes += landed.bytes
        for span in landed.spans:
            first = self.spans.get(span.partition, (span.start, span.end))[0]
            self.spans[span.partition] = (first, span.end)
        self.newest = landed


class Digest:
    """Sums per collection. A collection's first commit is told at once, later ones every 30 s.

    Where that is too many, those are told first that have not been for the longest time.
    """

    def __init__(self, every: Micros = EVERY, at_once: int = AT_ONCE) -> None:
        self._every = every
        self._at_once = at_once
        self._spent: deque[Micros] = deque(maxlen=at_once)
        self._sums: dict[CollectionId, Sum] = {}
        self._told: dict[CollectionId, Micros] = {}

    def add(self, landed: Landed, now: Micros) -> list[tuple[CollectionId, Sum]]:
        """Take one commit in; answer the sums that are due."""
        self._sums.setdefault(landed.collection, Sum(since=now)).add(landed)
        return self.due(now)

    def due(self, now: Micros) -> list[tuple[CollectionId, Sum]]:
        """Answer, and forget, the sums whose collection was last told about long enough ago."""
        while self._spent and abs(now - self._spent[0]) >= self._every:
            self._spent.popleft()
        due = [
            collection
            for collection in self._sums
            if abs(now - self._told.get(collection, now - self._every)) >= self._every
        ]
        # Who was never told about has an age, too: that of its sum.
        due.sort(key=lambda one: self._told.get(one, self._sums[one].since - self._every))
        due = due[: self._at_once - len(self._spent)]
        self._spent.extend(now for _ in due)
        return self._take(due, now)

    def rest(self, now: Micros) -> list[tuple[CollectionId, Sum]]:
        """Answer, and forget, everything that was not told yet."""
        return self._take(list(self._sums), now)

    def _take(self, collections: list[CollectionId], now: Micros) -> list[tuple[CollectionId, Sum]]:
        for collection in collections:
            self._told[collection] = now
        return [(collection, self._sums.pop(collection)) for collection in collections]
