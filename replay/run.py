"""A replay from its claim to its end: plan, send, let go. Without Dagster."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import structlog
import uvloop
from msgspec.structs import replace

from penstock.bus import REPLAY, Bus
from penstock.clock import steady_seconds
from penstock.envelope import Clock, CollectionId
from penstock.errors import (
    AddressRefused,
    EngineUnavailable,
    NotFound,
    Rejected,
    Stopped,
    WrongState,
)
from penstock.faults import fault
from penstock.guard import Endpoint, Guard
from penstock.metadata.records import Destination, ReplayRecord
from penstock.metadata.sharing import Share
from penstock.metadata.states import ENDS
from penstock.metadata.store import Store
from penstock.vocabulary import State
from replay.again import expected
from replay.beforehand import known_of
from replay.books import Job
from replay.doorway import Doorway
from replay.events import Source
from replay.lease import DEFAULT_BOUNDS, Bounds, Orders
from replay.ledger import Ledger, NoLedger
from replay.matches import Bucket, Matches
from replay.pacing import Breaker, Chance
from replay.plan import Plan, Planner, Waiting, Wake, at_rest, check_count, read_plan
from replay.progress import Progress, next_leg, read_progress, with_course
from replay.request import Options, ReplayRequest, read_options, request_of
from replay.send import Ended, Sender
from replay.targets import Failed, Message, Outcome, Skipped, Target
from replay.targets.opening import LOG_TOPICS, open_target
from replay.targets.sending import Begin
from replay.targets.spread import FIRST, SpreadTarget
from replay.transform import Transform
from replay.transform.asked import transform_of
from replay.transform.target import ChangingTarget

log = structlog.get_logger()

_STOP_SECONDS = 0.25
_READ_TRIES = 5
_READ_DELAY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every replay of a process works with."""

    store: Store
    planner: Planner
    guard: Guard
    open_ledger: Callable[[], Ledger]
    wake: Wake
    doors: tuple[str, ...]
    """The addresses of this installation's own doors."""
    clock: Clock
    doorway: Doorway | None = None
    """The way to this installation's own collections."""
    files: Path | None = None
    """The folder of files that replays write."""
    own_topics: str = LOG_TOPICS
    """How the topics of this installation's own log begin."""
    senders: int = 1
    """How many processes send one replay to HTTP; with 1 it is this one."""
    senders_after: int = FIRST
    """So many events are sent by this one before the others are started."""
    steady: Callable[[], float] = steady_seconds
    chance: Chance = random.random
    bounds: Bounds = field(default=DEFAULT_BOUNDS)
    bus: Bus | None = None
    """Says that somebody wishes something; without it that is seen at the next checkpoint."""


def run_replay(
    replay_id: str,
    tools: Tools,
    *,
    holder: str,
    run_id: str | None = None,
    stop: threading.Event | None = None,
    told: Callable[[ReplayRecord], None] = lambda _: None,
) -> ReplayRecord | None:
    """Claim the replay and bring it to its end; answer its row then.

    Answers None while somebody else has it. A row that is still ``running`` was put down in good
    order because `stop` was set, one that is ``paused`` waits for a person; both are free for the
    next run. `told` hears of the row at every checkpoint, in some thread.

    A replay that cannot be done (its destination is gone or refused, its query cannot be read, its
    table is another one) ends as ``failed`` with the reason. Raises `NotFound`, `WrongState` if
    there is nothing to run or the lease went to another holder, and `Unavailable` if a store did
    not answer for too long; then the next run goes on.
    """
    claimed_at = tools.steady()
    ttl = round(tools.bounds.lease_seconds * 1_000_000)
    record = tools.store.claim_replay(replay_id, holder, tools.clock(), ttl, run_id=run_id)
    if record is None:
        log.info("the replay is held by another run", replay=replay_id)
        return None
    row = _Row(tools, record, claimed_at, stop or threading.Event(), told)
    log.info("replay claimed", replay=replay_id, epoch=record.epoch, state=record.state)
    try:
        with row.hearing():
            _Work(row, tools, holder).bring_to_end()
    except (Rejected, Stopped) as error:
        if row.lost:
            raise
        log.warning("replay failed", replay=replay_id, error=str(error))
        row.save(row.progress, state="failed", error=str(error))
    if row.record.state in ENDS:
        release_pins(tools.store, tools.planner, CollectionId(record.team, record.collection))
    else:
        tools.store.release_replay(replay_id, row.record.epoch)
    return tools.store.replay(record.team, replay_id)


