"""One event: what was sent, what became of it, and who received it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api import events, quarantine
from penstock.api.any_id import ANY_ID
from penstock.api.platform import Here, Platform
from penstock.api.search import show_event
from penstock.contract.base import rfc3339
from penstock.contract.events import DeliveryTold
from penstock.contract.quarantine import QuarantinedTold
from penstock.contract.search import EventTold
from penstock.dashboard.access import Reading, Visit
from penstock.dashboard.ids import EventId
from penstock.dashboard.payload import as_bytes, as_text, laid_out
from penstock.errors import NotFound
from penstock.query.tree import Column
from penstock.query.writing import condition_text

router = APIRouter(prefix="/collections/{c}")

As = Literal["pretty", "raw", "hex"]

MOST_CELLS = 300
"""Columns, misfits, headers and entries of metadata that a page shows of each."""

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a replay did with the event: its attempts, the first one first."""

    replay: str
    destination: str
    who: str
    attempts: Sequence[DeliveryTold]

    @property
    def last(self) -> DeliveryTold:
        """The attempt that says how it ended."""
        return self.attempts[-1]


@router.get(f"/events/{ANY_ID}", name="event")
def show(c: str, event_id: EventId, visit: Reading, here: Here) -> Response:
    """Show the newest event with an id."""
    event = show_event(c, event_id, visit.caller, here)
    content = event.payload_bytes()
    pretty = laid_out(content)
    wanted = visit.request.query_params.get("as", "")
    shown_as: As = shown(wanted, json=pretty is not None, text=event.payload is not None)
    return visit.show(
        "event.html",
        c=c,
        event=event,
        size=len(content),
        shown_as=shown_as,
        pretty=pretty if shown_as == "pretty" else None,
        is_json=pretty is not None,
        text=as_text(content) if shown_as == "raw" else None,
        hex=as_bytes(content) if shown_as == "hex" else None,
        held=_held(visit, here, c, event),
        alone=alone(event),
        most=MOST_CELLS,
    )


@router.get(f"/beside/{ANY_ID}", name="beside")
def show_beside(c: str, event_id: EventId, visit: Reading, here: Here) -> Response:
    """Show the row of the newest event with an id, who received it, and what is around it."""
    event, around, told = events.show_beside(c, event_id, visit.caller, here)
    return visit.show(
        "event_beside.html",
        c=c,
        event=event,
        around=around,
        received=None if told is None else by_replay(told.deliveries),
        more_received=told is not None and told.more,
        command=command(c, event),
        most=MOST_CELLS,
    )


@router.get(f"/payload/{ANY_ID}", name="payload")
def download(c: str, event_id: EventId, visit: Reading, here: Here) -> Response:
    """Answer the bytes that were sent, as a file: a browser must not take them for a page."""
    event = show_event(c, event_id, visit.caller, here)
    return Response(
        event.payload_bytes(),
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{file_name(event)}"'},
    )


def shown(wanted: str, *, json: bool, text: bool) -> As:
    """Answer how a payload is shown: as was wanted, else as well as can be. Pure."""
    if wanted == "hex" or not text:
        return "hex"
    return "pretty" if json and wanted != "raw" else "raw"


def file_name(event: EventTold) -> str:
    """Answer a name that every system takes, with the ending that the content type says. Pure."""
    name = _PLAIN.sub("_", event.event_id).strip("._")[:80] or "event"
    kind = (event.content_type or "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return f"{name}.json"
    return f"{name}.txt" if kind.startswith("text/") else f"{name}.bin"


def command(c: str, event: EventTold) -> str:
    """Answer what to type to replay the event. Pure."""
    query = condition_text(Column("event_id"), event.event_id) or ""
    return f"penstock replay start {c} {shlex.quote(query)} --to DESTINATION"


def alone(event: EventTold) -> str:
    """Answer the parameters of a search, or a replay, that finds just this event. Pure."""
    query = condition_text(Column("event_id"), event.event_id) or ""
    since, until = event.received_at, event.received_at + _MICROSECOND
    given = {"query": query, "since": rfc3339(since), "until": rfc3339(until)}
    return urlencode(given)


def by_replay(deliveries: Sequence[DeliveryTold]) -> list[Received]:
    """Answer the attempts of each replay together, the newest replay first. Pure."""
    found: dict[str, list[DeliveryTold]] = {}
    for one in deliveries:
        found.setdefault(one.replay, []).append(one)
    received = [
        Received(replay=replay, destination=tries[0].destination, who=tries[0].who, attempts=tries)
        for replay, tries in found.items()
    ]
    return sorted(received, key=_newest, reverse=True)


def _newest(received: Received) -> datetime:
    return received.last.at


def _held(visit: Visit, here: Platform, c: str, event: EventTold) -> QuarantinedTold | None:
    """Answer where a quarantined event is wrong and whether it is closed; None until it landed."""
    if event.stage is None:
        return None
    try:
        return quarantine.show_quarantined(c, event.event_id, visit.caller, here)
    except NotFound:
        return None
