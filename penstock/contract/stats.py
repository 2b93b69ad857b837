"""A collection over time."""

from __future__ import annotations

from pydantic import Field

from penstock.contract.base import Time, Told


class StepTold(Told):
    """The events received from `start` on, up to the next step."""

    start: Time
    events: int = Field(description="All that have landed, those in quarantine included.")
    bytes: int = Field(description="Of their payloads.")
    quarantined: int = Field(description="Those that went to quarantine, open or closed by now.")
    duplicates: int = Field(description="Those that repeat another one.")
    lag_seconds: float | None = Field(
        description="The longest that an event waited, among the batches that landed in the step."
    )


class StatsTold(Told):
    """A collection over time; steps in which nothing happened are there too."""

    steps: list[StepTold]
    step_seconds: int
    uncounted: int = Field(description="Positions of the log that landed and are not counted yet.")
