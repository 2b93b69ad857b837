"""`penstock dashboard`: the way into the browser."""

from __future__ import annotations

import typer

from penstock.cli.home import DEFAULT_HOME, HomeOption, read_running


def dashboard(home: HomeOption = DEFAULT_HOME) -> None:
    """Print the link that signs a browser in to the dashboard of what runs in this home."""
    typer.echo(read_running(home).sign_in)
