"""The plan: exactly which events a replay will send, before it sends one.

Read the log's ends; wait until the table has absorbed what lies before them; pin that snapshot;
count what lies before them. So everything that a search has shown when the plan was asked for,
its tail included, is in the plan, and what arrived since is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from lakehouse import Lake, TableView
from lakehouse.sql import Engine
from penstock.buffer import Buffer
from penstock.envelope import Clock, CollectionId, Micros, Position
from penstock.errors import (
    AlreadyExists,
    BadRequest,
    EngineUnavailable,
    NotFound,
    TableChanged,
    WrongState,
)
from penstock.query import Query, parse
from replay.matches import Bucket, Matches, Selection
from replay.request import Options, ReplayRequest, rfc3339
from replay.timing import lasts, width

log = structlog.get_logger()

Wake = Callable[[CollectionId], None]
"""Ask for the collection to be landed soon. Asked again and again until it is."""

PATIENCE_SECONDS = 120.0
_PIN = "penstock-replay-"
_DOOR = "/v1/events/"
_LOOK_SECONDS = 0.2
_WAKE_SECONDS = 2.0

# For the estimate only: what one send takes on a quick network, and what a sender reaches.
_SEND_SECONDS = 0.01
_MOST_PER_SECOND = 3_000.0


class Waiting(msgspec.Struct, frozen=True):
    """How far landing is: `absorbed` of the `wanted` events on the log."""

    absorbed: int
    wanted: int


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """The first or the last event of a plan."""

    event_id: str
    received_at: str
    partition: int
    offset: int


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan takes from one partition: matches from `start` to `end`, exclusive."""

    partition: int
    start: int
    end: int
    events: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay sends. `count` is exact, and so is the set of events: the snapshot is pinned.

    Ids of snapshots are text, because JavaScript's numbers would round them; times are RFC 3339.
    """

    count: int
    bytes: int
    """Payload bytes of all matches."""
    to_send: int
    """`count`, or `max_events` if that is less."""
    first: Happened | None
    last: Happened | None
    earliest: str | None
    latest: str | None
    """The span of the times of receipt."""
    spans: tuple[Reach, ...]
    estimated_seconds: float
    warnings: tuple[str, ...]

    digest: str
    """The hash of the request; another request cannot use this plan."""
    now: Micros
    """What ``now`` in the query means, for ever."""
    log_id: str
    ends: tuple[tuple[int, int], ...]
    """Where each partition of the log ended when the plan was asked for."""
    marks: tuple[tuple[int, int], ...]
    """Where the table's marks stood in the snapshot."""
    table_uuid: str | None
    snapshot_id: str | None
    """None where the table has nothing to read."""
    pin: str | None
    folded: int = 0
    """Matches that are not sent, because they repeat others."""

    def as_dict(self) -> dict[str, object]:
        """Answer what goes into the replay's row."""
        values: dict[str, object] = msgspec.to_builtins(self)
        return values


def read_plan(values: Mapping[str, Any]) -> Plan:
    """Read a row's plan; raise `WrongState` if it was written by something else."""
    try:
        return msgspec.convert(values, Plan)
    except msgspec.ValidationError as error:
        raise WrongState(f"the replay's plan cannot be read: {error}") from error


def pin_of(replay_id: str) -> str:
    """Name the tag by which a replay keeps its snapshot."""
    return f"{_PIN}{replay_id}"


