"""The sender where times are kept, in virtual time: when events go, and what does not hold them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import pytest
from builders import NOON
from msgspec.structs import replace as changed
from replaying import (
    MemoryKeeper,
    MemoryLedger,
    ScriptedTarget,
    next_epoch,
    originals,
    replayed,
    run_virtual,
    sender,
)
from tallied import tally

from penstock.envelope import Position
from replay.events import Original
from replay.lease import Bounds
from replay.request import Options
from replay.targets import Delivered, Failed, Message, Outcome, Retry


def at_times(seconds: Sequence[float], **more: object) -> list[Original]:
    """Answer events that were received at these times."""
    return [
        Original(one.position, changed(one.event, received_at=NOON + round(at * 1_000_000), **more))
        for one, at in zip(originals(len(seconds)), seconds, strict=True)
    ]


def by_chance(count: int, per_second: float) -> list[float]:
    """Answer times as they come from many senders."""
    chance = random.Random(7)
    return list(accumulate(chance.expovariate(per_second) for _ in range(count)))


def errors(target: ScriptedTarget, times: Sequence[float], speed: float) -> list[float]:
    """Answer by how much the time between two sends was another than it had been, sorted."""
    sent = [at for at, _ in target.sent]
    found = [
        abs((b - a) - (d - c) / speed)
        for (a, b), (c, d) in zip(pairwise(sent), pairwise(times), strict=True)
    ]
    return sorted(found)


def ninety_five(values: Sequence[float]) -> float:
    return values[len(values) * 95 // 100]


@pytest.mark.parametrize(("speed", "per_second"), [(1.0, 200.0), (10.0, 200.0)])
def test_the_time_between_events_is_kept_while_answers_are_slow(
    speed: float, per_second: float
) -> None:
    """An answer that takes a tenth of a second must not hold up what is due meanwhile."""
    times = by_chance(1_000, per_second)
    target = ScriptedTarget(seconds=lambda _: 0.1)

    ended = replayed(at_times(times), target, MemoryKeeper(Options(speed=speed, concurrency=300)))

    assert ended.state == "finished"
    assert ninety_five(errors(target, times, speed)) < 0.02
    assert [m.position.offset for _, m in target.sent] == list(range(1_000))
    assert target.busiest > 10, "sends overlap"
    first, last = target.sent[0][0], target.sent[-1][0]
    assert last - first == pytest.approx((times[-1] - times[0]) / speed, abs=0.02)
    assert ended.progress.late == 0


def test_a_gap_shortens_silences() -> None:
    """A night between two events is not waited for."""
    target = ScriptedTarget()

    replayed(at_times([0, 1, 40_000]), target, MemoryKeeper(Options(speed=1.0, gap=5.0)))

    assert [b - a for (a, _), (b, _) in pairwise(target.sent)] == pytest.approx([1, 5], abs=0.01)


def test_the_rate_holds_beside_the_speed_and_lateness_is_told() -> None:
    """A bound for the destination comes first; what is late is sent as soon as it may."""
    keeper, target = MemoryKeeper(Options(speed=1.0, rate=10.0)), ScriptedTarget()

    ended = replayed(at_times([n / 100 for n in range(100)]), target, keeper)

    assert target.sent[-1][0] - target.sent[0][0] == pytest.approx(9.8, abs=0.2)
    assert ended.progress.late > 80
    told = [p.waiting for _, _, p in keeper.saves if p.waiting]
    assert any("behind its times" in one for one in told)


def test_what_is_late_does_not_move_what_follows() -> None:
    """A slow moment of the destination is made up for: the clock is not set back."""
    target = ScriptedTarget(seconds=lambda m: 3.5 if m.position.offset == 2 else 0.01)

    replayed(at_times(range(10)), target, MemoryKeeper(Options(speed=1.0, concurrency=1)))

    begun = target.sent[0][0]
    sent = [at - begun for at, _ in target.sent]
    assert sent == pytest.approx([0, 1, 2, 5.5, 5.51, 5.52, 6, 7, 8, 9], abs=0.03)


def test_a_retry_holds_up_no_other_event() -> None:
    """Nor does it count as the moment from which the others are counted."""

    def script(message: Message) -> Outcome:
        first = message.position == Position(0, 1) and message.attempt < 4
        return Retry("answered 500", 500) if first else Delivered(200)

    target = ScriptedTarget(script)
    replayed(at_times(range(8)), target, MemoryKeeper(Options(speed=1.0)))

    firsts = [at for at, m in target.sent if m.attempt == 1]
    assert [b - a for a, b in pairwise(firsts)] == pytest.approx([1.0] * 7, abs=0.01)


def test_after_a_pause_it_goes_on_with_the_next_event_at_once() -> None:
    """Nobody waits for the rest of a silence, and nothing of the pause is made up for."""
    keeper, target = MemoryKeeper(Options(speed=1.0)), ScriptedTarget()
    keeper.wishes = [(20.0, "pause"), (100.0, "resume")]

    ended = replayed(at_times([n * 4 for n in range(20)]), target, keeper)

    after = [at for at, _ in target.sent if at > 25]
    assert 100 <= after[0] < 102
    assert [b - a for a, b in pairwise(after)] == pytest.approx([4] * (len(after) - 1), abs=0.01)
    assert ended.progress.late == 0


def test_a_destination_that_asks_for_rest_stops_the_clock() -> None:
    """A minute of rest must not end with a minute's events at once."""

    def script(message: Message) -> Outcome:
        refused = message.position == Position(0, 5) and message.attempt == 1
        return Retry("answered 429", 429, 60.0) if refused else Delivered(200)

    target = ScriptedTarget(script)
    replayed(at_times(range(30)), target, MemoryKeeper(Options(speed=1.0)))

    after = [at for at, m in target.sent if m.position.offset > 5]
    assert after[0] - target.times(Position(0, 5))[0] >= 60
    assert [b - a for a, b in pairwise(after)] == pytest.approx([1] * (len(after) - 1), abs=0.01)


