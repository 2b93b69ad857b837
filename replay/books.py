"""A sender's books: what it took, announced and was told, in the ledger and in checkpoints.

One event goes through: taken into the window; *announced* in a checkpoint; its intent accepted by
the ledger; let go, and sent; its outcome accepted by the ledger; covered by a checkpoint. Each step
waits for the one before, in batches: a cycle writes the outcomes and intents that have gathered and
makes one checkpoint, while what was announced before is sent.

So when a sender dies, whatever it may have sent lies between the checkpoint's `through` and
`intended` and is not in `done`. A successor writes ``unknown`` for the attempts that were open and
repeats these events, never more than the window holds, and nothing else.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import structlog

from penstock.envelope import Clock, CollectionId, Position
from penstock.errors import Unavailable
from penstock.vocabulary import State
from replay.events import Feed, Source
from replay.lease import Bounds, Lease
from replay.ledger import Ledger
from replay.load import Load
from replay.progress import NOT_TRIED, Attempt, Attempts, Progress, Tried
from replay.request import rfc3339
from replay.schedule import Schedule
from replay.window import Item, Window

log = structlog.get_logger()

_COUNTS = (
    "delivered",
    "failed",
    "skipped",
    "unknown",
    "repeated",
    "attempts",
    "bytes",
    "late",
    "differing",
)
_LEDGER_DELAYS = (0.5, 5.0)
_SOON = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Whose attempts these are: what stands on every row of the ledger."""

    replay: str
    epoch: int
    collection: CollectionId
    destination: str
    who: str
    log_id: str = ""
    transform: str | None = None
    leg: int = 0
    """Of a continuous replay: an epoch may have many, each with a sender of its own."""


class Answer(NamedTuple):
    """What came of an attempt, and the rows that say so."""

    item: Item
    rows: Attempts
    due: float
    """When to try again, if the outcome is a retry."""
    differs: bool = False


