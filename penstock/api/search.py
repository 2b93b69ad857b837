"""Search: events by content, their number, and their number over time."""

from __future__ import annotations

import time

from fastapi import APIRouter

from penstock.api.access import Caller, Reader
from penstock.api.collections import readable
from penstock.api.models import (
    BarTold,
    CountTold,
    EventTold,
    HistogramTold,
    Looked,
    LookedForBars,
    LookedForEvents,
    PageTold,
)
from penstock.api.platform import API, Here, Platform
from penstock.search import SearchRequest

router = APIRouter(prefix=f"{API}/collections/{{c}}", tags=["search"])

_SECOND = 1_000_000


@router.post("/search")
def search(c: str, asked: LookedForEvents, caller: Reader, here: Here) -> PageTold:
    """Find events. What was acknowledged before is found, whether or not it has landed."""
    request = SearchRequest(
        collection=readable(here, caller, c).id,
        query=asked.query,
        since=asked.since,
        until=asked.until,
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
            events=[EventTold.of(found) for found in page.events],
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
            bars=[BarTold(start=bar.start, count=bar.count) for bar in found.bars],
            step_seconds=found.step / _SECOND,
            seconds=time.perf_counter() - begun,
        )


# Senders choose ids; one may have a slash.
@router.get("/events/{event_id:path}")
def show_event(c: str, event_id: str, caller: Reader, here: Here) -> EventTold:
    """Show the newest event with this id, also one in quarantine."""
    collection = readable(here, caller, c).id
    with here.rooms.search:
        return EventTold.of(here.searcher.event(collection, event_id))


def _request(c: str, asked: Looked, caller: Caller, here: Platform) -> SearchRequest:
    return SearchRequest(
        collection=readable(here, caller, c).id,
        query=asked.query,
        since=asked.since,
        until=asked.until,
        view=asked.view,
        duplicates=asked.duplicates,
        closed=asked.closed,
    )
