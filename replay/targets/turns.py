"""Sends that keep the order: one at a time, and none past what has to be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from replay.targets import Message, Outcome, Retry


class Turns:
    """The sends of one target that keeps the order, each behind those that were begun before it.

    One that waited while another met with a `Retry`, or was cut off, is not made: its messages are
    answered with `behind`, so that none is delivered before those in front of it.
    """

    def __init__(self, behind: Retry) -> None:
        self._behind = behind
        self._turn = asyncio.Lock()
        self._setbacks = 0
        """How often something has to be sent again: what was begun behind it must wait."""

    async def take(
        self,
        messages: Sequence[Message],
        send: Callable[[Sequence[Message]], Awaitable[Sequence[Outcome]]],
    ) -> Sequence[Outcome]:
        """Send the messages when their turn comes; answer an outcome for each."""
        setbacks = self._setbacks
        async with self._turn:
            if setbacks != self._setbacks:
                return [self._behind] * len(messages)
            try:
                outcomes = await send(messages)
            except BaseException:
                self._setbacks += 1
                raise
            self._setbacks += any(isinstance(each, Retry) for each in outcomes)
            return outcomes
