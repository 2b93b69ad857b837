"""The bookkeeping of appends to Kafka, with a producer that does what the test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from builders import FLIGHTS, event

from penstock.buffer import Keeping
from penstock.buffer.kafka import KafkaAppender, read_place
from penstock.envelope import Event, Position
from penstock.errors import LogUnavailable, TooLarge

TIMED_OUT, TOO_LARGE = -192, 10


@dataclass
class StandInError:
    number: int
    is_fatal: bool = False

    def code(self) -> int:
        return self.number

    def name(self) -> str:
        return str(self.number)

    def fatal(self) -> bool:
        return self.is_fatal


@dataclass
class StandInMessage:
    """A delivery report: it holds no headers, as the library's does not."""

    value_: bytes
    key_: bytes | None
    partition_: int
    offset_: int = -1

    def value(self) -> bytes:
        return self.value_

    def key(self) -> bytes | None:
        return self.key_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_


@dataclass
class StandInProducer:
    """Keeps what it was given until the test reports on it; `poll` lets the reports come in."""

    given: list[tuple[StandInMessage, Callable[[Any, Any], None]]] = field(default_factory=list)
    reports: list[Callable[[], None]] = field(default_factory=list)
    purged: threading.Event = field(default_factory=threading.Event)

    def produce(self, topic, value, key, partition, reported, *, headers) -> None:
        self.given.append((StandInMessage(value, key, partition), reported))

    def report(self, *errors: StandInError | None) -> None:
        """Report on what was given, in order: an error, or the next offset."""
        offset = 0
        given, self.given = self.given, []
        for (message, reported), error in zip(given, errors, strict=True):
            if error is None:
                message.offset_, offset = offset, offset + 1
            self.reports.append(lambda r=reported, e=error, m=message: r(e, m))

    def poll(self, timeout: float) -> int:
        while self.reports:
            self.reports.pop(0)()
        self.purged.wait(min(timeout, 0.001))
        return 0

    def purge(self) -> None:
        self.report(*[StandInError(TIMED_OUT)] * len(self.given))

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return 0

    def __len__(self) -> int:
        return len(self.reports)


@dataclass
class World:
    """An appender that knows its topic, and the producers it took, one after another."""

    producers: list[StandInProducer]
    appender: KafkaAppender

    def append(self, *events: Event):
        return self.appender.append(FLIGHTS, events)


@pytest.fixture
def world() -> Iterator[World]:
    producers: list[StandInProducer] = []

    def new() -> StandInProducer:
        producers.append(StandInProducer())
        return producers[-1]

    place = read_place("kafka://nobody:9092/test")
    appender = KafkaAppender(place, keeping=Keeping(), producers=new)
    appender.knows(FLIGHTS, 1)
    yield World(producers, appender)
    appender.close()


def test_the_event_that_was_lost_is_the_one_that_fails(world: World) -> None:
    """The others of its call keep their own positions."""
    future = world.append(event("a"), event("b"), event("c"))
    world.producers[0].report(None, StandInError(TIMED_OUT), None)

    first, second, third = future.result(timeout=5)

    assert (first, third) == (Position(0, 0), Position(0, 1))
    assert isinstance(second, LogUnavailable)


def test_events_alike_with_different_luck_are_all_unsure(world: World) -> None:
    """Nobody can say which one arrived: a position for the wrong id would be a false answer."""
    future = world.append(event("x", id="1"), event("y"), event("x", id="2"))
    world.producers[0].report(None, None, StandInError(TIMED_OUT))

    assert isinstance(future.exception(timeout=5), LogUnavailable)


def test_a_call_of_which_nothing_arrived_fails_as_one(world: World) -> None:
    """The door answers 503 with a time to come back."""
    future = world.append(event("a"), event("b"))
    world.producers[0].report(StandInError(TIMED_OUT), StandInError(TIMED_OUT))

    assert isinstance(future.exception(timeout=5), LogUnavailable)


def test_an_event_that_is_too_large_is_told_so(world: World) -> None:
    """Trying again cannot help its sender."""
    future = world.append(event("a"))
    world.producers[0].report(StandInError(TOO_LARGE))

    (only,) = future.result(timeout=5)

    assert isinstance(only, TooLarge)


def test_after_a_fatal_error_there_is_a_new_producer(world: World) -> None:
    """An idempotent producer that lost its sequence sends nothing any more."""
    lost = world.append(event("a"), event("b"))
    fatal = StandInError(TIMED_OUT, is_fatal=True)
    world.producers[0].report(fatal, fatal)
    assert isinstance(lost.exception(timeout=5), LogUnavailable)

    future = world.append(event("c"))
    assert len(world.producers) == 2
    world.producers[1].report(None)

    assert future.result(timeout=5) == [Position(0, 0)]


def test_close_tells_every_caller(world: World) -> None:
    """Whatever is still on its way then has failed."""
    future = world.append(event("a"))

    world.appender.close()

    assert isinstance(future.exception(timeout=15), LogUnavailable)
