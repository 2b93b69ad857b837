"""Lakes, logs and stand-ins for the tests of landing, its commit and its upkeep."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import FLIGHTS, NOON, event
from engines.places import BUCKET, S3, S3_KEY, S3_REGION, S3_SECRET
from evidence.sheet import happened
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.typedef import Identifier

from assets.landing import Landing, Lane, Limits
from lakehouse import Lake, TableView
from lakehouse.attempts import Patience
from lakehouse.catalog import main_table, open_catalog, quarantine_table
from lakehouse.commit import Batch, Committed, Stale, land
from lakehouse.optimize import Due, Ended
from lakehouse.upkeep import compact, expire
from penstock import faults
from penstock.buffer import Buffer, open_buffer
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId, Mark
from penstock.errors import BadSetting, EngineUnavailable
from penstock.schema.convert import Rules, convert
from penstock.settings import S3Options

MAIN = main_table(FLIGHTS)
QUARANTINE = quarantine_table(FLIGHTS)

BROKEN = b'{"never": "closed'
"""A payload that says it is JSON and is not, so that it goes to quarantine."""

HASTY = Patience(seconds=20.0, wait=lambda _seconds: None)


PLACES = ["here", pytest.param("engines", marks=pytest.mark.engines)]
"""Where a test's lake may be: in a folder, or in PostgreSQL and S3."""

_CONTEXT = multiprocessing.get_context("forkserver")
_ELSEWHERE = "lake-is-at"
_LOG = "log-is-at"
STORE = S3Options(
    endpoint=S3, region=S3_REGION, path_style=True, access_key=S3_KEY, secret_key=S3_SECRET
)
"""The object store of tests."""


def urls(folder: Path) -> tuple[str, str, S3Options | None]:
    """Answer where catalog and warehouse of a lake in the folder are, see `lake_at`."""
    elsewhere = folder / _ELSEWHERE
    if elsewhere.exists():
        catalog_url, warehouse_url = elsewhere.read_text().split()
        return catalog_url, warehouse_url, STORE
    return f"sqlite:///{folder / 'catalog.db'}", f"file://{folder / 'lake'}", None


def store_at(endpoint: str) -> S3Options:
    """Answer the options of a store like that of tests somewhere else."""
    return replace(STORE, endpoint=endpoint)


@contextmanager
def lake_at(place: str, folder: Path) -> Iterator[Path]:
    """Let the folder's lake be at one of `PLACES` for the block, for processes too."""
    if place == "here":
        yield folder
        return
    # Only who wants an engine needs its client.
    from engines.fresh import fresh_database

    with fresh_database() as catalog_url:
        tell_elsewhere(folder, catalog_url, f"s3://{BUCKET}/{catalog_url.rpartition('/')[2]}")
        yield folder


def tell_elsewhere(folder: Path, catalog_url: str, warehouse_url: str) -> None:
    """Let the folder's lake be one that is somewhere else."""
    (folder / _ELSEWHERE).write_text(f"{catalog_url} {warehouse_url}")


def tell_log(folder: Path, url: str) -> None:
    """Let the folder's log be one that is somewhere else."""
    (folder / _LOG).write_text(url)


def log_url(folder: Path) -> str:
    """Answer the address of the folder's log: in the folder, unless it was told to be elsewhere."""
    elsewhere = folder / _LOG
    return elsewhere.read_text() if elsewhere.exists() else f"embedded://{folder / 'log'}"


def new_lake(folder: Path, catalog: Callable[[Catalog], Any] = lambda real: real) -> Lake:
    """Answer a lake in the folder; `catalog` may put something before its catalog."""
    return Lake(catalog(open_catalog(*urls(folder))), HASTY)


def log_of(*payloads: bytes | str, collection: CollectionId = FLIGHTS) -> MemoryLog:
    """Answer a log with these events, each appended for itself."""
    log = MemoryLog()
    append(log, *payloads, collection=collection)
    return log


def append(log: MemoryLog, *payloads: bytes | str, collection: CollectionId = FLIGHTS) -> None:
    """Append events with these payloads."""
    first = log.extents(collection)[0].end
    for number, payload in enumerate(payloads, first):
        log.append(collection, [event(payload, id=f"e{number}", received_at=NOON + number)])


