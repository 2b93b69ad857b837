"""What goes over the wire about quarantined events; see `penstock.api.models`."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import Field

from assets.release import MOST_EVENTS, Asked, Done, Held, Shown, Trial
from lakehouse.closings import Closing
from penstock.api.models import Asked as Body
from penstock.api.models import (
    EventTold,
    LongText,
    Misfit,
    ShortText,
    TimeIn,
    TimeOut,
    Told,
    example,
)
from penstock.api.values import base64_of, text_of
from penstock.envelope import CollectionId
from penstock.errors import BadRequest
from penstock.quarantine.causes import Cause, Causes
from penstock.quarantine.release import End
from penstock.quarantine.repair import (
    MOST_STEPS,
    Put,
    Repair,
    Step,
    replace,
    replace_pattern,
    transform,
)

_SECOND = 1_000_000


class StepAsked(Body):
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

    def step(self) -> Step:
        """Answer what it stands for; raise `BadRequest` for one that cannot be used."""
        match self.do:
            case "replace" if self.find is not None and self.put is not None:
                return replace(self.find, self.put)
            case "pattern" if self.find is not None and self.put is not None:
                return replace_pattern(self.find, self.put)
            case "payload" if self.payload_base64 is not None:
                try:
                    return Put(base64.b64decode(self.payload_base64, validate=True))
                except binascii.Error:
                    raise BadRequest("payload_base64 is no base 64") from None
            case "replace" | "pattern":
                raise BadRequest(f"the step {self.do!r} needs find and put")
            case "payload":
                raise BadRequest("the step 'payload' needs payload_base64")
            case name:
                return transform(name)


class RepairAsked(Body):
    """What is done to an event before it is released: its content type, then step by step."""

    model_config = example(content_type="application/json", steps=[{"do": "bom"}])

    content_type: ShortText | None = None
    steps: list[StepAsked] = Field(default=[], max_length=MOST_STEPS)

    def repair(self) -> Repair:
        """Answer what it stands for; raise `BadRequest` for one that cannot be used."""
        return Repair(self.content_type, tuple(step.step() for step in self.steps))


class QuarantineAsked(Body):
    """Which quarantined events are meant, and which page of them."""

    model_config = example(query="quarantine.stage:gate", since="2026-11-22T00:00:00Z")

    query: LongText = Field(default="", description="As in a search. Nothing finds everything.")
    since: TimeIn | None = Field(default=None, description="Received at this time or later.")
    until: TimeIn | None = Field(default=None, description="Received before this time.")
    cursor: str | None = Field(default=None, max_length=100_000)

    def asked(self, collection: CollectionId) -> Asked:
        """Answer it for a collection."""
        return Asked(collection=collection, query=self.query, since=self.since, until=self.until)


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
    first: TimeOut
    last: TimeOut
    bars: list[int]

    @staticmethod
    def of(cause: Cause) -> QuarantineCauseTold:
        """Tell about a cause."""
        return QuarantineCauseTold(
            stage=cause.why.stage,
            reason=cause.why.reason,
            count=cause.count,
            first=cause.first,
            last=cause.last,
            bars=list(cause.bars),
        )


class CausesTold(Told):
    """Why landed events are in quarantine, the most frequent cause first."""

    collection: str
    open: int
    closed: int = Field(description="Released, discarded, and copies of those.")
    start: TimeOut | None
    step_seconds: float
    causes: list[QuarantineCauseTold]

    @staticmethod
    def of(collection: str, causes: Causes) -> CausesTold:
        """Tell about the causes of a collection."""
        return CausesTold(
            collection=collection,
            open=causes.open,
            closed=causes.closed,
            start=causes.start if causes.causes else None,
            step_seconds=causes.step / _SECOND,
            causes=[QuarantineCauseTold.of(cause) for cause in causes.causes],
        )


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
    at: TimeOut
    by: str
    why: str | None
    release: str | None
    to_partition: int | None
    to_offset: int | None

    @staticmethod
    def of(closing: Closing) -> ClosingTold:
        """Tell about a closing."""
        return ClosingTold(
            state=closing.state,
            at=closing.closed_at,
            by=closing.closed_by,
            why=closing.why,
            release=closing.release,
            to_partition=closing.to and closing.to.partition,
            to_offset=closing.to and closing.to.offset,
        )


class QuarantinedTold(Told):
    """A quarantined event, where it is wrong, and what became of it; null: it is open."""

    event: EventTold
    place: PlaceTold
    closed: ClosingTold | None

    @staticmethod
    def of(shown: Shown) -> QuarantinedTold:
        """Tell about an event."""
        place = shown.place
        return QuarantinedTold(
            event=EventTold.of(shown.found),
            place=PlaceTold(
                byte=place.byte,
                path=place.path,
                before=place.before,
                after=place.after,
                before_cut=place.before_cut,
                after_cut=place.after_cut,
            ),
            closed=None if shown.closing is None else ClosingTold.of(shown.closing),
        )


class RepairTrialTold(Told):
    """What an event would become. `columns` and `misfits` are those of the row, if it is one."""

    event_id: str
    received_at: TimeOut
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

    @staticmethod
    def of(trial: Trial) -> RepairTrialTold:
        """Tell about a trial."""
        payload = text_of(trial.payload)
        return RepairTrialTold(
            event_id=trial.found.event_id,
            received_at=trial.found.received_at,
            row=trial.row,
            stage=trial.stage,
            reason=trial.reason,
            detail=trial.detail,
            content_type=trial.content_type,
            payload=payload,
            payload_base64=base64_of(trial.payload) if payload is None else None,
            columns=[Misfit(path=path, value=value) for path, value in trial.columns],
            misfits=[Misfit(path=path, value=value) for path, value in trial.misfits],
            new_columns=list(trial.new_columns),
        )


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

    @staticmethod
    def of(held: Held) -> HeldTold:
        """Tell about an event that was held back."""
        return HeldTold(event_id=held.event_id, why=held.why)


class DoneTold(Told):
    """What a page did: `done` events were sent or discarded, those in `held` were not."""

    release: str | None
    done: int
    held: list[HeldTold]
    closed: int = Field(description="Events found that were closed already, by whomever.")
    waiting: int = Field(description="Events found that have not landed yet.")
    cursor: str | None

    @staticmethod
    def of(done: Done, release: str | None) -> DoneTold:
        """Tell about a page."""
        return DoneTold(
            release=release,
            done=done.done,
            held=[HeldTold.of(held) for held in done.held],
            closed=done.closed,
            waiting=done.waiting,
            cursor=done.cursor,
        )
