"""The log on Kafka: batches through a door, reading, and landing; CPU of the door and of landing.

The broker is the one of `make engines`, or the one that ``BENCH_KAFKA`` names.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from assets.stores import opened
from benchmarks import processes
from benchmarks.data import append, nested
from benchmarks.door import BATCH, SECONDS, Posts, Server
from benchmarks.measure import Figure, Result, median, pinned
from penstock.buffer import open_buffer, start_of
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId, Micros
from penstock.settings import load_settings

BROKER = os.environ.get("BENCH_KAFKA", "127.0.0.1:6510")
EVENTS = 100_000
RUNS = 3


def there() -> bool:
    """Say whether the broker listens."""
    host, _, port = BROKER.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, int(port))) == 0


def results(folder: Path) -> Iterator[Result]:
    """Measure each part on a log of its own."""
    url = f"kafka://{BROKER}/bench_{secrets.token_hex(4)}"
    payloads = nested(EVENTS)
    yield Result(f"Kafka: POST, NDJSON of {BATCH:,}", _posts(folder / "door", url), floor=100_000)
    collection = CollectionId(DEFAULT_TEAM, "events")
    append(url, collection, payloads, received_at=_now)
    yield Result("Kafka: reading a log", _read(url, collection), floor=120_000)
    yield Result("Kafka: landing", _land(folder / "landing", payloads), floor=60_000)


def _posts(home: Path, url: str) -> Figure:
    body = b"\n".join(nested(BATCH))
    posts = Posts(body, "application/x-ndjson", events=BATCH, connections=8)
    with processes.door(home, log_url=url) as door, pinned(processes.LOAD_CORES):
        ours = Server(door.pid, door.http_port, ("Authorization", f"Bearer {door.token}"))
        posts.at(ours, 1.0)
        return median([posts.at(ours, SECONDS)[0] for _ in range(RUNS)])


def _read(url: str, collection: CollectionId) -> Figure:
    buffer = open_buffer(url)
    # A consumer is made once and then kept.
    buffer.read(collection, start_of(buffer.log_id(collection), 0), end=1, max_bytes=1)
    figures = []
    for _ in range(RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        mark, rows = start_of(buffer.log_id(collection), 0), 0
        while rows < EVENTS:
            portion = buffer.read(collection, mark, end=1 << 60, max_bytes=64 << 20)
            mark, rows = portion.mark, rows + portion.rows.num_rows
        figures.append(Figure(rows, time.perf_counter() - wall, time.process_time() - cpu))
    buffer.close()
    return median(figures)


def _land(home: Path, payloads: Sequence[bytes]) -> Figure:
    figures = []
    for run in range(RUNS):
        url = f"kafka://{BROKER}/bench_{secrets.token_hex(4)}"
        settings = load_settings(home / str(run), {}, log_url=url)
        settings.home.mkdir(parents=True)
        collection = CollectionId(DEFAULT_TEAM, "events")
        with opened(settings) as stores:
            landing, rows = stores.landing(), 0
            # The table and its columns are there before the clock starts, as they are in life.
            append(url, collection, payloads[:1_000], received_at=_now)
            landing.land_once(collection)
            append(url, collection, payloads, received_at=_now)
            wall, cpu = time.perf_counter(), time.process_time()
            while (landed := landing.land_once(collection)) is not None:
                rows += landed.rows
            figures.append(Figure(rows, time.perf_counter() - wall, time.process_time() - cpu))
    return median(figures)


def _now(_place: int) -> Micros:
    return machine_clock()
