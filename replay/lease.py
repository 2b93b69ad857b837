"""The right to send: a replay's row held under a lease, and extended by every checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog
from msgspec.structs import replace

from penstock.envelope import Clock
from penstock.errors import EngineUnavailable, Unavailable
from penstock.faults import fault
from penstock.metadata.states import ENDS
from penstock.vocabulary import State, Wish
from replay.progress import Progress, with_course
from replay.request import Options

log = structlog.get_logger()

_STORE_DELAY = 0.2


class Sizes(NamedTuple):
    """What depends on the target."""

    window: int
    answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The sender's own numbers."""

    window: int = 1_000
    """Events that a successor repeats at most."""
    batch_window: int = 40_000
    """The same for a target that keeps the order and takes batches: Kafka."""
    window_bytes: int = 32 << 20
    """Of payload, in either window."""
    checkpoint_answers: int = 250
    """Answers after which a checkpoint is made, at the latest."""
    checkpoint_seconds: float = 1.0
    """Time after which a checkpoint is made at the latest, and so until a wish is seen."""
    lease_seconds: float = 15.0
    lease_margin: float = 3.0
    """How long before the end of its lease a sender stops."""
    grace_seconds: float = 5.0
    """How long a cancelled replay waits for the answers to what is under way."""
    linger_seconds: float = 600.0
    """How long a paused replay keeps its process."""
    look_seconds: float = 1.0
    """How often a continuous replay looks for what has landed. Between two of its legs that leaves
    the rate more time than it lets through at once."""
    idle_seconds: float = 60.0
    """How long a continuous replay keeps its process when nothing lands."""
    turn_seconds: float = 3_600.0
    """After so long a continuous replay that has sent everything leaves the rest to a new one."""

    def sizes(self, *, ordered: bool) -> Sizes:
        """Answer the window, and after how many answers a checkpoint is made."""
        if not ordered:
            return Sizes(self.window, self.checkpoint_answers)
        return Sizes(self.batch_window, max(self.checkpoint_answers, self.batch_window // 4))


DEFAULT_BOUNDS = Bounds()


class Orders(NamedTuple):
    """What a checkpoint answers: what a person wishes, and the options as they are now."""

    wish: Wish | None
    options: Options
    stop: bool = False
    """Put the work down in good order: the process has to end."""


class Standing(NamedTuple):
    """What a checkpoint says beside the progress."""

    state: State
    error: str | None
    waiting: str | None


class Keeper(Protocol):
    """The replay's row as its holder has it."""

    async def save(self, progress: Progress, *, state: State, error: str | None) -> Orders:
        """Make the checkpoint durable, extend the lease, and answer the orders.

        Raises `WrongState` when the lease is another's, `Unavailable` when nothing is known.
        """
        ...


class Lease:
    """Makes checkpoints, one after the other, and knows until when its holder may send.

    `until` and what `steady` answers are seconds that go on while the machine sleeps. `standing`
    is asked, and `obey` told the orders, at each checkpoint.
    """

    def __init__(
        self,
        keeper: Keeper,
        bounds: Bounds,
        *,
        last: Progress,
        until: float,
        clock: Clock,
        steady: Callable[[], float],
        standing: Callable[[], Standing],
        obey: Callable[[Orders], None],
    ) -> None:
        self.last = last
        """What the durable checkpoint says."""
        self._keeper = keeper
        self._bounds = bounds
        self._until = until
        self._clock = clock
        self._steady = steady
        self._standing = standing
        self._obey = obey
        self._saved: tuple[State, str | None] | None = None
        self._saved_at = float("-inf")
        self._turn = asyncio.Lock()
        self._hurried = asyncio.Event()

    def holds(self) -> bool:
        """Say whether sending may begin now."""
        return self._left() > 0

    def shows(self, state: State, error: str | None) -> bool:
        """Say whether that is what the row shows."""
        return self._saved == (state, error)

    async def save(self, progress: Progress | None = None) -> None:
        """Make a checkpoint durable; raise if that is not possible before the lease ends.

        Without progress, what the last checkpoint says is said again. Which one is the last is
        looked up only once it is our turn: an older one would take back what was announced.
        After an end was saved nothing is.
        """
        async with self._turn:
            if self._saved is not None and self._saved[0] in ENDS:
                return
            state, error, waiting = self._standing()
            at = replace(progress or self.last, at=self._clock(), waiting=waiting)
            progress = with_course(at, self.last.course)
            fault("replay_before_ckpt")
            begun, orders = await self._insist(progress, state, error)
            fault("replay_after_ckpt")
            self._until = begun + self._bounds.lease_seconds
            self.last, self._saved = progress, (state, error)
            self._saved_at = asyncio.get_running_loop().time()
        self._obey(orders)

    async def beat(self) -> None:
        """Keep the lease, and look for orders, while nobody else makes checkpoints."""
        loop = asyncio.get_running_loop()
        while True:
            wait = self._saved_at + self._bounds.checkpoint_seconds - loop.time()
            if wait > 0 and not self._hurried.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._hurried.wait()
            else:
                self._hurried.clear()
                await self.save()

    def hurry(self) -> None:
        """Look for orders now."""
        self._hurried.set()

    async def _insist(
        self, progress: Progress, state: State, error: str | None
    ) -> tuple[float, Orders]:
        """Save again and again until it worked; answer when that attempt began, and the orders."""
        while (left := self._left()) > 0:
            begun = self._steady()
            try:
                async with asyncio.timeout(left):
                    orders = await self._keeper.save(progress, state=state, error=error)
            except Unavailable as trouble:
                log.warning("no checkpoint could be made", error=str(trouble))
                await asyncio.sleep(_STORE_DELAY)
            except TimeoutError:
                break
            else:
                return begun, orders
        raise EngineUnavailable("the replay's lease ran out before a checkpoint could be made")

    def _left(self) -> float:
        return self._until - self._bounds.lease_margin - self._steady()
