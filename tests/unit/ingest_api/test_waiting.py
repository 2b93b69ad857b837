from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any

import pytest

from ingest_api.waiting import Completions
from penstock.errors import LogUnavailable


def test_a_result_and_an_error_reach_who_waits() -> None:
    async def scenario() -> None:
        completions = Completions(asyncio.get_running_loop(), seconds=20)
        good: Future[int] = Future()
        bad: Future[int] = Future()
        waiting = [completions.of(good), completions.of(bad)]
        thread = threading.Thread(
            target=lambda: (good.set_result(1), bad.set_exception(LogUnavailable("full")))
        )
        thread.start()

        assert await waiting[0] == 1
        with pytest.raises(LogUnavailable):
            await waiting[1]
        thread.join()

    asyncio.run(scenario())


def test_a_finished_future_needs_no_waking() -> None:
    async def scenario() -> bool:
        future: Future[int] = Future()
        future.set_result(1)
        return Completions(asyncio.get_running_loop(), seconds=20).of(future).done()

    assert asyncio.run(scenario())


def test_a_future_that_ends_while_the_loop_stops_looking_wakes_it_again() -> None:
    """The moment between the last look and going to sleep: a request would never be answered."""

    class LastLook(deque[Any]):
        """Finishes `late` at the moment the loop finds nothing more."""

        def __bool__(self) -> bool:
            empty = len(self) == 0
            if empty and not late.done():
                late.set_result(2)
            return not empty

    late: Future[int] = Future()

    async def scenario() -> int:
        completions = Completions(asyncio.get_running_loop(), seconds=20)
        completions._finished = LastLook()
        first: Future[int] = Future()
        waiting = [completions.of(first), completions.of(late)]
        first.set_result(1)
        async with asyncio.timeout(5):
            return sum(await asyncio.gather(*waiting))

    assert asyncio.run(scenario()) == 3


def test_who_waits_too_long_is_told_and_others_wait_on() -> None:
    """A disk may hang without an error; a sender without a deadline would hang with it."""

    async def scenario() -> None:
        completions = Completions(asyncio.get_running_loop(), seconds=0.1)
        futures: list[Future[int]] = [Future() for _ in range(3)]
        stuck = completions.of(futures[0])
        fine = completions.of(futures[1])
        futures[1].set_result(1)
        assert await fine == 1

        with pytest.raises(LogUnavailable, match=r"within 0\.1 seconds"):
            await stuck
        # The watch begins anew, and an answer that comes too late hurts nobody.
        later = completions.of(futures[2])
        futures[0].set_result(1)
        with pytest.raises(LogUnavailable):
            await later
        assert not completions._until

    asyncio.run(scenario())


def test_no_waking_is_lost_however_thread_and_loop_meet() -> None:
    """A request whose answer is ready and never sent hangs until its client gives up."""
    orders: queue.SimpleQueue[Future[int] | None] = queue.SimpleQueue()

    def finish() -> None:
        while (future := orders.get()) is not None:
            future.set_result(1)

    async def one(completions: Completions) -> None:
        for _ in range(400):
            future: Future[int] = Future()
            orders.put(future)
            await completions.of(future)

    async def scenario() -> None:
        completions = Completions(asyncio.get_running_loop(), seconds=20)
        async with asyncio.timeout(20):
            await asyncio.gather(*(one(completions) for _ in range(5)))

    thread = threading.Thread(target=finish)
    thread.start()
    try:
        asyncio.run(scenario())
    finally:
        orders.put(None)
        thread.join()
