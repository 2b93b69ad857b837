"""How far everything is: one collection, and the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query

from lakehouse import TableView
from lakehouse.fill import fill as fill_of_table
from penstock.api.access import Reader
from penstock.api.collections import readable
from penstock.api.models import (
    ColumnTold,
    OneStatus,
    PartitionTold,
    Schema,
    Status,
    VersionTold,
)
from penstock.api.platform import API, Here, Platform, Version
from penstock.envelope import Extent, Micros
from penstock.metadata.records import CollectionRecord, SchemaVersion
from penstock.schema.shape import columns, count_columns

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
    """Show how far landing is with a collection, and what it holds."""
    return _status_of(here, readable(here, caller, c))


@router.get(f"{API}/status", tags=["status"])
def show_status(caller: Reader, here: Here, version: Version) -> Status:
    """Show everything in one answer: collections with their lag, replays by state."""
    return Status(
        version=version,
        team=caller.team,
        now=here.clock(),
        collections=[_status_of(here, record) for record in here.store.collections(caller.team)],
        replays=dict(Counter(replay.state for replay in here.store.replays(caller.team))),
    )


def _status_of(here: Platform, record: CollectionRecord) -> OneStatus:
    # The log's end before the marks: the other way round, an event that lands between the two
    # would count as waiting less than nothing.
    extents = here.buffer.extents(record.id)
    return status_of(
        record,
        here.buffer.log_id(record.id),
        extents,
        here.lake.view(record.id),
        here.lake.quarantine_view(record.id),
    )


def status_of(
    record: CollectionRecord,
    log_id: str,
    extents: Mapping[int, Extent],
    table: TableView | None,
    quarantine: TableView | None,
) -> OneStatus:
    """Put together what log and tables say about a collection."""
    partitions = []
    for number, extent in sorted(extents.items()):
        mark = table.mark(log_id, number).next if table is not None else 0
        partitions.append(
            PartitionTold(
                partition=number,
                start=extent.start,
                end=extent.end,
                mark=mark,
                waiting=max(0, extent.end - max(mark, extent.start)),
            )
        )
    return OneStatus(
        name=record.id.name,
        paused=record.paused,
        partitions=partitions,
        waiting=sum(partition.waiting for partition in partitions),
        rows=table.rows if table is not None else 0,
        quarantined=quarantine.rows if quarantine is not None else 0,
        columns=count_columns(table.shape) if table is not None else 0,
        snapshot_id=str(table.snapshot_id) if table is not None and table.snapshot_id else None,
    )
