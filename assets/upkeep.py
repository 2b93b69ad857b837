"""Upkeep of a collection's tables: merge small files, expire snapshots, sweep orphans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lakehouse import Lake
from lakehouse.catalog import main_table, quarantine_table
from lakehouse.closings import closed_table
from lakehouse.upkeep import Compacted, compact, expire, sweep_orphans
from penstock.envelope import Clock, CollectionId, Micros

_SECOND: Micros = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tended:
    """What upkeep did to a collection's tables, and `seen`, which the next one needs.

    `seen` says when each file that nothing refers to was first seen. Who loses it only makes
    orphans live longer.
    """

    collection: CollectionId
    compacted: Compacted
    expired: int
    deleted: int
    seen: dict[str, Micros]
    seconds: float


def tend(
    lake: Lake,
    collection: CollectionId,
    *,
    keep: int,
    below: int,
    seen: Mapping[str, Micros],
    clock: Clock,
    chance: Callable[[int], bytes],
) -> Tended:
    """Merge data files smaller than `below` bytes, leave `keep` snapshots, delete old orphans.

    Safe beside landing, plans and another upkeep; interrupted anywhere, the next one goes on.
    """
    started = clock()
    read = written = given_up = expired = deleted = 0
    still: dict[str, Micros] = {}
    for name in _tables(lake, collection):
        # What compaction replaces stays referenced by the snapshots that expiry leaves, and what
        # expiry lets go is seen by the sweep at once.
        merged = compact(lake, name, below=below, new_name=lambda: f"merged-{chance(8).hex()}")
        read, written = read + merged.read, written + merged.written
        given_up += merged.given_up
        expired += expire(lake, name, keep=keep, clock=clock)
        swept = sweep_orphans(lake, name, seen, clock())
        deleted += len(swept.deleted)
        still.update(swept.seen)
    return Tended(
        collection=collection,
        compacted=Compacted(read, written, given_up),
        expired=expired,
        deleted=deleted,
        seen=still,
        seconds=(clock() - started) / _SECOND,
    )


def _tables(lake: Lake, collection: CollectionId) -> tuple[tuple[str, ...], ...]:
    """Answer the collection's tables; most have no quarantined event that was ever closed."""
    both = main_table(collection), quarantine_table(collection)
    closed = closed_table(collection)
    return both if lake.table(closed) is None else (*both, closed)
