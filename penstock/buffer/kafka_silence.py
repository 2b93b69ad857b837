"""When a client of a cluster is given up for another: once it was asked long and heard nothing.

A cluster says for a moment that it has no brokers, when all of them stood still for longer than
their sessions, or are just starting. The client library forgets the brokers that it knew then, and
may never look for any again (librdkafka 2.10 to 2.16, confluentinc/librdkafka issue 5301). Nothing
that can be asked of the client says so. Another one begins where the settings say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from penstock.errors import BadSetting, LogUnavailable

_T = TypeVar("_T")

MOST_SECONDS = 20.0
"""So long a client is waited for. Looking up the name of a broker, and signing in, has to fit in:
each client begins with that, and one that is given up before has never asked anything."""


class Silence:
    """Since when a client has not answered what it was asked. Threads may share it."""

    def __init__(self) -> None:
        """Begin with a client that nobody has asked."""
        self._made = time.monotonic()
        self._since: float | None = None

    def end(self) -> None:
        """Take it that something was heard."""
        self._since = None

    def lasts(self, since: float) -> bool:
        """Take it that a question of then has no answer; say whether the client is given up."""
        first = self._since
        if first is None:
            # A question may have been put to the one before this one.
            self._since = first = max(since, self._made)
        return time.monotonic() - first >= MOST_SECONDS


class Making(Generic[_T]):
    """Makes clients of the same settings."""

    def __init__(self, make: Callable[[], _T]) -> None:
        """Make none yet; `make` raises `BadSetting` where the settings are at fault."""
        self._make = make
        self._made = False

    def __call__(self) -> _T:
        """Make one.

        Raises `BadSetting`, and once there was one `LogUnavailable`: then the settings are good,
        and threads, or a file that they name, are missing for now.
        """
        try:
            client = self._make()
        except BadSetting as error:
            if not self._made:
                raise
            raise LogUnavailable(f"Kafka cannot be asked: {error}") from error
        self._made = True
        return client


class Renewed(Generic[_T]):
    """A client, made when it is first wanted, and another one once it is given up."""

    def __init__(self, make: Callable[[], _T]) -> None:
        """Make none yet; `make` raises `BadSetting` where the settings are at fault."""
        self._make = Making(make)
        self._guard = threading.Lock()
        self._now: tuple[_T, Silence] | None = None

    def get(self) -> _T:
        """Answer the client; raised is what `Making` raises."""
        with self._guard:
            if self._now is None:
                self._now = self._make(), Silence()
            return self._now[0]

    def heard(self) -> None:
        """Take it that the client heard something."""
        if now := self._now:
            now[1].end()

    def unheard(self, since: float) -> None:
        """Take it that the client was asked then, and has heard nothing."""
        given_up: list[_T] = []
        with self._guard:
            if self._now and self._now[1].lasts(since):
                given_up.append(self._now[0])
                self._now = None
        if given_up:
            let_go(given_up)


def let_go(clients: list[_T], end: Callable[[_T], object] = lambda _: None) -> None:
    """Have a thread of its own end these clients, and empty the list.

    A client ends with its last reference, and waits for its own threads, of which each may be
    looking up a name. Others who ask it still may be the last.
    """

    def go() -> None:
        while clients:
            end(clients.pop())

    try:
        threading.Thread(target=go, name="log clients that end", daemon=True).start()
    except RuntimeError:  # no more threads can be had
        go()
