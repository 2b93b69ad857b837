"""A destination's own rate among several senders, in virtual time: kept, shared, used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st
from replaying import (
    MemoryKeeper,
    MemoryLedger,
    ScriptedTarget,
    now,
    originals,
    run_virtual,
    sender,
)
from shared_rates import SharedRate, excess

from penstock.envelope import Micros
from penstock.metadata import sharing
from penstock.metadata.sharing import Share, Sharing
from replay.pacing import BURST_SECONDS
from replay.request import Options
from replay.share import Piece, Pieces
from replay.targets import Delivered, Message, Outcome, Retry

EXACT = 1e-5
"""Clocks count whole microseconds."""


class Crowd:
    """Senders that come and go, all of them to the same destination."""

    def __init__(self, rate: SharedRate) -> None:
        self.rate = rate
        self.targets: list[ScriptedTarget] = []
        self.keepers: list[MemoryKeeper] = []
        self._running: list[asyncio.Task[object]] = []

    def join(self, *, events: int = 100_000, options: Options | None = None, **target) -> int:
        """Begin another sender; answer its number."""
        number = len(self.targets)
        self.targets.append(ScriptedTarget(**target))
        self.keepers.append(MemoryKeeper(options))
        one = sender(
            originals(events),
            self.targets[-1],
            self.keepers[-1],
            MemoryLedger(),
            ask=self.rate.asker(f"r{number}"),
        )
        self._running.append(asyncio.ensure_future(one.run()))
        return number

    async def crash(self, number: int) -> None:
        """End a sender as it is: it says nothing to anybody."""
        self._running[number].cancel()
        await asyncio.wait([self._running[number]])

    async def end(self) -> None:
        """End all of them."""
        for number in range(len(self._running)):
            await self.crash(number)

    def times(self, number: int | None = None) -> list[float]:
        """Answer when one sent, or any of them."""
        targets = self.targets if number is None else [self.targets[number]]
        return [at for target in targets for at, _ in target.sent]

    def per_second(self, number: int | None, start: float, end: float) -> float:
        """Answer how many a second were sent between two times."""
        return sum(start <= at < end for at in self.times(number)) / (end - start)


def together(rate: SharedRate, play: Callable[[Crowd], object], *, seconds: float = 20.0) -> Crowd:
    """Let a crowd play for so long; answer what became of it."""

    async def main() -> Crowd:
        crowd = Crowd(rate)
        playing = asyncio.ensure_future(play(crowd))  # type: ignore[arg-type]  # a coroutine
        await asyncio.sleep(seconds)
        await playing
        await crowd.end()
        return crowd

    return run_virtual(main())


async def come_and_go(crowd: Crowd) -> None:
    """Two at once, a third one later, one that crashes, one that comes after that."""
    crowd.join()
    crowd.join(script=often_refused)
    await asyncio.sleep(3.3)
    crowd.join(seconds=lambda _: 0.0)
    await asyncio.sleep(4.1)
    await crowd.crash(0)
    await asyncio.sleep(2.7)
    crowd.join()


def often_refused(message: Message) -> Outcome:
    """Every tenth event needs another attempt: those count as well."""
    again = message.position.offset % 10 == 0 and message.attempt == 1
    return Retry("answered 500", 500, None) if again else Delivered(200)


@pytest.mark.parametrize("rate", [0.4, 3, 100, 432.1])
def test_all_senders_together_keep_the_rate_of_the_destination(rate: float) -> None:
    """Whoever joins, crashes, or is slow: a destination sized for a rate must not see more."""
    seconds = 20.0 if rate > 1 else 120.0

    crowd = together(SharedRate(rate), come_and_go, seconds=seconds)

    assert excess(crowd.times(), rate) <= EXACT
    assert len(crowd.times()) >= 0.85 * rate * seconds - 4, "and it is reached"


@pytest.mark.parametrize("rate", [0.4, 3, 100, 432.1])
def test_nobody_starves(rate: float) -> None:
    """Each of those that could send all of it gets its part, the last one to come too."""
    seconds = 20.0 if rate > 1 else 120.0

    async def play(crowd: Crowd) -> None:
        crowd.join()
        crowd.join()
        await asyncio.sleep(seconds / 4)
        crowd.join()

    crowd = together(SharedRate(rate), play, seconds=seconds)

    for number in range(3):
        part = crowd.per_second(number, seconds / 2, seconds)
        assert part == pytest.approx(rate / 3, rel=0.2 if rate > 1 else 0.5)


def test_what_one_does_not_use_the_others_do() -> None:
    """A slow replay holds no half of the rate, and it gets all that it can send."""

    async def play(crowd: Crowd) -> None:
        crowd.join(options=Options(concurrency=1), seconds=lambda _: 0.1)
        crowd.join()
        crowd.join(options=Options(rate=5))

    crowd = together(SharedRate(200), play)

    assert excess(crowd.times(), 200) <= EXACT
    assert crowd.per_second(0, 5, 20) >= 8
    assert crowd.per_second(2, 5, 20) >= 4
    assert excess(crowd.times(2), 5) <= EXACT, "its own rate holds beside"
    assert crowd.per_second(1, 5, 20) >= 165
    assert crowd.per_second(None, 5, 20) >= 180


def test_one_that_has_nothing_to_send_leaves_the_rate_to_the_others() -> None:
    """A replay that is paused, or waits for retries, still runs."""

    async def play(crowd: Crowd) -> None:
        crowd.join(events=100)
        crowd.join()
        paused = crowd.join()
        await asyncio.sleep(5)
        crowd.keepers[paused].wishes.append((now(), "pause"))

    crowd = together(SharedRate(100), play)

    assert crowd.per_second(1, 10, 20) >= 95


def test_without_the_store_nothing_is_sent_beyond_what_was_dealt() -> None:
    """Nobody knows then who else sends; afterwards it goes on as before."""
    rate = SharedRate(100)
    rate.silent = (5.0, 12.0)

    async def play(crowd: Crowd) -> None:
        crowd.join()
        crowd.join()

    crowd = together(rate, play)

    assert excess(crowd.times(), 100) <= EXACT
    assert crowd.per_second(None, 7.0, 12.0) == 0
    assert crowd.per_second(None, 13.0, 20.0) >= 95
    assert min(crowd.per_second(number, 14, 20) for number in (0, 1)) >= 40


def test_the_store_is_asked_by_the_second_and_not_by_the_event() -> None:
    """Ten thousand events a second must not be as many transactions."""
    rate = SharedRate(10_000)

    async def play(crowd: Crowd) -> None:
        crowd.join(seconds=lambda _: 0.0)
        crowd.join(seconds=lambda _: 0.0)

    crowd = together(rate, play, seconds=5)

    assert len(crowd.times()) > 5_000
    assert rate.asks <= 2 * (5 + 3)


@pytest.mark.parametrize(("before", "after"), [(100, 10), (10, 100), (0.01, 50), (50, 0.01)])
def test_another_rate_holds_soon(before: float, after: float) -> None:
    """Also one that follows a rate of one send in a hundred seconds."""

    async def play(crowd: Crowd) -> None:
        crowd.join()
        crowd.join()
        await asyncio.sleep(5)
        crowd.rate.change(after)

    crowd = together(SharedRate(before), play, seconds=30)

    assert excess([at for at in crowd.times() if at < 5], before) <= EXACT
    assert excess([at for at in crowd.times() if at >= 11], after) <= EXACT
    assert crowd.per_second(None, 11, 30) >= 0.9 * after - 0.06


def test_a_rate_that_a_destination_gets_later_holds_soon() -> None:
    """And one that is taken away holds nobody up."""
    rate = SharedRate(None)

    async def play(crowd: Crowd) -> None:
        crowd.join()
        crowd.join()
        await asyncio.sleep(2)
        rate.rate = 20
        await asyncio.sleep(8)
        rate.rate = None

    crowd = together(rate, play, seconds=14)

    assert crowd.per_second(None, 0, 2) > 100
    assert excess([at for at in crowd.times() if 5 <= at < 10], 20) <= EXACT
    assert crowd.per_second(None, 13, 14) > 100


def test_batches_keep_the_rate_as_well() -> None:
    """A target that takes thousands at once must not be sent a second's worth at once."""

    async def play(crowd: Crowd) -> None:
        for _ in range(3):
            crowd.join(most=5_000, ordered=True)

    crowd = together(SharedRate(2_000), play, seconds=10)

    assert excess(crowd.times(), 2_000) <= EXACT
    assert crowd.per_second(None, 2, 10) >= 1_700
    assert min(crowd.per_second(number, 2, 10) for number in range(3)) >= 500


