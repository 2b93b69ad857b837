"""Quarantine: why events are there, one of them, repairs tried, released and discarded.

What goes through many events is done page by page: each answer has a form that asks for the next
page, and htmx sends it. Nothing runs on behind somebody's back, and what was done stays done.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from penstock.api import quarantine, search
from penstock.api.any_id import ANY_ID
from penstock.api.collections import show_collection
from penstock.api.platform import Here, Platform
from penstock.api.status import watched
from penstock.contract.base import moment, rfc3339
from penstock.contract.quarantine import (
    CausesTold,
    DiscardAsked,
    DoneTold,
    PlaceTold,
    QuarantineAsked,
    ReleaseAsked,
    RepairTrialTold,
    TriedTold,
    TryAsked,
)
from penstock.contract.search import EventTold, Looked, LookedForEvents, PageTold
from penstock.dashboard.access import Administering, Reading, Visit
from penstock.dashboard.difference import Piece, beginning, difference, readable
from penstock.dashboard.forms import Form, Wrong, asked, whole
from penstock.dashboard.ids import EventId, in_path
from penstock.dashboard.questions import Question
from penstock.errors import BadQuery, Rejected, Unavailable
from penstock.query.tree import Column, Quarantine
from penstock.query.writing import condition_text

router = APIRouter()

MOST_EDITED = 100_000
"""Characters of a payload that can be edited in a page; a form takes no more."""

_BARS = 40
_COLOURS = 5
_LISTED = 50
_PREVIEW = 160
_TRIED = 5
_HELD_SHOWN = 10
_MOST_COLLECTIONS = 25
_DAYS = (("", "any time"), ("1", "the last hour"), ("24", "the last day"), ("168", "the last week"))
_CHARACTER = re.compile(r"\\x[0-9a-f]{2}|\\.|.", re.DOTALL)
_HOUR = 3_600 * 1_000_000
_MICROSECOND = timedelta(microseconds=1)

TRANSFORMS = (
    ("bom", "drop a byte order mark in front"),
    ("latin1", "read as Latin-1 what is no UTF-8"),
    ("ndjson", "make one array of several lines"),
    ("nan", "write null for NaN and Infinity"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which events somebody means, as the address and the forms of the page say it."""

    query: str = ""
    since: str = ""
    until: str = ""
    hours: str = ""
    """The choice that `since` came from, for who looks at the page."""
    event: str = ""
    """The id, on the page of one event."""

    @property
    def fields(self) -> dict[str, str]:
        """What a form carries to mean the same."""
        named = {"q": self.query, "since": self.since, "until": self.until}
        named |= {"hours": self.hours, "event": self.event}
        return {name: text for name, text in named.items() if text}

    def narrowed(self, query: str) -> str:
        """Answer the query of an address that means those of the same time that a search finds."""
        return f"?{urlencode({**self.fields, 'q': query})}"

    @property
    def asked(self) -> dict[str, object]:
        """What the API is asked."""
        return {"query": self.query, "since": self.since, "until": self.until}


