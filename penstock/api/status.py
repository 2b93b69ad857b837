"""How far everything is: one collection, the whole, and all of it for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

import structlog
from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

from assets.accounting import stand
from lakehouse.fill import fill as fill_of_table
from penstock.api.access import Reader
from penstock.api.collections import readable
from penstock.api.metrics import CONTENT_TYPE, books_text
from penstock.api.models import ColumnTold, OneStatus, Schema, Status, VersionTold
from penstock.api.platform import API, Here, Platform, Version
from penstock.envelope import CollectionId, Micros
from penstock.errors import Unavailable
from penstock.metadata.records import CollectionRecord, SchemaVersion
from penstock.schema.shape import columns

log = structlog.get_logger()

router = APIRouter()


@router.get(f"{API}/collections/{{c}}/schema", tags=["collections"])
def show_schema(
    c: str,
    caller: Reader,
    here: Here,
    fill: Annotated[bool, Query(description="Also count the rows that have a value.")] = False,
) -> Schema:
    """Show the columns that a collection's events have, and how they came."""
    record = readable(here, caller, c)
    view = here.lake.view(record.id)
    versions = here.store.schema_versions(record.id)
    came = appeared(versions)
    full = fill_of_table(here.lake, record.id) if fill else None
    return Schema(
        columns=[
            ColumnTold(
                path=path,
                type=kind,
                since=came[path].at if path in came else None,
                event_id=came[path].event_id if path in came else None,
                filled=full.values.get(path) if full else None,
            )
            for path, kind in (columns(view.shape) if view is not None else [])
        ],
        versions=[VersionTold.of(version) for version in versions],
        rows=full.rows if full else None,
    )


class Came(NamedTuple):
    """When a column came, and by which event."""

    at: Micros
    event_id: str | None


def appeared(versions: Iterable[SchemaVersion]) -> Mapping[str, Came]:
    """Answer when each column came: the last time, if it was gone in between."""
    came: dict[str, Came] = {}
    for version in versions:
        for change in version.changes:
            event_id = change.get("event_id")
            if change["what"] == "added":
                told = None if event_id is None else str(event_id)
                came[str(change["path"])] = Came(version.at, told)
            elif change["what"] == "removed":
                came.pop(str(change["path"]), None)
    return came


@router.get(f"{API}/collections/{{c}}/status", tags=["collections"])
def show_collection_status(c: str, caller: Reader, here: Here) -> OneStatus:
    """Show how far landing is with a collection, what it holds, and whether its books add up."""
    return _status_of(here, readable(here, caller, c))


@router.get(f"{API}/status", tags=["status"])
def show_status(caller: Reader, here: Here, version: Version) -> Status:
    """Show everything in one answer: collections with their books and lag, replays by state."""
    return Status(
        version=version,
        team=caller.team,
        now=here.clock(),
        collections=[_status_of(here, record) for record in here.store.collections(caller.team)],
        replays=dict(Counter(replay.state for replay in here.store.replays(caller.team))),
    )


@router.get(f"{API}/metrics", tags=["status"], response_class=PlainTextResponse)
def show_metrics(caller: Reader, here: Here) -> Response:
    """Show the books and lag of the team's collections as Prometheus reads them."""
    names = [record.id for record in here.store.collections(caller.team)]
    return Response(books_text(here.watch.standings(names)), media_type=CONTENT_TYPE)


def _status_of(here: Platform, record: CollectionRecord) -> OneStatus:
    standing = stand(here.buffer, here.lake, here.index, record.id, now=here.clock())
    newest = _newest(here, record.id) if standing.newest is None else None
    return OneStatus.of(record, standing, retention=here.retention, newest=newest)


def _newest(here: Platform, collection: CollectionId) -> Micros | None:
    """Answer the minute of the newest event that was counted; the log holds none any more."""
    try:
        return here.stats().newest(collection)
    except Unavailable as error:
        log.warning("statistics are away, the last event is not known", reason=str(error))
        return None
