"""The dashboard on two million events, in a real browser: how long each page takes.

The platform runs on the first core, the processes of Chromium on both, as on a laptop that does
both; each page in a window that has the style sheets and scripts already. A page is there at the
browser's load event; its parts that come after it (histogram, values, statistics) when the last of
them has come. The sign-in page, which asks nothing of anybody, is the limit.
"""

from __future__ import annotations

import os
import secrets
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

from assets.stores import opened
from benchmarks.bus import COLLECTION, ROWS, Bus, kept_bus, make_filters
from benchmarks.data import event_id
from benchmarks.measure import Facts, percentile
from benchmarks.processes import free_port, server
from penstock.clock import machine_clock
from penstock.contract.base import moment
from penstock.envelope import DEFAULT_TEAM, Micros
from penstock.metadata.records import CollectionRecord
from penstock.metadata.tokens import issue

TIMES = 20
FLOOR = 200.0
"""Milliseconds in which 95 of 100 pages are to be there."""

_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
_HOUR: Micros = 3_600 * 1_000_000

_THERE = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"
_WHOLE = """() => Math.max(...performance.getEntries()
  .filter((one) => ["navigation", "resource"].includes(one.entryType))
  .map((one) => one.entryType === "navigation" ? one.loadEventEnd : one.responseEnd))"""


def there() -> bool:
    """Say whether this machine has the browser."""
    return _browser() is not None


def results(folder: Path) -> Iterator[Facts]:
    """Measure every page over two million events."""
    yield from measured(folder, rows=ROWS)


def short(folder: Path) -> Iterator[Facts]:
    """Measure them over a tenth of the events."""
    yield from measured(folder, rows=ROWS // 10)


def measured(folder: Path, *, rows: int) -> Iterator[Facts]:
    """Measure every page, `TIMES` times each, in turns, after the first time of a process."""
    bus = kept_bus(os.environ, folder, rows=rows)
    token, port = _prepared(bus), free_port()
    argv = ("-m", "penstock", "serve", "platform", "--home", str(bus.settings.home))
    env = {"PENSTOCK_PLATFORM_PORT": str(port)}
    with server(argv, port, folder / "platform.log", env), _window() as page:
        url = f"http://127.0.0.1:{port}"
        page.goto(f"{url}/sign-in")
        limit = statistics.median(_loaded(page, f"{url}/sign-in")[0] for _ in range(TIMES))
        page.goto(f"{url}/sign-in#{token}")
        page.wait_for_url(f"{url}/")
        paths = _paths(bus)
        first = {name: _loaded(page, url + path)[0] for name, path in paths.items()}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
        for _ in range(TIMES):
            for name, path in paths.items():
                taken[name].append(_loaded(page, url + path))
    for name, times in taken.items():
        there = [one for one, _ in times]
        figures = {
            "there p50 ms": statistics.median(there),
            "there p95 ms": percentile(there, 0.95),
            "there at first ms": first[name],
            "whole p50 ms": statistics.median(whole for _, whole in times),
            "whole p95 ms": percentile([whole for _, whole in times], 0.95),
            "times the sign-in page": statistics.median(there) / limit,
        }
        late = figures["there p95 ms"]
        short = [f"p95 {late:,.0f} ms > {FLOOR:,.0f} ms"] if late > FLOOR else []
        yield Facts(f"page, {bus.rows:,} events: {name}", figures, short)


def _paths(bus: Bus) -> dict[str, str]:
    c = f"/collections/{COLLECTION.name}"
    since, until = (
        moment(at).isoformat().replace("+00:00", "Z") for at in (bus.end - _HOUR, bus.end)
    )
    field = urlencode({"q": "carrier:UA", "since": "all"})
    return {
        "overview": "/",
        "collection, an hour": f"{c}?{urlencode({'since': since, 'until': until})}",
        "collection, everything": f"{c}?since=all",
        "collection, a field": f"{c}?{field}",
        "event": f"{c}/events/{event_id(bus.rows // 2)}",
        "schema": f"{c}/schema",
        "settings": f"{c}/settings",
        "quarantine of all": "/quarantine",
        "quarantine": f"{c}/quarantine",
        "SQL": "/sql",
        "replays": "/replays",
        "a new replay": f"/replays/new?collection={COLLECTION.name}",
        "destinations": "/destinations",
        "tokens": "/tokens",
        "API": "/reference",
    }


def _loaded(page: Page, address: str) -> tuple[float, float]:
    """Answer the milliseconds until the page was there, and until all of it was."""
    page.goto(address, wait_until="load")
    page.wait_for_load_state("networkidle")
    return float(page.evaluate(_THERE)), float(page.evaluate(_WHOLE))


def _prepared(bus: Bus) -> str:
    """Answer a token of the home, with all in it that is made once."""
    with opened(bus.settings) as stores:
        # Else the platform makes them, on the core that answers.
        make_filters(bus, stores)
        if COLLECTION not in [one.id for one in stores.store.collections(DEFAULT_TEAM)]:
            made = CollectionRecord(id=COLLECTION, created_at=machine_clock())
            stores.store.create_collection(made)
        token, record = issue(
            secrets.token_bytes,
            team=DEFAULT_TEAM,
            name="pages",
            scopes=("admin",),
            created_at=machine_clock(),
        )
        stores.store.add_token(record)
    return token


def _browser() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def _window() -> Iterator[Page]:
    """Answer a window of the browser."""
    path = _browser()
    if path is None:
        raise RuntimeError("pages are measured in a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield browser.new_page()
        browser.close()
