"""Replays: list, plan and start one, follow it, steer it, read its books."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import msgspec
import structlog
from fastapi import APIRouter, Query
from starlette.responses import Response

from penstock.api import replays
from penstock.api.collections import list_collections
from penstock.api.destinations import list_destinations
from penstock.api.platform import Here, Platform
from penstock.api.search import facets
from penstock.api.searches import list_searches, show_search
from penstock.contract.base import moment, rfc3339
from penstock.contract.replays import (
    FailuresTold,
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
    ReplayTold,
)
from penstock.contract.search import FacetTold, LookedForFacets
from penstock.dashboard.access import Replaying, Visit
from penstock.dashboard.destinations import CREATING, destination_at
from penstock.dashboard.difference import Piece, difference
from penstock.dashboard.forms import Form, Wrong, asked, wrong_at
from penstock.dashboard.ids import in_path
from penstock.dashboard.payload import visible
from penstock.dashboard.questions import Question
from penstock.dashboard.render import is_htmx, number
from penstock.envelope import Micros
from penstock.errors import BadRequest, NotFound, Rejected, Unavailable
from penstock.metadata.states import ENDS
from penstock.pace import read_gap, read_speed
from penstock.query import times
from penstock.steps import lines_of
from replay.request import Options

router = APIRouter(prefix="/replays")

log = structlog.get_logger()

PAGE = 50
_LATELY_SECONDS = 10
_SEEN = 0.6
"""Hundredths of a bar that nobody overlooks."""

_CHOICES = {
    "view": [("main", "its rows"), ("quarantine", "its quarantine")],
    "order": [
        ("key", "in order for each key, keys side by side"),
        ("log", "one at a time, in the order of the log"),
    ],
    "headers": [
        ("add", "what was received, and the five penstock-… headers"),
        ("verbatim", "only what was received"),
    ],
    "duplicates": [("fold", "are left out, as in a search"), ("include", "are sent, too")],
    "timing": [("received", "when it was received"), ("event", "its own, where it has one")],
}
# What stands below "More", with what it is if nobody says otherwise.
_MORE = {
    "order": "key",
    "headers": "add",
    "duplicates": "fold",
    "max_events": "",
    "concurrency": "32",
    "timing": "received",
    "missing": "",
    "dry_run": "",
}

_T = TypeVar("_T")

# What the form asks for, in its order; the plan's own form carries them on.
FIELDS = (
    *("collection", "query", "since", "until", "view", "destination", "order", "rate"),
    *(
        "speed",
        "gap",
        "timing",
        "concurrency",
        "max_events",
        "headers",
        "duplicates",
        "missing",
        "continuous",
        "transform",
        "dry_run",
        "why",
        "start_at",
    ),
)
# Those that are options of a replay.
_OPTIONS = (
    *("view", "order", "rate", "speed", "gap", "timing", "concurrency", "max_events"),
    *("headers", "duplicates", "missing", "continuous", "transform", "dry_run"),
)
_SAID = frozenset({*FIELDS, "confirm"})
"""The fields of the forms that say what is wrong with them."""
_BOXES = ("missing", "continuous", "dry_run")
"""Fields that are ticked or not."""
_READ = {"speed": read_speed, "gap": read_gap}
"""Fields that people write as they say them: ``10x``, ``5s``."""
_OTHERWISE = frozenset({"since", "until", "why", "start_at", "transform", *_BOXES, *_READ})
_ASKED = tuple(name for name in FIELDS if name not in _OTHERWISE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is shown of a replay before it is started."""

    asked: ReplayAsked
    plan: PlanTold
    keys: FacetTold | None
    """None where they could not be counted."""
    messages: Sequence[MessageTold] | None
    changes: Sequence[Sequence[Piece]]
    """What the transform changes in the payload of each."""
    kept: Mapping[str, str]
    """The fields that ask for exactly this."""
    confirm: bool
    """Whether the count has to be typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a replay is, and how long what is left takes at that speed."""

    per_second: float | None
    left_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a bar: where it begins, how wide it is, in hundredths of all."""

    name: str
    start: float
    width: float


@router.get("", name="replays")
def show_replays(
    visit: Replaying,
    here: Here,
    state: str = "",
    older: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Show the team's replays, newest first; `state` may be ``open`` or ``ended``."""
    found = replays.list_replays(visit.caller, here)
    chosen = [one for one in found if state not in ("open", "ended") or _is_open(one, state)]
    shown = chosen[older : older + PAGE]
    more = older + PAGE < len(chosen)
    return visit.show(
        "replays.html",
        replays=shown,
        bars={one.id: bar(one) for one in shown},
        options={one.id: options_of(one) for one in shown},
        done={one.id: done(one) for one in shown},
        state=state,
        first=older + 1,
        last=older + len(shown),
        count=len(chosen),
        open=sum(one.state not in ENDS for one in found),
        any=bool(found),
        destinations=bool(list_destinations(visit.caller, here)),
        creating=CREATING,
        newest=_list_path(state) if older else None,
        older=_list_path(state, older + PAGE) if more else None,
        here_path=_list_path(state, older),
    )