class Planner:
    """Makes plans, and opens what they say. Threads may share it."""

    def __init__(
        self,
        lake: Lake,
        buffer: Buffer,
        engine: Engine,
        *,
        clock: Clock,
        wait: Callable[[float], None] = time.sleep,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lake = lake
        self._buffer = buffer
        self._engine = engine
        self._clock = clock
        self._wait = wait
        self._steady = steady
        self._counted: tuple[Plan, list[Bucket]] | None = None

    def plan(
        self,
        request: ReplayRequest,
        *,
        wake: Wake,
        to: str = "",
        replay_id: str | None = None,
        patience: float = PATIENCE_SECONDS,
        told: Callable[[Waiting], None] = lambda _: None,
    ) -> Plan:
        """Answer exactly what the request would send now.

        With a replay's id the snapshot is pinned for it; without one this is a preview, and
        nothing is kept. `to` is the address that events go to, for the plan's warnings. `told`
        hears how far landing is, several times a second.

        Raises `BadQuery` or `BadRequest` for a query that cannot be replayed, `EngineUnavailable`
        if landing did not get there within `patience` seconds, and `TableChanged` if the table was
        rolled back or belongs to another log.
        """
        now = self._clock()
        query = replayable(request.query, now)
        ends = {p: extent.end for p, extent in self._buffer.extents(request.id).items()}
        main = self._absorbed(request.id, ends, wake, patience, told)
        view = self._view(request) if main is not None else None
        pin = None
        if view is not None and view.snapshot_id is not None and replay_id is not None:
            pin = pin_of(replay_id)
            view = self._pinned(request, view, pin)
        buckets: list[Bucket] = []
        matches: Matches | None = None
        folded = 0
        if view is not None and view.snapshot_id is not None:
            selection = self._selection(request, query, ends)
            matches = self._matches(request, selection, view.uuid, view.snapshot_id)
            buckets = matches.buckets()
            folded = self._folded(request, selection, view)
        plan = Plan(
            **_figures(buckets, matches, request.options),
            folded=folded,
            warnings=warnings(request, query, buckets, folded, to),
            digest=request.digest(),
            now=now,
            log_id=self._buffer.log_id(request.id),
            ends=tuple(sorted(ends.items())),
            marks=tuple((m.partition, m.next) for m in main.marks) if main else (),
            table_uuid=view.uuid if view else None,
            snapshot_id=str(view.snapshot_id) if view and view.snapshot_id is not None else None,
            pin=pin,
        )
        if pin is not None:
            self._counted = plan, buckets
        return plan

    def count(self, plan: Plan, matches: Matches) -> list[Bucket]:
        """Answer a plan's matches by ranges of offsets, in log order.

        They are counted again, for which every payload is read, unless the plan was made here just
        now: its snapshot is pinned.
        """
        counted, self._counted = self._counted, None
        return counted[1] if counted is not None and counted[0] == plan else matches.buckets()

    def open(self, request: ReplayRequest, plan: Plan) -> Matches | None:
        """Answer the matches of a plan, to be read; None where there is nothing to read.

        Raises `WrongState` if the plan was made for another request, `TableChanged` if the table
        or the log is another one, or the snapshot is gone.
        """
        if plan.digest != request.digest():
            raise WrongState("the plan was made for another request; plan the replay again")
        if plan.snapshot_id is None or plan.table_uuid is None:
            return None
        if plan.log_id != self._buffer.log_id(request.id):
            raise TableChanged("the log is not the one that was planned on")
        if plan.pin is not None and self._pins(request).get(plan.pin) != int(plan.snapshot_id):
            raise TableChanged("the snapshot of the plan is no longer pinned")
        query = replayable(request.query, plan.now)
        selection = self._selection(request, query, dict(plan.ends))
        return self._matches(request, selection, plan.table_uuid, int(plan.snapshot_id))

    def release(self, collection: CollectionId, over: Callable[[str], bool]) -> list[str]:
        """Unpin the snapshots of every replay that is `over`; answer which replays those were.

        A replay that is cancelled while nobody holds it leaves its pin to whoever comes next.
        """
        released = []
        for quarantine in (False, True):
            try:
                pins = self._lake.pins(collection, quarantine=quarantine)
            except NotFound:
                continue  # no table, no pin
            for name in pins:
                replay_id = name.removeprefix(_PIN)
                if name.startswith(_PIN) and over(replay_id):
                    self._lake.unpin(collection, name, quarantine=quarantine)
                    released.append(replay_id)
        return released

    def _absorbed(
        self,
        collection: CollectionId,
        ends: Mapping[int, int],
        wake: Wake,
        patience: float,
        told: Callable[[Waiting], None],
    ) -> TableView | None:
        """Wait until the table has absorbed the log up to `ends`; answer it then."""
        deadline = self._steady() + patience
        wake_at = float("-inf")
        while True:
            view = self._lake.view(collection)
            log_id = self._buffer.log_id(collection)
            if view is not None:
                check_table(view, log_id)
            left = missing(view, log_id, ends)
            told(Waiting(sum(ends.values()) - left, sum(ends.values())))
            if not left:
                return view
            if self._steady() >= deadline:
                raise EngineUnavailable(
                    f"{left:,} events of {collection} have not landed yet", retry_after=5
                )
            if self._steady() >= wake_at:
                wake(collection)
                wake_at = self._steady() + _WAKE_SECONDS
            else:
                self._wait(_LOOK_SECONDS)

    def _pinned(self, request: ReplayRequest, view: TableView, pin: str) -> TableView:
        """Pin the view's snapshot, or a newer one if that is gone already; answer its view."""
        quarantine = request.options.view == "quarantine"
        while True:
            if view.snapshot_id is None:
                raise TableChanged("the table lost its rows while the plan was made")
            try:
                self._lake.pin(request.id, view.snapshot_id, pin, quarantine=quarantine)
            except AlreadyExists:
                # Of a plan whose maker died before it was written down.
                self._lake.unpin(request.id, pin, quarantine=quarantine)
            except NotFound:
                log.info("snapshot expired before it was pinned", collection=str(request.id))
            else:
                return view
            newer = self._view(request)
            if newer is None or newer.uuid != view.uuid:
                raise TableChanged("the table was replaced while the plan was made")
            view = newer

    def _pins(self, request: ReplayRequest) -> Mapping[str, int]:
        try:
            return self._lake.pins(request.id, quarantine=request.options.view == "quarantine")
        except NotFound as error:
            raise TableChanged("the table of the plan is gone") from error

    def _folded(self, request: ReplayRequest, selection: Selection, view: TableView) -> int:
        """Answer how many matches repeat others, and are left out for that."""
        if request.options.duplicates != "fold" or not view.duplicates or view.snapshot_id is None:
            return 0
        alone = replace(selection, duplicates="only")
        found = self._matches(request, alone, view.uuid, view.snapshot_id).buckets()
        return sum(bucket.events for bucket in found)

    def _view(self, request: ReplayRequest) -> TableView | None:
        if request.options.view == "quarantine":
            return self._lake.quarantine_view(request.id)
        return self._lake.view(request.id)

    def _selection(
        self, request: ReplayRequest, query: Query, ends: Mapping[int, int]
    ) -> Selection:
        return Selection(
            query,
            request.options.view,
            request.since,
            request.until,
            self._buffer.log_id(request.id),
            ends,
            request.options.duplicates,
        )

    def _matches(
        self, request: ReplayRequest, selection: Selection, uuid: str, snapshot_id: int
    ) -> Matches:
        quarantine = request.options.view == "quarantine"
        return Matches(
            self._engine,
            lambda: self._view(request),
            partial(self._lake.batches, request.id, uuid=uuid, quarantine=quarantine),
            selection,
            uuid=uuid,
            snapshot_id=snapshot_id,
        )


def replayable(text: str, now: Micros) -> Query:
    """Read the query of a replay; raise `BadRequest` for one that says more than which events."""
    query = parse(text, now=now)
    if query.order_by is not None or query.limit is not None or query.unique is not None:
        raise BadRequest(
            "a replay sends every match, in log order: leave ORDER_BY, LIMIT and UNIQUE out of "
            "the query, and use max_events to send fewer"
        )
    return query


def check_table(view: TableView, log_id: str) -> None:
    """Raise `TableChanged` unless what the table's marks promise is in it, and of this log."""
    if view.rolled_back:
        raise TableChanged(f"the table of {view.collection} was rolled back behind its marks")
    others = {mark.log_id for mark in view.marks} - {log_id}
    if others:
        raise TableChanged(f"the table of {view.collection} has absorbed another log")


def missing(view: TableView | None, log_id: str, ends: Mapping[int, int]) -> int:
    """Count the log positions before `ends` that the table has not absorbed."""
    if view is None:
        return sum(ends.values())
    return sum(max(0, end - view.mark(log_id, partition).next) for partition, end in ends.items())


def estimated_seconds(events: int, options: Options) -> float:
    """Guess how long sending takes: the rate if there is one, else what a quick network allows."""
    rate = min(options.at_once() / _SEND_SECONDS, _MOST_PER_SECOND)
    if options.rate is not None:
        rate = min(rate, options.rate)
    return round(events / rate, 1)


def warnings(
    request: ReplayRequest, query: Query, buckets: Sequence[Bucket], folded: int = 0, to: str = ""
) -> tuple[str, ...]:
    """Answer what somebody should know before saying yes."""
    options = request.options
    count = sum(bucket.events for bucket in buckets)
    said = []
    if not count:
        said.append("nothing matches")
    if folded:
        said.append(
            f"{folded:,} duplicates of matches are left out; duplicates: include sends them"
        )
    if urlsplit(to).path.startswith(_DOOR):
        said.append(
            "the destination looks like a door of Penstock: an event that it has had within its "
            "duplicate_window_hours is kept there as a duplicate, and searches do not show it again"
        )
    if options.max_events is not None and options.max_events < count:
        said.append(f"only the first {options.max_events:,} of {count:,} matches are sent")
    if options.headers == "verbatim":
        said.append("verbatim: receivers cannot tell the replay from the original")
    said += _of_times(options, {bucket.partition for bucket in buckets})
    if options.order == "log" and options.concurrency > 1:
        said.append("log order sends one event at a time, whatever the concurrency")
    if query.facts or (options.view == "quarantine" and query.reads_payload):
        said.append("the query reads every payload, so counting and reading are slow")
    if options.dry_run:
        said.append("dry run: nothing is sent")
    return tuple(said)


def _of_times(options: Options, partitions: Collection[int]) -> Iterator[str]:
    """Answer what somebody should know of the times of such a replay."""
    if options.gap is not None and not options.speed:
        yield "gap shortens silences of a replay with a speed; this one has none"
    if options.speed and len(partitions) > 1:
        yield (
            "the partitions of the log are sent one after the other, each in its own time, so this "
            "takes as many times as long"
        )
    if options.speed and options.order == "log":
        yield "log order waits for each answer: events that are due sooner are sent late"


def _figures(
    buckets: Sequence[Bucket], matches: Matches | None, options: Options
) -> dict[str, Any]:
    """Answer the plan's numbers."""
    count = sum(bucket.events for bucket in buckets)
    to_send = min(count, options.max_events or count)
    first = last = None
    if matches is not None and buckets:
        begin = Position(buckets[0].partition, buckets[0].first)
        end = Position(buckets[-1].partition, buckets[-1].last)
        found = [
            Happened(event_id=id_, received_at=rfc3339(at), partition=p.partition, offset=p.offset)
            for p, id_, at in matches.at({begin, end})
        ]
        first, last = found[0], found[-1]
    return {
        "count": count,
        "bytes": sum(bucket.bytes for bucket in buckets),
        "to_send": to_send,
        "first": first,
        "last": last,
        "earliest": rfc3339(min(b.earliest for b in buckets)) if buckets else None,
        "latest": rfc3339(max(b.latest for b in buckets)) if buckets else None,
        "spans": reaches(buckets),
        "estimated_seconds": max(
            estimated_seconds(to_send, options), _lasts(matches, options, to_send)
        ),
    }


def _lasts(matches: Matches | None, options: Options, to_send: int) -> float:
    """Answer how long the events take in their own time; 0 where that is not kept."""
    if matches is None or not options.speed:
        return 0.0
    speed, gap, timing = options.tempo()
    stretches = matches.stretches(timing, width(speed, gap))
    return round(lasts(stretches, speed, gap, most=to_send), 1)


def reaches(buckets: Sequence[Bucket]) -> tuple[Reach, ...]:
    """Sum up what is taken from each partition."""
    found: dict[int, Reach] = {}
    for bucket in buckets:
        old = found.get(bucket.partition)
        found[bucket.partition] = Reach(
            partition=bucket.partition,
            start=old.start if old else bucket.first,
            end=bucket.last + 1,
            events=bucket.events + (old.events if old else 0),
        )
    return tuple(found.values())
