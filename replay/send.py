"""The sender: takes events in log order and brings each to an end, keeping its books.

One event goes through: taken into the window; *announced* in a checkpoint; its intent accepted by
the ledger; sent; its outcome accepted by the ledger; covered by a checkpoint. Each step waits for
the one before, in batches: a cycle of the bookkeeper writes the outcomes and intents that have
gathered and makes one checkpoint, while the workers go on sending what was announced before.

So when a sender dies, whatever it may have sent lies between the checkpoint's `through` and
`intended` and is not in `done`. A successor writes ``unknown`` for the attempts that were open and
repeats these events, never more than the window holds, and nothing else.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import structlog

from penstock.envelope import Clock, CollectionId, Position
from penstock.errors import Unavailable
from penstock.faults import fault
from penstock.vocabulary import State
from replay.events import Feed, Source
from replay.gate import Gate
from replay.lease import DEFAULT_BOUNDS, Bounds, Keeper, Lease, Orders, Standing
from replay.ledger import Ledger
from replay.pacing import BURST_SECONDS, Breaker, Chance, delay
from replay.progress import LATE_SECONDS, NOT_TRIED, Attempt, Attempts, Progress, Tried
from replay.request import rfc3339
from replay.schedule import Schedule
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
from replay.window import Item, Lanes, Window

log = structlog.get_logger()

_COUNTS = ("delivered", "failed", "skipped", "unknown", "repeated", "attempts", "bytes", "late")
# With Retry-After these speak for the whole destination, not for one event.
_HOLDS = frozenset({429, 503})
_LEDGER_DELAYS = (0.5, 5.0)
_SOON = 0.05
# One that an ordered target brings to its end, and one that it takes meanwhile.
_SENDS = 2
_BEHIND_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Whose attempts these are: what stands on every row of the ledger."""

    replay: str
    epoch: int
    collection: CollectionId
    destination: str
    who: str


class Ended(NamedTuple):
    """How a sender left its replay. `running` and `paused` mean that a successor goes on."""

    state: State
    progress: Progress
    error: str | None


class _Answer(NamedTuple):
    item: Item
    rows: Attempts
    due: float
    """When to try again, if the outcome is a retry."""


