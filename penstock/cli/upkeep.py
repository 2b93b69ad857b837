"""`penstock upkeep`: what the Dagster job does, without Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.complete import collections
from penstock.cli.console import DONE, FAILED, JsonFlag, err, out, print_json
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption
from penstock.logs import set_up_logs
from penstock.settings import load_settings

if TYPE_CHECKING:
    from assets.upkeep import Tended


def upkeep(
    name: Annotated[
        str | None,
        typer.Argument(help="The collection; else every one.", autocompletion=collections),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether upkeep keeps up; change nothing.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Merge small files, expire snapshots and delete orphans, without Dagster."""
    from assets.stores import opened
    from assets.upkeep import Untended, aims_of, check_upkeep
    from orchestration.tending import tend_home
    from penstock.clock import machine_clock
    from penstock.envelope import parse_collection
    from penstock.errors import NotFound, PenstockError

    set_up_logs()
    troubles = 0
    with opened(load_settings(home, file=settings_file)) as stores:
        wanted = stores.lake.collections()
        if name is not None:
            chosen = parse_collection(name)
            if chosen not in wanted:
                raise NotFound("table", str(chosen))
            wanted = [chosen]
        if check:
            aims = aims_of(stores.settings)
            for collection in wanted:
                verdict = check_upkeep(stores.lake, collection, aims, machine_clock())
                troubles += not verdict.passed
                if as_json:
                    print_json(
                        {"collection": str(collection), "passed": verdict.passed, **verdict.facts}
                    )
                else:
                    out().print(f"{collection}: {verdict.sentence}", markup=False)
            raise typer.Exit(FAILED if troubles else DONE)
        for outcome in tend_home(
            stores, wanted, holder="penstock upkeep", seconds=stores.settings.upkeep_seconds
        ):
            if isinstance(outcome, Untended):
                troubles += 1
                # A library's own words may quote what it could not read.
                ours = isinstance(outcome.error, PenstockError)
                reason = str(outcome.error) if ours else type(outcome.error).__name__
                err().print(f"{outcome.collection}: not tended: {reason}", markup=False)
            elif as_json:
                print_json({"collection": str(outcome.collection), **outcome.figures()})
            else:
                out().print(told(outcome), markup=False)
    raise typer.Exit(FAILED if troubles else DONE)


def told(tended: Tended) -> str:
    """Answer what was done in a line."""
    merged = tended.compacted
    return (
        f"{tended.collection}: {tended.files_before:,} files, now {tended.files:,} "
        f"({merged.bytes / 1e6:,.1f} MB rewritten); {tended.expired:,} snapshots expired, "
        f"{tended.snapshots:,} left; {tended.deleted:,} orphans deleted; {tended.seconds:.2f} s"
        + ("; there is more to merge" if merged.more else "")
    )
