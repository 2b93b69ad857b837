"""`penstock collection retype` and `rebuild`: columns of a table made anew, in place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.complete import collections
from penstock.cli.console import JsonFlag, err, out, print_json, print_table
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption, settings_of

if TYPE_CHECKING:
    from assets.retype import Retyped
    from assets.rewriting import Rewriting
    from lakehouse.rewrite import Progress, Rewritten
    from penstock.envelope import CollectionId

Name = Annotated[str, typer.Argument(help="The collection's name.", autocompletion=collections)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")
]

_MOST_PATHS = 20
_TELL_EVERY = 1.0


def retype(
    name: Name,
    column: Annotated[
        list[str] | None,
        typer.Option(help="A column of longs, as in items[].price; else those that are due."),
    ] = None,
    dry_run: DryRun = False,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make columns of longs that fractions are sent to columns of doubles, in place."""
    with _rewriting(name, home, settings_file, dry_run=dry_run) as work:
        done = work.retype(column or ())
    if as_json:
        print_json(retyped(done))
        return
    if done.rewritten is not None:
        _show(work.collection, done.rewritten)
        return
    for one in done.counted:
        out().print(
            f"{one.column.path}: {one.gained:,} misfits in the newest {done.rows:,} rows, "
            f"{one.lost:,} values that no double is"
        )
    out().print(f"{work.collection}: no column is to be retyped")


def rebuild(
    name: Name,
    dry_run: DryRun = False,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make the columns of a collection again from all of its payloads, in place."""
    with _rewriting(name, home, settings_file, dry_run=dry_run) as work:
        done = work.rebuild()
    if as_json:
        told = {"rows": 0} if done is None else rewritten(done)
        print_json({"collection": str(work.collection), **told})
    elif done is None:
        out().print(f"{work.collection} has no rows yet")
    else:
        _show(work.collection, done)


@contextmanager
def _rewriting(
    name: str, home: Path, settings_file: Path | None, *, dry_run: bool
) -> Iterator[Rewriting]:
    """Open the stores for the block."""
    from assets.rewriting import Rewriting
    from assets.stores import opened
    from penstock import faults
    from penstock.envelope import parse_collection
    from penstock.logs import set_up_logs

    set_up_logs()
    faults.arm(os.environ.get(faults.VARIABLE))
    collection = parse_collection(name)
    with opened(settings_of(home, settings_file)) as stores:
        yield Rewriting(stores=stores, collection=collection, dry_run=dry_run, tell=_told())


def _told() -> Callable[[Progress], None]:
    """Answer what tells about progress, once a second at most."""
    console, told = err(), time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TELL_EVERY:
            told = now
            verb = "looked at" if progress.step == "look" else "converted"
            console.print(f"[dim]{verb} {progress.rows:,} of {progress.of:,} rows[/]")

    return tell


def retyped(done: Retyped) -> dict[str, object]:
    """Answer what retyping did, as JSON shows it."""
    return {
        "collection": str(done.collection),
        "newest_rows": done.rows,
        "counted": [
            {"path": one.column.path, "gained": one.gained, "lost": one.lost}
            for one in done.counted
        ],
        "chosen": [column.path for column in done.chosen],
        **(rewritten(done.rewritten) if done.rewritten is not None else {}),
    }


def rewritten(done: Rewritten) -> dict[str, object]:
    """Answer what became of a table, as JSON shows it."""
    from penstock.schema.retype import columns_of, differences

    return {
        "columns_before": [{"path": c.path, "type": c.kind} for c in columns_of(done.before)],
        "columns_after": [{"path": c.path, "type": c.kind} for c in columns_of(done.after)],
        "changes": [
            {"path": one.path, "what": one.what, "before": one.before, "after": one.after}
            for one in differences(done.before, done.after)
        ],
        "rows": done.rows,
        "files": done.files,
        "refused": done.refused,
        "misfits_before": done.misfits_before.total(),
        "misfits_after": done.misfits_after.total(),
        "misfits": [
            {"path": path, "before": before, "after": after}
            for path, before, after in _misfits(done)
        ],
        # As text: JavaScript's numbers would round it.
        "snapshot": None if done.snapshot_id is None else str(done.snapshot_id),
    }


def _misfits(done: Rewritten) -> list[tuple[str, int, int]]:
    """Answer each path with misfits before and after, the most frequent first."""
    paths = done.misfits_before | done.misfits_after
    return [
        (path, done.misfits_before[path], done.misfits_after[path])
        for path, _ in paths.most_common()
    ]


def _show(collection: CollectionId, done: Rewritten) -> None:
    from penstock.schema.retype import columns_of, differences

    console = out()
    changes = differences(done.before, done.after)
    if changes:
        print_table(
            ["column", "what", "before", "after"],
            [(one.path, one.what, one.before, one.after) for one in changes],
            console,
        )
    misfits = _misfits(done)
    if misfits:
        shown = [(path or "(the document)", b, a) for path, b, a in misfits[:_MOST_PATHS]]
        print_table(["misfits at", "before#", "after#"], shown, console)
        if len(misfits) > _MOST_PATHS:
            err().print(f"[dim]and {len(misfits) - _MOST_PATHS:,} more paths: --json[/]")
    if done.refused:
        err().print(
            f"[yellow]{done.refused:,} rows[/] have a payload that the format of today refuses: "
            "they stay rows, without columns"
        )
    verb = "would be" if done.snapshot_id is None else "were"
    console.print(
        f"{collection}: {done.rows:,} rows in {done.files:,} files {verb} written anew; "
        f"{len(columns_of(done.before)):,} columns before, {len(columns_of(done.after)):,} after; "
        f"{done.misfits_before.total():,} misfits before, {done.misfits_after.total():,} after"
    )
