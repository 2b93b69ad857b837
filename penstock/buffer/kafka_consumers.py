"""Consumers of a cluster, kept and lent: one takes 100 ms to make, 6 ms to turn to another span."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer

from penstock.buffer.kafka_cluster import made

WAIT_SECONDS = 0.05
"""For so long records are waited for at a time. Where only markers are left the client says so,
but waits for more first."""

_KEPT = 4


class Consumers:
    """Makes and keeps consumers with the same settings. Threads may share it."""

    def __init__(self, settings: Callable[[], Mapping[str, object]]) -> None:
        """Make none yet."""
        self._settings = settings
        self._idle: list[Consumer] = []
        self._guard = threading.Lock()
        self._closed = False

    @contextmanager
    def lent(self) -> Iterator[Consumer]:
        """Lend one for the block, turned to nothing."""
        with self._guard:
            consumer = self._idle.pop() if self._idle else None
        if consumer is None:
            consumer = made(Consumer, dict(self._settings()))
        try:
            yield consumer
        finally:
            consumer.unassign()
            with self._guard:
                keep = not self._closed and len(self._idle) < _KEPT
                if keep:
                    self._idle.append(consumer)
            if not keep:
                consumer.close()

    def close(self) -> None:
        """Close those that are kept, and each that is lent when it comes back."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for consumer in idle:
            consumer.close()
