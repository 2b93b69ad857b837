"""Whether a process holds more and more as long as it lives. Pure.

Memory goes up and down with every batch, and a leak raises what it comes back to. So of every few
seconds the least counts (the floor), and the slope is the median of the slopes between any two of
these floors: neither a peak nor a single step decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from statistics import median
from typing import NamedTuple

MB = 1_000_000


class Sample(NamedTuple):
    """What a process held at a moment."""

    seconds: float
    memory: int
    """Bytes of its own: anonymous pages, not those of files that it has mapped."""
    handles: int


class Slopes(NamedTuple):
    """How a process grew, a minute."""

    memory: float
    """Bytes."""
    handles: float


@dataclass(frozen=True)
class Bounds:
    """How far a process may grow a minute, and between which moments that is looked at."""

    begin: float
    end: float
    floor_seconds: float = 10.0
    memory: float = MB
    handles: float = 1.0


class Unmeasured(Exception):
    """There are too few samples to say anything."""


def slopes(samples: Sequence[Sample], bounds: Bounds) -> Slopes:
    """Answer how a process grew between the bounds; raise `Unmeasured` without three floors."""
    within = [one for one in samples if bounds.begin <= one.seconds < bounds.end]

    def slope(of: Callable[[Sample], int]) -> float:
        points = list(_floors(within, of, bounds))
        if len(points) < 3:
            raise Unmeasured(f"{len(within)} samples are too few")
        return median(
            (later - sooner) / (to - at) * 60
            for (at, sooner), (to, later) in combinations(points, 2)
        )

    return Slopes(slope(lambda one: one.memory), slope(lambda one: one.handles))


def _floors(
    samples: Sequence[Sample], of: Callable[[Sample], int], bounds: Bounds
) -> Iterator[tuple[float, int]]:
    """Answer the least of every few seconds, and when that was."""
    for number, some in groupby(
        samples, key=lambda one: int((one.seconds - bounds.begin) // bounds.floor_seconds)
    ):
        yield bounds.begin + number * bounds.floor_seconds, min(map(of, some))


def too_much(name: str, samples: Sequence[Sample], bounds: Bounds) -> list[str]:
    """Say what of a process grew too much, or that nobody could measure it."""
    try:
        grown = slopes(samples, bounds)
    except Unmeasured as error:
        return [f"{name} was not measured: {error}"]
    said = []
    if grown.memory > bounds.memory:
        said.append(f"the memory of {name} grows by {grown.memory / MB:.1f} MB a minute")
    if grown.handles > bounds.handles:
        said.append(f"the handles of {name} grow by {grown.handles:.1f} a minute")
    return said
