"""`penstock doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from penstock.cli.console import DONE, FAILED, JsonFlag, out, print_json, safe
from penstock.cli.findings import Check, Finding, findings, found
from penstock.cli.home import (
    DEFAULT_HOME,
    HomeOption,
    Running,
    SettingsOption,
    command,
    read_running,
    settings_of,
    started_with,
)
from penstock.cli.moments import utc_now
from penstock.errors import EngineUnavailable, PenstockError
from penstock.settings import Settings

# An engine that is away is told after ten seconds, one that takes connections and says nothing
# may need longer.
_STORES_SECONDS = 20.0
_PATIENCE_SECONDS = 5.0
_SERVICES_SECONDS = 15.0
_CLOCK_SECONDS = 5.0

_DAGSTER = """{
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } }
}"""


def doctor(
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check settings, every store and engine by name, and what runs; say what to do about it."""
    from penstock.logs import no_logs

    seen = []
    with no_logs():
        for finding in examine(home, settings_file):
            seen.append(finding)
            if not as_json:
                sign = "[green]ok[/] " if finding.ok else "[red]bad[/]"
                out().print(f"  {sign}  {finding.name:<18} {safe(finding.detail)}")
                if finding.do is not None:
                    out().print(f"       {'':<18} [dim]do: {safe(finding.do)}[/]")
        well = all(finding.ok for finding in seen)
        if as_json:
            print_json({"ok": well, "checks": seen})
    raise typer.Exit(DONE if well else FAILED)


def examine(home: Path, settings_file: Path | None = None) -> Iterator[Finding]:
    """Answer what every check found, in a fixed order, a minute after the call at the latest."""
    settings: list[Settings] = []

    def read() -> str:
        settings.append(settings_of(home, settings_file))
        by = settings_file or started_with(home)
        return f"{settings[0].home}" + (f", by {by}" if by else "")

    yield found(
        "settings", Check(read, "correct penstock.toml of the home, or the variable PENSTOCK_…")
    )
    if not settings:
        return
    [known] = settings
    if not known.home.is_dir():
        detail = f"{known.home} does not exist"
        yield Finding(name="home", ok=False, detail=detail, do=f"'{command(home, 'up')}' makes it")
        return
    from penstock.cli.stores import checks_of

    yield from findings(checks_of(known), seconds=_STORES_SECONDS, censor=known.censored)
    start = f"start it: '{command(home, 'up')}'"
    try:
        running = read_running(known.home)
    except PenstockError as error:
        yield Finding(name="processes", ok=False, detail=str(error).partition(":")[0], do=start)
        return
    yield Finding(name="processes", ok=True, detail=f"pid {running.supervisor} watches over them")
    yield from findings(_services(known, running), seconds=_SERVICES_SECONDS)


def _services(settings: Settings, running: Running) -> Mapping[str, Check]:
    """Name the checks of what runs, and what helps."""
    logs = settings.home / "logs"

    def see(name: str) -> str:
        return f"see {logs}/{name}.log; 'penstock up' starts it again by itself"

    return {
        "door HTTP": Check(lambda: _http(f"{running.door}/healthz"), see("door")),
        "door gRPC": Check(lambda: _grpc(running.grpc), see("door")),
        "platform": Check(lambda: _http(f"{running.platform}/healthz"), see("platform")),
        "platform token": Check(lambda: _token(running), "start 'penstock up' again"),
        "Dagster webserver": Check(lambda: _webserver(running.dagster), see("dagster-webserver")),
        "Dagster daemon": Check(lambda: _daemon(running.dagster), see("dagster-daemon")),
        "code location": Check(lambda: _location(running.dagster), see("code-server")),
    }


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
