"""`penstock up`: everything on this machine, from one command."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from ipaddress import ip_network
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.console import err, print_json
from penstock.cli.home import (
    DEFAULT_HOME,
    HomeOption,
    Running,
    SettingsOption,
    command,
    note_started,
    remove_running,
    write_running,
)
from penstock.cli.instance import variables, write_instance
from penstock.cli.supervisor import Program, Supervisor, require_free
from penstock.clock import machine_clock
from penstock.envelope import DEFAULT_TEAM, CollectionId
from penstock.errors import AlreadyExists, BadSetting, EngineUnavailable
from penstock.settings import FILE_VARIABLE, Settings, load_settings

HttpPort = Annotated[int | None, typer.Option("--http-port", help="The door's HTTP port. [8080]")]
GrpcPort = Annotated[int | None, typer.Option("--grpc-port", help="The door's gRPC port. [9000]")]
PlatformPort = Annotated[
    int | None, typer.Option("--platform-port", help="The port of API and search. [8000]")
]
DagsterPort = Annotated[int | None, typer.Option("--dagster-port", help="Dagster's port. [3000]")]

# What a command line may change; everything else each process reads for itself.
_HANDED_DOWN = (
    *("http_port", "grpc_port", "platform_port", "dagster_port"),
    *("allow_networks", "allow_ports"),
)

_THIS_MACHINE = ("127.0.0.1", "::1")

_CODE_PORTS = range(20_000, 32_000)


def up(
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
    platform_port: PlatformPort = None,
    dagster_port: DagsterPort = None,
) -> None:
    """Start door, platform and Dagster, and keep them running until Ctrl-C."""
    settings = reaching_itself(
        load_settings(
            home,
            file=settings_file,
            http_port=http_port,
            grpc_port=grpc_port,
            platform_port=platform_port,
            dagster_port=dagster_port,
        )
    )
    console = err()
    with running(settings, console, file=settings_file) as (supervisor, what):
        describe(what, settings.home, console)
        if not sys.stdout.isatty():
            print_json(what)
        supervisor.watch()
        console.print("stopping …")


def reaching_itself(settings: Settings) -> Settings:
    """Allow replays to this machine, where nobody else can ask for one.

    Who can reach the servers on a loopback address can reach everything else there too, unless a
    proxy stands before them, as `dashboard_url` says. Networks that the operator named are left as
    they are, also none at all. Pure.
    """
    alone = settings.host in _THIS_MACHINE and not settings.dashboard_url
    if not alone or "allow_networks" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"allow_networks": tuple(map(ip_network, _THIS_MACHINE))})


@contextmanager
def running(
    settings: Settings, console: Console, *, file: Path | None = None
) -> Iterator[tuple[Supervisor, Running]]:
    """Run everything for the block; all of it is ended afterwards, whatever happened.

    `file` is the settings file that every program reads, None for the home's own.
    """
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(settings.home):
        require_free(
            settings.host,
            {
                "--http-port": settings.http_port,
                "--grpc-port": settings.grpc_port,
                "--platform-port": settings.platform_port,
                "--dagster-port": settings.dagster_port,
            },
        )
        _write_instance(settings, console)
        token = _prepare(settings)
        supervisor = Supervisor(
            programs(settings, code_port=_code_port(settings.host)),
            host=settings.host,
            logs=settings.home / "logs",
            env=environment(settings, dict(os.environ), file=file),
            tell=partial(_show, console),
        )
        what = Running(
            supervisor=os.getpid(),
            door=f"http://{settings.host}:{settings.http_port}",
            grpc=f"{settings.host}:{settings.grpc_port}",
            platform=f"http://{settings.host}:{settings.platform_port}",
            dagster=f"http://{settings.host}:{settings.dagster_port}",
            token=token,
            dashboard=settings.dashboard_url.rstrip("/"),
        )
        restore = _stop_on_signals(supervisor)
        try:
            _note_started(settings.home, file, console)
            write_running(settings.home, what)
            with console.status("starting …"):
                supervisor.start()
            yield supervisor, what
        finally:
            supervisor.stop()
            remove_running(settings.home)
            restore()


def _note_started(home: Path, file: Path | None, console: Console) -> None:
    """Leave word for the other commands; say so if the home's own settings are used again."""
    before = note_started(home, file)
    if before is not None and file is None:
        again = command(home, f"up --settings {shlex.quote(str(before))}")
        console.print(
            f"the last start was with other settings; to go on with those: {again}\n",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _write_instance(settings: Settings, console: Console) -> None:
    file = settings.home / "dagster" / "dagster.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    missing = write_instance(file, settings)
    if missing:
        console.print(
            f"[yellow]{file} was edited and is left as it is[/]; for what the settings say, "
            "put this into it, or delete it to have it written anew:\n"
        )
        console.print(missing + "\n", markup=False, highlight=False)


def programs(settings: Settings, *, code_port: int) -> list[Program]:
    """List what runs, in the order it starts."""
    python, serve = sys.executable, (sys.executable, "-m", "penstock", "serve")
    dagster = settings.home / "dagster"
    write_workspace(dagster, settings.host, code_port)
    workspace = str(dagster / "workspace.yaml")
    return [
        Program("door", (*serve, "door"), settings.http_port),
        Program("platform", (*serve, "platform"), settings.platform_port),
        Program(
            "code-server",
            (
                *(python, "-m", "dagster", "api", "grpc", "--module-name"),
                *("orchestration.definitions", "--host", settings.host, "--port", str(code_port)),
                *("--location-name", "penstock", "--log-level", "warning"),
            ),
            code_port,
        ),
        Program(
            "dagster-webserver",
            (
                *(python, "-m", "dagster_webserver", "--workspace", workspace),
                *("--host", settings.host, "--port", str(settings.dagster_port)),
                *("--dagster-log-level", "warning"),
            ),
            settings.dagster_port,
            # All three open Dagster's database and make it when there is none. Two at a time get
            # in each other's way where it is SQLite: one dies, or the database has two versions
            # and stays broken.
            after="code-server",
        ),
        Program(
            "dagster-daemon",
            (
                *(python, "-m", "dagster._daemon", "run", "--workspace", workspace),
                *("--log-level", "warning"),
            ),
            after="dagster-webserver",
        ),
    ]


def environment(
    settings: Settings, inherited: dict[str, str], *, file: Path | None = None
) -> dict[str, str]:
    """Answer the environment of every program: the settings this process was given, by name."""
    given = {
        f"PENSTOCK_{name.upper()}": _as_variable(getattr(settings, name)) for name in _HANDED_DOWN
    }
    if file is not None:
        given[FILE_VARIABLE] = str(file.expanduser().absolute())
    return {
        **inherited,
        **given,
        **variables(settings),
        "PENSTOCK_HOME": str(settings.home),
        "DAGSTER_HOME": str(settings.home / "dagster"),
        "PYTHONUNBUFFERED": "1",
    }


def _as_variable(value: object) -> str:
    return ",".join(str(one) for one in value) if isinstance(value, tuple) else str(value)


def write_workspace(folder: Path, host: str, code_port: int) -> None:
    """Write what tells Dagster where its code is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workspace.yaml").write_text(
        "load_from:\n"
        "  - grpc_server:\n"
        f"      host: {host}\n"
        f"      port: {code_port}\n"
        "      location_name: penstock\n"
    )


def describe(what: Running, home: Path, console: Console) -> None:
    """Say what runs where, and how to send the first event."""
    console.print()
    console.print(Text("  open in a browser:  ").append(what.sign_in, style="bold"), soft_wrap=True)
    console.print()
    for name, place in (
        ("events in", f"{what.door}/v1/events/<collection>   gRPC {what.grpc}"),
        ("API, search", what.platform),
        ("Dagster", what.dagster),
        ("logs", home / "logs"),
    ):
        console.print(Text(f"  {name:<12} {place}"))
    console.print("\n  Send an event, then find it:\n")
    console.print(
        f"    curl -H 'Authorization: Bearer {what.token}' -H 'Content-Type: application/json' \\\n"
        f'         -d \'{{"hello": "world"}}\' {what.door}/v1/events/hello\n'
        f"    {command(home, 'search hello world')}",
        markup=False,
    )
    console.print("\n  Ctrl-C stops everything.\n")


def _show(console: Console, word: str, what: str) -> None:
    colour = {"ready": "green", "again": "green", "ending": "yellow", "slow": "yellow"}.get(
        word, "red"
    )
    console.print(Text(f"  {word} ", style=colour).append(what, style="default"))


def _prepare(settings: Settings) -> str:
    """Make the home ready for its processes and answer the admin token.

    Afterwards there is a key for credentials, the metadata is migrated, Penstock's own collections
    and the collection ``hello`` exist, and doors find all of it in their cache if that answers.
    """
    from penstock.buffer import Keeping, open_keeper
    from penstock.buffer.keeping import make_places
    from penstock.cache import cache_of
    from penstock.metadata.home import ensure_admin_token, ensure_system_collections
    from penstock.metadata.records import CollectionRecord
    from penstock.metadata.rotation import ensure_key
    from penstock.metadata.store import store_of

    now = machine_clock()
    keeper = open_keeper(
        settings.log, Keeping(settings.log_partitions, settings.log_retention_hours)
    )
    ensure_key(settings, chance=secrets.token_bytes)
    store = store_of(settings)
    try:
        partitions = settings.partitions_at_first
        ensure_system_collections(store, now=now, partitions=partitions)
        if not store.collections(DEFAULT_TEAM):
            hello = CollectionId(DEFAULT_TEAM, "hello")
            with suppress(AlreadyExists):  # another installation on the same database was faster
                store.create_collection(
                    CollectionRecord(
                        id=hello,
                        created_at=now,
                        notes="for the first event",
                        partitions=partitions,
                    )
                )
        token = ensure_admin_token(store, settings.home, now=now, chance=secrets.token_bytes)
        make_places(keeper, store)
        # Where the cache is away now the platform publishes once it is back.
        with closing(cache_of(settings)) as cache, suppress(EngineUnavailable):
            cache.publish(store.known)
        return token
    finally:
        store.close()
        keeper.close()


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the home for this process; raises `BadSetting` when another holds it."""
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise BadSetting(
                f"penstock is already running in {home} (pid {lock.read().strip()}); "
                "stop it there, or choose another --home"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _code_port(host: str) -> int:
    """Answer a free port for Dagster's code server.

    It is none of those that outgoing connections are given, which could take it meanwhile; and
    installations that start at the same time begin to look at different ones.
    """
    first = os.getpid() % len(_CODE_PORTS)
    for port in chain(_CODE_PORTS[first:], _CODE_PORTS[:first]):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise BadSetting(f"no port of {_CODE_PORTS.start} to {_CODE_PORTS.stop - 1} is free")


def _stop_on_signals(supervisor: Supervisor) -> Callable[[], None]:
    """Let SIGINT and SIGTERM end the block; answer what puts the old handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(_number: int, _frame: object) -> None:
        supervisor.request_stop()

    def put_back() -> None:
        for number, old in before.items():
            signal.signal(number, old)

    for number in before:
        signal.signal(number, stop)
    return put_back
