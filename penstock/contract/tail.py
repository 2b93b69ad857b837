"""What a live tail tells beside events."""

from __future__ import annotations

from typing import Literal

from penstock.contract.base import Told


class TailBeat(Told):
    """Data of `heartbeat` and `behind`: how many acknowledged events were not looked at yet."""

    collection: str
    """The collection with its team."""
    behind: int


class TailGap(Told):
    """Data of `gap`: so many events at most lie behind the position and can be shown no more."""

    reason: Literal["expired", "lost"]
    events: int
