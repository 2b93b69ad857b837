"""`penstock collection …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.complete import collections
from penstock.cli.console import JsonFlag, err, out, print_json, print_table, safe, table
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption, command, connect
from penstock.cli.moments import SinceOption, UntilOption, parse_moment, utc_now

if TYPE_CHECKING:
    from penstock.client import Stats

_BAR_WIDTH = 30

app = typer.Typer(no_args_is_help=True, help="Create, look at, pause and resume collections.")

NewName = Annotated[str, typer.Argument(help="The collection's name.")]
Name = Annotated[str, typer.Argument(help="The collection's name.", autocompletion=collections)]


@app.command()
def create(
    name: NewName,
    contract: Annotated[
        str, typer.Option(help="New fields become columns (evolve) or misfits (freeze).")
    ] = "evolve",
    notes: Annotated[str, typer.Option(help="What it is for.")] = "",
    allow_loops: Annotated[
        bool,
        typer.Option("--allow-loops", help="Take back what a replay took from this collection."),
    ] = False,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Log partitions, on Kafka; else as the setting says.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Create a collection, and a token that may send events to it; the token is shown once."""
    with connect(home) as client:
        made = client.create_collection(
            name,
            contract=contract,
            notes=notes,
            allow_loops=allow_loops,
            partitions=partitions,
            token=True,
        )
    if as_json:
        print_json(made)
        return
    out().print(f"created [bold]{made.name}[/]; this token sends events to it, keep it:")
    out().print(f"\n  {made.token}\n", markup=False)
    err().print(f"[dim]send to it: {command(home, f'send {made.name} FILE')}[/]")


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """List the collections with what they hold and what waits."""
    with connect(home) as client:
        found = client.status().collections
    if as_json:
        print_json(found)
        return
    if not found:
        out().print("no collections yet: create one with 'penstock collection create NAME'")
        return
    print_table(
        ["collection", "rows#", "quarantined#", "waiting#", "columns#", "paused"],
        [
            (one.name, one.rows, one.quarantined, one.waiting, one.columns, one.paused)
            for one in found
        ],
        out(),
    )


@app.command()
def show(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show how far landing is with a collection."""
    with connect(home) as client:
        record, status = client.collection(name), client.collection_status(name)
    if as_json:
        print_json({"collection": record, "status": status})
        return
    console = out()
    console.print(f"[bold]{record.name}[/]  {safe(record.notes)}")
    console.print(
        f"created {record.created_at:%Y-%m-%d %H:%M:%SZ}, contract {record.contract}"
        + (", takes replays of itself" if record.allow_loops else "")
    )
    console.print(
        f"{status.rows:,} rows, {status.quarantined:,} in quarantine, {status.waiting:,} waiting, "
        f"{status.columns:,} columns" + (", [yellow]paused[/]" if status.paused else "")
    )
    console.print(
        table(
            "",
            ["partition#", "log start#", "log end#", "landed up to#", "waiting#"],
            [(p.partition, p.start, p.end, p.mark, p.waiting) for p in status.partitions],
        )
    )


@app.command()
def schema(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show the discovered columns, and which event brought them."""
    with connect(home) as client:
        found = client.schema(name)
    if as_json:
        print_json(found)
        return
    console = out()
    if not found.columns:
        err().print("no columns yet: they are discovered when the first events land")
        return
    print_table(["column", "type"], [(one.path, one.type) for one in found.columns], console)
    for version in found.versions:
        console.print(f"\nversion {version.version}, {version.at:%Y-%m-%d %H:%M:%SZ}")
        for change in version.changes:
            brought = f" (first in {change.event_id})" if change.event_id else ""
            console.print(f"  {safe(f'{change.what} {change.path} {change.type}{brought}')}")


@app.command()
def grow(
    name: Name,
    partitions: Annotated[int, typer.Option(min=1, help="Log partitions from now on.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Give a collection's log more partitions, on Kafka; a key's order ends where it moves."""
    with connect(home) as client:
        record = client.grow_collection(name, partitions)
    print_json(record) if as_json else out().print(f"{record.name} has {record.partitions}")


@app.command()
def reindex(
    name: Name,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make the search index of a collection again from the lake; searches stay right meanwhile."""
    from assets.stores import opened
    from penstock.envelope import parse_collection
    from penstock.errors import BadRequest
    from penstock.logs import set_up_logs
    from penstock.settings import load_settings

    set_up_logs()
    collection = parse_collection(name)
    with opened(load_settings(home, file=settings_file)) as stores, stores.indexing() as indexing:
        if indexing is None:
            raise BadRequest("no search index is used here: search_url is not set")
        rows = refused = 0
        for done in indexing.reindex(collection):
            rows, refused = rows + done.rows, refused + done.refused
            err().print(f"[dim]{rows:,} rows, {done.waiting:,} to go[/]")
    if as_json:
        print_json({"collection": str(collection), "rows": rows, "refused": refused})
        return
    out().print(f"{collection}: {rows:,} rows are searchable in the new index")


@app.command()
def stats(
    name: Name,
    since: SinceOption = None,
    until: UntilOption = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Minutes of one bar; else about 60 bars.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show how many events came over time, in the last day if nothing else is said."""
    now = utc_now()
    with connect(home) as client:
        found = client.collection_stats(
            name,
            since=parse_moment(since, now),
            until=parse_moment(until, now),
            step_seconds=step and step * 60,
        )
    if as_json:
        print_json(found)
        return
    _plot(found)
    if found.uncounted:
        err().print(
            f"[yellow]{found.uncounted:,} more have landed and are not counted yet[/]: upkeep "
            "counts them within ten minutes"
        )


def _plot(found: Stats) -> None:
    """Draw a bar for each step; what is in quarantine is the yellow end of it."""
    console = out()
    most = max((one.events for one in found.steps), default=0)
    console.print(
        f"[dim]{'from':<16}  {'events':>11}  {'bytes':>14}  {'quarantined':>11}  {'lag':>8}[/]"
    )
    for one in found.steps:
        width = max(round(one.events / most * _BAR_WIDTH), 1) if one.events else 0
        apart = (
            min(width, max(round(one.quarantined / most * _BAR_WIDTH), 1)) if one.quarantined else 0
        )
        lag = "" if one.lag_seconds is None else f"{one.lag_seconds:,.1f} s"
        console.print(
            f"{one.start:%Y-%m-%d %H:%M}  {one.events:>11,}  {one.bytes:>14,}  "
            f"{one.quarantined:>11,}  {lag:>8}  "
            f"[cyan]{'█' * (width - apart)}[/][yellow]{'█' * apart}[/]",
            soft_wrap=True,
        )
    events, quarantined = (
        sum(one.events for one in found.steps),
        sum(one.quarantined for one in found.steps),
    )
    console.print(f"\n{events:,} events, {quarantined:,} of them in quarantine")


@app.command()
def pause(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Refuse the collection's events from now on."""
    with connect(home) as client:
        record = client.pause_collection(name)
    print_json(record) if as_json else out().print(f"{record.name} is paused")


@app.command()
def resume(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Accept the collection's events again."""
    with connect(home) as client:
        record = client.resume_collection(name)
    print_json(record) if as_json else out().print(f"{record.name} takes events")