@router.get("/new", name="new_replay")
def show_new_replay(visit: Replaying, here: Here) -> Response:
    """Show the form, filled with what the address says: its fields by their names, or `saved`."""
    given = {name: visit.request.query_params.get(name, "") for name in FIELDS}
    saved = visit.request.query_params.get("saved", "")
    try:
        if saved:
            given |= _saved(visit, here, saved)
    except NotFound as error:
        return _form(visit, here, given, wrong={"saved": str(error)}, status=404)
    return _form(visit, here, given, saved=saved)


@router.post("/new", name="plan_replay")
def plan_replay(visit: Replaying, here: Here) -> Response:
    """Show what the replay would send, and how to start exactly that.

    An address goes before the destination that was chosen, and becomes one.
    """
    given = given_of(visit.form)
    address = visit.form.text("address")
    try:
        if address:
            given["destination"] = destination_at(address, visit, here)
        return _form(visit, here, given, planned=_plan(visit, here, given))
    except Wrong as error:
        return _form(visit, here, given, wrong=error.fields, status=422)


@router.post("", name="create_replay")
def create_replay(visit: Replaying, here: Here) -> Response:
    """Start what was planned; above the limit only with its count, typed."""
    given = given_of(visit.form)
    try:
        values = values_of(given, here.clock())
        values |= {"start_at": begins(given["start_at"], here.clock()), "why": given["why"]}
        values |= {"confirm": typed_number(visit.form.text("confirm"))}
        made = _told_at_fields(
            lambda: replays.create_replay(asked(NewReplay, values), visit.caller, here)
        )
    except Wrong as error:
        wrong = dict(error.fields)
        if "confirm" in wrong:
            wrong = {"confirm": "Type the number of events above, to say that it is meant."}
        try:
            planned = _plan(visit, here, given)
        except Wrong as again:
            wrong, planned = {**wrong, **again.fields}, None
        return _form(visit, here, given, planned=planned, wrong=wrong, status=422)
    return visit.go(f"/replays/{made.id}")


@router.post("/plans", name="save_plan")
def save_plan(visit: Replaying, here: Here) -> Response:
    """Answer the plan of these fields as a file, which keeps what it says for a week."""
    given = given_of(visit.form)
    try:
        body = asked(NewPlan, values_of(given, here.clock()))
        saved = _told_at_fields(lambda: replays.save_plan(body, visit.caller, here))
    except Wrong as error:
        return _form(visit, here, given, wrong=error.fields, status=422)
    name = f"plan-{saved.request['collection']}-{saved.id}.json"
    return Response(
        saved.model_dump_json(indent=2) + "\n",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
        media_type="application/json",
    )


@router.post("/planned", name="start_plan")
def start_plan(visit: Replaying, here: Here) -> Response:
    """Start what the plan of a file says; above the limit only with its count, typed."""
    form = visit.form
    try:
        plan = read_plan_file(form.raw("plan"))
        sends = typed_number(form.text("sends"))
        values = {"plan": plan, "why": form.text("plan_why"), "confirm": sends}
        made = _told_at_fields(
            lambda: replays.start_plan(asked(PlannedReplay, values), visit.caller, here)
        )
    except Wrong as error:
        wrong = {"plan": next(iter(error.fields.values()))}
        if "confirm" in error.fields:
            wrong = {"sends": "Type the number of events that it sends, to say that it is meant."}
        return _form(visit, here, given_of(Form({})), wrong=wrong, status=422)
    return visit.go(f"/replays/{made.id}")


@router.get("/{id}", name="replay")
def show_replay(id: str, visit: Replaying, here: Here) -> Response:  # noqa: A002
    """Show a replay; its block ``live`` is fetched again every second until it ends."""
    return _show(visit, here, replays.show_replay(id, visit.caller, here))


