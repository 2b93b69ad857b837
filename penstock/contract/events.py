"""What stands about one event, and who received it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from penstock.contract.base import Time, Told

Outcome = Literal["delivered", "failed", "retry", "skipped", "unknown", "open"]


class CellTold(Told):
    """A column of a row that has a value."""

    path: str = Field(description="The column, as in `items[].price`.")
    type: str
    value: Any = Field(description="Below a list, the list of all values there.")


class MisfitTold(Told):
    """A leaf of the payload that has no column, and why, as far as that can be told now."""

    path: str
    value: str = Field(description="As JSON text.")
    why: str


class BesideTold(Told):
    """An event that stands near another one on the log, or repeats it."""

    event_id: str
    received_at: Time
    log_partition: int
    log_offset: int
    size: int = Field(description="Bytes of its payload.")
    view: Literal["main", "quarantine"]
    duplicate_of: str | None


class AroundTold(Told):
    """What stands about the newest event with an id."""

    event_id: str
    log_id: str | None
    log_partition: int
    log_offset: int
    landed: bool = Field(description="Whether it is in the lake; else it waits on the log.")
    columns: list[CellTold] | None = Field(description="Of its row; null for what is no row.")
    misfits: list[MisfitTold]
    before: list[BesideTold] = Field(description="In its partition of the log, the nearest last.")
    after: list[BesideTold] = Field(description="Likewise, the nearest first.")
    repeated_by: list[BesideTold] = Field(description="The first one first, 100 at most.")


class DeliveryTold(Told):
    """One attempt of a replay to send an event, and what came of it.

    `retry` was tried again, `skipped` was not made after all, `open` has no outcome yet, and of
    what is `unknown` nobody knows the outcome: its sender died.
    """

    replay: str
    destination: str
    who: str
    epoch: int = Field(description="Which of the replay's senders it was, counted from 1.")
    attempt: int
    outcome: Outcome
    status: int | None = Field(description="What the destination answered, if it has such numbers.")
    latency_ms: float | None
    reason: str | None
    at: Time


class DeliveriesTold(Told):
    """Every attempt of every replay to send an event, from the ledger of attempts."""

    event_id: str
    deliveries: list[DeliveryTold] = Field(description="The first one first.")
    more: bool = Field(description="Whether there are more attempts than are told.")
