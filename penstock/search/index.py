"""An index beside the lake: what it promises, and how far it has come.

An index is a copy that lags, may be lost and can be made again from the lake. It holds terms and
places, no events: who finds something in it reads the event where it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from penstock.envelope import CollectionId, Micros
from penstock.errors import BadSetting
from penstock.query.elastic import Dsl
from penstock.search import Place
from penstock.settings import Settings

FORMAT = 1
"""How documents are written. An index of another format is made again."""

Role = Literal["used", "coming"]
"""The index of a collection that searches use, or the one that is being made to replace it."""

_DAY: Micros = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()

FIRST_DAY: Micros = (1 - _EPOCH) * _DAY
"""The beginning of the year 1: no event was received before."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How far an index is: it has every row of the table that lies before `marks`, searchable.

    But for those that were received before `since`.
    """

    generation: str
    """Which set of indices: one that is made again is another one, beside the old."""
    log_id: str
    table: str
    """The id of the table whose rows it has."""
    marks: dict[int, int]
    """By partition of the log the offset before which every row is in it."""
    days: dict[str, str]
    """The indices it consists of, by the name of each its unique id."""
    since: Micros = FIRST_DAY
    format: int = FORMAT

    def next(self, partition: int) -> int:
        """Answer where this log partition goes on."""
        return self.marks.get(partition, 0)


class Known(NamedTuple):
    """A state as it was read; it can be replaced while it still is the one."""

    state: State
    version: tuple[int, int]


class Moved(Exception):
    """Somebody else has written the state meanwhile."""


class Gone(Exception):
    """An index that the state names is not there (any more)."""


class Unanswerable(Exception):
    """The engine does not answer this question, however often it is asked."""


class Row(NamedTuple):
    """A document, and the index that it is for."""

    into: str
    id: str
    place: Place
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which documents of which indices, in the order of their places."""

    indices: Sequence[str]
    query: Dsl
    descending: bool = True
    after: Place | None = None
    size: int = 0


class Index(Protocol):
    """Indices of all collections on one engine. Threads may share it.

    Every call raises `EngineUnavailable` if the engine does not answer in time, and `Gone` if an
    index that it names is not there.
    """

    def state(self, collection: CollectionId, role: Role = "used") -> Known | None:
        """Answer how far the index is, as it was written last."""
        ...

    def write(
        self, collection: CollectionId, state: State, before: Known | None, role: Role = "used"
    ) -> Known:
        """Write a state in place of the one before; raise `Moved` if that is not there any more."""
        ...

    def forget(self, collection: CollectionId, before: Known, role: Role) -> None:
        """Take a state away; raise `Moved` if it is not the one."""
        ...

    def name(self, collection: CollectionId, generation: str, at: Micros) -> str:
        """Answer which index the rows received at this time are for."""
        ...

    def create(self, name: str) -> None:
        """Make an index unless it is there."""
        ...

    def ids(self, collection: CollectionId, generation: str = "*") -> Mapping[str, str]:
        """Answer the indices of a collection that there are, with their unique ids."""
        ...

    def drop(self, names: Sequence[str]) -> None:
        """Delete indices; what is not there is no error."""
        ...

    def add(self, rows: Sequence[Row]) -> int:
        """Store documents; those that are there already stay.

        Answers how many the engine refused: in place of each stands a document without terms that
        every search has to look up. After a failure some are stored.
        """
        ...

    def refresh(self, names: Sequence[str]) -> None:
        """Make everything that was added to these indices searchable."""
        ...

    def merge(self, names: Sequence[str]) -> int:
        """Put each of these indices together where its documents lie apart; answer how many did.

        What is searched stays the same: it is smaller, and found sooner. To be called for indices
        that hardly anything is added to any more. Indices that are not there are left out.
        """
        ...

    def places(self, questions: Sequence[Question]) -> list[list[Place]]:
        """Answer the first places of each question.

        Raises `Unanswerable` for a query that the engine refuses, as do the next three.
        """
        ...

    def count(self, question: Question) -> int:
        """Answer how many documents there are."""
        ...

    def parts(self, question: Question, of: Sequence[Dsl]) -> list[int]:
        """Answer how many documents each of these queries finds among those of the question."""
        ...

    def bars(self, question: Question, step: Micros) -> dict[int, int]:
        """Answer how many documents there are in each step of time that has any."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def lie_apart(segments: Sequence[int]) -> bool:
    """Say whether to merge an index with segments of so many documents.

    A tenth of them may lie beside the largest segment: what comes in late has to be so much before
    all is written again.
    """
    return 10 * (sum(segments) - max(segments, default=0)) > sum(segments)


def day_of(at: Micros) -> str:
    """Answer the day of a time, as it stands in the name of an index."""
    return date.fromordinal(at // _DAY + _EPOCH).strftime("%Y.%m.%d").rjust(10, "0")


def last_moment(name: str) -> Micros:
    """Answer when the day of an index ends, by its name."""
    year, month, day = name.split("-")[-2].split(".")
    return (date(int(year), int(month), int(day)).toordinal() - _EPOCH + 1) * _DAY


def open_index(settings: Settings) -> Index | None:
    """Open the index that the settings name, None if they name none.

    Raises `BadSetting` for an address of a kind that is not known. The engine need not answer.
    """
    if not settings.search_url:
        return None
    scheme = urlsplit(settings.search_url).scheme
    match scheme.removesuffix("+https"):
        case "elasticsearch" | "opensearch":
            try:
                from penstock.search.elastic import ElasticIndex
            except ImportError as error:
                raise BadSetting(
                    "search_url needs the Elasticsearch client: pip install 'penstock[elastic]'"
                ) from error
            return ElasticIndex(
                settings.search_url,
                user=settings.search_user,
                password=settings.search_password.get_secret_value(),
                api_key=settings.search_api_key.get_secret_value(),
                ca_file=settings.search_ca_file,
                replicas=settings.search_replicas,
            )
    raise BadSetting(
        f"search_url starts with {scheme!r}; use elasticsearch://host:9200 or "
        "opensearch://host:9200, either with +https"
    )
