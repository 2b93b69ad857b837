"""The command ``penstock``, put together from its nouns."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from penstock.cli import (
    collection,
    dashboard,
    demo,
    destination,
    doctor,
    event,
    key,
    land,
    log,
    quarantine,
    replay,
    search,
    searches,
    send,
    serve,
    sql,
    status,
    tail,
    token,
    up,
    upkeep,
)
from penstock.cli.console import FAILED, report
from penstock.errors import BadRequest
from penstock.memory import keep_little

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
app.command("dashboard", rich_help_panel=RUN)(dashboard.dashboard)
app.command("doctor", rich_help_panel=RUN)(doctor.doctor)
app.command("land", rich_help_panel=RUN)(land.land)
app.command("upkeep", rich_help_panel=RUN)(upkeep.upkeep)
app.add_typer(serve.app, name="serve", rich_help_panel=RUN)
app.add_typer(log.app, name="log", rich_help_panel=RUN)
app.command("status", rich_help_panel=WORK)(status.status)
app.command("send", rich_help_panel=WORK)(send.send)
app.command("search", rich_help_panel=WORK)(search.search)
app.add_typer(searches.app, name="searches", rich_help_panel=WORK)
app.command("tail", rich_help_panel=WORK)(tail.tail)
app.command("event", rich_help_panel=WORK)(event.event)
app.command("sql", rich_help_panel=WORK)(sql.sql)
app.add_typer(replay.app, name="replay", rich_help_panel=WORK)
app.add_typer(quarantine.app, name="quarantine", rich_help_panel=WORK)
app.add_typer(collection.app, name="collection", rich_help_panel=MANAGE)
app.add_typer(destination.app, name="destination", rich_help_panel=MANAGE)
app.add_typer(key.app, name="key", rich_help_panel=MANAGE)
app.add_typer(token.app, name="token", rich_help_panel=MANAGE)


_UsageError = typer.BadParameter.__mro__[1]


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line, or these words. Exit codes: 0 done, 1 failed, 2 wrong use."""
    keep_little(os.environ)
    words = sys.argv[1:] if words is None else words
    # The parser prints what is wrong with the words for people; a program is told like all else.
    as_json = "--json" in words
    try:
        sys.exit(app(list(words), standalone_mode=not as_json))
    except typer.Abort:
        sys.exit(FAILED)
    except BrokenPipeError:
        # Whoever read the output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001 - the last frame: everything becomes an exit code
        wrong = BadRequest(str(error)) if isinstance(error, _UsageError) else error
        sys.exit(report(wrong, as_json=as_json))
