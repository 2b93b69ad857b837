"""Destinations: make, list, show, change, try, delete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import get_args

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from msgspec.structs import replace

from penstock.api.access import Admin, Replayer
from penstock.api.platform import API, Here, Platform
from penstock.contract.base import moment
from penstock.contract.destinations import (
    ChangedDestination,
    DestinationTold,
    NewDestination,
    Tried,
    TunnelTold,
)
from penstock.envelope import CollectionId, Event, Position, check_name
from penstock.errors import BadRequest, about
from penstock.handover import Connected
from penstock.metadata.records import Destination, ListedDestination
from penstock.vocabulary import Credential
from replay.targets import Delivered, Failed, Message, Outcome, Retry, Target
from replay.targets.opening import checked, open_target
from replay.targets.places import collection_place, kind_of
from replay.targets.tunnel import NOBODY, TunnelTarget

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
    with about("name"):
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
        rate=asked.rate,
        created_at=here.clock(),
    )
    record = checked(record, here.guard, own_topics=here.own_topics)
    if record.kind == "collection":
        with about("url"):
            here.store.collection(collection_place(record.url, caller.team))
    with about("name"):
        here.store.add_destination(record)
    return _told(here.store.listed_destination(caller.team, name))


@router.get("/{name}")
def show_destination(name: str, caller: Replayer, here: Here) -> DestinationTold:
    """Show a destination."""
    return _told(here.store.listed_destination(caller.team, name))


@router.patch("/{name}")
def change_destination(
    name: str, asked: ChangedDestination, caller: Admin, here: Here
) -> DestinationTold:
    """Change what a destination is beside its address; credentials that are not given stay.

    Replays that send to it go by another rate within two seconds, and by everything else once they
    open the destination again: after a pause that ended their run, or a crash.
    """

    def change(before: Destination) -> Destination:
        return checked(changed(before, asked), here.guard, own_topics=here.own_topics)

    return _told(here.store.change_destination(caller.team, name, change, here.clock()))


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
        doorway=here.doorway,
        files=here.files,
    )
    started = time.perf_counter()
    try:
        found: Sequence[Connected] = ()
        if record.kind != "http":
            wrong, found = await _looked(target)
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
        found=[TunnelTold(bus=o.bus, peer=o.peer, since=moment(o.since)) for o in found],
    )
    await run_in_threadpool(
        here.store.note_trial, caller.team, name, tried.model_dump(mode="json"), here.clock()
    )
    return tried


async def _looked(target: Target) -> tuple[str | None, Sequence[Connected]]:
    """Answer what is wrong, and which tunnels are there."""
    if not isinstance(target, TunnelTarget):
        return await target.examine(), ()
    found = await target.found()
    if isinstance(found, Retry):
        return found.reason, ()
    return None if found else NOBODY.reason, found


def changed(before: Destination, asked: ChangedDestination) -> Destination:
    """Answer the destination as it is wanted; raise `BadRequest` for what it has not. Pure."""
    without = {one.lower() for one in asked.without}
    known = {"secret"} if before.secret is not None else set()
    known |= {header.lower() for header, _ in before.headers}
    known |= {*before.options, *before.credentials}
    if not without <= known:
        said = f"{before.name!r} has no {', '.join(sorted(without - known))}"
        raise BadRequest(said).at("without")
    replaced = without | {header.lower() for header, _ in asked.headers}
    headers = [one for one in before.headers if one[0].lower() not in replaced]
    kept = {name: value for name, value in before.options.items() if name not in without}
    secrets = {name: text for name, text in before.credentials.items() if name not in without}
    secret = None if "secret" in without else before.secret
    after = replace(
        before,
        headers=(*headers, *asked.headers),
        options={**kept, **asked.options},
        credentials={**secrets, **asked.credentials},
        secret=secret if asked.secret is None else asked.secret,
    )
    if after != before:
        # How it answered before says nothing of what it is now.
        after = replace(after, tried=None, tried_at=None)
    return replace(after, rate=asked.rate) if "rate" in asked.model_fields_set else after


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
        rate=record.rate,
    )


def _trial(here: Platform) -> Event:
    return Event(
        id=f"test-{here.chance(8).hex()}",
        received_at=here.clock(),
        payload=b'{"penstock": "test"}',
        source="test",
        content_type="application/json",
    )
