"""Replays: what would be sent, what was asked for, how far it is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, StrictBool

from penstock.contract.base import Asked, LongText, ShortText, Time, Told, example
from penstock.vocabulary import State, Wish


class ReplayAsked(Asked):
    """Which events go where, and how. What is left out has the default of the documentation."""

    model_config = example(collection="flights", query="origin:JFK", destination="billing")

    collection: str
    query: LongText = ""
    destination: str
    since: Time | None = Field(default=None, description="Received at this time or later.")
    until: Time | None = Field(default=None, description="Received before this time.")
    view: Literal["main", "quarantine"] = "main"
    duplicates: Literal["fold", "include"] = Field(
        default="fold", description="Leave out events that repeat others, or send them too."
    )
    order: Literal["log", "key"] = "key"
    rate: float | None = Field(default=None, description="Sends per second at most.")
    speed: float = Field(
        default=0.0, description="1: in the time it came in, 10: in a tenth. 0: as fast as it goes."
    )
    gap: float | None = Field(
        default=None, description="With a speed: the longest silence, in seconds."
    )
    timing: Literal["received", "event"] = Field(
        default="received",
        description="With a speed: by the time of receipt, or the event's own where it has one.",
    )
    concurrency: int = Field(default=32, description="Sends at the same time.")
    max_events: int | None = Field(default=None, description="Send the first so many only.")
    headers: Literal["add", "verbatim"] = "add"
    retries: int = Field(default=10, description="Attempts after the first.")
    timeout: float = Field(default=30.0, description="Seconds that one attempt may take.")
    pause_after: int | None = Field(
        default=None, description="Failed attempts in a row that pause the replay."
    )
    dry_run: StrictBool = Field(default=False, description="Do everything but send.")


class PlanEvent(Told):
    """The first or the last event of a plan."""

    event_id: str
    received_at: str
    partition: int
    offset: int


class PlanReach(Told):
    """What a plan takes from one partition of the log: `start` to `end` (exclusive)."""

    partition: int
    start: int
    end: int
    events: int


class PlanTold(Told):
    """Exactly what a replay would send, on one snapshot."""

    count: int
    bytes: int
    folded: int = Field(description="Matches that are left out because they repeat others.")
    to_send: int = Field(description="`count`, or `max_events` if that is less.")
    first: PlanEvent | None
    last: PlanEvent | None
    earliest: str | None
    latest: str | None
    spans: list[PlanReach]
    estimated_seconds: float
    warnings: list[str]
    snapshot_id: str | None


class NewReplay(ReplayAsked):
    """A replay to be made."""

    model_config = example(
        collection="flights", query="origin:JFK", destination="billing", rate=500
    )

    why: ShortText | None = Field(default=None, description="What it is for, in your words.")
    confirm: int | None = Field(
        default=None,
        description="How many events you expect; asked for when a replay would send very many.",
    )


class ReplayProgress(Told):
    """How far a replay is."""

    delivered: int
    failed: int
    skipped: int
    unknown: int
    repeated: int
    attempts: int
    bytes: int
    late: int
    last_failure: str | None
    waiting: str | None


class ReplayTold(Told):
    """A replay: what was asked, what was planned, how far it is."""

    id: str
    collection: str
    query: str
    since: Time | None
    until: Time | None
    destination: str
    options: dict[str, Any]
    state: State
    wish: Wish | None
    plan: PlanTold | None
    progress: ReplayProgress
    error: str | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    run_id: str | None
    asked_by: str | None = Field(description="The token it was asked with: its name and id.")
    why: str | None


class Pace(Asked):
    """How fast a replay sends from now on. What is left out stays as it is."""

    model_config = example(rate=50, concurrency=8)

    rate: float | None = Field(default=None, description="Sends per second at most; null: no end.")
    speed: float = Field(
        default=0.0, description="Of the time they came in; 0: as fast as it goes."
    )
    gap: float | None = Field(
        default=None, description="The longest silence, in seconds; null: as long as it was."
    )
    concurrency: int = Field(default=32, description="Sends at the same time.")


class ReachedTold(Told):
    """How many events had been delivered and had failed at a time."""

    at: Time
    delivered: int
    failed: int


class FailedEvent(Told):
    """An event that failed for good, as the ledger names it."""

    event_id: str
    partition: int
    offset: int
    attempt: int
    at: str


class FailureTold(Told):
    """Why events failed, how many, and which were the last of them."""

    reason: str
    status: int | None
    events: int
    examples: list[FailedEvent]


class FailuresTold(Told):
    """Failures by reason, the most frequent first."""

    failures: list[FailureTold]
    complete: bool = Field(description="Whether all were counted: of very many, the newest are.")


class MessageTold(Told):
    """An event as a replay would send it. A header whose value is secret has none here."""

    event_id: str
    received_at: Time
    key: str | None
    key_base64: str | None
    headers: list[tuple[str, str | None]]
    payload: str | None
    payload_base64: str | None
    bytes: int = Field(description="Of the whole payload, of which very much is left out here.")


class ReplayBooks(Told):
    """The account of a replay.

    matched = delivered + failed + skipped + unknown + waiting; at the end `waiting` is 0.
    """

    matched: int
    delivered: int
    failed: int
    skipped: int
    unknown: int
    waiting: int
    repeated: int
    attempts: int
    late: int = Field(description="Sent more than 0.1 s after they were due, with a speed.")