def numbered(count: int, first: int = 0) -> list[str]:
    """Answer payloads that differ by their `n`."""
    return [f'{{"n": {number}}}' for number in range(first, first + count)]


def landing(log: Buffer, lake: Lake, *, rules: Rules | None = None, **more: Any) -> Landing:
    """Answer a landing with a clock that stands still unless one is given."""
    more.setdefault("clock", lambda: NOON)
    return Landing(log, lake, rules=lambda _collection: rules or Rules(), **more)


def batch_of(
    log: MemoryLog, view: TableView, *, upto: int | None = None, rules: Rules | None = None
) -> Batch:
    """Read and convert what follows the view's mark; `upto` ends it before the log does."""
    start = view.mark(log.log_id(view.collection), 0)
    end = log.extents(view.collection)[0].end if upto is None else upto
    portion = log.read(view.collection, start, end=end, max_bytes=1 << 30)
    return Batch(
        converted=convert(portion.rows, view.shape, rules or Rules()),
        based_on=view,
        marks=(portion.mark,),
        batch_id=f"0-{start.next}-{portion.mark.next}",
        run_id=os.urandom(8).hex(),
    )


def put(lake: Lake, batch: Batch) -> Committed | Stale:
    """Land the batch at noon."""
    return land(lake, batch, clock=lambda: NOON)


def offsets(lake: Lake, *, quarantine: bool = False) -> list[int]:
    """Answer the log offsets of the rows that a table has, sorted; doubles stay doubles."""
    table = lake.table(QUARANTINE if quarantine else MAIN)
    rows = table.scan(selected_fields=("log_offset",)).to_arrow() if table else None
    return sorted(rows["log_offset"].to_pylist()) if rows else []


def everywhere(lake: Lake) -> Counter[int]:
    """Count the log offsets in both tables together."""
    return Counter(offsets(lake) + offsets(lake, quarantine=True))


def stored(lake: Lake, collection: CollectionId = FLIGHTS) -> list[tuple[int, bytes]]:
    """Answer where each event of both tables was on the log, and its payload."""
    both = (lake.table(name) for name in (main_table(collection), quarantine_table(collection)))
    return [
        (row["log_offset"], row["payload"])
        for table in both
        if table is not None
        for row in table.scan(selected_fields=("log_offset", "payload")).to_arrow().to_pylist()
    ]


def column(lake: Lake, name: str) -> list[Any]:
    """Answer a discovered column in the order of the log."""
    table = lake.table(MAIN)
    assert table is not None
    rows = table.scan().to_arrow().sort_by("log_offset")
    return [row.get(name) if row else None for row in rows["data"].to_pylist()]


def mark_of(lake: Lake) -> Mark:
    """Answer the mark of the main table."""
    view = lake.view(FLIGHTS)
    assert view is not None
    (mark,) = view.marks
    return mark


