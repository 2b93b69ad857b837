"""Replays: plan, ask for one, look, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import msgspec
import structlog
from fastapi import APIRouter, Response

from penstock.api.access import Caller, Replayer, known_as
from penstock.api.collections import one_of
from penstock.api.platform import API, Here, Platform
from penstock.api.sql import PARQUET, parquet
from penstock.api.streaming import Streamed
from penstock.api.values import base64_of, text_of
from penstock.bus import LAND, REPLAY
from penstock.contract.base import micros, moment
from penstock.contract.replays import (
    BehindTold,
    FailedEvent,
    FailuresTold,
    FailureTold,
    MessageTold,
    NewPlan,
    NewReplay,
    NewRetry,
    Pace,
    PlannedReplay,
    PlanTold,
    ReachedTold,
    ReplayAsked,
    ReplayBooks,
    ReplayProgress,
    ReplayTold,
    SavedPlan,
)
from penstock.envelope import CollectionId, Event, Micros, Position
from penstock.errors import BadRequest, NotFound, Unavailable, WrongState, about
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import ENDS, wants_a_run
from penstock.search import Found, SearchRequest
from penstock.vocabulary import Wish
from replay.again import left_in, retry_of
from replay.beforehand import check, known_of
from replay.continuous import behind, new_record
from replay.failures import Failure, failures
from replay.files import SCHEMA, Written, batches_of, lines_of, written
from replay.ledger import ATTEMPTS
from replay.plan import Plan, read_plan, replayable
from replay.preview import Preview, previews
from replay.progress import Progress, read_progress, report
from replay.request import ReplayRequest, about_options, read_options, read_request
from replay.saved import content_of, kept_as, read, started
from replay.transform.asked import transform_of

log = structlog.get_logger()

router = APIRouter(prefix=f"{API}/replays", tags=["replays"])

# Clients wait for 90 s.
PLAN_SECONDS = 60.0

_DAY = 86_400_000_000

PREVIEWED = 3
PREVIEW_BYTES = 4_096
"""Of a payload that is shown before it is sent."""
CHANGED_BYTES = 65_536
"""Of one that is shown beside what it was: a change may be far behind its beginning."""

NDJSON = "application/x-ndjson"
FAILED = "Penstock-Failed"
"""The header of a file that says how many events are not in it because they failed."""
_PIECE_BYTES = 256 << 10

# A page of failures is read within a second; more of them say nothing new.
FAILURES_READ = 1_000


@router.get("")
def list_replays(caller: Replayer, here: Here) -> list[ReplayTold]:
    """List the team's newest replays, newest first."""
    return [
        told(record, behind_told(here, record, timed=False))
        for record in here.store.replays(caller.team)
    ]


@router.post("/plan")
def plan_replay(asked: ReplayAsked, caller: Replayer, here: Here) -> PlanTold:
    """Say exactly what a replay would send now, and keep nothing.

    Waits until what is on the log has landed, so that the plan holds what a search shows.
    """
    return _plan(_planned(here, _request(asked, caller, here)))


@router.post("/plans", status_code=201)
def save_plan(asked: NewPlan, caller: Replayer, here: Here) -> SavedPlan:
    """Make a plan that can be started as it is, by whoever has it, while it is kept.

    The snapshots that it reads stay until then, whatever upkeep and retention do.
    """
    request = _request(asked, caller, here)
    if request.options.continuous:
        raise BadRequest("a continuous replay has no end, and so no plan to be kept")
    id_, until = here.chance(8).hex(), here.clock() + asked.keep_days * _DAY
    to = here.store.listed_destination(caller.team, request.destination)
    planned = _planned(here, request, kept_as(id_, until))
    values = content_of(
        request, planned, to, id=id_, planned_by=known_as(here, caller), until=until
    )
    return SavedPlan.model_validate(values)


@router.post("/planned", status_code=201)
def start_plan(asked: PlannedReplay, caller: Replayer, here: Here) -> ReplayTold:
    """Ask for a replay of exactly what a saved plan says.

    Refused if the plan was edited, is over, or its destination or what it reads is not there any
    more as it was.
    """
    with about("plan"):
        saved = read(asked.plan.model_dump(exclude_unset=True), team=caller.team)
    with about("plan.request"):
        _refuse_unknown(here, caller, saved.request)
    _refuse_unconfirmed(here, saved.request, asked.confirm, lambda: saved.plan.count)
    with here.rooms.plans, about("plan"):
        record = started(
            saved,
            here.store,
            here.planner,
            files=here.files,
            id=here.chance(8).hex(),
            clock=here.clock,
            asked_by=known_as(here, caller),
            why=asked.why,
        )
    return told(_launched(here, record))


