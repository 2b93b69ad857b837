"""`penstock doctor`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator

import typer

from penstock.cli.console import DONE, FAILED, JsonFlag, out, print_json, size
from penstock.cli.home import DEFAULT_HOME, HomeOption, read_running
from penstock.cli.supervisor import listening
from penstock.errors import EngineUnavailable, PenstockError
from penstock.settings import Settings, load_settings

# Below this the log refuses events before long.
_LITTLE_SPACE = 1 << 30


def doctor(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Check settings, every store by name, and what runs; say what to do about it."""
    settings = load_settings(home)
    findings = [{"name": "settings", "ok": True, "detail": str(settings.home)}]
    for name, check in checks(settings):
        begun = time.monotonic()
        try:
            detail, ok = check(), True
        except (PenstockError, OSError) as error:
            detail, ok = str(error), False
        findings.append(
            {"name": name, "ok": ok, "detail": detail, "seconds": time.monotonic() - begun}
        )
    well = all(finding["ok"] for finding in findings)
    if as_json:
        print_json({"ok": well, "checks": findings})
    else:
        for finding in findings:
            sign = "[green]ok[/]  " if finding["ok"] else "[red]bad[/] "
            out().print(f"  {sign} {finding['name']:<10} {finding['detail']}")
    raise typer.Exit(DONE if well else FAILED)


def checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name each check and how it is made; a check answers a sentence or raises."""
    yield "log", lambda: _log(settings)
    yield "lake", lambda: _lake(settings)
    yield "metadata", lambda: _metadata(settings)
    yield "cache", lambda: _cache(settings)
    yield "disk", lambda: _disk(settings)
    yield "processes", lambda: _processes(settings)


def _log(settings: Settings) -> str:
    from penstock.buffer import open_buffer

    buffer = open_buffer(settings.log)
    try:
        found = buffer.collections()
        events = sum(
            extent.end - extent.start for one in found for extent in buffer.extents(one).values()
        )
        return f"{len(found)} collections, {events:,} events kept ({settings.log})"
    finally:
        buffer.close()


def _lake(settings: Settings) -> str:
    from lakehouse import open_lake

    found = open_lake(settings.catalog, settings.warehouse).collections()
    return f"{len(found)} tables ({settings.catalog})"


def _metadata(settings: Settings) -> str:
    from penstock.metadata.store import open_store

    store = open_store(settings.metadata)
    try:
        return f"{len(store.collections())} collections ({settings.metadata})"
    finally:
        store.close()


def _cache(settings: Settings) -> str:
    from penstock.cache import open_cache

    known = open_cache(settings.cache).read()
    if known is None:
        raise EngineUnavailable("nothing was published yet: start the platform once")
    return f"version {known.version}, {len(known.tokens)} tokens ({settings.cache})"


def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.home).free
    if free < _LITTLE_SPACE:
        raise EngineUnavailable(f"only {size(free)} free below {settings.home}: make room")
    return f"{size(free)} free"


def _processes(settings: Settings) -> str:
    running = read_running(settings.home)
    for name in ("door", "grpc", "platform", "dagster"):
        address = getattr(running, name).removeprefix("http://")
        host, _, port = address.rpartition(":")
        if not listening(host, int(port)):
            raise EngineUnavailable(
                f"{name} does not listen at {address}: see {settings.home}/logs"
            )
    return f"door, platform and Dagster listen (pid {running.supervisor})"