class Tampered:
    """A catalog to which something happens around a commit of a table.

    `before` is called with the number of the commit (from 1) before it is made, `after` when it
    was made; what they raise is what the committer sees.
    """

    def __init__(
        self,
        real: Catalog,
        *,
        before: Callable[[int], None] = lambda _number: None,
        after: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self.real = real
        self.commits = 0
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def commit_table(
        self, table: Table, requirements: tuple[Any, ...], updates: tuple[Any, ...]
    ) -> CommitTableResponse:
        self.commits += 1
        number = self.commits
        self._before(number)
        response = self.real.commit_table(table, requirements, updates)
        self._after(number)
        return response


class Counting(Tampered):
    """A catalog that counts the commits which met another one."""

    conflicts = 0

    def commit_table(
        self, table: Table, requirements: tuple[Any, ...], updates: tuple[Any, ...]
    ) -> CommitTableResponse:
        try:
            return super().commit_table(table, requirements, updates)
        except CommitFailedException:
            self.conflicts += 1
            raise


@dataclass
class Unwilling:
    """An engine that merges no files: it refuses with this error, or there is nobody to ask."""

    error: str | None = None
    asked: int = 0

    def merge(self, name: Identifier, due: Due, **_more: Any) -> Ended:
        """Merge nothing."""
        self.asked += 1
        if self.error is None:
            raise EngineUnavailable("Trino cannot be reached now")
        return Ended(f"q{self.asked}", self.error)

    def check(self, name: Identifier | None) -> None:
        """Say so."""
        if self.error is None:
            raise EngineUnavailable("Trino cannot be reached now")
        raise BadSetting(f"it does not merge files of {name}: {self.error}")


def land_in_process(folder: Path, fault: str | None, batch_bytes: int) -> None:
    """Land everything that waits, as a process of its own would; `fault` may break it.

    Leaves a file that says how many commits met another one.
    """
    begin_process(fault)
    catalog = Counting(open_catalog(*urls(folder)))
    lake = Lake(catalog, Patience(seconds=30.0))  # type: ignore[arg-type]  # a stand-in
    buffer = open_buffer(log_url(folder))
    work = landing(buffer, lake, limits=Limits(batch_bytes=batch_bytes, patience=0))
    for collection in buffer.collections():
        while work.land_once(collection):
            pass
    buffer.close()
    (folder / f"conflicts-{os.getpid()}").write_text(str(catalog.conflicts))


def land_together_in_process(gate: Barrier, folder: Path, batch_bytes: int) -> None:
    """Land as in `land_in_process`, from when the others at the gate do, too."""
    gate.wait(60)
    land_in_process(folder, None, batch_bytes)


def land_lane_in_process(
    folder: Path,
    log_url: str,
    lane: Lane,
    batch_bytes: int,
    counting: Callable[[Catalog], Counting] = Counting,
) -> None:
    """Land what waits in a lane of the log, as a run of its own would."""
    begin_process(None)
    catalog = counting(open_catalog(*urls(folder)))
    lake = Lake(catalog, Patience(seconds=30.0))  # type: ignore[arg-type]  # a stand-in
    buffer = open_buffer(log_url)
    work = landing(buffer, lake, lane=lane, limits=Limits(batch_bytes=batch_bytes, patience=0))
    while work.land_once(FLIGHTS):
        pass
    buffer.close()
    (folder / f"conflicts-{os.getpid()}").write_text(str(catalog.conflicts))


def create_in_process(folder: Path) -> None:
    """Open the lake and make three collections' tables; leave a file that names the tables."""
    begin_process(None)
    lake = new_lake(folder)
    made = [lake.create(CollectionId("team", f"c{number}")).uuid for number in range(3)]
    (folder / f"made-{os.getpid()}").write_text(" ".join(made))


def tend_in_process(folder: Path) -> None:
    """Compact and expire the table again and again until the file `enough` is there."""
    begin_process(None)
    lake = Lake(open_catalog(*urls(folder)))
    numbers = count()
    while not (folder / "enough").exists():
        compact(lake, MAIN, below=1 << 20, new_name=lambda: f"merged-{next(numbers)}", fewest=2)
        expire(lake, MAIN, keep=5)


def tend_once_in_process(folder: Path, fault: str | None) -> None:
    """Compact and expire the table once; `fault` may break it."""
    begin_process(fault)
    lake = Lake(open_catalog(*urls(folder)))
    compact(lake, MAIN, below=1 << 20, new_name=lambda: f"merged-{os.getpid()}", fewest=2)
    expire(lake, MAIN, keep=1)


def begin_process(fault: str | None) -> None:
    """Arm the fault as the variable says it, and log errors only."""
    if fault:
        os.environ[faults.VARIABLE] = fault
    faults.arm(os.environ.get(faults.VARIABLE))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)


def gate_for(number: int) -> Barrier:
    """Answer a gate at which so many children wait for each other."""
    return _CONTEXT.Barrier(number)


def child(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Answer a process, not yet started, that has imported what the target needs."""
    # Importing them takes seconds; the server that processes are forked from does it once. This
    # module it could not find: it does not know the folder of the tests.
    _CONTEXT.set_forkserver_preload(
        ["assets.landing", "lakehouse.upkeep", "penstock.buffer.embedded"]
    )
    return _CONTEXT.Process(target=target, args=arguments)


def finished(process: BaseProcess, seconds: float = 60.0) -> int:
    """Wait for the process; answer how it ended (the signal negative)."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError("the process did not end")
    if process.exitcode == -signal.SIGKILL:
        happened("kills")
    return process.exitcode