@router.get("/{id}/file", name="replay_file")
def download_file(id: str, visit: Replaying, here: Here) -> Response:  # noqa: A002
    """Send the file that a replay wrote."""
    return replays.download_file(id, visit.caller, here)


@router.post("/{id}/pause", name="pause_replay")
def pause_replay(id: str, visit: Replaying, here: Here) -> Response:  # noqa: A002
    """Stop sending for now."""
    return _steered(visit, here, replays.pause_replay(id, visit.caller, here))


@router.post("/{id}/resume", name="resume_replay")
def resume_replay(id: str, visit: Replaying, here: Here) -> Response:  # noqa: A002
    """Go on."""
    return _steered(visit, here, replays.resume_replay(id, visit.caller, here))


@router.post("/{id}/cancel", name="cancel_replay")
def cancel_replay(id: str, visit: Replaying, here: Here) -> Response:  # noqa: A002
    """Ask whether it shall stop for good; or stop it."""
    if visit.form.has("sure"):
        return _steered(visit, here, replays.cancel_replay(id, visit.caller, here))
    now = replays.show_replay(id, visit.caller, here)
    return _show(visit, here, now, question=_cancelling(now, visit, here))


@router.post("/{id}/retry", name="retry_replay")
def retry_replay(id: str, visit: Replaying, here: Here) -> Response:  # noqa: A002
    """Ask whether what failed in this one shall be sent again; or start a replay of it.

    Above the limit that takes its count, typed.
    """
    now = replays.show_replay(id, visit.caller, here)
    if to_retry(now) and not visit.form.has("sure"):
        return _show(visit, here, now, question=_retrying(now, here))
    try:
        body = asked(NewRetry, {"confirm": typed_number(visit.form.text("confirm"))})
        made = _told_at_fields(lambda: replays.retry_replay(id, body, visit.caller, here))
    except Wrong as error:
        if "confirm" in error.fields:
            wrong = {"confirm": "Type the number of events that failed, to say that it is meant."}
            return _show(visit, here, now, question=_retrying(now, here), wrong=wrong, status=422)
        said = next(iter(error.fields.values()))
        return _show(visit, here, now, wrong={"retry": said}, status=422)
    return visit.go(f"/replays/{made.id}")


def _cancelling(replay: ReplayTold, visit: Visit, here: Platform) -> Question:
    said = "Nothing was sent yet."
    if replay.plan is not None:
        books = replays.report_replay(replay.id, visit.caller, here)
        said = (
            f"{number(books.waiting)} of {number(books.matched)} events have not come to an end: "
            "they are counted as skipped. What was delivered stays delivered."
        )
    return Question(
        title="Cancel this replay?",
        says=(said, "It cannot go on again."),
        action=f"/replays/{in_path(replay.id)}/cancel",
        sure="Stop it for good",
        back=f"/replays/{in_path(replay.id)}",
        leave="Let it go on",
        danger=True,
    )


def _retrying(replay: ReplayTold, here: Platform) -> Question:
    left = to_retry(replay)
    events = "1 event" if left == 1 else f"{number(left)} events"
    far = "" if replay.state in ENDS else " so far, without what an earlier retry delivered"
    failed = f"failed or {'was' if left == 1 else 'were'} cut off{far}"
    return Question(
        title="Send again what failed?",
        says=(
            f"A new replay sends exactly the {events} of this one that {failed}.",
            f"They go to {replay.destination}, as they were sent here.",
        ),
        action=f"/replays/{in_path(replay.id)}/retry",
        sure=f"Send {events}",
        back=f"/replays/{in_path(replay.id)}",
        leave="Not now",
        count=left if left > here.confirm_above else 0,
    )


def to_retry(replay: ReplayTold) -> int:
    """Answer how many events of a replay can be sent again: they failed, or were cut off. Pure."""
    options = options_of(replay)
    ready = replay.state in ENDS or options["continuous"]
    done = replay.progress
    return done.failed + done.unknown if ready and not options["dry_run"] else 0


