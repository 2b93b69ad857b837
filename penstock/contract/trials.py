"""What past events would become under another contract, or in another format."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from penstock.contract.base import Told
from penstock.contract.schema import ChangeTold
from penstock.vocabulary import Contract


class CauseTold(Told):
    """Why events would not be rows with a column for each leaf."""

    outcome: Literal["misfit", "dropped", "quarantine"]
    stage: str | None = Field(description="Of quarantine.")
    reason: str
    path: str | None = Field(description="The leaf without a column, if that is the reason.")
    events: int
    examples: list[str] = Field(description="Ids of the first ones, three at most.")


class TrialTold(Told):
    """What past events would become; a line of progress until it is `done`.

    `events` is the sum of `whole`, `misfits`, `dropped` and `quarantined`.
    """

    contract: Contract
    wanted: int = Field(description="How many events there are to be tried, about.")
    events: int = Field(description="How many were tried.")
    whole: int = Field(description="Rows with a column for each leaf.")
    misfits: int = Field(description="Rows with leaves beside their columns.")
    dropped: int = Field(description="Rows with leaves that only the payload has.")
    quarantined: int
    columns: list[ChangeTold] = Field(description="The columns that would come.")
    causes: list[CauseTold] = Field(description="The most frequent first; 1,000 at most.")
    uncounted: int = Field(description="Events with a cause that is not among them.")
    done: bool
