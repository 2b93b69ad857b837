"""`penstock log …`: the embedded log of a home."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.console import JsonFlag, moment, out, print_json, print_table, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption, command, settings_of
from penstock.errors import BadRequest

if TYPE_CHECKING:
    from assets.renew import Plan
    from penstock.buffer.renewal import Intent, Share

app = typer.Typer(no_args_is_help=True, help="Follow a log that cannot go on by a new one.")


@app.command()
def renew(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    why: Annotated[str, typer.Option("--why", help="The reason, kept with what was done.")] = "",
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a new log of what can be read of one that is damaged, or an older copy.

    What no table has is carried over, byte for byte, with its ids and times.
    What cannot be read any more is lost, and the books of its collection say so.
    The old log is put aside in the folder **aside** of the log; nothing of it is deleted.
    Stop **penstock up**, or the door, before; a renewal that was broken off goes on.
    """
    from contextlib import nullcontext
    from uuid import uuid4

    from assets.renew import folder_of, prepare
    from assets.renew import renew as carry_out
    from assets.stores import opened
    from penstock.buffer.files import Disk
    from penstock.buffer.renewal import held
    from penstock.clock import machine_clock
    from penstock.logs import set_up_logs

    if as_json and not (yes or dry_run):
        raise BadRequest("--json asks nobody: add --yes or --dry-run")
    set_up_logs()
    settings = settings_of(home, settings_file)
    folder = folder_of(settings.log)
    with opened(settings) as stores, nullcontext() if dry_run else held(folder):
        plan = prepare(folder, stores.lake)
        if not as_json:
            out().print(f"[bold]the log in {safe(folder)}[/]")
            for said in plan.says:
                out().print(f"  - {safe(said)}")
        done = None
        if not dry_run:
            if not yes:
                typer.confirm("Do that? It cannot be taken back", abort=True)
            done = carry_out(
                Disk(),
                stores.lake,
                plan,
                by=getpass.getuser(),
                why=why,
                new_id=uuid4(),
                now=machine_clock(),
                done=lambda _: None,
            )
    if as_json:
        print_json(_written(plan, done))
    elif done is None:
        out().print("nothing was changed")
    else:
        out().print(
            f"done: {sum(one.events for one in done.shares.values()):,} events were carried over "
            f"to the log {done.new}, {sum(one.gone for one in done.shares.values()):,} are lost; "
            f"the old one is in {safe(folder / 'aside' / done.name)}; start 'penstock up' again, "
            f"and see '{command(home, 'status')}'"
        )


@app.command("list")
def list_renewals(
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the renewals of this log: when, who, why, and what became of each collection."""
    from assets.renew import folder_of
    from penstock.buffer.renewal import renewals

    folder = folder_of(settings_of(home, settings_file).log)
    done = renewals(folder)
    if as_json:
        print_json([_done(one) for one in done])
        return
    if not done:
        out().print("this log was never renewed: 'penstock log renew --dry-run' looks at it")
        return
    print_table(
        ["at", "by", "why", "collection", "carried#", "lost#"],
        [
            (moment(one.at), one.by, one.why, name, f"{share.events:,}", f"{share.gone:,}")
            for one in done
            for name, share in sorted(one.shares.items())
        ],
        out(),
    )


def _written(plan: Plan, done: Intent | None) -> dict[str, Any]:
    shares = done.shares if done is not None else {str(c): s for c, s in plan.shares.items()}
    return {
        "says": plan.says,
        "collections": {name: _share(share) for name, share in shares.items()},
        "done": done is not None,
        "aside": str(plan.folder / "aside" / done.name) if done is not None else None,
    }


def _done(one: Intent) -> dict[str, Any]:
    return {
        "at": moment(one.at),
        "by": one.by,
        "why": one.why,
        "old": str(one.old),
        "new": str(one.new),
        "damage": one.damage,
        "collections": {name: _share(share) for name, share in one.shares.items()},
    }


def _share(share: Share) -> dict[str, Any]:
    return {
        "carried": share.events,
        "lost": share.gone,
        "lost_positions": [{"start": start, "end": end} for start, end in share.lost],
        "forked": share.forked,
    }
