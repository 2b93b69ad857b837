"""Work that goes on beside what people wait for, and goes behind it."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from typing import TypeVar

_T = TypeVar("_T")

_NOTICED_SECONDS = 0.5

_NICENESS = 10
"""As of ``nice``: beside others who want a core it gets a tenth of one."""


def give_way() -> None:
    """Let this thread, and those that it starts, work when nobody else wants the machine.

    On Linux it is of the thread alone; there is no way back without privileges.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def giving_way(work: Generator[_T]) -> Iterator[_T]:
    """Answer what `work` answers, done in a thread that gives way; raise what it raises.

    It is done one at a time, when the next is asked for, and closed with the iterator. What
    interrupts the wait for it, as Ctrl-C does, interrupts the work.
    """
    end = object()

    def begin() -> int:
        give_way()
        return threading.get_ident()

    with closing(work), ThreadPoolExecutor(1, "background") as thread:
        number = thread.submit(begin).result()  # of a thread that has begun, the end is waited for
        while True:
            step = None
            try:
                step = thread.submit(next, work, end)
                # A signal that comes just before a wait begins does not end it.
                while not wait((step,), _NOTICED_SECONDS).done:
                    pass
                item = step.result()
            except BaseException as error:
                if step is None or not step.done():
                    _interrupt(number, type(error))
                raise
            if item is end:
                return
            yield item  # type: ignore[misc]  # all else is of the work


def _interrupt(thread: int, kind: type[BaseException]) -> None:
    """Raise such an error in the thread, before the next of its Python that it comes to."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
