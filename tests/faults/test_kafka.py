"""The log on Kafka while its broker is away: no false answer, an answer in time, and recovery."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import httpx
import pytest
from balance import Place, Row, Sent, compare, look
from brokerless import Brokerless
from builders import FLIGHTS, event
from confluent_kafka import KafkaException
from door_builders import TOKEN, known
from door_process import door
from engines.fresh import fresh_name
from engines.kafka import Kafka
from engines.kit import default_root
from engines.places import HOST
from evidence.sheet import found, happened
from own_engines import own_engine
from ports import free_port, free_ports, free_row
from proxy import Proxy

from penstock.buffer import (
    Buffer,
    kafka_consumers,
    kafka_silence,
    open_appender,
    open_buffer,
    start_of,
)
from penstock.buffer.kafka import KafkaAppender
from penstock.cache import open_cache
from penstock.envelope import Position
from penstock.errors import LogChanged, LogUnavailable, Overloaded
from penstock.settings import load_settings

pytestmark = [
    pytest.mark.engines,
    pytest.mark.xdist_group("a broker that is stopped"),
]

Answered = TypeVar("Answered")
Answer = Future[Sequence[Position | Exception]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Answer a broker of our own, which may be paused and killed."""
    with own_engine(Kafka, tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture
def url(broker: Kafka) -> str:
    return f"kafka://127.0.0.1:{broker.port}/{fresh_name()}"


def payloads(buffer: Buffer) -> dict[int, str]:
    rows = _records(buffer, buffer.log_id(FLIGHTS), 0, 1 << 60)
    return {offset: payload.decode() for offset, payload in rows}


def test_a_broker_that_says_nothing_is_told_of_in_time(broker: Kafka, url: str) -> None:
    """Senders get their 503 within seconds; what they were told is durable is there."""
    appender, buffer = open_appender(url, max_waiting_bytes=10_000), open_buffer(url)
    assert appender.append(FLIGHTS, [event("before")]).result(timeout=20) == [Position(0, 0)]

    broker.pause()
    try:
        begun = time.monotonic()
        waiting = [appender.append(FLIGHTS, [event(f"during {n}" * 30)]) for n in range(20)]
        over = [one for one in waiting if one.done()]
        assert over
        assert all(isinstance(one.exception(), Overloaded) for one in over)
        failures = [one.exception(timeout=20) for one in waiting if one not in over]
        assert all(isinstance(failure, LogUnavailable) for failure in failures)
        assert time.monotonic() - begun < 15
        with pytest.raises(LogUnavailable):
            buffer.extents(FLIGHTS)
    finally:
        broker.resume()

    again = _until_it_works(lambda: appender.append(FLIGHTS, [event("after")]))
    found = _until_it_answers(lambda: payloads(buffer))
    assert found[0] == "before"
    assert [found[place.offset] for place in again if isinstance(place, Position)] == ["after"]
    appender.close()
    buffer.close()


@pytest.mark.breaks("the broker of the log, while events are appended")
def test_a_killed_broker_keeps_what_was_acknowledged(broker: Kafka, url: str) -> None:
    """Every position that was given holds its event, and appending goes on without a restart."""
    appender = open_appender(url)
    appender.append(FLIGHTS, [event("first")]).result(timeout=20)
    answers: list[tuple[list[str], Answer]] = []
    stop = threading.Event()

    def send() -> None:
        number = 0
        while not stop.is_set():
            names = [f"{number}.{n}" for n in range(10)]
            answers.append((names, appender.append(FLIGHTS, [event(name) for name in names])))
            number += 1
            time.sleep(0.01)

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(1)
    broker.stop(signal.SIGKILL)
    happened("kills")
    broker.start()
    _until_it_works(lambda: appender.append(FLIGHTS, [event("again")]))
    time.sleep(0.5)
    stop.set()
    sender.join()

    buffer = open_buffer(url)
    _settled([answer for _, answer in answers])
    held = payloads(buffer)
    acknowledged = {
        place.offset: name
        for names, answer in answers
        if answer.exception() is None
        for name, place in zip(names, answer.result(), strict=True)
        if isinstance(place, Position)
    }
    found(log=compare(acknowledged, held.items(), known=held.keys()))
    assert len(acknowledged) > 100
    # The producer is idempotent: what it sent again is there once.
    assert len(set(held.values())) == len([v for v in held.values() if v != "again"]) + 1
    appender.close()
    buffer.close()


@pytest.mark.breaks("the broker of the log, which stands still while calls are on their way")
def test_one_call_that_gives_up_lets_no_other_be_stored_twice(broker: Kafka, url: str) -> None:
    """The client numbers anew what is left then, and sends again what the broker has already."""
    appender, sent = open_appender(url, partitions_of=lambda _: 2), Sent()

    def append(number: int, key: bytes) -> Answer:
        sent.tries[number] += 1
        return appender.append(FLIGHTS, [event(f"{number}", key=key)])

    keys = (b"a", b"a", b"d")
    assert len({crc32(key) % 2 for key in keys}) == 2
    answers = [(number, append(number, key)) for number, key in enumerate(keys)]
    _settled([answer for _, answer in answers])
    broker.pause()
    happened("stops")
    try:
        # All lie in the broker's socket: it takes them when it goes on, whoever waits then.
        answers.append((0, early := append(0, keys[0])))
        time.sleep(2.5)
        answers += [(number, append(number, keys[number])) for number in (1, 2)]
        assert isinstance(early.exception(timeout=20), LogUnavailable)
    finally:
        broker.resume()
    _settled([answer for _, answer in answers])
    _until_it_works(lambda: append(3, b"a"))
    _until_it_works(lambda: append(4, b"d"))
    appender.close()

    for number, answer in answers:
        if answer.exception() is None:
            [place] = answer.result()
            assert isinstance(place, Position)
            sent.kept.append((number, (place.partition, place.offset)))
    with closing(open_buffer(url)) as buffer:
        log_id, ends, rows = _until_it_answers(lambda: _numbered(buffer))
    assert len(sent.kept) >= len(keys)
    found(log=look(sent, log_id, ends, rows))


class Behind(Kafka):
    """A broker that tells its clients to come to another port."""

    front = 0

    def settings(self) -> str:
        """Answer the settings, with that port."""
        told, here = "advertised.listeners=PLAINTEXT://", f"{HOST}:{self.port}"
        return super().settings().replace(f"{told}{here}", f"{told}{HOST}:{self.front}")


Way = TypeVar("Way", bound=Proxy)


@contextmanager
def reached_by(kind: type[Way], run: Path) -> Iterator[Way]:
    """Start a broker for the block that clients reach this way alone."""
    port = free_row(Behind.port_count)
    broker = Behind(default_root(), run=run, port=port)
    with kind(port) as way:
        broker.front = way.port
        broker.start()
        try:
            yield way
        finally:
            broker.wipe()


def test_connections_that_say_nothing_are_given_up_within_the_time_of_a_call(
    tmp_path: Path,
) -> None:
    """A packet filter that forgot a connection answers nobody, and nobody hears it close."""
    with (
        reached_by(Proxy, tmp_path) as way,
        closing(open_appender(f"kafka://{HOST}:{way.port}/{fresh_name()}")) as appender,
    ):
        appender.append(FLIGHTS, [event("before")]).result(timeout=20)
        way.forget()
        begun = time.monotonic()
        _until_it_works(lambda: appender.append(FLIGHTS, [event("after")]))
        assert time.monotonic() - begun < 20


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Brokerless]:
    """Answer the way to a broker that may say that there is none."""
    with reached_by(Brokerless, tmp_path) as way:
        yield way


