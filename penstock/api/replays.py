"""Replays: plan, ask for one, look, pause, resume, cancel."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import structlog
from fastapi import APIRouter

from penstock.api.access import Caller, Replayer, known_as
from penstock.api.collections import one_of
from penstock.api.platform import API, Here, Platform
from penstock.api.values import base64_of, text_of
from penstock.bus import LAND, REPLAY
from penstock.contract.base import micros, moment
from penstock.contract.replays import (
    FailedEvent,
    FailuresTold,
    FailureTold,
    MessageTold,
    NewReplay,
    Pace,
    PlanTold,
    ReachedTold,
    ReplayAsked,
    ReplayBooks,
    ReplayProgress,
    ReplayTold,
)
from penstock.envelope import CollectionId, Event, Position
from penstock.errors import BadRequest, NotFound, Unavailable, WrongState
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import ENDS, wants_a_run
from penstock.search import Found, SearchRequest
from penstock.vocabulary import Wish
from replay.failures import Failure, failures
from replay.ledger import ATTEMPTS
from replay.plan import Plan, read_plan, replayable
from replay.preview import Preview, previews
from replay.progress import Progress, read_progress, report
from replay.request import ReplayRequest, read_options, read_request, record_of

log = structlog.get_logger()

router = APIRouter(prefix=f"{API}/replays", tags=["replays"])

# Clients wait for 90 s.
PLAN_SECONDS = 60.0

PREVIEWED = 3
PREVIEW_BYTES = 4_096
"""Of a payload that is shown before it is sent."""

# A page of failures is read within a second; more of them say nothing new.
FAILURES_READ = 1_000


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
        to = here.store.listed_destination(caller.team, request.destination).url
        return _plan(here.planner.plan(request, wake=wake, to=to, patience=PLAN_SECONDS))


@router.post("/preview")
def preview_replay(asked: ReplayAsked, caller: Replayer, here: Here) -> list[MessageTold]:
    """Show the first events as the destination would be sent them, without sending any.

    Values of headers that the destination has of its own are left out.
    """
    request = _request(asked, caller, here)
    destination = here.store.destination(caller.team, request.destination)
    with here.rooms.search:
        page = here.searcher.search(
            replace(_search(request), newest_first=False, limit=PREVIEWED),
        )
    found = previews(
        [(Position(one.log_partition, one.log_offset), _event(one)) for one in page.events],
        destination,
        guard=here.guard,
        collection=request.id,
        clock=here.clock,
        mode=request.options.headers,
    )
    return [_message(one) for one in found]


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
    record = record_of(
        request,
        id=here.chance(8).hex(),
        now=here.clock(),
        asked_by=known_as(here, caller),
        why=asked.why,
    )
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


@router.patch("/{id}")
def pace_replay(id: str, asked: Pace, caller: Replayer, here: Here) -> ReplayTold:  # noqa: A002
    """Change how fast a replay sends: from its next checkpoint on, within a second or two."""
    record = here.store.replay(caller.team, id)
    changed = {**record.options, **asked.model_dump(exclude_unset=True)}
    read_options(changed)
    record = here.store.change_options(caller.team, id, changed)
    here.bus.publish(REPLAY, record.id)
    return told(record)


@router.get("/{id}/course")
def show_course(id: str, caller: Replayer, here: Here) -> list[ReachedTold]:  # noqa: A002
    """Show how a replay came as far as it is: some hundred points of time at most."""
    progress = read_progress(here.store.replay(caller.team, id).progress)
    return [
        ReachedTold(at=moment(one.at), delivered=one.delivered, failed=one.failed)
        for one in progress.course
    ]


@router.get("/{id}/failures")
def show_failures(id: str, caller: Replayer, here: Here) -> FailuresTold:  # noqa: A002
    """Show why events failed for good, with the newest of them.

    From the ledger, also what has not landed of it.
    """
    record = here.store.replay(caller.team, id)
    if not read_progress(record.progress).failed or not _has_ledger(here):
        return FailuresTold(failures=[], complete=True)
    asked = SearchRequest(
        collection=ATTEMPTS,
        query=f'replay:"{record.id}" outcome:failed',
        limit=FAILURES_READ,
    )
    with here.rooms.search:
        page = here.searcher.search(asked)
    return FailuresTold(
        failures=[_failure(one) for one in failures(one.payload for one in page.events)],
        complete=page.cursor is None,
    )


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
        asked_by=record.asked_by,
        why=record.why,
    )


def _plan(plan: Plan) -> PlanTold:
    values = plan.as_dict()
    return PlanTold.model_validate({name: values[name] for name in PlanTold.model_fields})


def _progress(progress: Progress) -> ReplayProgress:
    return ReplayProgress(**{name: getattr(progress, name) for name in ReplayProgress.model_fields})


def _request(asked: ReplayAsked, caller: Caller, here: Platform) -> ReplayRequest:
    """Read what was asked; raise `NotFound` unless the team has that collection and destination."""
    values = asked.model_dump(exclude_unset=True, exclude={"confirm", "why"})
    times = {"since": micros(asked.since), "until": micros(asked.until)}
    request = read_request({**values, **times}, team=caller.team)
    replayable(request.query, here.clock())
    one_of(here, caller.team, request.collection)
    here.store.listed_destination(caller.team, request.destination)
    return request


def _refuse_unconfirmed(here: Platform, request: ReplayRequest, confirmed: int | None) -> None:
    """Raise `BadRequest` if very many events would be sent and nobody said so."""
    if request.options.dry_run:
        return
    extents = here.buffer.extents(request.id).values()
    if sum(extent.end for extent in extents) <= here.confirm_above:
        return  # not so many were ever received
    with here.rooms.search:
        count = here.searcher.count(_search(request))
    sends = min(count, request.options.max_events or count)
    if sends > max(here.confirm_above, confirmed or 0):
        raise BadRequest(
            f"this would send {sends:,} events to {request.destination!r}; if that is meant, "
            f"ask again with confirm={sends}"
        )


def _search(request: ReplayRequest) -> SearchRequest:
    """Answer the search that finds what the replay sends."""
    return SearchRequest(
        collection=request.id,
        query=request.query,
        since=request.since,
        until=request.until,
        view=request.options.view,
        duplicates=request.options.duplicates,
        # A replay of the quarantine takes them as well.
        closed=True,
    )


def _event(found: Found) -> Event:
    return Event(
        id=found.event_id,
        received_at=found.received_at,
        event_time=found.event_time,
        payload=found.payload,
        source=found.source,
        content_type=found.content_type,
        key=found.key,
        headers=found.headers,
        metadata=dict(found.metadata),
    )


def _message(preview: Preview) -> MessageTold:
    event = preview.event
    key = None if event.key is None else text_of(event.key)
    shown = event.payload[:PREVIEW_BYTES]
    text = _beginning(shown) if len(shown) < len(event.payload) else text_of(shown)
    return MessageTold(
        event_id=event.id,
        received_at=moment(event.received_at),
        key=key,
        key_base64=base64_of(event.key) if event.key is not None and key is None else None,
        headers=[
            (name, None if value is None else value.decode(errors="replace"))
            for name, value in preview.headers
        ],
        payload=text,
        payload_base64=base64_of(shown) if text is None else None,
        bytes=len(event.payload),
    )


def _beginning(cut: bytes) -> str | None:
    """Answer the text of bytes that may end within a letter; None for what is no text."""
    ends = (cut[: len(cut) - n] for n in range(4))
    return next((text for end in ends if (text := text_of(end)) is not None), None)


def _failure(one: Failure) -> FailureTold:
    return FailureTold(
        reason=one.reason,
        status=one.status,
        events=one.events,
        examples=[
            FailedEvent(
                event_id=row.event_id,
                partition=row.partition,
                offset=row.offset,
                attempt=row.attempt,
                at=row.at,
            )
            for row in one.examples
        ],
    )


def _has_ledger(here: Platform) -> bool:
    try:
        here.store.collection(ATTEMPTS)
    except NotFound:
        return False
    return True


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
