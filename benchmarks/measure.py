"""Rates, times, CPU and ratios.

Every figure stands beside a limit that was measured in the same run, because machines differ and
drift; the ratio is what can be compared.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import psutil

# So often is asked even what takes long.
_LEAST = 3


class Figure(msgspec.Struct, frozen=True):
    """One measured rate: `events` in `wall` seconds, for `cpu` CPU-seconds of the server side."""

    events: int
    wall: float
    cpu: float

    @property
    def per_second(self) -> float:
        """Events per second of wall time."""
        return self.events / self.wall

    @property
    def per_core(self) -> float:
        """Events per CPU-second."""
        return self.events / self.cpu if self.cpu else 0.0

    @property
    def cpu_per_million(self) -> float:
        """CPU-seconds for a million events."""
        return self.cpu / self.events * 1e6


class Result(msgspec.Struct, frozen=True, tag="rate"):
    """A line of the table: what was measured, its limit, and the floor it should keep."""

    name: str
    figure: Figure
    limit_name: str = ""
    limit: Figure | None = None
    by: str = "per_core"
    """Which rate the ratio compares: ``per_core`` or ``per_second``."""
    floor: float | None = None
    """Events per core-second to keep."""
    floor_ratio: float | None = None
    note: str = ""
    detail: dict[str, float] = {}

    @property
    def ratio(self) -> float | None:
        """The figure as a share of its limit."""
        if self.limit is None:
            return None
        return float(getattr(self.figure, self.by) / getattr(self.limit, self.by))

    @property
    def short(self) -> list[str]:
        """What falls short, in words; empty when nothing does."""
        problems = []
        if self.floor is not None and self.figure.per_core < self.floor:
            problems.append(f"{self.figure.per_core:,.0f}/core-s < {self.floor:,.0f}")
        if (
            self.floor_ratio is not None
            and self.ratio is not None
            and self.ratio < self.floor_ratio
        ):
            problems.append(f"{self.ratio:.0%} < {self.floor_ratio:.0%} of {self.limit_name}")
        return problems


class Times(msgspec.Struct, frozen=True):
    """One question asked again and again: the seconds each time took, and the CPU of all."""

    seconds: list[float]
    cpu: float

    @property
    def median_ms(self) -> float:
        """The time in the middle."""
        return statistics.median(self.seconds) * 1000

    @property
    def p99_ms(self) -> float:
        """The time that one in a hundred takes."""
        return percentile(self.seconds, 0.99) * 1000

    @property
    def cpu_ms(self) -> float:
        """CPU of one answer."""
        return self.cpu / len(self.seconds) * 1000


class Question(msgspec.Struct, frozen=True, tag="question"):
    """A line of the other table: a question about so many rows, beside the same put plainly."""

    name: str
    rows: int
    times: Times
    limit_name: str
    limit: Times
    note: str = ""
    floor_ratio: float | None = None

    @property
    def rows_per_second(self) -> float:
        """How many rows a second the answer went over, or went around."""
        return self.rows / self.times.median_ms * 1000

    @property
    def ratio(self) -> float:
        """How fast the answer comes, as a share of the limit."""
        return self.limit.median_ms / self.times.median_ms

    @property
    def short(self) -> list[str]:
        """What falls short, in words; empty when nothing does."""
        if self.floor_ratio is None or self.ratio >= self.floor_ratio:
            return []
        return [f"{self.ratio:.0%} < {self.floor_ratio:.0%} of {self.limit_name}"]


class Facts(msgspec.Struct, frozen=True, tag="facts"):
    """A line of what is no rate: figures by name, and in words what falls short of what holds."""

    name: str
    figures: dict[str, int | float]
    short: Sequence[str] = ()


Measured = Result | Question | Facts


def asked_together(
    ours: Callable[[], int], plain: Callable[[], int], *, seconds: float, most: int
) -> tuple[Times, Times]:
    """Ask in turns, so that a machine that changes its mind does so for both.

    For so many seconds, but `most` times at most, and a few times at least. Each asks once before,
    untimed. Raises `RuntimeError` if the two do not find the same number.
    """
    found = ours(), plain()
    if found[0] != found[1]:
        raise RuntimeError(f"the answers differ: {found[0]:,} and {found[1]:,}")
    taken: tuple[list[float], list[float]] = ([], [])
    cpu = [0.0, 0.0]
    end = time.perf_counter() + seconds
    while len(taken[0]) < (most if time.perf_counter() < end else _LEAST):
        for which, ask in enumerate((ours, plain)):
            wall, before = time.perf_counter(), time.process_time()
            ask()
            cpu[which] += time.process_time() - before
            taken[which].append(time.perf_counter() - wall)
    return Times(taken[0], cpu[0]), Times(taken[1], cpu[1])


def cpu_of(pid: int) -> float:
    """Answer the CPU-seconds of a process and its living children."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    return total


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Run the block on these cores, where the machine has them and lets us choose."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def own(work: Callable[[], int], *, runs: int = 3) -> Figure:
    """Measure work of this process (it answers the events it handled); the median run by CPU."""
    figures = []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        events = work()
        figures.append(
            Figure(events, time.perf_counter() - wall, max(time.process_time() - cpu, 1e-9))
        )
    return median(figures)


def median(figures: list[Figure]) -> Figure:
    """Answer the figure in the middle, by CPU per event."""
    figures = sorted(figures, key=lambda figure: figure.cpu_per_million)
    return figures[len(figures) // 2]


def percentile(values: list[float], share: float) -> float:
    """Answer the value below which `share` of the values lie."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[min(998, int(share * 1000) - 1)]
