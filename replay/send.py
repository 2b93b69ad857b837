"""The sender: sends what its books let go, as fast as the destination and those who asked allow.

Workers take turns at what is ready, behind the gate, and an event of a key behind those before it;
what comes of a send is told to the [books](books.py), which let it go again where it is tried once
more. Failures in a row pause the replay, or leave the destination alone for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import structlog

from penstock.envelope import Clock
from penstock.faults import fault
from penstock.vocabulary import State
from replay.books import Answer, Books, Job
from replay.events import Source
from replay.gate import Gate
from replay.lease import DEFAULT_BOUNDS, Bounds, Keeper, Lease, Orders, Standing
from replay.ledger import Ledger
from replay.load import Load, has_too_much
from replay.pacing import Breaker, Chance, delay
from replay.progress import LATE_SECONDS, Progress
from replay.request import rfc3339
from replay.schedule import Schedule
from replay.share import Ask
from replay.targets import (
    Delivered,
    Failed,
    Messages,
    Outcome,
    Parcel,
    Retry,
    Skipped,
    Target,
)
from replay.window import Item, Lanes

log = structlog.get_logger()

# With Retry-After these speak for the whole destination, not for one event.
_HOLDS = frozenset({429, 503})
# These are said of a destination, whatever the event.
_IS_AWAY = frozenset({408, 425, 429, 502, 503, 504})
# One that an ordered target brings to its end, and one that it takes meanwhile.
_SENDS = 2
_BEHIND_SECONDS = 1.0


class Ended(NamedTuple):
    """How a sender left its replay. `running` and `paused` mean that a successor goes on."""

    state: State
    progress: Progress
    error: str | None


class Sender:
    """Sends one replay. Made, run once, and thrown away, all in one event loop.

    `matched` is the plan's count: what of it was not sent in the end is skipped. `clock` is the
    time written into rows, `steady` the seconds by which a lease ends. `ask` answers what the
    destination's own rate leaves to this replay. `breaker` has counted the failures of the leg
    before this one.

    A continuous replay is not finished when everything was sent: it stays as it is.
    """

    def __init__(
        self,
        job: Job,
        source: Source,
        target: Target,
        ledger: Ledger,
        keeper: Keeper,
        *,
        matched: int,
        progress: Progress,
        orders: Orders,
        paused: bool = False,
        lease_until: float,
        clock: Clock,
        steady: Callable[[], float],
        chance: Chance,
        bounds: Bounds = DEFAULT_BOUNDS,
        ask: Ask | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self._now = asyncio.get_running_loop().time
        self._job, self._bounds = job, bounds
        self._target = target
        self._clock, self._chance = clock, chance
        self._lease = Lease(
            keeper,
            bounds,
            last=progress,
            until=lease_until,
            clock=clock,
            steady=steady,
            standing=self._standing,
            obey=self._obey,
        )

        options, ordered = orders.options, target.ordered
        self._options = options
        self._load = Load(1 if ordered else options.at_once())
        self._lanes = Lanes(options.order, free=ordered)
        self._blocked = 0
        """Events of an ordered target that have to be sent again before any other is."""
        self._setbacks = 0
        """How often one was: what was about to be sent then has to get behind it."""
        self._gate, self._schedule = (
            Gate(options.rate, self._may_send, ask=ask, clock=clock),
            Schedule(options, opens=ordered),
        )
        self._breaker = breaker or Breaker(options.patience())
        self._books = Books(
            job,
            source,
            ledger,
            self._lease,
            matched=matched,
            progress=progress,
            paused=paused,
            continuous=options.continuous,
            ordered=ordered,
            bounds=bounds,
            clock=clock,
            schedule=self._schedule,
            load=self._load,
            together=self._together,
            let_go=self._let_go,
            cut_off=self._cut_off,
        )

        # Where an event is that was let go: early where times are kept, ready (or in its lane),
        # flying, and answered.
        self._ready: deque[Item] = deque()
        self._flying: set[Item] = set()
        self._torn: list[Item] = []
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._sends: set[asyncio.Task[None]] = set()
        """What an ordered target has under way: no worker waits for it."""
        self._group: asyncio.TaskGroup | None = None
        self._obey(orders)

    async def run(self) -> Ended:
        """Send until everything came to an end or the orders say to stop; answer how it was left.

        Raises what the source raises, after what was under way came to its end and the books were
        closed; and at once `WrongState` if the lease went to another sender, `EngineUnavailable`
        if it could not be kept. Then the books stay as they are durable. Either way a successor
        goes on from them.
        """
        broken: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                beat = group.create_task(self._lease.beat())
                await self._books.close_open_attempts()
                reader = group.create_task(self._books.read())
                timer = group.create_task(self._keep_time())
                share = group.create_task(self._gate.share.keep())
                self._staff()
                await self._books.keep()
                for task in (beat, reader, timer, share, *self._workers.values()):
                    task.cancel()
        except BaseExceptionGroup as errors:
            broken = _first(errors)
        broken = broken or self._books.broken
        if broken is not None:
            raise broken
        return Ended(self._books.state, self._lease.last, self._books.error)

    def hurry(self) -> None:
        """Look for orders now, and not at the next checkpoint only."""
        self._lease.hurry()

    # Keeping times

    async def _keep_time(self) -> None:
        """Let events go when they are due, in the order of the log, whatever became of others."""
        schedule = self._schedule
        while True:
            wait = float("inf")
            if schedule.early and self._runs():
                count = 0
                for item in schedule.due(self._now()):
                    self._is_due(item)
                    count += 1
                self._gate.call(count)
                if schedule.early:
                    wait = schedule.wait(self._now())
            await self._gate.wait(wait if wait < float("inf") else None)

    def _runs(self) -> bool:
        """Say whether the time of the replay goes on: not in a pause, nor in one that was asked."""
        return self._books.sending and self._gate.held() <= 0

    def _is_due(self, item: Item) -> None:
        if self._lanes.enter(item):
            self._ready.append(item)

    def _retime(self) -> None:
        """Go on at another speed from the first event that was not due yet."""
        self._schedule.stop(self._ready)
        coming = (*self._schedule.early, *self._books.not_let_go())
        self._schedule.change(self._options, coming)

    def _behind(self) -> float:
        """Answer for how long the event that is next has been due."""
        due = self._ready[0].due if self._ready else None
        return 0.0 if due is None else self._now() - due

    # Sending

    def _let_go(self, announced: Sequence[Item]) -> None:
        """Take over what was announced, to be sent as soon as it may."""
        if self._blocked:
            self._unblock(announced)
        for item in announced:
            if self._schedule.on and not item.entered:
                self._schedule.early.append(item)
            else:
                self._is_due(item)
        if self._target.ordered and any(item.attempt > 1 for item in announced):
            self._put_in_order()
        self._gate.wake()

    def _unblock(self, announced: Sequence[Item]) -> None:
        """Count those that are announced again: once all are, sending goes on with them."""
        self._blocked -= sum(item.count for item in announced if item.entered)

    def _put_in_order(self) -> None:
        ready = sorted(self._ready, key=lambda item: item.first)
        self._ready.clear()
        self._ready.extend(ready)

    def _staff(self) -> None:
        """Have a worker for each number below the limit; others leave by themselves."""
        assert self._group is not None  # noqa: S101 - only called while running
        for number in range(self._load.limit):
            if number not in self._workers:
                self._workers[number] = self._group.create_task(self._work(number))

    def _may_send(self) -> bool:
        return self._books.sending and not self._blocked and self._lease.holds()

    async def _work(self, number: int) -> None:
        ready = self._ready
        while number < self._load.limit:
            if not ready or not self._gate.is_open():
                await self._gate.wait()
                continue
            setbacks = self._setbacks
            items = self._next_items()
            passed = await self._gate.passed(sum(item.count for item in items))
            if not passed or setbacks != self._setbacks:
                ready.extendleft(reversed(items))
                if self._target.ordered:
                    self._put_in_order()
            elif self._target.ordered:
                await self._begin(items)
            else:
                await self._send(items)
        del self._workers[number]
        self._gate.wake()

    async def _begin(self, items: Sequence[Item]) -> None:
        """Begin a send; return when another may begin behind it."""
        assert self._group is not None  # noqa: S101 - only called while running
        task = self._group.create_task(self._send(items))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        while len(self._sends) >= _SENDS:
            await asyncio.wait(self._sends, return_when=asyncio.FIRST_COMPLETED)

    def _next_items(self) -> list[Item]:
        """Take what goes in one send: the last item of it may be too long, and is cut."""
        ready, room = self._ready, self._most()
        items: list[Item] = []
        while ready and room > 0:
            item = ready.popleft()
            if item.count > room:
                item, *others = self._books.window.part(item, length=room)
                ready.extendleft(reversed(others))
            items.append(item)
            room -= item.count
        return items

    def _together(self) -> int:
        """Answer how many events may be one item."""
        return 1 if not self._target.ordered or self._schedule.on else self._most()

    def _most(self) -> int:
        """Answer how many may go in one send."""
        return self._gate.most(self._target.most)

    async def _send(self, items: Sequence[Item]) -> None:
        messages = Messages(
            [Parcel(item.events, item.start, item.stop, item.attempt) for item in items]
        )
        self._flying.update(items)
        started, setbacks = self._now(), self._setbacks
        for item in items:
            if item.due is not None and started - item.due > LATE_SECONDS:
                self._books.late(item.count)
            item.due = None
        try:
            outcomes = await self._target.send(messages)
        except asyncio.CancelledError:
            self._torn.extend(items)
            raise
        finally:
            self._flying.difference_update(items)
        fault("replay_sent")
        latency = round((self._now() - started) * 1000, 3)
        at = rfc3339(self._clock())
        # What a whole send met with is one bad moment, not as many as it had events; and so is what
        # met the send in front of it and, because of that, this one.
        moment = setbacks == self._setbacks
        answered = 0
        for item, outcome in self._told_apart(items, outcomes):
            self._learn(outcome, started)
            self._answered(item, outcome, latency, at, counts=moment)
            moment = moment and not isinstance(outcome, Retry)
            answered += item.count
        self._books.heard(answered)

    def _told_apart(
        self, items: Sequence[Item], outcomes: Sequence[Outcome]
    ) -> Iterator[tuple[Item, Outcome]]:
        """Answer what came of each item; its events part where they were not all delivered."""
        if len(outcomes) == len(items):
            yield from zip(items, outcomes, strict=True)
            return
        start = 0
        for item in items:
            came = outcomes[start : start + item.count]
            start += item.count
            first = came[0]
            if len(came) == 1 or (
                isinstance(first, Delivered | Skipped) and came.count(first) == len(came)
            ):
                yield item, first
            else:
                yield from zip(self._books.window.part(item, length=1), came, strict=True)

    def _learn(self, outcome: Outcome, started: float) -> None:
        """Take over what an outcome says about how many sends at once the destination bears."""
        if isinstance(outcome, Delivered):
            if self._load.delivered():
                self._staff()
        elif isinstance(outcome, Retry) and has_too_much(outcome):
            self._load.too_much(started=started, now=self._now())

    def _answered(
        self, item: Item, outcome: Outcome, latency: float, at: str, *, counts: bool
    ) -> None:
        """Say what follows from an outcome; the books learn of it in the next cycle."""
        final = True
        due = 0.0
        reason: str | None = None
        match outcome:
            case Delivered():
                self._breaker.reset(delivered=True)
                word, reason = "delivered", outcome.differs
            case Skipped():
                word = "skipped"
            case Failed():
                word, reason = "failed", _and(outcome.reason, outcome.differs)
                self._failed(outcome.reason)
            case Retry():
                reason = outcome.reason
                due = self._now() + delay(item.attempt, outcome.after, self._chance)
                held = outcome.after is not None and outcome.status in _HOLDS
                if held:
                    self._gate.hold(outcome.after or 0.0)
                    self._schedule.stop(self._ready)
                if counts and self._options.waits_after() is not None:
                    self._wait_after(reason)
                elif counts and not held:
                    self._failed(reason)
                final = item.attempt > self._options.retries and self._may_give_up(outcome)
                word = "failed" if final else "retry"
                if self._target.ordered and not final:
                    self._blocked += 1
                    self._setbacks += 1
        rows = self._books.rows(
            item, at=at, outcome=word, status=outcome.status, reason=reason, latency_ms=latency
        )
        differs = isinstance(outcome, Delivered | Failed) and outcome.differs is not None
        self._books.hear(Answer(item, rows, due, differs))
        if final:
            self._ended(item)

    def _ended(self, item: Item) -> None:
        """Let go of what waited for an item to come to its end."""
        if (following := self._lanes.leave(item)) is not None:
            self._ready.append(following)
        if self._schedule.ended(item, self._now()):
            self._gate.wake()

    def _failed(self, reason: str) -> None:
        if self._breaker.failed() and self._books.sending:
            self._pause(self._told_failures(reason))

    def _wait_after(self, reason: str) -> None:
        """Count a failure that may pass; leave the destination alone after some, for longer ones.

        While it is away no event has had its last attempt, but for one.
        """
        self._breaker.failed()
        if self._breaker.failures < (self._options.waits_after() or 0):
            return
        self._breaker.away = said = self._told_failures(reason)
        if self._gate.held() <= 0:
            self._gate.hold(self._breaker.wait())
            self._schedule.stop(self._ready)
            log.info("destination left alone", replay=self._job.replay, reason=said)

    def _may_give_up(self, outcome: Retry) -> bool:
        """Say whether an event that has had all its attempts fails for good.

        Of a continuous replay to which nothing is delivered just now, it may be the event or the
        destination. One is given up to find that out, if the destination answers at all; those
        behind it show which it was.
        """
        lives = self._breaker.delivered and self._breaker.away is None
        if lives or self._options.waits_after() is None:
            return True
        if self._breaker.gave_up or outcome.status is None or outcome.status in _IS_AWAY:
            return False
        self._breaker.gave_up = True
        return True

    def _told_failures(self, reason: str) -> str:
        return f"{self._breaker.failures} attempts in a row failed, the last: {reason}"

    async def _cut_off(self) -> Sequence[Item]:
        """Wait for the answers to what is under way, then end every worker.

        Answers what was torn: sent perhaps, and not answered.
        """
        end = self._now() + self._bounds.grace_seconds
        while self._flying and (left := end - self._now()) > 0:
            await self._books.called(left)
        workers = [*self._workers.values(), *self._sends]
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)
        return self._torn

    # Orders

    def _obey(self, orders: Orders) -> None:
        books = self._books
        if orders.stop and books.ending is None:
            books.ending = books.state
        match orders.wish:
            case "cancel":
                books.ending = "cancelled"
            case "pause" if books.state == "running":
                self._pause(None)
            case "resume" if books.state == "paused":
                books.resume()
                self._breaker.reset()
            case _:
                pass
        if orders.options != self._options:
            self._change(orders)
        books.call()
        self._gate.wake()

    def _pause(self, reason: str | None) -> None:
        self._books.pause(reason)
        self._schedule.stop(self._ready)
        log.info("replay paused", replay=self._job.replay, reason=reason)

    def _change(self, orders: Orders) -> None:
        """Take over what may change while a replay runs."""
        options, before = orders.options, self._options
        if options.rate != before.rate:
            self._gate.change(options.rate)
        if not self._target.ordered and options.at_once() != before.at_once():
            self._load.change(options.at_once())
        self._options = options
        if options.tempo() != before.tempo():
            self._retime()
        if self._workers:
            self._staff()

    def _standing(self) -> Standing:
        waiting = self._books.trouble
        if waiting is None and self._breaker.away is not None:
            left = max(0.0, self._gate.held())
            waiting = f"{self._breaker.away}; tried again in {left:.0f} s, and nothing is left out"
        if waiting is None and (left := self._gate.held()) > 0:
            waiting = f"the destination asked to be left alone for another {left:.0f} s"
        if waiting is not None or self._books.state != "running":
            return Standing(self._books.state, self._books.error, waiting)
        if self._load.limit < self._load.most:
            at_once = "1 send" if self._load.limit == 1 else f"{self._load.limit} sends"
            waiting = (
                f"the destination has too much to do: {at_once} at a time, not {self._load.most}"
            )
        elif self._behind() > _BEHIND_SECONDS:
            waiting = (
                f"{self._behind():.0f} s behind its times: the destination, the rate or the "
                "concurrency allows no more"
            )
        return Standing(self._books.state, self._books.error, waiting)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Answer what broke the sender: one task did, the others of the group went with it."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _and(reason: str, differs: str | None) -> str:
    return reason if differs is None else f"{reason}; {differs}"
