"""Histograms: how many events are found over time, in steps that people use."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.envelope import Micros
from penstock.search import (
    Bar,
    Histogram,
    SearchRequest,
)
from penstock.search.looking import Looking

# A histogram counts in so many steps to a bar before it knows how long the bars will be.
_FINER = 32


def histogram(looking: Looking, asked: SearchRequest, bars: int) -> Histogram:
    """Answer the events found in so many bars at most."""
    span = looking.span()
    if span is None:
        return Histogram((), _NICE_STEPS[0])
    if asked.since is not None and asked.until is not None:
        step = nice_step(span[1] - span[0], bars)
        return drawn(looking.counts(step), step, asked)
    # The events found may lie close together within the time of all events.
    fine = nice_step(span[1] - span[0], bars * _FINER)
    counts = looking.counts(fine)
    if not counts:
        return Histogram((), fine)
    first, last = min(counts) * fine, (max(counts) + 1) * fine - 1
    first = first if asked.since is None else asked.since
    last = last if asked.until is None else asked.until - 1
    step = nice_step(last - first, bars)
    if step % fine:
        return drawn(looking.counts(step, since=first, until=last + 1), step, asked)
    coarse: dict[int, int] = {}
    for bar, n in counts.items():
        coarse[bar * fine // step] = coarse.get(bar * fine // step, 0) + n
    return drawn(coarse, step, asked)


def drawn(counts: Mapping[int, int], step: Micros, asked: SearchRequest) -> Histogram:
    """Answer the bars, from the bounds that were asked for or from the first event to the last."""
    if not counts and (asked.since is None or asked.until is None):
        return Histogram((), step)
    first = min(counts) if asked.since is None else asked.since // step
    last = max(counts) if asked.until is None else (asked.until - 1) // step
    # The first step may begin before the first year there is.
    bars = (Bar(max(bar * step, _LEAST), counts.get(bar, 0)) for bar in range(first, last + 1))
    return Histogram(tuple(bars), step)


def nice_step(span: Micros, bars: int) -> Micros:
    """Answer the shortest usual step that needs at most so many bars for a span."""
    for step in _NICE_STEPS:
        if span // step < bars:
            return step
    longest = _NICE_STEPS[-1]
    return longest * (span // longest // bars + 1)


_LEAST: Micros = -62_135_596_800_000_000
"""The beginning of the year 1."""


_NICE_STEPS: tuple[Micros, ...] = tuple(
    seconds * 1_000_000
    for seconds in (
        *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800),
        *(3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000),
    )
)
