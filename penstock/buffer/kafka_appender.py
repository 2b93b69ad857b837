"""The writing side of a log on Kafka: one idempotent producer, shared by all callers.

When one message fails for good, the client library gives what it still has new numbers, and sends
again as if it were new what a broker may have stored already without its answer being heard: the
record is there twice (librdkafka says so of the end of `message.timeout.ms`). So no message has a
time in the library. The time is ours: when a call's is over, the producer is given nothing more
until it has nothing any more, be it delivered or taken back. The sender of that call, and those
whose calls are taken back with it, are told to send again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from typing import Protocol
from zlib import crc32

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from penstock.buffer import Keeping, PartitionsOf
from penstock.buffer.kafka_cluster import (
    LARGEST_BYTES,
    NO_TOPIC,
    PATIENCE_SECONDS,
    KafkaKeeper,
    Place,
    made,
)
from penstock.buffer.kafka_codec import headers_of
from penstock.buffer.kafka_silence import Silence, let_go
from penstock.buffer.kafka_trouble import Trouble
from penstock.buffer.weight import OVERHEAD, weight
from penstock.envelope import CollectionId, Event, Position
from penstock.errors import (
    BadSetting,
    LogUnavailable,
    Overloaded,
    PenstockError,
    Rejected,
    TooLarge,
)
from penstock.faults import fault

log = structlog.get_logger()

Outcome = Sequence[Position | Exception]

_TIMEOUT = "message.timeout.ms"
# After so long without an answer of the cluster a call has failed, and its sender is told.
_TIMEOUT_SECONDS = 5.0
_MIN_TIMEOUT_MS, _MAX_TIMEOUT_MS = 100, 3_600_000
# Where a call is late, others have so long to be answered, and what is taken back so long to be
# reported.
_GRACE_SECONDS = 0.25
_TAKEN_SECONDS = 0.5
_ROUND_SECONDS = 0.05
_AGAIN_SECONDS = 1.0
# So often is looked whether topics have got more partitions.
_LOOK_SECONDS = 10.0
_CLOSE_SECONDS = 10.0

_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
_TAKEN_BACK = frozenset({
    KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT,  # noqa: SLF001 - public, but named so
})  # fmt: skip


class _Owner(Protocol):
    """Who is told what becomes of calls."""

    def noticed(self, error: KafkaError, call: _Call) -> None: ...
    def done(self, call: _Call, failure: Exception | None) -> None: ...


class _Generation:
    """A producer, and the calls it was given and has not answered, with when, oldest first."""

    __slots__ = ("_silence", "calls", "failed", "lost", "producer")

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.calls: dict[_Call, float] = {}
        self.failed = False
        """Whether the library has given it up: it sends nothing any more."""
        self.lost = False
        """Whether nothing was heard for so long that it may never hear anything again."""
        self._silence = Silence()

    def heard(self) -> None:
        """Take it that the cluster answered it."""
        self._silence.end()
        self.lost = False

    def unheard(self, since: float) -> None:
        """Take it that it asked the cluster then, and has no answer."""
        self.lost = self.lost or self._silence.lasts(since)

    def is_late(self, since: float) -> bool:
        """Say whether it has a call that was given before."""
        return next(iter(self.calls.values()), since) < since

    def give(self, call: _Call) -> None:
        """Give it a call; whatever happens, the call is answered."""
        try:
            call.go(self.producer)
        except Exception as error:  # noqa: BLE001 - those behind it have to go on
            log.error("a call was not understood", error=type(error).__name__)  # noqa: TRY400
            call.abandon("the log failed")

    def is_empty(self, seconds: float) -> bool:
        """Hear what became of what it has, for so long at most; say whether nothing is left."""
        until = time.monotonic() + seconds
        while self.calls or len(self.producer):
            left = until - time.monotonic()
            if left <= 0:
                return False
            self.serve(min(left, _ROUND_SECONDS))
        return True

    def serve(self, seconds: float) -> None:
        """Let its calls know what became of their events, waiting so long for the first."""
        try:
            self.producer.poll(seconds)
        except Exception as error:  # noqa: BLE001 - who listens has to go on, for all the others
            # Without its words: they may quote an event.
            log.error("a report was not understood", error=type(error).__name__)  # noqa: TRY400

    def take_back(self) -> None:
        """Have all that it still has reported as lost.

        What waits goes first, and the rest right behind it: once something was taken back and
        nothing is on its way, the library numbers anew, and sends, what waits.
        """
        # Not with `blocking`: the client's binding takes it for its opposite, and holds all of
        # Python while a broker's thread looks up a name.
        self.producer.purge(in_flight=False)
        self.producer.purge()


class _Call:
    """One call of `append`, and what is known of its events.

    The delivery reports of all its events go to one method: an object for each event would cost
    a seventh of everything that producing costs (0.75 of 5.2 microseconds). The producer keeps
    the order of a partition, so those that arrived have their offsets in the order of the events,
    and those that did not are recognised by what they hold.
    """

    __slots__ = ("_failed", "_guard", "_left", "_lost", "_offsets", "_owner", "_partitions",
                 "events", "future", "generation", "since", "size", "topic")  # fmt: skip

    def __init__(self, events: Sequence[Event], owner: _Owner) -> None:
        self.events = events
        self.size = weight(events)
        self.since = time.monotonic()
        self.generation: _Generation | None = None
        self.future: Future[Outcome] = Future()
        # From here on nobody can cancel it: it is on its way.
        self.future.set_running_or_notify_cancel()
        self._owner = owner
        # Two threads count: who gives the events away, and who hears of them.
        self._guard = threading.Lock()
        self._left = len(events)
        self._offsets: dict[int, list[int]] = {}
        self._failed: dict[int, Exception] = {}
        self._lost: list[tuple[Message, KafkaError]] = []

    def aim(self, topic: str, partitions: Sequence[int]) -> None:
        """Take it that the events go to this topic, each to its partition."""
        self.topic, self._partitions = topic, partitions

    def go(self, producer: Producer) -> None:
        """Give the events to the producer."""
        topic, reported = self.topic, self.reported
        for place, (event, partition) in enumerate(zip(self.events, self._partitions, strict=True)):
            try:
                producer.produce(
                    topic,
                    event.payload,
                    event.key,
                    partition,
                    reported,
                    headers=headers_of(event),
                )
            except Exception as error:  # noqa: BLE001 - it is this event's outcome
                self._failed[place] = _refusal(error, event)
                if isinstance(error, KafkaException):
                    self._owner.noticed(error.args[0], self)
        if self._failed:
            self._heard_of(len(self._failed))

    def reported(self, error: KafkaError | None, message: Message) -> None:
        """Take the delivery report of one event; the thread that polls calls it."""
        partition, offset = message.partition(), message.offset()
        if error is None and offset is not None:
            try:
                self._offsets[partition].append(offset)
            except KeyError:
                self._offsets[partition] = [offset]
        elif error is None:
            # It is stored, and nobody knows where: the library heard it from what came behind it.
            self._lost.append((message, KafkaError(KafkaError._NO_OFFSET)))  # noqa: SLF001
        else:
            self._lost.append((message, error))
            self._owner.noticed(error, self)
        self._heard_of(1)

    def fail(self, error: Exception) -> None:
        """Let the whole call fail: none of it was given to the producer."""
        self._owner.done(self, error)
        self.future.set_exception(error)

    def abandon(self, reason: str) -> None:
        """Let its sender know, unless it is answered, that nobody can say what became of it."""
        if not self.future.done():
            self._owner.done(self, failure := LogUnavailable(reason))
            self.future.set_exception(failure)

    def _heard_of(self, number: int) -> None:
        with self._guard:
            self._left -= number
            if self._left:
                return
        failed = {**self._failed, **self._recognised()} if self._lost else self._failed
        self._owner.done(self, next(iter(failed.values()), None))
        fault("before_ack")
        if len(failed) == len(self.events) and not any(
            isinstance(failure, Rejected) for failure in failed.values()
        ):
            self.future.set_exception(failed[0])
            return
        arrived = {partition: iter(sorted(found)) for partition, found in self._offsets.items()}
        self.future.set_result([
            failed.get(place) or Position(partition, next(arrived[partition]))
            for place, partition in enumerate(self._partitions)
        ])  # fmt: skip

    def _recognised(self) -> dict[int, Exception]:
        """Answer which events were lost.

        A report holds key and payload, no headers. Where events that are alike in both had
        different luck nobody can say which, nor which offset is whose: then what the call had for
        that partition counts as lost.
        """
        places: dict[tuple[int, bytes, bytes], list[int]] = {}
        for place, (event, partition) in enumerate(zip(self.events, self._partitions, strict=True)):
            if place not in self._failed:
                places.setdefault((partition, event.key or b"", event.payload), []).append(place)
        lost: dict[tuple[int, bytes, bytes], list[KafkaError]] = {}
        for message, error in self._lost:
            held = (message.partition(), message.key() or b"", message.value() or b"")
            lost.setdefault(held, []).append(error)
        found: dict[int, Exception] = {}
        unsure: dict[int, KafkaError] = {}
        for held, errors in lost.items():
            if len(errors) < len(places[held]):
                unsure[held[0]] = errors[0]
            for place, error in zip(places[held], errors, strict=False):
                found[place] = _lost(error, self.events[place])
        for place, partition in enumerate(self._partitions):
            if partition in unsure:
                found[place] = _lost(unsure[partition], self.events[place])
        return found


class _Topic:
    """What is known of a topic: its partitions, or the calls that wait to know them."""

    __slots__ = ("guard", "name", "parked", "partitions")

    def __init__(self, name: str) -> None:
        self.name = name
        self.partitions = 0
        self.parked: deque[_Call] = deque()
        self.guard = threading.Lock()


class KafkaAppender:
    """Writes the log; the door's threads share it. See `Appender`."""

    def __init__(
        self,
        place: Place,
        *,
        max_waiting_bytes: int = 64 << 20,
        keeping: Keeping,
        partitions_of: PartitionsOf = lambda _: None,
        producers: Callable[[], Producer] | None = None,
    ) -> None:
        """Make the producer; a cluster that is away is no error. `producers` is for tests.

        Raises `BadSetting` for settings that the client does not take.
        """
        self._place = place
        self._max_waiting = max_waiting_bytes
        self._keeper = KafkaKeeper(place, keeping)
        self._partitions_known = partitions_of
        self._timeout = _timeout_of(place)
        self._trouble = Trouble()
        self._producers = producers or self._new_producer
        self._generation = _Generation(self._producers())
        self._left_over: list[_Generation] = []
        self._held: list[_Call] | None = None
        self._topics: dict[CollectionId, _Topic] = {}
        self._turn = count()
        self._waiting = 0
        self._closed = False
        self._ended = False
        self._failing = False
        self._guard = threading.Lock()
        self._unknown = threading.Event()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._poll, name="log reports", daemon=True),
            threading.Thread(target=self._look, name="log topics", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _new_producer(self) -> Producer:
        settings = self._place.client(
            self._trouble,
            **{
                "compression.type": "lz4",
                "linger.ms": 1,
                # A connection that says nothing is given up before the time of a call is over.
                "socket.timeout.ms": max(1_000, min(60_000, round(self._timeout * 700))),
                # That a topic is gone is heard before the time of a call is over.
                "topic.metadata.propagation.max.ms": round(self._timeout * 500),
                "message.max.bytes": LARGEST_BYTES,
                # Above our own bound, so that ours is the one that speaks.
                "queue.buffering.max.messages": min(
                    10_000_000, 2 * self._max_waiting // OVERHEAD + 10_000
                ),
                "queue.buffering.max.kbytes": 2 * (self._max_waiting + LARGEST_BYTES) // 1024,
            },
        )
        settings |= {"acks": "all", "enable.idempotence": True, _TIMEOUT: 0}
        return made(Producer, settings)

    def append(self, collection: CollectionId, events: Sequence[Event]) -> Future[Outcome]:
        """Give the events to the producer; the future answers once the cluster has said so."""
        if not events:
            raise ValueError("append takes at least one event")
        call = _Call(events, self)
        with self._guard:
            refusal: PenstockError | None = None
            if self._closed:
                refusal = LogUnavailable("the log is closed")
            elif self._waiting and self._waiting + call.size > self._max_waiting:
                refusal = Overloaded(f"{self._waiting:,} bytes wait for the log already")
            if refusal:
                call.future.set_exception(refusal)
                return call.future
            self._waiting += call.size
            topic = self._topics.get(collection)
            if topic is None:
                topic = self._topics[collection] = _Topic(self._place.topic(collection))
        fault("before_log")
        with topic.guard:
            known = topic.partitions
            if known and not topic.parked:
                self._go(call, topic, known)
            else:
                topic.parked.append(call)
                self._unknown.set()
        if self._ended:
            self._give_up(topic, "the log is closed", after=0.0)
        return call.future

    def knows(self, collection: CollectionId, partitions: int) -> None:
        """Take it that the collection's topic is there, with so many partitions."""
        topic = self._topics.setdefault(collection, _Topic(self._place.topic(collection)))
        with topic.guard:
            topic.partitions = partitions
            while topic.parked:
                self._go(topic.parked.popleft(), topic, partitions)

    def close(self) -> None:
        """Wait for what was appended, seconds at most, then let go of the cluster."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        self._unknown.set()
        for thread in self._threads:
            thread.join()
        with self._guard:
            self._ended = True
        for topic in list(self._topics.values()):
            self._give_up(topic, "the log is closed", after=0.0)
        # The time of what is left is over: its calls have to be told.
        until = time.monotonic() + 2 * _TAKEN_SECONDS
        for generation in (*self._left_over, self._generation):
            generation.take_back()
            while not generation.is_empty(_ROUND_SECONDS) and time.monotonic() < until:
                generation.take_back()
            for call in list(generation.calls):
                call.abandon("the log is closed")

    def _go(self, call: _Call, topic: _Topic, partitions: int) -> None:
        """Give a call to the producer; the caller holds the topic."""
        call.aim(topic.name, self._partitions_of(call.events, partitions))
        with self._guard:
            if self._held is not None:
                self._held.append(call)
                return
            generation = None if self._ended else self._given([call])
        if generation is None:
            call.fail(LogUnavailable("the log is closed"))
        else:
            generation.give(call)

    def _given(self, calls: Sequence[_Call]) -> _Generation:
        """Note whose these calls are from now on; the caller holds the guard."""
        generation, now = self._generation, time.monotonic()
        for call in calls:
            call.generation = generation
            generation.calls[call] = now
        return generation

    def _partitions_of(self, events: Sequence[Event], number: int) -> Sequence[int]:
        """Answer where each event goes: by its key, else by the id its sender gave, else in turn.

        Events of one call that have neither stay together: scattered over four partitions a batch
        costs a fifth more, in four requests instead of one.
        """
        if number == 1:
            return (0,) * len(events)
        ours = next(self._turn) % number
        return [
            crc32(event.key) % number
            if event.key is not None
            else crc32(event.id.encode("utf-8", "replace")) % number
            if event.named
            else ours
            for event in events
        ]

    def noticed(self, error: KafkaError, call: _Call) -> None:
        """Look again after an error that says that something is no longer as it was."""
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - public, but named so
            if call.generation is not None:
                call.generation.failed = True
        elif error.code() in NO_TOPIC:
            for known in list(self._topics.values()):
                if known.name == call.topic:
                    known.partitions = 0

    def done(self, call: _Call, failure: Exception | None) -> None:
        """Let go of a call that is over, and tell when the log begins to fail, and to recover."""
        fails = isinstance(failure, LogUnavailable)
        with self._guard:
            self._waiting -= call.size
            if call.generation is not None:
                call.generation.calls.pop(call, None)
                if failure is None:
                    call.generation.heard()
            failing, self._failing = self._failing, fails
        if fails and not failing:
            log.error("the log cannot make events durable", error=self._trouble.told(str(failure)))
        elif failing and failure is None:
            log.info("the log makes events durable again")
        if failure is None:
            self._trouble.forget()

    def _poll(self) -> None:
        """Let the delivery reports come in, and after `close` what is still on its way."""
        until = float("inf")
        while not self._stop.is_set() or (
            (self._generation.calls or self._left_over) and time.monotonic() < until
        ):
            if until == float("inf") and self._stop.is_set():
                until = time.monotonic() + _CLOSE_SECONDS
            self._generation.serve(0.1)
            over = [old for old in self._left_over if self._is_over(old)]
            self._left_over = [old for old in self._left_over if old not in over]
            if over:
                let_go(over)
            if self._generation.failed:
                self._renew(self._generation, "a fatal error")
            elif self._is_late(self._generation) or (
                self._generation.lost and not self._generation.calls
            ):
                self._interrupt(self._generation)

    def _is_over(self, old: _Generation) -> bool:
        """Bring one that was replaced to its end; say whether it is there."""
        if self._is_late(old):
            old.take_back()
        old.serve(0.0)
        return old.is_empty(0.0)

    def _is_late(self, generation: _Generation) -> bool:
        with self._guard:
            return generation.is_late(time.monotonic() - self._timeout)

    def _interrupt(self, generation: _Generation) -> None:
        """Have a late call told of it, and whoever is not answered a moment later.

        Calls that come meanwhile wait, and go in their order once nothing is left that the
        library could number anew. A broker's thread that is looking up a name, for seconds,
        reports what it has afterwards: its calls get as much time again.

        A producer that has heard nothing for long is replaced here, where it has nothing any more.
        """
        with self._guard:
            self._held = []
            since = next(iter(generation.calls.values()), time.monotonic())
        try:
            empty = generation.is_empty(_GRACE_SECONDS)
            if not empty:
                generation.unheard(since)
                generation.take_back()
                empty = generation.is_empty(_TAKEN_SECONDS)
            if empty and generation.lost:
                self._renew(generation, "it heard nothing for long")
            with self._guard:
                generation.calls.update(dict.fromkeys(generation.calls, time.monotonic()))
        finally:
            self._release()

    def _release(self) -> None:
        """Let the calls that wait go, in their order, and no call wait any more."""
        while True:
            with self._guard:
                held, self._held = self._held, []
                if not held:
                    self._held = None
                    return
                generation = self._given(held)
            for call in held:
                generation.give(call)

    def _renew(self, failed: _Generation, reason: str) -> None:
        """Take a new producer: this one sends nothing any more."""
        try:
            new = _Generation(self._producers())
        except Exception as error:  # noqa: BLE001 - it may be made later, and what is there is told
            log.error("no other producer can be made", error=type(error).__name__)  # noqa: TRY400
            failed.take_back()
            self._stop.wait(_AGAIN_SECONDS)
            return
        with self._guard:
            self._generation = new
        self._left_over.append(failed)
        log.warning("the producer was replaced", reason=reason)

    def _look(self) -> None:
        """Learn how many partitions topics have, and make the ones that are missing."""
        looked = time.monotonic()
        while not self._stop.is_set():
            self._unknown.wait(_LOOK_SECONDS)
            self._unknown.clear()
            for collection, topic in list(self._topics.items()):
                if topic.parked and not self._stop.is_set():
                    self._learn(collection, topic)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                self._look_again()

    def _learn(self, collection: CollectionId, topic: _Topic) -> None:
        try:
            known = self._partitions_known(collection)
            partitions = (
                self._keeper.ensure(collection)
                if known is None
                else self._keeper.restore(collection, known)
            )
        except PenstockError as error:
            self._give_up(topic, str(error), after=self._timeout)
            if topic.parked:
                self._unknown.set()
                self._stop.wait(0.1)
            return
        self.knows(collection, partitions)

    def _give_up(self, topic: _Topic, reason: str, *, after: float) -> None:
        """Let calls fail that have waited so long to know where to go."""
        with topic.guard:
            late = time.monotonic() - after
            while topic.parked and topic.parked[0].since <= late:
                topic.parked.popleft().fail(LogUnavailable(reason))

    def _look_again(self) -> None:
        """Learn of partitions that were added; the producer's own word: it has to know them too.

        That it cannot say is how it is found lost where nobody sends.
        """
        generation, begun = self._generation, time.monotonic()
        try:
            found = generation.producer.list_topics(timeout=PATIENCE_SECONDS).topics
        except KafkaException:
            generation.unheard(begun)
            return  # what is known goes on to hold, and appends find out
        generation.heard()
        for topic in list(self._topics.values()):
            if topic.partitions and topic.name in found:
                topic.partitions = max(topic.partitions, len(found[topic.name].partitions))


def _timeout_of(place: Place) -> float:
    """Answer after how many seconds without an answer of the cluster a call has failed.

    Raises `BadSetting` for what is no such number, and where events would be kept back longer.
    """
    told = place.properties.get(_TIMEOUT, f"{_TIMEOUT_SECONDS * 1_000:.0f}")
    if not told.isdecimal() or not _MIN_TIMEOUT_MS <= int(told) <= _MAX_TIMEOUT_MS:
        raise BadSetting(
            f"{_TIMEOUT} has to be a number from {_MIN_TIMEOUT_MS:,} to {_MAX_TIMEOUT_MS:,}"
        )
    for name in ("linger.ms", "queue.buffering.max.ms"):
        if _number(place.properties.get(name, "0")) >= int(told):
            raise BadSetting(f"{name} has to be less than {_TIMEOUT}, which is {int(told):,}")
    return int(told) / 1_000


def _number(told: str) -> float:
    """Answer the number that this is, 0 for what is none: the client refuses it."""
    try:
        return float(told)
    except ValueError:
        return 0.0


def _refusal(error: Exception, event: Event) -> Exception:
    """Answer what an event's sender is told that the producer did not take."""
    if isinstance(error, BufferError):
        return Overloaded("too many events wait for the log already")
    if isinstance(error, KafkaException):
        return _lost(error.args[0], event)
    return error


def _lost(error: KafkaError, event: Event) -> PenstockError:
    """Answer what an event's sender is told that did not arrive."""
    if error.code() in _TOO_LARGE:
        size = len(event.payload) + sum(len(name) + len(value) for name, value in event.headers)
        return TooLarge("event with its headers", size, LARGEST_BYTES)
    why = "the cluster did not answer in time" if error.code() in _TAKEN_BACK else error.name()
    return LogUnavailable(f"the log cannot make anything durable now: {why}")
