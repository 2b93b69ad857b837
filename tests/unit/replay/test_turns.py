"""Sends that keep the order: one at a time, and none past what has to be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from builders import event
from replaying import run_virtual

from penstock.envelope import Position
from replay.targets import Delivered, Message, Outcome, Retry
from replay.targets.turns import Turns

BEHIND = Retry("those before were not taken")
AWAY = Retry("away")


def some(*names: int) -> list[Message]:
    return [Message(event(b"%d" % n, id=f"e{n}"), Position(0, n), 1) for n in names]


class Line:
    """A target's own send: what it was given, one call after another."""

    def __init__(self, *answers: Outcome | Exception) -> None:
        self.answers = list(answers)
        self.began: list[str] = []
        self.under_way = 0

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        self.under_way += 1
        assert self.under_way == 1, "two sends at once"
        self.began.append(messages[0].event.id)
        answer = self.answers.pop(0)
        try:
            await asyncio.sleep(1)
        finally:
            self.under_way -= 1
        if isinstance(answer, Exception):
            raise answer
        return [answer] * len(messages)


def test_sends_go_one_behind_the_other() -> None:
    """On two connections the second could be the first there."""

    async def main() -> list[Sequence[Outcome]]:
        line, turns = Line(*[Delivered(None)] * 3), Turns(BEHIND)
        sends = (turns.take(some(n), line.send) for n in (1, 2, 3))
        came = await asyncio.gather(*sends)
        assert line.began == ["e1", "e2", "e3"]
        return came

    assert run_virtual(main()) == [[Delivered(None)]] * 3


@pytest.mark.parametrize("broken", [AWAY, OSError("gone")])
def test_nothing_passes_what_has_to_be_sent_again(broken: Outcome | Exception) -> None:
    """An event of the same key behind it would be there first; what begins afterwards may go."""

    async def main() -> None:
        line, turns = Line(broken, Delivered(None)), Turns(BEHIND)
        sends = (turns.take(some(n, n + 1), line.send) for n in (1, 3))
        first, second = await asyncio.gather(*sends, return_exceptions=True)

        assert first == (broken if isinstance(broken, OSError) else [AWAY, AWAY])
        assert second == [BEHIND, BEHIND]
        assert await turns.take(some(1), line.send) == [Delivered(None)]
        assert line.began == ["e1", "e1"]

    run_virtual(main())


def test_nothing_passes_a_send_that_was_cut_off() -> None:
    """Nobody knows whether it arrived."""

    async def main() -> None:
        line, turns = Line(Delivered(None)), Turns(BEHIND)
        first = asyncio.ensure_future(turns.take(some(1), line.send))
        second = asyncio.ensure_future(turns.take(some(2), line.send))
        await asyncio.sleep(0.5)
        first.cancel()

        assert await second == [BEHIND]
        assert line.began == ["e1"]

    run_virtual(main())