@router.post("/{id}/pace", name="pace_replay")
def pace_replay(id: str, visit: Replaying, here: Here) -> Response:  # noqa: A002
    """Change how fast it sends; an empty field takes the bound away, or leaves it at 32."""
    form = visit.form
    given = {name: form.text(name) for name in ("rate", "speed", "gap", "concurrency")}
    try:
        values = {**given, **_read_as_said(given)}
        # `asked` leaves out what is empty; here an empty field means something.
        pace = asked(Pace, values).model_copy(
            update={name: None for name in ("rate", "gap") if not given[name]}
            | ({} if given["speed"] else {"speed": 0.0})
        )
        changed = _told_at_fields(lambda: replays.pace_replay(id, pace, visit.caller, here))
    except Wrong as error:
        now = replays.show_replay(id, visit.caller, here)
        return _show(visit, here, now, wrong=error.fields, status=422)
    return _steered(visit, here, changed, said="It goes on at this pace within a second or two.")


# What is decided, without asking anybody


def given_of(form: Form) -> dict[str, str]:
    """Answer the fields of the form as texts; a box that is ticked is ``on``."""
    return {
        name: ("on" if form.has(name) else "") if name in _BOXES else form.text(name)
        for name in FIELDS
    }


def typed_number(text: str) -> str | None:
    """Answer the digits of a number as people type it; None for what is none."""
    digits = text.replace(",", "").replace(" ", "")
    return digits if digits.isdecimal() else None