class Alone(SharedRate):
    """A mutant: everyone is dealt the whole rate, as with a bucket of one's own."""

    def told(self, who: str, wants: float | None, rate: float, at: Micros) -> Share:
        return sharing.share(sharing.asked(Sharing(), who, wants, rate=rate, now=at), who, at)


class AtOnce(SharedRate):
    """A mutant: who joins is dealt a round at once, beside those that were dealt already."""

    def told(self, who: str, wants: float | None, rate: float, at: Micros) -> Share:
        if who not in self.sharing.members:
            fresh = sharing.asked(Sharing(), who, wants, rate=rate, now=at)
            super().told(who, wants, rate, at)
            return sharing.share(fresh, who, at)
        return super().told(who, wants, rate, at)


class Divided(SharedRate):
    """A mutant: the rate is divided by those who are known, with no moments of their own."""

    def told(self, who: str, wants: float | None, rate: float, at: Micros) -> Share:
        told = super().told(who, wants, rate, at)
        part = rate / len(self.sharing.members)
        pieces = (sharing.Piece(at - 1_000_000, at + 2_000_000, 20_000, part),)
        return Share(pieces, part, told.again_at)


@pytest.mark.parametrize("mutant", [Alone, AtOnce, Divided])
def test_sharing_that_is_wrong_is_noticed(mutant: type[SharedRate]) -> None:
    """Otherwise the tests above would hold for anything."""
    crowd = together(mutant(100), come_and_go, seconds=12)

    assert excess(crowd.times(), 100) > 100 * EXACT


