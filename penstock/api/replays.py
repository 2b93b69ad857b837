"""Replays: plan, ask for one, look, pause, resume, cancel."""

from __future__ import annotations

import msgspec
import structlog
from fastapi import APIRouter

from penstock.api.access import Caller, Replayer
from penstock.api.collections import one_of
from penstock.api.platform import API, Here, Platform
from penstock.bus import LAND, REPLAY
from penstock.contract.base import micros, moment
from penstock.contract.replays import (
    NewReplay,
    PlanTold,
    ReplayAsked,
    ReplayBooks,
    ReplayProgress,
    ReplayTold,
)
from penstock.envelope import CollectionId
from penstock.errors import BadRequest, Unavailable, WrongState
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import ENDS, wants_a_run
from penstock.search import SearchRequest
from penstock.vocabulary import Wish
from replay.plan import Plan, read_plan, replayable
from replay.progress import Progress, read_progress, report
from replay.request import ReplayRequest, read_request, record_of

log = structlog.get_logger()

router = APIRouter(prefix=f"{API}/replays", tags=["replays"])

# Clients wait for 90 s.
PLAN_SECONDS = 60.0


@router.get("")
def list_replays(caller: Replayer, here: Here) -> list[ReplayTold]:
    """List the team's newest replays, newest first."""
    return [told(record) for record in here.store.replays(caller.team)]


@router.post("/plan")
def plan_replay(asked: ReplayAsked, caller: Replayer, here: Here) -> PlanTold:
    """Say exactly what a replay would send now, and keep nothing.

    Waits until what is on the log has landed, so that the plan holds what a search shows.
    """
    request = _request(asked, caller, here)

    def wake(collection: CollectionId) -> None:
        here.bus.publish(LAND, str(collection))

    with here.rooms.plans:
        to = here.store.destination(caller.team, request.destination).url
        return _plan(here.planner.plan(request, wake=wake, to=to, patience=PLAN_SECONDS))


@router.get("/{id}")
def show_replay(id: str, caller: Replayer, here: Here) -> ReplayTold:  # noqa: A002
    """Show a replay."""
    return told(here.store.replay(caller.team, id))


@router.post("", status_code=201)
def create_replay(asked: NewReplay, caller: Replayer, here: Here) -> ReplayTold:
    """Ask for a replay, and Dagster for its run.

    While Dagster does not answer the replay stays requested, and starts once it does.
    """
    request = _request(asked, caller, here)
    _refuse_unconfirmed(here, request, asked.confirm)
    record = record_of(request, id=here.chance(8).hex(), now=here.clock())
    here.store.create_replay(record)
    return told(_launched(here, record))


@router.post("/{id}/pause")
def pause_replay(id: str, caller: Replayer, here: Here) -> ReplayTold:  # noqa: A002
    """Stop sending for now; what is under way comes to its end."""
    return told(_wished(here, caller, id, "pause"))


@router.post("/{id}/resume")
def resume_replay(id: str, caller: Replayer, here: Here) -> ReplayTold:  # noqa: A002
    """Go on, here or in a new run."""
    return told(_launched(here, _wished(here, caller, id, "resume")))


@router.post("/{id}/cancel")
def cancel_replay(id: str, caller: Replayer, here: Here) -> ReplayTold:  # noqa: A002
    """Stop for good."""
    return told(_wished(here, caller, id, "cancel"))


@router.get("/{id}/report")
def report_replay(id: str, caller: Replayer, here: Here) -> ReplayBooks:  # noqa: A002
    """Account for every event that the plan counted."""
    record = here.store.replay(caller.team, id)
    if record.plan is None:
        raise WrongState(f"the replay is {record.state}; it has no plan yet to account for")
    books = report(
        read_progress(record.progress),
        matched=read_plan(record.plan).count,
        ended=record.state in ENDS,
    )
    return ReplayBooks(**msgspec.structs.asdict(books))


def told(record: ReplayRecord) -> ReplayTold:
    """Tell about a record."""
    progress = read_progress(record.progress)
    return ReplayTold(
        id=record.id,
        collection=record.collection,
        query=record.query,
        since=moment(record.since),
        until=moment(record.until),
        destination=record.destination,
        options=record.options,
        state=record.state,
        wish=record.wish,
        plan=None if record.plan is None else _plan(read_plan(record.plan)),
        progress=_progress(progress),
        error=record.error,
        created_at=moment(record.created_at),
        started_at=moment(record.started_at),
        finished_at=moment(record.finished_at),
        run_id=record.run_id,
    )


def _plan(plan: Plan) -> PlanTold:
    values = plan.as_dict()
    return PlanTold.model_validate({name: values[name] for name in PlanTold.model_fields})


def _progress(progress: Progress) -> ReplayProgress:
    return ReplayProgress(**{name: getattr(progress, name) for name in ReplayProgress.model_fields})


def _request(asked: ReplayAsked, caller: Caller, here: Platform) -> ReplayRequest:
    """Read what was asked; raise `NotFound` unless the team has that collection and destination."""
    values = asked.model_dump(exclude_unset=True, exclude={"confirm"})
    times = {"since": micros(asked.since), "until": micros(asked.until)}
    request = read_request({**values, **times}, team=caller.team)
    replayable(request.query, here.clock())
    one_of(here, caller.team, request.collection)
    here.store.destination(caller.team, request.destination)
    return request


def _refuse_unconfirmed(here: Platform, request: ReplayRequest, confirmed: int | None) -> None:
    """Raise `BadRequest` if very many events would be sent and nobody said so."""
    if request.options.dry_run:
        return
    extents = here.buffer.extents(request.id).values()
    if sum(extent.end for extent in extents) <= here.confirm_above:
        return  # not so many were ever received
    with here.rooms.search:
        count = here.searcher.count(
            SearchRequest(
                collection=request.id,
                query=request.query,
                since=request.since,
                until=request.until,
                view=request.options.view,
                duplicates=request.options.duplicates,
                # A replay of the quarantine takes them as well.
                closed=True,
            )
        )
    sends = min(count, request.options.max_events or count)
    if sends > max(here.confirm_above, confirmed or 0):
        raise BadRequest(
            f"this would send {sends:,} events to {request.destination!r}; if that is meant, "
            f"ask again with confirm={sends}"
        )


def _wished(here: Platform, caller: Caller, replay_id: str, wish: Wish) -> ReplayRecord:
    record = here.store.wish(caller.team, replay_id, wish, here.clock())
    here.bus.publish(REPLAY, record.id)
    return record


def _launched(here: Platform, record: ReplayRecord) -> ReplayRecord:
    """Start a run where one is wanted; leave it to the sensor where Dagster does not answer."""
    if not wants_a_run(record, here.clock()):
        return record
    try:
        run_id = here.launch(record.id)
    except Unavailable as error:
        log.warning("replay not launched, a sensor will", replay=record.id, reason=str(error))
        return record
    return here.store.set_replay_run(record.id, run_id, here.clock())
