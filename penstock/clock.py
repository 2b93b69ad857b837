"""The machine's clock, for the processes; everything else is given one."""

from __future__ import annotations

import time

from penstock.envelope import Micros


def machine_clock() -> Micros:
    """Answer the time of day."""
    return time.time_ns() // 1_000
