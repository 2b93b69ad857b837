"""Ports for the servers that tests start."""

from __future__ import annotations

import random
import socket
from itertools import islice

# Below those that outgoing connections are given: none of them may take a port in the moment
# between its choice and its use.
_PORTS = range(10_000, 20_000)

# Hypothesis seeds Python's own chance, alike in every process of a test run.
_CHANCE = random.SystemRandom()


def free_ports(count: int, *, among: range = _PORTS) -> list[int]:
    """Answer ports of this machine that nobody holds now."""
    return list(islice(filter(_is_free, _CHANCE.sample(among, len(among))), count))


def free_port() -> int:
    """Answer one."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
