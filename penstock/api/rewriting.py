"""Columns made anew: what would change. The work itself is Dagster's, or the command's."""

from __future__ import annotations

from fastapi import APIRouter

from assets.rebuild import rebuild
from assets.retype import count
from penstock.api.access import Admin, Reader
from penstock.api.collections import one_of
from penstock.api.platform import API, Here
from penstock.contract.rewriting import (
    ColumnChange,
    LongTold,
    MisfitsChange,
    RebuildTold,
    RetypeTold,
)
from penstock.errors import BadRequest
from penstock.schema.retype import columns_of, differences, due

router = APIRouter(prefix=f"{API}/collections/{{c}}", tags=["collections"])

MOST_ROWS = 500_000
"""Rows that a request converts: some ten seconds of work."""


@router.get("/retype")
def show_retype(c: str, caller: Reader, here: Here) -> RetypeTold:
    """Show which columns of longs have misfits that columns of doubles would hold."""
    collection = one_of(here, caller.team, c).id
    view = here.lake.view(collection)
    if view is None or not view.rows:
        return RetypeTold(columns=[], rows=0)
    with here.rooms.trials:
        found, rows = count(here.lake, collection, view.shape)
    return RetypeTold(
        columns=[
            LongTold(path=one.column.path, gained=one.gained, lost=one.lost, due=due(one, rows))
            for one in found
        ],
        rows=rows,
    )


@router.post("/rebuild/try")
def try_rebuild(c: str, caller: Admin, here: Here) -> RebuildTold | None:
    """Say what a rebuild would change, and change nothing; null where there are no rows.

    Converts every row, so that it takes a while; refused where there are very many.
    """
    collection = one_of(here, caller.team, c).id
    view = here.lake.view(collection)
    if view is None or not view.rows:
        return None
    if view.rows > MOST_ROWS:
        raise BadRequest(
            f"the table has {view.rows:,} rows, and {MOST_ROWS:,} are tried here at most; "
            f"'penstock collection rebuild {collection} --dry-run' tries them all"
        )
    with here.rooms.trials:
        done = rebuild(
            here.lake,
            collection,
            rules=here.rules(collection),
            clock=here.clock,
            chance=here.chance,
            dry_run=True,
        )
    if done is None:
        return None
    before, after = done.misfits_before, done.misfits_after
    return RebuildTold(
        rows=done.rows,
        files=done.files,
        refused=done.refused,
        columns_before=len(columns_of(done.before)),
        columns_after=len(columns_of(done.after)),
        changes=[
            ColumnChange(path=one.path, what=one.what, before=one.before, after=one.after)  # type: ignore[arg-type]  # `what` is one of the three
            for one in differences(done.before, done.after)
        ],
        misfits=[
            MisfitsChange(path=path, before=before[path], after=after[path])
            for path, _ in (before | after).most_common()
            if before[path] != after[path]
        ],
        misfits_before=before.total(),
        misfits_after=after.total(),
    )
