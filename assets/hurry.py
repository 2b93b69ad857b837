"""The collections that somebody waits for, as the bus tells it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from penstock.envelope import CollectionId, parse_collection
from penstock.errors import BadName

log = structlog.get_logger()

LASTS = 3.0
"""Seconds for which landing hurries for who asked; who waits longer says so again."""


class Hurry:
    """Hears what landing is asked for, in one thread, and tells it in another."""

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._asked: dict[CollectionId, float] = {}
        self._changing = threading.Lock()
        self._news = threading.Event()

    def hear(self, text: str) -> None:
        """Take a message: the name of a collection."""
        try:
            collection = parse_collection(text)
        except BadName:
            log.warning("message not understood", topic="land")
            return
        with self._changing:
            self._asked[collection] = self._steady()
        self._news.set()

    def collections(self) -> frozenset[CollectionId]:
        """Answer the collections that were asked for a moment ago."""
        earliest = self._steady() - LASTS
        with self._changing:
            self._asked = {one: at for one, at in self._asked.items() if at > earliest}
            return frozenset(self._asked)

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when a message came since the last time."""
        self._news.wait(seconds)
        self._news.clear()
