"""The page of a collection: its events, found, counted, and as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal, TypeVar

import structlog
from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from penstock import sse
from penstock.api import search, searches, tokens
from penstock.api.access import admitted
from penstock.api.collections import readable, show_collection
from penstock.api.platform import Doors, Here, Platform
from penstock.api.status import show_schema
from penstock.api.tail import TailAsked, tail_of
from penstock.contract.base import micros, moment
from penstock.contract.collections import Collection
from penstock.contract.search import (
    Completed,
    FacetTold,
    Looked,
    LookedForBars,
    LookedForEvents,
    LookedForFacets,
    PageTold,
)
from penstock.contract.searches import NewSavedSearch, SavedSearchTold, SearchKept
from penstock.contract.tokens import NewToken
from penstock.dashboard.access import (
    Administering,
    Reading,
    Visit,
    addresses,
    look_up,
    renderer,
    secret_of,
)
from penstock.dashboard.cells import (
    PAYLOAD,
    columns_at_first,
    facets_at_first,
    fields_of_columns,
    rows_of,
)
from penstock.dashboard.forms import Form, Wrong, asked
from penstock.dashboard.ids import in_path
from penstock.dashboard.looking import (
    ALL,
    PAGE,
    SPANS,
    Bounds,
    Looking,
    NotUsable,
    read_looking,
    stamp,
)
from penstock.dashboard.questions import Question
from penstock.dashboard.render import Shown, is_htmx
from penstock.dashboard.snippets import snippets
from penstock.envelope import Micros
from penstock.errors import (
    AlreadyExists,
    BadQuery,
    BadRequest,
    Rejected,
    Unauthorized,
    Unavailable,
)
from penstock.query.parse import LONGEST
from penstock.search.live import Page

log = structlog.get_logger()

_L = TypeVar("_L", bound=Looked)

router = APIRouter(prefix="/collections/{c}")

BARS = 80
_MOST_OFFERED = 300
_VALUES = 6
_AWAY = 503
# Clocks of doors and of the platform may differ so much; what comes twice is shown once.
_MARGIN: Micros = 5_000_000
_ENVELOPE = ("event_id", "event_time", "source", "content_type", "key", "log_offset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found; without a page `wrong` says why, or `away` who does not answer."""

    page: PageTold | None = None
    bounds: Bounds
    wrong: Mapping[str, str] = field(default_factory=dict)
    """What cannot be meant, by the name of its field."""
    pointer: str = ""
    away: str = ""
    empty: bool = False
    """Whether there is no row at all, whatever is looked for; then `held` are in quarantine."""
    held: int = 0
    elsewhere: int | None = None
    """Events that it finds in all of the time, where it finds none in its own."""


@router.get("", name="collection")
def show_events(c: str, visit: Reading, here: Here) -> Response:
    """Show events of a collection, or how to send the first one."""
    return _show(c, visit, here)


@router.get("/histogram", name="collection_histogram")
def show_histogram(c: str, visit: Reading, here: Here) -> Response:
    """Show how many events were found over time."""
    now = here.clock()
    looking, bounds = _asked(visit, now)
    found = search.histogram(
        c, _looked(LookedForBars, looking, bounds, bars=BARS), visit.caller, here
    )
    starts = [micros(bar.start) for bar in found.bars]
    step = round(found.step_seconds * 1_000_000)
    return visit.show(
        "collection_histogram.html",
        c=c,
        looking=looking,
        bars=[
            (bar, looking.address(since=stamp(start), until=stamp(start + step)))
            for bar, start in zip(found.bars, starts, strict=True)
        ],
        told={
            "starts": [start / 1_000_000 for start in starts],
            "counts": [bar.count for bar in found.bars],
            "step": found.step_seconds,
            "address": looking.address(since="SINCE", until="UNTIL"),
        },
        found=found,
        total=sum(bar.count for bar in found.bars),
    )


@router.get("/facets", name="collection_facets")
def show_facets(c: str, visit: Reading, here: Here) -> Response:
    """Show the most frequent values of fields, each with the searches for it and without it."""
    now = here.clock()
    looking, bounds = _asked(visit, now)
    known = _known(c, visit, here)
    fields = looking.facets or facets_at_first(known)
    wrong = ""
    facets = []
    try:
        found = search.facets(
            c,
            _looked(LookedForFacets, looking, bounds, fields=list(fields), most=_VALUES),
            visit.caller,
            here,
        )
        facets = found.facets
    except (BadQuery, BadRequest) as error:
        # As of a field that cannot be counted; the others can be asked for again.
        wrong = str(error)
    return visit.show(
        "collection_facets.html",
        c=c,
        looking=looking,
        wrong=wrong,
        facets=[
            (
                facet,
                looking.address(facets=tuple(f for f in fields if f != facet.field)),
                [(value, *_narrowings(looking, value.query, now)) for value in facet.values],
            )
            for facet in facets
            # Chosen by nobody, and with a value of its own in every event: of no use.
            if looking.facets or not _is_own(facet)
        ],
        fields=fields,
        known=known[:_MOST_OFFERED],
    )


