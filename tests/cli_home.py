"""A small real installation: platform and door behind sockets, and a home that says where.

And every command of the command line, read from itself.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main
from door_builders import FailingLog
from platform_stand_ins import StandInSearcher, StandInSql, found

from penstock.api.platform import Platform
from penstock.cli.home import Running
from penstock.cli.main import app

HOSTILE = found(
    b'{"order": 17,\n "note": "\x1b[31mred\x07 [/] [bold]"}',
    event_id="[red]e2\x1b[2J",
    key=b"\xff",
    headers=(("x-shop", b"web"), ("x-raw", b"\xfe")),
    metadata={"exchange": "shop"},
    misfits=(("total", '"9 EUR"'),),
    log_offset=8,
)
BYTES = found(bytes(range(256)) * 2, event_id="e3", content_type=None, log_offset=9)


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def problem(self) -> Any:
        return json.loads(self.err)


@dataclass
class Installation:
    """What runs, and the stand-ins behind it."""

    home: Path
    platform: Platform
    log: FailingLog
    sql: StandInSql
    searcher: StandInSearcher
    running: Running


Penstock = Callable[..., Said]


def hears_ctrl_c() -> None:
    """Let a process that is begun hear Ctrl-C, also where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def every_command() -> list[list[str]]:
    """Answer the words of every command, groups left out."""
    return _below(typer.main.get_command(app), [])


def _below(command: Any, words: list[str]) -> list[list[str]]:
    if not hasattr(command, "commands"):
        return [words]
    return [
        found
        for name, child in sorted(command.commands.items())
        for found in _below(child, [*words, name])
    ]
