"""Stand-ins for what a sender works with, and an event loop whose time is a number.

Nothing here waits: when every task of a `VirtualLoop` sleeps, its time jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from itertools import groupby
from typing import Any, TypeVar

from builders import FLIGHTS, NOON, event
from msgspec.structs import replace

from penstock.envelope import Event, Micros, Position
from penstock.errors import Unavailable, WrongState
from penstock.vocabulary import State, Wish
from replay.books import Job
from replay.events import Events, Original, one_event
from replay.lease import Bounds, Orders
from replay.progress import Attempt, Attempts, Progress, read_progress
from replay.request import Options
from replay.send import Ended, Sender
from replay.share import Ask
from replay.targets import Delivered, Failed, Message, Outcome, Target

_T = TypeVar("_T")
COLUMNS = [name for name in Events.__slots__ if name != "partition"]


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # chosen at run time
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("every task waits for something that cannot happen")
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes no time."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.now


def run_virtual(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def virtual_clock() -> Micros:
    """Answer the time of day in virtual time."""
    return NOON + int(now() * 1e6)


def originals(
    count: int, *, keys: Sequence[bytes | None] = (None,), partitions: int = 1
) -> list[Original]:
    """Answer events in log order, whose keys take turns; id and payload tell the place."""
    found = []
    for partition in range(partitions):
        for offset in range(count // partitions):
            key = keys[offset % len(keys)]
            found.append(
                Original(
                    Position(partition, offset),
                    event(b"%d-%d" % (partition, offset), key=key),
                )
            )
    return found


async def feed(
    events: Sequence[Original], after: Position | None = None, batch: int = 7
) -> AsyncIterator[Events]:
    """Answer what lies after a position, as a source does."""
    left = [each for each in events if after is None or each.position > after]
    for start in range(0, len(left), batch):
        for _, same in groupby(left[start : start + batch], lambda each: each.position.partition):
            yield in_columns(list(same))


def in_columns(events: Sequence[Original]) -> Events:
    """Answer events of one partition as they come from the lake."""
    first, *others = (one_event(*each) for each in events)
    for each in others:
        for name in COLUMNS:
            getattr(first, name).extend(getattr(each, name))
    return first


class MemoryKeeper:
    """A replay's row, held under `epoch`. `wishes` are what a person asks, each at a time."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.epoch = 1
        self.progress = Progress()
        self.state: State = "running"
        self.error: str | None = None
        self.wishes: list[tuple[float, Wish]] = []
        self.stop_at = float("inf")
        self.silent: tuple[float, float] = (0.0, 0.0)
        self.seconds = 0.001
        self.saves: list[tuple[float, State, Progress]] = []

    async def save(self, epoch: int, progress: Progress, state: State, error: str | None) -> Orders:
        await asyncio.sleep(self.seconds / 2)
        if self.silent[0] <= now() < self.silent[1]:
            raise Unavailable("the row cannot be written now")
        if epoch != self.epoch:
            raise WrongState("the lease is another's")
        self.progress = read_progress(progress.as_dict())
        self.state, self.error = state, error
        self.saves.append((now(), state, self.progress))
        await asyncio.sleep(self.seconds / 2)
        due = [wish for at, wish in self.wishes if at <= now()]
        self.wishes = [each for each in self.wishes if each[0] > now()]
        return Orders(due[-1] if due else None, self.options, stop=now() >= self.stop_at)


class Hold:
    """A keeper's row as the holder of one epoch has it."""

    def __init__(self, keeper: MemoryKeeper) -> None:
        self._keeper = keeper
        self._epoch = keeper.epoch

    async def save(self, progress: Progress, *, state: State, error: str | None) -> Orders:
        return await self._keeper.save(self._epoch, progress, state, error)


