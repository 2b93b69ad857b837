"""Tell the doors what changed."""

from __future__ import annotations

import threading

from penstock.cache import Cache
from penstock.errors import EngineUnavailable
from penstock.metadata.store import Store


class Publisher:
    """Brings what the store knows to the doors' cache, the newest last."""

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        # Read and publish are one step: else an older answer could be published after a newer one.
        self._lock = threading.Lock()

    def publish(self) -> None:
        """Publish what is known now. Raises `EngineUnavailable` when store or cache fail."""
        with self._lock:
            self._cache.publish(self._store.known())

    def catch_up(self) -> None:
        """Publish if the cache holds another version than the store.

        It does after a change by another process, after two processes published at once, and
        where `publish` failed.
        """
        if self._store.version() != self._held():
            self.publish()

    def _held(self) -> int | None:
        try:
            held = self._cache.read()
        except EngineUnavailable:
            return None
        return None if held is None else held.version
