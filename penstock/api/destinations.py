"""Destinations: make, list, show, try, delete."""

from __future__ import annotations

import time
from typing import get_args

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from penstock.api.access import Admin, Replayer
from penstock.api.platform import API, Here, Platform
from penstock.contract.base import moment
from penstock.contract.destinations import DestinationTold, NewDestination, Tried
from penstock.envelope import CollectionId, Event, Position, check_name
from penstock.metadata.records import Destination, ListedDestination
from penstock.vocabulary import Credential
from replay.targets import Delivered, Failed, Message, Outcome, Retry
from replay.targets.opening import checked, open_target
from replay.targets.places import kind_of

router = APIRouter(prefix=f"{API}/destinations", tags=["destinations"])

TRIAL_SECONDS = 10.0

CREDENTIALS: tuple[Credential, ...] = get_args(Credential)


@router.get("")
def list_destinations(caller: Replayer, here: Here) -> list[DestinationTold]:
    """List the team's destinations by name."""
    return [_told(record) for record in here.store.destinations(caller.team)]


@router.post("", status_code=201)
def create_destination(asked: NewDestination, caller: Admin, here: Here) -> DestinationTold:
    """Make a destination. An address that replays may not reach is refused here already."""
    name = check_name(asked.name, what="destination")
    record = Destination(
        team=caller.team,
        name=name,
        kind=kind_of(asked.url, asked.kind),
        url=asked.url,
        headers=tuple(asked.headers),
        options=asked.options,
        secret=asked.secret,
        credentials=dict(asked.credentials),
        created_at=here.clock(),
    )
    record = checked(record, here.guard, own_topics=here.own_topics)
    here.store.add_destination(record)
    return _told(here.store.listed_destination(caller.team, name))


@router.get("/{name}")
def show_destination(name: str, caller: Replayer, here: Here) -> DestinationTold:
    """Show a destination."""
    return _told(here.store.listed_destination(caller.team, name))


@router.delete("/{name}", status_code=204)
def delete_destination(name: str, caller: Admin, here: Here) -> Response:
    """Forget a destination. Refused while a replay needs it."""
    here.store.delete_destination(caller.team, name)
    return Response(status_code=204)


@router.post("/{name}/test")
async def try_destination(name: str, caller: Replayer, here: Here) -> Tried:
    """Send one small event to an HTTP destination; look whether any other would take events."""
    record = await run_in_threadpool(here.store.destination, caller.team, name)
    target = open_target(
        record,
        guard=here.guard,
        replay_id="test",
        collection=CollectionId(caller.team, "test"),
        clock=here.clock,
        timeout=TRIAL_SECONDS,
        own_topics=here.own_topics,
    )
    started = time.perf_counter()
    try:
        if record.kind != "http":
            wrong = await target.examine()
            outcome: Outcome = Delivered(None) if wrong is None else Failed(wrong)
        else:
            [outcome] = await target.send([Message(_trial(here), Position(0, 0), 1)])
    finally:
        await target.close()
    tried = Tried(
        delivered=isinstance(outcome, Delivered),
        sent=record.kind == "http",
        status=outcome.status,
        reason=outcome.reason if isinstance(outcome, Retry | Failed) else None,
        seconds=time.perf_counter() - started,
    )
    await run_in_threadpool(
        here.store.note_trial, caller.team, name, tried.model_dump(), here.clock()
    )
    return tried


def _told(record: ListedDestination) -> DestinationTold:
    return DestinationTold(
        name=record.name,
        kind=record.kind,
        url=record.url,
        headers=[*record.headers],
        options=record.options,
        secret=record.secret,
        credentials=[one for one in CREDENTIALS if one in record.credentials],
        created_at=moment(record.created_at),
        tried_at=moment(record.tried_at),
        tried=None if record.tried is None else Tried.model_validate(record.tried),
    )


def _trial(here: Platform) -> Event:
    return Event(
        id=f"test-{here.chance(8).hex()}",
        received_at=here.clock(),
        payload=b'{"penstock": "test"}',
        source="test",
        content_type="application/json",
    )
