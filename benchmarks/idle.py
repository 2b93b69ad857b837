"""What an idle installation costs: `python -m benchmarks.idle` writes docs/reference/idle.md.

Takes up to a quarter of an hour: two minutes of it are those in which Dagster's schedules run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.__main__ import HERE
from benchmarks.data import nested
from benchmarks.installation import (
    PROGRAMS,
    SUPERVISOR,
    cpu_of_programs,
    memory_of,
    programs_of,
    up,
)
from benchmarks.report import machine
from penstock.client import Client

PAGE = HERE.parent / "docs" / "reference" / "idle.md"

COLLECTIONS = ("orders", "payments", "shipments")
EVENTS = 1_000
WATCHED_SECONDS = 60.0
# Upkeep runs when the minute is a multiple of ten, the check of the books five minutes later.
SCHEDULE_SECONDS = 300
SCHEDULED = {"upkeep", "check_books"}
_BEFORE_SECONDS = 5.0
_LOOK_SECONDS = 5.0
_PATIENCE_SECONDS = 300.0

_RUNS = """
{ runsOrError(limit: 100) { ... on Runs { results { jobName status creationTime } } } }
"""
_ENDS = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True)
class Floor:
    """What some of the programs may use together, at most."""

    name: str
    programs: tuple[str, ...]
    cpu: float
    """Of one core."""
    memory: float
    """Bytes."""


FLOORS = (
    Floor("all", (*PROGRAMS, SUPERVISOR), 0.25, 1.5e9),
    Floor("door and platform", ("door", "platform"), 0.02, 450e6),
)


@dataclass(frozen=True)
class Watched:
    """What each program used in a minute, with what it started: CPU as a share of one core."""

    jobs: tuple[str, ...]
    cpu: dict[str, float]
    memory: dict[str, int]
    """By program; the moment in which all together held most."""

    @property
    def title(self) -> str:
        """Say what the minute had in it."""
        return f"a minute with {' and '.join(self.jobs)}" if self.jobs else "a minute with neither"

    def short(self) -> Iterator[str]:
        """Say which floors it does not keep."""
        for floor in FLOORS:
            cpu = sum(self.cpu[name] for name in floor.programs)
            memory = sum(self.memory[name] for name in floor.programs)
            if cpu >= floor.cpu:
                yield f"{self.title}, {floor.name}: {cpu:.1%} of a core, not {floor.cpu:.0%}"
            if memory >= floor.memory:
                yield (
                    f"{self.title}, {floor.name}: {memory / 1e6:,.0f} MB, "
                    f"not {floor.memory / 1e6:,.0f}"
                )


def main() -> None:
    """Start everything, let some events land, leave it alone, and say what each process used."""
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER", HERE)) as folder,
        up(Path(folder)) as (supervisor, what),
        httpx.Client(base_url=what["dagster"], trust_env=False, timeout=30.0) as dagster,
    ):
        _land_some(what)
        _say("waiting for the landing run to end")
        _until(lambda: not _alive(dagster), "the landing run did not end")
        programs = programs_of(supervisor)
        minutes = []
        for number in range(2):
            at = (time.time() // SCHEDULE_SECONDS + 1) * SCHEDULE_SECONDS
            _say(f"waiting for {datetime.fromtimestamp(at, UTC):%H:%M} UTC, when a schedule runs")
            time.sleep(max(0.0, at - _BEFORE_SECONDS - time.time()))
            minutes.append(_watch(programs, dagster))
            if number == 0:
                _until(lambda: not _alive(dagster), "the scheduled run did not end")
                minutes.append(_watch(programs, dagster))
    ran = {job for minute in minutes for job in minute.jobs}
    if not ran >= SCHEDULED:
        sys.exit(f"these did not run while watched: {', '.join(sorted(SCHEDULED - ran))}")
    PAGE.write_text(page(minutes))
    print(page(minutes))


def _land_some(what: dict[str, str]) -> None:
    """Send events to a few collections and wait until they have landed."""
    body = b"\n".join(nested(EVENTS))
    headers = {
        "Authorization": f"Bearer {what['token']}",
        "Content-Type": "application/x-ndjson",
    }
    with (
        Client(what["platform"], what["token"]) as client,
        httpx.Client(base_url=what["door"], headers=headers, trust_env=False) as door,
    ):
        for name in COLLECTIONS:
            client.create_collection(name)
            door.post(f"/v1/events/{name}", content=body, timeout=30.0).raise_for_status()

        def landed() -> bool:
            rows = {each.name: each.rows for each in client.status().collections}
            return all(rows[name] == EVENTS for name in COLLECTIONS)

        _say("waiting for the events to land")
        _until(landed, "the events did not land")


def _watch(programs: dict[str, int], dagster: httpx.Client) -> Watched:
    """Leave everything alone for a minute and look at the processes only."""
    begun, before = time.time(), cpu_of_programs(programs)
    memories = [memory_of(programs)]
    while (left := begun + WATCHED_SECONDS - time.time()) > 0:
        time.sleep(min(_LOOK_SECONDS, left))
        memories.append(memory_of(programs))
    seconds, after = time.time() - begun, cpu_of_programs(programs)
    ran = [run for run in _runs(dagster) if run["creationTime"] >= begun]
    for run in ran:
        if run["status"] != "SUCCESS":
            sys.exit(f"{run['jobName']} is {run['status']} when its minute is over")
    return Watched(
        tuple(sorted({run["jobName"] for run in ran})),
        {name: (after[name] - before[name]) / seconds for name in programs},
        max(memories, key=lambda memory: sum(memory.values())),
    )


def _runs(dagster: httpx.Client) -> list[dict[str, Any]]:
    answer = dagster.post("/graphql", json={"query": _RUNS})
    answer.raise_for_status()
    runs: list[dict[str, Any]] = answer.json()["data"]["runsOrError"]["results"]
    return runs


def _alive(dagster: httpx.Client) -> list[dict[str, Any]]:
    return [run for run in _runs(dagster) if run["status"] not in _ENDS]


def _until(done: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not done():
        if time.monotonic() > end:
            sys.exit(f"{otherwise} within {_PATIENCE_SECONDS:.0f} s")
        time.sleep(1)


def _say(what: str) -> None:
    print(what, file=sys.stderr)


def page(minutes: Sequence[Watched]) -> str:
    """Write what was seen as a page of the documentation."""
    names = [*PROGRAMS, SUPERVISOR]
    titles = "".join(f" {minute.title}: CPU | memory |" for minute in minutes)
    rows = [f"| process, with what it started |{titles}", "|---|" + "---:|---:|" * len(minutes)]
    groups: list[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in names]
    groups += [(f"**{floor.name}**", floor.programs) for floor in reversed(FLOORS)]
    for name, programs in groups:
        cells = "".join(
            f" {sum(minute.cpu[each] for each in programs):.2%} |"
            f" {sum(minute.memory[each] for each in programs) / 1e6:,.0f} MB |"
            for minute in minutes
        )
        rows.append(f"| {name} |{cells}")
    floors = "; ".join(
        f"{floor.name} under {floor.cpu:.0%} and {floor.memory / 1e6:,.0f} MB" for floor in FLOORS
    )
    short = [reason for minute in minutes for reason in minute.short()]
    return "\n".join(
        [
            "# An idle installation",
            "",
            "Written by `python -m benchmarks.idle`: `penstock up`, then left alone.",
            f"{EVENTS:,} events have landed in each of {len(COLLECTIONS)} collections.",
            f"CPU is a share of one core over {WATCHED_SECONDS:.0f} s, ended runs included.",
            "Memory is the proportional share (PSS) in the moment in which all held most.",
            f"Machine: {machine()}.",
            "",
            *rows,
            "",
            f"Wanted: {floors}.",
            *(f"**Falls short**: {reason}." for reason in short),
            "",
        ]
    )


if __name__ == "__main__":
    main()
