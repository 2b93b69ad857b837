"""A table of very many small commits, with upkeep beside, and a fresh one with the same rows.

The clock is simulated, so that the commits span days and upkeep comes when its schedule has it.
What a clock cannot be told is measured as it is: how long a commit and a question take.

It runs on what ``PENSTOCK_SETTINGS`` names, embedded without; there must be no such tables yet.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from assets.landing import Landing
from assets.stores import Stores, opened, sql_of
from assets.upkeep import Notes, aims_of, tend
from benchmarks.data import event_id, nested
from benchmarks.measure import Facts, Figure, Question, Result, asked_together
from lakehouse.catalog import main_table, quarantine_table
from lakehouse.files import Files
from lakehouse.sql import Engine, Limits, Sql, open_engine
from lakehouse.sql.tables import LakeTables
from lakehouse.upkeep import DAY, HOUR, ORPHAN_AGE, candidates
from penstock.buffer import Appender, open_appender
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId, Event, Micros
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher
from penstock.settings import load_settings

COMMITS = 3_000
EVENTS = 20
"""Of a commit."""
STEP: Micros = 120 * 1_000_000
"""From one commit to the next: 3,000 of them span four days."""
TEND_EVERY: Micros = 600 * 1_000_000
PARTS = 10
"""Lines about the growing table; in the last part it is compared with a fresh one."""
PAIRS = 50
"""Commits into the fresh table, each beside one into the old."""

MOST_SNAPSHOTS = 60
MOST_SMALL = 6
"""Files below half the target, outside the newest hour, of the day that goes on."""
TARGET_BYTES = 1 << 20
"""Small, as the events are: four days of them fill some whole files."""
SLOWER = 1.5
_QUICK = 10

OLD = CollectionId(DEFAULT_TEAM, "old")
FRESH = CollectionId(DEFAULT_TEAM, "fresh")

_RARE = "gadolinium"
_RARE_EVERY = 1_000
_AGGREGATE = "SELECT data.customer.address.city, count(*), avg(data.total) FROM {} GROUP BY 1"


def results(folder: Path) -> Iterator[Result | Question | Facts]:
    """Measure everything: it takes some five minutes."""
    yield from measured(folder, commits=COMMITS)


def short(folder: Path) -> Iterator[Result | Question | Facts]:
    """Measure a tenth of the commits, ten times as large and as far apart, in two parts."""
    yield from measured(
        folder, commits=COMMITS // _QUICK, events=EVENTS * _QUICK, step=STEP * _QUICK, parts=2
    )


@dataclass
class _Part:
    """What happened in a part of the commits."""

    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    landed: int = 0
    rewritten: int = 0
    tended: list[float] = field(default_factory=list)

    @property
    def middle(self) -> Figure:
        """The commit in the middle."""
        return Figure(1, statistics.median(self.walls), statistics.median(self.cpus))


def measured(
    folder: Path, *, commits: int, events: int = EVENTS, step: Micros = STEP, parts: int = PARTS
) -> Iterator[Result | Question | Facts]:
    """Commit, tend, look at the table after each part, then compare it with a fresh one."""
    settings = load_settings(
        folder, compact_to_bytes=TARGET_BYTES, compact_below_bytes=TARGET_BYTES // 2
    )
    folder.mkdir(exist_ok=True)
    first = (machine_clock() // DAY - 30) * DAY
    part_size = commits // parts
    payloads = _payloads()
    with (
        opened(settings) as stores,
        closing(open_appender(settings.log)) as appender,
        closing(
            open_engine(settings.home / "sql", memory=settings.sql_memory, s3=settings.s3)
        ) as engine,
        closing(sql_of(settings, engine)) as sql,
    ):
        table = _Tables(stores, stores.landing(), appender, payloads, first, step, events)
        total = _Part()
        for start in range(0, commits - part_size, part_size):
            part = _Part()
            for number in range(start, start + part_size):
                table.commit(OLD, number, part)
            yield _grown(table, f"upkeep: commits {start:,} to {start + part_size:,}", part)
            total.landed += part.landed
            total.rewritten += part.rewritten

        table.fill(FRESH, 0, commits - part_size)
        part, fresh = _Part(), _Part()
        every = max(1, part_size // PAIRS)
        for number in range(commits - part_size, commits):
            table.commit(OLD, number, part)
            if number % every == 0:
                table.commit(FRESH, number, fresh)
            else:
                table.append(FRESH, number, 1)
        table.fill(FRESH, commits, 0)
        yield _grown(table, f"upkeep: commits {commits - part_size:,} to {commits:,}", part)
        total.landed += part.landed
        total.rewritten += part.rewritten

        yield Result(
            f"upkeep: a commit after {commits:,} (median of {len(part.walls)})",
            part.middle,
            "a commit into a fresh table of the same rows",
            fresh.middle,
            by="per_second",
            floor_ratio=1 / SLOWER,
            note=f"{events} events a commit",
        )
        yield from _asked(stores, engine, sql, rows=commits * events)
        yield _verdict(table, total, commits)


class _Tables:
    """Two tables of one lake, and the time that both live in."""

    def __init__(
        self,
        stores: Stores,
        landing: Landing,
        appender: Appender,
        payloads: Sequence[bytes],
        first: Micros,
        step: Micros,
        events: int,
    ) -> None:
        self.stores = stores
        self.now = first
        self._landing = landing
        self._appender = appender
        self._payloads = payloads
        self._first = first
        self._step = step
        self._events = events
        self._notes: dict[CollectionId, Notes] = {}

    def append(self, collection: CollectionId, number: int, commits: int) -> None:
        """Put the events of so many commits on the log, as they were received then."""
        for one in range(number, number + commits):
            at = self._first + one * self._step
            events = [
                Event(
                    id=event_id(place),
                    received_at=at + place % self._events,
                    payload=self._payloads[place % len(self._payloads)],
                    source="http",
                    content_type="application/json",
                )
                for place in range(one * self._events, (one + 1) * self._events)
            ]
            self._appender.append(collection, events).result(30)

    def fill(self, collection: CollectionId, number: int, commits: int) -> None:
        """Land the events of so many commits, and what waits, in as few as it takes."""
        self.append(collection, number, commits)
        while self._landing.land_once(collection) is not None:
            pass

    def commit(self, collection: CollectionId, number: int, part: _Part) -> None:
        """Land the events of one commit when it is due, and tend the table when that is."""
        self.append(collection, number, 1)
        self.now = self._first + number * self._step
        wall, cpu = time.perf_counter(), time.process_time()
        landed = self._landing.land_once(collection)
        part.walls.append(time.perf_counter() - wall)
        part.cpus.append(time.process_time() - cpu)
        assert landed is not None
        part.landed += landed.file_bytes
        if number * self._step % TEND_EVERY < self._step:
            part.rewritten += self.tend(collection, part)

    def tend(self, collection: CollectionId, part: _Part) -> int:
        """Tend the table as the schedule does; answer the bytes that were written again."""
        wall = time.perf_counter()
        tended = tend(
            self.stores.lake,
            collection,
            aims=aims_of(self.stores.settings),
            notes=self._notes.get(collection, Notes()),
            clock=lambda: self.now,
            chance=os.urandom,
        )
        part.tended.append(time.perf_counter() - wall)
        self._notes[collection] = tended.notes
        return tended.compacted.bytes

    def files(self) -> list[tuple[Micros, int]]:
        """Answer of each data file of the old table when its newest event came, and its size."""
        table = self.stores.lake.table(main_table(OLD))
        assert table is not None
        found = candidates(table, table.scan().plan_files())
        return [(file.newest, file.bytes) for file in found]

    def snapshots(self) -> int:
        """Answer how many snapshots the old table has."""
        table = self.stores.lake.table(main_table(OLD))
        assert table is not None
        return len(table.metadata.snapshots)

    def on_disk(self) -> set[str]:
        """Answer every file in the folders of the old table."""
        found: set[str] = set()
        for name in (main_table(OLD), quarantine_table(OLD)):
            table = self.stores.lake.table(name)
            assert table is not None
            found.update(cast("Files", table.io).list(table.location()))
        return found

    def needed(self) -> set[str]:
        """Answer every file that PyIceberg's own tables of a table's parts name."""
        found: set[str] = set()
        for name in (main_table(OLD), quarantine_table(OLD)):
            table = self.stores.lake.table(name)
            assert table is not None
            parts = table.inspect
            names = {table.metadata_location, *(s.manifest_list for s in table.snapshots())}
            names.update(entry.metadata_file for entry in table.metadata.metadata_log)
            if table.current_snapshot() is not None:
                names.update(parts.all_manifests()["path"].to_pylist())
                names.update(parts.all_files()["file_path"].to_pylist())
            found.update(names)
        return found


def _payloads() -> list[bytes]:
    """Answer the payloads that come again and again; one in a thousand has the rare word."""
    payloads = nested(10 * _RARE_EVERY)
    for place in range(_RARE_EVERY // 2, len(payloads), _RARE_EVERY):
        payloads[place] = payloads[place].replace(b"neighbour", _RARE.encode())
    return payloads


def _grown(table: _Tables, name: str, part: _Part) -> Result:
    """Say what the commits of a part took, and how the table is after it."""
    files, disk = table.files(), table.on_disk()
    return Result(
        name,
        Figure(len(part.walls), sum(part.walls), sum(part.cpus)),
        detail={
            "median ms": part.middle.wall * 1000,
            "data files": len(files),
            "MB in them": sum(size for _, size in files) / 1e6,
            "files on disk": len(disk),
            "snapshots": table.snapshots(),
            "bytes rewritten per byte landed": part.rewritten / part.landed,
            "median ms of upkeep": statistics.median(part.tended) * 1000 if part.tended else 0.0,
        },
    )


def _asked(stores: Stores, engine: Engine, sql: Sql, *, rows: int) -> Iterator[Question]:
    """Ask both tables the same, in turns."""
    tables = LakeTables(stores.lake, DEFAULT_TEAM)
    limits = Limits(stores.settings.sql_seconds, stores.settings.sql_rows)
    searcher = EmbeddedSearcher(
        stores.lake, stores.buffer, engine, rules=stores.rules, clock=machine_clock
    )

    def aggregate(collection: CollectionId) -> int:
        statement = _AGGREGATE.format(collection.name)
        return sum(sql.query(statement, tables, limits).rows.column(1).to_pylist())

    def word(collection: CollectionId) -> int:
        return len(searcher.search(SearchRequest(collection=collection, query=_RARE)).events)

    questions: Sequence[tuple[str, Callable[[CollectionId], int]]] = (
        ("an SQL aggregate", aggregate),
        ("a search of a word", word),
    )
    for name, ask in questions:
        ours, plain = asked_together(
            lambda ask=ask: ask(OLD),  # type: ignore[misc]  # bound now
            lambda ask=ask: ask(FRESH),  # type: ignore[misc]  # bound now
            seconds=8.0,
            most=100,
        )
        yield Question(
            f"upkeep: {name}", rows, ours, "a fresh table", plain, floor_ratio=1 / SLOWER
        )


def _verdict(table: _Tables, total: _Part, commits: int) -> Facts:
    """Say how the table is, and what is left on disk when the sweep's age has gone by."""
    snapshots, now = table.snapshots(), table.now
    settled = [(newest // DAY, size) for newest, size in table.files() if newest <= now - HOUR]
    days = {newest // DAY for newest, _ in table.files()}
    small = [day for day, size in settled if size < TARGET_BYTES // 2]
    today = small.count(now // DAY)
    # One sweep sees what nothing refers to; one that comes when its age has gone by deletes it.
    for _ in range(2):
        table.tend(OLD, total)
        table.now += ORPHAN_AGE + HOUR
    table.tend(OLD, total)
    disk, needed = table.on_disk(), table.needed()
    left, gone = [f for f in disk if f not in needed], [f for f in needed if f not in disk]
    short = []
    if snapshots > MOST_SNAPSHOTS:
        short.append(f"{snapshots} snapshots, not {MOST_SNAPSHOTS}")
    if len(small) > today:
        short.append(f"{len(small) - today} files of days that are over are below half the target")
    if today > MOST_SMALL:
        short.append(f"{today} small files outside the newest hour, not {MOST_SMALL}")
    if left:
        short.append(f"{len(left)} files on disk are needed by nothing, as {Path(left[0]).name}")
    if gone:
        short.append(f"{len(gone)} files are needed and not there")
    return Facts(
        f"upkeep: the table after {commits:,} commits",
        {
            "days": len(days),
            "snapshots": snapshots,
            "files outside the newest hour": len(settled),
            f"of them at least half of {TARGET_BYTES >> 20} MiB": len(settled) - len(small),
            "the rest of days that are over": len(small) - today,
            "the rest of today": today,
            "bytes rewritten per byte landed": total.rewritten / total.landed,
            "files on disk after the sweep's age": len(disk),
            "that nothing needs": len(left),
        },
        short,
    )
