"""How far everything is: one collection, the whole, and all of it for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

import structlog
from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

from assets.accounting import PartitionBooks, Standing, answered, troubles
from assets.remedies import command_for
from lakehouse.fill import fill as fill_of_table
from penstock.api.access import Caller, Reader
from penstock.api.collections import readable
from penstock.api.metrics import CONTENT_TYPE, Lagging, books_text
from penstock.api.platform import API, Here, Platform, Version
from penstock.api.replays import behind_told
from penstock.contract.base import moment
from penstock.contract.schema import ChangeTold, ColumnTold, Schema, VersionTold
from penstock.contract.status import BooksTold, OneStatus, PartitionTold, Status, StopTold
from penstock.envelope import CollectionId, Micros
from penstock.errors import Stopped, Unavailable
from penstock.metadata.records import CollectionRecord, SchemaVersion
from penstock.problem import problem, slug
from penstock.schema.shape import columns, count_columns

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
                since=moment(came[path].at) if path in came else None,
                event_id=came[path].event_id if path in came else None,
                filled=full.values.get(path) if full else None,
            )
            for path, kind in (columns(view.shape) if view is not None else [])
        ],
        versions=[_version(version) for version in versions],
        rows=full.rows if full else None,
    )


def _version(record: SchemaVersion) -> VersionTold:
    return VersionTold(
        version=record.version,
        at=moment(record.at),
        changes=[
            ChangeTold(
                path=str(change["path"]),
                what=str(change["what"]),
                type=_text_or_none(change.get("type")),
                before=_text_or_none(change.get("before")),
                event_id=_text_or_none(change.get("event_id")),
                why=_text_or_none(change.get("why")),
            )
            for change in record.changes
        ],
    )


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


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
    [told] = _told(here, [readable(here, caller, c)])
    return told


@router.get(f"{API}/status", tags=["status"])
def show_status(caller: Reader, here: Here, version: Version) -> Status:
    """Show everything in one answer: collections with their books and lag, replays by state."""
    return Status(
        version=version,
        team=caller.team,
        now=moment(here.clock()),
        collections=_told(here, here.store.collections(caller.team)),
        replays=dict(Counter(replay.state for replay in here.store.replays(caller.team))),
    )


class Watched(NamedTuple):
    """A collection as it was seen lately: `told` and how many bytes its rows take in the lake.

    Both are None where it could not be looked at.
    """

    name: str
    told: OneStatus | None
    bytes: int | None


def watched(caller: Caller, here: Platform) -> list[Watched]:
    """Answer the team's collections by name, for who asks every few seconds (`Platform.watch`)."""
    records = here.store.collections(caller.team)
    seen = {one.books.collection: one for one in here.watch.standings([r.id for r in records])}
    newest = _newest(here, seen.values())
    return [_watched(here, record, seen.get(record.id), newest) for record in records]


def _watched(
    here: Platform,
    record: CollectionRecord,
    seen: Standing | None,
    newest: Mapping[CollectionId, Micros],
) -> Watched:
    if seen is None:
        return Watched(record.id.name, None, None)
    table = seen.books.table
    told = _one(record, seen, retention=here.retention, newest=newest.get(record.id))
    return Watched(record.id.name, told, 0 if table is None else table.bytes)


@router.get(f"{API}/metrics", tags=["status"], response_class=PlainTextResponse)
def show_metrics(caller: Reader, here: Here) -> Response:
    """Show books and lag of the team's collections and continuous replays to Prometheus."""
    names = [record.id for record in here.store.collections(caller.team)]
    text = books_text(here.watch.standings(names), _lagging(here, caller.team))
    return Response(text, media_type=CONTENT_TYPE)


def _lagging(here: Platform, team: str) -> Iterator[Lagging]:
    """Answer how far each continuous replay is behind that goes on, or is to."""
    for record in here.store.open_replays():
        if record.team == team and (behind := behind_told(here, record)) is not None:
            yield Lagging(record.id, record.collection, behind.events, behind.seconds)


def _told(here: Platform, records: Sequence[CollectionRecord]) -> list[OneStatus]:
    """Tell how collections stand now; raise what the first says that does not answer."""
    looked = here.look([record.id for record in records])
    standings = [answered(looked[record.id]) for record in records]
    newest = _newest(here, standings)
    return [
        _one(record, standing, retention=here.retention, newest=newest.get(record.id))
        for record, standing in zip(records, standings, strict=True)
    ]


def _one(
    record: CollectionRecord,
    standing: Standing,
    *,
    retention: Micros | None,
    newest: Micros | None,
) -> OneStatus:
    """Tell how a collection stands; `newest` is for a log that holds no event any more."""
    books, table = standing.books, standing.books.table
    return OneStatus(
        name=record.id.name,
        paused=record.paused,
        partitions=[_partition(one) for one in books.partitions],
        waiting=books.waiting,
        rows=books.parts["landed"] + books.parts["duplicates"],
        duplicates=books.parts["duplicates"],
        quarantined=books.parts["quarantined"],
        closed=books.parts["closed"],
        columns=count_columns(table.shape) if table is not None else 0,
        snapshot_id=str(table.snapshot_id) if table and table.snapshot_id else None,
        books=BooksTold(
            accepted=books.accepted,
            parts=dict(books.parts),
            difference=books.difference,
            sentence=books.sentence,
        ),
        stop=None if standing.stop is None else _stop(record, standing.stop),
        troubles=troubles(standing, retention),
        lake_lag_seconds=_seconds(standing.lake_lag),
        search_lag_seconds=_seconds(standing.search_lag),
        search_waiting=standing.search_waiting,
        last_event_at=moment(newest if standing.newest is None else standing.newest),
    )


def _partition(books: PartitionBooks) -> PartitionTold:
    return PartitionTold(
        partition=books.partition,
        start=books.start,
        end=books.end,
        mark=books.mark,
        waiting=books.waiting,
        lost=books.lost,
    )


def _stop(record: CollectionRecord, stop: Stopped) -> StopTold:
    return StopTold(
        name=slug(problem(stop).title),
        detail=str(stop),
        command=command_for(record.id, stop),
    )


def _seconds(time: Micros | None) -> float | None:
    return None if time is None else time / 1_000_000


def _newest(here: Platform, standings: Iterable[Standing]) -> Mapping[CollectionId, Micros]:
    """Answer the minute of the newest event that was counted, of those the log holds none of."""
    # Nothing is asked for each of very many that never had an event.
    unknown = [
        one.books.collection for one in standings if one.newest is None and one.books.accepted > 0
    ]
    if not unknown:
        return {}
    try:
        return here.stats().newest(unknown)
    except Unavailable as error:
        log.warning("statistics are away, the last event is not known", reason=str(error))
        return {}
