"""`penstock searches …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.complete import collections, saved_searches
from penstock.cli.console import JsonFlag, out, print_json, print_table
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect

if TYPE_CHECKING:
    from penstock.contract.searches import SavedSearchTold

app = typer.Typer(no_args_is_help=True, help="Look at the searches that were saved.")

Name = Annotated[str, typer.Argument(help="The name of the search.", autocompletion=saved_searches)]


@app.command("list")
def list_(
    collection: Annotated[
        str | None,
        typer.Argument(help="Only those of this collection.", autocompletion=collections),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """List the saved searches."""
    with connect(home) as client:
        found = client.saved_searches(collection=collection)
    if as_json:
        print_json(found)
    elif found:
        rows = [(one.name, one.collection, one.query or "*", _when(one)) for one in found]
        print_table(["name", "collection", "query", "received"], rows, out())
    else:
        out().print("no saved searches yet: 'penstock search COLLECTION QUERY --save NAME'")


@app.command()
def show(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show a saved search."""
    with connect(home) as client:
        found = client.saved_search(name)
    if as_json:
        print_json(found)
        return
    rows = [
        ("collection", found.collection),
        ("query", found.query or "*"),
        ("received", _when(found)),
        ("first", found.order),
        ("view", found.view),
        ("duplicates", found.duplicates),
        ("changed", f"{found.changed_at:%Y-%m-%d %H:%M}Z"),
        ("make it", command(home, f"search --saved {name}")),
    ]
    print_table([name, ""], rows, out())


@app.command()
def delete(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Forget a saved search."""
    with connect(home) as client:
        client.delete_search(name)
    print_json({"deleted": name}) if as_json else out().print(f"deleted {name}")


def _when(one: SavedSearchTold) -> str:
    if one.since is None and one.until is None:
        return "at any time"
    since = "" if one.since is None else f"from {one.since}"
    until = "" if one.until is None else f"before {one.until}"
    return " ".join(part for part in (since, until) if part)
