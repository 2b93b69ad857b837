"""Where a home is, what runs there, and how a command reaches it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from penstock.errors import BadSetting, EngineUnavailable

if TYPE_CHECKING:
    from penstock.client import Client

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", envvar="PENSTOCK_HOME", help="The folder of this installation.", show_default=True
    ),
]
DEFAULT_HOME = Path("~/.penstock")

_RUNNING = "running.json"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What `penstock up` started, for the other commands of the same home."""

    supervisor: int
    door: str
    grpc: str
    platform: str
    dagster: str
    token: str


def write_running(home: Path, running: Running) -> None:
    """Leave word of what runs, readable by this user only: it holds the admin token."""
    file = home / _RUNNING
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(msgspec.json.encode(running))
    fresh.replace(file)


def remove_running(home: Path) -> None:
    """Take the word back."""
    (home / _RUNNING).unlink(missing_ok=True)


def read_running(home: Path) -> Running:
    """Answer what runs in a home; raises `EngineUnavailable` when nothing does."""
    file = home.expanduser() / _RUNNING
    try:
        return msgspec.json.decode(file.read_bytes(), type=Running)
    except FileNotFoundError:
        raise EngineUnavailable(
            f"nothing runs in {home}: start it with 'penstock up --home {home}', or set "
            "PENSTOCK_API and PENSTOCK_TOKEN to reach another machine"
        ) from None
    except msgspec.DecodeError as error:
        raise BadSetting(f"{file} cannot be read ({error}); remove it and start again") from error


def connect(home: Path) -> Client:
    """Answer a client of the platform: from the environment if it says, else of this home."""
    from penstock.client import Client

    api, token = os.environ.get("PENSTOCK_API"), os.environ.get("PENSTOCK_TOKEN")
    if api and token:
        return Client(api, token)
    running = read_running(home)
    return Client(api or running.platform, token or running.token)