class MemoryLedger:
    """Keeps rows. While it is `silent` it records nothing, or records and does not say so."""

    def __init__(self) -> None:
        self.rows: list[Attempt] = []
        self.silent: tuple[float, float] = (0.0, 0.0)
        self.deaf_every = 0
        self.seconds = 0.005
        self._calls = 0
        self._keys: set[str] = set()

    async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
        await asyncio.sleep(self.seconds / 2)
        if self.silent[0] <= now() < self.silent[1]:
            raise Unavailable("the door does not answer")
        if key not in self._keys:
            self._keys.add(key)
            self.rows += [row for each in rows for row in each.rows()]
        await asyncio.sleep(self.seconds / 2)
        self._calls += 1
        if self.deaf_every and self._calls % self.deaf_every == 0:
            raise Unavailable("the answer was lost")

    async def close(self) -> None:
        pass


class ScriptedTarget:
    """Answers by a function of message and time; keeps what was sent and when."""

    def __init__(
        self,
        script: Callable[[Message], Outcome] = lambda _: Delivered(200),
        *,
        seconds: Callable[[Message], float] = lambda _: 0.01,
        most: int = 1,
        ordered: bool = False,
    ) -> None:
        self.most = most
        self.ordered = ordered
        self.sent: list[tuple[float, Message]] = []
        self.delivered: list[Position] = []
        self.under_way = 0
        self.busiest = 0
        self._script = script
        self._seconds = seconds

    def check(self, message: Message) -> Failed | None:
        return None

    async def examine(self) -> str | None:
        return None

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        self.under_way += len(messages)
        self.busiest = max(self.busiest, self.under_way)
        messages = list(messages)
        self.sent += [(now(), message) for message in messages]
        outcomes = [self._script(message) for message in messages]
        # The destination has it from here on, whether the sender learns of it or not.
        taken = zip(messages, outcomes, strict=True)
        self.delivered += [m.position for m, o in taken if isinstance(o, Delivered)]
        try:
            await asyncio.sleep(max(self._seconds(message) for message in messages))
        finally:
            self.under_way -= len(messages)
        return outcomes

    async def close(self) -> None:
        pass

    def times(self, position: Position) -> list[float]:
        """Answer when an event was sent."""
        return [at for at, message in self.sent if message.position == position]


def sender(
    events: Sequence[Original],
    target: Target,
    keeper: MemoryKeeper,
    ledger: MemoryLedger,
    *,
    bounds: Bounds | None = None,
    chance: Callable[[], float] = lambda: 0.0,
    steady: Callable[[], float] = now,
    ask: Ask | None = None,
) -> Sender:
    """Answer a sender that goes on where the keeper's progress is."""
    return Sender(
        Job(replay="r1", epoch=keeper.epoch, collection=FLIGHTS, destination="d1", who="test"),
        feed(events, keeper.progress.through),
        target,
        ledger,
        Hold(keeper),
        matched=len(events),
        progress=keeper.progress,
        orders=Orders(None, keeper.options),
        paused=keeper.state == "paused",
        lease_until=now() + (bounds or Bounds()).lease_seconds,
        clock=virtual_clock,
        steady=steady,
        chance=chance,
        bounds=bounds or Bounds(),
        ask=ask,
    )


def replayed(
    events: Sequence[Original],
    target: Target,
    keeper: MemoryKeeper | None = None,
    ledger: MemoryLedger | None = None,
    *,
    bounds: Bounds | None = None,
) -> Ended:
    """Send all events in virtual time; answer how it ended."""
    keeper = keeper or MemoryKeeper()
    ledger = ledger or MemoryLedger()

    async def main() -> Ended:
        return await sender(events, target, keeper, ledger, bounds=bounds).run()

    return run_virtual(main())


def next_epoch(keeper: MemoryKeeper) -> MemoryKeeper:
    """Give the row to the next sender."""
    keeper.epoch += 1
    return keeper


def payloads(target: ScriptedTarget) -> list[bytes]:
    return [message.event.payload for _, message in target.sent]


def with_key(original: Original, key: bytes | None) -> Original:
    return Original(original.position, replace(original.event, key=key))


def ids(events: Sequence[Original]) -> list[Event]:
    return [each.event for each in events]
