"""Consumers of a cluster, kept and lent: one takes 100 ms to make, 6 ms to turn to another span."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException

from penstock.buffer.kafka_cluster import is_of_broker, made
from penstock.buffer.kafka_silence import Making, Silence, let_go
from penstock.errors import LogChanged, LogTruncated, LogUnavailable

WAIT_SECONDS = 0.05
"""For so long records are waited for at a time. Where only markers are left the client says so,
but waits for more first."""

_KEPT = 4


class Consumers:
    """Makes and keeps consumers with the same settings. Threads may share it."""

    def __init__(self, settings: Callable[[], Mapping[str, object]]) -> None:
        """Make none yet."""
        self._make = Making(lambda: made(Consumer, dict(settings())))
        self._idle: list[tuple[Consumer, Silence]] = []
        self._guard = threading.Lock()
        self._closed = False

    @contextmanager
    def lent(self) -> Iterator[Consumer]:
        """Lend one for the block, turned to nothing.

        Where blocks raise `LogUnavailable` for long, it is closed, and those that are kept with it.
        """
        begun, silent = time.monotonic(), False
        with self._guard:
            kept = self._idle.pop() if self._idle else None
        consumer, silence = kept or (self._make(), Silence())
        try:
            yield consumer
            silence.end()
        except LogUnavailable:
            silent = silence.lasts(begun)
            raise
        except KafkaException as error:
            if is_of_broker(error.args[0]):
                silence.end()
            else:
                silent = silence.lasts(begun)
            raise
        except (LogChanged, LogTruncated):
            silence.end()
            raise
        finally:
            self._take(consumer, silence, silent=silent)

    def _take(self, consumer: Consumer, silence: Silence, *, silent: bool) -> None:
        """Take back one that was lent."""
        if silent:
            let_go([consumer, *self._no_more()], Consumer.close)
            return
        consumer.unassign()
        with self._guard:
            keep = not self._closed and len(self._idle) < _KEPT
            if keep:
                self._idle.append((consumer, silence))
        if not keep:
            consumer.close()

    def close(self) -> None:
        """Close those that are kept, and each that is lent when it comes back."""
        with self._guard:
            self._closed = True
        for consumer in self._no_more():
            consumer.close()

    def _no_more(self) -> list[Consumer]:
        """Answer those that were kept; none is any more."""
        with self._guard:
            idle, self._idle = self._idle, []
        return [consumer for consumer, _ in idle]
