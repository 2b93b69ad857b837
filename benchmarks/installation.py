"""A whole installation under test: `penstock up` on a fresh home, and what each process uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.processes import free_port

# The words in its command line that tell a program from the others.
PROGRAMS = {
    "door": ("serve", "door"),
    "platform": ("serve", "platform"),
    "code-server": ("dagster", "grpc"),
    "dagster-webserver": ("dagster_webserver",),
    "dagster-daemon": ("dagster._daemon",),
}
SUPERVISOR = "penstock up"


@contextmanager
def up(folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Run `penstock up` on a fresh home for the block; answer its process id and what it says."""
    ports = [f"--{name}-port={free_port()}" for name in ("http", "grpc", "platform", "dagster")]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "up", "--home", str(folder / "home"), *ports],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            raise RuntimeError(f"it did not start:\n{(folder / 'up.log').read_text()}")
        yield process.pid, json.loads(said)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def programs_of(supervisor: int) -> dict[str, int]:
    """Answer the process id of each program."""
    found = {SUPERVISOR: supervisor}
    for child in psutil.Process(supervisor).children():
        words = child.cmdline()
        for name, telling in PROGRAMS.items():
            if all(word in words for word in telling):
                found[name] = child.pid
    missing = {*PROGRAMS} - {*found}
    if missing:
        raise RuntimeError(f"these do not run: {', '.join(sorted(missing))}")
    return {name: found[name] for name in (*PROGRAMS, SUPERVISOR)}


def _family(pid: int) -> list[psutil.Process]:
    """Answer a program and what it started: each leads a session of its own."""
    leader = psutil.Process(pid)
    if os.getsid(pid) != pid:
        return [leader]
    return [leader, *leader.children(recursive=True)]


def cpu_of_programs(programs: dict[str, int]) -> dict[str, float]:
    """Answer the CPU-seconds of each program so far, those of ended children included."""
    while True:
        try:
            return {
                name: sum(sum(one.cpu_times()[:4]) for one in _family(pid))
                for name, pid in programs.items()
            }
        except psutil.NoSuchProcess:
            continue  # one ended while we looked: now its parent has its seconds


def memory_of(programs: dict[str, int]) -> dict[str, int]:
    """Answer the memory that each program holds, its share of what is shared counted in parts."""
    return {name: sum(map(share_of, _family(pid))) for name, pid in programs.items()}


def share_of(process: psutil.Process) -> int:
    """Answer the memory that a process holds, its share of what is shared counted in parts."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0  # it has ended, and holds nothing
