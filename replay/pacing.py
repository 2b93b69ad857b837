"""When to send, when to try again, when to stop trying. Pure: time and chance are arguments."""

from __future__ import annotations

from collections.abc import Callable

Chance = Callable[[], float]
"""Answers a number from 0 up to, not including, 1."""

BURST_SECONDS = 0.1
FIRST_DELAY = 0.5
FIRST_WAIT = 5.0
LONGEST_DELAY = 60.0


class Bucket:
    """Lets at most `rate` a second through, plus what `BURST_SECONDS` let through at once.

    So in any t seconds there are at most ``rate * (t + BURST_SECONDS) + 1``. Kept as the time at
    which the bucket would be full again, which needs no counting while nobody asks.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._full_at = float("-inf")

    def wait(self, count: int, now: float) -> float:
        """Answer the seconds until so many may go together.

        More than the burst never may: what changed the rate meanwhile made it smaller.
        """
        if self.rate is None:
            return 0.0
        wait = max(self._full_at, now) + (count - 1) / self.rate - BURST_SECONDS - now
        # Waiting less than a clock can tell would ask again and again at the same time.
        return wait if wait > 1e-9 else 0.0  # noqa: PLR2004

    def take(self, count: int, now: float) -> None:
        """Say that so many go now."""
        if self.rate is not None:
            self._full_at = max(self._full_at, now) + count / self.rate

    def most(self) -> float:
        """Answer how many may go in one send."""
        return float("inf") if self.rate is None else max(1, int(self.rate * BURST_SECONDS))

    def change(self, rate: float | None, now: float) -> None:
        """Let through `rate` from now on; what was slow before holds up one more at most."""
        self.rate = rate
        if rate is not None:
            self._full_at = min(self._full_at, now + BURST_SECONDS + 1 / rate)


class Breaker:
    """Counts failures in a row, whichever events they belong to."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.reset()

    def failed(self) -> bool:
        """Count a failure; answer whether it was the last one to be borne."""
        self.failures += 1
        return self.failures >= self._patience

    def reset(self, *, delivered: bool = False) -> None:
        """Begin again: something was `delivered`, or a person said to go on."""
        self.failures = 0
        self.delivered = delivered
        """Whether anything was: after a start nobody knows yet whether the destination lives."""
        self.gave_up = False
        """Whether an event was given up meanwhile."""
        self.away: str | None = None
        """Why events wait for better times."""
        self._waits = 0

    def wait(self) -> float:
        """Answer for how many seconds to leave the destination alone: each time twice as long."""
        self._waits += 1
        return min(FIRST_WAIT * 2.0 ** min(self._waits - 1, 20), LONGEST_DELAY)


def delay(attempt: int, after: float | None, chance: Chance) -> float:
    """Answer the seconds to wait after failed attempt number `attempt` (from 1).

    `after` is the destination's wish and is obeyed. Otherwise twice as long each time, up to a
    minute, less up to a half by chance, so that what failed together does not return together.
    """
    if after is not None:
        return max(after, FIRST_DELAY)
    longest = min(FIRST_DELAY * 2.0 ** min(attempt - 1, 20), LONGEST_DELAY)
    return longest * (1 - chance() / 2)
