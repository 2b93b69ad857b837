"""Collections, and what may be decided about one."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field, StrictBool

from penstock.contract.base import Asked, LongText, Time, Told, example
from penstock.contract.formats import FormatAsked, FormatTold
from penstock.vocabulary import Contract

KeepDays = Annotated[int, Field(ge=1, le=99_999, strict=True)]


class NewCollection(Asked):
    """A collection to be made."""

    model_config = example(name="flights", token=True)

    name: str
    contract: Contract = "evolve"
    format: FormatAsked | None = Field(
        default=None, description="What its payloads are; without it JSON."
    )
    notes: LongText = ""
    allow_loops: StrictBool = Field(
        default=False, description="Take events back that a replay took from this collection."
    )
    partitions: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = Field(
        default=None, description="Log partitions; without it as many as the setting says."
    )
    keep_days: KeepDays | None = Field(
        default=None, description="Days that rows are kept at the least; without it for ever."
    )
    token: StrictBool = Field(
        default=False, description="Also make an ingest token that is bound to the collection."
    )


class KeptDays(Asked):
    """How long the rows of a collection are kept."""

    model_config = example(days=90)

    days: KeepDays | None = Field(description="Whole days at the least; null is for ever.")
    dry_run: StrictBool = Field(
        default=False, description="Change nothing; answer what would be dropped."
    )


class Grown(Asked):
    """How many partitions a collection's log shall have."""

    model_config = example(partitions=4)

    partitions: Annotated[int, Field(ge=1, le=1000, strict=True)]


class LoopsAsked(Asked):
    """Whether a collection takes events back that a replay took from it."""

    model_config = example(allow=True)

    allow: StrictBool


class ContractAsked(Asked):
    """What a collection shall do with leaves that have no column."""

    model_config = example(contract="freeze")

    contract: Contract


class ContractTried(ContractAsked):
    """A contract, and the past events to try it on."""

    model_config = example(contract="quarantine", since="2026-11-22T08:30:00Z")

    since: Time | None = Field(default=None, description="Received at this time or later.")
    until: Time | None = Field(default=None, description="Received before this time.")
    sample: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None, description="Try about so many events only, spread over the time."
    )


class Collection(Told):
    """A collection."""

    name: str
    created_at: Time
    paused: bool
    contract: Contract
    format: FormatTold
    notes: str
    allow_loops: bool
    partitions: int
    keep_days: int | None


class CreatedCollection(Collection):
    """A collection just made. `token` is shown this once."""

    token: str | None


class DayDue(Told):
    """A day that is due: what its files hold, quarantine included."""

    day: date
    rows: int
    bytes: int


class Keeping(Told):
    """How long rows are kept, and what the next upkeep drops because of it.

    `pinned_by` are replays (and other names) that have pinned some of it: they keep it.
    """

    name: str
    keep_days: int | None
    days: list[DayDue]
    pinned_by: list[str]