class Sender:
    """Sends one replay. Made, run once, and thrown away, all in one event loop.

    `matched` is the plan's count: what of it was not sent in the end is skipped. `clock` is the
    time written into rows, `steady` the seconds by which a lease ends.
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
    ) -> None:
        self._now = asyncio.get_running_loop().time
        self._job, self._bounds = job, bounds
        self._feed = Feed(source)
        self._target, self._ledger = target, ledger
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

        self._matched, self._before = matched, progress
        self._tried = dict(progress.tried)
        self._counts = Counter({name: getattr(progress, name) for name in _COUNTS})
        self._last_failure = progress.last_failure
        ordered = target.ordered
        self._sizes = bounds.sizes(ordered=ordered)
        self._window = Window(
            self._sizes.window,
            bounds.window_bytes,
            through=progress.through,
            passed=progress.passed,
            done=progress.done,
        )
        self._intended: Position | None = None
        self._exhausted = False
        self._broken: Exception | None = None

        options = orders.options
        self._options = options
        self._at_once = 1 if ordered else options.at_once()
        self._lanes = Lanes(options.order, free=ordered)
        self._blocked = 0
        """Events of an ordered target that have to be sent again before any other is."""
        self._setbacks = 0
        """How often one was: what was about to be sent then has to get behind it."""
        self._gate, self._schedule = Gate(options.rate, self._may_send), Schedule(options)
        self._breaker = Breaker(options.patience())

        # Where an event is: fresh, announced, early where times are kept, ready (or in its lane),
        # flying, answered, and either over or due again.
        self._fresh: deque[Item] = deque()
        self._announced: list[Item] = []
        self._recorded: list[Item] = []
        """Announced, while the ledger is told of them."""
        self._ready: deque[Item] = deque()
        self._flying: set[Item] = set()
        self._answers: list[_Answer] = []
        self._answered_events = 0
        self._due: list[tuple[float, Position, Item]] = []
        self._torn: list[Item] = []
        self._backlog = 0
        """Events that were let go and are not answered."""

        self._state: State = "paused" if paused else "running"
        self._error: str | None = None
        self._trouble: str | None = None
        self._ending: State | None = None
        self._paused_at = self._now()
        self._booked_at, self._writes = float("-inf"), 0
        self._books, self._space = asyncio.Event(), asyncio.Event()
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
                await self._close_open_attempts()
                reader = group.create_task(self._read())
                timer = group.create_task(self._keep_time())
                self._staff()
                await self._keep_books()
                for task in (beat, reader, timer, *self._workers.values()):
                    task.cancel()
        except BaseExceptionGroup as errors:
            broken = _first(errors)
        broken = broken or self._broken
        if broken is not None:
            raise broken
        return Ended(self._state, self._lease.last, self._error)

    def hurry(self) -> None:
        """Look for orders now, and not at the next checkpoint only."""
        self._lease.hurry()

    # Taking events

    async def _close_open_attempts(self) -> None:
        """Write ``unknown`` for what the sender before left open, and take those events again."""
        reopened: list[Item] = []
        told = self._before.intended is not None
        while told and await self._feed.fill() and self._was_intended():
            item = self._take(1)
            if item is not None and item.open:
                reopened.append(item)
        rows = [
            self._rows(item, epoch=self._before.epoch, outcome="unknown", reason="the sender died")
            for item in reopened
        ]
        if rows:
            await self._write(rows)
            log.info("open attempts closed", replay=self._job.replay, events=len(rows))
        for item in reopened:
            item.open = False
        self._counts["repeated"] += len(rows)
        await self._checkpoint()

    def _was_intended(self) -> bool:
        """Say whether the next event may have been sent by the sender before."""
        last = self._before.intended
        return last is not None and self._feed.position <= last

    async def _read(self) -> None:
        """Take events as long as there is room in the window."""
        try:
            while await self._feed.fill():
                while self._feed.left and (room := self._window.room()):
                    self._take(min(room, self._together()))
                self._books.set()
                if self._feed.left:
                    self._space.clear()
                    await self._space.wait()
        except Exception as error:  # noqa: BLE001 - raised again when the books are closed
            self._broken = error
            self._ending = self._ending or self._state
        self._exhausted = True
        self._books.set()

    def _together(self) -> int:
        """Answer how many events may be one item: one, where something is known of each."""
        if not self._target.ordered or self._tried or self._window.expects or self._was_intended():
            return 1
        return 1 if self._schedule.on else self._most()

    def _take(self, most: int) -> Item | None:
        """Take the next events from the batch, as one item."""
        feed, tried = self._feed, NOT_TRIED
        if self._tried or self._before.intended is not None:
            place = feed.position
            tried = self._tried.pop(place, self._before.history(place))
        item = self._window.take(*feed.next(most), tried)
        feed.passed(1 if item is None else item.count)
        if item is not None:
            self._schedule.place(item)
            self._fresh.append(item)
        return item

    # Keeping times

    async def _keep_time(self) -> None:
        """Let events go when they are due, in the order of the log, whatever became of others."""
        schedule = self._schedule
        while True:
            wait: float | None = None
            if schedule.early and self._runs():
                count = 0
                for item in schedule.due(self._now()):
                    self._let_go(item)
                    count += 1
                self._gate.call(count)
                wait = schedule.wait(self._now()) if schedule.early else None
            await self._gate.wait(wait)

    def _runs(self) -> bool:
        """Say whether the time of the replay goes on: not in a pause, nor in one that was asked."""
        return self._state == "running" and self._ending is None and self._gate.held() <= 0

    def _let_go(self, item: Item) -> None:
        if self._lanes.enter(item):
            self._ready.append(item)

    def _retime(self) -> None:
        """Go on at another speed from the first event that was not due yet."""
        announced = (item for item in (*self._recorded, *self._announced) if not item.entered)
        self._schedule.stop(self._ready)
        self._schedule.change(self._options, (*self._schedule.early, *announced, *self._fresh))

    def _behind(self) -> float:
        """Answer for how long the event that is next has been due."""
        due = self._ready[0].due if self._ready else None
        return 0.0 if due is None else self._now() - due

    def _announces_at(self) -> float:
        """Answer when there are events to be announced."""
        if not self._fresh or self._state != "running":
            return float("inf")
        waiting = bool(self._schedule.early or self._recorded or self._announced)
        return self._schedule.announces_at(self._fresh[0], self._now(), waiting=waiting)

    def _announceable(self) -> bool:
        return self._announces_at() <= self._now()

    # Sending

    def _staff(self) -> None:
        """Have a worker for each number below the concurrency; others leave by themselves."""
        assert self._group is not None  # noqa: S101 - only called while running
        for number in range(self._at_once):
            if number not in self._workers:
                task = self._group.create_task(self._work(number))
                self._workers[number] = task
                task.add_done_callback(partial(self._left, number))

    def _left(self, number: int, _: asyncio.Task[None]) -> None:
        del self._workers[number]

    def _may_send(self) -> bool:
        if self._state != "running" or self._ending is not None or self._blocked:
            return False
        return self._lease.holds()

    async def _work(self, number: int) -> None:
        ready = self._ready
        while number < self._at_once:
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
                item, *others = self._window.part(item, length=room)
                ready.extendleft(reversed(others))
            items.append(item)
            room -= item.count
        return items

    def _most(self) -> int:
        """Answer how many may go in one send: with a rate, what it lets through at once."""
        rate = self._options.rate
        most = self._target.most
        return most if rate is None else min(most, max(1, int(rate * BURST_SECONDS)))

    async def _send(self, items: Sequence[Item]) -> None:
        messages = Messages(
            [Parcel(item.events, item.start, item.stop, item.attempt) for item in items]
        )
        self._flying.update(items)
        started, setbacks = self._now(), self._setbacks
        for item in items:
            if item.due is not None and started - item.due > LATE_SECONDS:
                self._counts["late"] += item.count
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
            self._answered(item, outcome, latency, at, counts=moment)
            moment = moment and not isinstance(outcome, Retry)
            answered += item.count
        # The first answer starts the bookkeeper's clock.
        if self._answered_events <= answered or self._ending or self._cycle_is_due():
            self._books.set()

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
                yield from zip(self._window.part(item, length=1), came, strict=True)

    def _answered(
        self, item: Item, outcome: Outcome, latency: float, at: str, *, counts: bool
    ) -> None:
        """Say what follows from an outcome; the books learn of it in the next cycle."""
        final = True
        due = 0.0
        reason: str | None = None
        match outcome:
            case Delivered():
                self._breaker.reset()
                word = "delivered"
            case Skipped():
                word = "skipped"
            case Failed():
                word, reason = "failed", outcome.reason
                self._failed(reason)
            case Retry():
                reason = outcome.reason
                final = item.attempt > self._options.retries
                word = "failed" if final else "retry"
                due = self._now() + delay(item.attempt, outcome.after, self._chance)
                if outcome.after is not None and outcome.status in _HOLDS:
                    self._gate.hold(outcome.after)
                    self._schedule.stop(self._ready)
                elif counts:
                    self._failed(reason)
                if self._target.ordered and not final:
                    self._blocked += 1
                    self._setbacks += 1
        rows = self._rows(
            item, at=at, outcome=word, status=outcome.status, reason=reason, latency_ms=latency
        )
        self._answers.append(_Answer(item, rows, due))
        self._answered_events += item.count
        self._backlog -= item.count
        if final and (following := self._lanes.leave(item)) is not None:
            self._ready.append(following)

    def _failed(self, reason: str) -> None:
        if self._breaker.failed() and self._state == "running" and self._ending is None:
            self._pause(f"{self._breaker.failures} attempts in a row failed, the last: {reason}")

    # Orders

    def _obey(self, orders: Orders) -> None:
        if orders.stop and self._ending is None:
            self._ending = self._state
        match orders.wish:
            case "cancel":
                self._ending = "cancelled"
            case "pause" if self._state == "running":
                self._pause(None)
            case "resume" if self._state == "paused":
                self._state, self._error = "running", None
                self._breaker.reset()
            case _:
                pass
        if orders.options != self._options:
            self._change(orders)
        self._books.set()
        self._gate.wake()

    def _pause(self, reason: str | None) -> None:
        self._state, self._error = "paused", reason
        self._paused_at = self._now()
        self._schedule.stop(self._ready)
        log.info("replay paused", replay=self._job.replay, reason=reason)

    def _change(self, orders: Orders) -> None:
        """Take over what may change while a replay runs."""
        options, before = orders.options, self._options
        if options.rate != before.rate:
            self._gate.change(options.rate)
        if not self._target.ordered:
            self._at_once = options.concurrency if before.order == "key" else 1
        self._options = options
        if options.tempo() != before.tempo():
            self._retime()
        if self._workers:
            self._staff()

    def _standing(self) -> Standing:
        waiting = self._trouble
        if waiting is None and (left := self._gate.held()) > 0:
            waiting = f"the destination asked to be left alone for another {left:.0f} s"
        if waiting is None and self._state == "running" and self._behind() > _BEHIND_SECONDS:
            waiting = (
                f"{self._behind():.0f} s behind its times: the destination, the rate or the "
                "concurrency allows no more"
            )
        return Standing(self._state, self._error, waiting)

    # Books

    async def _keep_books(self) -> None:
        """Run cycles until everything came to an end, or the orders say to stop."""
        while not self._finished():
            await self._until_cycle()
            if self._ending is None and self._lingered():
                self._ending = "paused"
            if self._ending is not None:
                await self._put_down(self._ending)
                return
            await self._cycle()
        self._state, self._error, self._intended = "finished", None, None
        self._skip_the_rest()
        await self._checkpoint()

    def _finished(self) -> bool:
        if self._broken is not None:
            return False
        return self._exhausted and not self._feed.left and not self._window and not self._answers

    def _lingered(self) -> bool:
        return self._state == "paused" and self._now() >= self._linger_end()

    def _linger_end(self) -> float:
        return self._paused_at + self._bounds.linger_seconds

    def _cycle_is_due(self) -> bool:
        """Say whether what has gathered is worth a write and a checkpoint now."""
        answers = self._answered_events
        if self._ending or not self._lease.shows(self._state, self._error):
            return True
        if answers >= self._sizes.answers:
            return True
        # What waits for its time has to be ready before it comes.
        part = 2 if self._schedule.on else 8
        if self._backlog >= max(2 * self._at_once, self._sizes.window // part):
            return False
        if self._announced or self._announceable():
            return True
        if self._schedule.on and self._fresh:
            return False
        # Nothing else can be sent: the answers may be what keeps the window shut.
        return answers > 0 and (self._backlog == 0 or not self._window.room())

    def _next_cycle(self) -> float:
        """Answer when a cycle is due if nothing more gathers."""
        end = float("inf")
        if self._answers:
            end = self._booked_at + self._bounds.checkpoint_seconds
        if self._announced or self._announceable():
            # The backlog may wait behind a few keys, with nothing for the workers to do.
            end = min(end, self._booked_at + _SOON)
        else:
            end = min(end, self._announces_at())
        if self._state == "paused":
            return min(end, self._linger_end())
        return min(end, self._due[0][0]) if self._due else end

    async def _until_cycle(self) -> None:
        while not self._cycle_is_due() and (wait := self._next_cycle() - self._now()) > 0:
            self._books.clear()
            await _wait(self._books, wait)
            if self._finished():
                return

    async def _cycle(self) -> None:
        """Record what was answered and announced, let that go, announce more, and save."""
        answers, self._answers, self._answered_events = self._answers, [], 0
        announced, self._announced = self._announced, []
        self._recorded = announced
        at = rfc3339(self._clock())
        rows = [answer.rows for answer in answers]
        rows += [self._rows(item, at=at) for item in announced]
        if rows:
            await self._write(rows)
        for answer in answers:
            self._close(answer)
        if self._blocked:
            self._unblock(announced)
        self._recorded = []
        for item in announced:
            if self._schedule.on and not item.entered:
                self._schedule.early.append(item)
            else:
                self._let_go(item)
        if self._target.ordered and any(item.attempt > 1 for item in announced):
            self._put_in_order()
        self._backlog += sum(map(len, announced))
        self._gate.wake()
        if self._state == "running":
            self._announce()
        await self._checkpoint()

    def _unblock(self, announced: Sequence[Item]) -> None:
        """Count those that are announced again: once all are, sending goes on with them."""
        self._blocked -= sum(item.count for item in announced if item.entered)

    def _put_in_order(self) -> None:
        ready = sorted(self._ready, key=lambda item: item.first)
        self._ready.clear()
        self._ready.extend(ready)

    def _announce(self) -> None:
        """Take what may be sent next; the checkpoint that follows says so."""
        fresh = self._announceable()
        while self._due and self._due[0][0] <= self._now():
            self._announced.append(heapq.heappop(self._due)[2])
        if fresh:
            far = self._schedule.announces_to(self._fresh[0], self._now())
            while self._fresh and self._fresh[0].place <= far:
                self._announced.append(self._fresh.popleft())
            self._intended = self._announced[-1].last
        for item in self._announced:
            item.attempt += 1
            item.open = True

    def _close(self, answer: _Answer) -> None:
        """Take over an outcome that the ledger has."""
        item, rows, due = answer
        item.open = False
        outcome, reason = rows.first.outcome, rows.first.reason
        self._counts["attempts"] += item.count
        if reason is not None:
            self._last_failure = reason
        if outcome == "retry":
            heapq.heappush(self._due, (due, item.first, item))
            return
        if outcome == "delivered":
            self._counts["bytes"] += item.bytes
        self._counts[outcome or ""] += item.count
        self._window.finish(item)

    async def _put_down(self, ending: State) -> None:
        """Let what is under way come to its end, for a while; then close the books."""
        await self._cut_off()
        for item in self._announced:
            _take_back(item)
        answers, torn = self._answers, self._torn
        known = {answer.item for answer in answers}.union(torn)
        unsent = [i for i in self._window.unfinished() if i.open and i not in known]
        reason = "cut off while it was under way"
        rows = [answer.rows for answer in answers]
        rows += [self._rows(item, outcome="unknown", reason=reason) for item in torn]
        rows += [self._rows(item, outcome="skipped") for item in unsent]
        if rows:
            await self._write(rows)
        for answer in answers:
            self._close(answer)
        for item in torn:
            item.open = False
        for item in unsent:
            _take_back(item)
        cut_off = sum(map(len, torn))
        self._counts["attempts"] += cut_off
        self._counts["unknown" if ending == "cancelled" else "repeated"] += cut_off
        self._intended = None
        if ending != self._state:
            self._state, self._error = ending, None
        if ending == "cancelled":
            self._skip_the_rest()
        await self._checkpoint()

    async def _cut_off(self) -> None:
        """Wait for the answers to what is under way, then end every worker."""
        end = self._now() + self._bounds.grace_seconds
        while self._flying and (left := end - self._now()) > 0:
            self._books.clear()
            await _wait(self._books, left)
        workers = [*self._workers.values(), *self._sends]
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)

    def _skip_the_rest(self) -> None:
        counts = self._counts
        sent = counts["delivered"] + counts["failed"] + counts["unknown"]
        counts["skipped"] = max(0, self._matched - sent)

    async def _write(self, rows: Sequence[Attempts]) -> None:
        """Have the ledger accept the rows, however long that takes."""
        self._writes += 1
        key = f"{self._job.replay}-{self._job.epoch}-{self._writes}"
        shortest, longest = _LEDGER_DELAYS
        while True:
            try:
                await self._ledger.write(rows, key=key)
            except Unavailable as error:
                self._trouble = str(error)
                log.warning("attempts are not recorded", replay=self._job.replay, error=str(error))
                await asyncio.sleep(min(max(error.retry_after, shortest), longest))
            else:
                self._trouble = None
                return

    async def _checkpoint(self) -> None:
        """Save where we are, and so let the window move on."""
        counts = self._counts
        progress = Progress(
            epoch=self._job.epoch,
            through=self._window.through,
            passed=self._window.passed,
            done=self._window.done(),
            intended=self._intended,
            tried=tuple(
                (position, Tried(item.attempt, item.open))
                for item in self._window.unfinished()
                if item.attempt > 1 or (item.attempt == 1 and not item.open)
                for position in item.positions()
            ),
            delivered=counts["delivered"],
            failed=counts["failed"],
            skipped=counts["skipped"],
            unknown=counts["unknown"],
            repeated=counts["repeated"],
            attempts=counts["attempts"],
            bytes=counts["bytes"],
            late=counts["late"],
            last_failure=self._last_failure,
        )
        await self._lease.save(progress)
        self._window.saved(progress.passed)
        self._booked_at = self._now()
        self._space.set()

    def _rows(
        self,
        item: Item,
        *,
        at: str | None = None,
        epoch: int | None = None,
        outcome: str | None = None,
        status: int | None = None,
        reason: str | None = None,
        latency_ms: float | None = None,
    ) -> Attempts:
        job, events, start, stop = self._job, item.events, item.start, item.stop
        first = Attempt(
            replay=job.replay,
            epoch=job.epoch if epoch is None else epoch,
            event_id=events.ids[start],
            team=job.collection.team,
            collection=job.collection.name,
            partition=events.partition,
            offset=events.offsets[start],
            last=events.offsets[start],
            attempt=item.attempt,
            kind="intent" if outcome is None else "outcome",
            outcome=outcome,
            status=status,
            latency_ms=latency_ms,
            reason=reason,
            at=at or rfc3339(self._clock()),
            destination=job.destination,
            who=job.who,
        )
        if stop - start == 1:
            return Attempts(first)
        return Attempts(first, events.ids[start + 1 : stop], events.offsets[start + 1 : stop])


def _take_back(item: Item) -> None:
    """Say that the attempt that was announced is not made."""
    item.attempt -= 1
    item.open = False


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after so many seconds."""
    if seconds == float("inf"):
        await event.wait()
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Answer what broke the sender: one task did, the others of the group went with it."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
