"""Which events of a replay are announced and let go when, where times are kept. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from replay.request import Options
from replay.timing import Beat, Timeline
from replay.window import Item

# What is due this soon is announced, together with what is due soon after it: each announcement is
# a checkpoint, and what is announced would be repeated after a crash.
_NEAR, _FAR = 1.0, 2.0
# A loop's timers count whole milliseconds.
_TICK = 0.000_5


class Schedule:
    """The items that were announced and are `early`, in log order, and when those behind them go.

    An item that is sent late, or again, holds up no other. While nothing may be sent the schedule
    is stopped, and then goes on with the first item that was not due yet.

    A destination that `opens` is reached by what is sent first, which may take a second. So the
    first item goes alone, and times begin when it came to its end: what is behind it would wait,
    and then go in one burst.
    """

    def __init__(self, options: Options, *, opens: bool) -> None:
        self.early: deque[Item] = deque()
        self._opens = opens
        self._alone: Item | None = None
        self._options = options
        self._timeline = Timeline(options.speed, options.gap)
        self._beat = Beat()

    @property
    def on(self) -> bool:
        """Say whether times are kept."""
        return self._timeline.on

    def place(self, item: Item) -> None:
        """Give its place to the item that comes next on the log."""
        time = item.events.time(item.start, self._options.timing)
        item.place = self._timeline.place(item.events.partition, time)

    def stop(self, ready: Iterable[Item]) -> None:
        """Begin anew once there is a reason to; what is `ready` already is late for nothing."""
        self._beat.stop()
        self._alone = None
        for item in ready:
            item.due = None

    def change(self, options: Options, coming: Iterable[Item]) -> None:
        """Go by other options; `coming` is what was placed and not let go, in log order."""
        self._options = options
        self._timeline = Timeline(options.speed, options.gap)
        for item in coming:
            self.place(item)

    def wait(self, now: float) -> float:
        """Answer the seconds until the first early item is due; endless while one goes alone."""
        if self._alone is not None:
            return float("inf")
        return 0.0 if self._begins else self._beat.due(self.early[0].place, now) - now

    def due(self, now: float) -> Iterator[Item]:
        """Let go of what is due now."""
        while self.early and (not self.on or self.wait(now) <= _TICK):
            item = self.early.popleft()
            item.due = None
            if self._begins:
                self._alone = item
            elif self.on:
                item.due = self._beat.due(item.place, now)
            yield item

    @property
    def _begins(self) -> bool:
        return self.on and self._opens and not self._beat.runs

    def ended(self, item: Item, now: float) -> bool:
        """Take note of an item that came to its end; say whether times begin with that."""
        if item is not self._alone:
            return False
        self._alone = None
        self._beat.due(item.place, now)
        return True

    def announces_at(self, first: Item, now: float, *, waiting: bool) -> float:
        """Answer when the `first` item that is not announced should be.

        `waiting` says whether items that come before it wait to be let go: where the beat does not
        run, it begins with those.
        """
        if not self.on:
            return now
        if self._beat.runs:
            return self._beat.due(first.place, now) - _NEAR
        return float("inf") if waiting else now

    def announces_to(self, first: Item, now: float) -> float:
        """Answer the place up to which items are announced, if the `first` is announced now."""
        if not self.on:
            return float("inf")
        if not self._beat.runs:
            return first.place + _FAR
        return now + _FAR - self._beat.due(0.0, now)
