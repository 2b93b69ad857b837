"""What the landing sensor decides, without Dagster.

A lane is a share of all collections, drained by one run at a time. "Alive" means a fresh lease in
the metadata database, not a status in Dagster: a run whose process died stays STARTED for ever
with the default launcher.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestration.lease import TTL
from penstock.envelope import Micros

SECOND = 1_000_000

# A launched run takes up to 7 s on a busy machine before its first line of ours runs.
STARTING_GRACE = 45 * SECOND


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that Dagster believes to be starting or running."""

    run_id: str
    created_at: Micros


@dataclass(frozen=True, slots=True)
class Decision:
    """Runs to declare dead, whether to launch one, and why."""

    dead: tuple[str, ...]
    launch: bool
    reason: str


def decide(
    *,
    waiting: int,
    runs: Iterable[LiveRun],
    lease_holder: str | None,
    lease_until: Micros,
    now: Micros,
) -> Decision:
    """Keep one run alive while something waits.

    `lease_holder` is the id of the run that holds the lane's lease, whether or not it has ended.
    A lease or a start that lies too far ahead is of the time before the clock was set back.
    """
    beating = lease_holder if now < lease_until <= now + TTL else None
    dead = []
    alive = beating is not None
    for run in runs:
        if run.run_id == beating:
            continue
        if abs(now - run.created_at) < STARTING_GRACE and run.run_id != lease_holder:
            alive = True
        else:
            dead.append(run.run_id)

    if alive:
        return Decision(tuple(dead), launch=False, reason="a run is draining the lane")
    if waiting == 0:
        return Decision(tuple(dead), launch=False, reason="nothing waits to be landed")
    return Decision(tuple(dead), launch=True, reason=f"{waiting:,} events wait to be landed")


def decide_without_lease(*, waiting: int, runs: Iterable[LiveRun]) -> Decision:
    """Launch a run only if there is none, and declare none dead: nobody can say which one lives."""
    if any(True for _ in runs):
        return Decision((), launch=False, reason="a run exists; whether it lives is not known now")
    return decide(waiting=waiting, runs=(), lease_holder=None, lease_until=0, now=0)


def waiting(ends: Mapping[int, int], released: Mapping[int, int]) -> int:
    """Count the records of one collection between what was absorbed and the log's end."""
    return sum(max(0, end - released.get(partition, 0)) for partition, end in ends.items())
