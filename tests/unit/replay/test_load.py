"""How many sends at once a destination bears: fewer when it has too much, more again after that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from replaying import (
    MemoryKeeper,
    MemoryLedger,
    ScriptedTarget,
    originals,
    replayed,
    run_virtual,
    sender,
)

from penstock.envelope import Position
from replay.load import Load, has_too_much
from replay.request import Options
from replay.targets import BROKEN, Message, Outcome, Retry


def lowered(load: Load, *, started: float = 0.0, now: float = 0.0) -> int:
    load.too_much(started=started, now=now)
    return load.limit


def test_half_as_many_go_when_it_is_too_much_and_one_more_after_each_round() -> None:
    """Additive increase, multiplicative decrease: what several senders share evens out by it."""
    load = Load(32)
    assert lowered(load, now=1.0) == 16

    assert [load.delivered() for _ in range(16)] == [False] * 15 + [True]
    assert [load.delivered() for _ in range(17)] == [False] * 16 + [True]
    assert (load.limit, load.most) == (18, 32)
    assert lowered(load, started=1.0, now=2.0) == 9


def test_it_goes_back_to_what_was_asked_and_no_further() -> None:
    """Concurrency is a promise to the destination."""
    load = Load(4)
    lowered(load)
    lowered(load)
    grown = sum(load.delivered() for _ in range(1_000))
    assert (grown, load.limit) == (3, 4)


def test_sends_of_before_say_nothing_about_the_new_limit() -> None:
    """A round of 32 that all fail is one sign, not 32: it would be down to one at once."""
    load = Load(32)
    lowered(load, started=0.0, now=1.0)
    assert lowered(load, started=0.5, now=1.1) == 16
    assert lowered(load, started=1.0, now=1.2) == 8


def test_there_is_always_one() -> None:
    """A destination may be overloaded by others, or answer nobody."""
    load = Load(32)
    assert [lowered(load, started=at, now=at + 1.0) for at in range(6)] == [16, 8, 4, 2, 1, 1]


def test_another_concurrency_begins_anew() -> None:
    """Who changes it wants to see it."""
    load = Load(32)
    lowered(load)
    load.change(8)
    assert (load.limit, load.most) == (8, 8)


@pytest.mark.parametrize(
    ("outcome", "sign"),
    [
        (Retry("answered 503", 503), True),
        (Retry("answered 429", 429, 1.0), True),
        (Retry("answered 504", 504), True),
        (BROKEN, True),
        (Retry("answered 500", 500), False),
        (Retry("answered 401", 401), False),
    ],
)
def test_an_event_that_fails_is_no_sign_of_load(outcome: Retry, *, sign: bool) -> None:
    """One event in fifty that meets a bug would hold up the others."""
    assert has_too_much(outcome) is sign


class Small(ScriptedTarget):
    """Takes so many at once, and answers 503 to others."""

    def __init__(self, bears: int) -> None:
        super().__init__()
        self.bears = bears
        self.refused = 0

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        if self.under_way < self.bears:
            return await super().send(messages)
        self.refused += len(messages)
        await asyncio.sleep(0.001)
        return [Retry("answered 503", 503)] * len(messages)


def test_an_overloaded_destination_gets_what_it_bears() -> None:
    """Thirty-two at once against five would be refused six times as often as it is taken."""
    target = Small(5)

    ended = replayed(originals(2_000), target, MemoryKeeper(Options(retries=50)))

    assert ended.state == "finished"
    assert sorted(target.delivered) == [Position(0, place) for place in range(2_000)]
    assert target.refused < 300


def test_a_sender_that_learns_nothing_is_refused_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutant of the test before."""
    monkeypatch.setattr(Load, "too_much", lambda *_, **__: None)
    target = Small(5)

    replayed(originals(2_000), target, MemoryKeeper(Options(retries=50, pause_after=10_000)))

    assert target.refused > 2_000


def test_it_is_said_while_fewer_go_and_over_when_the_destination_recovers() -> None:
    """Who sees a replay that is slower than asked has to see why."""
    target = Small(5)
    said: list[str | None] = []

    keeper = MemoryKeeper(Options(retries=50, concurrency=16))

    async def main() -> None:
        running = asyncio.ensure_future(
            sender(originals(6_000), target, keeper, MemoryLedger()).run()
        )
        while not running.done():
            await asyncio.sleep(0.5)
            if len(said) == 3:
                target.bears = 100
            said.append(keeper.progress.waiting)
        await running

    run_virtual(main())

    assert any(one and one.startswith("the destination has too much to do: ") for one in said[:3])
    assert said[-1] is None