@router.post("/preview")
def preview_replay(asked: ReplayAsked, caller: Replayer, here: Here) -> list[MessageTold]:
    """Show the first events as the destination would be sent them, without sending any.

    Values of headers that the destination has of its own are left out.
    """
    request = _request(asked, caller, here)
    destination = here.store.destination(caller.team, request.destination)
    found = previews(
        _first(here, request),
        destination,
        guard=here.guard,
        collection=request.id,
        clock=here.clock,
        mode=request.options.headers,
        transform=transform_of(request, here.store),
    )
    return [_message(one) for one in found]


@router.get("/{id}")
def show_replay(id: str, caller: Replayer, here: Here) -> ReplayTold:  # noqa: A002
    """Show a replay."""
    record = here.store.replay(caller.team, id)
    return told(record, behind_told(here, record))


@router.post("", status_code=201)
def create_replay(asked: NewReplay, caller: Replayer, here: Here) -> ReplayTold:
    """Ask for a replay, and Dagster for its run.

    While Dagster does not answer the replay stays requested, and starts once it does. With
    `start_at` it stays so until then.
    """
    request = _request(asked, caller, here)
    _refuse_unconfirmed(here, request, asked.confirm, lambda: _counted(here, request))
    return told(_created(here, caller, request, asked.why, micros(asked.start_at)))


@router.post("/{id}/retry", status_code=201)
def retry_replay(id: str, asked: NewRetry, caller: Replayer, here: Here) -> ReplayTold:  # noqa: A002
    """Ask for a replay of exactly what failed in one that has ended, or was cut off.

    Of a continuous one that goes on: of what has failed so far.
    """
    before = here.store.replay(caller.team, id)
    request = retry_of(before, destination=asked.destination, changes=asked.options)
    with about_options():
        check(request, here.store, here.files)
    _refuse_unconfirmed(here, request, asked.confirm, lambda: left_in(before))
    return told(_created(here, caller, request, asked.why))


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


@router.get(
    "/{id}/file",
    response_class=Response,
    responses={
        200: {
            "content": {NDJSON: {}, PARQUET: {}},
            "headers": {
                FAILED: {
                    "description": "How many events of the replay failed, and are not in it.",
                    "schema": {"type": "integer"},
                }
            },
        }
    },
)
def download_file(id: str, caller: Replayer, here: Here) -> Response:  # noqa: A002
    """Send the file that a replay wrote, once it has finished: lines of JSON, or Parquet.

    Each event is in it once, in the order of the log, but for those that failed.
    """
    record = here.store.replay(caller.team, id)
    found = file_of(here, id)
    if found is None:
        raise NotFound("file of the replay", id)
    if record.state != "finished":
        raise WrongState(f"the replay is {record.state}; its file is sent once it has finished")
    if found.about.format == "parquet":
        sent = Streamed(parquet(SCHEMA, batches_of(found.folder)), ExitStack(), PARQUET)
    else:
        sent = Streamed(_pieces(lines_of(found.folder)), ExitStack(), NDJSON)
    sent.headers["Content-Disposition"] = f'attachment; filename="{found.name(id)}"'
    sent.headers[FAILED] = str(read_progress(record.progress).failed)
    return sent


def file_of(here: Platform, replay_id: str) -> Written | None:
    """Answer what a replay wrote, None where that is no file, or one that is gone."""
    if here.files is None:
        return None
    try:
        return written(here.files, replay_id)
    except NotFound:
        return None


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines: each piece is a message to the server."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def told(record: ReplayRecord, behind: BehindTold | None = None) -> ReplayTold:
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
        behind=behind,
        error=record.error,
        created_at=moment(record.created_at),
        start_at=moment(record.start_at),
        started_at=moment(record.started_at),
        finished_at=moment(record.finished_at),
        run_id=record.run_id,
        asked_by=record.asked_by,
        why=record.why,
    )


