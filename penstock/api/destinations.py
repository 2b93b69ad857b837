"""Destinations: make, list, show, try, delete."""

from __future__ import annotations

import time

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from penstock.api.access import Admin, Replayer
from penstock.api.models import DestinationTold, NewDestination, Tried
from penstock.api.platform import API, Here
from penstock.envelope import CollectionId, Event, Position, check_name
from penstock.metadata.records import Destination
from replay.targets import Delivered, Failed, Message, Retry
from replay.targets.http import HttpTarget, agreed_url, check_own_headers

router = APIRouter(prefix=f"{API}/destinations", tags=["destinations"])

TRIAL_SECONDS = 10.0


@router.get("")
def list_destinations(caller: Replayer, here: Here) -> list[DestinationTold]:
    """List the team's destinations by name."""
    return [DestinationTold.of(record) for record in here.store.destinations(caller.team)]


@router.post("", status_code=201)
def create_destination(asked: NewDestination, caller: Admin, here: Here) -> DestinationTold:
    """Make a destination. An address that replays may not reach is refused here already."""
    name = check_name(asked.name, what="destination")
    agreed_url(here.guard, asked.url)
    check_own_headers(asked.headers)
    record = Destination(
        team=caller.team,
        name=name,
        kind=asked.kind,
        url=asked.url,
        headers=tuple(asked.headers),
        created_at=here.clock(),
    )
    here.store.add_destination(record)
    return DestinationTold.of(record)


@router.get("/{name}")
def show_destination(name: str, caller: Replayer, here: Here) -> DestinationTold:
    """Show a destination."""
    return DestinationTold.of(here.store.destination(caller.team, name))


@router.delete("/{name}", status_code=204)
def delete_destination(name: str, caller: Admin, here: Here) -> Response:
    """Forget a destination. Refused while a replay needs it."""
    here.store.delete_destination(caller.team, name)
    return Response(status_code=204)


@router.post("/{name}/test")
async def try_destination(name: str, caller: Replayer, here: Here) -> Tried:
    """Send one small event there and tell what became of it."""
    record = await run_in_threadpool(here.store.destination, caller.team, name)
    target = HttpTarget(
        record.url,
        guard=here.guard,
        replay_id="test",
        collection=CollectionId(caller.team, "test"),
        clock=here.clock,
        own_headers=record.headers,
        timeout=TRIAL_SECONDS,
    )
    event = Event(
        id=f"test-{here.chance(8).hex()}",
        received_at=here.clock(),
        payload=b'{"penstock": "test"}',
        source="test",
        content_type="application/json",
    )
    started = time.perf_counter()
    try:
        [outcome] = await target.send([Message(event, Position(0, 0), 1)])
    finally:
        await target.close()
    return Tried(
        delivered=isinstance(outcome, Delivered),
        status=outcome.status,
        reason=outcome.reason if isinstance(outcome, Retry | Failed) else None,
        seconds=time.perf_counter() - started,
    )
