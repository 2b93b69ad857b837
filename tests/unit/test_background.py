"""Work in the background: behind everything else, in turn with who asks, and closed with it."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Generator

import pytest

from penstock.background import giving_way


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_it_is_done_in_a_thread_that_gives_way_and_no_other_does() -> None:
    before = niceness()

    def work() -> Generator[int]:
        yield niceness()
        yield niceness()

    assert list(giving_way(work())) == [10, 10]
    assert niceness() == before


def test_nothing_is_done_before_it_is_asked_for_and_what_goes_wrong_is_told() -> None:
    done: list[str] = []

    def work() -> Generator[int]:
        done.append("begun")
        yield 1
        raise ValueError("no more")

    found = giving_way(work())
    assert not done
    assert next(found) == 1
    assert done == ["begun"]
    with pytest.raises(ValueError, match="no more"):
        next(found)


def test_who_stops_asking_closes_it() -> None:
    ended: list[int] = []

    def work() -> Generator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append(1)

    found = giving_way(work())
    assert next(found) == 1
    found.close()  # type: ignore[attr-defined]  # it is a generator
    assert ended == [1]


@pytest.mark.parametrize("early", [False, True], ids=["during the wait", "just before"])
def test_what_interrupts_the_wait_interrupts_the_work(early: bool) -> None:
    """As Ctrl-C does, which comes to the main thread; it does not wait for an hour of merging.

    One that comes just before the wait begins ends no call of the system.
    """
    begun, ended = threading.Event(), threading.Event()

    def work() -> Generator[int]:
        begun.set()
        try:
            for _ in range(6_000):
                time.sleep(0.01)
            yield 1
        finally:
            ended.set()

    def interrupt() -> None:
        begun.wait()
        if early:
            time.sleep(0.2)
            _thread.interrupt_main()
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            next(giving_way(work()))
    finally:
        signal.signal(signal.SIGINT, before)

    assert ended.is_set()
    assert time.monotonic() - began < 30