class Books:
    """The books of one sender, who is told what was announced by `let_go`, and tells by `hear`.

    `matched` is the plan's count: what of it was not sent in the end is skipped. `together` answers
    how many events may be one item, where nothing is known of each. `cut_off` waits a while for
    what is under way, ends it, and answers what it was.

    At the end of a continuous replay's leg the state stays as it is.
    """

    def __init__(
        self,
        job: Job,
        source: Source,
        ledger: Ledger,
        lease: Lease,
        *,
        matched: int,
        progress: Progress,
        paused: bool,
        continuous: bool,
        ordered: bool,
        bounds: Bounds,
        clock: Clock,
        schedule: Schedule,
        load: Load,
        together: Callable[[], int],
        let_go: Callable[[Sequence[Item]], None],
        cut_off: Callable[[], Awaitable[Sequence[Item]]],
    ) -> None:
        self._now = asyncio.get_running_loop().time
        self._job, self._bounds = job, bounds
        self._feed = Feed(source)
        self._ledger, self._lease = ledger, lease
        self._clock = clock
        self._schedule, self._load = schedule, load
        self._together, self._let_go, self._cut_off = together, let_go, cut_off
        self._continuous = continuous

        self._matched, self._before = matched, progress
        self._tried = dict(progress.tried)
        self._counts = Counter({name: getattr(progress, name) for name in _COUNTS})
        self._last_failure = progress.last_failure
        self._sizes = bounds.sizes(ordered=ordered)
        self.window = Window(
            self._sizes.window,
            bounds.window_bytes,
            through=progress.through,
            passed=progress.passed,
            done=progress.done,
        )
        self._intended: Position | None = None
        self._exhausted = False
        self.broken: Exception | None = None
        """What the source raised."""

        # Where an event is: fresh, announced, let go, answered, and either over or due again.
        self._fresh: deque[Item] = deque()
        self._announced: list[Item] = []
        self._recorded: list[Item] = []
        """Announced, while the ledger is told of them."""
        self._answers: list[Answer] = []
        self._answered_events = 0
        self._due: list[tuple[float, Position, Item]] = []
        self._backlog = 0
        """Events that were let go and are not answered."""

        self.state: State = "paused" if paused else "running"
        self.error: str | None = None
        self.ending: State | None = None
        """As what the replay is to be put down, in place of the next cycle."""
        self.trouble: str | None = None
        """Why the ledger takes nothing."""
        self._paused_at = self._now()
        self._booked_at, self._writes = float("-inf"), 0
        self._called, self._space = asyncio.Event(), asyncio.Event()

    @property
    def sending(self) -> bool:
        """Whether events may be sent: not in a pause, nor in what was asked to end."""
        return self.state == "running" and self.ending is None

    def pause(self, reason: str | None) -> None:
        """Let nothing more go, until somebody resumes the replay."""
        self.state, self.error = "paused", reason
        self._paused_at = self._now()

    def resume(self) -> None:
        """Go on after a pause."""
        self.state, self.error = "running", None

    def call(self) -> None:
        """Have whoever keeps the books look at once."""
        self._called.set()

    async def called(self, seconds: float) -> None:
        """Return when somebody called, or after so many seconds."""
        self._called.clear()
        await _wait(self._called, seconds)

    # What the sender tells

    def hear(self, answer: Answer) -> None:
        """Take an outcome; the ledger is told of it in the next cycle."""
        self._answers.append(answer)
        self._answered_events += answer.item.count
        self._backlog -= answer.item.count

    def heard(self, events: int) -> None:
        """Have the answers to so many events written soon, or at once if that is due."""
        # The first answer starts the bookkeeper's clock.
        if self._answered_events <= events or self.ending or self._cycle_is_due():
            self._called.set()

    def late(self, events: int) -> None:
        """Count events that were sent long after they were due."""
        self._counts["late"] += events

    def not_let_go(self) -> Iterator[Item]:
        """Answer what was taken and not let go yet, in log order."""
        announced = (item for item in (*self._recorded, *self._announced) if not item.entered)
        return chain(announced, self._fresh)

    # Taking events

    async def close_open_attempts(self) -> None:
        """Write ``unknown`` for what the sender before left open, and take those events again."""
        reopened: list[Item] = []
        told = self._before.intended is not None
        while told and await self._feed.fill() and self._was_intended():
            item = self._take(1)
            if item is not None and item.open:
                reopened.append(item)
        rows = [
            self.rows(item, epoch=self._before.epoch, outcome="unknown", reason="the sender died")
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

    async def read(self) -> None:
        """Take events as long as there is room in the window."""
        try:
            while await self._feed.fill():
                while self._feed.left and (room := self.window.room()):
                    self._take(min(room, self._at_once()))
                self._called.set()
                if self._feed.left:
                    self._space.clear()
                    await self._space.wait()
        except Exception as error:  # noqa: BLE001 - raised again when the books are closed
            self.broken = error
            self.ending = self.ending or self.state
        self._exhausted = True
        self._called.set()

    def _at_once(self) -> int:
        """Answer how many events may be one item: one, where something is known of each."""
        if self._tried or self.window.expects or self._was_intended():
            return 1
        return self._together()

    def _take(self, most: int) -> Item | None:
        """Take the next events from the batch, as one item."""
        feed, tried = self._feed, NOT_TRIED
        if self._tried or self._before.intended is not None:
            place = feed.position
            tried = self._tried.pop(place, self._before.history(place))
        item = self.window.take(*feed.next(most), tried)
        feed.passed(1 if item is None else item.count)
        if item is not None:
            self._schedule.place(item)
            self._fresh.append(item)
        return item

    # Cycles

    async def keep(self) -> None:
        """Run cycles until everything came to an end, or the orders say to stop."""
        while not self._finished():
            await self._until_cycle()
            if self.ending is None and self._lingered():
                self.ending = "paused"
            if self.ending is not None:
                await self._put_down(self.ending)
                return
            await self._cycle()
        self._intended = None
        if not self._continuous:
            self.state, self.error = "finished", None
        self._skip_the_rest()
        await self._checkpoint()

    def _finished(self) -> bool:
        if self.broken is not None:
            return False
        return self._exhausted and not self._feed.left and not self.window and not self._answers

    def _lingered(self) -> bool:
        return self.state == "paused" and self._now() >= self._linger_end()

    def _linger_end(self) -> float:
        return self._paused_at + self._bounds.linger_seconds

    def _announces_at(self) -> float:
        """Answer when there are events to be announced."""
        if not self._fresh or self.state != "running":
            return float("inf")
        waiting = bool(self._schedule.early or self._recorded or self._announced)
        return self._schedule.announces_at(self._fresh[0], self._now(), waiting=waiting)

    def _announceable(self) -> bool:
        return self._announces_at() <= self._now()

    def _cycle_is_due(self) -> bool:
        """Say whether what has gathered is worth a write and a checkpoint now."""
        answers = self._answered_events
        if self.ending or not self._lease.shows(self.state, self.error):
            return True
        if answers >= self._sizes.answers:
            return True
        # What waits for its time has to be ready before it comes.
        part = 2 if self._schedule.on else 8
        if self._backlog >= max(2 * self._load.limit, self._sizes.window // part):
            return False
        if self._announced or self._announceable():
            return True
        if self._schedule.on and self._fresh:
            return False
        # Nothing else can be sent: the answers may be what keeps the window shut.
        return answers > 0 and (self._backlog == 0 or not self.window.room())

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
        if self.state == "paused":
            return min(end, self._linger_end())
        return min(end, self._due[0][0]) if self._due else end

    async def _until_cycle(self) -> None:
        while not self._cycle_is_due() and (wait := self._next_cycle() - self._now()) > 0:
            await self.called(wait)
            if self._finished():
                return

    async def _cycle(self) -> None:
        """Record what was answered and announced, let that go, announce more, and save."""
        answers, self._answers, self._answered_events = self._answers, [], 0
        announced, self._announced = self._announced, []
        self._recorded = announced
        at = rfc3339(self._clock())
        rows = [answer.rows for answer in answers]
        rows += [self.rows(item, at=at) for item in announced]
        if rows:
            await self._write(rows)
        for answer in answers:
            self._close(answer)
        self._recorded = []
        self._backlog += sum(map(len, announced))
        self._let_go(announced)
        if self.state == "running":
            self._announce()
        await self._checkpoint()

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

    def _close(self, answer: Answer) -> None:
        """Take over an outcome that the ledger has."""
        item, rows, due, differs = answer
        item.open = False
        outcome, reason = rows.first.outcome, rows.first.reason
        self._counts["attempts"] += item.count
        if reason is not None and outcome != "delivered":
            self._last_failure = reason
        if differs:
            self._counts["differing"] += item.count
        if outcome == "retry":
            heapq.heappush(self._due, (due, item.first, item))
            return
        if outcome == "delivered":
            self._counts["bytes"] += item.bytes
        self._counts[outcome or ""] += item.count
        self.window.finish(item)

    # Closing

    async def _put_down(self, ending: State) -> None:
        """Let what is under way come to its end, for a while; then close the books."""
        torn = await self._cut_off()
        for item in self._announced:
            _take_back(item)
        answers = self._answers
        known = {answer.item for answer in answers}.union(torn)
        unsent = [i for i in self.window.unfinished() if i.open and i not in known]
        reason = "cut off while it was under way"
        rows = [answer.rows for answer in answers]
        rows += [self.rows(item, outcome="unknown", reason=reason) for item in torn]
        rows += [self.rows(item, outcome="skipped") for item in unsent]
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
        if ending != self.state:
            self.state, self.error = ending, None
        if ending == "cancelled":
            self._skip_the_rest()
        await self._checkpoint()

    def _skip_the_rest(self) -> None:
        counts = self._counts
        sent = counts["delivered"] + counts["failed"] + counts["unknown"]
        counts["skipped"] = max(0, self._matched - sent)

    # Rows and checkpoints

    async def _write(self, rows: Sequence[Attempts]) -> None:
        """Have the ledger accept the rows, however long that takes."""
        self._writes += 1
        key = f"{self._job.replay}-{self._job.epoch}-{self._job.leg}-{self._writes}"
        shortest, longest = _LEDGER_DELAYS
        while True:
            try:
                await self._ledger.write(rows, key=key)
            except Unavailable as error:
                self.trouble = str(error)
                log.warning("attempts are not recorded", replay=self._job.replay, error=str(error))
                await asyncio.sleep(min(max(error.retry_after, shortest), longest))
            else:
                self.trouble = None
                return

    async def _checkpoint(self) -> None:
        """Save where we are, and so let the window move on."""
        counts = self._counts
        progress = Progress(
            epoch=self._job.epoch,
            through=self.window.through,
            passed=self.window.passed,
            done=self.window.done(),
            intended=self._intended,
            tried=tuple(
                (position, Tried(item.attempt, item.open))
                for item in self.window.unfinished()
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
            differing=counts["differing"],
            last_failure=self._last_failure,
        )
        await self._lease.save(progress)
        self.window.saved(progress.passed)
        self._booked_at = self._now()
        self._space.set()

    def rows(
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
        """Answer the rows of an item's attempt: its intent, or its outcome if there is one."""
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
            log_id=job.log_id,
            transform=job.transform,
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
