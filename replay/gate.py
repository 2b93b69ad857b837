"""Where workers wait: for something to send, for the rate, for the destination's own time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from penstock.envelope import Clock
from replay.pacing import Bucket
from replay.share import Ask, Share


class Gate:
    """Lets workers through while `open_` says so, no faster than the rate.

    Futures and a deque, because a condition variable costs more than the rest of the sender.
    """

    def __init__(
        self, rate: float | None, open_: Callable[[], bool], *, ask: Ask | None, clock: Clock
    ) -> None:
        self._now = asyncio.get_running_loop().time
        self._bucket = Bucket(rate)
        self.share = Share(ask, clock, self.wake)
        """What the destination has for everyone who sends to it."""
        self._open = open_
        self._held_until = float("-inf")
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._turn = asyncio.Lock()

    def is_open(self) -> bool:
        """Say whether something may be sent now, the rate aside."""
        return self._open() and self.held() <= 0

    def held(self) -> float:
        """Answer for how many more seconds the destination wants to be left alone."""
        return self._held_until - self._now()

    def hold(self, seconds: float) -> None:
        """Send nothing for so long."""
        until = self._now() + seconds
        if until > self._held_until:
            self._held_until = until
            asyncio.get_running_loop().call_at(until, self.wake)

    def change(self, rate: float | None) -> None:
        """Let through another rate from now on."""
        self._bucket.change(rate, self._now())
        self.wake()

    def most(self, limit: int) -> int:
        """Answer how many may go in one send: with a rate, what it lets through at once."""
        return int(min(limit, self._bucket.most(), self.share.most))

    async def passed(self, count: int) -> bool:
        """Wait for the rates to let so many through together.

        Answers False if they may not go any more, or not so many in one send.
        """
        bucket, share = self._bucket, self.share
        if bucket.rate is None and not share.bounded:
            return True
        async with self._turn:
            while self.is_open() and count <= self.most(count):
                wait = bucket.wait(count, self._now())
                room = share.room(count) if share.bounded else None
                if room is not None:
                    wait = max(wait, room.seconds)
                if wait <= 0:
                    bucket.take(count, self._now())
                    if room is not None:
                        share.take(room)
                    return True
                await self.wait(wait if wait < float("inf") else None)
        return False

    async def wait(self, seconds: float | None = None) -> None:
        """Return when something changed, or after so many seconds."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(seconds, _end, waiter) if seconds is not None else None
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def wake(self) -> None:
        """Have everyone who waits look again."""
        while self._waiters:
            _end(self._waiters.popleft())

    def call(self, count: int) -> None:
        """Have so many of those who wait look again, and whoever waits for the rate."""
        left = count + 1
        while self._waiters and left:
            waiter = self._waiters.popleft()
            left -= not waiter.done()
            _end(waiter)


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
