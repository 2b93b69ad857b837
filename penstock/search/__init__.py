"""Finding events by their content, the moment they are acknowledged.

Every answer is one cut through the log: all events before it, each once, and none behind it,
whether they have landed or not (`penstock.search.cut`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from penstock.envelope import CollectionId, Micros
from penstock.query.tree import Field

if TYPE_CHECKING:
    from penstock.search.around import Around

View = Literal["main", "quarantine"]
"""Which events of a collection: the rows, or those that could not become rows."""


DuplicatesShown = Literal["fold", "include", "only"]
"""Whether events that repeat others are left out, shown as well, or alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What to look for, and where; `until` is exclusive. Only `search` looks at what follows it."""

    collection: CollectionId
    query: str = ""
    since: Micros | None = None
    until: Micros | None = None
    view: View = "main"
    duplicates: DuplicatesShown = "fold"
    closed: bool = False
    """Whether the quarantine shows events too that were released or discarded."""
    newest_first: bool = True
    limit: int = 100
    cursor: str | None = None


class Place(NamedTuple):
    """Where an event stands in the order of an answer."""

    received_at: Micros
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An event as it was received, where it is on the log, and what became of it."""

    event_id: str
    received_at: Micros
    event_time: Micros | None
    source: str
    content_type: str | None
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    metadata: Mapping[str, str]
    payload: bytes
    log_partition: int
    log_offset: int
    duplicate_of: str | None = None
    misfits: tuple[tuple[str, str], ...] = ()
    """Leaves that have no column: path and JSON text."""
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    attempts: int | None = None

    @property
    def place(self) -> Place:
        """Where it stands in the order of an answer."""
        return Place(self.received_at, self.log_partition, self.log_offset)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the events found; `cursor` asks for the next ones, None where there are none."""

    events: Sequence[Found]
    cursor: str | None
    complete_up_to: Mapping[int, int] = field(default_factory=dict)
    """By partition of the log the offset before which every event was searched."""
    unsearched: int = 0
    """Events behind that, acknowledged all the same: 0 unless landing is very far behind."""
    tail_rows: int = 0
    """Events that were searched in the log, because they had not landed."""
    reads_payloads: bool = False
    """Whether payloads had to be read for the answer, which is slow."""
    index_away: bool = False
    """Whether the index did not answer, so that the lake was read instead, which is slow."""
    folded: int | None = None
    """Events left out because they repeat others; told with the first page only."""


@dataclass(frozen=True, slots=True)
class Bar:
    """How many events were received from `start` on, up to the next bar."""

    start: Micros
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Events found over time, in steps of equal length; a bar that is empty is there, too."""

    bars: Sequence[Bar]
    step: Micros


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a field as a search writes it, and how many events found have it."""

    value: str
    number: bool
    """Whether it is a number in the events; ``40`` may be a text."""
    count: int


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of a field that most of the events found have.

    Values that a search cannot tell apart are one: texts that differ in case, shown as the one
    that sorts first, and numbers that are the same double. An event with several values counts
    once for each of them.
    """

    values: Sequence[FacetValue]
    """From the most frequent on; of equally frequent ones numbers first."""
    found: int
    """Events found in all."""
    missing: int
    """Those of them that have no value of the field."""
    others: int
    """How many more values there are."""


@dataclass(frozen=True, slots=True)
class KnownField:
    """A field that events have, and of what kind it is, as `long` or `header`."""

    field: Field
    kind: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the fields of a collection without looking at every event."""

    fields: Sequence[KnownField]
    """Every column; of headers, metadata and leaves without a column those of the newest events."""
    since: Micros | None
    """When the earliest of the newest events was received; None if they are all there are."""


class Searcher(Protocol):
    """Finds events.

    Each answer holds for one cut: it has every event that was acknowledged before the request,
    and each once. Raises `BadQuery` for a text that is no search, `BadRequest` for other values
    that cannot be used and for searches that take too long, `Stopped` if log and table do not
    belong together, `Unavailable` if the stores do not answer.
    """

    def search(self, asked: SearchRequest) -> Page:
        """Answer the first events found, or those after the request's cursor.

        All pages of a cursor are of one cut. If more has not landed than can be searched, the
        page says how many events it does not cover.
        """
        ...

    def count(self, asked: SearchRequest) -> int:
        """Answer how many events are found. Modifiers of the query do not count here."""
        ...

    def histogram(self, asked: SearchRequest, *, bars: int) -> Histogram:
        """Answer the events found over time, in about `bars` steps at most."""
        ...

    def facets(self, asked: SearchRequest, fields: Sequence[Field], *, most: int) -> list[Facet]:
        """Answer for each field its `most` frequent values, counted exactly in one cut.

        Modifiers of the query do not count here.
        """
        ...

    def known(self, collection: CollectionId, view: View, *, newest: int) -> Known:
        """Answer which fields there are; of some only the `newest` events or so are looked at.

        In the quarantine, the columns are those that the collection's rows have.
        """
        ...

    def event(self, collection: CollectionId, event_id: str) -> Found:
        """Answer the newest event with this id, in quarantine or not; raise `NotFound`.

        One that repeats another is answered only where no other is left.
        """
        ...

    def around(self, collection: CollectionId, event: Found, *, most: int) -> Around:
        """Answer what stands about an event that was found, `most` neighbours on each side."""
        ...
