"""Plans of replays over ten million events: how long somebody waits to be told what would be sent.

A plan is made as the API makes it for `penstock replay plan`, from the look at the log to its first
and last event. Beside it DuckDB counts the same rows in the same files. Cold is with the files in
no cache and a database that knows nothing; then each is asked again and again.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from assets.stores import Stores, opened
from assets.upkeep import Notes, aims_of, tend
from benchmarks.data import append
from benchmarks.measure import Facts, percentile
from lakehouse.files import path_of
from lakehouse.sql import open_engine
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, Clock, CollectionId, Micros
from penstock.settings import Settings, load_settings
from replay.plan import Planner
from replay.request import read_request

COLLECTION = CollectionId(DEFAULT_TEAM, "readings")
ROWS = 10_000_000
SHORT_ROWS = 1_000_000
DAYS = 30
COLD = 5
WARM = 10
MOST_SECONDS = 3.0
"""So long may a plan of a condition on a field take, 95 of 100 times."""

_DAY: Micros = 24 * 3_600 * 1_000_000
_SITES = 100
_KINDS = ("temperature", "humidity", "pressure", "wind")


@dataclass(frozen=True)
class Asked:
    """Which events, and its condition as somebody writes it who knows the table."""

    name: str
    query: str
    plain: str


ASKED = (
    Asked("some twenty", "sensor:s-0004217", "data.sensor = 's-0004217'"),
    Asked("1 %", "site:site-17", "data.site = 'site-17'"),
    Asked(
        "0.1 % by two fields",
        "kind:wind AND reading:>=996",
        "data.kind = 'wind' AND data.reading >= 996",
    ),
    Asked("everything", "", "true"),
)


def results(folder: Path, rows: int = ROWS) -> Iterator[Facts]:
    """Measure plans of each kind; ``BENCH_KEPT`` keeps the events, ``BENCH_ROWS`` says how many."""
    rows = int(os.environ.get("BENCH_ROWS", rows))
    settings = _kept(Path(os.environ.get("BENCH_KEPT", folder)) / f"readings-1-{rows}", rows)
    with opened(settings) as stores, _plainly(stores, settings) as plain:
        for asked in ASKED:
            cold, warm, beside = list[float](), list[float](), list[float]()
            counts = set[int]()
            for _ in range(COLD):
                _forget(settings)
                with _planning(stores, settings) as planner:
                    cold.append(_planned(planner, asked, counts))
            with _planning(stores, settings) as planner:
                _planned(planner, asked, counts)
                for _ in range(WARM):
                    warm.append(_planned(planner, asked, counts))
                    beside.append(_counted(plain, asked, counts))
            if len(counts) != 1:
                raise RuntimeError(f"the counts of {asked.query!r} differ: {sorted(counts)}")
            yield _facts(asked, rows, counts.pop(), cold, warm, beside)


def short(folder: Path) -> Iterator[Facts]:
    """Measure it over fewer events."""
    yield from results(folder, SHORT_ROWS)


def _facts(
    asked: Asked,
    rows: int,
    found: int,
    cold: list[float],
    warm: list[float],
    beside: list[float],
) -> Facts:
    figures = {
        "events": found,
        "p50 s": percentile(warm, 0.5),
        "p95 s": percentile(warm, 0.95),
        "cold p50 s": percentile(cold, 0.5),
        "cold p95 s": percentile(cold, 0.95),
        "DuckDB p50 s": percentile(beside, 0.5),
        "DuckDB p95 s": percentile(beside, 0.95),
    }
    short = [
        f"{name} {figures[name]:.1f} > {MOST_SECONDS:g}"
        for name in ("p95 s", "cold p95 s")
        if figures[name] > MOST_SECONDS
    ]
    return Facts(f"plan of a replay, {rows:,} events: {asked.name}", figures, short)


@contextmanager
def _planning(stores: Stores, settings: Settings) -> Iterator[Planner]:
    """Answer a planner as the platform has it, over a database that knows nothing yet."""
    engine = open_engine(settings.home / "sql", memory=settings.sql_memory, s3=settings.s3)
    with closing(engine):
        yield Planner(stores.lake, stores.buffer, engine, clock=machine_clock)


def _planned(planner: Planner, asked: Asked, counts: set[int]) -> float:
    """Make a plan that keeps nothing; add what it counted, and answer the seconds that it took."""
    fields = {"collection": COLLECTION.name, "destination": "nowhere", "query": asked.query}
    request = read_request(fields, team=COLLECTION.team)
    begun = time.perf_counter()
    plan = planner.plan(request, wake=lambda _: None)
    seconds = time.perf_counter() - begun
    counts.add(plan.count)
    return seconds


def _counted(plain: duckdb.DuckDBPyConnection, asked: Asked, counts: set[int]) -> float:
    begun = time.perf_counter()
    row = plain.execute(f"SELECT count(*) FROM rows WHERE {asked.plain}").fetchone()
    seconds = time.perf_counter() - begun
    counts.add(row[0] if row else 0)
    return seconds


@contextmanager
def _plainly(stores: Stores, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """Answer DuckDB with the current files of the table, and nothing of ours."""
    table = stores.lake.table((COLLECTION.team, COLLECTION.name))
    assert table is not None
    files = [path_of(task.file.file_path) for task in table.scan().plan_files()]
    with duckdb.connect(config={"memory_limit": settings.sql_memory, "threads": 2}) as plain:
        source = f"read_parquet({files!r}, union_by_name := true)"
        plain.execute(f"CREATE VIEW rows AS SELECT * FROM {source}")
        yield plain


def _forget(settings: Settings) -> None:
    """Have the system let go of what it holds of the table's files."""
    for file in (settings.home / "lake").rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _kept(place: Path, rows: int) -> Settings:
    """Answer the settings of a home with the events in it; it is made if it is not there."""
    home, made = place / "home", place / "made"
    settings = load_settings(home, {})
    if not made.exists():
        shutil.rmtree(place, ignore_errors=True)
        _make(settings, rows)
        made.touch()
    return settings


def _make(settings: Settings, rows: int) -> None:
    """Have events received, landed and tended day by day, as in life, though small and quickly."""
    settings.home.mkdir(parents=True)
    begin = machine_clock() // _DAY * _DAY - DAYS * _DAY
    chance = random.Random(7)
    with opened(settings) as stores:
        notes = Notes()
        for day in range(DAYS):
            first, beyond = (rows * each // DAYS for each in (day, day + 1))
            append(
                settings.log,
                COLLECTION,
                _readings(first, beyond, chance),
                received_at=lambda place: begin + place * DAYS * _DAY // rows,
                first=first,
            )
            landing = stores.landing()
            while landing.land_once(COLLECTION) is not None:
                pass
            now = begin + (day + 1) * _DAY
            notes = tend(
                stores.lake,
                COLLECTION,
                aims=aims_of(settings),
                notes=notes,
                clock=_at(now),
                chance=os.urandom,
            ).notes


def _at(now: Micros) -> Clock:
    return lambda: now


def _readings(first: int, beyond: int, chance: random.Random) -> Iterator[bytes]:
    """Answer small payloads: some twenty of each sensor, 1 % of each site."""
    sensors = max(1, ROWS // 20)
    for number in range(first, beyond):
        sensor, site = chance.randrange(sensors), chance.randrange(_SITES)
        kind, reading = _KINDS[number % len(_KINDS)], chance.randrange(10_000) / 10
        yield (
            b'{"sensor":"s-%07d","site":"site-%d","kind":"%s","reading":%.1f,"number":%d}'
            % (sensor, site, kind.encode(), reading, number)
        )
