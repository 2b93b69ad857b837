"""Events by content, their number, their number over time, and the values of their fields."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import Field

from penstock.contract.base import Asked, LongText, Time, Told, example

MOST_FACETS = 10

FieldName = Annotated[str, Field(min_length=1, max_length=1_000)]


class Looked(Asked):
    """What to look for."""

    model_config = example(query="dep_delay:>120 AND origin:JFK")

    query: LongText = Field(default="", description="Nothing finds everything.")
    since: Time | None = Field(default=None, description="Received at this time or later.")
    until: Time | None = Field(default=None, description="Received before this time.")
    view: Literal["main", "quarantine"] = "main"
    duplicates: Literal["fold", "include", "only"] = Field(
        default="fold",
        description="Leave out events that repeat others, show them too, or show them alone.",
    )
    closed: bool = Field(
        default=False,
        description="In the quarantine, show events too that were released or discarded.",
    )


class LookedForEvents(Looked):
    """What to look for, and which page of it to show."""

    model_config = example(query="dep_delay:>120 AND origin:JFK", limit=20)

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=100_000)
    order: Literal["newest", "oldest"] = "newest"


class LookedForBars(Looked):
    """What to look for, and in how many steps to count it."""

    model_config = example(query="dep_delay:>120", bars=24)

    bars: int = Field(default=60, ge=1, le=1000)


class NotText(Told):
    """Bytes that are no UTF-8 text."""

    base64: str


class Misfit(Told):
    """A leaf of the payload that has no column: its path, and its value as JSON text."""

    path: str
    value: str


class EventTold(Told):
    """An event as it was received. Bytes that are no UTF-8 text are in the `…_base64` fields."""

    event_id: str
    received_at: Time
    event_time: Time | None
    source: str
    content_type: str | None
    key: str | None
    key_base64: str | None
    headers: list[tuple[str, str | NotText]]
    metadata: dict[str, str]
    payload: str | None
    payload_base64: str | None
    log_partition: int
    log_offset: int
    duplicate_of: str | None = Field(description="The event that this one repeats.")
    misfits: list[Misfit]
    stage: str | None = Field(description="In quarantine: what could not be done with it.")
    reason: str | None
    detail: str | None
    attempts: int | None

    def payload_bytes(self) -> bytes:
        """Answer the payload as it was received."""
        if self.payload_base64 is not None:
            return base64.b64decode(self.payload_base64)
        return (self.payload or "").encode()


class PageTold(Told):
    """Some of the events found; `cursor` asks for the next ones, null where there are none."""

    events: list[EventTold]
    cursor: str | None
    unsearched: int = Field(
        description="Acknowledged events that were not looked at, because too many wait to land."
    )
    tail_rows: int = Field(description="Events looked at that have not landed yet.")
    reads_payloads: bool = Field(description="The query needs every payload, which is slow.")
    index_away: bool = Field(
        description="The search index did not answer; the lake was read instead, which is slow."
    )
    folded: int | None = Field(
        description="Events left out because they repeat others; told with the first page only."
    )
    seconds: float


class CountTold(Told):
    """How many events are found."""

    count: int
    seconds: float


class BarTold(Told):
    """The events received from `start` on, up to the next bar."""

    start: Time
    count: int


class HistogramTold(Told):
    """The events found over time; empty bars between others are there too."""

    bars: list[BarTold]
    step_seconds: float
    seconds: float


class LookedForFacets(Looked):
    """What to look for, and of which fields to count the values."""

    model_config = example(query="dep_delay:>120", fields=["carrier", "headers.x-region"], most=5)

    fields: list[FieldName] = Field(
        min_length=1, max_length=MOST_FACETS, description="Fields as a search names them."
    )
    most: int = Field(default=10, ge=1, le=1_000, description="Values to show of each.")


class FacetValueTold(Told):
    """A value of a field, and how many of the events found have it."""

    value: str = Field(description="As a search writes it, without quotes.")
    kind: Literal["text", "number"] = Field(description="What it is in the events.")
    count: int
    query: str | None = Field(
        description="The search that finds these events; null for a value longer than a search."
    )


class FacetTold(Told):
    """The most frequent values of a field; an event counts once for each value that it has."""

    field: str
    values: list[FacetValueTold]
    missing: int = Field(description="Events found that have no value of the field.")
    others: int = Field(description="How many more values there are.")


class FacetsTold(Told):
    """The facets in the order that was asked for, all of one cut, so that numbers fit together."""

    facets: list[FacetTold]
    found: int = Field(description="Events found in all.")
    seconds: float


class StatementTold(Told):
    """A search as SQL, in the dialect of the engine that `/sql` asks."""

    statement: str


class Completed(Asked):
    """A search that is being written, and where the cursor is in it."""

    model_config = example(query="carrier:U", position=9)

    query: LongText = ""
    position: int | None = Field(
        default=None, ge=0, description="Characters before the cursor; null is at the end."
    )
    view: Literal["main", "quarantine"] = "main"


class SuggestionTold(Told):
    """A text to put in, and what it is: the kind of a field or a value, or a word."""

    text: str
    kind: str
    count: int | None = Field(description="Of a value, how many of the newest events have it.")


class SuggestionsTold(Told):
    """What may stand in place of the characters from `start` to `end`, the likeliest first."""

    start: int
    end: int
    suggestions: list[SuggestionTold]
