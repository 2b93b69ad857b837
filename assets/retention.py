"""How long a collection's rows are kept: whole days go, everywhere, and the count of them stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

import structlog

from lakehouse import Lake
from lakehouse.catalog import closed_table, main_table, quarantine_table
from lakehouse.retention import NOTHING_OLD, Day, Old, date_of, drop_days, old_days
from penstock.envelope import CollectionId, Mark, Micros
from penstock.errors import Unavailable
from penstock.stats import Stats

log = structlog.get_logger()

DAY: Micros = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What retention would drop of a collection's tables now: the days before `before`.

    `pinned_by` are the names that keep some of it readable, and on disk, until they are let go.
    """

    before: date
    rows: Old = NOTHING_OLD
    quarantined: Old = NOTHING_OLD

    @property
    def days(self) -> list[Day]:
        """The days of both tables together, the oldest first."""
        found: dict[date, Day] = {}
        for one in (*self.rows.days, *self.quarantined.days):
            known = found.get(one.day)
            found[one.day] = (
                one
                if known is None
                else Day(
                    day=one.day,
                    rows=known.rows + one.rows,
                    bytes=known.bytes + one.bytes,
                    files=known.files + one.files,
                )
            )
        return [found[day] for day in sorted(found)]

    @property
    def pinned_by(self) -> tuple[str, ...]:
        """Who keeps some of it."""
        return tuple(sorted({*self.rows.pinned_by, *self.quarantined.pinned_by}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What retention did: whole days of both tables, and what it had to leave for later."""

    days: int = 0
    rows: int = 0
    quarantined: int = 0
    pinned_by: tuple[str, ...] = ()
    postponed: str = ""
    """Why nothing was dropped although something is due; empty if nothing was in the way."""


NOTHING_DROPPED = Dropped()


def first_kept(keep_days: int, now: Micros) -> int:
    """Answer the first day that is kept, counted from 1970: every event stays `keep_days` whole.

    Before it lie days whose last moment is older than that.
    """
    return (now - keep_days * DAY) // DAY


def due(lake: Lake, collection: CollectionId, *, keep_days: int, now: Micros) -> Due:
    """Answer what `retain` would drop; changes nothing."""
    before = first_kept(keep_days, now)
    view = lake.view(collection)
    if view is None:
        return Due(before=date_of(before))
    return Due(
        before=date_of(before),
        rows=old_days(lake, main_table(collection), before=before),
        quarantined=old_days(lake, quarantine_table(collection), before=before, landed=view.marks),
    )


def retain(
    lake: Lake,
    collection: CollectionId,
    *,
    keep_days: int,
    now: Micros,
    unindex: Callable[[Micros], None],
    stats: Callable[[], Stats],
) -> Dropped:
    """Drop the days that are due: first of the index, then of the tables, then of the statistics.

    `unindex` lets the search index forget what was received before a moment, and raises where it
    cannot. It comes first: from then on searches read those days in the lake, all of a day or
    nothing of it. The other way round they would find what is certain in the index, and miss what
    has to be looked up in the lake. While the index is away nothing is dropped.
    """
    # The marks before quarantine is looked at: they only grow.
    view = lake.view(collection)
    marks = view.marks if view is not None else ()
    before = first_kept(keep_days, now)
    found = due(lake, collection, keep_days=keep_days, now=now)
    if not found.days:
        _drop_closings(lake, collection, before, marks)
        return NOTHING_DROPPED
    try:
        unindex(before * DAY)
    except Unavailable as error:
        log.warning("old days are kept for now", collection=str(collection), reason=str(error))
        return Dropped(pinned_by=found.pinned_by, postponed=str(error))
    rows = drop_days(lake, main_table(collection), before=before)
    quarantined = drop_days(lake, quarantine_table(collection), before=before, landed=marks)
    _drop_closings(lake, collection, before, marks)
    try:
        stats().forget_before(collection, before * DAY)
    except Unavailable as error:
        # They are asked again when the next day is dropped.
        log.warning("statistics keep old days", collection=str(collection), reason=str(error))
    for name in found.pinned_by:
        log.warning(
            "dropped days stay on disk while they are pinned", collection=str(collection), by=name
        )
    return Dropped(
        days=len(found.days), rows=rows, quarantined=quarantined, pinned_by=found.pinned_by
    )


def _drop_closings(
    lake: Lake, collection: CollectionId, before: int, marks: Iterable[Mark]
) -> None:
    """Drop how events were closed, of days of which quarantine has none any more.

    After them, never before: an event whose closing is gone looks open, and would be released a
    second time. One beyond the marks is closed before quarantine has it.
    """
    left = old_days(lake, quarantine_table(collection), before=before)
    spared = frozenset(one.day for one in left.days)
    drop_days(lake, closed_table(collection), before=before, landed=marks, spared=spared)
