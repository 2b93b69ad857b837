"""Why events are in quarantine: their number by cause, over time. Pure, over Arrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from penstock.codec import TIME
from penstock.envelope import Micros

_MINUTE: Micros = 60_000_000

COLUMNS = ("received_at", "stage", "reason", "log_id", "log_partition", "log_offset")
"""What is read of a quarantine table."""

STEPS: tuple[Micros, ...] = tuple(
    minutes * _MINUTE for minutes in (1, 5, 10, 30, 60, 180, 360, 720, 1_440, 10_080, 43_200)
)
"""How long a bar may be."""

_AT_ONCE = 65_536
"""Rows that are grouped at once: of few it takes as long."""

_PLACE = ("log_id", "log_partition", "log_offset")


class Why(NamedTuple):
    """A cause: what could not be done, and why not."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cause:
    """The open events of one cause; a bar for each step of time, the first at `Causes.start`."""

    why: Why
    count: int
    first: Micros
    last: Micros
    bars: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Causes:
    """Why events are in quarantine, the most frequent cause first. Bars are `step` long."""

    causes: tuple[Cause, ...]
    start: Micros
    step: Micros
    open: int
    closed: int


@dataclass(slots=True)
class _Seen:
    count: int = 0
    first: Micros = 0
    last: Micros = 0


def count_causes(batches: Iterable[pa.RecordBatch], closed: pa.Table, *, bars: int) -> Causes:
    """Count the events of a quarantine table (`COLUMNS`) that are not in `closed`, by cause.

    `closed` has the positions of closed events. There are `bars` bars at most, from the first open
    event to the last. Memory is in proportion to the minutes that have events, not to the events.
    """
    seen: dict[Why, _Seen] = {}
    minutes: dict[Why, Counter[int]] = {}
    total = left = 0
    shut = closed.select(_PLACE).combine_chunks()
    for rows in _together(batches):
        still = rows.join(shut, keys=list(_PLACE), join_type="left anti") if shut.num_rows else rows
        total += rows.num_rows
        left += still.num_rows
        _add(still, seen, minutes)
    if not seen:
        return Causes((), 0, STEPS[0], left, total - left)
    first = min(one.first for one in seen.values())
    last = max(one.last for one in seen.values())
    step = step_for(last - first, bars)
    start = first // step * step
    return Causes(
        causes=tuple(
            Cause(why, one.count, one.first, one.last, _bars(minutes[why], start, last, step))
            for why, one in sorted(seen.items(), key=lambda item: (-item[1].count, item[0]))
        ),
        start=start,
        step=step,
        open=left,
        closed=total - left,
    )


def step_for(span: Micros, bars: int) -> Micros:
    """Answer the shortest step that needs at most so many bars, wherever in one a span begins."""
    for step in STEPS:
        if span // step + 2 <= bars:
            return step
    longest = STEPS[-1]
    return longest * (span // (longest * max(1, bars - 1)) + 1)


def _together(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Answer the rows of small batches in tables: every file is a batch at least."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= _AT_ONCE:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _add(rows: pa.Table, seen: dict[Why, _Seen], minutes: dict[Why, Counter[int]]) -> None:
    received = rows["received_at"].cast(TIME).cast(pa.int64())
    table = pa.table(
        {
            "stage": rows["stage"],
            "reason": rows["reason"],
            "at": received,
            "minute": pc.divide(pc.subtract(received, _within_minute(received)), _MINUTE),
        }
    )
    grouped = table.group_by(["stage", "reason", "minute"]).aggregate(
        [("at", "count"), ("at", "min"), ("at", "max")]
    )
    for row in grouped.to_pylist():
        why = Why(row["stage"], row["reason"])
        one = seen.setdefault(why, _Seen(0, row["at_min"], row["at_max"]))
        one.count += row["at_count"]
        one.first, one.last = min(one.first, row["at_min"]), max(one.last, row["at_max"])
        minutes.setdefault(why, Counter())[row["minute"]] += row["at_count"]


def _within_minute(received: pa.ChunkedArray) -> pa.ChunkedArray:
    """Answer what is left of a minute, never negative: also before 1970."""
    rest = pc.subtract(received, pc.multiply(pc.divide(received, _MINUTE), _MINUTE))
    return pc.if_else(pc.less(rest, 0), pc.add(rest, _MINUTE), rest)


def _bars(minutes: Mapping[int, int], start: Micros, last: Micros, step: Micros) -> tuple[int, ...]:
    counts: Counter[int] = Counter()
    for minute, count in minutes.items():
        counts[(minute * _MINUTE - start) // step] += count
    return tuple(counts[bar] for bar in range((last - start) // step + 1))
