"""Whether books balance: what senders were told, what the log has, what the tables hold.

A batch that was sent again after an answer got lost may be on the log twice: as two positions,
each of which is one row. A row that is there twice with the same position was doubled by landing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_NAMED = 5


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


def faults(
    sent: Sent,
    log_id: str,
    ends: Mapping[int, int],
    rows: Sequence[Row],
    *,
    gone: AbstractSet[Place] = frozenset(),
) -> list[str]:
    """Answer what is wrong, a sentence each with examples; nothing where the books balance.

    `ends` are the offsets after the last record of each partition of the log, which begin with 0.
    At the positions that are `gone`, expired or stated to be lost, there must be no row.
    """
    stored = {Place(log_id, partition, n) for partition, end in ends.items() for n in range(end)}
    times = Counter(row.place for row in rows)
    found = {row.place: row.number for row in rows}
    numbers = Counter(row.number for row in rows)
    kept = [(number, Place(log_id, *at)) for number, at in sent.kept]
    told: dict[str, Collection[Any]] = {
        "positions are rows more than once": {at for at, many in times.items() if many > 1},
        "positions of the log are no row": stored - times.keys() - gone,
        "positions are gone and are rows": gone & times.keys(),
        "rows are where the log has nothing": times.keys() - stored,
        "acknowledged events are not where the door said": {
            (number, at) for number, at in kept if at not in gone and found.get(at) != number
        },
        "events are there more often than they were sent": {
            number for number, many in numbers.items() if many > sent.tries[number]
        },
    }
    return [
        f"{len(which)} {what}: {sorted(which)[:_NAMED]}" for what, which in told.items() if which
    ]
