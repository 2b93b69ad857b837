"""Leaks are told from the ups and downs of a process that works."""

from __future__ import annotations

import random

import pytest
from drift import MB, Bounds, Sample, slopes, too_much

MINUTES = 5
BOUNDS = Bounds(begin=60.0, end=60.0 + 60 * MINUTES)


def life(
    *, leaks: float = 0.0, lost_handles: float = 0.0, first: float = 0.0, last: float = 400.0
) -> list[Sample]:
    """Answer a process of 80 to 200 MB and 20 to 30 handles, a second each.

    It grows in its first minute, and then by so much a minute.
    """
    chance = random.Random(1)
    samples = []
    for second in range(int(first), int(last)):
        warm = 50 * MB * min(second, 50) / 50
        memory = 80 * MB + warm + chance.random() * 120 * MB + leaks * second / 60
        handles = 20 + chance.randrange(10) + lost_handles * second / 60
        samples.append(Sample(float(second), round(memory), int(handles)))
    return samples


def test_a_process_that_works_does_not_grow() -> None:
    """What it takes for a moment and what it takes once at its start are no leak."""
    assert too_much("landing", life(), BOUNDS) == []


def test_memory_that_grows_is_found() -> None:
    """Five megabytes a minute below peaks of a hundred."""
    [said] = too_much("landing", life(leaks=5 * MB), BOUNDS)

    assert said.startswith("the memory of landing grows by ")
    assert slopes(life(leaks=5 * MB), BOUNDS).memory == pytest.approx(5 * MB, rel=0.3)


def test_handles_that_leak_are_found() -> None:
    """Three a minute, of a process that opens and closes ten a second."""
    [said] = too_much("door", life(lost_handles=3), BOUNDS)

    assert said.startswith("the handles of door grow by ")


@pytest.mark.parametrize(("first", "last"), [(0, 60), (0, 75), (390, 400)])
def test_a_process_that_did_not_live_long_enough_is_told(first: float, last: float) -> None:
    """Nobody looked is not the same as nothing was found."""
    [said] = too_much("upkeep", life(first=first, last=last), BOUNDS)

    assert "was not measured" in said
