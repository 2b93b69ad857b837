"""Quarantined events: why they are there, a repair, release, discard."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from penstock.contract.base import Asked, LongText, ShortText, Time, Told, example
from penstock.contract.search import EventTold, Misfit
from penstock.vocabulary import End

MOST_STEPS = 20
"""Steps of a repair."""

MOST_EVENTS = 500
"""Events of a page that is released or discarded."""


class StepAsked(Asked):
    """One step of a repair."""

    model_config = example(do="replace", find="NaN", put="null")

    do: Literal["bom", "latin1", "ndjson", "nan", "replace", "pattern", "payload"] = Field(
        description=(
            "`bom` drops a byte order mark, `latin1` writes Latin-1 as UTF-8, `ndjson` makes an "
            "array of lines, `nan` writes null for NaN and Infinity; `replace` and `pattern` (RE2) "
            "put `put` in place of `find`; `payload` gives a whole other payload."
        )
    )
    find: Annotated[str, Field(max_length=10_000)] | None = None
    put: Annotated[str, Field(max_length=10_000)] | None = None
    payload_base64: str | None = None


class RepairAsked(Asked):
    """What is done to an event before it is released: its content type, then step by step."""

    model_config = example(content_type="application/json", steps=[{"do": "bom"}])

    content_type: ShortText | None = None
    steps: list[StepAsked] = Field(default=[], max_length=MOST_STEPS)


class QuarantineAsked(Asked):
    """Which quarantined events are meant, and which page of them."""

    model_config = example(query="quarantine.stage:gate", since="2026-11-22T00:00:00Z")

    query: LongText = Field(default="", description="As in a search. Nothing finds everything.")
    since: Time | None = Field(default=None, description="Received at this time or later.")
    until: Time | None = Field(default=None, description="Received before this time.")
    cursor: str | None = Field(default=None, max_length=100_000)


class TryAsked(QuarantineAsked):
    """A repair to be tried on the first events."""

    model_config = example(
        query="quarantine.reason:invalid_json", repair={"steps": [{"do": "bom"}]}
    )

    repair: RepairAsked = RepairAsked()
    limit: int = Field(default=5, ge=1, le=100)


class ReleaseAsked(QuarantineAsked):
    """Events to be released, repaired or as they are."""

    model_config = example(query="quarantine.stage:wish")

    repair: RepairAsked = RepairAsked()
    release: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = Field(
        default=None, description="The id of the release; without it the first page gives it one."
    )
    limit: int = Field(default=MOST_EVENTS, ge=1, le=MOST_EVENTS)


class DiscardAsked(QuarantineAsked):
    """Events to be discarded, and why."""

    model_config = example(query="quarantine.reason:invalid_json", why="sent by a test")

    why: Annotated[str, Field(min_length=1, max_length=1_000)]
    limit: int = Field(default=MOST_EVENTS, ge=1, le=MOST_EVENTS)


class QuarantineCauseTold(Told):
    """The open events of one cause. `bars` counts them for each step from `start` on."""

    stage: str
    reason: str
    count: int
    first: Time
    last: Time
    bars: list[int]


class CausesTold(Told):
    """Why landed events are in quarantine, the most frequent cause first."""

    collection: str
    open: int
    closed: int = Field(description="Released, discarded, and copies of those.")
    start: Time | None
    step_seconds: float
    causes: list[QuarantineCauseTold]


class PlaceTold(Told):
    r"""Where a payload is wrong: a byte or a path, and what is around it, escaped as ``\xNN``."""

    byte: int | None
    path: str | None
    before: str
    after: str
    before_cut: int = Field(description="Bytes of the payload before `before`.")
    after_cut: int = Field(description="Bytes of the payload behind `after`.")


class ClosingTold(Told):
    """How a quarantined event was closed. `to_…` is where the row of a released one is."""

    state: End
    at: Time
    by: str
    why: str | None
    release: str | None
    to_partition: int | None
    to_offset: int | None


class QuarantinedTold(Told):
    """A quarantined event, where it is wrong, and what became of it; null: it is open."""

    event: EventTold
    place: PlaceTold
    closed: ClosingTold | None


class WorkTold(Told):
    """What somebody did at once: a release, or a discard with one reason."""

    state: End
    by: str
    why: str | None
    release: str | None
    count: int = Field(description="Events that it closed.")
    first: Time
    last: Time


class RepairTrialTold(Told):
    """What an event would become. `columns` and `misfits` are those of the row, if it is one."""

    event_id: str
    before: str | None = Field(description="The payload as it is.")
    before_base64: str | None
    received_at: Time
    row: bool
    stage: str | None
    reason: str | None
    detail: str | None
    content_type: str | None
    payload: str | None
    payload_base64: str | None
    columns: list[Misfit]
    misfits: list[Misfit]
    new_columns: list[str]


class TriedTold(Told):
    """A repair tried on some events; `cursor` asks for the next ones."""

    trials: list[RepairTrialTold]
    closed: int = Field(description="Events found that are closed already.")
    waiting: int = Field(description="Events found that have not landed yet.")
    cursor: str | None


class HeldTold(Told):
    """An event that stays in quarantine, and why."""

    event_id: str
    why: str


class DoneTold(Told):
    """What a page did: `done` events were sent or discarded, those in `held` were not."""

    release: str | None
    done: int
    held: list[HeldTold]
    closed: int = Field(description="Events found that were closed already, by whomever.")
    waiting: int = Field(description="Events found that have not landed yet.")
    cursor: str | None
