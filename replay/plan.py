"""The plan: exactly which events a replay will send, before it sends one.

Read the log's ends; wait until the table has absorbed what lies before them; pin that snapshot;
count what lies before them. So everything that a search has shown when the plan was asked for,
its tail included, is in the plan, and what arrived since is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
import structlog
from msgspec import structs

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
from replay.attempted import NO_PLACES, Attempted, Places, Reading
from replay.events import Original
from replay.ledger import ATTEMPTS
from replay.matches import Bucket, Matches, Selection
from replay.request import Options, ReplayRequest, rfc3339
from replay.timing import lasts, width

log = structlog.get_logger()

Wake = Callable[[CollectionId], None]
"""Ask for the collection to be landed soon. Asked again and again until it is."""

PATIENCE_SECONDS = 120.0
_PIN = "penstock-replay-"
_DOOR = "/v1/events/"
_COLLECTION = "collection://"
_LOOK_SECONDS = 0.2
_FROM_THE_FIRST: Mapping[int, int] = {}
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
    ledger: Reading | None = None
    """Where the ledger was read, if it decides; None too while nothing had landed of it."""

    # Of a continuous replay the numbers above grow from leg to leg.
    leg: int = 0
    """Which leg this is; 0 before the first."""
    before: int = 0
    """How many events the legs before this one had."""
    starts: tuple[tuple[int, int], ...] = ()
    """Where this leg begins in each partition; it ends at `ends`."""
    oldest: Micros | None = None
    """When the first of its events was received; None where it has none."""

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
        bound: float | None = None,
        warned: Callable[[int, int], Sequence[str]] = lambda _events, _bytes: (),
        replay_id: str | None = None,
        kept_as: str | None = None,
        patience: float = PATIENCE_SECONDS,
        told: Callable[[Waiting], None] = lambda _: None,
        expected: int | None = None,
    ) -> Plan:
        """Answer exactly what the request would send now.

        With a replay's id the snapshot is pinned for it, or under the name `kept_as`; without both
        this is a preview, and nothing is kept. `to` is the address that events go to, for the
        plan's warnings, `bound` the rate that it has of its own, and `warned` answers what is to be
        said of it before so many events and bytes. `told` hears how far landing is, several times a
        second. `expected` is how many events a retry should find.

        Where the ledger decides, it is read up to what is on its log now, and its snapshot is
        pinned too.

        Raises `BadQuery` or `BadRequest` for a query that cannot be replayed, `EngineUnavailable`
        if landing did not get there within `patience` seconds, and `TableChanged` if the table was
        rolled back or belongs to another log.
        """
        now = self._clock()
        query = _query_of(request, now)
        ends = self._ends(request.id)
        main = self._absorbed(request.id, ends, wake, patience, told)
        view = self._view(request) if main is not None else None
        pin = kept_as if replay_id is None else pin_of(replay_id)
        if view is None or view.snapshot_id is None:
            pin = None
        elif pin is not None:
            view = self._pinned(partial(self._view, request), view, pin, _aside(request))
        ledger: Reading | None = None
        forgotten = False
        buckets: list[Bucket] = []
        matches: Matches | None = None
        folded = 0
        if view is not None and view.snapshot_id is not None:
            books = self._ledger(wake, patience, told, pin) if _asks_ledger(request) else None
            if books is not None:
                ledger, forgotten = _reading(books, pin), bool(books.expired)
            starts = ends if request.from_now_on else _FROM_THE_FIRST
            selection = self._selection(request, query, ends, ledger, starts)
            matches = self._matches(request, selection, view.uuid, view.snapshot_id)
            buckets = matches.buckets()
            folded = self._folded(request, selection, view)
        figures = _figures(buckets, matches, request.options, bound)
        beside = warned(figures["to_send"], figures["bytes"])
        plan = Plan(
            **figures,
            folded=folded,
            warnings=(
                *warnings(request, query, buckets, folded, to),
                *_of_ledger(request, buckets, expected, forgotten=forgotten),
                *beside,
            ),
            digest=request.digest(),
            now=now,
            log_id=self._buffer.log_id(request.id),
            ends=tuple(sorted(ends.items())),
            marks=tuple((m.partition, m.next) for m in main.marks) if main else (),
            table_uuid=view.uuid if view else None,
            snapshot_id=str(view.snapshot_id) if view and view.snapshot_id is not None else None,
            pin=pin,
            ledger=ledger,
        )
        if pin is not None:
            self._counted = plan, buckets
        return plan

    def begin(self, request: ReplayRequest) -> Plan:
        """Answer the plan of a continuous replay that has not looked at anything yet.

        It begins behind what is on the log now, or, where the request says since when, with the
        first event that there is.
        """
        now = self._clock()
        _query_of(request, now)
        ends = {} if request.since is not None else self._ends(request.id)
        return Plan(
            **_figures((), None, request.options, None),
            warnings=(),
            digest=request.digest(),
            now=now,
            log_id=self._buffer.log_id(request.id),
            ends=tuple(sorted(ends.items())),
            marks=(),
            table_uuid=None,
            snapshot_id=None,
            pin=None,
        )

    def next_leg(self, request: ReplayRequest, plan: Plan, replay_id: str) -> Plan | None:
        """Answer the plan with the matches that have landed behind it; None while none could have.

        Their snapshot is pinned. Where nothing matches, only the place up to which was looked is
        another one. Raises `TableChanged` as `open` does, and nothing is left out by that.
        """
        log_id = self._buffer.log_id(request.id)
        if plan.log_id != log_id and any(end for _, end in plan.ends):
            raise TableChanged("the log is not the one that was planned on")
        main = self._lake.view(request.id)
        if main is None:
            return None
        check_table(main, log_id)
        starts = dict(plan.ends)
        # What has landed, and not what is on the log: the next leg is never far away.
        landed = {m.partition: m.next for m in main.marks if m.next > starts.get(m.partition, 0)}
        if not landed:
            return None
        ends = {**starts, **landed}
        moved = structs.replace(
            at_rest(plan),
            log_id=log_id,
            ends=tuple(sorted(ends.items())),
            marks=tuple((m.partition, m.next) for m in main.marks),
        )
        # The marks were read first: what lies before them is in the quarantine too by now.
        view = self._view(request) if _aside(request) else main
        if view is None or view.snapshot_id is None:
            return moved
        query = _query_of(request, plan.now)
        selection = self._selection(request, query, ends, None, starts)
        moved = structs.replace(moved, folded=plan.folded + self._folded(request, selection, view))
        matches = self._matches(request, selection, view.uuid, view.snapshot_id)
        buckets = matches.buckets()
        if not buckets:
            return moved
        pin, counted = pin_of(replay_id), view.snapshot_id
        view = self._pinned(partial(self._view, request), view, pin, _aside(request))
        assert view.snapshot_id is not None  # noqa: S101 - a snapshot was pinned
        if view.snapshot_id != counted:
            matches = self._matches(request, selection, view.uuid, view.snapshot_id)
            buckets = matches.buckets()
        leg = structs.replace(
            _with_leg(moved, _figures(buckets, matches, request.options, None)),
            starts=tuple(sorted(starts.items())),
            oldest=min((bucket.earliest for bucket in buckets), default=None),
            table_uuid=view.uuid,
            snapshot_id=str(view.snapshot_id),
            pin=pin,
        )
        self._counted = leg, buckets
        return leg

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
        self._check_pin(request.id, plan.pin, plan.snapshot_id, quarantine=_aside(request))
        if plan.ledger is not None:
            self._check_pin(ATTEMPTS, plan.ledger.pin, plan.ledger.snapshot_id)
        query = _query_of(request, plan.now)
        selection = self._selection(request, query, dict(plan.ends), plan.ledger, dict(plan.starts))
        return self._matches(request, selection, plan.table_uuid, int(plan.snapshot_id))

    def verify(self, request: ReplayRequest, plan: Plan) -> None:
        """Raise `TableChanged` unless the events of the plan are there, as many as it counted."""
        matches = self.open(request, plan)
        check_count([] if matches is None else matches.buckets(), plan)

    def taken_over(self, request: ReplayRequest, plan: Plan, replay_id: str) -> Plan:
        """Answer a plan of somebody else as that of a replay, with what it reads pinned for it.

        Raises `TableChanged` if a snapshot is gone.
        """
        if plan.snapshot_id is None:
            return plan
        pin, ledger = pin_of(replay_id), plan.ledger
        try:
            self._lake.pin(request.id, int(plan.snapshot_id), pin, quarantine=_aside(request))
            if ledger is not None:
                self._lake.pin(ATTEMPTS, int(ledger.snapshot_id), pin)
                ledger = structs.replace(ledger, pin=pin)
        except NotFound as error:
            raise TableChanged("the snapshot of the plan is gone") from error
        return structs.replace(plan, pin=pin, ledger=ledger)

    def first(self, request: ReplayRequest, plan: Plan, most: int) -> list[Original]:
        """Answer the first events of a plan, a few at most. Raises what `open` does."""
        matches = self.open(request, plan)
        if matches is None:
            return []
        return list(next(matches.batches(matches.buckets()[:1], None), ()))[:most]

    def release(self, collection: CollectionId, over: Callable[[str], bool]) -> list[str]:
        """Unpin the snapshots of every replay that is `over`; answer which replays those were.

        A replay that is cancelled while nobody holds it leaves its pin to whoever comes next.
        """
        released = []
        for quarantine in (False, True):
            for name in self._pins(collection, quarantine=quarantine):
                replay_id = name.removeprefix(_PIN)
                if name.startswith(_PIN) and over(replay_id):
                    # The ledger's goes first: it is found by the other one.
                    if name in self._pins(ATTEMPTS):
                        self._lake.unpin(ATTEMPTS, name)
                    self._lake.unpin(collection, name, quarantine=quarantine)
                    released.append(replay_id)
        return released

    def let_go(self, collection: CollectionId, replay_id: str) -> None:
        """Unpin what was pinned for a replay, if anything is."""
        self.release(collection, lambda other: other == replay_id)

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

    def _ends(self, collection: CollectionId) -> dict[int, int]:
        return {p: extent.end for p, extent in self._buffer.extents(collection).items()}

    def _ledger(
        self,
        wake: Wake,
        patience: float,
        told: Callable[[Waiting], None],
        pin: str | None,
    ) -> TableView | None:
        """Answer the ledger with all that is on its log now; None while there is nothing."""
        view = self._absorbed(ATTEMPTS, self._ends(ATTEMPTS), wake, patience, told)
        if view is None or view.snapshot_id is None:
            return None
        if pin is None:
            return view
        return self._pinned(partial(self._lake.view, ATTEMPTS), view, pin, quarantine=False)

    def _pinned(
        self, look: Callable[[], TableView | None], view: TableView, pin: str, quarantine: bool
    ) -> TableView:
        """Pin the view's snapshot, or a newer one if that is gone already; answer its view."""
        collection = view.collection
        while True:
            if view.snapshot_id is None:
                raise TableChanged("the table lost its rows while the plan was made")
            try:
                self._lake.pin(collection, view.snapshot_id, pin, quarantine=quarantine)
            except AlreadyExists:
                # Of a plan whose maker died before it was written down.
                self._lake.unpin(collection, pin, quarantine=quarantine)
            except NotFound:
                log.info("snapshot expired before it was pinned", collection=str(collection))
            else:
                return view
            newer = look()
            if newer is None or newer.uuid != view.uuid:
                raise TableChanged("the table was replaced while the plan was made")
            view = newer

    def _pins(self, collection: CollectionId, *, quarantine: bool = False) -> Mapping[str, int]:
        try:
            return self._lake.pins(collection, quarantine=quarantine)
        except NotFound:
            return {}  # no table, no pin

    def _check_pin(
        self, collection: CollectionId, pin: str | None, snapshot_id: str, quarantine: bool = False
    ) -> None:
        """Raise `TableChanged` unless the table can be read as it was for the plan."""
        if pin is None:
            return
        what = "ledger" if collection == ATTEMPTS else "table"
        try:
            pinned = self._lake.pins(collection, quarantine=quarantine).get(pin)
        except NotFound as error:
            raise TableChanged(f"the {what} of the plan is gone") from error
        if pinned != int(snapshot_id):
            raise TableChanged(f"the snapshot of the plan is no longer pinned in the {what}")

    def _folded(self, request: ReplayRequest, selection: Selection, view: TableView) -> int:
        """Answer how many matches repeat others, and are left out for that."""
        if selection.duplicates != "fold" or not view.duplicates or view.snapshot_id is None:
            return 0
        alone = replace(selection, duplicates="only")
        found = self._matches(request, alone, view.uuid, view.snapshot_id).buckets()
        return sum(bucket.events for bucket in found)

    def _view(self, request: ReplayRequest) -> TableView | None:
        if _aside(request):
            return self._lake.quarantine_view(request.id)
        return self._lake.view(request.id)

    def _selection(
        self,
        request: ReplayRequest,
        query: Query,
        ends: Mapping[int, int],
        ledger: Reading | None,
        starts: Mapping[int, int] = _FROM_THE_FIRST,
    ) -> Selection:
        options = request.options
        again = options.retry_of is not None
        return Selection(
            query,
            options.view,
            None if again else request.since,
            None if again else request.until,
            self._buffer.log_id(request.id),
            ends,
            "include" if again else options.duplicates,
            tuple(self._places(request, ledger)),
            starts,
        )

    def _places(self, request: ReplayRequest, ledger: Reading | None) -> Iterator[Places]:
        """Answer what the ledger says of the request; it is read when it is first asked."""
        options = request.options
        failed, to = options.retry_of, request.destination
        if failed is not None:
            left = partial(self._told, request.id, ledger, lambda books: books.left(failed))
            yield Places(cache(left), among=True)
        if options.missing:
            arrived = partial(self._told, request.id, ledger, lambda books: books.arrived(to))
            yield Places(cache(arrived), among=False)

    def _told(
        self,
        collection: CollectionId,
        ledger: Reading | None,
        ask: Callable[[Attempted], pa.Table],
    ) -> pa.Table:
        """Answer events of the collection that the ledger names, as it was for the plan."""
        if ledger is None:
            return NO_PLACES
        view = self._lake.view(ATTEMPTS)
        if view is None or view.uuid != ledger.table_uuid:
            raise TableChanged("the ledger is not the one that was planned on")
        books = Attempted(
            self._engine,
            view,
            int(ledger.snapshot_id),
            collection=collection,
            log_id=self._buffer.log_id(collection),
        )
        return ask(books)

    def _matches(
        self, request: ReplayRequest, selection: Selection, uuid: str, snapshot_id: int
    ) -> Matches:
        quarantine = _aside(request)
        return Matches(
            self._engine,
            lambda: self._view(request),
            partial(self._lake.batches, request.id, uuid=uuid, quarantine=quarantine),
            selection,
            uuid=uuid,
            snapshot_id=snapshot_id,
        )


