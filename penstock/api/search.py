"""Search: events by content, their number, and their number over time."""

from __future__ import annotations

import time
from collections.abc import Iterable

from fastapi import APIRouter

from penstock.api.access import Caller, Reader
from penstock.api.any_id import ANY_ID
from penstock.api.collections import readable
from penstock.api.platform import API, Here, Platform
from penstock.api.values import base64_of, text_of
from penstock.contract.base import micros, moment
from penstock.contract.search import (
    BarTold,
    Completed,
    CountTold,
    EventTold,
    FacetsTold,
    FacetTold,
    FacetValueTold,
    HistogramTold,
    Looked,
    LookedForBars,
    LookedForEvents,
    LookedForFacets,
    Misfit,
    NotText,
    PageTold,
    StatementTold,
    SuggestionsTold,
    SuggestionTold,
)
from penstock.errors import BadRequest, NotFound
from penstock.query.parse import parse, read_field
from penstock.query.statement import statement as write_statement
from penstock.query.tree import Field
from penstock.query.writing import condition_text, field_text
from penstock.search import Facet, Found, SearchRequest
from penstock.search.suggest import Suggestions

router = APIRouter(prefix=f"{API}/collections/{{c}}", tags=["search"])

_SECOND = 1_000_000


@router.post("/search")
def search(c: str, asked: LookedForEvents, caller: Reader, here: Here) -> PageTold:
    """Find events. What was acknowledged before is found, whether or not it has landed."""
    request = SearchRequest(
        collection=readable(here, caller, c).id,
        query=asked.query,
        since=micros(asked.since),
        until=micros(asked.until),
        view=asked.view,
        duplicates=asked.duplicates,
        closed=asked.closed,
        newest_first=asked.order == "newest",
        limit=asked.limit,
        cursor=asked.cursor,
    )
    with here.rooms.search:
        begun = time.perf_counter()
        page = here.searcher.search(request)
        return PageTold(
            events=[event_told(found) for found in page.events],
            cursor=page.cursor,
            unsearched=page.unsearched,
            tail_rows=page.tail_rows,
            reads_payloads=page.reads_payloads,
            index_away=page.index_away,
            folded=page.folded,
            seconds=time.perf_counter() - begun,
        )


@router.post("/count")
def count(c: str, asked: Looked, caller: Reader, here: Here) -> CountTold:
    """Count events, exactly."""
    request = _request(c, asked, caller, here)
    with here.rooms.search:
        begun = time.perf_counter()
        return CountTold(count=here.searcher.count(request), seconds=time.perf_counter() - begun)


@router.post("/histogram")
def histogram(c: str, asked: LookedForBars, caller: Reader, here: Here) -> HistogramTold:
    """Count events over time."""
    request = _request(c, asked, caller, here)
    with here.rooms.search:
        begun = time.perf_counter()
        found = here.searcher.histogram(request, bars=asked.bars)
        return HistogramTold(
            bars=[BarTold(start=moment(bar.start), count=bar.count) for bar in found.bars],
            step_seconds=found.step / _SECOND,
            seconds=time.perf_counter() - begun,
        )


@router.post("/facets")
def facets(c: str, asked: LookedForFacets, caller: Reader, here: Here) -> FacetsTold:
    """Count the values of fields among the events found, exactly."""
    request = _request(c, asked, caller, here)
    fields = [read_field(text) for text in asked.fields]
    with here.rooms.search:
        begun = time.perf_counter()
        found = here.searcher.facets(request, fields, most=asked.most)
        return FacetsTold(
            facets=[_facet(*one) for one in zip(fields, found, strict=True)],
            found=found[0].found,
            seconds=time.perf_counter() - begun,
        )


@router.post("/statement")
def statement(c: str, asked: Looked, caller: Reader, here: Here) -> StatementTold:
    """Write the search as a SELECT for `/sql`, which finds what of it has landed."""
    record = readable(here, caller, c)
    if asked.view == "quarantine":
        raise BadRequest("in quarantine a search reads payloads, which no statement can")
    view = here.lake.view(record.id)
    if view is None:
        raise NotFound("table", c)
    return StatementTold(
        statement=write_statement(
            parse(asked.query, now=here.clock()),
            view.shape,
            record.id.name,
            team=None if record.id.team == caller.team else record.id.team,
            since=micros(asked.since),
            until=micros(asked.until),
            duplicates=asked.duplicates,
            dialect=here.sql.dialect,
        )
    )


@router.post("/complete")
def complete(c: str, asked: Completed, caller: Reader, here: Here) -> SuggestionsTold:
    """Answer what may stand where the cursor is in a search that is being written."""
    collection = readable(here, caller, c).id
    position = len(asked.query) if asked.position is None else asked.position
    with here.rooms.completions:
        found = here.suggesting.at(collection, asked.view, asked.query, position)
        return _suggestions(found)


@router.get(f"/events/{ANY_ID}")
def show_event(c: str, event_id: str, caller: Reader, here: Here) -> EventTold:
    """Show the newest event with this id, also one in quarantine."""
    collection = readable(here, caller, c).id
    with here.rooms.search:
        return event_told(here.searcher.event(collection, event_id))


def _facet(field: Field, facet: Facet) -> FacetTold:
    return FacetTold(
        field=field_text(field),
        values=[
            FacetValueTold(
                value=one.value,
                kind="number" if one.number else "text",
                count=one.count,
                query=condition_text(field, one.value),
            )
            for one in facet.values
        ],
        missing=facet.missing,
        others=facet.others,
    )


def _suggestions(found: Suggestions) -> SuggestionsTold:
    return SuggestionsTold(
        start=found.start,
        end=found.end,
        suggestions=[
            SuggestionTold(text=one.text, kind=one.kind, count=one.count) for one in found.offered
        ],
    )


def event_told(found: Found) -> EventTold:
    """Tell about an event."""
    key = None if found.key is None else text_of(found.key)
    payload = text_of(found.payload)
    return EventTold(
        event_id=found.event_id,
        received_at=moment(found.received_at),
        event_time=moment(found.event_time),
        source=found.source,
        content_type=found.content_type,
        key=key,
        key_base64=base64_of(found.key) if found.key is not None and key is None else None,
        headers=[(name, _text_or_not(value)) for name, value in found.headers],
        metadata=dict(found.metadata),
        payload=payload,
        payload_base64=base64_of(found.payload) if payload is None else None,
        log_partition=found.log_partition,
        log_offset=found.log_offset,
        duplicate_of=found.duplicate_of,
        misfits=misfits(found.misfits),
        stage=found.stage,
        reason=found.reason,
        detail=found.detail,
        attempts=found.attempts,
    )


def misfits(found: Iterable[tuple[str, str]]) -> list[Misfit]:
    """Tell about leaves: their paths, and their values."""
    return [Misfit(path=path, value=value) for path, value in found]


def _text_or_not(content: bytes) -> str | NotText:
    text = text_of(content)
    return NotText(base64=base64_of(content)) if text is None else text


def _request(c: str, asked: Looked, caller: Caller, here: Platform) -> SearchRequest:
    return SearchRequest(
        collection=readable(here, caller, c).id,
        query=asked.query,
        since=micros(asked.since),
        until=micros(asked.until),
        view=asked.view,
        duplicates=asked.duplicates,
        closed=asked.closed,
    )
