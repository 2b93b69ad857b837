"""Statistics of a collection: how many events came when, and how long they took to land."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from lakehouse import TableView
from penstock.api.access import Reader
from penstock.api.collections import readable
from penstock.api.platform import API, Here, Platform
from penstock.contract.base import Time, micros, moment
from penstock.contract.stats import StatsTold, StepTold
from penstock.envelope import Micros
from penstock.errors import BadRequest
from penstock.stats import MINUTE, every_step

router = APIRouter(prefix=f"{API}/collections/{{c}}", tags=["collections"])

_SECOND: Micros = 1_000_000
_DAY: Micros = 86_400 * _SECOND

# What people read easily, in minutes; about sixty of one fill a screen.
_STEPS = (1, 5, 15, 60, 180, 720, 1_440, 10_080, 40_320)
_ABOUT = 60
_MOST = 1_500


def step_for(length: Micros) -> Micros:
    """Answer the shortest of our steps of which about sixty cover the length."""
    fitting = (minutes * MINUTE for minutes in _STEPS if minutes * MINUTE * _ABOUT >= length)
    return next(fitting, _STEPS[-1] * MINUTE)


@router.get("/stats")
def show_stats(
    c: str,
    caller: Reader,
    here: Here,
    since: Annotated[
        Time | None, Query(description="Received at this time or later; else a day before.")
    ] = None,
    until: Annotated[Time | None, Query(description="Received before this time; else now.")] = None,
    step: Annotated[
        int | None, Query(ge=60, le=31_536_000, description="Seconds, whole minutes of them.")
    ] = None,
) -> StatsTold:
    """Show how many events came over time, how large they were, and how long they took to land."""
    collection = readable(here, caller, c).id
    end = here.clock() if until is None else micros(until)
    start = end - _DAY if since is None else micros(since)
    if start >= end:
        raise BadRequest("since has to be before until")
    length = step_for(end - start) if step is None else step * _SECOND
    if length % MINUTE:
        raise BadRequest("a step is made of whole minutes: use a multiple of 60 seconds")
    first = start // length * length
    if (end - first) // length >= _MOST:
        raise BadRequest(f"that is more than {_MOST:,} steps; ask for longer ones, or less time")
    books = here.stats()
    # The marks before the table: the other way round, what is counted between the two would be
    # more than has landed.
    counted = books.marks(collection)
    found = books.steps(collection, first, end, length)
    return StatsTold(
        steps=[
            StepTold(
                start=moment(one.start),
                events=one.events,
                bytes=one.bytes,
                quarantined=one.quarantined,
                duplicates=one.duplicates,
                lag_seconds=None if one.lag is None else one.lag / _SECOND,
            )
            for one in every_step(found, first, end, length)
        ],
        step_seconds=length // _SECOND,
        uncounted=_uncounted(here.lake.view(collection), counted),
    )


def per_minute(
    here: Platform, team: str, names: Sequence[str], *, minutes: int
) -> dict[str, list[int]]:
    """Answer how many events of each of the team's collections came in each of the last minutes.

    Whole ones, as far as they have landed. Raises `EngineUnavailable` while the statistics do not
    answer.
    """
    end = here.clock() // MINUTE * MINUTE
    since = end - minutes * MINUTE
    found = here.stats().arrivals(team, names, since, end)
    return {
        name: [found.get(name, {}).get(minute, 0) for minute in range(since, end, MINUTE)]
        for name in names
    }


def _uncounted(view: TableView | None, counted: Mapping[tuple[str, int], int]) -> int:
    """Answer how many log positions have landed that the statistics do not have yet."""
    marks = () if view is None else view.marks
    return sum(max(0, mark.next - counted.get((mark.log_id, mark.partition), 0)) for mark in marks)
