"""From the tree of a search to queries on an index of terms (`penstock.query.tokens`).

Some conditions an index of terms cannot decide: nulls and lengths leave no term, of a long text
there is a digest only. So the answer is two queries: every document of the first one is found, and
every event found is a document of the second one. Of the documents in between, somebody has to
look at the events.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.query.text import lower
from penstock.query.tokens import (
    ANY_NUMBER,
    ANY_PATH,
    COLUMNS,
    HEADERS,
    METADATA,
    double,
    flag_term,
    name_of,
    sortable,
    text_term,
    word_term,
)
from penstock.query.tokens import below as named
from penstock.query.tree import (
    And,
    Bound,
    Column,
    Condition,
    Equals,
    Everything,
    Exists,
    Field,
    Header,
    IsNull,
    Length,
    Like,
    Metadata,
    Node,
    Not,
    NumberRange,
    Or,
    Payload,
    Quarantine,
    Query,
    TextRange,
    Time,
    TimeRange,
    Wild,
    Words,
)

Dsl = dict[str, Any]

ALL: Dsl = {"match_all": {}}
NONE: Dsl = {"match_none": {}}

# The fields of a document.
RECEIVED, EVENT_TIME, PARTITION, OFFSET = "at", "time", "partition", "offset"
TEXTS, NUMBERS, PATHS, LONG = "kv", "num", "path", "long"
WORDS, WORDS_OF = "words", "pwords"
UNREAD = "unread"

_MOST_LONG = 1 << 62


@dataclass(frozen=True, slots=True)
class Bounds:
    """A query between two: what it finds for certain, and what it may find at most."""

    certain: Dsl
    possible: Dsl

    @property
    def exact(self) -> bool:
        """Whether nothing lies in between."""
        return self.certain == self.possible


def compile_elastic(query: Query) -> Bounds:
    """Answer the queries; documents with the field `UNREAD` have no terms and are for neither."""
    return _of(query.where)


def has_value(field: Field, one: float | str) -> Dsl | None:
    """Answer the query for events that have this value of a field, a text in any case.

    None for fields of which the index has no values.
    """
    name = _text_name(field)
    if name is None:
        return None
    if not isinstance(one, str):
        return _term(NUMBERS, f"{name}={sortable(one)}") if isinstance(field, Payload) else NONE
    text = lower(one)
    found = [_term(TEXTS, text_term(name, text))]
    if isinstance(field, Payload) and text in _FLAGS:
        found.append(_term(TEXTS, flag_term(name, _FLAGS[text])))
    return any_of(found)


_FLAGS = {"true": True, "false": False}


def all_of(parts: Iterable[Dsl]) -> Dsl:
    """Answer the conjunction; of nothing it is everything."""
    kept = [part for part in parts if part != ALL]
    if NONE in kept:
        return NONE
    if len(kept) < 2:  # noqa: PLR2004 - one needs nothing around it
        return kept[0] if kept else ALL
    return {"bool": {"filter": kept}}


def any_of(parts: Iterable[Dsl]) -> Dsl:
    """Answer the disjunction; of nothing it is nothing."""
    kept = [part for part in parts if part != NONE]
    if ALL in kept:
        return ALL
    if len(kept) < 2:  # noqa: PLR2004 - likewise
        return kept[0] if kept else NONE
    return {"bool": {"should": kept, "minimum_should_match": 1}}


def negated(part: Dsl) -> Dsl:
    """Answer the plain complement."""
    if part in (ALL, NONE):
        return NONE if part == ALL else ALL
    return {"bool": {"must_not": [part]}}


def in_range(name: str, **ends: object) -> Dsl:
    """Answer the condition that a value is between `gte` or `gt` and `lte` or `lt`."""
    given = {sign: end for sign, end in ends.items() if end is not None}
    return {"range": {name: given}} if given else ALL


def _of(node: Node) -> Bounds:
    match node:
        case Everything():
            return _exactly(ALL)
        case And(parts):
            found = [_of(part) for part in parts]
            return Bounds(all_of(b.certain for b in found), all_of(b.possible for b in found))
        case Or(parts):
            found = [_of(part) for part in parts]
            return Bounds(any_of(b.certain for b in found), any_of(b.possible for b in found))
        case Not(part):
            inner = _of(part)
            return Bounds(negated(inner.possible), negated(inner.certain))
        case _:
            return _condition(node)


def _exactly(query: Dsl) -> Bounds:
    return Bounds(query, query)


def _term(field: str, value: object) -> Dsl:
    return {"term": {field: value}}


def _condition(condition: Condition) -> Bounds:
    match condition:
        case TimeRange() | Exists() | Equals() | NumberRange():
            return _exactly(_exact(condition))
        case IsNull() | Length():
            return Bounds(NONE, ALL)
        case Words(field, words, number):
            return _words(field, words, number)
        case Like(field, pattern):
            return _like(field, pattern)
        case TextRange(Payload(keys), low, high):
            name = name_of(keys)
            # A leaf counts by its beginning, in upper case and of a certain form.
            first = f"{name}=" if low is None else f"{name}={lower(low.text)}"
            last = f"{name}=~" if high is None else f"{name}={lower(high.text)}~"
            terms = in_range(TEXTS, gte=first, lte=last)
            return Bounds(NONE, any_of([terms, _term(LONG, name)]))


def _exact(condition: TimeRange | Exists | Equals | NumberRange) -> Dsl:
    match condition:
        case TimeRange(Time("received_at"), start, end):
            return in_range(RECEIVED, gte=start, lt=end)
        case TimeRange(_, start, end):
            return in_range(EVENT_TIME, gte=start, lt=end)
        case Exists(field):
            return _exists(field)
        case Equals(Column("log_partition" | "log_offset") as column, _, number):
            return NONE if number is None else _whole(column, number, number)
        case Equals(field, text, number, flag):
            return _equals(field, text, number, flag)
        case NumberRange(Column("log_partition" | "log_offset") as column, low, high):
            return _whole_range(column, low, high)
        case NumberRange(Payload(keys), low, high):
            return _number_range(name_of(keys), low, high)
        case NumberRange():
            return NONE


def _text_name(field: Field) -> str | None:
    """Answer the name of the texts of a field, None where rows have none."""
    match field:
        case Payload(keys):
            return name_of(keys)
        case Header(str(name)):
            return f"{HEADERS}{named('', name)}"
        case Metadata(str(name)):
            return f"{METADATA}{named('', name)}"
        case Column("event_id" | "source" | "content_type" | "key" as column):
            return f"{COLUMNS}.{column}"
        case _:
            return None


def _exists(field: Field) -> Dsl:
    match field:
        case Payload(()):
            return _term(PATHS, ANY_PATH)
        case Payload(keys):
            return _term(PATHS, name_of(keys))
        case Header(None):
            return _term(PATHS, HEADERS)
        case Metadata(None):
            return _term(PATHS, METADATA)
        case Column("log_partition" | "log_offset" | "event_id" | "source") | Time("received_at"):
            return ALL
        case Time():
            return {"exists": {"field": EVENT_TIME}}
        case Quarantine():
            return NONE
        case _:
            name = _text_name(field)
            return NONE if name is None else _term(PATHS, name)


def _words(field: Field | None, words: Sequence[str], number: float | None) -> Bounds:
    if field is None:
        found = [_phrase(WORDS, [word_term(word) for word in words])]
        if number is not None:
            found.append(_term(NUMBERS, f"{ANY_NUMBER}{sortable(number)}"))
        return _exactly(any_of(found))
    if isinstance(field, Payload):
        name = name_of(field.keys)
        found = [_phrase(WORDS_OF, [f"{name}={word_term(word)}" for word in words])]
        if number is not None:
            found.append(_term(NUMBERS, f"{name}={sortable(number)}"))
        return _exactly(any_of(found))
    # Words of the envelope are seldom asked for, and have no terms.
    if isinstance(field, Column) and field.name in ("log_partition", "log_offset"):
        return _exactly(NONE if number is None else _whole(field, number, number))
    if _text_name(field) is None:
        return _exactly(NONE)
    return Bounds(NONE, _exists(field))


def _phrase(field: str, terms: Sequence[str]) -> Dsl:
    if not terms:
        return NONE
    if len(terms) == 1:
        return _term(field, terms[0])
    return {"match_phrase": {field: " ".join(terms)}}


def _equals(field: Field, text: str, number: float | None, flag: bool | None) -> Dsl:
    name = _text_name(field)
    if name is None:
        return NONE
    found = [_term(TEXTS, text_term(name, lower(text)))]
    if isinstance(field, Payload) and number is not None:
        found.append(_term(NUMBERS, f"{name}={sortable(number)}"))
    if isinstance(field, Payload) and flag is not None:
        found.append(_term(TEXTS, flag_term(name, flag)))
    return any_of(found)


_WILDCARD = re.compile(r"[\\*?]")


def _like(field: Field, pattern: Sequence[str | Wild]) -> Bounds:
    name = _text_name(field)
    if name is None:
        return _exactly(NONE)
    written = "".join(
        part.value if isinstance(part, Wild) else _literal(lower(part)) for part in pattern
    )
    certain: Dsl = {"wildcard": {TEXTS: {"value": f"{_literal(name)}={written}"}}}
    return Bounds(certain, any_of([certain, _term(LONG, name)]))


def _literal(text: str) -> str:
    return _WILDCARD.sub(r"\\\g<0>", text)


def _number_range(name: str, low: Bound | None, high: Bound | None) -> Dsl:
    ends: dict[str, str] = {"gte": f"{name}="} if low is None else {}
    if low is not None:
        ends["gte" if low.inclusive else "gt"] = f"{name}={sortable(double(low.value))}"
    if high is None:
        # No digit comes behind this letter.
        ends["lt"] = f"{name}=g"
    else:
        ends["lte" if high.inclusive else "lt"] = f"{name}={sortable(double(high.value))}"
    return in_range(NUMBERS, **ends)


_NUMBER_FIELDS = {"log_partition": PARTITION, "log_offset": OFFSET}


def _whole(column: Column, low: float, high: float) -> Dsl:
    return _whole_range(column, Bound(low, inclusive=True), Bound(high, inclusive=True))


def _whole_range(column: Column, low: Bound | None, high: Bound | None) -> Dsl:
    """Answer the range of whole numbers; those on the log are doubles without any rounding."""
    least = most = None
    if low is not None:
        value = _bounded(low.value)
        least = math.ceil(value) if low.inclusive else math.floor(value) + 1
    if high is not None:
        value = _bounded(high.value)
        most = math.floor(value) if high.inclusive else math.ceil(value) - 1
    if least is not None and most is not None and least > most:
        return NONE
    field = _NUMBER_FIELDS[column.name]
    if field == PARTITION:
        # An integer: what lies outside of it is refused as a value.
        if (least or 0) > _MOST_PARTITION or (most is not None and most < 0):
            return NONE
        least = None if least is None else max(least, 0)
        most = None if most is None else min(most, _MOST_PARTITION)
    return in_range(field, gte=least, lte=most)


_MOST_PARTITION = (1 << 31) - 1


def _bounded(value: float) -> float:
    return min(max(value, -float(_MOST_LONG)), float(_MOST_LONG))
