"""Trying again beside others who change the same table: bounded by time, never by count.

Four lanes and a compactor made one landing try fourteen times; nothing was wrong with it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# The first pause is about as long as a commit takes.
_SHORTEST_SECONDS = 0.02
_LONGEST_SECONDS = 1.0


def pause_before(attempt: int, chance: float) -> float:
    """Answer how many seconds to wait before this attempt (the second one is 1).

    `chance` is between 0 and 1: those who collided once shall not collide again.
    """
    doubled: float = _SHORTEST_SECONDS * 2 ** min(attempt - 1, 10)
    return min(_LONGEST_SECONDS, doubled) * (0.5 + chance)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to keep trying, and where time and chance come from."""

    seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def attempts(self) -> Iterator[int]:
        """Count attempts from 0, with a pause before each but the first, until time is over."""
        started = self.clock()
        attempt = 0
        while attempt == 0 or self.clock() - started < self.seconds:
            if attempt:
                self.wait(pause_before(attempt, self.chance()))
            yield attempt
            attempt += 1
