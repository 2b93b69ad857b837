"""What may stand where somebody is typing a search: fields, values, words of the language.

Which that are is decided in a pure function. What it knows of a collection is kept for some
seconds, since somebody asks with every key.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from penstock.envelope import Clock, CollectionId, Micros
from penstock.query.complete import Completing, completing
from penstock.query.tree import Column, Field, Metadata, Payload, Quarantine, Time
from penstock.query.writing import field_text, payload_path, value_text
from penstock.search import FacetValue, Known, Searcher, SearchRequest, View

MOST = 50
"""Suggestions of one answer."""

NEWEST = 20_000
"""So many of the newest events say which headers, and which values, are frequent."""

LASTS: Micros = 30_000_000
"""How long what is known of a collection is kept."""

_KEPT = 500
_VALUES = 200
_LONGEST_VALUE = 200

_ENVELOPE: dict[Field, str] = {
    Time("received_at"): "time",
    Time("event_time"): "time",
    Column("event_id"): "text",
    Column("source"): "text",
    Column("content_type"): "text",
    Column("key"): "text",
    Column("log_partition"): "number",
    Column("log_offset"): "number",
}
_QUARANTINE: dict[Field, str] = {Quarantine("reason"): "text", Quarantine("stage"): "text"}
_TIMES = ("now-15m", "now-1h", "now-24h", "now-7d", "now/d")

# Other names of what is offered, for those who write them: `data.` forces the payload, the others
# are Batch's.
_PAYLOAD_NAMES = ("data.", "client.payload.")
_BATCH = {
    "batch.info.date_human": "time",
    "batch.info.request_id": "text",
    "batch.info.source": "text",
}

_K = TypeVar("_K")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A text to be put in, and what it is; `count` is how many of the newest events have it."""

    text: str
    kind: str
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What may stand between `start` and `end`, the likeliest first."""

    start: int
    end: int
    offered: Sequence[Suggestion]


def suggested(
    wanted: Completing, known: Known, values: Sequence[FacetValue], view: View = "main"
) -> Suggestions:
    """Answer what may stand there; `values` are those of the field whose value is wanted."""
    match wanted.what:
        case "field" | "path":
            colon = ":" if wanted.what == "field" else ""
            names = _beginning_first(_fields(wanted.typed, known, view), wanted.typed)
            offered = [Suggestion(f"{name.text}{colon}", name.kind) for name in names]
        case "value" | "number" if isinstance(wanted.field, Time):
            times = [Suggestion(time, "time") for time in _TIMES]
            offered = _beginning_first(times, wanted.typed)
        case "value" | "number":
            offered = list(_values(wanted, values))
        case _:
            offered = []
    words = [Suggestion(word, "word") for word in wanted.words if _begins(word, wanted.typed)]
    # A word that was begun is as likely as a field, and there are few of them.
    both = [*words, *offered] if wanted.typed else [*offered[: MOST - len(words)], *words]
    return Suggestions(wanted.start, wanted.end, tuple(both[:MOST]))


class Suggesting:
    """Answers what may stand at a place of a search. Threads may share it."""

    def __init__(self, searcher: Searcher, *, clock: Clock) -> None:
        self._searcher = searcher
        self._clock = clock
        self._known: _Kept[tuple[CollectionId, View], Known] = _Kept(clock)
        self._values: _Kept[tuple[CollectionId, View, Field], Sequence[FacetValue]] = _Kept(clock)

    def at(self, collection: CollectionId, view: View, text: str, position: int) -> Suggestions:
        """Answer what may stand at a position of the text. Raises as `Searcher` does."""
        wanted = completing(text, position)
        if wanted.what in ("word", "nothing") or isinstance(wanted.field, Time):
            return suggested(wanted, Known((), None), (), view)
        known = self._known.get(
            (collection, view), lambda: self._searcher.known(collection, view, newest=NEWEST)
        )
        values: Sequence[FacetValue] = ()
        if wanted.field is not None:
            field = wanted.field
            values = self._values.get(
                (collection, view, field), lambda: self._frequent(collection, view, field, known)
            )
        return suggested(wanted, known, values, view)

    def _frequent(
        self, collection: CollectionId, view: View, field: Field, known: Known
    ) -> Sequence[FacetValue]:
        recent = SearchRequest(collection=collection, view=view, since=known.since)
        [facet] = self._searcher.facets(recent, [field], most=_VALUES)
        return facet.values


class _Kept(Generic[_K, _R]):
    """Answers that are good for a while. Two threads may find out the same at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: OrderedDict[_K, tuple[Micros, _R]] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, key: _K, find: Callable[[], _R]) -> _R:
        now = self._clock()
        with self._guard:
            kept = self._found.get(key)
        if kept is not None and 0 <= now - kept[0] < LASTS:
            return kept[1]
        found = find()
        with self._guard:
            self._found[key] = (now, found)
            self._found.move_to_end(key)
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return found


def _fields(typed: str, known: Known, view: View) -> Iterator[Suggestion]:
    payload = [
        (one.field.keys, one.kind)
        for one in known.fields
        if isinstance(one.field, Payload) and one.field.keys
    ]
    for prefix in _PAYLOAD_NAMES:
        if typed.startswith(prefix):
            for keys, kind in payload:
                yield Suggestion(prefix + payload_path(keys), kind)
            return
    if typed.startswith("batch."):
        yield from (Suggestion(name, kind) for name, kind in _BATCH.items())
    if typed.startswith("client.metadata."):
        for one in known.fields:
            if isinstance(one.field, Metadata):
                yield Suggestion(f"client.{field_text(one.field)}", one.kind)
    yield from (Suggestion(field_text(Payload(keys)), kind) for keys, kind in payload)
    envelope = {**_ENVELOPE, **(_QUARANTINE if view == "quarantine" else {})}
    yield from (Suggestion(field_text(field), kind) for field, kind in envelope.items())
    for one in known.fields:
        if not isinstance(one.field, Payload):
            yield Suggestion(field_text(one.field), one.kind)


def _values(wanted: Completing, values: Sequence[FacetValue]) -> Iterator[Suggestion]:
    some = [
        Suggestion(one.value, "number" if one.number else "text", one.count)
        for one in values
        if len(one.value) <= _LONGEST_VALUE and (one.number or wanted.what == "value")
    ]
    if wanted.what == "number":
        some.sort(key=lambda one: float(one.text))
    for one in _beginning_first(some, wanted.typed, sort=False):
        yield Suggestion(value_text(one.text), one.kind, one.count)


def _beginning_first(
    names: Iterator[Suggestion] | Sequence[Suggestion], typed: str, *, sort: bool = True
) -> list[Suggestion]:
    """Answer those that contain what was typed, and before the others those that begin with it."""
    unique = {one.text: one for one in names}.values()
    found = [one for one in unique if typed.lower() in one.text.lower()]
    if sort:
        # The outer fields before those deep inside.
        found.sort(key=lambda one: (one.text.count("."), one.text.lower()))
    return sorted(found, key=lambda one: not _begins(one.text, typed))[:MOST]


def _begins(text: str, typed: str) -> bool:
    return text.lower().startswith(typed.lower())
