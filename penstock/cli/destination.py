"""`penstock destination …`."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli.complete import destinations
from penstock.cli.console import DONE, FAILED, JsonFlag, err, out, print_json, print_table, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect
from penstock.errors import BadRequest

app = typer.Typer(no_args_is_help=True, help="Name, try and list the places replays go to.")

NewName = Annotated[str, typer.Argument(help="The destination's name.")]
Name = Annotated[str, typer.Argument(help="The destination's name.", autocompletion=destinations)]


@app.command()
def create(
    name: NewName,
    url: Annotated[str, typer.Argument(help="Where events are sent by HTTP POST.")],
    header: Annotated[
        list[str] | None,
        typer.Option(help="'Name: value', sent with every event; its value is never shown again."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Name a destination."""
    with connect(home) as client:
        headers = [parse_header(one) for one in header or []]
        made = client.create_destination(name, url, headers=headers)
    print_json(made) if as_json else out().print(f"created {safe(f'{made.name} → {made.url}')}")


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """List the destinations."""
    with connect(home) as client:
        found = client.destinations()
    if as_json:
        print_json(found)
    elif found:
        rows = [(one.name, one.kind, one.url, ", ".join(one.headers)) for one in found]
        print_table(["name", "kind", "address", "headers"], rows, out())
    else:
        out().print("no destinations yet: 'penstock destination create NAME URL'")


@app.command("test")
def try_(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Send one small event there and tell what became of it."""
    with connect(home) as client:
        tried = client.try_destination(name)
    if as_json:
        print_json(tried)
    elif tried.delivered:
        out().print(f"{name} answered {tried.status} in {tried.seconds * 1000:.0f} ms")
    else:
        err().print(f"[red]not delivered[/]: {safe(tried.reason)}")
    raise typer.Exit(DONE if tried.delivered else FAILED)


@app.command()
def delete(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Forget a destination."""
    with connect(home) as client:
        client.delete_destination(name)
    print_json({"deleted": name}) if as_json else out().print(f"deleted {name}")


def parse_header(text: str) -> tuple[str, str]:
    """Read ``Name: value``; the message of a refusal leaves the value out."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise BadRequest("a header is written 'Name: value'")
    return name.strip(), value.strip()
