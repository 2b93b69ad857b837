"""Quarantine: why events are there, one of them, a repair tried, release, discard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from assets.release import Workplace
from penstock.api.access import Admin, Caller, Credentials, Reader
from penstock.api.collections import one_of, readable
from penstock.api.models import TimeIn
from penstock.api.platform import API, Here, Platform
from penstock.api.quarantine_models import (
    CausesTold,
    DiscardAsked,
    DoneTold,
    QuarantinedTold,
    ReleaseAsked,
    RepairTrialTold,
    TriedTold,
    TryAsked,
)
from penstock.bus import LAND

router = APIRouter(prefix=f"{API}/collections/{{c}}/quarantine", tags=["quarantine"])

BARS = 12


@router.get("")
def list_causes(
    c: str,
    caller: Reader,
    here: Here,
    since: Annotated[TimeIn | None, Query(description="Received at this time or later.")] = None,
    until: Annotated[TimeIn | None, Query(description="Received before this time.")] = None,
    bars: Annotated[int, Query(ge=2, le=1_000, description="Steps of time at most.")] = BARS,
) -> CausesTold:
    """Count the open events that have landed in quarantine, by cause, over time."""
    collection = readable(here, caller, c)
    with here.rooms.search:
        found = _workplace(here).causes(collection.id, since=since, until=until, bars=bars)
    return CausesTold.of(c, found)


# Senders choose ids; one may have a slash.
@router.get("/events/{event_id:path}")
def show_quarantined(c: str, event_id: str, caller: Reader, here: Here) -> QuarantinedTold:
    """Show the newest quarantined event with this id, and where its payload is wrong."""
    collection = readable(here, caller, c).id
    with here.rooms.search:
        return QuarantinedTold.of(_workplace(here).show(collection, event_id))


@router.post("/try")
def try_repair(c: str, asked: TryAsked, caller: Reader, here: Here) -> TriedTold:
    """Say what the first open events would become after a repair, and change nothing."""
    collection = readable(here, caller, c).id
    with here.rooms.search:
        tried = _workplace(here).attempt(
            asked.asked(collection), asked.repair.repair(), limit=asked.limit, cursor=asked.cursor
        )
    return TriedTold(
        trials=[RepairTrialTold.of(trial) for trial in tried.trials],
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
    collection = one_of(here, caller.team, c).id
    release = asked.release or here.chance(8).hex()
    with here.rooms.search:
        done = _workplace(here).release(
            asked.asked(collection),
            asked.repair.repair(),
            release=release,
            by=_name(here, caller),
            door=here.release_door(token),
            limit=asked.limit,
            cursor=asked.cursor,
        )
    if done.done:
        here.bus.publish(LAND, str(collection))
    return DoneTold.of(done, release)


@router.post("/discard")
def discard_events(c: str, asked: DiscardAsked, caller: Admin, here: Here) -> DoneTold:
    """Take a page of open events out of the list; what they are, who did it and why is kept."""
    collection = one_of(here, caller.team, c).id
    with here.rooms.search:
        done = _workplace(here).discard(
            asked.asked(collection),
            why=asked.why,
            by=_name(here, caller),
            limit=asked.limit,
            cursor=asked.cursor,
        )
    return DoneTold.of(done, None)


def _workplace(here: Platform) -> Workplace:
    return Workplace(
        here.lake,
        here.buffer,
        here.searcher,
        rules=here.rules,
        clock=here.clock,
        chance=here.chance,
    )


def _name(here: Platform, caller: Caller) -> str:
    """Answer who calls as people know them: the name of the token, and its id."""
    names = [token.name for token in here.store.tokens(caller.team) if token.id == caller.token_id]
    return f"{names[0] if names else 'token'} ({caller.token_id})"