def read_plan_file(text: str) -> dict[str, Any]:
    """Answer what the text of a plan's file holds; raise `Wrong` for what is none."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise Wrong({"plan": "This is no plan, as “Keep the plan” writes one."}) from None


def values_of(given: Mapping[str, str], now: Micros) -> dict[str, Any]:
    """Answer what the fields ask of the API; raise `Wrong` for times that are none.

    Times may be written as in a search, ``now-1h`` or ``2026-11-22``.
    """
    values: dict[str, Any] = {name: given[name] for name in _ASKED}
    values |= {name: bool(given[name]) for name in _BOXES}
    values["transform"] = lines_of(given["transform"])
    values |= _read_as_said(given)
    wrong = {}
    for name in ("since", "until"):
        if not given[name]:
            continue
        try:
            values[name] = moment(times.moment(given[name], now))
        except times.NotATime:
            wrong[name] = times.EXPECTED
    if wrong:
        raise Wrong(wrong)
    return values


def begins(text: str, now: Micros) -> datetime | None:
    """Answer when a replay is to start, written as in a search; raise `Wrong`."""
    try:
        return moment(times.moment(text, now)) if text else None
    except times.NotATime:
        raise Wrong({"start_at": times.EXPECTED.replace("now-15m", "now+2h")}) from None


def _read_as_said(given: Mapping[str, str]) -> dict[str, float | None]:
    """Answer the fields that people write with a unit as numbers; raise `Wrong`."""
    values, wrong = {}, {}
    for name, read in _READ.items():
        try:
            values[name] = read(given[name] or None)
        except BadRequest as error:
            wrong[name] = str(error)
    if wrong:
        raise Wrong(wrong)
    return values


def done(replay: ReplayTold) -> int:
    """Answer how many events came to an end; of a replay that is over all of them have."""
    far = replay.progress
    if replay.state in ENDS and replay.plan is not None:
        return replay.plan.count
    return far.delivered + far.failed + far.skipped + far.unknown


def bar(replay: ReplayTold) -> list[Part]:
    """Answer what became of the events, as parts of a bar."""
    count = replay.plan.count if replay.plan else 0
    names = ("delivered", "failed", "skipped", "unknown")
    numbers = {name: getattr(replay.progress, name) for name in names}
    if not count or not any(numbers.values()):
        return []
    # One failure in a million has to be seen: the widest part makes room for it.
    widths = {
        name: max(number / count * 100, _SEEN if name == "failed" else 0.0)
        for name, number in numbers.items()
        if number
    }
    widest = max(widths, key=lambda name: widths[name])
    widths[widest] -= max(0.0, sum(widths.values()) - 100)
    parts: list[Part] = []
    start = 0.0
    for name, width in widths.items():
        parts.append(Part(name=name, start=round(start, 2), width=round(width, 2)))
        start += width
    return parts


def speed(course: Sequence[ReachedTold], left: int) -> Speed:
    """Answer how fast the last seconds of a course were, failures included."""
    if len(course) < 2:  # noqa: PLR2004 - a speed is between two points
        return Speed(per_second=None, left_seconds=None)
    last = course[-1]
    before = next(
        (
            one
            for one in reversed(course[:-1])
            if (last.at - one.at).total_seconds() >= _LATELY_SECONDS
        ),
        course[0],
    )
    passed = (last.at - before.at).total_seconds()
    sent = last.delivered + last.failed - before.delivered - before.failed
    per_second = sent / passed if passed > 0 else None
    return Speed(
        per_second=per_second, left_seconds=left / per_second if per_second and left else None
    )


def rates(course: Sequence[ReachedTold]) -> tuple[list[float], list[float], list[float]]:
    """Answer when (seconds since 1970) how many events a second were delivered, and failed.

    What was done in the fraction of a second before the end is no speed: it counts with what was
    done before it.
    """
    starts, delivered, failed = [], [], []
    close = len(course) > 2 and (course[-1].at - course[-2].at).total_seconds() < 1  # noqa: PLR2004
    points = [*course[:-2], course[-1]] if close else course
    for before, after in pairwise(points):
        length = (after.at - before.at).total_seconds()
        if length <= 0:
            continue
        starts.append(round(after.at.timestamp(), 3))
        delivered.append(round((after.delivered - before.delivered) / length, 2))
        failed.append(round((after.failed - before.failed) / length, 2))
    return starts, delivered, failed


def again(replay: ReplayTold) -> str:
    """Answer the query of an address where the form asks for the same once more."""
    options = {name: replay.options.get(name) for name in _OPTIONS}
    options["transform"] = "\n".join(options["transform"] or ())
    fields = {
        "collection": replay.collection,
        "query": replay.query,
        "destination": replay.destination,
        "since": replay.since and rfc3339(replay.since),
        "until": replay.until and rfc3339(replay.until),
        **options,
    }
    return urlencode({name: value for name, value in fields.items() if value})


def options_of(replay: ReplayTold) -> dict[str, Any]:
    """Answer how a replay sends, with what was the default where nobody said it."""
    return {**msgspec.to_builtins(Options()), **replay.options}


def change(message: MessageTold) -> list[Piece]:
    """Answer what a transform changes in the payload; nothing where it changes none of it."""
    if message.before is None or message.payload is None:
        return []
    return difference(visible(message.before), visible(message.payload))


def _is_open(replay: ReplayTold, state: str) -> bool:
    return (replay.state in ENDS) is (state == "ended")


def _list_path(state: str, older: int = 0) -> str:
    said = {"state": state, "older": older}
    query = urlencode({name: value for name, value in said.items() if value})
    return "/replays" + (f"?{query}" if query else "")


# What is asked and shown


def _plan(visit: Visit, here: Platform, given: Mapping[str, str]) -> Planned:
    """Answer the plan, and what helps to judge it. Raises `Wrong`.

    A range that is open at its end is closed here: what comes in until somebody says yes is not
    what they said yes to. A continuous replay takes just that, and has no end.
    """
    now = here.clock()
    until = "" if given["continuous"] else rfc3339(moment(now))
    closed = {**given, "until": given["until"] or until}
    wanted = asked(ReplayAsked, values_of(closed, now))
    plan = _told_at_fields(lambda: replays.plan_replay(wanted, visit.caller, here))
    messages = _messages(visit, here, wanted) if plan.count or wanted.continuous else []
    return Planned(
        asked=wanted,
        plan=plan,
        # No search knows which events are missing.
        keys=_keys(visit, here, wanted) if plan.count and not wanted.missing else None,
        messages=messages,
        changes=[change(one) for one in messages or ()],
        kept={**given, **_resolved(wanted)},
        confirm=plan.to_send > here.confirm_above and not wanted.dry_run,
    )


def _resolved(wanted: ReplayAsked) -> dict[str, str]:
    """Answer the times of a plan as they are now: ``now-1h`` means another one in a minute."""
    found = {"since": wanted.since, "until": wanted.until}
    return {name: rfc3339(at) for name, at in found.items() if at is not None}


def _keys(visit: Visit, here: Platform, wanted: ReplayAsked) -> FacetTold | None:
    looked = LookedForFacets(
        query=wanted.query,
        since=wanted.since,
        until=wanted.until,
        view=wanted.view,
        duplicates=wanted.duplicates,
        closed=True,
        fields=["key"],
        most=5,
    )
    try:
        return facets(wanted.collection, looked, visit.caller, here).facets[0]
    except (Unavailable, Rejected) as error:
        log.warning("keys of a plan are not counted", reason=type(error).__name__)
        return None


def _messages(visit: Visit, here: Platform, wanted: ReplayAsked) -> list[MessageTold] | None:
    try:
        return replays.preview_replay(wanted, visit.caller, here)
    except (Unavailable, Rejected) as error:
        log.warning("events of a plan are not shown", reason=type(error).__name__)
        return None


def _told_at_fields(do: Callable[[], _T]) -> _T:
    """Answer what is done; turn what the API has against a field into `Wrong`."""
    try:
        return do()
    except Rejected as error:
        raise Wrong(wrong_at(error, _SAID)) from error


def _saved(visit: Visit, here: Platform, name: str) -> dict[str, str]:
    found = show_search(name, visit.caller, here)
    return {
        "collection": found.collection,
        "query": found.query,
        "since": found.since or "",
        "until": found.until or "",
        "view": found.view,
        "duplicates": found.duplicates,
    }


def _form(
    visit: Visit,
    here: Platform,
    given: Mapping[str, str],
    *,
    planned: Planned | None = None,
    wrong: Mapping[str, str] | None = None,
    saved: str = "",
    status: int = 200,
) -> Response:
    names = [one.name for one in list_collections(visit.caller, here)]
    goes_to = list_destinations(visit.caller, here)
    choices = {
        "collections": _first_of("a collection", given["collection"], [(n, n) for n in names]),
        "destinations": _first_of(
            "a destination",
            given["destination"],
            [(d.name, f"{d.name} ({d.kind})") for d in goes_to],
        ),
        **_CHOICES,
    }
    return visit.show(
        "replay_new.html",
        status=status,
        given=given,
        choices=choices,
        more=any(given[name] not in ("", default) for name, default in _MORE.items())
        or any(name in _MORE for name in wrong or {}),
        planned=planned,
        wrong=wrong or {},
        saved=saved,
        confirm=visit.form.text("confirm"),
        file={name: visit.form.text(name) for name in ("plan", "plan_why", "sends")},
        # Once it is a destination, it is the one that is chosen.
        address=visit.form.text("address") if "address" in (wrong or {}) else "",
        searches=list_searches(visit.caller, here),
        collections=names,
        destinations=goes_to,
        creating=CREATING,
    )


def _first_of(what: str, chosen: str, choices: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Answer the choices; before them that none was made, if so."""
    known = chosen in {value for value, _ in choices}
    return choices if known or len(choices) == 1 else [("", f"Choose {what}"), *choices]


