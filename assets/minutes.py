"""Sums of events by the minute in which they were received, as statistics keep them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from penstock.stats import MINUTE, Minute

COLUMNS = ("received_at", "payload", "log_partition")
"""What has to be known of an event."""


class Sums:
    """Adds events up, by log partition and minute."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], list[int]] = {}

    def add(self, events: pa.RecordBatch | pa.Table, *, quarantined: bool = False) -> None:
        """Take events in, which have at least `COLUMNS`; say if they are in quarantine."""
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
        for partition, start, count, size in zip(
            *(sums[name].to_pylist() for name in names), strict=True
        ):
            sum_ = self._sums.setdefault((partition, start), [0, 0, 0])
            sum_[0] += count
            sum_[1] += size or 0
            sum_[2] += count if quarantined else 0

    def note_quarantined(self, events: pa.Table) -> None:
        """Say which of the events that were taken in are in quarantine."""
        aside = Sums()
        aside.add(events, quarantined=True)
        for key, (_, _, count) in aside._sums.items():
            self._sums[key][2] += count

    def minutes(self) -> tuple[Minute, ...]:
        """Answer the sums, in order."""
        return tuple(
            Minute(partition=partition, start=start, events=n, bytes=size, quarantined=apart)
            for (partition, start), (n, size, apart) in sorted(self._sums.items())
        )


def minutes_of(batches: Iterable[pa.RecordBatch], quarantined: pa.Table) -> tuple[Minute, ...]:
    """Answer the sums of a batch, of whose events some are in quarantine."""
    sums = Sums()
    for batch in batches:
        sums.add(batch)
    sums.note_quarantined(quarantined)
    return sums.minutes()
