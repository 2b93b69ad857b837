"""Upkeep of collections: merge small files, expire snapshots, sweep orphans, say who is behind."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from assets.checks import Verdict
from assets.retention import NOTHING_DROPPED, Dropped
from lakehouse import Lake
from lakehouse.catalog import closed_table, main_table, quarantine_table
from lakehouse.optimize import Merger, late_files, optimize
from lakehouse.upkeep import (
    DAY,
    HOUR,
    Compacted,
    Condition,
    compact,
    expire,
    late_here,
    look,
    sweep_orphans,
)
from penstock.envelope import Clock, CollectionId, Micros
from penstock.settings import Settings

_SECOND: Micros = 1_000_000

SWEEP_EVERY: Micros = 3_600 * _SECOND
"""A sweep lists every file and reads every manifest, to delete what is three days old."""

AT_LATEST: Micros = 3_600 * _SECOND
"""What was not tended for so long comes before what is busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """How the tables shall be: so many snapshots, files of `target` bytes, none below `below`."""

    keep: int
    below: int
    target: int


class Notes(msgspec.Struct, frozen=True):
    """What upkeep of a collection has to know from the one before.

    `seen` says when each file that nothing refers to was first seen. Who loses it only makes
    orphans live longer. `tidied` is when days that are over were left without small files.
    """

    tended: Micros = 0
    swept: Micros = 0
    seen: dict[str, Micros] = {}
    tidied: Micros = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tended:
    """What upkeep did to a collection's two tables, how they are now, and the next one's notes."""

    collection: CollectionId
    compacted: Compacted
    expired: int
    deleted: int
    files_before: int
    files: int
    snapshots: int
    notes: Notes
    seconds: float
    dropped: Dropped = NOTHING_DROPPED

    def figures(self) -> dict[str, int | float]:
        """Answer it by the names that people see."""
        return {
            "files before": self.files_before,
            "files": self.files,
            "files merged": self.compacted.read,
            "files written": self.compacted.written,
            "bytes rewritten": self.compacted.bytes,
            "snapshots": self.snapshots,
            "snapshots expired": self.expired,
            "orphans": len(self.notes.seen),
            "orphans deleted": self.deleted,
            "days dropped": self.dropped.days,
            "rows dropped": self.dropped.rows + self.dropped.quarantined,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Untended:
    """A collection that could not be tended, and why."""

    collection: CollectionId
    error: Exception


Retention = Callable[[CollectionId], Dropped]
"""Drops the old days of a collection, see `assets.retention.retain`."""


def nothing_dropped(_collection: CollectionId) -> Dropped:
    """Keep every day."""
    return NOTHING_DROPPED


def aims_of(settings: Settings) -> Aims:
    """Answer how the settings want the tables."""
    return Aims(
        keep=settings.snapshots_kept,
        below=settings.compact_below_bytes,
        target=settings.compact_to_bytes,
    )


def tend(
    lake: Lake,
    collection: CollectionId,
    *,
    aims: Aims,
    notes: Notes,
    clock: Clock,
    chance: Callable[[int], bytes],
    until: Callable[[], bool] = lambda: False,
    retention: Retention = nothing_dropped,
    merger: Merger | None = None,
) -> Tended:
    """Drop old days, merge files, expire snapshots and, once an hour, delete old orphans.

    The first of a day, an hour after it began, leaves no small files in the days before. What was
    pinned up to a time that has come is let go first.

    Once `until` says so no further files are merged; the rest is done whatever it says, also where
    a `merger` is to merge the files and cannot.
    Safe beside landing, plans and another upkeep; interrupted anywhere, the next one goes on.
    """
    started = clock()
    sweeps = not 0 <= started - notes.swept < SWEEP_EVERY
    tidies = (started - HOUR) // DAY != (notes.tidied - HOUR) // DAY
    before = _sizes(lake, collection)
    # First: what goes need not be merged.
    dropped = retention(collection)
    compacted = Compacted()
    expired = deleted = 0
    still: dict[str, Micros] = {}
    for name in _tables(lake, collection):
        # What compaction replaces stays referenced by the snapshots that expiry leaves, and what
        # expiry lets go is seen by the sweep at once.
        compacted += _merged(
            lake,
            name,
            merger,
            aims=aims,
            tidy=tidies,
            clock=clock,
            chance=chance,
            until=until,
        )
        lake.let_go(name, clock())
        expired += expire(lake, name, keep=aims.keep, clock=clock)
        if sweeps:
            swept = sweep_orphans(lake, name, notes.seen, clock())
            deleted += len(swept.deleted)
            still.update(swept.seen)
    after = _sizes(lake, collection)
    return Tended(
        collection=collection,
        compacted=compacted,
        expired=expired,
        deleted=deleted,
        files_before=before[0],
        files=after[0],
        snapshots=after[1],
        notes=Notes(
            tended=started,
            swept=started if sweeps else notes.swept,
            seen=still if sweeps else dict(notes.seen),
            # What was not finished is gone on with by the next.
            tidied=started if tidies and not compacted.more else notes.tidied,
        ),
        seconds=(clock() - started) / _SECOND,
        dropped=dropped,
    )


def _merged(
    lake: Lake,
    name: tuple[str, ...],
    merger: Merger | None,
    *,
    aims: Aims,
    tidy: bool,
    clock: Clock,
    chance: Callable[[int], bytes],
    until: Callable[[], bool],
) -> Compacted:
    """Merge the files of a table here, or have them merged where there is somebody to ask."""
    if merger is not None:
        return optimize(
            lake, name, merger, below=aims.below, target=aims.target, clock=clock, until=until
        )
    return compact(
        lake,
        name,
        below=aims.below,
        target=aims.target,
        tidy=tidy,
        new_name=lambda: f"merged-{chance(8).hex()}",
        clock=clock,
        until=until,
    )


def _tables(lake: Lake, collection: CollectionId) -> tuple[tuple[str, ...], ...]:
    """Answer the collection's tables; most have no quarantined event that was ever closed."""
    both = main_table(collection), quarantine_table(collection)
    closed = closed_table(collection)
    return both if lake.table(closed) is None else (*both, closed)


def _sizes(lake: Lake, collection: CollectionId) -> tuple[int, int]:
    """Answer how many files and snapshots the collection's tables have."""
    files = snapshots = 0
    for name in _tables(lake, collection):
        table = lake.table(name)
        current = table.current_snapshot() if table else None
        if table is None or current is None:
            continue
        snapshots += len(table.metadata.snapshots)
        summary = current.summary.additional_properties if current.summary else {}
        files += int(summary.get("total-data-files", "0"))
    return files, snapshots


def in_turn(
    busy: Mapping[CollectionId, int], notes: Mapping[CollectionId, Notes], now: Micros
) -> list[CollectionId]:
    """Answer the collections in the order in which they are tended.

    Those that were not for an hour come first, the longest neglected before the others; then the
    busiest. `busy` says how many snapshots each has: who lands much has many.
    """

    def place(collection: CollectionId) -> tuple[bool, Micros, int, CollectionId]:
        tended = notes.get(collection, Notes()).tended
        late = now - tended >= AT_LATEST
        return not late, tended if late else 0, -busy[collection], collection

    return sorted(busy, key=place)


def tend_all(
    lake: Lake,
    collections: Sequence[CollectionId],
    notes: Mapping[CollectionId, Notes],
    *,
    aims: Aims,
    seconds: float,
    clock: Clock,
    chance: Callable[[int], bytes],
    retention: Retention = nothing_dropped,
    merger: Merger | None = None,
) -> Generator[Tended | Untended]:
    """Tend the collections within about so many seconds, and answer each.

    `retention` drops the old days of a collection, once for each. `merger` is who merges files
    (None: upkeep itself); once it did not answer it is not asked again, and the rest is done.

    In the first round each has an equal share of the time that is left, so that all have a turn;
    who has more to merge then goes on in further rounds, with a `Tended` for each, while there is
    time. What is not reached is the first of the next upkeep.
    """
    end = clock() + round(seconds * _SECOND)
    known = dict(notes)
    busy: dict[CollectionId, int] = {}
    for collection in collections:
        try:
            busy[collection] = _sizes(lake, collection)[1]
        except Exception as error:  # noqa: BLE001 - one table must not keep the others waiting
            yield Untended(collection, error)
    waiting = in_turn(busy, known, clock())
    drops, away = retention, False
    while waiting:
        unfinished = []
        for place, collection in enumerate(waiting):
            now = clock()
            if now >= end:
                return
            until = now + (end - now) // (len(waiting) - place)
            try:
                done = tend(
                    lake,
                    collection,
                    aims=aims,
                    notes=known.get(collection, Notes()),
                    clock=clock,
                    chance=chance,
                    # Both bound now.
                    until=lambda until=until, away=away: away or clock() >= until,  # type: ignore[misc]
                    retention=drops,
                    merger=merger,
                )
            except Exception as error:  # noqa: BLE001 - one table must not keep the others waiting
                yield Untended(collection, error)
                continue
            known[collection] = done.notes
            away = away or done.compacted.away
            if done.compacted.more and not away:
                unfinished.append(collection)
            yield done
        waiting, drops = unfinished, nothing_dropped


def together(first: Tended, then: Tended) -> Tended:
    """Answer what two rounds did to a collection."""
    return Tended(
        collection=then.collection,
        compacted=replace(first.compacted + then.compacted, more=then.compacted.more),
        expired=first.expired + then.expired,
        deleted=first.deleted + then.deleted,
        files_before=first.files_before,
        files=then.files,
        snapshots=then.snapshots,
        notes=then.notes,
        seconds=first.seconds + then.seconds,
        dropped=first.dropped,
    )


def tended_well(conditions: Sequence[Condition], collection: CollectionId) -> Verdict:
    """Say whether upkeep keeps up with a collection's tables, and if not, what to do."""
    files = sum(one.files for one in conditions)
    snapshots = sum(one.snapshots for one in conditions)
    late_files = sum(one.late_files for one in conditions)
    late_snapshots = sum(one.late_snapshots for one in conditions)
    facts = {
        "files": files,
        "snapshots": snapshots,
        "late files": late_files,
        "late snapshots": late_snapshots,
    }
    sentence = f"{files:,} files, {snapshots:,} snapshots"
    if not late_files and not late_snapshots:
        return Verdict(True, sentence, facts)
    behind = [
        f"{count:,} {what}"
        for count, what in (
            (late_files, "small files that should be merged by now"),
            (late_snapshots, "snapshots that should be gone by now"),
        )
        if count
    ]
    return Verdict(
        False, f"{sentence}; {' and '.join(behind)}: run 'penstock upkeep {collection}'", facts
    )


def check_upkeep(
    lake: Lake, collection: CollectionId, aims: Aims, now: Micros, merger: Merger | None = None
) -> Verdict:
    """Look at the tables of a collection; `merger` is who merges their files, if not upkeep."""
    found = (
        look(
            lake,
            name,
            keep=aims.keep,
            now=now,
            below=aims.below,
            target=aims.target,
            late=late_here if merger is None else late_files,
        )
        for name in _tables(lake, collection)
    )
    return tended_well([one for one in found if one is not None], collection)
