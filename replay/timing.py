"""When each event is due in a replay that keeps the time between events. Pure: time is an argument.

An event has a *place*: how many seconds of the replay lie between its first event and this one.
Places depend on the events alone, so what is sent late moves nothing that comes behind it, and
small errors do not add up. The *beat* says when a place is due.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from penstock.envelope import Micros

_MICROS = 1_000_000
_SHORTEST: Micros = 100_000
_WIDEST: Micros = 60 * _MICROS


class Timeline:
    """Answers the places of events, in the order in which they are sent: that of the log.

    `speed` is how many seconds of the past go into one, and 0 puts everything at the same place;
    no two places in a row are more than `gap` seconds apart. A time before one that was there
    already adds nothing: order is kept, and no silence is counted twice. Partitions of the log go
    one after the other, each with times of its own.
    """

    def __init__(self, speed: float, gap: float | None) -> None:
        self.on = speed > 0
        self._speed, self._gap = speed, gap
        self._partition: int | None = None
        self._latest: Micros | None = None
        self._place = 0.0

    def place(self, partition: int, at: Micros | None) -> float:
        """Answer the place of the next event; None says that its time is not known."""
        if partition != self._partition:
            self._partition, self._latest = partition, None
        if at is None or not self.on:
            return self._place
        if self._latest is None or at > self._latest:
            if self._latest is not None:
                self._place += silence(at - self._latest, self._speed, self._gap)
            self._latest = at
        return self._place


class Beat:
    """Says when places are due. It begins when it is asked first, and anew after it was stopped."""

    def __init__(self) -> None:
        self._begun: float | None = None

    @property
    def runs(self) -> bool:
        """Say whether it has begun."""
        return self._begun is not None

    def due(self, place: float, now: float) -> float:
        """Answer when the place is due: now, if the clock begins with it."""
        if self._begun is None:
            self._begun = now - place
        return self._begun + place

    def stop(self) -> None:
        """Begin anew with the next place that is asked for."""
        self._begun = None


class Stretch(NamedTuple):
    """Events of one partition that follow each other without a silence that counts."""

    partition: int
    first: Micros
    last: Micros
    events: int


def silence(length: Micros, speed: float, gap: float | None) -> float:
    """Answer how many seconds of the replay a silence of the past takes."""
    seconds = length / _MICROS / speed
    return seconds if gap is None else min(seconds, gap)


def width(speed: float, gap: float | None) -> Micros:
    """Answer how wide stretches have to be for `lasts` to be exact.

    Within one of the width of the longest silence there is none that is longer. Widths below a
    tenth of a second would be too many to count, and make it a little too long.
    """
    return _WIDEST if gap is None else max(_SHORTEST, round(gap * speed * _MICROS))


def lasts(stretches: Iterable[Stretch], speed: float, gap: float | None, *, most: int) -> float:
    """Answer how many seconds it takes to send the first `most` events of these stretches in time.

    They are in the order of partition and time.
    """
    total, left = 0.0, most
    before: Stretch | None = None
    for each in stretches:
        if left <= 0:
            break
        if before is not None and before.partition == each.partition:
            total += silence(max(0, each.first - before.last), speed, gap)
        total += (each.last - each.first) / _MICROS / speed
        before, left = each, left - each.events
    return total
