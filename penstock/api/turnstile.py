"""Let only so many slow calls in at once, so that quick ones always find a thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType

from penstock.errors import Overloaded


class Turnstile:
    """At most `inside` callers are in the block and `waiting` stand in line; others are refused.

    The sum over all turnstiles has to stay below the server's threads (40).
    """

    def __init__(self, what: str, *, inside: int, waiting: int) -> None:
        self._what = what
        self._line = threading.BoundedSemaphore(inside + waiting)
        self._inside = threading.BoundedSemaphore(inside)

    def __enter__(self) -> None:
        """Wait for a place inside; raise `Overloaded` at once when the line is full."""
        if not self._line.acquire(blocking=False):
            raise Overloaded(f"too many {self._what} at once; try again later")
        self._inside.acquire()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._inside.release()
        self._line.release()


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where slow calls are made: 39 of the server's 40 threads at most."""

    sql: Turnstile = field(default_factory=lambda: Turnstile("SQL statements", inside=2, waiting=6))
    search: Turnstile = field(default_factory=lambda: Turnstile("searches", inside=4, waiting=14))
    completions: Turnstile = field(
        default_factory=lambda: Turnstile("completions", inside=1, waiting=2)
    )
    plans: Turnstile = field(default_factory=lambda: Turnstile("plans", inside=2, waiting=6))
    trials: Turnstile = field(
        default_factory=lambda: Turnstile("trials of contracts", inside=1, waiting=1)
    )
