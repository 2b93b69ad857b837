"""What a door counts. The names of every metric of the door are in this file."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from penstock.errors import PenstockError

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The counters of one door, in a registry of their own. Safe to use from any thread.

    Plain numbers behind one lock, turned into metrics when somebody asks: prometheus_client's own
    counters took a tenth of the time of a small request.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._events: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._durable = [0] * (len(_SECONDS) + 1)
        self._durable_sum = 0.0
        self._handed_over = 0
        self.tunnels = 0
        """Tunnels that are connected now."""
        self.registry.register(self)

    def accepted(self, source: str, events: int, size: int, seconds: float) -> None:
        """Count durable events, their payload bytes, and how long they took to become durable."""
        bucket = bisect_left(_SECONDS, seconds)
        with self._lock:
            self._events[source] += events
            self._bytes[source] += size
            self._durable[bucket] += 1
            self._durable_sum += seconds

    def refused(self, error: BaseException, count: int = 1) -> None:
        """Count what got this error; errors that nobody raised on purpose are one reason."""
        reason = type(error).__name__ if isinstance(error, PenstockError) else "Unexpected"
        with self._lock:
            self._refused[reason] += count

    def handed_over(self, count: int) -> None:
        """Count events that were written to the connections of tunnels."""
        with self._lock:
            self._handed_over += count

    def collect(self) -> Iterator[Metric]:
        """Answer the metrics as they are now."""
        with self._lock:
            events, size, refused = self._events.copy(), self._bytes.copy(), self._refused.copy()
            durable, durable_sum = list(self._durable), self._durable_sum
            handed_over, tunnels = self._handed_over, self.tunnels
        yield _counter(
            "penstock_door_events", "Events made durable and acknowledged.", "source", events
        )
        yield _counter(
            "penstock_door_payload_bytes", "Payload bytes of those events.", "source", size
        )
        yield _counter(
            "penstock_door_refused",
            "Events that were refused, and requests refused before they were split into events.",
            "reason",
            refused,
        )
        yield GaugeMetricFamily(
            "penstock_door_tunnels", "Tunnels that are connected.", value=tunnels
        )
        yield CounterMetricFamily(
            "penstock_door_handed_over",
            "Events of replays written to the connections of tunnels.",
            value=handed_over,
        )
        bounds = [*map(str, _SECONDS), "+Inf"]
        yield HistogramMetricFamily(
            "penstock_door_durable_seconds",
            "From the arrival of a request to its events being durable.",
            buckets=list(zip(bounds, map(float, accumulate(durable)), strict=True)),
            sum_value=durable_sum,
        )


def _counter(name: str, meaning: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