def behind_told(here: Platform, record: ReplayRecord, *, timed: bool = True) -> BehindTold | None:
    """Tell how far a continuous replay is behind; None too while the log does not answer."""
    try:
        found = behind(record, here.buffer, here.clock(), timed=timed)
    except Unavailable as error:
        log.warning("how far a replay is behind is not known", replay=record.id, reason=str(error))
        return None
    if found is None:
        return None
    return BehindTold(
        events=found.events, seconds=None if found.age is None else found.age / 1_000_000
    )


def _plan(plan: Plan) -> PlanTold:
    values = plan.as_dict()
    return PlanTold.model_validate({name: values[name] for name in PlanTold.model_fields})


def _progress(progress: Progress) -> ReplayProgress:
    return ReplayProgress(**{name: getattr(progress, name) for name in ReplayProgress.model_fields})


def _request(asked: ReplayAsked, caller: Caller, here: Platform) -> ReplayRequest:
    """Read what was asked; raise `NotFound` unless the team has that collection and destination."""
    values = asked.model_dump(
        exclude_unset=True, exclude={"confirm", "why", "keep_days", "start_at"}
    )
    times = {"since": micros(asked.since), "until": micros(asked.until)}
    request = read_request({**values, **times}, team=caller.team)
    replayable(request.query, here.clock())
    _refuse_unknown(here, caller, request)
    check(request, here.store, here.files)
    return request


def _refuse_unknown(here: Platform, caller: Caller, request: ReplayRequest) -> None:
    with about("collection"):
        one_of(here, caller.team, request.collection)


def _refuse_unconfirmed(
    here: Platform, request: ReplayRequest, confirmed: int | None, count: Callable[[], int]
) -> None:
    """Raise `BadRequest` if very many events would be sent and nobody said so."""
    if request.options.dry_run:
        return
    extents = here.buffer.extents(request.id).values()
    if sum(extent.end for extent in extents) <= here.confirm_above:
        return  # not so many were ever received
    found = count()
    sends = min(found, request.options.max_events or found)
    if sends > max(here.confirm_above, confirmed or 0):
        raise BadRequest(
            f"this would send {sends:,} events to {request.destination!r}; if that is meant, "
            f"ask again with confirm={sends}"
        ).at("confirm")


def _planned(here: Platform, request: ReplayRequest, kept_as: str | None = None) -> Plan:
    def wake(collection: CollectionId) -> None:
        here.bus.publish(LAND, str(collection))

    with here.rooms.plans:
        to = here.store.listed_destination(request.team, request.destination)
        return here.planner.plan(
            request,
            wake=wake,
            to=to.url,
            bound=to.rate,
            warned=known_of(here.store, to, request, here.files),
            patience=PLAN_SECONDS,
            kept_as=kept_as,
        )


def _first(here: Platform, request: ReplayRequest) -> Sequence[tuple[Position, Event]]:
    """Answer the first events that would be sent."""
    if request.options.missing:  # no search knows which
        planned = _planned(here, request)
        with here.rooms.plans:
            return here.planner.first(request, planned, PREVIEWED)
    with here.rooms.search:
        page = here.searcher.search(
            # What comes from now on is not there yet; what came last is most like it.
            replace(_search(request), newest_first=request.from_now_on, limit=PREVIEWED),
        )
    return [(Position(one.log_partition, one.log_offset), _event(one)) for one in page.events]


def _counted(here: Platform, request: ReplayRequest) -> int:
    if request.from_now_on:
        return 0
    if request.options.missing:
        return _planned(here, request).count
    with here.rooms.search:
        return here.searcher.count(_search(request))


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
    original = preview.original
    changed = original is not None and original.payload != event.payload
    shown = event.payload[: CHANGED_BYTES if changed else PREVIEW_BYTES]
    text = _text_of(shown, event.payload)
    before: str | None = None
    if original is not None and changed:
        before = _text_of(original.payload[:CHANGED_BYTES], original.payload)
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
        before=before,
        wrong=preview.wrong,
    )


def _text_of(shown: bytes, payload: bytes) -> str | None:
    return _beginning(shown) if len(shown) < len(payload) else text_of(shown)


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


def _created(
    here: Platform,
    caller: Caller,
    request: ReplayRequest,
    why: str | None,
    start_at: Micros | None = None,
) -> ReplayRecord:
    """Write the replay down, and have its run started: now, or later."""
    record = new_record(
        request,
        here.planner.begin,
        id=here.chance(8).hex(),
        now=here.clock(),
        asked_by=known_as(here, caller),
        why=why,
        start_at=start_at,
    )
    here.store.create_replay(record)
    return _launched(here, record)


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