class Block(NamedTuple):
    """What one cause has in a step of time: a rectangle in a picture 100 high."""

    colour: int
    y: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A step of time, how many events of each cause it has, and how that is drawn."""

    start: int
    """Seconds since 1970."""
    counts: tuple[int, ...]
    blocks: tuple[Block, ...]
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A cause, as the page shows it. `query` finds its events."""

    stage: str
    reason: str
    count: int
    first: object
    last: object
    query: str
    bars: tuple[int, ...]
    colour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """An event before and after a repair."""

    told: RepairTrialTold
    changed: bool
    pieces: list[Piece]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the part `work` of a page shows: a trial, a question, or how far something is."""

    kind: Literal["trial", "ask", "going", "done", "wrong"]
    verb: Literal["release", "discard"] = "release"
    which: Which
    carried: Sequence[tuple[str, str]] = ()
    """The fields of the repair, for the form that goes on."""
    found: int = 0
    """Open events that the query finds, when it was counted first."""
    question: Question | None = None
    why: str = ""
    tried: TriedTold | None = None
    trials: Sequence[Trying] = ()
    done: int = 0
    held: int = 0
    closed: int = 0
    waiting: int = 0
    examples: Sequence[tuple[str, str]] = ()
    """Some events that were held back, and why."""
    release: str = ""
    cursor: str = ""
    error: str = ""
    pointer: str = ""
    wrong: Mapping[str, str] = field(default_factory=dict)


@router.get("/quarantine", name="quarantine")
def show_all(visit: Reading, here: Here) -> Response:
    """Show the quarantine of every collection that has one, the fullest first."""
    seen = watched(visit.caller, here)
    full = sorted(
        (one for one in seen if one.told and (one.told.quarantined or one.told.closed)),
        key=lambda one: -(one.told.quarantined if one.told else 0),
    )
    told = {
        one.name: _causes_or_none(visit, here, one.name)
        for one in full[:_MOST_COLLECTIONS]
        if one.told and one.told.quarantined
    }
    return visit.show(
        "quarantines.html",
        full=full,
        told=told,
        bars={name: bars_of(one) for name, one in told.items() if one is not None},
        causes={name: _causes(one) for name, one in told.items() if one is not None},
        away=[one.name for one in seen if one.told is None],
        holding=sum(1 for one in full if one.told and one.told.quarantined),
        open=sum(one.told.quarantined for one in seen if one.told),
        closed=sum(one.told.closed for one in seen if one.told),
        accepted=sum(one.told.books.accepted for one in seen if one.told),
        names=[one.name for one in seen],
    )


def _causes_or_none(visit: Visit, here: Platform, name: str) -> CausesTold | None:
    try:
        return quarantine.list_causes(name, visit.caller, here, bars=_BARS)
    except Unavailable:
        return None


@router.get("/collections/{c}/quarantine", name="quarantine")
def show_quarantine(
    c: str,
    visit: Reading,
    here: Here,
    q: Annotated[str, Query()] = "",
    since: Annotated[str, Query()] = "",
    until: Annotated[str, Query()] = "",
    hours: Annotated[str, Query()] = "",
    cursor: Annotated[str, Query()] = "",
) -> Response:
    """Show why events of a collection are in quarantine, and those that a search finds."""
    if hours not in dict(_DAYS):
        hours = ""
    if hours and not since:
        since = rfc3339(moment(here.clock() - int(hours) * _HOUR))
    which = Which(query=q.strip(), since=since.strip(), until=until.strip(), hours=hours)
    return _page(c, visit, here, which, cursor=cursor)


@router.get(f"/collections/{{c}}/quarantine/events/{ANY_ID}", name="quarantined")
def show_one(c: str, event_id: EventId, visit: Reading, here: Here) -> Response:
    """Show a quarantined event, where it is wrong, and how it can be repaired."""
    return _one(c, event_id, visit, here)


@router.get(f"/collections/{{c}}/quarantine/raw/{ANY_ID}", name="quarantined_raw")
def send_payload(c: str, event_id: EventId, visit: Reading, here: Here) -> Response:
    """Send the payload as it was received, as a file: no browser is to make a page of it."""
    told = quarantine.show_quarantined(c, event_id, visit.caller, here)
    return Response(
        told.event.payload_bytes(),
        headers={"Content-Disposition": 'attachment; filename="payload.bin"'},
        media_type="application/octet-stream",
    )


@router.post("/collections/{c}/quarantine/try", name="try_repair")
def try_repair(c: str, visit: Reading, here: Here) -> Response:
    """Show what the first events found would become after the repair of the form."""
    form, which = visit.form, _which(visit.form)
    try:
        carried, repair = _repair(form, c, visit, here)
        wanted = asked(TryAsked, {**which.asked, "repair": repair, "limit": _TRIED})
        tried = quarantine.try_repair(c, wanted, visit.caller, here)
        found = _count(c, which, visit, here)
    except (Wrong, Rejected) as error:
        return _told_wrong(c, visit, here, which, error)
    work = Work(
        kind="trial",
        which=which,
        carried=carried,
        found=found,
        tried=tried,
        trials=[_trying(trial) for trial in tried.trials],
    )
    return _answer(c, visit, here, work)


@router.post("/collections/{c}/quarantine/release", name="release")
def release(c: str, visit: Administering, here: Here) -> Response:
    """Ask whether the events found shall be released; once it is sure, release a page of them."""
    form, which = visit.form, _which(visit.form)
    try:
        carried, repair = _repair(form, c, visit, here)
        wanted = asked(
            ReleaseAsked,
            {
                **which.asked,
                "repair": repair,
                "release": form.text("release"),
                "cursor": form.raw("cursor"),
            },
        )
        if not form.has("sure"):
            found = _count(c, which, visit, here)
            question = _question(c, "release", which, found, repaired=bool(carried))
            work = Work(kind="ask", which=which, carried=carried, found=found, question=question)
            return _answer(c, visit, here, work)
        done = quarantine.release_events(c, wanted, visit.caller, visit.credentials, here)
    except (Wrong, Rejected) as error:
        return _told_wrong(c, visit, here, which, error)
    return _answer(c, visit, here, _went(form, "release", which, carried, done))


@router.post("/collections/{c}/quarantine/discard", name="discard")
def discard(c: str, visit: Administering, here: Here) -> Response:
    """Ask whether the events found shall be discarded; once it is sure, discard a page of them."""
    form, which = visit.form, _which(visit.form)
    why = form.text("why")
    try:
        wanted = asked(DiscardAsked, {**which.asked, "why": why, "cursor": form.raw("cursor")})
        if not form.has("sure"):
            found = _count(c, which, visit, here)
            question = _question(c, "discard", which, found, why=why)
            work = Work(kind="ask", verb="discard", which=which, found=found, question=question)
            return _answer(c, visit, here, work)
        done = quarantine.discard_events(c, wanted, visit.caller, here)
    except (Wrong, Rejected) as error:
        return _told_wrong(c, visit, here, which, error)
    return _answer(c, visit, here, _went(form, "discard", which, [], done))


def _question(
    c: str,
    verb: Literal["release", "discard"],
    which: Which,
    found: int,
    *,
    repaired: bool = False,
    why: str = "",
) -> Question:
    """Answer what is asked before events are released or discarded. Pure."""
    many = "1 event" if found == 1 else f"{found:,} events"
    does = f"{verb.capitalize()} {'the event' if which.event else many}"
    if verb == "release":
        who = "it" if which.event else "each"
        goes = f"repaired as the form says, {who} goes" if repaired else f"{who} goes"
        says = [
            f"{goes[0].upper()}{goes[1:]} to the log again and becomes a row.",
            "That is once, however often this is done. What cannot become a row stays here.",
        ]
    else:
        leaves = "It leaves" if which.event else "They leave"
        says = [
            f"{leaves} the list; rows, bytes and the reason “{why}” are kept.",
            "It cannot be undone.",
        ]
    if not which.event:
        by = f"Found by {which.query}" if which.query else "All of them: no search narrows it"
        says.append(f"{by}{f', received since {which.since}' if which.since else ''}.")
    here = f"/collections/{in_path(c)}/quarantine"
    return Question(
        title=f"{does}?",
        says=tuple(says),
        action=f"{here}/{verb}",
        sure=does,
        back=f"{here}/events/{in_path(which.event)}" if which.event else here,
        fields=[("why", why)] if why else [],
        danger=verb == "discard",
    )


def _which(form: Form) -> Which:
    return Which(
        query=form.text("q"),
        since=form.text("since"),
        until=form.text("until"),
        hours=form.text("hours"),
        event=form.raw("event"),
    )


def repair_of(
    form: Form, payload: bytes | None = None
) -> tuple[list[tuple[str, str]], dict[str, object]]:
    """Answer the repair of a form: the fields that say it, and what the API is asked.

    The text of a payload counts only where it is not `payload` as a page shows it: a field of text
    keeps neither every byte nor the ends of lines.
    """
    carried: list[tuple[str, str]] = []
    steps: list[dict[str, str]] = []
    text = form.raw("payload")
    if form.has("payload") and payload is not None and text != _editable(payload):
        carried.append(("payload", text))
        encoded = base64.b64encode(text.encode()).decode()
        steps.append({"do": "payload", "payload_base64": encoded})
    for name in form.all("transform"):
        carried.append(("transform", name))
        steps.append({"do": name})
    pairs = zip(form.all("how"), form.all("find"), form.all("put"), strict=False)
    for how, find, put in pairs:
        if find:
            carried += [("how", how), ("find", find), ("put", put)]
            steps.append({"do": how, "find": find, "put": put})
    repair: dict[str, object] = {"steps": steps}
    if form.text("content_type"):
        carried.append(("content_type", form.text("content_type")))
        repair["content_type"] = form.text("content_type")
    return carried, repair


def _repair(
    form: Form, c: str, visit: Visit, here: Platform
) -> tuple[list[tuple[str, str]], dict[str, object]]:
    event_id = form.raw("event")
    if not event_id or not form.has("payload"):
        return repair_of(form)
    told = quarantine.show_quarantined(c, event_id, visit.caller, here)
    return repair_of(form, told.event.payload_bytes())


def _editable(payload: bytes) -> str | None:
    """Answer the payload as a field of text shows and sends it; None where it cannot."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    if len(text) > MOST_EDITED or "\0" in text:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _went(
    form: Form,
    verb: Literal["release", "discard"],
    which: Which,
    carried: Sequence[tuple[str, str]],
    done: DoneTold,
) -> Work:
    """Add what a page of work did to what the form says was done before."""
    before = list(zip(form.all("held_id"), form.all("held_why"), strict=False))
    examples = [*before, *((one.event_id, one.why) for one in done.held)][:_HELD_SHOWN]
    return Work(
        kind="done" if done.cursor is None else "going",
        verb=verb,
        which=which,
        carried=carried,
        found=_number(form, "found"),
        why=form.text("why"),
        done=_number(form, "done") + done.done,
        held=_number(form, "held") + len(done.held),
        closed=_number(form, "closed") + done.closed,
        waiting=_number(form, "waiting") + done.waiting,
        examples=examples,
        release=done.release or "",
        cursor=done.cursor or "",
    )