def test_the_speed_changes_while_running() -> None:
    """Slower, faster, and no times at all, each within two seconds."""
    keeper, target = MemoryKeeper(Options(speed=1.0)), ScriptedTarget()

    async def main() -> None:
        running = asyncio.ensure_future(
            sender(at_times([n * 10 for n in range(60)]), target, keeper, MemoryLedger()).run()
        )
        await asyncio.sleep(55)
        assert len(target.sent) == 6
        keeper.options = Options(speed=10.0)
        await asyncio.sleep(2)
        fast = len(target.sent)
        await asyncio.sleep(10)
        assert len(target.sent) - fast == 10
        keeper.options = Options(speed=0.01)
        await asyncio.sleep(5)
        slow = len(target.sent)
        await asyncio.sleep(60)
        assert len(target.sent) == slow
        keeper.options = Options()
        await asyncio.sleep(3)
        assert len(target.sent) == 60
        await running

    run_virtual(main())
    assert [m.position.offset for _, m in target.sent] == list(range(60))


def test_by_the_event_s_own_time() -> None:
    """What came in as one file happened over a day."""
    events = [
        Original(one.position, changed(one.event, event_time=one.event.received_at, received_at=0))
        for one in at_times([0, 3, 5])
    ]
    target = ScriptedTarget()

    replayed(events, target, MemoryKeeper(Options(speed=1.0, timing="event")))

    assert [b - a for (a, _), (b, _) in pairwise(target.sent)] == pytest.approx([3, 2], abs=0.01)


