"""Statistics: how many events came when, how large they were, and how long they took to land.

They are a function of the lake. Landing tells what it landed while it has it in memory, which
costs next to nothing; what it could not tell is counted from the lake afterwards
(`assets.stats`). Each log partition of a collection has a mark here, as it has in its table: all
events before it are counted, once each, and nothing behind it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.envelope import CollectionId, Micros, Span

MINUTE: Micros = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """The events of one log partition that were received within one minute."""

    partition: int
    start: Micros
    """Where the minute begins."""
    events: int
    """All of them: those that became rows, and those in quarantine."""
    bytes: int
    """Of their payloads."""
    quarantined: int
    duplicates: int = 0
    """Those that repeat another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events that are in the lake: the spans they fill, and their sums."""

    collection: CollectionId
    log_id: str
    spans: tuple[Span, ...]
    """One for each partition; they need not hold an event at every position."""
    minutes: tuple[Minute, ...]
    landed_at: Micros
    lag: Micros | None
    """How old the oldest event was when it had landed; None where nobody looked at the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is known of a stretch of time."""

    start: Micros
    events: int
    """Received within it, and landed by now."""
    bytes: int
    quarantined: int
    duplicates: int
    lag: Micros | None
    """The longest that an event waited among the batches that landed within it."""


class Stats(Protocol):
    """The books. Threads may share them, and any number of processes may have them open.

    Every method raises `EngineUnavailable` while they do not answer.
    """

    def add(self, batch: Batch) -> bool:
        """Count the batch durably, and say whether all of its events are counted now.

        They may have been before: telling a batch twice, or two batches that overlap, counts no
        event twice. A span that does not begin at its partition's mark, but behind it, is left
        out, and so is one that begins before it and ends behind it: count from the mark.
        """
        ...

    def marks(self, collection: CollectionId) -> Mapping[tuple[str, int], int]:
        """Answer the next position that is not counted, by log id and partition; else it is 0."""
        ...

    def steps(
        self, collection: CollectionId, since: Micros, until: Micros, step: Micros
    ) -> Sequence[Step]:
        """Answer the stretches from `since` to `until` in which anything happened, in order.

        Each is `step` long and begins at a multiple of it; `since` and `step` are whole minutes.
        """
        ...

    def arrivals(
        self, team: str, names: Sequence[str], since: Micros, until: Micros
    ) -> Mapping[str, Mapping[Micros, int]]:
        """Answer how many events each of these collections of a team received, by the minute.

        In one question, however many they are. Minutes and collections without events are left
        out; `since` and `until` are whole minutes.
        """
        ...

    def newest(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Micros]:
        """Answer the last minute in which an event of each was received that is counted.

        In one question, however many they are; those without such an event are left out.
        """
        ...

    def forget_before(self, collection: CollectionId, before: Micros) -> None:
        """Forget the minutes before a moment. What is counted is not counted again."""
        ...

    def forget(self, collection: CollectionId) -> None:
        """Forget all about the collection: it is counted from the lake again."""
        ...

    def ping(self) -> None:
        """Return if the books answer."""
        ...

    def close(self) -> None:
        """Let go of every connection."""
        ...


def open_stats(url: str) -> Stats:
    """Open the books at `url`, with their tables made first if there are none.

    That is ``sqlite:///file`` or ``postgresql://user:password@host:port/database``, which may be
    where the metadata is. Raises `BadSetting` for any other kind of URL, `EngineUnavailable` if
    they cannot be opened.
    """
    from penstock.stats.sql import open_sql

    return open_sql(url)


def every_step(found: Sequence[Step], since: Micros, until: Micros, step: Micros) -> list[Step]:
    """Answer all stretches from `since` to `until`, those in which nothing happened included."""
    known = {one.start: one for one in found}
    first = since // step * step
    return [
        known.get(start)
        or Step(start=start, events=0, bytes=0, quarantined=0, duplicates=0, lag=None)
        for start in range(first, until, step)
    ]
