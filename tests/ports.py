"""Ports for the servers that tests start."""

from __future__ import annotations

import os
import random
import socket
from itertools import islice

# Below those that outgoing connections are given: none of them may take a port in the moment
# between its choice and its use.
_PORTS = range(10_000, 20_000)

# Hypothesis seeds Python's own chance, alike in every process of a test run.
_CHANCE = random.SystemRandom()


def free_ports(count: int, *, among: range = _PORTS) -> list[int]:
    """Answer ports of this machine that nobody holds now.

    Each worker of pytest-xdist has its own part of the range: a port is bound some time after it
    was chosen, and let go for a moment where a test starts its door anew.
    """
    number, workers = _worker()
    part = among[number * len(among) // workers : (number + 1) * len(among) // workers]
    return list(islice(filter(_is_free, _CHANCE.sample(part, len(part))), count))


def free_port() -> int:
    """Answer one."""
    return free_ports(1)[0]


def free_row(count: int) -> int:
    """Answer the first of so many in a row."""
    # By chance, not the lowest: another run of tests may look for a row, too.
    free = free_ports(2_000)
    among = set(free)
    for first in free:
        if all(first + n in among for n in range(count)):
            return first
    raise OSError("no free ports in a row")


def _worker() -> tuple[int, int]:
    """Answer which worker of pytest-xdist this is, and of how many."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # One that takes the place of a worker that died has the next number.
    return int(name.removeprefix("gw")) % workers, workers


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
