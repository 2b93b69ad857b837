"""Which events are under way, and in which order they may go. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

from penstock.envelope import Event, Position
from replay.progress import Tried
from replay.request import Order


class Item:
    """An event under way. `attempt` counts from 1, and is 0 before the first is announced."""

    __slots__ = ("attempt", "entered", "event", "final", "open", "position")

    def __init__(self, position: Position, event: Event, tried: Tried) -> None:
        self.position = position
        self.event = event
        self.attempt = tried.attempt
        self.open = tried.open
        """An attempt was announced, and its outcome is not in the ledger."""
        self.entered = False
        """It has its place among the events of its key."""
        self.final = False


class Window:
    """The events taken from the plan that a checkpoint does not cover yet.

    Never more than `size` lie between the durable low watermark and the last event taken, so a
    sender that dies leaves at most that many to be repeated. `most_bytes` of payload bound them
    too; one event is always let in.
    """

    def __init__(
        self,
        size: int,
        most_bytes: int,
        *,
        through: Position | None,
        passed: int,
        done: Collection[Position],
    ) -> None:
        self.through = through
        self.passed = passed
        self._size = size
        self._most_bytes = most_bytes
        self._done_before = set(done)
        self._items: deque[Item | Position] = deque()
        self._durable = passed
        self._bytes = 0

    def __len__(self) -> int:
        """How many events were taken and are not behind the low watermark."""
        return len(self._items)

    def room(self) -> bool:
        """Say whether one more event may be taken."""
        if self.passed + len(self._items) - self._durable >= self._size:
            return False
        return self._bytes < self._most_bytes

    def take(self, position: Position, event: Event, tried: Tried) -> Item | None:
        """Take the next event; answer None if it had come to its end under an earlier holder."""
        if position in self._done_before:
            self._done_before.discard(position)
            self._items.append(position)
            self._move()
            return None
        item = Item(position, event, tried)
        self._items.append(item)
        self._bytes += len(event.payload)
        return item

    def finish(self, item: Item) -> None:
        """Say that an event came to its end and that the ledger has it."""
        item.final = True
        self._move()

    def done(self) -> tuple[Position, ...]:
        """Answer the events after the low watermark that came to their end."""
        ended = [
            each.position if isinstance(each, Item) else each
            for each in self._items
            if not isinstance(each, Item) or each.final
        ]
        return (*ended, *sorted(self._done_before))

    def unfinished(self) -> Iterator[Item]:
        """Answer the events that have not come to their end, in log order."""
        return (each for each in self._items if isinstance(each, Item) and not each.final)

    def saved(self, passed: int) -> None:
        """Say that a checkpoint with this `passed` is durable."""
        self._durable = passed

    def _move(self) -> None:
        items = self._items
        while items:
            first = items[0]
            if isinstance(first, Item):
                if not first.final:
                    return
                self.through = first.position
                self._bytes -= len(first.event.payload)
            else:
                self.through = first
            self.passed += 1
            items.popleft()


class Lanes:
    """Lets the events of one key go one at a time, in the order in which they came.

    With order ``log`` all events are of one key. An event without a key never waits, and none does
    if the target itself keeps the order (`free`).
    """

    def __init__(self, order: Order, *, free: bool = False) -> None:
        self._free = free
        self._one_lane = order == "log"
        self._waiting: dict[bytes, deque[Item]] = {}

    def enter(self, item: Item) -> bool:
        """Say whether the event may go now; otherwise it waits for those before it.

        An event that is tried again has kept its place.
        """
        if item.entered:
            return True
        item.entered = True
        if self._free:
            return True
        key = b"" if self._one_lane else item.event.key
        if key is None:
            return True
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return True
        waiting.append(item)
        return False

    def leave(self, item: Item) -> Item | None:
        """Say that an event came to its end; answer the one that may go now because of it."""
        if self._free:
            return None
        key = b"" if self._one_lane else item.event.key
        if key is None:
            return None
        waiting = self._waiting[key]
        if waiting:
            return waiting.popleft()
        del self._waiting[key]
        return None
