"""Tell the doors what changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from penstock.cache import Cache
from penstock.errors import EngineUnavailable
from penstock.metadata.records import Known
from penstock.metadata.store import Store

_DOORS_SECONDS = 1.0


class Publisher:
    """Brings what the store knows to the doors' cache, the newest last."""

    def __init__(
        self, store: Store, cache: Cache, *, tell: Callable[[int], None] = lambda _: None
    ) -> None:
        """Take what is published, where to, and who hears the version once it is there."""
        self._store = store
        self._cache = cache
        self._tell = tell

    def publish(self) -> None:
        """Publish what is known now. Raises `EngineUnavailable` when store or cache fail."""
        versions: list[int] = []

        def ask() -> Known:
            known = self._store.known()
            versions.append(known.version)
            return known

        self._cache.publish(ask)
        self._tell(versions[-1])

    def doors(self) -> Mapping[str, bool] | None:
        """Answer which doors go by what was published; wait for them for a while.

        None if the cache does not say.
        """
        until = time.monotonic() + _DOORS_SECONDS
        while True:
            try:
                doors = self._cache.doors()
            except EngineUnavailable:
                return None
            if all(doors.values()) or time.monotonic() >= until:
                return doors
            time.sleep(_DOORS_SECONDS / 50)

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
