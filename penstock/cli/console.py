"""What every command prints: tables for people, one JSON value for programs, errors for both.

Names, queries and payloads come from anybody: `plain` makes them harmless for a terminal, and none
is ever read as markup.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from penstock import problem
from penstock.envelope import Micros
from penstock.errors import (
    AddressRefused,
    BadName,
    BadQuery,
    BadRequest,
    BadSetting,
    LogChanged,
    LogDamaged,
    LogReplaced,
    PenstockError,
    Unauthorized,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]

DONE, FAILED, WRONG_USE = 0, 1, 2

_HINTS: dict[type[PenstockError], str] = {
    AddressRefused: 'the operator may allow it: allow_networks = ["10.0.0.0/8"] and allow_ports = '
    "[7000] in penstock.toml of the home, or PENSTOCK_ALLOW_NETWORKS and PENSTOCK_ALLOW_PORTS "
    "where 'penstock up' is started",
    Unauthorized: "PENSTOCK_TOKEN, if it is set, wins over the token of the home; "
    "'penstock token create' makes another",
}

# Wide enough for every row: a program that reads a table wants a line a row.
_FILE_WIDTH = 1 << 20

# Controls, and what turns the direction of text around: a payload must not steer the terminal.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


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
    sys.stdout.buffer.write(msgspec.json.encode(value, enc_hook=_fields) + b"\n")
    sys.stdout.flush()


def _fields(value: object) -> dict[str, Any]:
    """Answer the fields of a shape of the contract."""
    from penstock.contract.base import Told

    if isinstance(value, Told):
        return dict(value)
    raise NotImplementedError(type(value))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Build a table; a column whose name ends in ``#`` is a number, aligned right."""
    grid = Table(title=title or None, title_justify="left", box=None, header_style="bold")
    for place, column in enumerate(columns):
        number = column.endswith("#")
        grid.add_column(
            Text(plain(column.removesuffix("#"))),
            justify="right" if number else "left",
            # What is copied to the next command stays in one piece.
            no_wrap=place == 0,
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*map(_written, row))
    return grid


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    console: Console,
    *,
    row: str = "",
) -> None:
    """Print a table, or a row after the other where it is wider than the terminal.

    `row` names the rows then; without it the first column does.
    """
    grid = table("", columns, rows)
    boundless = console.options.update(width=_FILE_WIDTH)
    if (
        not console.is_terminal
        or Measurement.get(console, boundless, grid).maximum <= console.width
    ):
        console.print(grid)
        return
    names = [plain(column.removesuffix("#")) for column in columns]
    for number, cells in enumerate(rows, 1):
        written = [_written(cell) for cell in cells]
        console.print(Text(f"{row} {number:,}" if row else written[0].plain, style="bold"))
        upright = Table(box=None, show_header=False, padding=(0, 2))
        upright.add_column(no_wrap=True, style="dim")
        upright.add_column(overflow="fold")
        for name, cell in list(zip(names, written, strict=True))[0 if row else 1 :]:
            upright.add_row(Text(name), cell)
        console.print(upright)


def _written(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(text(cell))


def text(value: object) -> str:
    """Write a cell: numbers with separators, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return plain(str(value))


def plain(value: str) -> str:
    r"""Write text on one line, with controls as ``\n`` and ``\x1b``."""
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], value)


def safe(value: object) -> str:
    """Answer `plain` text for between markup."""
    return escape(plain(str(value)))


def cut(value: str, most: int) -> str:
    """Answer at most so many characters, and how many more there are."""
    rest = len(value) - most
    return value if rest <= 0 else f"{value[:most]} … {rest:,} more characters"


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
    if isinstance(error, OSError) and error.strerror:
        what = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
        error = PenstockError(what)
    if as_json:
        sys.stderr.buffer.write(problem.problem(error).body() + b"\n")
        sys.stderr.flush()
    elif isinstance(error, PenstockError):
        _explain(error, err())
    else:
        traceback.print_exception(error)
        err().print("this is a mistake in Penstock; please report it with the lines above")
    return WRONG_USE if isinstance(error, BadName | BadQuery | BadRequest | BadSetting) else FAILED


def _explain(error: PenstockError, console: Console) -> None:
    # The lines of a SQL error point at a character: they stay lines.
    lines = [plain(line) for line in str(error).splitlines()]
    console.print(
        Text("error: ", style="bold red").append("\n".join(lines), style="not bold default")
    )
    if isinstance(error, BadQuery):
        console.print(Text("\n".join(plain(line) for line in error.pointer().splitlines())))
    hints = [hint for kind, hint in _HINTS.items() if isinstance(error, kind)]
    if isinstance(error, LogChanged | LogDamaged) and not isinstance(error, LogReplaced):
        hints.append("once the right log cannot be brought back: 'penstock log renew'")
    for line in (*hints, *getattr(error, "__notes__", ())):
        console.print(Text(f"  {plain(line)}", style="dim"))
