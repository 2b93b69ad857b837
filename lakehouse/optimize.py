"""Small files merged by another engine, which is told a day and the largest file to take.

Such an engine cannot be given the files one by one, nor the order of upkeep's own merging: it
takes every file of the day up to a size, and makes of them as many as it has writers. So what is
asked of it is less often and more at once, and it comes to an end all the same: what one snapshot
added to a day counts as one file, and the size asked for is that of the largest file worth it.

Its snapshot is one among others. Marks, claims, counts and pins are table properties and tags,
which it leaves alone; if landing was faster too often it makes none, and is asked again. Which of
it happened the table says, not the engine: an answer may get lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.typedef import Identifier

from lakehouse.tables import Lake
from lakehouse.updates import same_sort_order, set_sort_order
from lakehouse.upkeep import (
    DAY,
    GROWING,
    HOUR,
    OVER,
    Candidate,
    Compacted,
    candidate_of,
    groups_of,
)
from penstock.envelope import Clock, Micros
from penstock.errors import BadSetting, EngineUnavailable

log = structlog.get_logger()

LOG_ORDER = ("log_partition", "log_offset")

STATEMENT = "trino_query_id"
"""Where a snapshot's summary says which statement made it."""

ATTEMPTS = 3
"""So often others may be faster before a day is left to the next upkeep."""

_HOLDS = 5
"""So often a hold is tried: those who commit all the time may be faster again."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one snapshot added to a day and is still there: `files`, the largest of `largest` bytes.

    `all` is all of it as if it were one file.
    """

    all: Candidate
    files: int
    largest: int


@dataclass(frozen=True, slots=True)
class Due:
    """A day with `files` of up to `largest` bytes that are worth merging."""

    day: int
    largest: int
    files: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A statement ended: its id, and by its name why it failed, if the engine says that it did."""

    statement: str
    error: str | None = None
    conflict: bool = False
    """Whether that was because somebody else committed first."""


class Merger(Protocol):
    """An engine that reads and writes the same tables."""

    def merge(
        self, name: Identifier, due: Due, *, target: int, committing: Callable[[], None]
    ) -> Ended:
        """Have the files of a day merged into such of about `target` bytes; wait until it ended.

        Calls `committing` once everything is written and the commit is tried, if that is seen.
        Raises `EngineUnavailable` if there is nobody to ask, or if the answer got lost: then it
        may have happened.
        """
        ...

    def check(self, name: Identifier | None) -> None:
        """Return if it answers and would merge files of this table (None: of any).

        Raises `EngineUnavailable` if there is nobody to ask, `BadSetting` if it would not.
        """
        ...


def shares(files: Iterable[tuple[int, Candidate]]) -> list[Share]:
    """Put together what each snapshot added to each day, given files with their snapshots."""

    def key(one: tuple[int, Candidate]) -> tuple[int, int]:
        snapshot, file = one
        return file.day, snapshot

    found = []
    for (day, snapshot), some in groupby(sorted(files, key=key), key=key):
        added = [file for _, file in some]
        together = Candidate(
            path=f"{day}/{snapshot}",
            day=day,
            bytes=sum(file.bytes for file in added),
            first=min(file.first for file in added),
            rows=sum(file.rows for file in added),
            newest=max(file.newest for file in added),
        )
        found.append(Share(together, len(added), max(file.bytes for file in added)))
    return found


def days_due(known: Sequence[Share], *, now: Micros, below: int, target: int) -> list[Due]:
    """Answer the days worth asking for, those with the most files first.

    The rules are those of `lakehouse.upkeep.choose`, but that the newest hour is not kept apart:
    while a day goes on, its small files wait until they have four times the rows of the largest.
    """
    below = min(below, target // 2)
    small = {share.all.path: share for share in known if share.all.bytes < below}
    ordered = sorted((share.all for share in small.values()), key=lambda one: (one.day, one.first))
    found = []
    for day, some in groupby(ordered, key=lambda one: one.day):
        rule = OVER if (day + 1) * DAY + HOUR <= now else GROWING
        groups = groups_of(list(some), rule, target=target)
        chosen = [small[one.path] for group in groups if len(group) > 1 for one in group]
        if chosen:
            largest = max(share.largest for share in chosen)
            found.append(Due(day, largest, sum(share.files for share in chosen)))
    return sorted(found, key=lambda due: due.files, reverse=True)


def days_late(known: Sequence[Share], *, now: Micros, below: int, target: int) -> list[Due]:
    """Answer the days for which somebody should have been asked an hour ago."""
    old = [share for share in known if share.all.newest <= now - 2 * HOUR]
    return days_due(old, now=now - HOUR, below=below, target=target)


def shares_of(table: Table) -> list[Share]:
    """Answer what the table has of each snapshot and day."""
    return shares((snapshot, candidate_of(table, file)) for snapshot, file in _added(table))


def late_files(table: Table, now: Micros, *, below: int, target: int) -> int:
    """Answer how many files should have been merged an hour ago."""
    due = days_late(shares_of(table), now=now, below=below, target=target)
    return sum(one.files for one in due)


def optimize(
    lake: Lake,
    name: Identifier,
    merger: Merger,
    *,
    below: int,
    target: int,
    clock: Clock,
    until: Callable[[], bool] = lambda: False,
) -> Compacted:
    """Have small files merged, day by day; see `days_due`. Begins nothing new once `until` says so.

    Rows stay the same, and what lands meanwhile is kept. Where landing was faster it is asked to
    hold back the next time, while the engine commits; `given_up` counts the days that are left to
    the next upkeep. What keeps the engine from it is the `trouble` of the answer.
    """
    done = Compacted()
    over: set[int] = set()
    lost: Counter[int] = Counter()
    while True:
        table = lake.table(name)
        if table is None:
            return done
        due = days_due(shares_of(table), now=clock(), below=below, target=target)
        due = [one for one in due if one.day not in over]
        if not due:
            return done
        if until():
            return done + Compacted(more=True)
        (one, *_) = due
        _ask_for_log_order(lake, table)
        hold = _Hold(lake, name, clock)
        try:
            ended = merger.merge(
                name, one, target=target, committing=hold.begin if lost[one.day] else _wait_for_none
            )
        except EngineUnavailable as error:
            return done + Compacted(trouble=str(error), away=True)
        finally:
            hold.end()
        snapshot = _made_by(lake.table(name), ended.statement)
        if snapshot is not None:
            done += _counted(snapshot)
            over.add(one.day)
        elif ended.error is not None and not ended.conflict:
            over.add(one.day)
            log.error("files were not merged", table=".".join(name), error=ended.error)
            done += Compacted(given_up=1, trouble=f"{'.'.join(name)}: {ended.error}")
        else:
            log.info("merging gave way", table=".".join(name), error=ended.error)
            lost[one.day] += 1
            if lost[one.day] == ATTEMPTS:
                over.add(one.day)
                done += Compacted(given_up=1)


def _added(table: Table) -> Iterable[tuple[int, DataFile]]:
    """Answer the table's data files, each with the snapshot that added it."""
    current = table.current_snapshot()
    for manifest in current.manifests(table.io) if current else ():
        if manifest.content == ManifestContent.DATA:
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.snapshot_id or 0, entry.data_file


