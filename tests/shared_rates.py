"""A destination's own rate, kept in memory, and who looks whether it was kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from replaying import now, virtual_clock

from penstock.envelope import Micros
from penstock.errors import Unavailable
from penstock.metadata import sharing
from penstock.metadata.sharing import Share, Sharing
from replay.pacing import BURST_SECONDS
from replay.share import Ask


def excess(times: Iterable[float], rate: float) -> float:
    """Answer by how many seconds the worst of the times came too early; 0 where none did.

    None does exactly where in any t seconds there are at most ``rate * (t + BURST_SECONDS) + 1``.
    """
    next_at, worst = float("-inf"), 0.0
    for at in sorted(times):
        worst = max(worst, next_at - BURST_SECONDS - at)
        next_at = max(next_at, at) + 1 / rate
    return worst


class SharedRate:
    """What the store says of one destination; while it is `silent` it does not answer."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self.silent: tuple[float, float] = (0.0, 0.0)
        self.seconds = 0.004
        self.asks = 0
        self.sharing = Sharing()

    def asker(self, who: str) -> Ask:
        """Answer how one replay asks."""

        async def ask(wants: float | None) -> Share | None:
            at = virtual_clock()
            await asyncio.sleep(self.seconds / 2)
            if self.silent[0] <= now() < self.silent[1]:
                raise Unavailable("the store does not answer")
            self.asks += 1
            told = None if self.rate is None else self.told(who, wants, self.rate, at)
            await asyncio.sleep(self.seconds / 2)
            return told

        return ask

    def told(self, who: str, wants: float | None, rate: float, at: Micros) -> Share:
        """Deal, and answer."""
        self.sharing = sharing.asked(self.sharing, who, wants, rate=rate, now=at)
        return sharing.share(self.sharing, who, at)

    def change(self, rate: float) -> None:
        """Give the destination another rate."""
        self.rate, self.sharing = rate, sharing.cut(self.sharing, virtual_clock())