def release_pins(store: Store, planner: Planner, collection: CollectionId) -> list[str]:
    """Unpin the snapshots of replays of this collection that have ended, or are forgotten."""

    def over(replay_id: str) -> bool:
        try:
            return store.replay(collection.team, replay_id).state in ENDS
        except NotFound:
            return True

    released = planner.release(collection, over)
    if released:
        log.info("snapshots unpinned", collection=str(collection), replays=released)
    return released


class _PutDown(Exception):
    """Planning stops because it was told to."""


class _Work:
    """One claimed replay."""

    def __init__(self, row: _Row, tools: Tools, holder: str) -> None:
        self._row = row
        self._tools = tools
        self._holder = holder

    def bring_to_end(self) -> None:
        """Plan if there is no plan yet, send, and let go of what was held."""
        request = request_of(self._row.record)
        if request.options.continuous:
            self._go_on_and_on(request)
        else:
            self._send_all(request)

    def _go_on_and_on(self, request: ReplayRequest) -> None:
        """Send what there is leg by leg, until an order or the time says to stop.

        A leg is a plan with a snapshot of its own, in the place of the one before: what it holds,
        and up to where that is everything, is said in one checkpoint. So whoever comes after a
        death finds either the leg, to be sent to its end, or the place from which on to look.
        """
        row, tools = self._row, self._tools
        if row.record.plan is None or row.record.state == "requested":
            begun = None if row.record.plan is not None else tools.planner.begin(request)
            row.save(row.progress, state="running", plan=begun)
        plan = read_plan(row.record.plan or {})
        if plan.pin is None:
            # Of somebody who died after a leg, or before the one they made was written down.
            tools.planner.let_go(request.id, row.record.id)
        breaker = Breaker(request.options.patience())
        began = heard = tools.steady()
        while not self._is_over(plan):
            if plan.pin is not None:
                self._send_all(request, breaker)
                if row.progress.ended < plan.count or row.record.state in ENDS:
                    return
                plan, heard = at_rest(plan), tools.steady()
                row.save(row.progress, state=row.record.state, plan=plan)
                fault("replay_at_rest")
                tools.planner.let_go(request.id, row.record.id)
                continue
            if tools.steady() - began > tools.bounds.turn_seconds:
                return
            row.wait(tools.bounds.look_seconds)
            with row.beating():
                leg = tools.planner.next_leg(request, plan, row.record.id)
            if leg is not None:
                fault("replay_leg_found")
                plan, heard = leg, tools.steady()
                row.save(next_leg(row.progress), state=row.record.state, plan=plan)
                fault("replay_leg_made")
            elif tools.steady() - heard > tools.bounds.idle_seconds:
                return

    def _is_over(self, plan: Plan) -> bool:
        """Say whether there is a reason to stop; between two legs do what somebody wishes."""
        row = self._row
        if plan.pin is not None:
            return False  # the sender obeys
        match row.orders.wish:
            case "cancel":
                row.save(row.progress, state="cancelled")
            case "pause":
                row.save(row.progress, state="paused")
            case _:
                # Time goes on, also where nothing is sent.
                far = replace(row.progress, at=self._tools.clock())
                row.save(with_course(far, far.course), state=row.record.state)
        return row.record.state != "running" or row.orders.stop

    def _send_all(self, request: ReplayRequest, breaker: Breaker | None = None) -> None:
        """Make a plan if there is none yet, and send what it says."""
        row, tools = self._row, self._tools
        destination = tools.store.destination(row.record.team, row.record.destination)
        transform = transform_of(request, tools.store)
        target = target_of(destination, row.record, request, tools)
        if transform is not None:
            target = ChangingTarget(target, transform)
        if row.record.plan is None and not self._make_plan(request, destination):
            return
        plan = read_plan(row.record.plan or {})
        matches = tools.planner.open(request, plan)
        with row.beating():
            buckets = [] if matches is None else tools.planner.count(plan, matches)
        check_count(buckets, plan)
        batches = _source(matches, buckets, row.progress, plan)
        self._send(request, plan, batches, target, transform, breaker)

    def _make_plan(self, request: ReplayRequest, to: Destination) -> bool:
        """Have a plan in the row; answer False where an order to stop was obeyed instead."""
        row, tools = self._row, self._tools

        def waiting(how: Waiting) -> None:
            if row.orders.wish == "cancel" or row.orders.stop:
                raise _PutDown
            row.waiting = f"landing has absorbed {how.absorbed:,} of {how.wanted:,} events"

        row.save(row.progress, state="planning")
        try:
            with row.beating():
                plan = tools.planner.plan(
                    request,
                    wake=tools.wake,
                    to=to.url,
                    bound=to.rate,
                    warned=known_of(tools.store, to, request, tools.files),
                    replay_id=row.record.id,
                    told=waiting,
                    expected=expected(tools.store, request),
                )
        except _PutDown:
            if row.orders.wish == "cancel":
                row.save(Progress(), state="cancelled")
            return False
        row.waiting = None
        row.save(Progress(), state="running", plan=plan)
        log.info("replay planned", replay=row.record.id, count=plan.count, bytes=plan.bytes)
        return True

    def _send(
        self,
        request: ReplayRequest,
        plan: Plan,
        source: Source,
        target: Target,
        transform: Transform | None,
        breaker: Breaker | None,
    ) -> None:
        """Send what the plan says, in an event loop of its own."""
        row, tools = self._row, self._tools

        async def main() -> Ended:
            ledger = NoLedger() if request.options.dry_run else tools.open_ledger()
            try:
                sender = Sender(
                    Job(
                        replay=row.record.id,
                        epoch=row.record.epoch,
                        collection=request.id,
                        destination=row.record.destination,
                        who=self._holder,
                        log_id=plan.log_id,
                        transform=None if transform is None else transform.id,
                        leg=plan.leg,
                    ),
                    source,
                    target,
                    ledger,
                    _Keeper(row),
                    matched=plan.count,
                    progress=row.progress,
                    orders=row.orders,
                    paused=row.record.state == "paused",
                    lease_until=row.lease_until,
                    clock=tools.clock,
                    steady=tools.steady,
                    chance=tools.chance,
                    bounds=tools.bounds,
                    ask=None if request.options.dry_run else self._share,
                    breaker=breaker,
                )
                with row.nudging(asyncio.get_running_loop(), sender.hurry):
                    return await sender.run()
            finally:
                await target.close()
                await ledger.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    async def _share(self, wants: float | None) -> Share | None:
        """Ask what the destination's own rate leaves to this replay."""
        record, tools = self._row.record, self._tools

        def ask() -> Share | None:
            return tools.store.share(
                record.team, record.destination, record.id, wants, tools.clock()
            )

        return await asyncio.to_thread(ask)


