"""Where a home is, what runs there, and how a command reaches it."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import psutil
import typer

from penstock.errors import BadSetting, EngineUnavailable, NotFound, PenstockError
from penstock.settings import FILE_VARIABLE, Settings, load_settings

if TYPE_CHECKING:
    from penstock.client import Client

_VARIABLE = "PENSTOCK_HOME"

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", envvar=_VARIABLE, help="The folder of this installation.", show_default=True
    ),
]
DEFAULT_HOME = Path("~/.penstock")

SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        envvar=FILE_VARIABLE,
        help="A settings file to read instead of penstock.toml in the home; 'up' notes it there "
        "for the other commands.",
    ),
]

_RUNNING = "running.json"
_STARTED = "started.json"
_NOTHING = re.compile(r"there is no (collection|destination) '(?:\w+\.)?([^']*)'")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What `penstock up` started, for the other commands of the same home."""

    supervisor: int
    door: str
    grpc: str
    platform: str
    dagster: str
    token: str
    dashboard: str = ""
    """Where browsers reach the platform, if that is not where it is."""

    @property
    def sign_in(self) -> str:
        """The link that signs a browser in; what is behind ``#`` is sent to nobody."""
        return f"{self.dashboard or self.platform}/sign-in#{self.token}"


def write_running(home: Path, running: Running) -> None:
    """Leave word of what runs, readable by this user only: it holds the admin token."""
    write_file(home / _RUNNING, msgspec.json.encode(running))


def write_file(file: Path, content: bytes) -> None:
    """Put a file of the home in the place of the one before, readable by this user only.

    After a crash, also of the machine, there is one of both, whole.
    """
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)


def remove_running(home: Path) -> None:
    """Take the word back."""
    (home / _RUNNING).unlink(missing_ok=True)


def read_running(home: Path) -> Running:
    """Answer what runs in a home; raises `EngineUnavailable` when nothing does."""
    home = home.expanduser()
    file = home / _RUNNING
    start = f"start it with '{command(home, 'up')}'"
    try:
        running = msgspec.json.decode(file.read_bytes(), type=Running)
    except FileNotFoundError:
        raise EngineUnavailable(
            f"nothing runs in {home}: {start}, or set PENSTOCK_API and PENSTOCK_TOKEN (to send: "
            "PENSTOCK_DOOR) to reach another machine"
        ) from None
    except msgspec.DecodeError as error:
        raise BadSetting(f"{file} cannot be read ({error}); remove it and start again") from error
    if not psutil.pid_exists(running.supervisor):
        raise EngineUnavailable(f"what ran in {home} was killed: {start} again")
    return running


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """How `penstock up` was started last, whether it still runs or not."""

    settings: str | None
    """The settings file it was given; None for the home's own."""


def note_started(home: Path, file: Path | None) -> Path | None:
    """Leave word of the settings file that the home starts with; answer the one of last time."""
    before = started_with(home)
    settings = str(file.expanduser().absolute()) if file else None
    write_file(home / _STARTED, msgspec.json.encode(Started(settings=settings)))
    return before


def started_with(home: Path) -> Path | None:
    """Answer the settings file that the home was last started with; None for its own."""
    file = home.expanduser() / _STARTED
    try:
        settings = msgspec.json.decode(file.read_bytes(), type=Started).settings
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise BadSetting(f"{file} cannot be read ({error}); remove it and start again") from error
    return Path(settings) if settings else None


def settings_of(home: Path, file: Path | None) -> Settings:
    """Answer what a command goes by: `file`, else what the home was last started with.

    Without that a command would look into the home's own log and tables, which nobody fills.
    """
    noted = None if file else started_with(home)
    if noted is not None and not noted.exists():
        raise BadSetting(
            f"{home.expanduser()} was last started with the settings file {noted}, which is not "
            "there: name another one with --settings, or start it again"
        )
    return load_settings(home, file=file or noted)


def command(home: Path, words: str) -> str:
    """Answer a command to type next; it names the home where the shell would not find it."""
    expanded = home.expanduser()
    known = Path(os.environ.get(_VARIABLE) or DEFAULT_HOME).expanduser()
    flag = "" if expanded == known else f" --home {shlex.quote(str(expanded))}"
    return f"penstock {words}{flag}"


@contextmanager
def connect(home: Path) -> Iterator[Client]:
    """Answer a client of the platform: from the environment if it says, else of this home.

    A name that does not exist is told with those that are like it.
    """
    with client_of(home) as client:
        try:
            yield client
        except NotFound as error:
            note_similar(error, client)
            raise


@contextmanager
def naming(home: Path) -> Iterator[None]:
    """Tell similar names for what the door did not know, if a platform is there to ask."""
    try:
        yield
    except NotFound as error:
        try:
            with client_of(home) as client:
                note_similar(error, client)
        except PenstockError as away:
            error.add_note(f"what there is cannot be told: {away}")
        raise


def note_similar(error: NotFound, client: Client) -> None:
    """Add to the error which names are like the one that does not exist."""
    found = _NOTHING.match(str(error))
    if found is None:
        return
    what, name = found.groups()
    known = client.collections() if what == "collection" else client.destinations()
    names = [one.name for one in known]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        error.add_note("did you mean " + " or ".join(near) + "?")
    elif names:
        error.add_note(f"there are: {', '.join(names[:20])}" + (" …" if len(names) > 20 else ""))  # noqa: PLR2004
    else:
        place = " URL" if what == "destination" else ""
        error.add_note(f"there is none yet: 'penstock {what} create {name}{place}'")


def client_of(home: Path, *, timeout: float | None = None) -> Client:
    """Answer a client of what the environment names, else of this home."""
    from penstock.client import TIMEOUT_SECONDS, Client

    api, token = os.environ.get("PENSTOCK_API"), os.environ.get("PENSTOCK_TOKEN")
    if not (api and token):
        running = read_running(home)
        api, token = api or running.platform, token or running.token
    return Client(api, token, timeout=TIMEOUT_SECONDS if timeout is None else timeout)