class _Hold:
    """Landing held back from `begin` to `end`, for `LONGEST_HOLD` at the most."""

    def __init__(self, lake: Lake, name: Identifier, clock: Clock) -> None:
        self._lake, self._name, self._clock = lake, name, clock
        self._held: Table | None = None

    def begin(self) -> None:
        """Ask landing to hold back; it goes on where others are faster at every try."""
        for _ in range(_HOLDS):
            table = self._lake.table(self._name)
            self._held = self._lake.hold(table, self._clock) if table is not None else None
            if self._held is not None:
                return

    def end(self) -> None:
        """Let landing go on, if it was asked to hold back."""
        if self._held is not None:
            self._lake.release(self._held)


def _wait_for_none() -> None:
    """Let everybody go on: who merges is the faster one more often than not."""


def _ask_for_log_order(lake: Lake, table: Table) -> None:
    """Have the table ask every writer for rows in the order of the log, if it does not yet.

    Replays read neighbours in a file at once; without it they are where they happened to arrive.
    """
    if not table.metadata.sort_order().is_unsorted:
        return
    wanted = set_sort_order(table.metadata, LOG_ORDER)
    try:
        lake.send(table, wanted, (same_sort_order(table.metadata),))
    except CommitFailedException as error:
        # Of no consequence but for the order: the next time will do.
        log.info(
            "the order of rows is not asked for", table=".".join(table.name()), error=str(error)
        )


def _made_by(table: Table | None, statement: str) -> Snapshot | None:
    """Answer the snapshot that a statement made, None if it made none."""
    for snapshot in table.metadata.snapshots if table is not None else ():
        if snapshot.summary is not None and snapshot.summary.get(STATEMENT) == statement:
            return snapshot
    return None


def _counted(snapshot: Snapshot) -> Compacted:
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    return Compacted(
        read=int(summary.get("deleted-data-files", "0")),
        written=int(summary.get("added-data-files", "0")),
        bytes=int(summary.get("added-files-size", "0")),
    )


def open_merger(
    url: str, *, catalog_url: str, password: str = "", token: str = ""
) -> Merger | None:
    """Answer who merges the files of the catalog's tables at `url`; None if upkeep does it itself.

    Nothing is asked of it yet. Raises `BadSetting`.
    """
    if not url:
        return None
    if urlsplit(url).scheme not in {"trino", "trino+https"}:
        raise BadSetting("compact_url has to be trino://user@host:port/catalog or trino+https://")
    if catalog_url.startswith("sqlite:"):
        raise BadSetting(
            "compact_url asks for Trino, which does not see tables of a catalog in a file: "
            "set catalog_url and warehouse_url, see docs/howto/trino.md"
        )
    try:
        from lakehouse.sql.trino_merging import TrinoMerger
    except ModuleNotFoundError as error:
        raise BadSetting(
            "compact_url asks for Trino, whose client is missing: pip install 'penstock[trino]'"
        ) from error
    return TrinoMerger(url, password=password, token=token)