async def _source(
    matches: Matches | None, buckets: Sequence[Bucket], progress: Progress, plan: Plan
) -> Source:
    """Read the matches slice by slice in a thread; begin again behind the last one after trouble.

    A slice is found by metadata that upkeep may clean away in that very moment.
    """
    if matches is None:
        return
    after, left = progress.through, plan.to_send - plan.before - progress.passed
    tries = 0
    batches = matches.batches(buckets, after)
    while left > 0:
        try:
            batch = await asyncio.to_thread(next, batches, None)
        except EngineUnavailable as error:
            tries += 1
            if tries == _READ_TRIES:
                raise
            log.warning("matches could not be read", error=str(error))
            await asyncio.sleep(_READ_DELAY)
            batches = matches.batches(buckets, after)
            continue
        if batch is None:
            return
        tries = 0
        if batch:
            after = batch.position(-1)
            yield batch if len(batch) <= left else batch[:left]
            left -= len(batch)


class _Row:
    """The replay's row under our lease, for callers that block."""

    def __init__(
        self,
        tools: Tools,
        record: ReplayRecord,
        claimed_at: float,
        stop: threading.Event,
        told: Callable[[ReplayRecord], None],
    ) -> None:
        self.record = record
        self.lost = False
        self.waiting: str | None = None
        self.lease_until = claimed_at + tools.bounds.lease_seconds
        self._tools = tools
        self._stop = stop
        self._told = told
        self._options: Options = request_of(record).options
        self._news = threading.Event()
        self._nudge: Callable[[], object] = self._news.set

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """See at once, within the block, what a person wishes of this replay."""
        if self._tools.bus is None:
            yield
            return

        def told(replay_id: str) -> None:
            if replay_id == self.record.id:
                self._nudge()

        subscription = self._tools.bus.subscribe(REPLAY, told)
        try:
            yield
        finally:
            subscription.close()

    @contextmanager
    def nudging(
        self, loop: asyncio.AbstractEventLoop, hurry: Callable[[], object]
    ) -> Iterator[None]:
        """Within the block it is `hurry`, in its loop, that looks for wishes."""

        def nudge() -> None:
            with suppress(RuntimeError):  # the loop has ended: nothing is left to be hurried
                loop.call_soon_threadsafe(hurry)

        self._nudge = nudge
        try:
            yield
        finally:
            self._nudge = self._news.set

    @property
    def progress(self) -> Progress:
        """What the row says."""
        return read_progress(self.record.progress)

    @property
    def orders(self) -> Orders:
        """What the row, and the process we are in, ask for."""
        return Orders(self.record.wish, self._options, self._stop.is_set())

    def save(
        self,
        progress: Progress,
        *,
        state: State,
        error: str | None = None,
        plan: Plan | None = None,
    ) -> Orders:
        """Make a checkpoint. Raises `WrongState` if the lease is another's, `Unavailable`."""
        begun = self._tools.steady()
        bounds = self._tools.bounds
        try:
            self.record = self._tools.store.checkpoint_replay(
                self.record.id,
                self.record.epoch,
                progress=progress.as_dict(),
                plan=plan.as_dict() if plan else None,
                state=state,
                error=error,
                now=self._tools.clock(),
                ttl=round(bounds.lease_seconds * 1_000_000),
            )
        except WrongState:
            self.lost = True
            raise
        self.lease_until = begun + bounds.lease_seconds
        self._read_options()
        self._told(self.record)
        return self.orders

    def wait(self, seconds: float) -> None:
        """Return when somebody wishes something, the process has to end, or after so long."""
        end = self._tools.steady() + seconds
        while not self._stop.is_set() and (left := end - self._tools.steady()) > 0:
            if self._news.wait(min(left, _STOP_SECONDS)):
                self._news.clear()
                return

    def _read_options(self) -> None:
        """Take over what may change while a replay runs; what cannot be read changes nothing."""
        try:
            self._options = read_options(self.record.options)
        except Rejected as error:
            log.warning("options ignored", replay=self.record.id, error=str(error))

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep the lease, by a thread, while the block is busy with something that takes long."""
        done = threading.Event()
        broken: list[BaseException] = []

        def beat() -> None:
            while True:
                self._news.wait(self._tools.bounds.checkpoint_seconds)
                self._news.clear()
                if done.is_set():
                    return
                try:
                    progress = replace(self.progress, waiting=self.waiting)
                    self.save(progress, state=self.record.state, error=self.record.error)
                except EngineUnavailable as error:
                    log.warning("no checkpoint could be made", error=str(error))
                except WrongState as error:
                    broken.append(error)
                    return

        thread = threading.Thread(target=beat, name=f"lease of {self.record.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            self._news.set()
            thread.join()
        if broken:
            raise broken[0]


class _Keeper:
    """The row for the sender, whose event loop must not block."""

    def __init__(self, row: _Row) -> None:
        self._row = row

    async def save(self, progress: Progress, *, state: State, error: str | None) -> Orders:
        """Make a checkpoint in a thread."""
        return await asyncio.to_thread(self._row.save, progress, state=state, error=error)


class DryTarget:
    """Makes every message ready and sends none."""

    def __init__(self, target: Target) -> None:
        self.most = target.most
        self.ordered = target.ordered
        self._target = target

    def check(self, message: Message) -> Failed | None:
        """Say what the target says."""
        return self._target.check(message)

    async def examine(self) -> str | None:
        """Ask nobody."""
        return None

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Answer that nothing was sent."""
        for message in messages:
            self._target.check(message)
        return [Skipped()] * len(messages)

    async def close(self) -> None:
        """Let go of what was never opened."""
        await self._target.close()


