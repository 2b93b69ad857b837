"""Plans that are kept in files: to be read, agreed on, and started as they are.

A file holds the request, the plan, and where its events are read. Nothing else is kept of it but
pins, which end by themselves. Its digest is over all of that, so that what was agreed on is what is
started; it is no signature: who may replay may also make a plan of their own.

A destination goes by its name; the file says what that stood for, so that one that was made anew
elsewhere is not taken for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from lakehouse.pins import pin_until
from penstock.envelope import Clock, Micros
from penstock.errors import BadRequest, Stopped, WrongState, about
from penstock.metadata.records import Destination, ListedDestination, ReplayRecord
from penstock.metadata.store import Store
from replay.beforehand import check
from replay.plan import Plan, Planner, read_plan
from replay.request import (
    ReplayRequest,
    about_options,
    read_request,
    read_time,
    record_of,
    rfc3339,
)

Format = Literal["penstock-plan-1"]
_FORMAT: Format = "penstock-plan-1"
_PIN = "penstock-plan-"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Format
    id: str
    planned_at: str
    planned_by: str | None
    kept_until: str
    request: dict[str, Any]
    to: dict[str, Any] | None = None
    plan: dict[str, Any]
    digest: str


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What a file says."""

    id: str
    until: Micros
    request: ReplayRequest
    to: dict[str, Any] | None
    """What the destination was; None in files of earlier releases, which did not say it."""
    plan: Plan


def kept_as(id: str, until: Micros) -> str:  # noqa: A002
    """Name the pins of a saved plan."""
    return pin_until(f"{_PIN}{id}", until)


def content_of(
    request: ReplayRequest,
    plan: Plan,
    to: Destination | ListedDestination,
    *,
    id: str,  # noqa: A002
    planned_by: str | None,
    until: Micros,
) -> dict[str, Any]:
    """Answer what stands in the file of a plan."""
    asked: dict[str, Any] = msgspec.to_builtins(request)
    times = {name: rfc3339(at) for name in ("since", "until") if (at := asked[name]) is not None}
    values = {
        "format": _FORMAT,
        "id": id,
        "planned_at": rfc3339(plan.now),
        "planned_by": planned_by,
        "kept_until": rfc3339(until),
        "request": asked | times,
        "to": _place(to),
        "plan": plan.as_dict(),
    }
    return {**values, "digest": digest_of(values)}


def read(values: Mapping[str, Any], *, team: str) -> SavedPlan:
    """Answer what a file says; raise `BadRequest` if that is not what was planned for the team."""
    try:
        file = msgspec.convert(dict(values), _File)
    except msgspec.ValidationError as error:
        raise BadRequest(f"this is no plan that can be read here: {error}") from error
    if file.digest != digest_of(values):
        raise BadRequest(
            "the plan was changed after it was made: its digest is another one; plan it again"
        )
    asked = dict(file.request)
    if asked.pop("team", None) != team:
        raise BadRequest("the plan is another team's")
    options = asked.pop("options", None)
    if not isinstance(options, dict):
        raise BadRequest("the plan does not say how it sends")
    with about("request"):
        request = read_request(asked | options, team=team)
    saved = SavedPlan(
        id=file.id,
        until=read_time(file.kept_until, what="kept_until"),
        request=request,
        to=file.to,
        plan=read_plan(file.plan),
    )
    if saved.plan.pin not in (None, kept_as(saved.id, saved.until)):
        raise BadRequest("the plan does not keep its own snapshot; plan it again")
    return saved


def started(
    saved: SavedPlan,
    store: Store,
    planner: Planner,
    *,
    files: Path | None,
    id: str,  # noqa: A002
    clock: Clock,
    asked_by: str | None,
    why: str | None = None,
) -> ReplayRecord:
    """Ask for a replay of exactly what was planned; answer its row, with its plan.

    Raises what `check` does, and `WrongState` if the plan is over, its destination goes elsewhere
    than it did, its snapshot is gone, or that holds another number of events.
    """
    with about("request"), about_options():
        check(saved.request, store, files)
    now = clock()
    if now >= saved.until:
        raise WrongState(f"the plan was kept until {rfc3339(saved.until)}; plan it again")
    to = store.listed_destination(saved.request.team, saved.request.destination)
    if saved.to is not None and _plain(saved.to) != _plain(_place(to)):
        raise WrongState(
            f"the destination {to.name!r} was another when this was planned; now it is "
            f"{to.kind} {to.url}: plan it again"
        ).at("to")
    try:
        planner.verify(saved.request, saved.plan)
        plan = planner.taken_over(saved.request, saved.plan, id)
    except Stopped as error:
        raise WrongState(f"the plan cannot be kept any more: {error}; plan it again") from error
    record = record_of(saved.request, id=id, now=now, asked_by=asked_by, why=why)
    record = msgspec.structs.replace(record, plan=plan.as_dict())
    store.create_replay(record)
    # Somebody who tidied up before there was the row has taken the new pins for forgotten ones.
    planner.taken_over(saved.request, saved.plan, id)
    return record


def _place(to: Destination | ListedDestination) -> dict[str, Any]:
    """Answer where a destination is, and how it is spoken to there, without credentials."""
    return {"kind": to.kind, "url": to.url, "options": to.options}


def digest_of(values: Mapping[str, Any]) -> str:
    """Answer the hash of all that a file says, however it is laid out."""
    told = {name: _plain(value) for name, value in values.items() if name != "digest"}
    return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()


def _plain(value: Any) -> Any:
    """Answer a value so that 50.0 and 50 are one: tools that lay out JSON write either."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case Mapping():
            return {name: _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value
