"""`penstock doctor`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from penstock.cli.console import DONE, FAILED, JsonFlag, out, print_json, safe, size
from penstock.cli.home import (
    DEFAULT_HOME,
    HomeOption,
    Running,
    SettingsOption,
    command,
    read_running,
)
from penstock.cli.moments import utc_now
from penstock.errors import BadSetting, EngineUnavailable, PenstockError
from penstock.settings import Settings, load_settings, shown

# Below this the log refuses events before long.
_LITTLE_SPACE = 1 << 30
_PATIENCE_SECONDS = 5.0
# A file written by a process of this machine cannot be much younger than now.
_CLOCK_SECONDS = 5.0
_SECRETS = ("running.json", "admin.token")

_DAGSTER = """{
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } }
}"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found; `do` says what to do about it."""

    name: str
    ok: bool
    detail: str
    do: str | None = None
    seconds: float = 0.0


Check = Callable[[], str]
"""Answers a sentence, or raises."""


def doctor(
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check settings, every store by name, and what runs; say what to do about it."""
    findings = []
    for finding in examine(home, settings_file):
        findings.append(finding)
        if not as_json:
            sign = "[green]ok[/] " if finding.ok else "[red]bad[/]"
            out().print(f"  {sign}  {finding.name:<18} {safe(finding.detail)}")
            if finding.do is not None:
                out().print(f"       {'':<18} [dim]do: {safe(finding.do)}[/]")
    well = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": well, "checks": findings})
    raise typer.Exit(DONE if well else FAILED)


def examine(home: Path, settings_file: Path | None = None) -> Iterator[Finding]:
    """Answer what every check found, one after the other."""
    settings: list[Settings] = []

    def read() -> str:
        settings.append(load_settings(home, file=settings_file))
        return str(settings[0].home)

    remedy = "correct penstock.toml of the home, or the variable PENSTOCK_…"
    yield _made("settings", read, remedy)
    if not settings:
        return
    [known] = settings
    if not known.home.is_dir():
        detail = f"{known.home} does not exist"
        yield Finding(name="home", ok=False, detail=detail, do=f"'{command(home, 'up')}' makes it")
        return
    for name, (check, remedy) in _stores(known).items():
        yield _made(name, check, remedy)
    start = f"start it: '{command(home, 'up')}'"
    try:
        running = read_running(known.home)
    except PenstockError as error:
        yield Finding(name="processes", ok=False, detail=str(error).partition(":")[0], do=start)
        return
    yield Finding(name="processes", ok=True, detail=f"pid {running.supervisor} watches over them")
    for name, (check, remedy) in _services(known, running).items():
        yield _made(name, check, remedy)


def _made(name: str, check: Check, remedy: str) -> Finding:
    begun = time.monotonic()
    try:
        detail, ok = check(), True
    except (PenstockError, OSError) as error:
        detail, ok = str(error), False
    except Exception as error:  # noqa: BLE001 - whatever a store raises is what is wrong with it
        first = (str(error).splitlines() or [""])[0]
        detail, ok = f"{type(error).__name__}: {first}", False
    took = time.monotonic() - begun
    return Finding(name=name, ok=ok, detail=detail, do=None if ok else remedy, seconds=took)


def _stores(settings: Settings) -> Mapping[str, tuple[Check, str]]:
    """Name the checks of what lies on disks, and what helps."""
    home = settings.home
    elsewhere = "see whether its address in the settings is right and it can be reached"
    stores: dict[str, tuple[Check, str]] = {
        "home": (lambda: _home(home), f"chmod 700 {home}; chmod 600 {home}/*.token {home}/*.json"),
        "disk": (lambda: _disk(home), "make room: below that the door refuses events"),
        "clock": (lambda: _clock(home), "set the clock (timedatectl); times of events come of it"),
        "log": (
            lambda: _log(settings),
            f"{elsewhere}; do not remove what is there: it holds what has not landed",
        ),
        "catalog": (lambda: _catalog(settings), elsewhere),
        "lake": (lambda: _lake(settings), f"{elsewhere}; do not remove what is there"),
        "metadata": (lambda: _metadata(settings), elsewhere),
        "cache": (lambda: _cache(settings), "start the platform once: it is written anew"),
        **({"search": (lambda: _search(settings), elsewhere)} if settings.search_url else {}),
    }
    if not settings.log.startswith("embedded:"):
        stores["log copies"] = (
            lambda: _copies(settings),
            "run three brokers, and give the topics three copies: docs/howto/kafka.md",
        )
    return stores


def _services(settings: Settings, running: Running) -> Mapping[str, tuple[Check, str]]:
    """Name the checks of what runs, and what helps."""
    logs = settings.home / "logs"

    def see(name: str) -> str:
        return f"see {logs}/{name}.log; 'penstock up' starts it again by itself"

    return {
        "door HTTP": (lambda: _http(f"{running.door}/healthz"), see("door")),
        "door gRPC": (lambda: _grpc(running.grpc), see("door")),
        "platform": (lambda: _http(f"{running.platform}/healthz"), see("platform")),
        "platform token": (lambda: _token(running), "start 'penstock up' again"),
        "Dagster webserver": (lambda: _webserver(running.dagster), see("dagster-webserver")),
        "Dagster daemon": (lambda: _daemon(running.dagster), see("dagster-daemon")),
        "code location": (lambda: _location(running.dagster), see("code-server")),
    }


def _home(home: Path) -> str:
    for file in (home, *(home / name for name in _SECRETS)):
        if file.exists() and file.stat().st_mode & 0o077:
            raise BadSetting(f"others may read {file}, and there are tokens in it")
    if not os.access(home, os.W_OK | os.X_OK):
        raise BadSetting(f"this user may not write to {home}")
    return "readable by its owner only, and writable"


def _disk(home: Path) -> str:
    free = shutil.disk_usage(home).free
    if free < _LITTLE_SPACE:
        raise EngineUnavailable(f"only {size(free)} free below {home}")
    return f"{size(free)} free"


def _clock(home: Path) -> str:
    now = time.time()
    newest = max((file.stat().st_mtime for file in home.iterdir()), default=now)
    if newest - now > _CLOCK_SECONDS:
        raise BadSetting(f"it is behind the newest file of the home by {newest - now:,.0f} s")
    return f"{utc_now():%Y-%m-%d %H:%M:%S} UTC, after everything in the home"


def _log(settings: Settings) -> str:
    from penstock.buffer import open_buffer

    buffer = open_buffer(settings.log)
    try:
        found = buffer.collections()
        events = sum(
            extent.end - extent.start for one in found for extent in buffer.extents(one).values()
        )
        return f"{len(found)} collections, {events:,} events kept ({shown(settings.log)})"
    finally:
        buffer.close()


def _copies(settings: Settings) -> str:
    from penstock.buffer import open_keeper

    keeper = open_keeper(settings.log)
    try:
        if (warning := keeper.warning()) is not None:
            raise BadSetting(warning)
        return "an acknowledged event is on three disks"
    finally:
        keeper.close()


def _catalog(settings: Settings) -> str:
    from lakehouse import open_lake

    found = open_lake(settings.catalog, settings.warehouse, settings.s3).collections()
    return f"{len(found)} tables ({shown(settings.catalog)})"


def _lake(settings: Settings) -> str:
    from lakehouse import open_lake

    lake = open_lake(settings.catalog, settings.warehouse, settings.s3)
    views = [view for view in map(lake.view, lake.collections()) if view is not None]
    rows = sum(view.rows for view in views)
    stored = sum(view.bytes for view in views)
    return f"{rows:,} rows in {size(stored)} ({settings.warehouse})"


def _metadata(settings: Settings) -> str:
    from penstock.metadata.store import open_store

    store = open_store(settings.metadata)
    try:
        return f"{len(store.collections())} collections ({shown(settings.metadata)})"
    finally:
        store.close()


def _cache(settings: Settings) -> str:
    from penstock.cache import cache_of

    with closing(cache_of(settings)) as cache:
        known = cache.read()
    if known is None:
        raise EngineUnavailable("nothing was published yet")
    return f"version {known.version}, {len(known.tokens)} tokens ({settings.cache})"


def _search(settings: Settings) -> str:
    from penstock.envelope import CollectionId
    from penstock.search.index import open_index

    index = open_index(settings)
    assert index is not None  # noqa: S101 - asked only where the settings name one
    try:
        index.state(CollectionId("main", "any"))
    finally:
        index.close()
    return f"answers ({settings.search_url})"


def _http(url: str) -> str:
    """Ask a process of ours for its health; it names its adapters that are away."""
    health = _asked("GET", url)
    adapters = health.get("adapters", {})
    away = [f"{name} ({one['reason']})" for name, one in adapters.items() if not one["responds"]]
    if away:
        raise EngineUnavailable(f"{url} says that these do not respond: {', '.join(away)}")
    return f"{url} answers, and so do {', '.join(adapters)}"


def _grpc(address: str) -> str:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE_SECONDS)
        except grpc.RpcError as error:
            raise EngineUnavailable(f"{address} does not answer: {error.code().name}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise EngineUnavailable(f"{address} says that it does not serve")
    return f"{address} serves"


def _token(running: Running) -> str:
    from penstock.client import Client

    with Client(running.platform, running.token, timeout=_PATIENCE_SECONDS) as client:
        status = client.status()
    apart = abs((status.now - utc_now()).total_seconds())
    if apart > _CLOCK_SECONDS:
        raise EngineUnavailable(f"its clock and this one are {apart:,.0f} s apart")
    waiting = sum(one.waiting for one in status.collections)
    return f"the token of the home is good; {waiting:,} events wait to land"


def _webserver(url: str) -> str:
    version = _asked("GET", f"{url}/server_info").get("dagster_version", "?")
    return f"{url} answers, version {version}"


def _daemon(url: str) -> str:
    statuses = _graph(url)["instance"]["daemonHealth"]["allDaemonStatuses"]
    required = [one for one in statuses if one["required"]]
    silent = [one["daemonType"].lower() for one in required if not one["healthy"]]
    if silent:
        raise EngineUnavailable(f"no heartbeat of {', '.join(silent)}: nothing lands")
    return f"{len(required)} heartbeats"


def _location(url: str) -> str:
    entries = _graph(url)["workspaceOrError"]["locationEntries"]
    for entry in entries:
        loaded = entry["locationOrLoadError"] or {}
        if loaded.get("__typename") != "RepositoryLocation":
            first = str(loaded.get("message") or entry["loadStatus"]).splitlines()[0]
            raise EngineUnavailable(f"{entry['name']} is not loaded: {first}")
    if not entries:
        raise EngineUnavailable("Dagster knows of none")
    return f"{', '.join(entry['name'] for entry in entries)} is loaded"


def _graph(url: str) -> Any:
    return _asked("POST", f"{url}/graphql", {"query": _DAGSTER})["data"]


def _asked(method: str, url: str, body: object = None) -> Any:
    import httpx

    try:
        answer = httpx.request(method, url, json=body, timeout=_PATIENCE_SECONDS, trust_env=False)
        return answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise EngineUnavailable(f"{url} does not answer: {error}") from error
