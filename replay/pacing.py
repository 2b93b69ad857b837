"""When to send, when to try again, when to stop trying. Pure: time and chance are arguments."""

from __future__ import annotations

from collections.abc import Callable

Chance = Callable[[], float]
"""Answers a number from 0 up to, not including, 1."""

BURST_SECONDS = 0.1
FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0


class Bucket:
    """Lets at most `rate` a second through, plus what `BURST_SECONDS` let through at once.

    So in any t seconds there are at most ``rate * (t + BURST_SECONDS) + 1``. Kept as the time at
    which the bucket would be full again, which needs no counting while nobody asks.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take one and answer 0, or answer the seconds until there is one to take."""
        if self.rate is None:
            return 0.0
        wait = self._full_at - BURST_SECONDS - now
        # Waiting less than a clock can tell would ask again and again at the same time.
        if wait > 1e-9:  # noqa: PLR2004
            return wait
        self._full_at = max(self._full_at, now) + 1 / self.rate
        return 0.0

    def change(self, rate: float | None, now: float) -> None:
        """Let through `rate` from now on; what was slow before holds up one more at most."""
        self.rate = rate
        if rate is not None:
            self._full_at = min(self._full_at, now + BURST_SECONDS + 1 / rate)


class Breaker:
    """Counts failures in a row, whichever events they belong to."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.failures = 0

    def failed(self) -> bool:
        """Count a failure; answer whether it was the last one to be borne."""
        self.failures += 1
        return self.failures >= self._patience

    def reset(self) -> None:
        """Begin again: something was delivered, or a person said to go on."""
        self.failures = 0


def delay(attempt: int, after: float | None, chance: Chance) -> float:
    """Answer the seconds to wait after failed attempt number `attempt` (from 1).

    `after` is the destination's wish and is obeyed. Otherwise twice as long each time, up to a
    minute, less up to a half by chance, so that what failed together does not return together.
    """
    if after is not None:
        return max(after, FIRST_DELAY)
    longest = min(FIRST_DELAY * 2.0 ** min(attempt - 1, 20), LONGEST_DELAY)
    return longest * (1 - chance() / 2)
