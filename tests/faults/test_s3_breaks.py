"""Landing, upkeep and readers behind an S3 store that refuses, waits, cuts and ends too early.

Files are sent as one PUT each, whatever their size, so no upload in parts can be left unfinished:
that none was begun is looked at all the same, on the way and in the store.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from balance import Findings, compare
from builders import FLIGHTS, NOON
from engines.fresh import fresh_name
from engines.places import BUCKET, S3_PORT
from evidence.sheet import found, happened
from lakes import BROKEN, HASTY, MAIN, QUARANTINE, STORE, append, landing, log_of, store_at, stored
from unsteady import Break, Unsteady
from warehouses import in_warehouse, needed

from assets.checks import check_conservation, check_marks
from assets.upkeep import Aims, Notes, tend
from lakehouse import Lake, open_lake, tables
from lakehouse.catalog import open_catalog
from lakehouse.listing import Listing
from lakehouse.s3 import Upload, store_of
from lakehouse.sql import open_engine
from lakehouse.upkeep import DAY, ORPHAN_AGE, sweep_orphans
from penstock.errors import EngineUnavailable, TableChanged
from replay.plan import Planner
from replay.progress import Progress
from replay.request import read_request
from replay.run import _source

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1_200)]

BATCHES, EVENTS = 24, 10
EACH = 4
"""After so many batches files are merged and swept, and everything is read."""

OFTEN: dict[Break, float] = {
    "refusals": 0.06,
    "pauses of two seconds": 0.01,
    "cut requests": 0.04,
    "cut answers": 0.05,
    "answers that end early": 0.06,
}

TRIES = 50

AIMS = Aims(keep=3, below=1 << 20, target=2 << 20)

Done = TypeVar("Done")


def insist(act: Callable[[], Done]) -> Done:
    """Do it until it is done: what cannot be done now says so, and raises nothing else."""
    for _ in range(TRIES):
        with suppress(EngineUnavailable):
            return act()
    raise TimeoutError("nothing gets through any more")


def payload(number: int) -> bytes:
    if number % 7 == 0:
        return BROKEN
    return b'{"n": %d, "of %d": "%s"}' % (number, number // EVENTS % 5, b"x" * (number % 50))


def number_of(payload: bytes) -> int:
    return int(msgspec.json.decode(payload)["n"])


class World:
    """A lake whose catalog is here and whose files are behind the way; `steady` goes around it."""

    def __init__(self, folder: Path, way: Unsteady) -> None:
        catalog_url = f"sqlite:///{folder / 'catalog.db'}"
        self.warehouse_url = f"s3://{BUCKET}/{fresh_name('breaks')}"
        self.way = way
        store = store_at(f"http://127.0.0.1:{way.port}")
        self.steady = open_lake(catalog_url, self.warehouse_url, STORE)
        self.lake = Lake(open_catalog(catalog_url, self.warehouse_url, store), HASTY)
        self.engine = open_engine(folder / "sql", memory="200MB", s3=store)
        self.log = log_of()
        self.landing = landing(self.log, self.lake)
        self.notes = Notes()
        self.now = NOON
        self.told: dict[int, bytes] = {}

    def land(self) -> None:
        """Land one more batch."""
        first = len(self.told)
        batch = {number: payload(number) for number in range(first, first + EVENTS)}
        append(self.log, *batch.values())
        self.told |= batch
        while insist(lambda: self.landing.land_once(FLIGHTS)):
            pass

    def tend(self) -> tuple[int, int]:
        """Merge, expire and sweep two days later; answer how many files were merged and deleted."""
        self.now += 2 * DAY
        done = insist(
            lambda: tend(
                self.lake,
                FLIGHTS,
                aims=AIMS,
                notes=self.notes,
                clock=lambda: self.now,
                chance=os.urandom,
            )
        )
        self.notes = done.notes
        return done.compacted.read, done.deleted

    def sweep(self) -> None:
        """Sweep until all is gone that nothing refers to."""
        for name in (MAIN, QUARANTINE):
            seen = insist(partial(sweep_orphans, self.lake, name, {}, self.now)).seen
            insist(partial(sweep_orphans, self.lake, name, seen, self.now + ORPHAN_AGE))

    def read(self) -> dict[str, Findings]:
        """Compare what each reader answers with what was landed."""
        rows = {n: payload for n, payload in self.told.items() if payload != BROKEN}
        return {
            "scan": compare(self.told, insist(self.scanned)),
            "replay": compare(self.told, self.replay()),
            "search": compare(rows, insist(self.single)),
        }

    def scanned(self) -> list[tuple[int, bytes]]:
        """Answer the rows of both tables."""
        try:
            return stored(self.lake)
        except OSError as error:
            raise EngineUnavailable("PyIceberg could not read a data file") from error

    def replay(self) -> list[tuple[int, bytes]]:
        """Answer what replays of everything send."""
        return [*self.replayed("main"), *self.replayed("quarantine")]

    def replayed(self, view: str) -> list[tuple[int, bytes]]:
        """Answer what a replay of everything sends; one that breaks off is taken over."""
        planner = Planner(self.lake, self.log, self.engine, clock=lambda: NOON)
        asked = {"collection": FLIGHTS.name, "destination": "d1", "view": view}
        request = read_request(asked, team=FLIGHTS.team)
        plan = insist(lambda: planner.plan(request, wake=lambda _: None))
        matches = insist(lambda: planner.open(request, plan))
        assert matches is not None
        buckets = insist(matches.buckets)
        sent: list[tuple[int, bytes]] = []
        progress = Progress()

        async def send() -> None:
            nonlocal progress
            async for batch in _source(matches, buckets, progress, plan):
                sent.extend((one.position.offset, one.event.payload) for one in batch)
                progress = Progress(through=batch.position(-1), passed=len(sent))

        insist(lambda: asyncio.run(send()))
        return sent

    def single(self) -> list[tuple[int, bytes]]:
        """Answer the payloads of the table as searches take single ones out of files."""
        view = self.lake.view(FLIGHTS)
        assert view is not None
        listing = Listing(self.lake)
        files = listing.files(view)
        assert files is not None
        payloads = (listing.payloads(file, range(file.rows)) or [] for file in files)
        return [(number_of(one), one) for some in payloads for one in some]

    def tables(self) -> Findings:
        """Compare what the tables have with what was landed, around the way."""
        return compare(self.told, stored(self.steady))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Unsteady(S3_PORT, Random(11)) as way:
        made = World(tmp_path, way)
        yield made
        made.engine.close()


@pytest.mark.breaks("requests to the object store and its answers, one in five")
def test_a_store_that_breaks_loses_doubles_and_alters_nothing(world: World) -> None:
    """And leaves nothing: a file is in a snapshot, or the sweep takes it."""
    world.way.often = OFTEN
    merged = deleted = 0

    for number in range(BATCHES):
        world.land()
        if number % EACH == EACH - 1:
            some = world.tend()
            merged, deleted = merged + some[0], deleted + some[1]
            found(**world.read())
    world.sweep()

    for broken in OFTEN:
        assert world.way.happened[broken], f"no {broken}"
        happened(broken, world.way.happened[broken])
    assert merged
    assert deleted
    found(tables=world.tables())
    assert check_conservation(world.steady, FLIGHTS, world.log.log_id(FLIGHTS)).passed
    assert check_marks(world.log, world.steady, FLIGHTS).passed
    there = ((file, None) for file in in_warehouse(world.steady, world.warehouse_url))
    found(warehouse=compare(dict.fromkeys(needed(world.steady)), there))
    assert world.way.begun_in_parts == []
    below = world.warehouse_url.removeprefix(f"s3://{BUCKET}/")
    parts = store_of(STORE).client.list_multipart_uploads(Bucket=BUCKET, Prefix=below)
    assert parts.get("Uploads", []) == []


@pytest.mark.breaks("requests to the object store and its answers, three in five")
@pytest.mark.parametrize(
    "broken", ["refusals", "cut requests", "cut answers", "answers that end early"]
)
def test_a_store_that_mostly_breaks_ends_no_process(
    world: World, tmp_path: Path, broken: Break
) -> None:
    """The engine by itself would end this one: it reads Avro with code that bears no error."""
    for _ in range(3):
        world.land()
    view = world.lake.view(FLIGHTS)
    world.way.often = {broken: 0.6}

    def rows() -> list[tuple[int, bytes]]:
        # An engine that knows nothing yet has to read all of it.
        engine = open_engine(
            tmp_path, memory="100MB", s3=store_at(f"http://127.0.0.1:{world.way.port}")
        )
        with closing(engine), engine.reader() as reader:
            found = reader.rows(f"SELECT log_offset, payload FROM {reader.lake(view)}")
        return list(zip(*(column.to_pylist() for column in found.columns), strict=True))

    for _ in range(8):
        with suppress(EngineUnavailable):
            rows()
    world.way.often = {}
    happened(broken, world.way.happened[broken])
    told = {number: one for number, one in world.told.items() if one != BROKEN}
    found(rows=compare(told, rows()))


def ends_where_it_breaks(patch: pytest.MonkeyPatch) -> None:
    """Take what came of a file before its answer ended early for all that is in it."""
    real = tables.batches

    def batches(*arguments: Any, **more: Any) -> Iterator[Any]:
        try:
            yield from real(*arguments, **more)
        except OSError:
            return

    patch.setattr(tables, "batches", batches)


def believes_it_was_sent(patch: pytest.MonkeyPatch, way: Unsteady) -> None:
    """Take a data file for one that is there although the store did not say so.

    From then on the store answers, so that what is missing is all that is wrong.
    """
    real = Upload._send

    def send(upload: Upload) -> None:
        try:
            real(upload)
        except EngineUnavailable:
            if not upload._location.endswith(".parquet"):
                raise
            upload.size = len(upload.getbuffer())
            way.often = {}

    patch.setattr(Upload, "_send", send)


def test_who_takes_what_came_of_a_file_for_all_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what a replay misses, of which it knows how much it is."""
    for _ in range(2):
        world.land()
    ends_where_it_breaks(monkeypatch)
    world.way.often = {"answers that end early": 0.4}

    def look() -> None:
        for _ in range(TRIES):
            found(replay=compare(world.told, world.replay()))

    with pytest.raises((AssertionError, TableChanged)):
        look()


def test_who_takes_a_file_for_sent_that_was_not_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the file that a table names and nobody has: where landing needs it, it waits for ever."""
    world.way.often = {"refusals": 0.6}
    believes_it_was_sent(monkeypatch, world.way)

    def look() -> None:
        for _ in range(TRIES):
            world.land()
            found(tables=world.tables())

    with pytest.raises((FileNotFoundError, TimeoutError)):
        look()