def _aside(request: ReplayRequest) -> bool:
    return request.options.view == "quarantine"


def _asks_ledger(request: ReplayRequest) -> bool:
    return request.options.missing or request.options.retry_of is not None


def _reading(books: TableView, pin: str | None) -> Reading:
    return Reading(table_uuid=books.uuid, snapshot_id=str(books.snapshot_id), pin=pin)


def _query_of(request: ReplayRequest, now: Micros) -> Query:
    """Read what decides beside the ledger: of a retry nothing, its events are known."""
    return replayable("" if request.options.retry_of is not None else request.query, now)


def replayable(text: str, now: Micros) -> Query:
    """Read the query of a replay; raise `BadRequest` for one that says more than which events."""
    query = parse(text, now=now)
    if query.order_by is not None or query.limit is not None or query.unique is not None:
        raise BadRequest(
            "a replay sends every match, in log order: leave ORDER_BY, LIMIT and UNIQUE out of "
            "the query, and use max_events to send fewer"
        ).at("query")
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


def check_count(buckets: Sequence[Bucket], plan: Plan) -> None:
    """Raise `TableChanged` unless there are as many matches as were planned."""
    found = sum(bucket.events for bucket in buckets)
    planned = plan.count - plan.before
    if found != planned:
        raise TableChanged(f"the snapshot holds {found:,} matches, {planned:,} were planned")