def _number(form: Form, name: str) -> int:
    number = whole(form.text(name))
    return number if isinstance(number, int) else 0


def _count(c: str, which: Which, visit: Visit, here: Platform) -> int:
    wanted = asked(Looked, {**which.asked, "view": "quarantine", "duplicates": "include"})
    return search.count(c, wanted, visit.caller, here).count


def _trying(trial: RepairTrialTold) -> Trying:
    before = _bytes(trial.before, trial.before_base64)
    after = _bytes(trial.payload, trial.payload_base64)
    return Trying(
        told=trial,
        changed=before != after,
        pieces=difference(readable(before), readable(after)),
    )


def _bytes(text: str | None, packed: str | None) -> bytes:
    return base64.b64decode(packed) if packed is not None else (text or "").encode()


def _told_wrong(
    c: str, visit: Visit, here: Platform, which: Which, error: Wrong | Rejected
) -> Response:
    """Answer what is wrong with a form, in the place of what it asked for."""
    wrong = error.fields if isinstance(error, Wrong) else {}
    if "why" in wrong and not visit.form.text("why"):
        wrong = {**wrong, "why": "Say why: it is kept with the events, and who did it."}
    said = "" if isinstance(error, Wrong) else str(error)
    pointer = error.pointer() if isinstance(error, BadQuery) else ""
    work = Work(kind="wrong", which=which, error=said, pointer=pointer, wrong=wrong)
    return _answer(c, visit, here, work, status=422)


