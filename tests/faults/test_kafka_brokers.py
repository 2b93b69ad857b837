"""The log on three brokers, two of which have to have an event: one dies, then another."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from balance import compare
from builders import FLIGHTS, event
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from engines.fresh import fresh_name
from evidence.sheet import found, happened
from served import until
from three_brokers import ThreeBrokers, three_brokers

from penstock.buffer import Appender, Keeping, open_appender, open_buffer, open_keeper, start_of
from penstock.envelope import CollectionId, Mark, Position
from penstock.errors import LogUnavailable, Unavailable

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("own engines")]

PARTITIONS = 3
Answer = Future[Sequence[Position | Exception]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBrokers]:
    with three_brokers(tmp_path_factory.mktemp("brokers")) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: ThreeBrokers) -> ThreeBrokers:
    """Answer the brokers, all of them there, whatever the test before has killed."""
    started.start()
    return started


@pytest.fixture
def url(cluster: ThreeBrokers) -> str:
    """Answer a log of three partitions, whose topic has been made as settings make it."""
    url = f"kafka://{cluster.servers}/{fresh_name()}"
    open_keeper(url, Keeping(partitions=PARTITIONS)).ensure(FLIGHTS)
    return url


class Sending:
    """Appends ten events at a time, for ever, and keeps what was answered."""

    def __init__(self, appender: Appender) -> None:
        self.calls: list[tuple[list[str], Answer]] = []
        self._appender = appender
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        while not self._stop.wait(0.01):
            number = len(self.calls)
            names = [f"{number}.{n}" for n in range(10)]
            events = [event(name, key=name.encode()) for name in names]
            self.calls.append((names, self._appender.append(FLIGHTS, events)))

    def acknowledged(self, since: int = 0) -> dict[Position, str]:
        """Answer what has a position by now, of the calls from this one on."""
        return {
            place: name
            for names, answer in self.calls[since:]
            if answer.done() and answer.exception() is None
            for name, place in zip(names, answer.result(), strict=True)
            if isinstance(place, Position)
        }

    def failures(self, since: int = 0) -> list[BaseException]:
        """Answer what was said of calls of which nothing was acknowledged."""
        done = [answer for _, answer in self.calls[since:] if answer.done()]
        return [error for answer in done if (error := answer.exception()) is not None]

    def goes_on(self) -> None:
        """Return when what is sent from now on is acknowledged, on every partition."""
        since = len(self.calls)
        until(
            lambda: (
                {place.partition for place in self.acknowledged(since)} == set(range(PARTITIONS))
            )
        )

    def end(self) -> None:
        """Send nothing more, and wait for every answer."""
        self._stop.set()
        self._thread.join()
        for _, answer in self.calls:
            answer.exception(timeout=30)


class Reading:
    """Reads every partition from its beginning, for ever, from mark to mark."""

    def __init__(self, url: str) -> None:
        self.found: dict[Position, str] = {}
        self.twice: list[Position] = []
        self.error: Exception | None = None
        self._buffer = open_buffer(url)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        marks: dict[int, Mark] = {}
        while not self._stop.wait(0.02):
            for number in range(PARTITIONS):
                try:
                    if number not in marks:
                        marks[number] = start_of(self._buffer.log_id(FLIGHTS), number)
                    marks[number] = self._read_on(marks[number])
                except Unavailable:
                    continue
                except Exception as error:  # noqa: BLE001 - the test says so
                    self.error = error
                    return

    def _read_on(self, mark: Mark) -> Mark:
        portion = self._buffer.read(FLIGHTS, mark, end=1 << 60, max_bytes=1 << 20)
        offsets, payloads = (portion.rows[name].to_pylist() for name in ("log_offset", "payload"))
        for offset, payload in zip(offsets, payloads, strict=True):
            place = Position(mark.partition, offset)
            if place in self.found:
                self.twice.append(place)
            self.found[place] = payload.decode()
        return portion.mark

    def controller(self) -> int:
        """Answer the broker that its client takes for the controller from now on."""
        cluster: Any = self._buffer
        number: int = cluster._cluster._admin.get().list_topics(timeout=10).controller_id
        return number

    def reaches(self, sending: Sending) -> None:
        """Return when all that is acknowledged by now has been read, or an error has ended it."""
        wanted = sending.acknowledged().items()
        until(lambda: self.error is not None or wanted <= self.found.items())

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._buffer.close()


@contextmanager
def traffic(url: str) -> Iterator[tuple[Sending, Reading]]:
    """Append and read for the block; at its end, look at what was acknowledged and what read."""
    appender = open_appender(url)
    sending, reading = Sending(appender), Reading(url)
    try:
        sending.goes_on()
        yield sending, reading
        sending.end()
        reading.reaches(sending)
    finally:
        sending.end()
        reading.end()
        appender.close()
    assert reading.error is None
    assert reading.twice == []
    acknowledged = sending.acknowledged()
    held = reading.found
    found(log=compare(acknowledged, held.items(), known=held.keys()))
    assert Counter(reading.found.values()).most_common(1)[0][1] == 1, "an event is there twice"


def leaders(cluster: ThreeBrokers, topic: str) -> list[int]:
    """Answer which broker has the last word on each partition."""
    told = AdminClient({"bootstrap.servers": cluster.servers}).list_topics(topic, timeout=10)
    return [one.leader for _, one in sorted(told.topics[topic].partitions.items())]


def topic_of(url: str, collection: CollectionId = FLIGHTS) -> str:
    return f"{url.rpartition('/')[2]}.{collection}"


@pytest.mark.breaks("one of three brokers, while events are appended and read")
def test_a_broker_dies_and_nobody_has_to_know(cluster: ThreeBrokers, url: str) -> None:
    """Another one leads its partition, and whom the client asked for topics is asked no more."""
    assert open_keeper(url).warning() is None
    with traffic(url) as (sending, reading):
        first = reading.controller()
        led = leaders(cluster, topic_of(url)).index(first)
        cluster.brokers[first].stop(signal.SIGKILL)
        happened("kills")

        sending.goes_on()
        reading.reaches(sending)

        assert leaders(cluster, topic_of(url))[led] not in (first, -1)
        assert {type(failure) for failure in sending.failures()} <= {LogUnavailable}
        cluster.start()
        sending.goes_on()
    assert len(sending.acknowledged()) > 500


@pytest.mark.breaks("two of three brokers, while events are appended and read")
def test_with_one_broker_of_three_nothing_is_acknowledged(cluster: ThreeBrokers, url: str) -> None:
    """Its one copy would be lost with its disk; with the others back, appending goes on."""
    careless = CollectionId("main", "careless")
    _do_with_one_copy(cluster, url, careless)
    last = leaders(cluster, topic_of(url, careless))[0]
    others = [number for number in cluster.brokers if number != last]
    with traffic(url) as (sending, reading):
        cluster.brokers[others[0]].stop(signal.SIGKILL)
        sending.goes_on()
        cluster.brokers[others[1]].stop(signal.SIGKILL)
        happened("kills", 2)
        appender = open_appender(url)
        try:
            _acknowledged(appender, careless)

            since, begun = len(sending.calls), time.monotonic()
            until(lambda: len(sending.failures(since)) > 10)

            assert time.monotonic() - begun < 12
            assert {type(failure) for failure in sending.failures(since)} == {LogUnavailable}
            assert sending.acknowledged(since) == {}
        finally:
            appender.close()
        # The one that is left need not say yet how far its copy holds; that is no other log.
        assert reading.error is None
        cluster.start()
        sending.goes_on()


def _do_with_one_copy(cluster: ThreeBrokers, url: str, collection: CollectionId) -> None:
    """Let a collection be as none is: that one copy is enough."""
    open_keeper(url).ensure(collection)
    entry = ConfigEntry("min.insync.replicas", "1", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(
        ConfigResource.Type.TOPIC, topic_of(url, collection), incremental_configs=[entry]
    )
    admin = AdminClient({"bootstrap.servers": cluster.servers})
    admin.incremental_alter_configs([resource])[resource].result(10)


def _acknowledged(appender: Appender, collection: CollectionId) -> None:
    """Return when an event of the collection is acknowledged."""

    def appended() -> bool:
        return appender.append(collection, [event("x")]).exception(timeout=30) is None

    until(appended)