def target_of(
    destination: Destination, record: ReplayRecord, request: ReplayRequest, tools: Tools
) -> Target:
    """Answer the destination, ready to be sent to.

    Raises `AddressRefused` if replays may not go there, `BadRequest` for headers that cannot be
    sent.
    """
    target = open_target(
        destination,
        guard=tools.guard,
        replay_id=record.id,
        collection=request.id,
        clock=tools.clock,
        headers=request.options.headers,
        marked=bool(request.options.transform),
        timeout=request.options.timeout,
        own_topics=tools.own_topics,
        doorway=tools.doorway,
        files=tools.files,
    )
    known_of(tools.store, destination, request, tools.files)
    if request.options.headers == "verbatim" and destination.kind == "http":
        refuse_own_door(tools.guard.endpoint(destination.url), tools.doors)
    if request.options.dry_run:
        return DryTarget(target)
    if tools.senders == 1 or destination.kind != "http" or request.options.order == "log":
        return target
    begin = Begin(
        destination=destination,
        networks=tuple(map(str, tools.guard.allow_networks)),
        ports=tools.guard.allow_ports,
        replay_id=record.id,
        collection=request.id,
        headers=request.options.headers,
        marked=bool(request.options.transform),
        timeout=request.options.timeout,
    )
    return SpreadTarget(target, begin, count=tools.senders, first=tools.senders_after)


def refuse_own_door(
    endpoint: Endpoint,
    doors: Sequence[str],
    *,
    lookup: Callable[[str], Sequence[str]] | None = None,
) -> None:
    """Raise `AddressRefused` if the endpoint is one of this installation's own doors.

    Events sent there come back as new ones, to be replayed with the next plan. What tells the door
    that an event is a replay is a header, and ``verbatim`` adds none.
    """
    own = {(door.hostname, door.port) for door in map(urlsplit, doors)}
    if endpoint.port not in {port for _, port in own}:
        return
    addresses = [endpoint.host] if endpoint.literal else (lookup or _addresses)(endpoint.host)
    if (endpoint.host, endpoint.port) in own or any(map(_is_here, addresses)):
        raise AddressRefused(
            "this destination is Penstock's own door: with verbatim headers it would take the "
            "replay for new events"
        )


def _addresses(host: str) -> Sequence[str]:
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, None)]
    except OSError:
        return ()  # a name that leads nowhere does not lead here


def _is_here(address: str) -> bool:
    """Say whether an address is one of this machine's: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
