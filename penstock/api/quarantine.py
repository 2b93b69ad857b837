"""Quarantine: why events are there, one of them, a repair tried, release, discard."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Query

from assets.release import Asked, Done, Shown, Trial
from lakehouse.closings import Closing, Worked
from penstock.api.access import Admin, Caller, Credentials, Reader, known_as
from penstock.api.any_id import ANY_ID
from penstock.api.collections import readable
from penstock.api.platform import API, Here, Platform
from penstock.api.search import event_told, misfits
from penstock.api.values import base64_of, text_of
from penstock.bus import LAND
from penstock.contract.base import Time, micros, moment
from penstock.contract.quarantine import (
    CausesTold,
    ClosingTold,
    DiscardAsked,
    DoneTold,
    HeldTold,
    PlaceTold,
    QuarantineAsked,
    QuarantineCauseTold,
    QuarantinedTold,
    ReleaseAsked,
    RepairAsked,
    RepairTrialTold,
    StepAsked,
    TriedTold,
    TryAsked,
    WorkTold,
)
from penstock.envelope import SYSTEM_TEAM, CollectionId
from penstock.errors import BadRequest, Forbidden
from penstock.quarantine.causes import Cause, Causes
from penstock.quarantine.repair import Put, Repair, Step, replace, replace_pattern, transform

router = APIRouter(prefix=f"{API}/collections/{{c}}/quarantine", tags=["quarantine"])

BARS = 12

NOT_CLOSED = "the events of Penstock's own collections are nobody's to release or to discard"

_SECOND = 1_000_000


@router.get("")
def list_causes(
    c: str,
    caller: Reader,
    here: Here,
    since: Annotated[Time | None, Query(description="Received at this time or later.")] = None,
    until: Annotated[Time | None, Query(description="Received before this time.")] = None,
    bars: Annotated[int, Query(ge=2, le=1_000, description="Steps of time at most.")] = BARS,
) -> CausesTold:
    """Count the open events that have landed in quarantine, by cause, over time."""
    collection = readable(here, caller, c)
    with here.rooms.search:
        found = here.workplace.causes(
            collection.id, since=micros(since), until=micros(until), bars=bars
        )
    return _causes(c, found)


@router.get(f"/events/{ANY_ID}")
def show_quarantined(c: str, event_id: str, caller: Reader, here: Here) -> QuarantinedTold:
    """Show the newest quarantined event with this id, and where its payload is wrong."""
    collection = readable(here, caller, c).id
    with here.rooms.search:
        return _shown(here.workplace.show(collection, event_id))


@router.get("/works")
def list_works(
    c: str,
    caller: Reader,
    here: Here,
    limit: Annotated[int, Query(ge=1, le=1_000, description="The latest ones at most.")] = 100,
) -> list[WorkTold]:
    """List who released or discarded how many events and why, the latest first."""
    collection = readable(here, caller, c).id
    with here.rooms.search:
        return [_work(one) for one in here.workplace.works(collection)[:limit]]


@router.post("/try")
def try_repair(c: str, asked: TryAsked, caller: Reader, here: Here) -> TriedTold:
    """Say what the first open events would become after a repair, and change nothing."""
    collection = readable(here, caller, c).id
    with here.rooms.search:
        tried = here.workplace.attempt(
            _asked(asked, collection), _repair(asked.repair), limit=asked.limit, cursor=asked.cursor
        )
    return TriedTold(
        trials=[_trial(trial) for trial in tried.trials],
        closed=tried.closed,
        waiting=tried.waiting,
        cursor=tried.cursor,
    )


@router.post("/release")
def release_events(
    c: str, asked: ReleaseAsked, caller: Admin, token: Credentials, here: Here
) -> DoneTold:
    """Send a page of open events to the log again, repaired; each becomes a row once.

    Events that would go to quarantine again are held back.
    """
    collection = _closable(here, caller, c)
    release = asked.release or here.chance(8).hex()
    with here.rooms.search:
        done = here.workplace.release(
            _asked(asked, collection),
            _repair(asked.repair),
            release=release,
            by=known_as(here, caller),
            door=here.release_door(token),
            limit=asked.limit,
            cursor=asked.cursor,
        )
    if done.done:
        here.bus.publish(LAND, str(collection))
    return _done(done, release)


@router.post("/discard")
def discard_events(c: str, asked: DiscardAsked, caller: Admin, here: Here) -> DoneTold:
    """Take a page of open events out of the list; what they are, who did it and why is kept."""
    collection = _closable(here, caller, c)
    with here.rooms.search:
        done = here.workplace.discard(
            _asked(asked, collection),
            why=asked.why,
            by=known_as(here, caller),
            limit=asked.limit,
            cursor=asked.cursor,
        )
    return _done(done, None)


def _closable(here: Platform, caller: Caller, c: str) -> CollectionId:
    """Answer the collection; raise `Forbidden` for one of Penstock's own."""
    collection = readable(here, caller, c).id
    if collection.team == SYSTEM_TEAM:
        raise Forbidden(NOT_CLOSED)
    return collection


