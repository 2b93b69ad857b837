"""How far everything is, and whether it responds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from penstock.contract.base import Time, Told


class PartitionTold(Told):
    """One partition of the log: offsets kept, from `start` to `end` (exclusive), and the mark."""

    partition: int
    start: int
    end: int
    mark: int
    waiting: int = Field(description="Events that the table has not absorbed yet.")
    lost: int = Field(description="Events that are gone, as an operator has stated.")


class BooksTold(Told):
    """What was accepted, and what became of it: `accepted` is the sum of `parts`."""

    accepted: int
    parts: dict[str, int] = Field(
        description="Landed, duplicates, quarantined (and open), closed, waiting, and what else is."
    )
    difference: int = Field(description="Accepted events that are nowhere; 0 in sound books.")
    sentence: str


class StopTold(Told):
    """Why landing of the collection has stopped, and the command that goes on from there."""

    name: str = Field(description="The name of the error.")
    detail: str
    command: str | None = Field(description="Null where no command can help.")


class OneStatus(Told):
    """How far landing is, and what there is."""

    name: str
    paused: bool
    partitions: list[PartitionTold]
    waiting: int
    rows: int
    duplicates: int = Field(description="Rows that repeat another one.")
    quarantined: int = Field(description="Events in quarantine that are open.")
    closed: int = Field(description="Events in quarantine that were released or discarded.")
    columns: int
    snapshot_id: str | None = Field(description="Text: it is too large for JavaScript's numbers.")
    books: BooksTold
    stop: StopTold | None
    troubles: list[str] = Field(description="A sentence for each thing that needs somebody.")
    lake_lag_seconds: float | None = Field(
        description="Age of the oldest event that has not landed, 0 if all have; null: not known."
    )
    search_lag_seconds: float | None = Field(
        description="Likewise of the search index; null without one, or if it does not answer."
    )
    search_waiting: int = Field(description="Landed events that the index does not have.")
    last_event_at: Time | None = Field(description="When the newest known event was received.")


class Status(Told):
    """The whole installation, as far as this team may see it."""

    version: str
    team: str
    now: Time
    collections: list[OneStatus]
    replays: dict[str, int] = Field(description="How many of the newest replays are in each state.")


class AdapterHealth(Told):
    """Whether one store or engine responds, and how long it took to say so."""

    responds: bool
    seconds: float
    reason: str | None


class Health(Told):
    """Whether the platform can do its work, adapter by adapter."""

    status: Literal["ok", "unavailable"]
    version: str
    adapters: dict[str, AdapterHealth]