@router.get("/complete", name="collection_complete")
def complete(
    c: str,
    visit: Reading,
    here: Here,
    q: Annotated[str, Query(max_length=10_000)] = "",
    at: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """Answer what may stand where the cursor is, as the API does."""
    told = search.complete(c, Completed(query=q, position=at), visit.caller, here)
    return Response(told.model_dump_json(), media_type="application/json")


@router.get("/live", name="collection_live")
def follow(
    c: str,
    visit: Reading,
    here: Here,
    last_event_id: Annotated[str | None, Header(max_length=32_000)] = None,
) -> Response:
    """Send rows of events as they are acknowledged: messages `rows`, and those of a tail."""
    now = here.clock()
    looking, bounds = _asked(visit, now)
    columns = looking.columns or columns_at_first(_known(c, visit, here))
    secret = secret_of(visit.request)

    def still() -> None:
        found = look_up(here, secret)
        if found is None:
            raise Unauthorized("nobody is signed in")
        admitted(found[1], "read", here.clock())

    duplicates: Literal["fold", "include"] = (
        "include" if looking.duplicates == "include" else "fold"
    )
    return tail_of(
        here,
        visit.caller.team,
        readable(here, visit.caller, c).id,
        TailAsked(looking.query, bounds.since, last_event_id, duplicates),
        still=still,
        write=partial(_rows_message, visit, c, columns),
    )


@router.get("/first", name="collection_first")
def show_first(c: str, visit: Reading, here: Here) -> Response:
    """Show the first events as soon as there are any; until then there is nothing to say."""
    page = search.search(c, LookedForEvents(limit=5, duplicates="include"), visit.caller, here)
    held = 0 if page.events else _held(c, visit, here)
    if not page.events and not held:
        return Response(status_code=204)
    rows = rows_of(page.events, (PAYLOAD,))
    return visit.show("collection_first.html", c=c, rows=rows, held=held)


@router.get("/statement", name="collection_statement")
def show_statement(c: str, visit: Reading, here: Here) -> Response:
    """Show the search as a statement of SQL."""
    now = here.clock()
    looking, bounds = _asked(visit, now)
    told, wrong = None, ""
    try:
        told = search.statement(c, _looked(Looked, looking, bounds), visit.caller, here)
    except Rejected as error:
        wrong = str(error)
    return visit.show(
        "collection_statement.html",
        status=422 if wrong else 200,
        c=c,
        looking=looking,
        told=told,
        wrong=wrong,
    )


@router.post("/token", name="collection_token")
def make_token(c: str, visit: Administering, here: Here, doors: Doors) -> Response:
    """Make a token that sends to this collection, and show it in the snippets, this once."""
    collection = show_collection(c, visit.caller, here)
    wanted = NewToken(name=f"ingest of {c}", scopes=["ingest"], collection=c)
    made = tokens.create_token(wanted, visit.caller, here, doors)
    return teach(collection, visit, token=made.token)


@router.post("/searches", name="collection_save_search")
def save_search(c: str, visit: Administering, here: Here) -> Response:
    """Keep what is looked for under a name."""
    form = visit.form
    looking = _looking_of(form)
    values: dict[str, object] = {
        "collection": c,
        "query": looking.query,
        "since": "" if looking.since == ALL else looking.since,
        "until": looking.until,
        "order": "oldest" if looking.oldest else "newest",
        "duplicates": looking.duplicates,
    }
    try:
        name = form.text("name")
        wanted = asked(NewSavedSearch, {**values, "name": name})
        try:
            searches.save_search(wanted, visit.caller, here)
        except AlreadyExists:
            if not form.has("replace"):
                raise Wrong(
                    {"name": f"{name!r} is taken; tick the box to put this in its place"}
                ) from None
            searches.change_search(name, asked(SearchKept, values), visit.caller, here)
    except Wrong as error:
        return _show(
            c,
            visit,
            here,
            looking=looking,
            wrong_name=error.fields.get("name") or str(next(iter(error.fields.values()))),
            status=422,
        )
    except Rejected as error:
        return _show(c, visit, here, looking=looking, wrong_name=str(error), status=422)
    return visit.go(f"/collections/{in_path(c)}{looking.address()}")


@router.post("/searches/{saved}/delete", name="collection_delete_search")
def delete_search(c: str, saved: str, visit: Administering, here: Here) -> Response:
    """Ask whether a saved search shall be forgotten; or forget it."""
    looking = _looking_of(visit.form)
    back = f"/collections/{in_path(c)}{looking.address()}"
    if visit.form.has("sure"):
        searches.delete_search(saved, visit.caller, here)
        return visit.go(back)
    known = searches.show_search(saved, visit.caller, here)
    question = Question(
        title=f"Delete the saved search {known.name}?",
        says=(
            "Its name is forgotten, for everybody in the team.",
            "Events stay, and links to the search itself go on working.",
        ),
        action=f"/collections/{in_path(c)}/searches/{in_path(saved)}/delete",
        sure="Delete it",
        danger=True,
        back=back,
        fields=looking.params(),
    )
    return _show(c, visit, here, looking=looking, question=question)


def _looking_of(form: Form) -> Looking:
    return read_looking(
        [
            (name, value)
            for name in ("q", "since", "until", "order", "dup", "col", "facet")
            for value in form.all(name)
        ]
    )


def _show(
    c: str,
    visit: Visit,
    here: Platform,
    *,
    looking: Looking | None = None,
    wrong_name: str = "",
    question: Question | None = None,
    status: int = 200,
) -> Response:
    collection = show_collection(c, visit.caller, here)
    now = here.clock()
    if looking is None:
        looking = read_looking(visit.request.query_params.multi_items())
    try:
        known = _known(c, visit, here)
    except Unavailable:
        known = []  # the search says who does not answer
    if looking.columns == columns_at_first(known):
        # A form tells every box that is ticked, also where nobody has chosen any.
        looking = replace(looking, columns=())
    columns = looking.columns or columns_at_first(known)
    found = _find(c, looking, now, visit, here)
    page, bounds = found.page, found.bounds
    if found.empty:
        return teach(collection, visit, token="", held=found.held)
    answer = visit.show(
        "collection.html",
        status=422 if found.wrong else _AWAY if found.away else status,
        away=found.away,
        c=c,
        collection=collection,
        looking=looking,
        bounds=bounds,
        spans=SPANS,
        known=known[:_MOST_OFFERED],
        envelope=_ENVELOPE,
        columns=columns,
        numbers=[field for field, kind in known if kind in ("long", "double")],
        page=page,
        rows=rows_of(page.events, columns) if page else [],
        wrong=found.wrong,
        pointer=found.pointer,
        wrong_name=wrong_name,
        question=question,
        saved=searches.list_searches(visit.caller, here, collection=c),
        saved_address=_saved_address,
        elsewhere=found.elsewhere,
        older=_older(looking, page, now),
        follow=looking.with_(since=stamp(now - _MARGIN), columns=columns).address(),
        fixed=_fixed(looking, bounds, now),
    )
    if is_htmx(visit.request) and not found.wrong and visit.request.method == "GET":
        answer.headers["HX-Push-Url"] = f"/collections/{in_path(c)}{looking.address()}"
    return answer


def _find(c: str, looking: Looking, now: Micros, visit: Visit, here: Platform) -> Found:
    """Answer what was found, or why nothing was looked for."""
    bounds = Bounds(None, None)
    try:
        bounds = looking.bounds(now)
        page = search.search(
            c,
            _looked(
                LookedForEvents,
                looking,
                bounds,
                limit=PAGE,
                cursor=looking.cursor or None,
                order="oldest" if looking.oldest else "newest",
            ),
            visit.caller,
            here,
        )
        if page.events:
            return Found(page=page, bounds=bounds)
        if _is_empty(c, visit, here):
            return Found(page=page, bounds=bounds, empty=True, held=_held(c, visit, here))
        elsewhere = _elsewhere(c, looking, visit, here)
        return Found(page=page, bounds=bounds, elsewhere=elsewhere)
    except NotUsable as error:
        return Found(bounds=bounds, wrong=error.fields)
    except BadQuery as error:
        return Found(bounds=bounds, wrong={"q": error.expected}, pointer=error.pointer())
    except BadRequest as error:
        return Found(bounds=bounds, wrong={"q": str(error)})
    except Unavailable as error:
        # What was typed stays: it is asked again once the engine answers.
        log.warning("events cannot be searched", collection=c, reason=str(error))
        return Found(bounds=bounds, away=str(error))


def _asked(visit: Visit, now: Micros) -> tuple[Looking, Bounds]:
    """Answer what a part of the page is about; raise as the API does where it cannot be."""
    looking = read_looking(visit.request.query_params.multi_items())
    try:
        return looking, looking.bounds(now)
    except NotUsable as error:
        name, said = next(iter(error.fields.items()))
        raise BadRequest(f"{name}: {said}") from None


def _looked(kind: type[_L], looking: Looking, bounds: Bounds, **more: object) -> _L:
    """Answer what is asked of the API; raise `BadQuery` for a search longer than any."""
    if len(looking.query) > LONGEST:
        raise BadQuery(looking.query, LONGEST, f"expected at most {LONGEST:,} characters")
    told = {
        "query": looking.query,
        "since": moment(bounds.since),
        "until": moment(bounds.until),
        "duplicates": looking.duplicates,
    }
    return kind.model_validate({**told, **more})


def _known(c: str, visit: Visit, here: Platform) -> list[tuple[str, str]]:
    schema = show_schema(c, visit.caller, here)
    return fields_of_columns([(column.path, column.type) for column in schema.columns])


def _is_empty(c: str, visit: Visit, here: Platform) -> bool:
    """Say whether nothing was ever found in the collection, whatever is looked for."""
    any_ = LookedForEvents(limit=1, duplicates="include")
    return not search.search(c, any_, visit.caller, here).events


def _held(c: str, visit: Visit, here: Platform) -> int:
    """Answer how many events are open in quarantine: who sent one that is no JSON waits for it."""
    return search.count(
        c, Looked(view="quarantine", duplicates="include"), visit.caller, here
    ).count


def _elsewhere(c: str, looking: Looking, visit: Visit, here: Platform) -> int | None:
    """Answer how many events the search finds in all of the time; None if that is what it was."""
    if looking.since == ALL and not looking.until:
        return None
    whole = Looked(query=looking.query, duplicates=looking.duplicates)
    return search.count(c, whole, visit.caller, here).count


def _older(looking: Looking, page: PageTold | None, now: Micros) -> str | None:
    if page is None or page.cursor is None:
        return None
    return replace(looking, cursor=page.cursor, at=looking.at or stamp(now), live=False).address()


def _fixed(looking: Looking, bounds: Bounds, now: Micros) -> Mapping[str, str]:
    """Answer the search with times that stay what they are, for what is planned or asked later."""
    told = {
        "query": looking.query,
        "since": "" if bounds.since is None else stamp(bounds.since),
        "until": stamp(now if bounds.until is None else bounds.until),
        "duplicates": looking.duplicates,
    }
    return {name: value for name, value in told.items() if value}


def _narrowings(
    looking: Looking, condition: str | None, now: Micros
) -> tuple[str | None, str | None]:
    """Answer the addresses of the search with a value, and without it."""
    if condition is None:
        return None, None
    with_it = looking.narrowed(condition, now)
    without = looking.narrowed(f"NOT {condition}", now)
    return (
        None if with_it is None else with_it.address(),
        None if without is None else without.address(),
    )


def _is_own(facet: FacetTold) -> bool:
    """Say whether every event has a value of its own, as far as is shown."""
    return facet.others > 0 and all(value.count == 1 for value in facet.values)


def _saved_address(saved: SavedSearchTold) -> str:
    """Answer the address that shows a saved search."""
    return Looking(
        query=saved.query,
        since=saved.since or ALL,
        until=saved.until or "",
        oldest=saved.order == "oldest",
        duplicates=saved.duplicates,
    ).address()


def teach(collection: Collection, visit: Visit, *, token: str, held: int = 0) -> Response:
    """Show how to send to a collection; with a token's text it stands in what is to be copied.

    `held` events came, and are in quarantine.
    """
    host = visit.request.headers.get("host", "")
    http, grpc = addresses(visit.request).doors(host)
    return visit.show(
        "collection_empty.html",
        c=collection.name,
        collection=collection,
        held=held,
        address=f"/collections/{in_path(collection.name)}",
        token=token,
        snippets=snippets(collection.name, http=http, grpc=grpc, token=token),
    )


def _rows_message(visit: Visit, c: str, columns: tuple[str, ...], page: Page) -> bytes:
    """Write the newest events of a page of a tail as rows, and how many there are beside."""
    newest = sorted(page.events, key=lambda found: found.place, reverse=True)[:PAGE]
    rows = rows_of([search.event_told(found) for found in newest], columns)
    made = renderer(visit.request).part(
        visit.request,
        Shown("collection_rows.html", {"c": c, "rows": rows}, visit=visit),
    )
    told = {
        "rows": bytes(made.body).decode(),
        "events": len(rows),
        "left_out": len(page.events) - len(rows),
    }
    return sse.write(sse.Message("rows", json.dumps(told).encode(), str(page.after)))
