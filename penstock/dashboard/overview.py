"""The first page: how everything is, and what needs somebody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.collections import create_collection as made_by_api
from penstock.api.collections import list_collections, show_collection
from penstock.api.platform import Doors, Here, Platform
from penstock.api.stats import per_minute
from penstock.api.status import Watched, watched
from penstock.contract.collections import NewCollection
from penstock.dashboard.access import Administering, Reading, Visit
from penstock.dashboard.collection import teach
from penstock.dashboard.forms import Wrong, asked
from penstock.dashboard.ids import in_path
from penstock.errors import AlreadyExists, Rejected, Unavailable
from penstock.stats import MINUTE

router = APIRouter()

log = structlog.get_logger()

MINUTES = 60
_LATELY = 5
# Landing and index keep up within seconds; what waits for this long has a reason.
_LATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Something that somebody has to look at, and the command that resolves or shows it."""

    collection: str
    said: str
    command: str | None = None
    page: str | None = None
    """The route of the collection's page where it is shown and resolved."""
    bad: bool = False
    """Whether events wait or are missing because of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The whole in a few numbers. What is None is not known."""

    rate: float | None
    """Events a second over the last five whole minutes, as far as they landed."""
    minutes: list[int] | None
    """Events in each of the last whole minutes, oldest first."""
    lake_lag: float | None
    search_lag: float | None
    accepted: int
    quarantined: int
    waiting: int
    difference: int
    """Accepted events that are nowhere, over all collections without signs."""
    bytes: int

    @property
    def quarantine_share(self) -> float:
        """Which part of all accepted events is in quarantine now."""
        return self.quarantined / self.accepted if self.accepted else 0.0


@router.get("/", name="overview")
def show_overview(visit: Reading, here: Here) -> Response:
    """Show how everything is; the block ``live`` is fetched again every few seconds."""
    return _show(visit, here)


@router.post("/collections", name="create_collection")
def create_collection(visit: Administering, here: Here, doors: Doors) -> Response:
    """Make a collection and show how to send to it, with a token that does, this once.

    The name of one that is there leads to it: so does the same form sent again.
    """
    name = visit.form.text("name")
    try:
        wanted = asked(NewCollection, {"name": name, "token": True})
        made = made_by_api(wanted, visit.caller, here, doors)
    except AlreadyExists:
        return visit.go(f"/collections/{in_path(name)}")
    except Wrong as error:
        return _show(visit, here, wrong=error.fields["name"], status=422)
    except Rejected as error:
        return _show(visit, here, wrong=str(error), status=422)
    collection = show_collection(made.name, visit.caller, here)
    return teach(collection, visit, token=made.token or "")


def _show(visit: Visit, here: Platform, *, wrong: str = "", status: int = 200) -> Response:
    seen = watched(visit.caller, here)
    minutes = _minutes(visit, here, seen)
    return visit.show(
        "overview.html",
        status=status,
        seen=seen,
        minutes=minutes,
        starts=_starts(here),
        summary=summary(seen, minutes),
        indexed=here.index is not None,
        attention=attention(seen),
        paused=[c.name for c in list_collections(visit.caller, here) if c.paused],
        empty=not any(one.told and one.told.books.accepted for one in seen),
        wrong=wrong,
        name=visit.form.text("name"),
    )


def summary(seen: Sequence[Watched], minutes: Mapping[str, Sequence[int]] | None) -> Summary:
    """Add up what there is. A lag is the longest of all, and unknown as soon as one is."""
    told = [one.told for one in seen if one.told is not None]
    total = (
        None
        if minutes is None
        else [sum(column) for column in zip(*minutes.values(), strict=True)] or [0] * MINUTES
    )
    return Summary(
        rate=None if total is None else sum(total[-_LATELY:]) / (_LATELY * 60),
        minutes=total,
        lake_lag=_longest([one.lake_lag_seconds for one in told], whole=len(told) == len(seen)),
        search_lag=_longest([one.search_lag_seconds for one in told], whole=len(told) == len(seen)),
        accepted=sum(one.books.accepted for one in told),
        quarantined=sum(one.quarantined for one in told),
        waiting=sum(one.waiting for one in told),
        difference=sum(abs(one.books.difference) for one in told),
        bytes=sum(one.bytes or 0 for one in seen),
    )


def _longest(lags: Sequence[float | None], *, whole: bool) -> float | None:
    known = [lag for lag in lags if lag is not None]
    return max(known, default=0.0) if whole and len(known) == len(lags) else None


def attention(seen: Sequence[Watched]) -> list[Attention]:
    """Answer what needs somebody, the worst first."""
    found: list[Attention] = []
    for name, told, _ in seen:
        if told is None:
            found.append(
                Attention(
                    collection=name,
                    said="its log or its table does not answer",
                    command="penstock doctor",
                    bad=True,
                )
            )
            continue
        command = None if told.stop is None else told.stop.command
        found += [
            Attention(collection=name, said=said, command=command, bad=True)
            for said in told.troubles
        ]
        late = told.lake_lag_seconds or 0.0
        if late > _LATE_SECONDS and not told.troubles:
            found.append(
                Attention(
                    collection=name,
                    said=f"its oldest waiting event has not landed for {late:,.0f} s",
                    command="penstock doctor",
                )
            )
        if told.quarantined:
            found.append(
                Attention(
                    collection=name,
                    said="1 event could not become a row"
                    if told.quarantined == 1
                    else f"{told.quarantined:,} events could not become rows",
                    page="quarantine",
                )
            )
    return sorted(found, key=lambda one: not one.bad)


def _minutes(visit: Visit, here: Platform, seen: Sequence[Watched]) -> dict[str, list[int]] | None:
    try:
        return per_minute(here, visit.caller.team, [one.name for one in seen], minutes=MINUTES)
    except Unavailable as error:
        log.warning("statistics are away, the overview has no rates", reason=str(error))
        return None


def _starts(here: Platform) -> list[int]:
    """Answer when each of the minutes begins, in seconds since 1970."""
    end = here.clock() // MINUTE
    return [minute * 60 for minute in range(end - MINUTES, end)]
