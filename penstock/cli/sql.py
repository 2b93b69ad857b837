"""`penstock sql`."""

from __future__ import annotations

import sys
from base64 import b64decode
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.console import JsonFlag, cut, err, out, plain, print_json, print_table
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect

if TYPE_CHECKING:
    from penstock.contract.sql import SqlAnswer

_LONGEST_CELL = 500
_NUMBERS = ("int", "long", "float", "double", "decimal", "bigint", "hugeint")


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT or EXPLAIN; - reads it from stdin.")],
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without a limit on rows.")] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write a Parquet file to stdout, without that limit.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Ask the collections in SQL: every collection is a table, payload fields are below `data`.

    For example: penstock sql "select data.carrier, count(*) from flights group by 1 order by 2"
    """
    text = sys.stdin.read() if statement == "-" else statement
    with connect(home) as client:
        if csv or parquet:
            for piece in client.sql_parquet(text) if parquet else client.sql_csv(text):
                sys.stdout.buffer.write(piece)
            return
        answer = client.sql(text)
    if as_json:
        print_json(answer)
        return
    show_answer(answer, out())
    more = ", more were left out" if answer.truncated else ""
    rows = "1 row" if len(answer.rows) == 1 else f"{len(answer.rows):,} rows"
    err().print(f"[dim]{rows}{more}, {answer.seconds * 1000:.0f} ms[/]")


def show_answer(answer: SqlAnswer, console: Console) -> None:
    """Print the rows as a table; a row after the other where a table is wider than the terminal."""
    most = _LONGEST_CELL if console.is_terminal else None
    rows = [[_cell(value, most) for value in row] for row in answer.rows]
    names = [
        f"{name}#" if kind.lower().startswith(_NUMBERS) else name
        for name, kind in zip(answer.columns, answer.types, strict=True)
    ]
    print_table(names, rows, console, row="row")


def _cell(value: Any, most: int | None) -> Text:
    """Write a value as SQL people know it: numbers as they are, nested ones as JSON.

    In a file nothing is cut: somebody may go on with it.
    """
    match value:
        case None:
            return Text("null", style="dim")
        case str():
            written = value
        case {"base64": str(packed), **more} if most is not None and not more:
            return Text(f"{len(b64decode(packed)):,} bytes, no text", style="dim")
        case _:
            written = msgspec.json.encode(value).decode()
    return Text(plain(written if most is None else cut(written, most)))