def _answer(c: str, visit: Visit, here: Platform, work: Work, *, status: int = 200) -> Response:
    if work.which.event:
        return _one(c, work.which.event, visit, here, work=work, status=status)
    return _page(c, visit, here, work.which, work=work, status=status)


def _page(
    c: str,
    visit: Visit,
    here: Platform,
    which: Which,
    *,
    work: Work | None = None,
    cursor: str = "",
    status: int = 200,
) -> Response:
    values: dict[str, object] = {
        "c": show_collection(c, visit.caller, here).name,
        "which": which,
        "work": work,
        "form": visit.form,
        "transforms": TRANSFORMS,
        "days": _DAYS,
        "here_path": f"/collections/{in_path(c)}/quarantine",
    }
    if _is_part(visit, "work"):
        return visit.show("quarantine.html", status=status, **values)
    try:
        told = None if _is_part(visit, "found") else _told(c, visit, here, which)
        page = None if _is_part(visit, "live") else _found(c, visit, here, which, cursor)
        error: Rejected | None = None
    except Wrong as wrong:
        told = page = None
        error, status = Rejected("; ".join(wrong.fields.values())), 422
    except Rejected as wrong:
        told = page = None
        error, status = wrong, 422
    causes = _causes(told) if told else []
    return visit.show(
        "quarantine.html",
        status=status,
        **values,
        told=told,
        causes=causes,
        bars=bars_of(told) if told else [],
        page=page,
        events=[_listed(event) for event in page.events] if page else [],
        works=[] if page is None else quarantine.list_works(c, visit.caller, here, limit=20),
        error=error,
        pointer=error.pointer() if isinstance(error, BadQuery) else "",
        newest=f"?{urlencode(which.fields)}" if cursor else None,
        older=f"?{urlencode({**which.fields, 'cursor': page.cursor})}"
        if page and page.cursor
        else None,
        address=f"?{urlencode({**which.fields, **({'cursor': cursor} if cursor else {})})}",
    )


def _told(c: str, visit: Visit, here: Platform, which: Which) -> CausesTold:
    given = asked(QuarantineAsked, {"since": which.since, "until": which.until})
    return quarantine.list_causes(
        c, visit.caller, here, since=given.since, until=given.until, bars=_BARS
    )