def _asked(asked: QuarantineAsked, collection: CollectionId) -> Asked:
    return Asked(
        collection=collection,
        query=asked.query,
        since=micros(asked.since),
        until=micros(asked.until),
    )


def _repair(asked: RepairAsked) -> Repair:
    return Repair(asked.content_type, tuple(map(_step, asked.steps)))


def _step(asked: StepAsked) -> Step:
    """Answer what a step stands for; raise `BadRequest` for one that cannot be used."""
    match asked.do:
        case "replace" if asked.find is not None and asked.put is not None:
            return replace(asked.find, asked.put)
        case "pattern" if asked.find is not None and asked.put is not None:
            return replace_pattern(asked.find, asked.put)
        case "payload" if asked.payload_base64 is not None:
            try:
                return Put(base64.b64decode(asked.payload_base64, validate=True))
            except binascii.Error:
                raise BadRequest("payload_base64 is no base 64") from None
        case "replace" | "pattern":
            raise BadRequest(f"the step {asked.do!r} needs find and put")
        case "payload":
            raise BadRequest("the step 'payload' needs payload_base64")
        case name:
            return transform(name)


def _causes(collection: str, causes: Causes) -> CausesTold:
    return CausesTold(
        collection=collection,
        open=causes.open,
        closed=causes.closed,
        start=moment(causes.start) if causes.causes else None,
        step_seconds=causes.step / _SECOND,
        causes=[_cause(cause) for cause in causes.causes],
    )


def _cause(cause: Cause) -> QuarantineCauseTold:
    return QuarantineCauseTold(
        stage=cause.why.stage,
        reason=cause.why.reason,
        count=cause.count,
        first=moment(cause.first),
        last=moment(cause.last),
        bars=list(cause.bars),
    )


def _shown(shown: Shown) -> QuarantinedTold:
    place = shown.place
    return QuarantinedTold(
        event=event_told(shown.found),
        place=PlaceTold(
            byte=place.byte,
            path=place.path,
            before=place.before,
            after=place.after,
            before_cut=place.before_cut,
            after_cut=place.after_cut,
        ),
        closed=None if shown.closing is None else _closing(shown.closing),
    )


def _closing(closing: Closing) -> ClosingTold:
    return ClosingTold(
        state=closing.state,
        at=moment(closing.closed_at),
        by=closing.closed_by,
        why=closing.why,
        release=closing.release,
        to_partition=closing.to and closing.to.partition,
        to_offset=closing.to and closing.to.offset,
    )


def _work(one: Worked) -> WorkTold:
    return WorkTold(
        state=one.work.state,
        by=one.work.by,
        why=one.work.why,
        release=one.work.release,
        count=one.count,
        first=moment(one.first),
        last=moment(one.last),
    )


def _trial(trial: Trial) -> RepairTrialTold:
    payload, before = text_of(trial.payload), text_of(trial.found.payload)
    return RepairTrialTold(
        event_id=trial.found.event_id,
        before=before,
        before_base64=base64_of(trial.found.payload) if before is None else None,
        received_at=moment(trial.found.received_at),
        row=trial.row,
        stage=trial.stage,
        reason=trial.reason,
        detail=trial.detail,
        content_type=trial.content_type,
        payload=payload,
        payload_base64=base64_of(trial.payload) if payload is None else None,
        columns=misfits(trial.columns),
        misfits=misfits(trial.misfits),
        new_columns=list(trial.new_columns),
    )


def _done(done: Done, release: str | None) -> DoneTold:
    return DoneTold(
        release=release,
        done=done.done,
        held=[HeldTold(event_id=held.event_id, why=held.why) for held in done.held],
        closed=done.closed,
        waiting=done.waiting,
        cursor=done.cursor,
    )
