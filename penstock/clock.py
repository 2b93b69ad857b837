"""The machine's clock, for the processes; everything else is given one."""

from __future__ import annotations

import time

from penstock.envelope import Micros


def machine_clock() -> Micros:
    """Answer the time of day."""
    return time.time_ns() // 1_000


def steady_seconds() -> float:
    """Answer seconds that go on while the machine sleeps, as a lease in a database does.

    All processes of a machine count the same ones.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
