"""Let only so many slow calls in at once, so that quick ones always find a thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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


class Seats:
    """At most `each` callers of one team hold something open at once; others are refused."""

    def __init__(self, what: str, *, each: int) -> None:
        self._what = what
        self._each = each
        self._held: Counter[str] = Counter()
        self._guard = threading.Lock()

    @property
    def held(self) -> int:
        """How many are open, of all teams together."""
        return self._held.total()

    @contextmanager
    def taken(self, team: str) -> Iterator[None]:
        """Hold a place for the block; raise `Overloaded` at once when the team has no more."""
        with self._guard:
            if self._held[team] >= self._each:
                raise Overloaded(
                    f"this team has {self._each} {self._what} already, the most it may; end one",
                    retry_after=10,
                )
            self._held[team] += 1
        try:
            yield
        finally:
            with self._guard:
                self._held[team] -= 1
