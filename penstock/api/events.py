"""One event: what stands about it, and who received it in which replay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
import structlog
from fastapi import APIRouter, Query

from penstock.api.access import Caller, Reader
from penstock.api.any_id import ANY_ID
from penstock.api.collections import readable
from penstock.api.platform import API, Here, Platform
from penstock.api.search import event_told
from penstock.contract.base import moment
from penstock.contract.events import (
    AroundTold,
    BesideTold,
    CellTold,
    DeliveriesTold,
    DeliveryTold,
    MisfitTold,
)
from penstock.contract.search import EventTold
from penstock.envelope import CollectionId
from penstock.errors import Unavailable
from penstock.metadata.records import CollectionRecord
from penstock.query.tree import Payload
from penstock.query.writing import condition_text
from penstock.schema.why import Reasons
from penstock.search import Found, SearchRequest
from penstock.search.around import Beside
from replay.ledger import ATTEMPTS
from replay.progress import Attempt

log = structlog.get_logger()

router = APIRouter(prefix=f"{API}/collections/{{c}}", tags=["search"])

NEIGHBOURS = 5

MOST_ROWS = 1_000
"""Rows of the ledger that are read for an event; each attempt has two."""

_decoder = msgspec.json.Decoder(Attempt)


# The id comes last, as in the other routes of an event: senders choose ids, and one may have a
# slash, or end like a route.
@router.get(f"/around/{ANY_ID}")
def show_around(
    c: str,
    event_id: str,
    caller: Reader,
    here: Here,
    most: Annotated[int, Query(ge=0, le=100, description="Neighbours on each side.")] = NEIGHBOURS,
) -> AroundTold:
    """Show the row of the newest event with this id, its neighbours, and what repeats it."""
    record = readable(here, caller, c)
    with here.rooms.search:
        return _around(here, record, here.searcher.event(record.id, event_id), most)


@router.get(f"/deliveries/{ANY_ID}")
def show_deliveries(c: str, event_id: str, caller: Reader, here: Here) -> DeliveriesTold:
    """Show every attempt of a replay to send the newest event with this id.

    What the ledger has acknowledged is there, whether or not it has landed.
    """
    collection = readable(here, caller, c).id
    with here.rooms.search:
        return _deliveries(here, collection, here.searcher.event(collection, event_id))


class Surroundings(NamedTuple):
    """An event, what stands about it, and who received it."""

    event: EventTold
    around: AroundTold
    deliveries: DeliveriesTold | None
    """None while the ledger does not answer."""


def show_beside(c: str, event_id: str, caller: Caller, here: Platform) -> Surroundings:
    """Answer what stands about the newest event with this id, and who received it."""
    record = readable(here, caller, c)
    with here.rooms.search:
        event = here.searcher.event(record.id, event_id)
        around = _around(here, record, event, NEIGHBOURS)
        received: DeliveriesTold | None = None
        try:
            received = _deliveries(here, record.id, event)
        except Unavailable as error:
            log.warning("the ledger is away, an event has no deliveries", reason=str(error))
    return Surroundings(event_told(event), around, received)


def _around(here: Platform, record: CollectionRecord, event: Found, most: int) -> AroundTold:
    found = here.searcher.around(record.id, event, most=most)
    cells, reasons = found.cells, Reasons(found.shape, record.contract)
    return AroundTold(
        event_id=event.event_id,
        log_id=found.log_id,
        log_partition=event.log_partition,
        log_offset=event.log_offset,
        landed=found.landed,
        columns=None
        if cells is None
        else [CellTold(path=one.path, type=one.kind, value=one.value) for one in cells],
        misfits=[
            MisfitTold(path=path, value=text, why=reasons.why(path, text))
            for path, text in event.misfits
        ],
        before=[_beside(one) for one in found.before],
        after=[_beside(one) for one in found.after],
        repeated_by=[_beside(one) for one in found.repeated_by],
    )


def _deliveries(here: Platform, collection: CollectionId, event: Found) -> DeliveriesTold:
    page = here.searcher.search(
        SearchRequest(
            collection=ATTEMPTS,
            query=about(collection, event),
            since=event.received_at,
            newest_first=False,
            limit=MOST_ROWS,
        )
    )
    return DeliveriesTold(
        event_id=event.event_id,
        deliveries=deliveries(collection, event, _attempts(page.events)),
        more=page.cursor is not None,
    )


def about(collection: CollectionId, event: Found) -> str:
    """Answer the search for the rows of the ledger that may speak of an event."""
    team, name = (
        condition_text(Payload((key,)), value)
        for key, value in (("team", collection.team), ("collection", collection.name))
    )
    at = event.log_offset
    return f"{team} {name} data.partition:{event.log_partition} data.offset:<={at} data.last:>={at}"


def deliveries(
    collection: CollectionId, event: Found, attempts: Iterable[Attempt]
) -> list[DeliveryTold]:
    """Answer what came of each attempt to send the event, in the order of the rows. Pure.

    An outcome speaks of every offset that it covers. An intent may cover offsets of events that
    are not among those it is for: where it does, nothing is said before there is an outcome.
    """
    found: dict[tuple[str, int, int], DeliveryTold] = {}
    for row in attempts:
        events = row.last - row.offset + 1
        about_it = (collection.team, collection.name, event.log_partition)
        ours = (row.team, row.collection, row.partition) == about_it
        if not ours or not row.offset <= event.log_offset <= row.last:
            continue
        if events == 1 and row.event_id != event.event_id:
            continue  # an event of an earlier log, at the same offset
        name = (row.replay, row.epoch, row.attempt)
        if row.kind == "intent":
            if row.events == events:
                found.setdefault(name, _delivery(row, "open"))
        elif row.outcome is not None:
            found[name] = _delivery(row, row.outcome)
    return list(found.values())


def _delivery(row: Attempt, outcome: str) -> DeliveryTold:
    return DeliveryTold.model_validate(
        {
            "replay": row.replay,
            "destination": row.destination,
            "who": row.who,
            "epoch": row.epoch,
            "attempt": row.attempt,
            "outcome": outcome,
            "status": row.status,
            "latency_ms": row.latency_ms,
            "reason": row.reason,
            "at": row.at,
        }
    )


def _attempts(rows: Iterable[Found]) -> Iterable[Attempt]:
    for row in rows:
        try:
            yield _decoder.decode(row.payload)
        except msgspec.DecodeError:
            # Only Penstock writes there; what is none of its rows says nothing about an event.
            log.warning("a row of the ledger cannot be read", event_id=row.event_id)


def _beside(one: Beside) -> BesideTold:
    return BesideTold(
        event_id=one.event_id,
        received_at=moment(one.received_at),
        log_partition=one.log_partition,
        log_offset=one.log_offset,
        size=one.size,
        view=one.view,
        duplicate_of=one.duplicate_of,
    )
