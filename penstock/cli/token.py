"""`penstock token …`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from penstock.cli.complete import collections, tokens
from penstock.cli.console import JsonFlag, out, print_json, print_table, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect
from penstock.cli.moments import parse_end, utc_now

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke tokens.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    scope: Annotated[
        list[str],
        typer.Option(help="ingest, read, replay, tunnel or admin; may be given several times."),
    ],
    collection: Annotated[
        str | None,
        typer.Option(help="Bind an ingest token to one collection.", autocompletion=collections),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: `30d`, `12h` from now, or an ISO time.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Create a token; its text is shown once, and doors know it at once."""
    with connect(home) as client:
        made = client.create_token(
            name, scope, collection=collection, expires_at=parse_end(expires, utc_now())
        )
    if as_json:
        print_json(made)
        return
    out().print(f"created token {made.id}; keep its text, it is shown only now:")
    out().print(f"\n  {made.token}\n", markup=False)


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """List the tokens; never their text."""
    now = utc_now()
    with connect(home) as client:
        found = client.tokens()
    if as_json:
        print_json(found)
        return
    rows = []
    for one in found:
        expired = one.expires_at is not None and one.expires_at <= now
        state = "revoked" if one.revoked_at else "expired" if expired else "good"
        scopes = ", ".join(one.scopes)
        rows.append((one.id, one.name, scopes, one.collection or "all", one.hint, state))
    print_table(["id", "name", "scopes", "collection", "begins with", "state"], rows, out())


@app.command()
def revoke(
    token_id: Annotated[
        str,
        typer.Argument(help="The token's id, as `token list` shows it.", autocompletion=tokens),
    ],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Make a token worthless, and say which doors refuse it by now."""
    with connect(home) as client:
        gone = client.revoke_token(token_id)
    if as_json:
        print_json(gone)
        return
    out().print(f"revoked {safe(gone.name)} ({gone.id})")
    for line in confirmations(gone.doors, gone.within_seconds):
        out().print(safe(line))


def confirmations(doors: Mapping[str, bool] | None, within_seconds: float) -> list[str]:
    """Say which doors refuse a token that was revoked, and when the others will."""
    if doors is None:
        return ["which doors refuse it is not known: their cache does not answer"]
    if not doors:
        return ["no door is running"]
    silent = sorted(door for door, confirmed in doors.items() if not confirmed)
    said = [f"refused by {len(doors) - len(silent)} of {len(doors)} doors"]
    if silent:
        said.append(
            f"not confirmed by {', '.join(silent)}: refused there {within_seconds:g} s after the "
            "cache is reached again; stop that door to be sure now"
        )
    return said
