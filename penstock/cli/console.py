"""What every command prints: tables for people, one JSON value for programs, errors for both."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from penstock import problem
from penstock.envelope import Micros
from penstock.errors import BadName, BadQuery, BadRequest, BadSetting, PenstockError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]

DONE, FAILED, WRONG_USE = 0, 1, 2


# Where nobody looks at a terminal, nothing has to be cut to its width.
_FILE_WIDTH = 200


def out() -> Console:
    """Answer the console of results (stdout)."""
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    return Console(highlight=False, soft_wrap=True, width=width)


def err() -> Console:
    """Answer the console of progress and errors (stderr)."""
    width = None if sys.stderr.isatty() else _FILE_WIDTH
    return Console(stderr=True, highlight=False, soft_wrap=True, width=width)


def print_json(value: Any) -> None:
    """Print one JSON value and a line end."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Build a table; a column whose name ends in ``#`` is a number, aligned right."""
    grid = Table(title=title or None, title_justify="left", box=None, header_style="bold")
    for column in columns:
        number = column.endswith("#")
        grid.add_column(column.removesuffix("#"), justify="right" if number else "left")
    for row in rows:
        grid.add_row(*(text(cell) for cell in row))
    return grid


def text(value: object) -> str:
    """Write a cell: numbers with separators, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def moment(time: Micros | None) -> str:
    """Write a time as UTC to the second."""
    if time is None:
        return ""
    return datetime.fromtimestamp(time / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: int) -> str:
    """Write a number of bytes in the unit people would say."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":  # noqa: PLR2004 - SI prefixes
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError(count)


def report(error: Exception, *, as_json: bool) -> int:
    """Tell about an error on stderr and answer the exit code."""
    if as_json:
        sys.stderr.buffer.write(problem.problem(error).body() + b"\n")
    elif isinstance(error, BadQuery):
        err().print(f"[bold red]error:[/] {error}", soft_wrap=True)
        err().print(error.pointer(), markup=False)
    elif isinstance(error, PenstockError):
        console = err()
        console.print("[bold red]error:[/] ", end="")
        console.print(str(error), markup=False)
    else:
        traceback.print_exception(error)
    return WRONG_USE if isinstance(error, BadName | BadQuery | BadRequest | BadSetting) else FAILED