def _found(c: str, visit: Visit, here: Platform, which: Which, cursor: str) -> PageTold:
    paging = {"duplicates": "include", "limit": _LISTED, "cursor": cursor}
    wanted = asked(LookedForEvents, {**which.asked, "view": "quarantine", **paging})
    return search.search(c, wanted, visit.caller, here)


def _one(
    c: str,
    event_id: str,
    visit: Visit,
    here: Platform,
    *,
    work: Work | None = None,
    status: int = 200,
) -> Response:
    told = quarantine.show_quarantined(c, event_id, visit.caller, here)
    payload = told.event.payload_bytes()
    text = _editable(payload)
    return visit.show(
        "quarantined.html",
        status=status,
        c=show_collection(c, visit.caller, here).name,
        told=told,
        event=told.event,
        which=_alone(told.event),
        place=_pointed(told.place),
        size=len(payload),
        text=text,
        changes_lines=text is not None and b"\r" in payload,
        shown=beginning(payload, _SHOWN),
        whole=len(payload) <= _SHOWN,
        work=work,
        form=visit.form,
        transforms=TRANSFORMS,
        here_path=f"/collections/{in_path(c)}/quarantine",
    )


_SHOWN = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointed:
    """Where a payload is wrong: what is before, the one character that is, and what is behind."""

    where: str
    before: str
    at: str
    after: str
    before_cut: int
    after_cut: int


def _pointed(place: PlaceTold) -> Pointed | None:
    """Answer the place as the page marks it; None where the reason has none."""
    if place.byte is None and place.path is None:
        return None
    found = _CHARACTER.match(place.after)
    at = found[0] if found and place.byte is not None else ""
    where = (
        f"byte {place.byte:,}" if place.byte is not None else f"the path {place.path or '(top)'}"
    )
    return Pointed(
        where=where,
        before=place.before,
        at=at,
        after=place.after[len(at) :],
        before_cut=place.before_cut,
        after_cut=place.after_cut,
    )


def _alone(event: EventTold) -> Which:
    """Answer what means this one event: ids that differ in case, or came twice, are others."""
    return Which(
        query=condition_text(Column("event_id"), event.event_id) or "",
        since=rfc3339(event.received_at),
        until=rfc3339(event.received_at + _MICROSECOND),
        event=event.event_id,
    )


def _causes(told: CausesTold) -> list[Cause]:
    return [
        Cause(
            stage=one.stage,
            reason=one.reason,
            count=one.count,
            first=one.first,
            last=one.last,
            query=_of_cause(one.stage, one.reason),
            bars=tuple(one.bars),
            colour=min(number, _COLOURS),
        )
        for number, one in enumerate(told.causes)
    ]


def _of_cause(stage: str, reason: str) -> str:
    texts = [
        condition_text(Quarantine("stage"), stage),
        condition_text(Quarantine("reason"), reason),
    ]
    return " AND ".join(text for text in texts if text)


def bars_of(told: CausesTold) -> list[Bar]:
    """Answer the causes' bars by time, one cause upon the other; those beyond the colours are one.

    The highest fills the picture, and what there is one of is still seen.
    """
    if told.start is None or not told.causes:
        return []
    colours = min(len(told.causes), _COLOURS + 1)
    names = [f"{cause.stage}: {cause.reason}" for cause in told.causes[:_COLOURS]] + [
        "other causes"
    ]
    steps = [[0] * colours for _ in told.causes[0].bars]
    for place, cause in enumerate(told.causes):
        for step, count in zip(steps, cause.bars, strict=True):
            step[min(place, _COLOURS)] += count
    most = max(map(sum, steps))
    start = int(told.start.timestamp())
    bars = []
    for number, counts in enumerate(steps):
        blocks, y = [], 100.0
        for colour, count in enumerate(counts):
            if count:
                height = max(count * 90 / most, 2)
                y -= height
                blocks.append(Block(colour, round(y, 2), round(height, 2)))
        at = start + int(number * told.step_seconds)
        parts = ", ".join(
            f"{count:,} {names[place]}" for place, count in enumerate(counts) if count
        )
        said = f"{moment(at * 1_000_000):%Y-%m-%d %H:%M}: {parts or 'none'}"
        bars.append(Bar(start=at, counts=tuple(counts), blocks=tuple(blocks), said=said))
    return bars


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A line of the list."""

    event: EventTold
    preview: str


def _listed(event: EventTold) -> Listed:
    text = beginning(event.payload_bytes(), _PREVIEW)
    return Listed(event=event, preview=" ".join(text.split()))


def _is_part(visit: Visit, name: str) -> bool:
    """Say whether htmx wants this part alone: the others need not be asked for."""
    headers = visit.request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-target") == name
