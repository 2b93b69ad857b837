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
    transform: list[str] = Field(
        default=[],
        description="What is changed in each event on its way, a step each: mask PLACE, "
        "mask PLACE as hash, remove PLACE, rename PLACE to NAME, set PLACE = EXPRESSION.",
    )
    retries: int = Field(default=10, description="Attempts after the first.")
    timeout: float = Field(default=30.0, description="Seconds that one attempt may take.")
    pause_after: int | None = Field(
        default=None, description="Failed attempts in a row that pause the replay."
    )
    dry_run: StrictBool = Field(default=False, description="Do everything but send.")
    missing: StrictBool = Field(
        default=False,
        description="Leave out what the destination has acknowledged in any replay.",
    )
    continuous: StrictBool = Field(
        default=False,
        description="Go on with every match that lands later, until it is cancelled. It begins at "
        "`since`; without that, with what is accepted from now on.",
    )


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
    start_at: Time | None = Field(
        default=None, description="When it starts, and makes its plan. Left out: at once."
    )
    confirm: int | None = Field(
        default=None,
        description="How many events you expect; asked for when a replay would send very many.",
    )


class NewPlan(ReplayAsked):
    """A plan to be kept, to be read by others and started as it is."""

    model_config = example(
        collection="flights", query="origin:JFK", destination="billing", keep_days=7
    )

    keep_days: int = Field(
        default=7, ge=1, le=90, description="For how long what it would send is kept."
    )


class SavedPlan(Told):
    """A plan that can be started as it is: what its file holds."""

    format: str
    id: str
    planned_at: str
    planned_by: str | None = Field(description="The token it was asked with: its name and id.")
    kept_until: str
    request: dict[str, Any] = Field(description="What was asked, with every option.")
    to: dict[str, Any] | None = Field(
        default=None, description="What the destination was: kind, URL, and its options."
    )
    plan: dict[str, Any] = Field(description="What would be sent, and where it is read.")
    digest: str = Field(description="The SHA-256 of all of it; a plan that was edited is refused.")


class PlannedReplay(Asked):
    """A replay of what a saved plan says."""

    model_config = example(
        plan={
            "format": "penstock-plan-1",
            "id": "8f14e45fceea167a",
            "planned_at": "2026-11-22T08:30:00.000000Z",
            "planned_by": "ops (t1)",
            "kept_until": "2026-11-29T08:30:00.000000Z",
            "request": {"collection": "flights", "query": "origin:JFK", "destination": "billing"},
            "to": {"kind": "http", "url": "https://billing.example/events", "options": {}},
            "plan": {"count": 10},
            "digest": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        },
        why="agreed with billing",
    )

    plan: SavedPlan
    why: ShortText | None = Field(default=None, description="What it is for, in your words.")
    confirm: int | None = Field(
        default=None,
        description="How many events you expect; asked for when it would send very many.",
    )


class NewRetry(Asked):
    """A replay of what failed in one that has ended, or in a continuous one so far.

    What is left out is as it was there.
    """

    model_config = example(options={"rate": 20}, why="billing is back")

    destination: str | None = Field(default=None, description="Another one than it was.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Those that are to be others, by their names."
    )
    why: ShortText | None = Field(default=None, description="What it is for, in your words.")
    confirm: int | None = Field(
        default=None,
        description="How many events you expect; asked for when it would send very many.",
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
    differing: int
    last_failure: str | None
    waiting: str | None


class BehindTold(Told):
    """How far a continuous replay is behind what was received."""

    events: int = Field(
        description="Matches that it has found and not sent, and events it has not looked at."
    )
    seconds: float | None = Field(
        description="How long ago the first of them was received; null without one, in lists, and "
        "where the log does not know it any more."
    )


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
    behind: BehindTold | None = Field(
        default=None, description="Of a continuous replay that goes on; else null."
    )
    error: str | None
    created_at: Time
    start_at: Time | None = Field(description="When it is to start; null for at once.")
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
    before: str | None = Field(
        default=None, description="The payload as it was received, if a transform changes it."
    )
    wrong: str | None = Field(
        default=None,
        description="Why nothing of the event would be sent; then it is told as it was received.",
    )


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
    differing: int = Field(
        description="Answered in another way by the endpoint at `compare_url`, if there is one."
    )