def at_rest(plan: Plan) -> Plan:
    """Answer the plan of a continuous replay that has sent all of it: no snapshot is needed."""
    return structs.replace(
        plan, before=plan.count, starts=(), oldest=None, table_uuid=None, snapshot_id=None, pin=None
    )


def _with_leg(plan: Plan, figures: Mapping[str, Any]) -> Plan:
    """Answer the plan with the figures of another leg added to it."""
    return structs.replace(
        plan,
        leg=plan.leg + 1,
        count=plan.count + figures["count"],
        bytes=plan.bytes + figures["bytes"],
        to_send=plan.to_send + figures["to_send"],
        first=plan.first or figures["first"],
        last=figures["last"] or plan.last,
        # As texts: they have six digits each.
        earliest=min(filter(None, (plan.earliest, figures["earliest"])), default=None),
        latest=max(filter(None, (plan.latest, figures["latest"])), default=None),
        spans=_both(plan.spans, figures["spans"]),
        estimated_seconds=figures["estimated_seconds"],
    )


def _both(one: Sequence[Reach], following: Sequence[Reach]) -> tuple[Reach, ...]:
    found = {reach.partition: reach for reach in one}
    for reach in following:
        old = found.get(reach.partition, structs.replace(reach, events=0))
        found[reach.partition] = structs.replace(
            reach, start=old.start, events=old.events + reach.events
        )
    return tuple(found[partition] for partition in sorted(found))


