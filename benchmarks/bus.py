"""A month of flights and orders, landed and tended as in life: made once, and kept for later runs.

Two of three events are departures from New York, whose years are moved on from one round of them to
the next; the others are shop orders, which go wrong in every way orders do. Everything is in one
collection, so that each question goes over all of it.

A home cannot be moved, for its tables name their files. So a kept one is set back in place.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from assets.stores import Stores, opened
from assets.upkeep import Notes, aims_of, tend
from benchmarks.data import event_id
from lakehouse.sql import open_engine
from penstock.buffer import Appender, open_appender
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId, Event, Micros
from penstock.samples import flights, orders
from penstock.search.filters import Filters
from penstock.search.keeping import Keeping
from penstock.settings import Settings, load_settings

COLLECTION = CollectionId(DEFAULT_TEAM, "bus")
ROWS = 2_000_000
DAYS = 30
_HOUR: Micros = 3_600 * 1_000_000
_DAY: Micros = 24 * _HOUR

# Landings of a day, which upkeep merges, and of the last hour, which it leaves alone.
_A_DAY = 6
_LAST_HOUR = 20
_BATCH = 1_000
_FORM = 2
"""Another number for other data: what was kept of the one before is not used."""


@dataclass(frozen=True)
class Bus:
    """A home with the events in it; `end` is when the last of them was received."""

    settings: Settings
    rows: int
    end: Micros

    @property
    def begin(self) -> Micros:
        """When the first of them was received."""
        return self.end - DAYS * _DAY


def kept_bus(environ: Mapping[str, str], folder: Path, *, rows: int = ROWS) -> Bus:
    """Answer the home as it was made.

    It is kept in ``BENCH_KEPT`` if that is set, otherwise made in `folder`. It has as many events
    as ``BENCH_ROWS`` says, or else `rows`.
    """
    rows = int(environ.get("BENCH_ROWS", rows))
    place = Path(environ.get("BENCH_KEPT", folder)) / f"bus-{_FORM}-{rows}"
    home, made = place / "home", place / "made"
    told = place / "made.json"
    if not told.exists():
        shutil.rmtree(place, ignore_errors=True)
        bus = _make(home, rows)
        _copy(home, made)
        told.write_text(json.dumps({"end": bus.end}))
        return bus
    shutil.rmtree(home, ignore_errors=True)
    _copy(made, home)
    return Bus(load_settings(home, {}), rows, json.loads(told.read_text())["end"])


def filters_of(bus: Bus) -> Filters:
    """Answer the filters of the home's data files."""
    return Filters(bus.settings.home / "filters")


def make_filters(bus: Bus, stores: Stores) -> int:
    """Make the filters that are missing, as the platform does beside everything else; how many."""
    engine = open_engine(bus.settings.home / "sql", memory="1GB", threads=1)
    with closing(engine):
        return Keeping(stores.lake, filters_of(bus), engine, most_bytes=1 << 30).keep(COLLECTION)


def one_after_the_other() -> Iterator[Event]:
    """Answer the events without ids and times, without end."""
    flown, ordered = _flights(), _orders()
    while True:
        yield next(flown)
        yield next(flown)
        yield next(ordered)


def placed(event: Event, place: int, at: Micros) -> Event:
    """Answer an event as it is received."""
    return Event(
        id=event_id(place),
        received_at=at,
        payload=event.payload,
        source="http",
        content_type=event.content_type,
        key=event.key,
        headers=event.headers,
    )


def _flights() -> Iterator[Event]:
    for year in itertools.count(2013):
        for payload in flights.events("flights"):
            moved = payload.replace(b'"year":2013', b'"year":%d' % year, 1)
            moved = moved.replace(b'"time_hour":"2013', b'"time_hour":"%d' % year, 1)
            yield Event(
                id="", received_at=0, payload=moved, source="http", content_type="application/json"
            )


def _orders() -> Iterator[Event]:
    for seed in itertools.count(13):
        for order in orders.orders(ROWS, seed=seed):
            yield Event(
                id="",
                received_at=0,
                payload=order.payload,
                source="http",
                content_type=order.content_type,
                key=order.key,
                headers=tuple((name, value.encode()) for name, value in order.headers),
            )


def _make(home: Path, rows: int) -> Bus:
    settings = load_settings(home, {})
    home.mkdir(parents=True)
    end = machine_clock() // _HOUR * _HOUR
    begin = end - DAYS * _DAY
    source = one_after_the_other()
    last_hour = rows - rows // (DAYS * 24)
    bounds = [rows * part // (DAYS * _A_DAY) for part in range(DAYS * _A_DAY)]
    bounds += [last_hour + (rows - last_hour) * part // _LAST_HOUR for part in range(_LAST_HOUR)]
    with opened(settings) as stores:
        appender = open_appender(settings.log)
        try:
            notes = Notes()
            for first, beyond in itertools.pairwise([*sorted(set(bounds)), rows]):
                _append(appender, source, first, beyond, begin, DAYS * _DAY / rows)
                _land(stores)
                if beyond * DAYS // rows > first * DAYS // rows:
                    notes = _tend(stores, notes, begin + beyond * DAYS // rows * _DAY)
            _tend(stores, notes, end)
        finally:
            appender.close()
    return Bus(settings, rows, end)


def _append(
    appender: Appender,
    source: Iterator[Event],
    first: int,
    beyond: int,
    begin: Micros,
    step: float,
) -> None:
    for start in range(first, beyond, _BATCH):
        events = [
            placed(next(source), place, begin + round(place * step))
            for place in range(start, min(start + _BATCH, beyond))
        ]
        appender.append(COLLECTION, events).result(30)


def _land(stores: Stores) -> None:
    landing = stores.landing()
    while landing.land_once(COLLECTION) is not None:
        pass


def _tend(stores: Stores, notes: Notes, now: Micros) -> Notes:
    return tend(
        stores.lake,
        COLLECTION,
        aims=aims_of(stores.settings),
        notes=notes,
        clock=lambda: now,
        chance=os.urandom,
    ).notes


def _copy(source: Path, target: Path) -> None:
    """Copy a home; files of the tables never change, so they are shared."""

    def copy(one: str, other: str) -> str:
        if "/lake/" in one and one.endswith((".parquet", ".avro", ".metadata.json")):
            os.link(one, other)
            return other
        return str(shutil.copy2(one, other))

    shutil.copytree(source, target, copy_function=copy)
