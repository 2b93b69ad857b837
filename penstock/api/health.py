"""Whether each adapter responds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Thread

import structlog
from fastapi import APIRouter, Response

from penstock.api.platform import Version
from penstock.contract.status import AdapterHealth, Health

log = structlog.get_logger()

# An adapter that needs longer is as good as away.
PATIENCE_SECONDS = 3.0

_UNAVAILABLE = 503

Probe = Callable[[], object]
"""Asks an adapter something small; raises if it does not respond."""


class Probes:
    """Asks every adapter whether it responds, each in a thread of its own.

    A thread that does not come back is left alone, and no second one is sent after it:
    looking every second at an adapter that hangs must not use up the process.
    """

    def __init__(
        self,
        needed: Mapping[str, Probe],
        others: Mapping[str, Probe],
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """`others` are told about, but the platform is well without them."""
        self._probes = {**needed, **others}
        self._needed = frozenset(needed)
        self._patience = patience
        self._under_way: dict[str, Future[str | None]] = {}
        self._last: dict[str, str | None] = {}

    async def health(self, version: str) -> Health:
        """Answer who responds, when all have or `patience` is over."""
        answers = await asyncio.gather(*(self._ask(name) for name in self._probes))
        adapters = dict(zip(self._probes, answers, strict=True))
        well = all(adapters[name].responds for name in self._needed)
        return Health(status="ok" if well else "unavailable", version=version, adapters=adapters)

    async def _ask(self, name: str) -> AdapterHealth:
        begun = time.perf_counter()
        answer = asyncio.wrap_future(self._begin(name))
        done, _ = await asyncio.wait([answer], timeout=self._patience)
        reason = answer.result() if done else "it does not respond in time"
        return AdapterHealth(
            responds=reason is None, seconds=time.perf_counter() - begun, reason=reason
        )

    def _begin(self, name: str) -> Future[str | None]:
        """Answer the look that is under way, or begin one."""
        current = self._under_way.get(name)
        if current is not None and not current.done():
            return current
        future: Future[str | None] = Future()
        self._under_way[name] = future
        probe = self._probes[name]
        # Not a pool's thread: those are waited for when the process ends.
        Thread(
            target=lambda: future.set_result(self._reason(name, probe)),
            name=f"probe {name}",
            daemon=True,
        ).start()
        return future

    def _reason(self, name: str, probe: Probe) -> str | None:
        """Answer None if the adapter responds, else in one word why not."""
        reason, text = None, ""
        try:
            probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, the adapter does not respond
            # The answer needs no token, so that it says no more than the kind.
            reason, text = type(error).__name__, str(error)
        # Somebody may look every second: the log is told of changes.
        if reason != self._last.get(name):
            self._last[name] = reason
            if reason is None:
                log.info("adapter responds again", adapter=name)
            else:
                log.warning("adapter does not respond", adapter=name, error=text)
        return reason


def add_health(router: APIRouter, probes: Probes) -> None:
    """Let the router answer ``/healthz``."""

    @router.get("/healthz", tags=["status"])
    async def healthz(response: Response, version: Version) -> Health:
        """Say of each adapter whether it responds; 503 if one is away that is needed."""
        health = await probes.health(version)
        if health.status != "ok":
            response.status_code = _UNAVAILABLE
        return health
