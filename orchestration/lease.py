"""Hold a lane's lease while a run drains it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import structlog

from penstock.envelope import Clock, Micros
from penstock.errors import Unavailable
from penstock.metadata.store import Store

log = structlog.get_logger()

TTL: Micros = 20_000_000
"""How long a lease lives without a heartbeat: so long may a dead run stand in the way."""

BEAT_SECONDS = 5.0


class Lease:
    """A lease that is kept until `lost` says otherwise. It saves work; safety is the commit."""

    def __init__(self, store: Store, name: str, epoch: int, clock: Clock) -> None:
        self._store = store
        self._name = name
        self._epoch = epoch
        self._clock = clock
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {name}", daemon=True)

    @property
    def lost(self) -> bool:
        """Answer whether somebody else may hold the lease by now."""
        return self._lost.is_set()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                kept = self._store.keep_lease(self._name, self._epoch, self._clock(), TTL)
            except Unavailable as error:
                log.warning("lease not renewed", lease=self._name, reason=str(error))
                continue
            if not kept:
                log.warning("lease lost", lease=self._name)
                self._lost.set()
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if not self.lost:
            self._store.drop_lease(self._name, self._epoch)


@contextmanager
def held(store: Store, name: str, *, holder: str, clock: Clock) -> Iterator[Lease | None]:
    """Hold the lease for the block; answer None, and hold nothing, while another holds it."""
    epoch = store.take_lease(name, holder, clock(), TTL)
    if epoch is None:
        yield None
        return
    with Lease(store, name, epoch, clock) as lease:
        yield lease
