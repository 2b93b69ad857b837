"""Sums of events by the minute in which they were received, as statistics keep them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from penstock.stats import MINUTE, Minute

COLUMNS = ("received_at", "payload", "log_partition")
"""What has to be known of an event."""


Noted = Literal["quarantined", "duplicates"]
"""What is counted of some events only."""


class Sums:
    """Adds events up, by log partition and minute."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], dict[str, int]] = {}

    def add(self, events: pa.RecordBatch | pa.Table) -> None:
        """Take events in, which have at least `COLUMNS`."""
        for place, count, size in _grouped(events):
            sum_ = self._sums.setdefault(place, {"events": 0, "bytes": 0})
            sum_["events"] += count
            sum_["bytes"] += size

    def note(self, what: Noted, events: pa.RecordBatch | pa.Table) -> None:
        """Say which of the events that were taken in are in quarantine, or repeat others."""
        for place, count, _ in _grouped(events):
            sum_ = self._sums[place]
            sum_[what] = sum_.get(what, 0) + count

    def minutes(self) -> tuple[Minute, ...]:
        """Answer the sums, in order."""
        return tuple(
            Minute(partition=partition, start=start, **{"quarantined": 0, **sum_})
            for (partition, start), sum_ in sorted(self._sums.items())
        )


def minutes_of(
    batches: Iterable[pa.RecordBatch], quarantined: pa.Table, repeats: pa.Table | None
) -> tuple[Minute, ...]:
    """Answer the sums of a batch; some of its events are in quarantine, some repeat others."""
    sums = Sums()
    for batch in batches:
        sums.add(batch)
    sums.note("quarantined", quarantined)
    if repeats is not None:
        sums.note("duplicates", repeats)
    return sums.minutes()


def _grouped(
    events: pa.RecordBatch | pa.Table,
) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Answer partition and minute, how many events, and the bytes of their payloads."""
    if not events.num_rows:
        return
    received = events["received_at"].cast(pa.int64())
    table = pa.table(
        {
            "partition": events["log_partition"],
            "start": pc.multiply(pc.divide(received, MINUTE), MINUTE),
            "bytes": pc.binary_length(events["payload"]),
        }
    )
    grouped = table.group_by(["partition", "start"], use_threads=False)
    sums = grouped.aggregate([([], "count_all"), ("bytes", "sum")])
    names = ("partition", "start", "count_all", "bytes_sum")
    for partition, start, count, size in zip(*(sums[n].to_pylist() for n in names), strict=True):
        yield (partition, start), count, size or 0
