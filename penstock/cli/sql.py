"""`penstock sql`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from penstock.cli.console import JsonFlag, err, out, print_json, table
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect

_NUMBERS = ("int", "long", "float", "double", "decimal", "bigint", "hugeint")


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT or EXPLAIN; - reads it from stdin.")],
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without a limit on rows.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Ask the collections in SQL: every collection is a table, payload fields are below `data`.

    For example: penstock sql "select data.carrier, count(*) from flights group by 1 order by 2"
    """
    text = sys.stdin.read() if statement == "-" else statement
    with connect(home) as client:
        if csv:
            for piece in client.sql_csv(text):
                sys.stdout.buffer.write(piece)
            return
        answer = client.sql(text)
    if as_json:
        print_json(answer)
        return
    names = [
        f"{name}#" if kind.lower().startswith(_NUMBERS) else name
        for name, kind in zip(answer.columns, answer.types, strict=True)
    ]
    out().print(table("", names, answer.rows))
    more = ", more were left out" if answer.truncated else ""
    err().print(f"[dim]{len(answer.rows):,} rows{more}, {answer.seconds * 1000:.0f} ms[/]")
