"""Saved searches: keep, list, show, change, forget."""

from __future__ import annotations

from fastapi import APIRouter, Response

from penstock.api.access import Admin, Caller, Reader
from penstock.api.collections import readable
from penstock.api.platform import API, Here, Platform
from penstock.contract.base import moment
from penstock.contract.searches import NewSavedSearch, SavedSearchTold, SearchKept
from penstock.envelope import Micros, check_name
from penstock.errors import BadRequest
from penstock.metadata.records import SavedSearch
from penstock.query import parse, times

router = APIRouter(prefix=f"{API}/searches", tags=["search"])


@router.get("")
def list_searches(
    caller: Reader, here: Here, collection: str | None = None
) -> list[SavedSearchTold]:
    """List the team's saved searches by name, of one collection or of all."""
    now = here.clock()
    return [
        _told(record, now)
        for record in here.store.saved_searches(caller.team)
        if collection in (None, record.collection)
    ]


@router.post("", status_code=201)
def save_search(asked: NewSavedSearch, caller: Admin, here: Here) -> SavedSearchTold:
    """Keep a search under a new name. One that cannot be read is refused here already."""
    now = here.clock()
    record = _record(asked, asked.name, caller, here, now)
    here.store.add_saved_search(record)
    return _told(record, now)


@router.get("/{name}")
def show_search(name: str, caller: Reader, here: Here) -> SavedSearchTold:
    """Show a saved search, and what its times mean now."""
    return _told(here.store.saved_search(caller.team, name), here.clock())


@router.put("/{name}")
def change_search(name: str, asked: SearchKept, caller: Admin, here: Here) -> SavedSearchTold:
    """Put another search under the name."""
    now = here.clock()
    record = here.store.change_saved_search(_record(asked, name, caller, here, now))
    return _told(record, now)


@router.delete("/{name}", status_code=204)
def delete_search(name: str, caller: Admin, here: Here) -> Response:
    """Forget a saved search."""
    here.store.delete_saved_search(caller.team, name)
    return Response(status_code=204)


def _told(record: SavedSearch, now: Micros) -> SavedSearchTold:
    """Tell about a saved search, and what its times mean now."""
    return SavedSearchTold(
        name=record.name,
        collection=record.collection,
        query=record.query,
        since=record.since,
        until=record.until,
        since_at=moment(_read("since", record.since, now)),
        until_at=moment(_read("until", record.until, now)),
        order=record.order,
        view=record.view,
        duplicates=record.duplicates,
        closed=record.closed,
        created_at=moment(record.created_at),
        changed_at=moment(record.changed_at),
    )


def _record(
    asked: SearchKept, name: str, caller: Caller, here: Platform, now: Micros
) -> SavedSearch:
    """Answer the record of a search that can be made; raise as that search would."""
    check_name(name, what="saved search")
    readable(here, caller, asked.collection)
    parse(asked.query, now=now)
    since, until = _read("since", asked.since, now), _read("until", asked.until, now)
    if since is not None and until is not None and since >= until:
        raise BadRequest("nothing lies between these times: since is not before until")
    return SavedSearch(
        team=caller.team,
        name=name,
        collection=asked.collection,
        query=asked.query,
        since=asked.since,
        until=asked.until,
        order=asked.order,
        view=asked.view,
        duplicates=asked.duplicates,
        closed=asked.closed,
        created_at=now,
        changed_at=now,
    )


def _read(which: str, text: str | None, now: Micros) -> Micros | None:
    if text is None:
        return None
    try:
        return times.moment(text, now)
    except times.NotATime:
        raise BadRequest(f"{which}: {times.EXPECTED}") from None
