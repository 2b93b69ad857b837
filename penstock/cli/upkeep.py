"""`penstock upkeep`: what the Dagster job does, without Dagster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.complete import collections
from penstock.cli.console import DONE, FAILED, JsonFlag, err, out, plain, print_json
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption, settings_of
from penstock.cli.rewriting import rewritten

if TYPE_CHECKING:
    from assets.stores import Stores
    from assets.upkeep import Tended
    from orchestration.fitting import Fitted
    from penstock.envelope import CollectionId


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
    """Merge small files, expire snapshots, delete orphans and retype columns, without Dagster."""
    from assets.stores import opened
    from penstock.envelope import parse_collection
    from penstock.errors import NotFound
    from penstock.logs import set_up_logs

    set_up_logs()
    with opened(settings_of(home, settings_file)) as stores:
        wanted = stores.lake.collections()
        if name is not None:
            chosen = parse_collection(name)
            if chosen not in wanted:
                raise NotFound("table", str(chosen))
            wanted = [chosen]
        if check:
            troubles = _check(stores, wanted, as_json=as_json)
        else:
            troubles = _tend(stores, wanted, as_json=as_json)
            troubles += _fit(stores, wanted, as_json=as_json)
    raise typer.Exit(FAILED if troubles else DONE)


def _check(stores: Stores, wanted: Sequence[CollectionId], *, as_json: bool) -> int:
    """Tell whether upkeep keeps up; answer with how many collections it does not."""
    from assets.upkeep import aims_of, check_upkeep
    from penstock.clock import machine_clock

    troubles = 0
    aims = aims_of(stores.settings)
    for collection in wanted:
        verdict = check_upkeep(stores.lake, collection, aims, machine_clock(), stores.merger)
        troubles += not verdict.passed
        if as_json:
            print_json({"collection": str(collection), "passed": verdict.passed, **verdict.facts})
        else:
            out().print(f"{collection}: {verdict.sentence}", markup=False)
    return troubles


def _tend(stores: Stores, wanted: Sequence[CollectionId], *, as_json: bool) -> int:
    """Merge, expire and sweep; answer how many collections that could not be done for."""
    from assets.upkeep import Untended
    from orchestration.tending import tend_home

    troubles = 0
    for outcome in tend_home(
        stores, wanted, holder="penstock upkeep", seconds=stores.settings.upkeep_seconds
    ):
        if isinstance(outcome, Untended):
            troubles += 1
            err().print(f"{outcome.collection}: not tended: {_reason(outcome.error)}", markup=False)
            continue
        if outcome.compacted.trouble:
            troubles += 1
            err().print(
                f"{outcome.collection}: files not merged: {outcome.compacted.trouble}", markup=False
            )
        if as_json:
            print_json({"collection": str(outcome.collection), **outcome.figures()})
        else:
            out().print(told(outcome), markup=False)
    return troubles


def _fit(stores: Stores, wanted: Sequence[CollectionId], *, as_json: bool) -> int:
    """Retype columns that are due; answer for how many collections that could not be done."""
    from orchestration.fitting import Unfitted, fit_home

    troubles = 0
    for outcome in fit_home(stores, wanted, holder="penstock upkeep"):
        if isinstance(outcome, Unfitted):
            troubles += 1
            err().print(
                f"{outcome.collection}: not retyped: {_reason(outcome.error)}", markup=False
            )
        elif as_json:
            print_json({"collection": str(outcome.collection), **rewritten(outcome.rewritten)})
        else:
            out().print(retyped(outcome), markup=False)
    return troubles


def _reason(error: Exception) -> str:
    """Answer why something could not be done; a library's own words may quote what it read."""
    from penstock.errors import PenstockError

    return str(error) if isinstance(error, PenstockError) else type(error).__name__


def retyped(fitted: Fitted) -> str:
    """Answer which columns were retyped in a line."""
    from penstock.schema.retype import differences

    done = fitted.rewritten
    paths = ", ".join(plain(one.path) for one in differences(done.before, done.after))
    return (
        f"{fitted.collection}: doubles instead of longs: {paths}; {done.rows:,} rows written anew, "
        f"{done.misfits_before.total():,} misfits before, {done.misfits_after.total():,} after"
    )


def told(tended: Tended) -> str:
    """Answer what was done in a line."""
    merged = tended.compacted
    return (
        f"{tended.collection}: {tended.files_before:,} files, now {tended.files:,} "
        f"({merged.bytes / 1e6:,.1f} MB rewritten); {tended.expired:,} snapshots expired, "
        f"{tended.snapshots:,} left; {tended.deleted:,} orphans deleted; {tended.seconds:.2f} s"
        + (f"; {tended.dropped.days:,} old days dropped" if tended.dropped.days else "")
        + (f"; old days stay: {tended.dropped.postponed}" if tended.dropped.postponed else "")
        + ("; there is more to merge" if merged.more else "")
    )
