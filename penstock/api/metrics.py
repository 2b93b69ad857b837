"""What the platform counts. Names and meanings are here only.

No team or collection is a label: whoever may scrape need not know of them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from penstock.buffer import Buffer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "penstock_platform_requests",
            "Requests answered, by route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "penstock_platform_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ("method", "route"),
            registry=self._registry,
            buckets=(0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0),
        )
        self._waiting = Gauge(
            "penstock_waiting_events",
            "Events on the log that have not landed yet, of all teams together.",
            registry=self._registry,
        )

    def text(self, buffer: Buffer) -> bytes:
        """Answer everything as Prometheus reads it; the log is looked at now."""
        self._waiting.set(waiting(buffer))
        return generate_latest(self._registry)


def waiting(buffer: Buffer) -> int:
    """Count the events on the log that landing has not let go of."""
    return sum(
        max(0, extent.end - buffer.released(collection).get(partition, 0))
        for collection in buffer.collections()
        for partition, extent in buffer.extents(collection).items()
    )
