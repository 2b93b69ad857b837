"""Continuous replays, seen from outside: how one begins, how far behind it is, whether it rests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from lakehouse import Lake
from penstock.buffer import Buffer
from penstock.envelope import CollectionId, Mark, Micros
from penstock.errors import Stopped
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import ENDS
from replay.plan import Plan, read_plan
from replay.progress import read_progress
from replay.request import ReplayRequest, record_of


class Behind(NamedTuple):
    """How far a continuous replay is behind what was received."""

    events: int
    """Matches that it has found and not sent, and events that it has not looked at."""
    age: Micros | None
    """How long ago the first of them was received; None without one, or where nobody knows."""


def new_record(
    request: ReplayRequest,
    begin: Callable[[ReplayRequest], Plan],
    *,
    id: str,  # noqa: A002
    now: Micros,
    asked_by: str | None,
    why: str | None = None,
    start_at: Micros | None = None,
) -> ReplayRecord:
    """Answer the row of a new replay; of a continuous one, with the place where it begins.

    `begin` answers its plan. From now on is from this moment, not from when a run has started; of
    one that starts later, and was told nothing else, it is what is received from that time on.
    """
    continuous = request.options.continuous
    if continuous and start_at is not None and request.since is None:
        request = replace(request, since=start_at)
    record = record_of(request, id=id, now=now, asked_by=asked_by, why=why, start_at=start_at)
    if not continuous or start_at is not None:
        return record
    return replace(record, plan=begin(request).as_dict())


def wants_what_landed(record: ReplayRecord, lake: Lake, buffer: Buffer) -> bool:
    """Say whether a replay that nobody holds has something to do: one that rests often has not."""
    plan = resting(record)
    if plan is None:
        return True
    collection, seen = CollectionId(record.team, record.collection), dict(plan.ends)
    if not _unseen(buffer, collection, seen):
        return False
    view = lake.view(collection)
    return view is not None and any(m.next > seen.get(m.partition, 0) for m in view.marks)


def resting(record: ReplayRecord) -> Plan | None:
    """Answer the plan of a continuous replay that has sent all it has found; None of any other."""
    if not record.options.get("continuous") or record.plan is None:
        return None
    plan = read_plan(record.plan)
    rests = record.state == "running" and record.wish is None and plan.pin is None
    return plan if rests else None


def behind(
    record: ReplayRecord, buffer: Buffer, now: Micros, *, timed: bool = True
) -> Behind | None:
    """Answer how far a replay is behind; None where it is not continuous, or over.

    For the time the log is read: without `timed` that is not told.
    """
    if not record.options.get("continuous") or record.plan is None or record.state in ENDS:
        return None
    plan = read_plan(record.plan)
    collection = CollectionId(record.team, record.collection)
    unsent = plan.count - read_progress(record.progress).ended
    unseen = _unseen(buffer, collection, dict(plan.ends))
    total = unsent + sum(events for _, events in unseen.values())
    if not timed:
        return Behind(total, None)
    times: list[Micros | None] = [plan.oldest] if unsent else []
    times += [_received(buffer, collection, plan.log_id, p, at) for p, (at, _) in unseen.items()]
    known = [time for time in times if time is not None]
    # Of an event that the log has forgotten nobody knows here when it came.
    age = max(0, now - min(known)) if known and len(known) == len(times) else None
    return Behind(total, age)


def _unseen(
    buffer: Buffer, collection: CollectionId, seen: Mapping[int, int]
) -> dict[int, tuple[int, int]]:
    """Answer from which offset on how many events have not been looked at, by partition."""
    found = {}
    for partition, extent in buffer.extents(collection).items():
        start = seen.get(partition, 0)
        if start < extent.end:
            found[partition] = start, extent.end - start
    return found


def _received(
    buffer: Buffer, collection: CollectionId, log_id: str, partition: int, offset: int
) -> Micros | None:
    """Answer when an event on the log was received; None where the log cannot tell."""
    try:
        mark = Mark(log_id, partition, offset, "")
        rows = buffer.read(collection, mark, end=offset + 1, max_bytes=1).rows
    except Stopped:
        return None
    if not rows.num_rows:
        return None
    at: int = rows.column("received_at").cast("int64")[0].as_py()
    return at
