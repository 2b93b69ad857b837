"""`penstock land`: what the Dagster job does, without Dagster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.console import DONE, FAILED, JsonFlag, err, out, print_json, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption, settings_of

if TYPE_CHECKING:
    from assets.landing import Landed


def land(
    once: Annotated[
        bool, typer.Option("--once", help="Land what waits now, then end.", show_default=False)
    ] = True,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn what waits on the log into rows, without Dagster."""
    from assets.landing import Trouble
    from assets.searchable import catch_up
    from assets.stores import opened
    from penstock import faults
    from penstock.clock import machine_clock
    from penstock.logs import set_up_logs

    set_up_logs()
    faults.arm(os.environ.get(faults.VARIABLE))
    del once  # Dagster lands continuously; by hand there is no other way than once
    troubles = 0
    with opened(settings_of(home, settings_file)) as stores, stores.books() as books:
        landing = stores.landing()
        for outcome in landing.drain(stores.buffer.collections, until=lambda: False, idle=0):
            if isinstance(outcome, Trouble):
                troubles += 1
                err().print(f"[red]{outcome.collection}[/]: {safe(outcome.reason)}")
                continue
            books.tell(outcome)
            if as_json:
                print_json(figures(outcome))
            else:
                out().print(
                    f"{outcome.collection}: {outcome.rows:,} rows, "
                    f"{outcome.quarantined:,} in quarantine, {outcome.seconds:.2f} s"
                )
        with stores.indexing() as indexing:
            for done in (
                catch_up(indexing, indexing.collections(), clock=machine_clock) if indexing else ()
            ):
                if isinstance(done, Trouble):
                    troubles += 1
                    err().print(f"[red]{done.collection}[/]: {safe(done.reason)}")
                elif not as_json:
                    out().print(f"{done.collection}: {done.rows:,} rows searchable in the index")
    raise typer.Exit(FAILED if troubles else DONE)


def figures(landed: Landed) -> dict[str, object]:
    """Answer what one commit did, as JSON shows it."""
    return {
        "collection": str(landed.collection),
        "spans": [str(span) for span in landed.spans],
        "rows": landed.rows,
        "quarantined": landed.quarantined,
        "bytes": landed.bytes,
        "columns": landed.columns,
        "seconds": landed.seconds,
    }