def test_clients_that_were_told_of_no_broker_find_them_again(
    way: Brokerless, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library forgets all that it knows then, and one time in a few never looks again."""
    given_up: list[object] = []

    def let_go(clients: list[Any], *end: Callable[[Any], object]) -> None:
        given_up.append(None)
        kafka_silence.let_go(clients, *end)

    monkeypatch.setattr(kafka_consumers, "let_go", let_go)
    url = f"kafka://{HOST}:{way.port}/{fresh_name()}"
    with closing(open_appender(url)) as appender, closing(open_buffer(url)) as buffer:
        appender.append(FLIGHTS, [event("before")]).result(timeout=20)
        mark = start_of(buffer.log_id(FLIGHTS), 0)
        until = time.monotonic() + 240
        while not given_up:
            assert time.monotonic() < until, "the library looks for brokers by itself"
            _say_there_is_no_broker(
                way,
                lambda: buffer.log_id(FLIGHTS),
                lambda: buffer.released([FLIGHTS]),
                lambda: buffer.read(FLIGHTS, mark, end=1, max_bytes=1 << 20),
            )
            portion = _until_it_answers(
                lambda: buffer.read(FLIGHTS, mark, end=1, max_bytes=1 << 20)
            )
            assert portion.rows["payload"].to_pylist() == [b"before"]
            _until_it_answers(lambda portion=portion: buffer.release(FLIGHTS, [portion.mark]))
            assert _until_it_answers(lambda: buffer.released([FLIGHTS])[FLIGHTS]) == {0: 1}


def test_a_producer_that_was_told_of_no_broker_is_replaced(way: Brokerless) -> None:
    """Before the first events after a quiet night: nobody sends here while it is looked for."""
    url = f"kafka://{HOST}:{way.port}/{fresh_name()}"
    with closing(open_appender(url)) as appender:
        appender.append(FLIGHTS, [event("before")]).result(timeout=20)
        assert isinstance(appender, KafkaAppender)
        producer = appender._generation.producer
        until = time.monotonic() + 240
        while appender._generation.producer is producer:
            assert time.monotonic() < until
            try:
                producer.list_topics(timeout=5)
            except KafkaException:
                continue  # it is lost, or slow
            _say_there_is_no_broker(way, lambda: producer.list_topics("one", timeout=0.1))
        appender.append(FLIGHTS, [event("after")]).result(timeout=20)


def _say_there_is_no_broker(way: Brokerless, *questions: Callable[[], object]) -> None:
    """Say so for a second to everybody, who has to connect anew meanwhile and asks a lot."""
    until = time.monotonic() + 1

    def ask(question: Callable[[], object]) -> None:
        while time.monotonic() < until:
            with suppress(LogUnavailable, KafkaException):
                question()

    asking = [threading.Thread(target=ask, args=[question]) for question in questions]
    way.brokerless = True
    for one in asking:
        one.start()
    while time.monotonic() < until:
        way.refuse()
        way.accept()
        time.sleep(0.1)
    way.brokerless = False
    for one in asking:
        one.join()


def test_how_far_landing_is_can_be_told_and_asked_once_the_broker_is_back(
    broker: Kafka, url: str
) -> None:
    """The sensor asks in a process that lives for weeks: it neither waits for ever nor dies."""
    appender, buffer = open_appender(url), open_buffer(url)
    appender.append(FLIGHTS, [event(f"{number}") for number in range(5)]).result(timeout=20)
    mark = start_of(buffer.log_id(FLIGHTS), 0)
    assert buffer.released([FLIGHTS])[FLIGHTS] == {0: 0}

    ways: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: broker.stop(signal.SIGKILL), broker.start),
        (broker.pause, broker.resume),
        (broker.stop, broker.start),
    ]
    for end, (away, back) in enumerate(ways, 1):
        mark = _until_it_answers(
            lambda mark=mark, end=end: buffer.read(FLIGHTS, mark, end=end, max_bytes=1 << 20)
        ).mark
        away()
        try:
            begun = time.monotonic()
            with pytest.raises(LogUnavailable):
                buffer.released([FLIGHTS])[FLIGHTS]
            with pytest.raises(LogUnavailable):
                buffer.release(FLIGHTS, [mark])
            assert time.monotonic() - begun < 30
        finally:
            back()
        assert _until_it_answers(lambda: buffer.released([FLIGHTS])[FLIGHTS]) == {0: end - 1}
        _until_it_answers(lambda mark=mark: buffer.release(FLIGHTS, [mark]))
        # One that stood still for longer than its session begins it anew after the first answers.
        assert _until_it_answers(lambda: buffer.released([FLIGHTS])[FLIGHTS]) == {0: end}
    appender.close()
    buffer.close()


def test_a_replica_that_lost_its_end_is_noticed(broker: Kafka, url: str) -> None:
    """The topic keeps its id and gets new events: a reader at its mark would skip a hundred."""
    appender, buffer = open_appender(url), open_buffer(url)
    events = [event(f"{number}") for number in range(100)]
    appender.append(FLIGHTS, events).result(timeout=20)
    log_id = buffer.log_id(FLIGHTS)
    mark = buffer.read(FLIGHTS, start_of(log_id, 0), end=100, max_bytes=1 << 20).mark
    topic = f"{url.rpartition('/')[2]}.{FLIGHTS}-0"

    broker.stop()
    _forget(broker.run / "data", topic)
    broker.start()
    more = [event(f"new {number}") for number in range(150)]
    _until_it_works(lambda: appender.append(FLIGHTS, more))

    assert _until_it_answers(lambda: buffer.log_id(FLIGHTS)) == log_id
    assert _until_it_answers(lambda: buffer.extents(FLIGHTS))[0].end >= 150
    with pytest.raises(LogChanged):
        _until_it_answers(lambda: buffer.read(FLIGHTS, mark, end=1 << 60, max_bytes=1 << 20))
    with pytest.raises(LogChanged):
        _until_it_answers(lambda: buffer.release(FLIGHTS, [mark]))
    appender.close()
    buffer.close()


def test_a_door_answers_503_while_its_broker_is_away(
    broker: Kafka, url: str, tmp_path: Path
) -> None:
    """Within seconds, with a time to come back; and takes events again by itself."""
    ports = free_ports(2)
    open_cache(load_settings(tmp_path, {}).cache).publish(known)
    (tmp_path / "penstock.toml").write_text(f'log_url = "{url}"\n')
    with door(tmp_path, ports, None), httpx.Client(trust_env=False, timeout=30) as client:
        address = f"http://127.0.0.1:{ports[0]}/v1/events/flights"
        headers = {"Authorization": f"Bearer {TOKEN}"}

        def send(name: str) -> httpx.Response:
            return client.post(address, content=name, headers=headers)

        assert send("before").status_code == 202
        broker.pause()
        try:
            begun = time.monotonic()
            refused = send("during")
            assert time.monotonic() - begun < 12
        finally:
            broker.resume()
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        until = time.monotonic() + 60
        while send("after").status_code != 202:
            assert time.monotonic() < until

    buffer = open_buffer(url)
    found = list(_until_it_answers(lambda: payloads(buffer)).values())
    assert (found[0], found[-1]) == ("before", "after")
    buffer.close()


def test_a_log_whose_broker_is_away_opens(url: str) -> None:
    """A door starts, and answers 503, before its broker does."""
    nobody = f"kafka://127.0.0.1:{free_port()}/penstock"
    appender, buffer = open_appender(nobody), open_buffer(nobody)

    begun = time.monotonic()
    answer = appender.append(FLIGHTS, [event("x")])

    assert isinstance(answer.exception(timeout=20), LogUnavailable)
    with pytest.raises(LogUnavailable):
        buffer.extents(FLIGHTS)
    assert time.monotonic() - begun < 20
    appender.close()
    buffer.close()


def _records(buffer: Buffer, log_id: str, partition: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Answer offset and payload of each record of a partition."""
    mark = start_of(log_id, partition)
    rows = buffer.read(FLIGHTS, mark, end=end, max_bytes=1 << 30).rows
    return zip(rows["log_offset"].to_pylist(), rows["payload"].to_pylist(), strict=True)


def _numbered(buffer: Buffer) -> tuple[str, dict[int, int], list[Row]]:
    """Answer a log's identity, its ends, and where which number is."""
    log_id = buffer.log_id(FLIGHTS)
    ends = {partition: extent.end for partition, extent in buffer.extents(FLIGHTS).items()}
    rows = [
        Row(Place(log_id, partition, offset), int(payload))
        for partition, end in ends.items()
        for offset, payload in _records(buffer, log_id, partition, end)
    ]
    return log_id, ends, rows


def _forget(data: Path, topic: str) -> None:
    """Lose the folder of a partition, as a disk that was replaced does."""
    shutil.rmtree(data / topic)
    # Else the broker takes the folder for one that was there when it was shut down.
    for checkpoint in data.glob("*offset-checkpoint"):
        lines = checkpoint.read_text().splitlines()
        if len(lines) < 2:
            continue
        name = topic.rpartition("-")[0]
        kept = [line for line in lines[2:] if not line.startswith(f"{name} ")]
        checkpoint.write_text("\n".join([lines[0], str(len(kept)), *kept, ""]))


def _until_it_works(append) -> Sequence[Position | Exception]:
    """Append again and again until it is acknowledged; answer the positions."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer: Answer = append()
        if answer.exception(timeout=30) is None:
            return answer.result()
        time.sleep(0.1)
    raise AssertionError("the log did not recover")


def _until_it_answers(question: Callable[[], Answered]) -> Answered:
    """Ask again and again; on a busy machine a broker takes its time to be one again."""
    until = time.monotonic() + 120
    while True:
        try:
            return question()
        except LogUnavailable:
            if time.monotonic() > until:
                raise


def _settled(answers: list[Answer]) -> None:
    for answer in answers:
        answer.exception(timeout=30)