@given(
    st.floats(0.05, 20_000),
    st.lists(
        st.tuples(st.floats(0, 0.4), st.integers(0, 3), st.booleans(), st.integers(1, 3)),
        min_size=5,
        max_size=80,
    ),
)
def test_whoever_asks_whenever_moments_are_never_too_near(
    rate: float, steps: Sequence[tuple[float, int, bool, int]]
) -> None:
    """Asks that come late, are lost, or overtake one another take nothing from the bound."""
    at, dealt, taken = 0.0, Sharing(), []
    pieces = [Pieces() for _ in range(4)]
    for gap, who, asks, count in steps:
        at += gap
        mine, clock = pieces[who], NOON + int(at * 1e6)
        if asks:
            dealt = sharing.asked(dealt, str(who), mine.wants(at), rate=rate, now=clock)
            told = sharing.share(dealt, str(who), clock)
            mine.put([in_seconds(one) for one in told.pieces], asked_at=at, now=at)
        for _ in range(20):
            room = mine.room(count, at)
            if room.seconds > 0:
                break
            mine.take(room)
            taken += [at] * count

    assert excess(taken, rate) <= EXACT


def in_seconds(piece: sharing.Piece) -> Piece:
    begins, ends, slot, rate = piece
    return Piece((begins - NOON) / 1e6, (ends - NOON) / 1e6, slot / 1e6, rate)


def test_what_was_told_long_ago_holds_no_more() -> None:
    """A rate may have changed since; a clock that was set back makes old time new again."""
    pieces = Pieces()
    pieces.put([Piece(0.0, 1_000.0, 0.1, 10.0)], asked_at=100.0, now=100.0)

    assert pieces.room(1, 101.0).seconds == 0
    assert pieces.room(1, 100.0 + sharing.HOLD / 1e6 + 1).seconds == float("inf")
    assert pieces.room(1, 50.0).seconds == float("inf")


def test_time_that_was_not_used_is_not_saved_up() -> None:
    """More than the burst would come at once."""
    pieces = Pieces()
    pieces.put([Piece(0.0, 4.0, 0.01, 100.0)], asked_at=0.0, now=0.0)

    count = 0
    while (room := pieces.room(1, 3.5)).seconds == 0:
        pieces.take(room)
        count += 1

    assert count <= 100 * BURST_SECONDS + 1
