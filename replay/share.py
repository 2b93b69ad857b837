"""The part of a destination's own rate that this replay has, beside others that send there too."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

import structlog

from penstock.envelope import Clock
from penstock.errors import Unavailable
from penstock.metadata import sharing
from replay.pacing import BURST_SECONDS

log = structlog.get_logger()

Ask = Callable[[float | None], Awaitable[sharing.Share | None]]
"""Tells how many sends a second can be used, None for all; answers None where there is no rate."""

LOOK_SECONDS = 2.0
"""How often a bound that changes seldom is asked for again, and one that there may be by now."""
_STORE_DELAY = 0.2
_SOONEST = 0.05
_HOLD_SECONDS = sharing.HOLD / 1e6
# Clocks of two machines, and one that was set right a little.
_BACK_SECONDS = 1.0
# Waiting less than a clock can tell would ask again and again at the same time.
_TICK = 2e-6
_LATE = BURST_SECONDS - _TICK
# What is lost where seconds are added up.
_EXACT = 1e-9
# Who used so much of its time could perhaps use more, up to twice of it; who did not has a little
# to spare. The two are apart, so that nobody swings between them.
_ALL, _TWICE, _SPARE = 0.9, 2.0, 1.25


class Piece(NamedTuple):
    """Time that is ours alone, in seconds, to send in at this rate: slots, so long each."""

    begins: float
    ends: float
    slot: float
    rate: float


class Room(NamedTuple):
    """When so many may be sent together: in `seconds`, if they have these moments."""

    seconds: float
    moments: Sequence[Moment] = ()


class Moment(NamedTuple):
    """When an event may be sent, and the slot that this is in: when that begins, how long it is."""

    at: float
    begins: float
    slot: float


class Pieces:
    """Lets events through in time that is ours, at its rate. Pure.

    Each event has a moment of its own, with all of its 1/rate within that time, and goes at that
    moment or up to `BURST_SECONDS` later. Moments of different replays are as far apart as those
    of one, since no time belongs to two. So in any t seconds all of them together send at most
    ``rate * (t + BURST_SECONDS) + 1``.
    """

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._all: Sequence[Piece] = ()
        self._asked_at = float("-inf")
        self._put_at = float("-inf")
        self._last = float("-inf")
        self._slot = float("-inf")
        self._used = 0.0

    def put(self, pieces: Sequence[Piece], *, asked_at: float, now: float) -> None:
        """Go by what was told to who asked at that time, and by nothing that was told before."""
        self._pieces, self._all = deque(pieces), pieces
        self._asked_at, self._put_at, self._used = asked_at, now, 0.0
        # Of a clock that was set back since.
        self._last = min(self._last, now)

    def room(self, count: int, now: float) -> Room:
        """Answer when so many may go together; in infinity where that is not known yet."""
        if self._asked_at - _BACK_SECONDS <= now <= self._asked_at + _HOLD_SECONDS:
            moments: deque[Moment] = deque(maxlen=count)
            for moment in self._moments(now - _LATE):
                moments.append(moment)
                if len(moments) == count and moment.at - moments[0].at <= _LATE:
                    wait = moment.at - now
                    return Room(wait if wait > _TICK else 0.0, moments)
        return Room(float("inf"))

    def take(self, room: Room) -> None:
        """Say that what there is room for goes now."""
        for at, begins, slot in room.moments:
            self._last = at
            if begins > self._slot:
                self._slot = begins
                self._used += slot

    def wants(self, now: float) -> float | None:
        """Answer how many a second could be used, going by how it was; None before that is known.

        A slot is used in which one was sent: who waits for answers cannot fill it.
        """
        offered, most = 0.0, 0.0
        for one in self._all:
            offered += max(0.0, min(one.ends, now) - max(one.begins, self._put_at))
            most = one.rate
        if not offered:
            return None
        more = _TWICE if self._used >= _ALL * offered else _SPARE
        return more * most * self._used / (now - self._put_at)

    def _moments(self, first: float) -> Iterator[Moment]:
        """Answer the moments that events may have from this time on, each after the one before."""
        pieces, last = self._pieces, self._last
        while pieces and pieces[0].ends < first:
            pieces.popleft()
        for begins, ends, slot, rate in pieces:
            width = 1 / rate
            at = max(first, begins, last + width)
            while at + width <= ends + _EXACT:
                yield Moment(at, begins + (at - begins + _EXACT) // slot * slot, slot)
                last = at
                at += width


class Share:
    """What the destination's own rate lets through here. Without `ask` there is no such rate.

    `wake` is called whenever something else is let through than before.
    """

    def __init__(self, ask: Ask | None, clock: Clock, wake: Callable[[], None]) -> None:
        self.bounded = ask is not None
        """Whether there is such a rate; until somebody said that there is none, nothing goes."""
        self.most = float("inf")
        """How many may go in one send, as far as that is known."""
        self._ask, self._clock, self._wake = ask, clock, wake
        self._begun = clock()
        self._pieces = Pieces()
        self._needed = asyncio.Event()

    def room(self, count: int) -> Room:
        """Answer when so many may go together."""
        self._needed.set()
        return self._pieces.room(count, self._now())

    def take(self, room: Room) -> None:
        """Say that what there is room for goes now."""
        self._pieces.take(room)

    async def keep(self) -> None:
        """Ask for the next part before this one ends, as long as there is something to send."""
        while self._ask is not None:
            if self.bounded:
                await self._needed.wait()
                self._needed.clear()
            begun = self._now()
            try:
                told = await self._ask(self._pieces.wants(begun))
            except Unavailable as error:
                log.warning("the share of a destination's rate is not known", error=str(error))
                await asyncio.sleep(_STORE_DELAY)
                self._needed.set()
                continue
            again = self._put(told, begun) - self._now()
            self._wake()
            await asyncio.sleep(min(max(again, _SOONEST), LOOK_SECONDS))

    def _put(self, told: sharing.Share | None, asked_at: float) -> float:
        """Go by what was told; answer when to ask again."""
        now = self._now()
        self.bounded = told is not None
        if told is None:
            self.most = float("inf")
            return now + LOOK_SECONDS
        pieces = [
            Piece(self._seconds(one.begins), self._seconds(one.ends), one.slot / 1e6, one.rate)
            for one in told.pieces
        ]
        self._pieces.put(pieces, asked_at=asked_at, now=now)
        # Half of what may be late, so that they fit whatever the place of the pieces.
        self.most = max(1, int(told.per_second * BURST_SECONDS / 2))
        return self._seconds(told.again_at)

    def _now(self) -> float:
        return self._seconds(self._clock())

    def _seconds(self, micros: int) -> float:
        """Answer a time as seconds since we began: as such it is exact to less than its tick."""
        return (micros - self._begun) / 1e6
