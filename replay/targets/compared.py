"""Two HTTP endpoints that get the same, and whether they answer the same.

The first is the destination: what it answers decides what becomes of an event. The second is there
to be looked at, as the next version of a service is before it takes over; it decides nothing, and
its answer is not waited for longer than that of an attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from replay.targets import Delivered, Failed, Message, Outcome
from replay.targets.http import Answer, HttpTarget
from replay.targets.places import Comparison


class ComparedTarget:
    """Sends each event to both endpoints at the same time. Used by one event loop."""

    most = 1
    ordered = False

    def __init__(self, first: HttpTarget, second: HttpTarget, by: Comparison) -> None:
        self._first, self._second, self._by = first, second, by

    def check(self, message: Message) -> Failed | None:
        """Make the headers of both."""
        return self._first.check(message) or self._second.check(message)

    async def examine(self) -> str | None:
        """Answer what is known to be wrong with the destination itself."""
        return await self._first.examine()

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Send each message to both; answer what became of it at the first."""
        return [await self._both(message) for message in messages]

    async def _both(self, message: Message) -> Outcome:
        first, second = await asyncio.gather(
            self._first.answer(message), self._second.answer(message)
        )
        outcome = first.outcome
        if isinstance(outcome, Delivered | Failed):
            return replace(outcome, differs=difference(first, second, self._by))
        return outcome

    async def close(self) -> None:
        """Close every connection."""
        await self._first.close()
        await self._second.close()


def difference(first: Answer, second: Answer, by: Comparison) -> str | None:
    """Say in what the second answer differs, None where it does not."""
    if second.status is None:
        return f"the other endpoint: {second.reason}"
    if second.status != first.status:
        return f"the other endpoint answered {second.status}"
    if by == "body" and second.digest != first.digest:
        return "the other endpoint answered with another body"
    return None
