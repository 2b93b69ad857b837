"""`penstock serve door | platform`: one process each, as `up` starts them."""

from __future__ import annotations

import os

import typer

from penstock import faults
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption, settings_of

app = typer.Typer(no_args_is_help=True, help="Run one process of a home by itself.")


@app.command()
def door(home: HomeOption = DEFAULT_HOME, settings_file: SettingsOption = None) -> None:
    """Take events in over HTTP and gRPC until it is told to end."""
    from ingest_api.serve import serve
    from penstock.logs import set_up_logs

    set_up_logs()
    faults.arm(os.environ.get(faults.VARIABLE))
    serve(settings_of(home, settings_file))


@app.command()
def platform(home: HomeOption = DEFAULT_HOME, settings_file: SettingsOption = None) -> None:
    """Serve API, search and dashboard until it is told to end."""
    from penstock.api.serve import serve
    from penstock.dashboard.app import add_dashboard, addresses_of
    from penstock.logs import set_up_logs

    set_up_logs()
    settings = settings_of(home, settings_file)
    serve(settings, pages=lambda app: add_dashboard(app, addresses_of(settings)))
