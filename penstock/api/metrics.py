"""What the platform counts. Names and meanings are here only.

No team or collection is a label of what is answered without a token: whoever may scrape that need
not know of them. The books of collections are a page of their own, for those who may read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from assets.accounting import PARTS, Standing
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

        self._tails = Gauge(
            "penstock_platform_tails",
            "Live tails that are open, of all teams together.",
            registry=self._registry,
        )

    def text(self, buffer: Buffer, *, tails: int) -> bytes:
        """Answer everything as Prometheus reads it; the log is looked at now."""
        self._tails.set(tails)
        self._waiting.set(waiting(buffer))
        return generate_latest(self._registry)


def waiting(buffer: Buffer) -> int:
    """Count the events on the log that landing has not let go of."""
    ends = buffer.ends(buffer.collections())
    released = buffer.released(list(ends))
    return sum(
        max(0, end - released[collection].get(partition, 0))
        for collection, partitions in ends.items()
        for partition, end in partitions.items()
    )


_SECOND = 1_000_000
_STATES = {
    "landed": "landed_events",
    "duplicates": "duplicate_events",
    "quarantined": "quarantined_events",
    "closed": "quarantine_closed_events",
    "waiting": "collection_waiting_events",
}
"""The parts of the books that become fewer in the ordinary course of things; the rest only grow."""


class Lagging(NamedTuple):
    """How far a continuous replay is behind what was received."""

    replay: str
    collection: str
    events: int
    seconds: float | None
    """Age of the first of them; None where nobody knows it."""


def books_text(standings: Iterable[Standing], lagging: Iterable[Lagging] = ()) -> bytes:
    """Answer the books of collections, and what goes on with them, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(_Books(list(standings)))
    registry.register(_Replays(list(lagging)))
    return generate_latest(registry)


class _Books(Collector):
    """The families that the books become."""

    def __init__(self, standings: list[Standing]) -> None:
        self._standings = standings

    def collect(self) -> Iterator[Metric]:
        """Yield a family for each figure, a sample for each collection."""
        accepted = _counter("accepted", "Events that the log has accepted, ever.")
        parts = {
            name: _gauge(_STATES[name], f"Accepted, and now {meaning}.")
            if name in _STATES
            else _counter(name, f"Accepted, and now {meaning}.")
            for name, meaning in PARTS.items()
        }
        differs = _gauge("books_difference", "Accepted events that are nowhere; 0 in sound books.")
        stopped = _gauge("stopped", "1 while landing has stopped until an operator has looked.")
        lake = _gauge("lake_lag_seconds", "Age of the oldest event that has not landed.")
        search = _gauge("search_lag_seconds", "Age of the oldest event that is not in the index.")
        for standing in self._standings:
            books = standing.books
            label = [books.collection.name]
            accepted.add_metric(label, books.accepted)
            for name, family in parts.items():
                family.add_metric(label, books.parts[name])
            differs.add_metric(label, books.difference)
            stopped.add_metric(label, standing.stop is not None)
            if standing.lake_lag is not None:
                lake.add_metric(label, standing.lake_lag / _SECOND)
            if standing.search_lag is not None:
                search.add_metric(label, standing.search_lag / _SECOND)
        yield from (accepted, *parts.values(), differs, stopped, lake, search)


class _Replays(Collector):
    """The families that the continuous replays become."""

    def __init__(self, lagging: list[Lagging]) -> None:
        self._lagging = lagging

    def collect(self) -> Iterator[Metric]:
        """Yield a family for each figure, a sample for each replay."""
        labels = ("collection", "replay")
        events = GaugeMetricFamily(
            "penstock_replay_behind_events",
            "Events that a continuous replay has found and not sent, or not looked at.",
            labels=labels,
        )
        seconds = GaugeMetricFamily(
            "penstock_replay_behind_seconds",
            "Age of the oldest of those events.",
            labels=labels,
        )
        for each in self._lagging:
            label = [each.collection, each.replay]
            events.add_metric(label, each.events)
            age = each.seconds if each.events else 0.0
            if age is not None:
                seconds.add_metric(label, age)
        yield from (events, seconds)


def _counter(name: str, meaning: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"penstock_{name}", meaning, labels=("collection",))


def _gauge(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_{name}", meaning, labels=("collection",))
