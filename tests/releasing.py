"""A quarantine to work on: a log, a lake, the search over both, and a door that appends to the log.

And the checker of releases: it counts the rows of both tables by event, closed ones apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from balance import compare
from builders import FLIGHTS, NOON
from evidence.sheet import found

from assets.landing import Landing
from assets.release import Asked, Done, Workplace
from lakehouse import Lake
from lakehouse.catalog import closed_table, main_table, quarantine_table
from lakehouse.sql import Engine
from penstock.envelope import CollectionId, Event
from penstock.quarantine.repair import Repair
from penstock.schema.convert import Rules
from penstock.search.embedded import EmbeddedSearcher

ALL = Asked(collection=FLIGHTS)


class AppendingDoor:
    """Takes released events to a log as a door does: received now, durable when it answers."""

    def __init__(self, append: Callable[[CollectionId, Sequence[Event]], Any]) -> None:
        self._append = append
        self.sent: list[Event] = []
        self.refuses: dict[str, str] = {}

    def send(self, collection: CollectionId, events: Sequence[Event]) -> Sequence[str | None]:
        """Append those that are not refused."""
        good = [event for event in events if event.id not in self.refuses]
        at = NOON + 3_600_000_000
        received = [msgspec.structs.replace(event, received_at=at) for event in good]
        if received:
            self._append(collection, received).result(10)
        self.sent += good
        return [self.refuses.get(event.id) for event in events]


def workplace(lake: Lake, log: Any, engine: Engine, *, rules: Rules | None = None) -> Workplace:
    """Answer the workplace over a lake and a log."""
    known = rules or Rules()
    searcher = EmbeddedSearcher(
        lake, log, engine, rules=lambda _: known, clock=lambda: NOON + 7_200_000_000
    )
    return Workplace(lake, log, searcher, rules=lambda _: known, clock=lambda: NOON)


def release_all(
    work: Workplace,
    door: AppendingDoor,
    repair: Repair,
    *,
    asked: Asked = ALL,
    release: str = "r1",
    by: str = "ann",
    limit: int = 3,
) -> list[Done]:
    """Release page by page, as the command does."""
    pages: list[Done] = []
    cursor = None
    while True:
        page = work.release(
            asked, repair, release=release, by=by, door=door, limit=limit, cursor=cursor
        )
        pages.append(page)
        cursor = page.cursor
        if cursor is None:
            return pages


def land_all(landing: Landing, collection: CollectionId = FLIGHTS) -> None:
    """Land until nothing waits."""
    while landing.land_once(collection):
        pass


@dataclass(frozen=True)
class Books:
    """How often each event is there, by its id: as a row, open in quarantine, and closed there."""

    rows: Counter[str]
    open: Counter[str]
    closed: Counter[str]
    positions: int

    def each_once(self, ids: Sequence[str]) -> None:
        """Fail unless each of these events is one row or one open quarantined event."""
        there = (self.rows + self.open).elements()
        found(tables=compare(dict.fromkeys(ids), ((one, None) for one in there)))


def books(lake: Lake, collection: CollectionId = FLIGHTS) -> Books:
    """Read the tables themselves, all of them."""
    places = ("event_id", "log_partition", "log_offset")
    rows, aside, closed = (
        [tuple(row[name] for name in places) for row in _read(lake, table, places)]
        for table in (
            main_table(collection),
            quarantine_table(collection),
            closed_table(collection),
        )
    )
    # A position that is closed twice would hide that two releases both counted.
    if len(closed) != len(set(closed)):
        raise AssertionError("a position is closed twice")
    shut = {row[1:] for row in closed}
    return Books(
        rows=Counter(row[0] for row in rows),
        open=Counter(row[0] for row in aside if row[1:] not in shut),
        closed=Counter(row[0] for row in aside if row[1:] in shut),
        positions=len(rows) + len(aside),
    )


def _read(lake: Lake, name: tuple[str, ...], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    table = lake.table(name)
    return [] if table is None else table.scan(selected_fields=columns).to_arrow().to_pylist()


def closings(lake: Lake, collection: CollectionId = FLIGHTS) -> list[dict[str, Any]]:
    """Answer how events were closed, in the order of the log."""
    table = lake.table(closed_table(collection))
    rows = [] if table is None else table.scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: (row["log_partition"], row["log_offset"]))
