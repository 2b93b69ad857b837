"""The bookkeeping of appends to Kafka, with a producer that does what the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from builders import FLIGHTS, event
from confluent_kafka import KafkaError, KafkaException

from penstock.buffer import Keeping, kafka_appender, kafka_silence
from penstock.buffer.kafka import KafkaAppender
from penstock.buffer.kafka_cluster import Place
from penstock.envelope import Event, Position
from penstock.errors import BadSetting, LogUnavailable, TooLarge

TIMED_OUT, TOO_LARGE, PURGED = -192, 10, -152

SHORT_SECONDS = 0.2


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
    offset_: int | None = None

    def value(self) -> bytes:
        return self.value_

    def key(self) -> bytes | None:
        return self.key_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int | None:
        return self.offset_


@dataclass
class StandInProducer:
    """Keeps what it was given until the test reports on it; `poll` lets the reports come in."""

    given: list[tuple[StandInMessage, Callable[[Any, Any], None]]] = field(default_factory=list)
    reports: list[Callable[[], None]] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    idle: threading.Event = field(default_factory=threading.Event)
    on_its_way: bool = False
    """Whether what was given does not wait here any more."""
    prompt: bool = False
    """Whether what is given arrives at once."""
    before_taken_back: Callable[[], object] = lambda: None

    def produce(self, topic, value, key, partition, reported, *, headers) -> None:
        self.payloads.append(value)
        self.given.append((StandInMessage(value, key, partition), reported))
        if self.prompt:
            self.report(None)

    def report(self, *errors: StandInError | None) -> None:
        """Report on the first that were given, in order: an error, or the next offset."""
        offset = 0
        given, self.given = self.given[: len(errors)], self.given[len(errors) :]
        for (message, reported), error in zip(given, errors, strict=True):
            if error is None:
                message.offset_, offset = offset, offset + 1
            self.reports.append(lambda r=reported, e=error, m=message: r(e, m))

    def poll(self, timeout: float) -> int:
        while self.reports:
            self.reports.pop(0)()
        self.idle.wait(min(timeout, 0.001))
        return 0

    def purge(self, *, in_flight: bool = True) -> None:
        self.before_taken_back()
        self.taken_back.append("all" if in_flight else "what waits")
        if in_flight or not self.on_its_way:
            self.report(*[StandInError(PURGED)] * len(self.given))

    def list_topics(self, *, timeout: float) -> SimpleNamespace:
        """Answer where it is prompt."""
        if not self.prompt:
            time.sleep(min(timeout, 0.02))
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={})

    def __len__(self) -> int:
        return len(self.given) + len(self.reports)


@dataclass
class World:
    """An appender that knows its topic, and the producers it took, one after another."""

    place: Place
    producers: list[StandInProducer] = field(default_factory=list)
    before_another: Callable[[], object] = lambda: None
    """Is called before a producer is made that is not the first."""

    def __post_init__(self) -> None:
        self.appender = KafkaAppender(self.place, keeping=Keeping(), producers=self._new)
        self.appender.knows(FLIGHTS, 1)

    def append(self, *events: Event):
        return self.appender.append(FLIGHTS, events)

    def _new(self) -> StandInProducer:
        if self.producers:
            self.before_another()
        self.producers.append(StandInProducer(prompt=bool(self.producers)))
        return self.producers[-1]

    def until_another(self) -> None:
        until = time.monotonic() + 5
        while self.appender._generation.producer is self.producers[0]:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture
def world() -> Iterator[World]:
    world = World(Place("nobody:9092"))
    yield world
    world.appender.close()


@pytest.fixture
def hasty() -> Iterator[World]:
    """Answer a world in which no call may take long."""
    short = f"{SHORT_SECONDS * 1_000:.0f}"
    world = World(Place("nobody:9092", properties={"message.timeout.ms": short}))
    yield world
    world.appender.close()


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


def test_an_event_that_is_stored_nobody_knows_where_has_failed(world: World) -> None:
    """The client hears of it by what came behind it; its sender is told to send again."""
    future = world.append(event("a"), event("b"))
    [(message, reported), _] = world.producers[0].given
    reported(None, message)  # the stand-in's offset of what was not reported is none
    world.producers[0].given = world.producers[0].given[1:]
    world.producers[0].report(None)

    first, second = future.result(timeout=5)

    assert isinstance(first, LogUnavailable)
    assert second == Position(0, 0)


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

    world.until_another()

    assert world.append(event("c")).result(timeout=5) == [Position(0, 0)]


def test_where_no_other_producer_can_be_made_it_is_tried_again(world: World) -> None:
    """A machine may be out of threads or handles for a while."""
    refusals = [RuntimeError("can't start new thread")]

    def refuse_once() -> None:
        if refusals:
            raise refusals.pop()

    world.before_another = refuse_once
    lost = world.append(event("a"))
    world.producers[0].report(StandInError(TIMED_OUT, is_fatal=True))
    world.until_another()

    assert isinstance(lost.exception(timeout=5), LogUnavailable)
    assert world.append(event("b")).result(timeout=5) == [Position(0, 0)]


def test_a_call_whose_time_is_over_fails_and_others_go_on(hasty: World) -> None:
    """With the producer that has found the brokers, or is about to."""
    [producer] = hasty.producers
    begun = time.monotonic()
    lost = hasty.append(event("a"))

    assert isinstance(lost.exception(timeout=5), LogUnavailable)
    assert time.monotonic() - begun >= SHORT_SECONDS
    assert "did not answer in time" in str(lost.exception())
    producer.prompt = True
    assert hasty.append(event("b")).result(timeout=5) == [Position(0, 0)]
    assert hasty.producers == [producer]


def test_what_is_on_its_way_is_taken_back_behind_what_waits(hasty: World) -> None:
    """Else what waits is numbered anew, and sent, before it is taken back."""
    [producer] = hasty.producers
    producer.on_its_way = True

    assert isinstance(hasty.append(event("a")).exception(timeout=5), LogUnavailable)
    assert producer.taken_back == ["what waits", "all"]


def test_what_is_answered_while_another_call_gives_up_is_acknowledged(hasty: World) -> None:
    """A broker that is away costs those of other brokers nothing but the wait."""
    [producer] = hasty.producers
    soon, stuck = hasty.append(event("a")), hasty.append(event("b"))
    producer.before_taken_back = lambda: producer.report(*[None] * (producer.taken_back == []))

    assert soon.result(timeout=5) == [Position(0, 0)]
    assert isinstance(stuck.exception(timeout=5), LogUnavailable)


def test_calls_wait_until_what_is_before_them_is_over_and_keep_their_order(hasty: World) -> None:
    """What is given while something is taken back may be numbered twice, and come too early."""
    [producer] = hasty.producers
    futures = []

    def send() -> None:
        if not futures:
            futures.extend(hasty.append(event(f"{number}")) for number in range(50))
            producer.prompt = True

    producer.before_taken_back = send
    assert isinstance(hasty.append(event("a")).exception(timeout=5), LogUnavailable)

    assert all(isinstance(future.result(timeout=5)[0], Position) for future in futures)
    assert producer.payloads == [b"a", *(b"%d" % number for number in range(50))]
    assert producer.taken_back == ["what waits", "all"]


def test_a_producer_that_hears_nothing_for_long_is_replaced(
    hasty: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have forgotten every broker, and look for none."""
    monkeypatch.setattr(kafka_silence, "MOST_SECONDS", 3 * SHORT_SECONDS)
    begun = time.monotonic()
    while len(hasty.producers) == 1:
        assert time.monotonic() - begun < 10
        lost = hasty.append(event("a"))
        assert lost.exception(timeout=5) is None or isinstance(lost.exception(), LogUnavailable)

    assert time.monotonic() - begun >= 3 * SHORT_SECONDS
    assert hasty.append(event("b")).result(timeout=5) == [Position(0, 0)]
    assert len(hasty.producers) == 2
    assert not len(hasty.producers[0])


