"""Which events are under way, and in which order they may go. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from itertools import accumulate

from penstock.envelope import Position
from replay.events import Events
from replay.progress import Tried
from replay.request import Order


class Item:
    """Neighbouring events under way together: `start` to `stop` (exclusive) of `events`.

    It is a single event unless the target keeps the order, and where their ways part. `attempt`
    counts from 1, and is 0 before the first is announced.
    """

    __slots__ = (
        "attempt",
        "bytes",
        "count",
        "due",
        "entered",
        "events",
        "final",
        "open",
        "place",
        "start",
        "stop",
    )

    def __init__(self, events: Events, start: int, stop: int, tried: Tried) -> None:
        self.events = events
        self.start = start
        self.stop = stop
        self.attempt = tried.attempt
        self.open = tried.open
        """An attempt was announced, and its outcome is not in the ledger."""
        self.entered = False
        """It has its place among the events of its key."""
        self.final = False
        self.place = 0.0
        """Where it is on the replay's timeline."""
        self.due: float | None = None
        """When it was to be sent first, in a replay that keeps times."""
        self.count = stop - start
        payloads = events.payloads
        single = stop - start == 1
        self.bytes = len(payloads[start]) if single else sum(map(len, payloads[start:stop]))
        """Of payload."""

    def __len__(self) -> int:
        return self.count

    @property
    def first(self) -> Position:
        """Where its first event was on the log."""
        return self.events.position(self.start)

    @property
    def last(self) -> Position:
        """Where its last event was on the log."""
        return self.events.position(self.stop - 1)

    @property
    def key(self) -> bytes | None:
        """The key of its first event."""
        return self.events.keys[self.start]

    def positions(self) -> Iterator[Position]:
        """Answer where its events were on the log."""
        return map(self.events.position, range(self.start, self.stop))

    def parts(self, *, length: int) -> list[Item]:
        """Answer items of so many events at most that stand for it together."""
        found = []
        for start in range(self.start, self.stop, length):
            stop = min(start + length, self.stop)
            part = Item(self.events, start, stop, Tried(self.attempt, self.open))
            part.entered = self.entered
            part.due = self.due
            found.append(part)
        return found


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
        self._count = 0
        self._durable = passed
        self._bytes = 0

    def __len__(self) -> int:
        """How many events were taken and are not behind the low watermark."""
        return self._count

    @property
    def expects(self) -> bool:
        """Whether events are still to come that had come to their end under an earlier holder."""
        return bool(self._done_before)

    def room(self) -> int:
        """Answer how many more events may be taken."""
        if self._bytes >= self._most_bytes:
            return 0
        return max(0, self._size - (self.passed + self._count - self._durable))

    def take(self, events: Events, start: int, stop: int, tried: Tried) -> Item | None:
        """Take the events `start` to `stop`, or fewer of them where they are large, as one item.

        Answers None if the first had come to its end under an earlier holder; then only that one
        is taken.
        """
        if self._done_before and (position := events.position(start)) in self._done_before:
            self._done_before.discard(position)
            self._items.append(position)
            self._count += 1
            self._move()
            return None
        item = Item(events, start, stop, tried)
        left = self._most_bytes - self._bytes
        if stop - start > 1 and item.bytes >= left:
            ends = accumulate(map(len, events.payloads[start:stop]))
            count = next(count for count, end in enumerate(ends, 1) if end >= left)
            item = Item(events, start, start + count, tried)
        self._items.append(item)
        self._count += item.count
        self._bytes += item.bytes
        return item

    def part(self, item: Item, *, length: int) -> list[Item]:
        """Put in the place of an item what stands for it, so many events in each; answer those."""
        parts = item.parts(length=length)
        place = self._items.index(item)
        self._items.rotate(-place)
        self._items.popleft()
        self._items.extendleft(reversed(parts))
        self._items.rotate(place)
        return parts

    def finish(self, item: Item) -> None:
        """Say that an item came to its end and that the ledger has it."""
        item.final = True
        self._move()

    def done(self) -> tuple[Position, ...]:
        """Answer the events after the low watermark that came to their end."""
        ended: list[Position] = []
        for each in self._items:
            if not isinstance(each, Item):
                ended.append(each)
            elif each.final:
                ended += each.positions()
        return (*ended, *sorted(self._done_before))

    def unfinished(self) -> Iterator[Item]:
        """Answer what has not come to its end, in log order."""
        return (each for each in self._items if isinstance(each, Item) and not each.final)

    def saved(self, passed: int) -> None:
        """Say that a checkpoint with this `passed` is durable."""
        self._durable = passed

    def _move(self) -> None:
        items = self._items
        while items:
            first = items[0]
            length = 1
            if isinstance(first, Item):
                if not first.final:
                    return
                self.through = first.last
                self._bytes -= first.bytes
                length = first.count
            else:
                self.through = first
            self.passed += length
            self._count -= length
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
        key = b"" if self._one_lane else item.key
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
        key = b"" if self._one_lane else item.key
        if key is None:
            return None
        waiting = self._waiting[key]
        if waiting:
            return waiting.popleft()
        del self._waiting[key]
        return None
