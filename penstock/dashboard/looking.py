"""What the address of a collection's page says: what is looked for, and how it is shown. Pure.

Everything is in the address, so that a link shows the same to somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from penstock.contract.base import moment, rfc3339
from penstock.contract.search import MOST_FACETS
from penstock.envelope import Micros
from penstock.errors import BadQuery
from penstock.query import parse, times
from penstock.query.parse import LONGEST, read_field
from penstock.query.tree import And, Everything, Or
from penstock.query.writing import field_text

PAGE = 50
"""Events that one page shows."""

MOST_COLUMNS = 30
ALL = "all"
"""What `since` says where there is no bound; without `since` it is the last day."""
LAST_DAY = "now-24h"
_LONGEST_CURSOR = 100_000


class Span(NamedTuple):
    """A time range that is offered: what `since` says, and how it is called."""

    since: str
    title: str
    long: str


SPANS = (
    Span("now-15m", "15 min", "The last 15 minutes"),
    Span("now-1h", "1 h", "The last hour"),
    Span("now-6h", "6 h", "The last 6 hours"),
    Span(LAST_DAY, "24 h", "The last 24 hours"),
    Span("now-7d", "7 d", "The last 7 days"),
    Span(ALL, "all", "All of the time"),
)

Duplicates = Literal["fold", "include", "only"]


class NotUsable(Exception):
    """An address that cannot be followed: what is wrong, by the name of the field."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__("the address has parts that cannot be used")
        self.fields = fields


class Bounds(NamedTuple):
    """From when until when, None where there is no bound."""

    since: Micros | None
    until: Micros | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """What a page of a collection is to show. Times are as they were written."""

    query: str = ""
    since: str = LAST_DAY
    until: str = ""
    at: str = ""
    """What ``now`` means in the times, on every page but the first."""
    oldest: bool = False
    duplicates: Duplicates = "fold"
    columns: tuple[str, ...] = ()
    """The columns that were chosen; none are those that fit the collection."""
    facets: tuple[str, ...] = ()
    cursor: str = ""
    live: bool = False

    def params(self) -> list[tuple[str, str]]:
        """Answer what stands in the address, without what goes without saying."""
        told = [
            ("q", self.query),
            ("since", "" if self.since == LAST_DAY else self.since),
            ("until", self.until),
            ("order", "oldest" if self.oldest else ""),
            ("dup", "" if self.duplicates == "fold" else self.duplicates),
            *(("col", column) for column in self.columns),
            *(("facet", facet) for facet in self.facets),
            ("at", self.at),
            ("cursor", self.cursor),
            ("live", "1" if self.live else ""),
        ]
        return [(name, value) for name, value in told if value]

    def with_(self, **changes: Any) -> Looking:
        """Answer the same from its first page on, with these changes."""
        return replace(self, **{"cursor": "", "at": "", "live": False, **changes})

    def address(self, **changes: Any) -> str:
        """Answer the query of an address, with its question mark; `changes` as in `with_`."""
        params = (self.with_(**changes) if changes else self).params()
        return f"?{urlencode(params)}" if params else "?"

    def bounds(self, now: Micros) -> Bounds:
        """Answer the times that are meant; raise `NotUsable` where they are none."""
        wrong: dict[str, str] = {}
        if self.at:
            now = _read("at", self.at, now, wrong) or now
        since = None if self.since == ALL else _read("since", self.since, now, wrong)
        until = _read("until", self.until, now, wrong) if self.until else None
        if not wrong and since is not None and until is not None and since >= until:
            wrong["until"] = "has to be later than the beginning"
        if wrong:
            raise NotUsable(wrong)
        return Bounds(since, until)

    @property
    def can_be_live(self) -> bool:
        """Say whether new events may show up on top of it."""
        return not (self.until or self.cursor or self.oldest or self.duplicates == "only")

    def narrowed(self, condition: str, now: Micros) -> Looking | None:
        """Answer the search for what also fulfils the condition; None if it cannot be written."""
        text = also(self.query, condition, now)
        return None if text is None else self.with_(query=text)


def read_looking(params: Iterable[tuple[str, str]]) -> Looking:
    """Answer what an address asks for. What it has too much of, or cannot mean, is left out."""
    given: dict[str, list[str]] = {}
    for name, value in params:
        given.setdefault(name, []).append(value)

    def one(name: str, most: int = 100) -> str:
        return given.get(name, [""])[0].strip()[:most]

    duplicates = one("dup")
    return Looking(
        # One more than may be, so that it is refused and not cut.
        query=one("q", LONGEST + 1),
        since=one("since") or LAST_DAY,
        until=one("until"),
        at=one("at"),
        oldest=one("order") == "oldest",
        duplicates="include" if duplicates == "include" else _only(duplicates),
        columns=_fields(given.get("col", ()), MOST_COLUMNS),
        facets=_fields(given.get("facet", ()), MOST_FACETS),
        cursor=one("cursor", _LONGEST_CURSOR),
        live=one("live") == "1",
    )


def stamp(time: Micros) -> str:
    """Write a time for an address, to the microsecond."""
    return rfc3339(moment(time))


def also(query: str, condition: str, now: Micros) -> str | None:
    """Answer the search for events of `query` that fulfil a condition; None if there is none."""
    try:
        where = parse(query, now=now).where
    except BadQuery:
        return None
    parts = where.parts if isinstance(where, And) else (where,)
    if not isinstance(where, Everything):
        try:
            asked = parse(condition, now=now).where
        except BadQuery:
            return None
        if asked in parts:
            return query
    if "${" in query:
        # Batch's modifiers stand at the end.
        made = f"{condition} {query}"
        return None if isinstance(where, Or) else _readable(made, now)
    if isinstance(where, Everything):
        return condition
    return _readable(
        f"({query}) {condition}" if isinstance(where, Or) else f"{query} {condition}", now
    )


def _readable(text: str, now: Micros) -> str | None:
    try:
        parse(text, now=now)
    except BadQuery:
        return None
    return text


def _only(text: str) -> Duplicates:
    return "only" if text == "only" else "fold"


def _read(which: str, text: str, now: Micros, wrong: dict[str, str]) -> Micros | None:
    try:
        return times.moment(text, now)
    except times.NotATime:
        wrong[which] = times.EXPECTED
        return None


def _fields(texts: Sequence[str], most: int) -> tuple[str, ...]:
    """Answer the fields that the texts name, each once and as a search writes it."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[field_text(read_field(text.strip()))] = None
        except BadQuery:
            continue
    return tuple(found)[:most]