def estimated_seconds(events: int, options: Options, bound: float | None = None) -> float:
    """Guess how long sending takes: by the rates that there are, or what a quick network allows.

    `bound` is the destination's own rate, as if no other replay sent there.
    """
    rate = min(options.at_once() / _SEND_SECONDS, _MOST_PER_SECOND)
    for most in (options.rate, bound):
        if most is not None:
            rate = min(rate, most)
    return round(events / rate, 1)


def warnings(
    request: ReplayRequest, query: Query, buckets: Sequence[Bucket], folded: int = 0, to: str = ""
) -> tuple[str, ...]:
    """Answer what somebody should know before saying yes."""
    options = request.options
    count = sum(bucket.events for bucket in buckets)
    said = []
    if options.continuous:
        said.append(
            "continuous: it goes on with every match that lands later, until it is cancelled"
        )
    elif not count:
        said.append("nothing matches")
    if folded:
        said.append(
            f"{folded:,} duplicates of matches are left out; duplicates: include sends them"
        )
    if urlsplit(to).path.startswith(_DOOR) or to.startswith(_COLLECTION):
        what = "is a collection" if to.startswith(_COLLECTION) else "looks like a door of Penstock"
        said.append(
            f"the destination {what}: an event that it has had within its "
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


def _of_ledger(
    request: ReplayRequest, buckets: Sequence[Bucket], expected: int | None, *, forgotten: bool
) -> Iterator[str]:
    """Answer what somebody should know of events that the ledger names."""
    found = sum(bucket.events for bucket in buckets)
    if expected is not None and expected != found:
        yield (
            f"by its books {expected:,} events failed or were cut off in {request.options.retry_of}"
            f"; {found:,} are in the ledger and the table"
        )
    if forgotten:
        yield (
            "the ledger has dropped old rows: what was acknowledged before them counts as missing, "
            "and what failed before them is not retried"
        )


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
    buckets: Sequence[Bucket], matches: Matches | None, options: Options, bound: float | None
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
            estimated_seconds(to_send, options, bound), _lasts(matches, options, to_send)
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
