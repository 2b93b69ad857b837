"""The command ``penstock``, put together from its nouns."""

from __future__ import annotations

import sys

import typer

from penstock.cli import (
    collection,
    demo,
    destination,
    doctor,
    land,
    replay,
    search,
    send,
    serve,
    sql,
    status,
    token,
    up,
)
from penstock.cli.console import report

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="See, keep, search and replay what goes over your message buses.",
    epilog="Start with **penstock demo**, or **penstock up** and the curl it prints.",
)

RUN = "Run Penstock"
WORK = "Work with events"
MANAGE = "Manage"

app.command("up", rich_help_panel=RUN)(up.up)
app.command("demo", rich_help_panel=RUN)(demo.demo)
app.command("doctor", rich_help_panel=RUN)(doctor.doctor)
app.command("land", rich_help_panel=RUN)(land.land)
app.add_typer(serve.app, name="serve", rich_help_panel=RUN)
app.command("status", rich_help_panel=WORK)(status.status)
app.command("send", rich_help_panel=WORK)(send.send)
app.command("search", rich_help_panel=WORK)(search.search)
app.command("sql", rich_help_panel=WORK)(sql.sql)
app.add_typer(replay.app, name="replay", rich_help_panel=WORK)
app.add_typer(collection.app, name="collection", rich_help_panel=MANAGE)
app.add_typer(destination.app, name="destination", rich_help_panel=MANAGE)
app.add_typer(token.app, name="token", rich_help_panel=MANAGE)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong use."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - the last frame: everything becomes an exit code
        sys.exit(report(error, as_json="--json" in sys.argv))
