"""End a run well when its process is told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """Answer an event that SIGTERM sets for the block, instead of what it does otherwise.

    Whoever ends an installation, or moves a pod, sends that signal, and Dagster would make a failed
    run of it. Its own "terminate" is another signal and goes on doing that. Outside the main thread
    there are no signals, and the event is never set.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