def test_only_what_is_due_soon_is_announced() -> None:
    """What was announced is repeated after a crash, and counted: not events of next week."""
    keeper, target = MemoryKeeper(Options(speed=1.0)), ScriptedTarget()
    ledger, events = MemoryLedger(), at_times([n * 60 for n in range(50)])

    async def main() -> None:
        dying = asyncio.ensure_future(sender(events, target, keeper, ledger).run())
        await asyncio.sleep(150)
        dying.cancel()
        await asyncio.wait([dying])
        next_epoch(keeper)
        ended = await sender(events, target, keeper, ledger).run()
        assert ended.progress.repeated <= 1
        assert ended.progress.delivered == 50

    run_virtual(main())
    assert tally(ledger.rows).open == 0


def test_few_checkpoints_are_made_for_few_events() -> None:
    """Each is a write to the disk: one for every event would be one every five milliseconds."""
    keeper, target = MemoryKeeper(Options(speed=1.0)), ScriptedTarget()

    replayed(at_times([n / 200 for n in range(4_000)]), target, keeper)

    assert len(keeper.saves) < 20 * 10


def test_a_replay_in_time_to_a_bus_sends_what_is_due_together() -> None:
    """Kafka takes batches: what is due at once goes at once, in order."""
    times = by_chance(1_000, 500)
    target = ScriptedTarget(most=5_000, ordered=True)

    ended = replayed(
        at_times(times, key=b"k"), target, MemoryKeeper(Options(speed=1.0)), bounds=Bounds()
    )

    assert ended.state == "finished"
    assert [m.position.offset for _, m in target.sent] == list(range(1_000))
    assert ninety_five(errors(target, times, 1.0)) < 0.02


class Opening(ScriptedTarget):
    """A bus: what is sent first waits for a connection, and what follows waits behind it."""

    def __init__(self, script: Callable[[Message], Outcome] = lambda _: Delivered(None)) -> None:
        super().__init__(script, most=5_000, ordered=True)
        self._opening = asyncio.Lock()
        self._open = False

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        async with self._opening:
            await asyncio.sleep(0 if self._open else 1.0)
            self._open = True
        return await super().send(messages)


def test_the_clock_begins_when_a_bus_has_taken_the_first_event() -> None:
    """Else all that is due while its connection opens comes in one burst."""
    times = [n / 100 for n in range(300)]
    target = Opening()

    ended = replayed(at_times(times), target, MemoryKeeper(Options(speed=1.0)))

    first, second = target.sent[0][0], target.sent[1][0]
    assert second - first == pytest.approx(0.02, abs=0.005), "the first was answered before"
    assert [at - second for at, _ in target.sent[1:]] == pytest.approx(times[:-1], abs=0.005)
    assert ended.progress.late == 0


def test_the_clock_begins_whatever_the_first_answer_is() -> None:
    """It says that the bus was reached, or that nobody can: other events may be taken."""

    def script(message: Message) -> Outcome:
        return Failed("too large") if message.position.offset == 0 else Delivered(None)

    target = Opening(script)
    ended = replayed(at_times(range(5)), target, MemoryKeeper(Options(speed=1.0)))

    at = [at for at, _ in target.sent]
    assert [b - a for a, b in pairwise(at)] == pytest.approx([1.0] * 4, abs=0.02)
    assert (ended.progress.failed, ended.progress.delivered) == (1, 4)


def test_the_clock_waits_for_a_bus_that_is_away_at_first() -> None:
    """What was due meanwhile is late for nothing: nobody could have it."""

    def script(message: Message) -> Outcome:
        refused = message.position.offset == 0 and message.attempt < 4
        return Retry("cannot be reached") if refused else Delivered(None)

    target = Opening(script)
    ended = replayed(at_times(range(10)), target, MemoryKeeper(Options(speed=1.0)))

    taken = [at for at, m in target.sent if m.position.offset or m.attempt == 4]
    assert [b - a for a, b in pairwise(taken)] == pytest.approx([1.0] * 9, abs=0.02)
    assert (ended.progress.delivered, ended.progress.late) == (10, 0)
