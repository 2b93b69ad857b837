"""What the shell completes: names that the running platform knows.

Somebody waits with a finger on the tab key: where nothing runs, or it takes too long, there is
nothing to offer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from penstock.cli.home import DEFAULT_HOME, client_of
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.client import Client

_PATIENCE_SECONDS = 1.0


def collections(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the team's collections."""
    return _offer(ctx, incomplete, lambda client: (one.name for one in client.collections()))


def destinations(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the team's destinations."""
    return _offer(ctx, incomplete, lambda client: (one.name for one in client.destinations()))


def replays(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the newest replays."""
    return _offer(ctx, incomplete, lambda client: (one.id for one in client.replays()))


def tokens(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the tokens that still work."""
    return _offer(
        ctx,
        incomplete,
        lambda client: (one.id for one in client.tokens() if one.revoked_at is None),
    )


def saved_searches(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the team's saved searches."""
    return _offer(ctx, incomplete, lambda client: (one.name for one in client.saved_searches()))


def search(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer what may stand at the end of a search: fields, values, words of the language.

    Only what can be written without quotes of the shell.
    """
    collection = ctx.params.get("collection")
    if not collection:
        return []
    begun = " ".join([*(ctx.params.get("query") or ()), ""])
    # Bash takes a colon for the end of a word.
    begun = re.sub(r"\s+:\s+$", ":", begun)
    view = "quarantine" if ctx.params.get("quarantine") else "main"

    def words(client: Client) -> Iterable[str]:
        found = client.complete(collection, begun + incomplete, view=view)
        kept = found.start - len(begun)
        if kept < 0:
            return ()
        texts = (one.text for one in found.suggestions)
        return (f"{incomplete[:kept]}{text}" for text in texts if _UNQUOTED.fullmatch(text))

    return _offer(ctx, incomplete, words)


# A backslash, a quote or a blank would have to be written otherwise in each shell.
_UNQUOTED = re.compile(r"[\w.:/@%+,-]+")


def _offer(
    ctx: typer.Context, incomplete: str, names: Callable[[Client], Iterable[str]]
) -> list[str]:
    home = Path(ctx.params.get("home") or DEFAULT_HOME)
    try:
        with client_of(home, timeout=_PATIENCE_SECONDS) as client:
            return [name for name in names(client) if name.startswith(incomplete)]
    except (PenstockError, OSError):
        return []