def test_a_producer_that_is_answered_meanwhile_is_kept(
    hasty: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition without a leader is no reason to connect to all the others anew."""
    monkeypatch.setattr(kafka_silence, "MOST_SECONDS", 10 * SHORT_SECONDS)
    [producer] = hasty.producers
    for _ in range(8):
        well, stuck = hasty.append(event("a")), hasty.append(event("b"))
        until = time.monotonic() + 5
        while len(producer.given) < 2:  # what was given before may still be taken back
            assert time.monotonic() < until
            time.sleep(0.001)
        producer.report(None)
        assert well.result(timeout=5) == [Position(0, 0)]
        assert isinstance(stuck.exception(timeout=5), LogUnavailable)

    assert hasty.producers == [producer]


def test_a_producer_that_hears_nothing_is_replaced_before_anybody_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first events after a quiet night would wait, and their senders be told to come back."""
    monkeypatch.setattr(kafka_silence, "MOST_SECONDS", 0.3)
    monkeypatch.setattr(kafka_appender, "_LOOK_SECONDS", 0.05)
    world = World(Place("nobody:9092"))
    world.until_another()

    assert world.append(event("a")).result(timeout=5) == [Position(0, 0)]
    world.appender.close()
    assert len(world.producers) == 2


def test_what_comes_behind_close_is_told_so(world: World) -> None:
    """Nobody listens for its answer any more."""
    world.appender.close()

    assert isinstance(world.append(event("a")).exception(timeout=5), LogUnavailable)


@pytest.mark.parametrize("told", ["0", "99", "3600001", "-1000", "soon", "1000.5", ""])
def test_a_time_that_is_none_is_refused(told: str) -> None:
    """An appender that never gives up would keep its senders waiting without a word."""
    place = Place("nobody:9092", properties={"message.timeout.ms": told})

    with pytest.raises(BadSetting, match=r"message\.timeout\.ms has to be"):
        KafkaAppender(place, keeping=Keeping(), producers=StandInProducer)


@pytest.mark.parametrize("name", ["linger.ms", "queue.buffering.max.ms"])
def test_events_are_not_kept_back_for_longer_than_they_may_take(name: str) -> None:
    """The client library looks at that where the time is its own."""
    place = Place("nobody:9092", properties={name: "5000"})

    with pytest.raises(BadSetting, match=f"{name} has to be less than message"):
        KafkaAppender(place, keeping=Keeping(), producers=StandInProducer)


def test_close_tells_every_caller(hasty: World) -> None:
    """Whatever is still on its way then has failed."""
    future = hasty.append(event("a"))

    hasty.appender.close()

    assert isinstance(future.exception(timeout=15), LogUnavailable)
