"""The questions of `benchmarks.search` with an index beside the lake, on two million events.

The index is filled and merged as the job `index` does it, and then asked. The engine is the
Elasticsearch of `make engines`, or what ``BENCH_INDEX`` names as ``search_url`` does. Where the
home is kept its index is, too: the next run has nothing to fill, and states no rate.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from assets.stores import Stores, opened
from benchmarks.bus import COLLECTION, ROWS, Bus, kept_bus
from benchmarks.measure import Facts, percentile
from benchmarks.search import KINDS, Kind, Taken, ask_both, ours, plainly, questions, searching
from penstock.clock import machine_clock
from penstock.settings import Settings, load_settings

ENGINE = os.environ.get("BENCH_INDEX", "elasticsearch://127.0.0.1:6520")
FLOOR_MS = 200.0


def there() -> bool:
    """Say whether the engine listens."""
    parts = urlsplit(ENGINE)
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((parts.hostname, parts.port or 9200)) == 0


@dataclass(frozen=True)
class Filled:
    """What filling the index took: rows, seconds, and the CPU of the process that did it.

    `size` is what the engine kept then; merging made it less, in so many seconds more.
    """

    rows: int
    seconds: float
    cpu: float
    size: int
    merging: float


def results(folder: Path) -> Iterator[Facts]:
    """Measure filling the index, and every class of questions that it can answer."""
    yield from measured(folder, rows=ROWS)


def short(folder: Path) -> Iterator[Facts]:
    """Measure them on a tenth of the events."""
    yield from measured(folder, rows=ROWS // 10)


def measured(folder: Path, *, rows: int) -> Iterator[Facts]:
    """Measure them on so many events; the environment may say more, as for `benchmarks.search`."""
    bus = kept_bus(os.environ, folder, rows=rows)
    settings = load_settings(bus.settings.home, {}, search_url=f"{ENGINE}/bench_{bus.rows}")
    behind = machine_clock() - bus.end
    slowest = int(os.environ.get("BENCH_SLOWEST", "0"))
    named = os.environ.get("BENCH_KINDS", "").split(",")
    kinds = [kind for kind in KINDS if kind.view == "main" and named in ([""], [kind.name])]
    with opened(settings) as stores, plainly(bus) as plain:
        filled = _fill(stores)
        yield _of_filling(bus, settings, filled)
        for kind in kinds:
            taken = [Taken(question) for question in questions(kind)]
            with searching(bus, stores, behind, stores.index) as searcher:
                # A server that has run for a while is meant: a JVM is slow with what it does first.
                for one in taken:
                    ours(searcher, bus, one.question)()
                for one in taken:
                    ask_both(one, searcher, plain, bus)
            yield _told(kind, bus, taken)
            for one in sorted(taken, key=lambda one: -max(one.warm))[:slowest]:
                yield Facts(
                    str(one.question),
                    {"warm ms": statistics.median(one.warm), "DuckDB": min(one.plain)},
                )


def _fill(stores: Stores) -> Filled:
    """Index what is not indexed yet."""
    begun, cpu, rows = time.perf_counter(), time.process_time(), 0
    with stores.indexing() as indexing:
        assert indexing is not None
        while (done := indexing.index_once(COLLECTION)) is not None:
            rows += done.rows
            if done.refused:
                raise RuntimeError(f"the engine refuses {done.refused:,} documents")
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        size, begun = _bytes_of_index(stores.settings), time.perf_counter()
        indexing.merge(COLLECTION)
    return Filled(rows, seconds, cpu, size, time.perf_counter() - begun)


def _of_filling(bus: Bus, settings: Settings, filled: Filled) -> Facts:
    size = _bytes_of_index(settings)
    lake = sum(file.stat().st_size for file in (settings.home / "lake").rglob("*.parquet"))
    figures = {
        "index MB": size / 1e6,
        "bytes an event": size / bus.rows,
        "% of the lake's files": size / lake * 100,
    }
    if filled.rows > bus.rows // 2:
        figures |= {
            "events/s indexed": filled.rows / filled.seconds,
            "CPU-s of ours for a million": filled.cpu / filled.rows * 1e6,
            "MB before merging": filled.size / 1e6,
            "seconds of merging": filled.merging,
        }
    return Facts(f"search index, {bus.rows:,} events: filling", figures)


def _bytes_of_index(settings: Settings) -> int:
    parts = urlsplit(settings.search_url)
    indices = f"{parts.path.strip('/')}-{COLLECTION.team}-{COLLECTION.name}-*"
    asked = f"http://{parts.netloc}/{indices}/_stats/store"
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return int(json.load(answer)["_all"]["primaries"]["store"]["size_in_bytes"])


def _told(kind: Kind, bus: Bus, taken: Sequence[Taken]) -> Facts:
    warm = [ms for one in taken for ms in one.warm]
    shares = [statistics.median(one.warm) / min(one.plain) for one in taken]
    figures = {
        "p50 ms": statistics.median(warm),
        "p95 ms": percentile(warm, 0.95),
        "max ms": max(warm),
        "DuckDB p95 ms": percentile([min(one.plain) for one in taken], 0.95),
        "times DuckDB's time, in the middle": statistics.median(shares),
    }
    over = figures["p95 ms"] > FLOOR_MS
    short = [f"p95 {figures['p95 ms']:,.0f} ms > {FLOOR_MS:,.0f} ms"] if over else []
    return Facts(f"search index, {bus.rows:,} events: {kind.name}", figures, short)
