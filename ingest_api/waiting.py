"""From the log's thread back to the event loop, once for many calls.

The log makes the appends of many requests durable together and finishes their futures one after
the other. `asyncio.wrap_future` wakes the loop for each of them; here the first one wakes it, and
it finds the others finished too (a twenty-fifth of a small request's time). And where that one
cancels the log's future when a request is given up, here the log is left alone: what was handed to
it is stored.

Who waits does so for a bounded time: senders without a deadline of their own would hang with a disk
that hangs. One timer watches over all of them; `asyncio.timeout` is one for each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeVar

from penstock.errors import LogUnavailable

T = TypeVar("T")


class Completions:
    """Finished futures on their way to the tasks of one event loop that wait for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, seconds: float) -> None:
        """Take the loop, and how long the log may take."""
        self._loop = loop
        self._seconds = seconds
        self._finished: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False
        # Who waits, until when; the first of them waits no longer than the others.
        self._until: dict[asyncio.Future[Any], float] = {}
        self._watched = False

    def of(self, future: Future[T]) -> asyncio.Future[T]:
        """Answer what can be awaited in the loop: it ends as `future` does.

        If that takes too long, with `LogUnavailable`.
        """
        waiter: asyncio.Future[T] = self._loop.create_future()
        if future.done():
            _pass_on(future, waiter)
            return waiter
        self._until[waiter] = until = self._loop.time() + self._seconds
        if not self._watched:
            self._watched = True
            self._loop.call_at(until, self._give_up)
        future.add_done_callback(lambda finished: self._finish(waiter, finished))
        return waiter

    def _give_up(self) -> None:
        """Let go those who have waited long enough, and look again when the next one has."""
        now = self._loop.time()
        while self._until:
            waiter, until = next(iter(self._until.items()))
            if until > now:
                self._loop.call_at(until, self._give_up)
                return
            del self._until[waiter]
            if not waiter.done():
                waiter.set_exception(
                    LogUnavailable(f"the log did not answer within {self._seconds:g} seconds")
                )
        self._watched = False

    def _finish(self, waiter: asyncio.Future[T], future: Future[T]) -> None:
        """Note a finished future; in whatever thread finished it."""
        self._finished.append((waiter, future))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # First the flag: whoever appends after it wakes the loop again, perhaps for nothing.
        self._woken = False
        while self._finished:
            waiter, future = self._finished.popleft()
            self._until.pop(waiter, None)
            if not waiter.done():
                _pass_on(future, waiter)


def _pass_on(future: Future[T], waiter: asyncio.Future[T]) -> None:
    try:
        waiter.set_result(future.result())
    except Exception as error:  # noqa: BLE001 - it goes to whoever waits
        waiter.set_exception(error)
