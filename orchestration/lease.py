"""Hold a lane's lease while a run drains it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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
    """A lease that is kept until `lost` says otherwise. It saves work; safety is the commit.

    While the metadata is away it is not taken (`epoch` is None), and taken when it is back.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        name: str,
        epoch: int | None,
        *,
        holder: str,
        clock: Clock,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._store = store
        self._name = name
        self._epoch = epoch
        self._holder = holder
        self._clock = clock
        self._beat_seconds = beat_seconds
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {name}", daemon=True)

    @property
    def lost(self) -> bool:
        """Answer whether somebody else may hold the lease by now."""
        return self._lost.is_set()

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                kept = self._kept()
            except Unavailable as error:
                log.warning("lease not renewed", lease=self._name, reason=str(error))
                continue
            if not kept:
                log.warning("lease lost", lease=self._name)
                self._lost.set()
                return

    def _kept(self) -> bool:
        """Renew the lease, or take it if that was not possible before; False if another has it."""
        if self._epoch is not None:
            return self._store().keep_lease(self._name, self._epoch, self._clock(), TTL)
        self._epoch = self._store().take_lease(self._name, self._holder, self._clock(), TTL)
        return self._epoch is not None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self.lost or self._epoch is None:
            return
        try:
            self._store().drop_lease(self._name, self._epoch)
        except Unavailable as error:
            log.warning("lease not given up, it lapses", lease=self._name, reason=str(error))


@contextmanager
def held(
    store: Callable[[], Store],
    name: str,
    *,
    holder: str,
    clock: Clock,
    beat_seconds: float = BEAT_SECONDS,
) -> Iterator[Lease | None]:
    """Hold the lease for the block; answer None, and hold nothing, while another holds it.

    While the metadata is away the block goes on without: two at once cost work, no event.
    """
    try:
        epoch = store().take_lease(name, holder, clock(), TTL)
    except Unavailable as error:
        log.warning("lease not taken, going on without", lease=name, reason=str(error))
        epoch = None
    else:
        if epoch is None:
            yield None
            return
    with Lease(store, name, epoch, holder=holder, clock=clock, beat_seconds=beat_seconds) as lease:
        yield lease
