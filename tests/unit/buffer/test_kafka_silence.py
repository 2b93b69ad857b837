"""When a client that hears nothing is given up for another."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from builders import FLIGHTS
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from ports import free_port

from penstock.buffer import kafka_cluster, kafka_consumers, kafka_silence
from penstock.buffer.kafka_cluster import Cluster, read_place
from penstock.buffer.kafka_codec import Records
from penstock.buffer.kafka_consumers import Consumers
from penstock.buffer.kafka_reader import KafkaBuffer
from penstock.buffer.kafka_silence import MOST_SECONDS, Renewed, Silence
from penstock.envelope import Mark
from penstock.errors import BadSetting, LogChanged, LogTruncated, LogUnavailable


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        for module in (kafka_silence, kafka_consumers):
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Client:
    closed = False

    def unassign(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_a_client_that_hears_nothing_for_long_is_given_up(clock: Clock) -> None:
    """Nothing that can be asked of it says that it looks for no broker any more."""
    client = Renewed(Client)
    first, begun = client.get(), clock.now

    clock.passes(MOST_SECONDS - 1)
    client.unheard(begun)
    assert client.get() is first
    clock.passes(1)
    client.unheard(begun + 5)

    assert client.get() is not first


def test_a_word_from_time_to_time_is_enough(clock: Clock) -> None:
    """A broker that is slow is a reason to wait, not to connect to it again and again."""
    client = Renewed(Client)
    first = client.get()

    for _ in range(5):
        begun = clock.now
        clock.passes(MOST_SECONDS - 1)
        client.unheard(begun)
        client.heard()

    assert client.get() is first


def test_questions_to_the_one_before_do_not_count(clock: Clock) -> None:
    """Threads that had asked that one come back one after another."""
    client = Renewed(Client)
    client.get()
    begun = clock.now
    clock.passes(MOST_SECONDS)
    client.unheard(begun)
    second = client.get()
    clock.passes(1)

    client.unheard(begun)

    assert client.get() is second


def test_time_before_a_question_does_not_count(clock: Clock) -> None:
    """It is silent because nobody spoke to it."""
    silence = Silence()
    clock.passes(10 * MOST_SECONDS)
    begun = clock.now
    clock.passes(5)

    assert not silence.lasts(begun)


def test_another_one_that_cannot_be_made_now_is_no_bad_setting(clock: Clock) -> None:
    """A bad setting ends a process that starts, and none that runs."""
    refusals = [None, BadSetting("no threads"), None]

    def make() -> Client:
        if refusal := refusals.pop(0):
            raise refusal
        return Client()

    client = Renewed(make)
    first, begun = client.get(), clock.now
    clock.passes(MOST_SECONDS)
    client.unheard(begun)

    with pytest.raises(LogUnavailable, match="no threads"):
        client.get()
    assert client.get() is not first
    with pytest.raises(BadSetting):
        Renewed(make_badly).get()


def make_badly() -> Client:
    raise BadSetting("no such thing")


@pytest.mark.parametrize(
    "error", [LogUnavailable("nobody"), KafkaException(KafkaError(KafkaError._TRANSPORT))]
)
def test_readers_are_given_up_together(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Those that were not asked since then have most likely heard the same."""
    made: list[Client] = []

    def new(*_: object) -> Client:
        made.append(Client())
        return made[-1]

    monkeypatch.setattr(kafka_consumers, "made", new)
    monkeypatch.setattr(kafka_consumers, "Consumer", Client)
    consumers = Consumers(dict)
    with consumers.lent(), consumers.lent():
        pass

    def fail(seconds: float, error: Exception = error) -> Client:
        with suppress(type(error)), consumers.lent() as lent:
            clock.passes(seconds)
            raise error
        return lent

    answers = [
        LogChanged("another"),
        LogTruncated("gone"),
        KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)),
    ]
    for answer in answers:
        fail(MOST_SECONDS - 1)
        fail(MOST_SECONDS, answer)
    fail(MOST_SECONDS - 1)
    assert not any(one.closed for one in made)

    fail(1)

    assert len(made) == 2
    until = time.monotonic() + 5
    while not all(one.closed for one in made):
        assert time.monotonic() < until
    with consumers.lent() as another:
        assert another not in made[:2]


OF_ONE = 16
"""More threads than one client of each kind has."""


def threads() -> int:
    return psutil.Process().num_threads()


def test_clients_that_are_given_up_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has threads, and an outage may last for a night."""
    monkeypatch.setattr(kafka_silence, "MOST_SECONDS", 0.0)
    for name in ("PATIENCE_SECONDS", "_TRY_SECONDS"):
        monkeypatch.setattr(kafka_cluster, name, 0.05)
    before = threads()
    admins: list[weakref.ref[AdminClient]] = []
    place = read_place(f"kafka://127.0.0.1:{free_port()}")
    cluster = Cluster(place)
    new_admin = cluster._new_admin

    def new() -> AdminClient:
        admin = new_admin()
        admins.append(weakref.ref(admin))
        return admin

    cluster = Cluster(place, new)
    questions: list[Callable[[], object]] = [
        cluster.topics,
        lambda: cluster.topic("a"),
        lambda: cluster.extents({"a": [0]}),
        lambda: cluster.ends({"a": [0]}),
        lambda: cluster.epochs([("a", 0)]),
        lambda: cluster.grow("a", 2),
        lambda: cluster.committed({"a": [0]}),
    ]
    gc.disable()
    try:
        for _ in range(3):
            for question in questions:
                with pytest.raises(LogUnavailable):
                    question()
        assert len(admins) >= 3 * len(questions)
        until = time.monotonic() + 20
        while sum(one() is not None for one in admins) > 1 or threads() > before + OF_ONE:
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        gc.enable()


def test_a_read_that_fails_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's binding keeps an error that is handled while it raises another one."""
    for name in ("PATIENCE_SECONDS", "_TRY_SECONDS"):
        monkeypatch.setattr(kafka_cluster, name, 0.05)
    held: list[weakref.ref[Records]] = []

    def fail(*asked: Any) -> Mark:
        held.append(weakref.ref(asked[-1]))
        raise LogUnavailable("nobody")

    monkeypatch.setattr(KafkaBuffer, "_read", fail)
    with closing(KafkaBuffer(read_place(f"kafka://127.0.0.1:{free_port()}"))) as buffer:
        for _ in range(3):
            with pytest.raises(LogUnavailable):
                buffer.read(FLIGHTS, Mark("log", 0, 0, ""), end=1, max_bytes=1)

    gc.collect()
    assert [one() for one in held] == [None] * 3
