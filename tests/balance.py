"""Whether books balance: what was acknowledged, and what is where it has to be. Pure.

The one checker of all tests that break something. `compare` takes what was acknowledged and what
a store holds, whichever it is: a log, the tables, an index, files, what a receiver was sent.
`look` takes what senders of numbered events were told and the rows of a table with its quarantine.

A batch that was sent again after an answer got lost may be on the log twice: as two positions,
each of which is one row. A row that is there twice with the same position was doubled by landing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

_NAMED = 5

Key = TypeVar("Key", bound=Hashable)

Kind = Literal["lost", "doubled", "phantom", "reordered", "altered"]
"""What may be wrong: an event is nowhere, there twice, there without having been sent, not in its
place in the order, or another one than was sent."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with so many events; None is what was not looked at."""

    events: int
    lost: int = 0
    doubled: int = 0
    phantom: int = 0
    reordered: int | None = None
    altered: int | None = None
    again: int = 0
    """Came once more to where that is promised to happen, and how often at the most."""
    said: tuple[str, ...] = ()
    """What is wrong, a sentence each with examples."""

    def __add__(self, other: Findings) -> Findings:
        """Add what was found of other events."""
        return Findings(
            events=self.events + other.events,
            lost=self.lost + other.lost,
            doubled=self.doubled + other.doubled,
            phantom=self.phantom + other.phantom,
            reordered=_sum(self.reordered, other.reordered),
            altered=_sum(self.altered, other.altered),
            again=self.again + other.again,
            said=self.said + other.said,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else one + other


def compare(
    told: Mapping[Key, object],
    found: Iterable[tuple[Key, object]],
    *,
    known: AbstractSet[Key] = frozenset(),
    most_again: int = 0,
    lane: Callable[[Key], Hashable] | None = None,
) -> Findings:
    """Compare what was acknowledged with what a store holds, in the order in which it holds it.

    Both say by what an event is known (its position, its number) and what it is; one that was
    told as None may be anything. What is `known` may be there as well: it was stored and nobody
    heard of it. Over all events, `most_again` copies may be there beside the first ones. With a
    `lane`, events of one lane have to be in the order of their keys, but for a repeated suffix;
    those of the lane None are in no order.
    """
    pairs = list(found)
    times = Counter(key for key, _ in pairs)
    more = {key: many - 1 for key, many in times.items() if many > 1}
    again = sum(more.values())
    wrong: list[tuple[Kind, str, Collection[Any]]] = [
        ("lost", "acknowledged events are nowhere", told.keys() - times.keys()),
        ("phantom", "events are there that nobody sent", times.keys() - told.keys() - known),
    ]
    if again > most_again:
        wrong.append(("doubled", "events are there more than once", more))
    contents = any(content is not None for content in told.values())
    if contents:
        other = {key for key, is_ in pairs if told.get(key) is not None and told[key] != is_}
        wrong.append(("altered", "events are not what was sent", other))
    if lane is not None:
        wrong.append(("reordered", "events come too early", _too_early(pairs, lane)))
    return _findings(len(told), wrong, again=min(again, most_again))


def _too_early(pairs: Sequence[tuple[Key, object]], lane: Callable[[Key], Hashable]) -> list[Key]:
    """Answer the events before which one of their lane was left out that came later."""
    lanes: defaultdict[Hashable, list[Key]] = defaultdict(list)
    for key, _ in pairs:
        lanes[lane(key)].append(key)
    lanes.pop(None, None)
    early = []
    for keys in lanes.values():
        place = {key: at for at, key in enumerate(sorted(set(keys)))}
        early += [after for before, after in pairwise(keys) if place[after] - place[before] > 1]
        early += keys[:1] if place[keys[0]] else []
    return early


def totals(told: int, found: int) -> Findings:
    """Compare how many there have to be with how many a store counts: it keeps no events."""
    wrong: list[tuple[Kind, str, Collection[Any]]] = [
        ("lost", f"events are not counted: {found} of {told}", range(told - found)),
        ("phantom", f"events are counted too many: {found} of {told}", range(found - told)),
    ]
    return _findings(told, wrong)


def _findings(
    events: int, wrong: Iterable[tuple[Kind, str, Collection[Any]]], *, again: int = 0
) -> Findings:
    counts: dict[str, int] = {}
    said = []
    for kind, what, which in wrong:
        counts[kind] = counts.get(kind, 0) + len(which)
        if which:
            said.append(f"{len(which)} {what}: {sorted(which)[:_NAMED]}")
    return Findings(events=events, again=again, said=tuple(said), **counts)


class Place(NamedTuple):
    """A position of a log."""

    log_id: str
    partition: int
    offset: int


class Row(NamedTuple):
    """An event as a table or quarantine holds it."""

    place: Place
    number: int


@dataclass
class Sent:
    """What senders know of their numbered events."""

    tries: Counter[int] = field(default_factory=Counter)
    """How often each number was sent, whatever was answered."""
    kept: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    """The number of each acknowledged event, and the partition and offset that were answered."""


def look(
    sent: Sent,
    log_id: str,
    ends: Mapping[int, int],
    rows: Sequence[Row],
    *,
    gone: AbstractSet[Place] = frozenset(),
) -> Findings:
    """Compare what senders know with the log's positions and the rows of a table and quarantine.

    `ends` are the offsets after the last record of each partition of the log, which begin with 0.
    At the positions that are `gone`, expired or stated to be lost, there must be no row.
    """
    stored = {Place(log_id, partition, n) for partition, end in ends.items() for n in range(end)}
    times = Counter(row.place for row in rows)
    found = {row.place: row.number for row in rows}
    numbers = Counter(row.number for row in rows)
    kept = [(number, Place(log_id, *at)) for number, at in sent.kept]
    known = stored | gone | found.keys()
    wrong: list[tuple[Kind, str, Collection[Any]]] = [
        (
            "doubled",
            "positions are rows more than once",
            {at for at, many in times.items() if many > 1},
        ),
        ("lost", "positions of the log are no row", stored - times.keys() - gone),
        ("phantom", "positions are gone and are rows", gone & times.keys()),
        ("phantom", "rows are where the log has nothing", times.keys() - stored),
        (
            "altered",
            "acknowledged events are not where the door said",
            {(n, at) for n, at in kept if at in found and at not in gone and found[at] != n},
        ),
        (
            "lost",
            "acknowledged events are nowhere",
            {(n, at) for n, at in kept if at not in known},
        ),
        (
            "doubled",
            "events are there more often than they were sent",
            {number for number, many in numbers.items() if many > sent.tries[number]},
        ),
    ]
    return _findings(len(sent.kept), wrong)