def _steered(visit: Visit, here: Platform, replay: ReplayTold, said: str = "") -> Response:
    if not is_htmx(visit.request):
        return visit.go(f"/replays/{replay.id}")
    return _show(visit, here, replay, said=said)


def _show(
    visit: Visit,
    here: Platform,
    replay: ReplayTold,
    *,
    question: Question | None = None,
    wrong: Mapping[str, str] | None = None,
    said: str = "",
    status: int = 200,
) -> Response:
    ended = replay.state in ENDS
    options = options_of(replay)
    books: ReplayBooks | None = None
    if replay.plan is not None:
        books = replays.report_replay(replay.id, visit.caller, here)
    course = replays.show_course(replay.id, visit.caller, here)
    starts, delivered, failed = rates(course)
    answer = visit.show(
        "replay.html",
        status=status,
        replay=replay,
        ended=ended,
        books=books,
        bar=bar(replay),
        options=options,
        retries=to_retry(replay),
        question=question,
        done=done(replay),
        file=replays.file_of(here, replay.id),
        speed=speed(course, books.waiting if books else 0),
        starts=starts,
        delivered=delivered,
        failed=failed,
        # A search of the ledger is too much for every second.
        failures=None if _asks_for(visit, "live") else _failures(visit, here, replay),
        wrong=wrong or {},
        form=visit.form if wrong else Form({}),
        said=said,
        again=again(replay),
    )
    if ended and question is None and is_htmx(visit.request):
        # What can be done has changed with the end, outside of the part too.
        answer.headers["HX-Refresh"] = "true"
    return answer


def _asks_for(visit: Visit, part: str) -> bool:
    return is_htmx(visit.request) and visit.request.headers.get("hx-target") == part


def _failures(visit: Visit, here: Platform, replay: ReplayTold) -> FailuresTold | None:
    """Answer why events failed; None where the ledger cannot be read just now."""
    try:
        return replays.show_failures(replay.id, visit.caller, here)
    except Unavailable as error:
        log.warning("failures cannot be read", replay=replay.id, reason=str(error))
        return None
