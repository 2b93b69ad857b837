"""The log on Kafka beyond its promise: what others do to its topics, and what others read there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from builders import FLIGHTS, NOON, event
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from engines.fresh import fresh_name
from engines.places import KAFKA
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as Place

from penstock.buffer import (
    Appender,
    Buffer,
    Glance,
    Keeping,
    open_appender,
    open_buffer,
    open_keeper,
    start_of,
)
from penstock.buffer.kafka_cluster import LARGEST_BYTES, Cluster
from penstock.buffer.kafka_consumers import Consumers
from penstock.envelope import CollectionId, Event, Extent, Mark, Position
from penstock.errors import BadRequest, LogChanged, LogDamaged, LogTruncated, TooLarge

pytestmark = pytest.mark.engines


@dataclass
class Log:
    """A log of its own on the broker that all tests share."""

    url: str
    appender: Appender
    buffer: Buffer

    @property
    def topic(self) -> str:
        return f"{self.url.rpartition('/')[2]}.{FLIGHTS}"

    def append(self, *events: Event) -> list[Position | Exception]:
        return list(self.appender.append(FLIGHTS, events).result(timeout=20))

    def read(self, mark: Mark | None = None, *, end: int = 1 << 60) -> Any:
        mark = mark or start_of(self.buffer.log_id(FLIGHTS), 0)
        return self.buffer.read(FLIGHTS, mark, end=end, max_bytes=1 << 30)


@pytest.fixture
def log() -> Iterator[Log]:
    url = f"kafka://{KAFKA}/{fresh_name()}"
    log = Log(url, open_appender(url), open_buffer(url))
    yield log
    log.appender.close()
    log.buffer.close()


@pytest.fixture
def admin() -> AdminClient:
    return AdminClient({"bootstrap.servers": KAFKA})


def numbered(first: int, count: int) -> list[Event]:
    return [event(f"{number}") for number in range(first, first + count)]


def payloads(portion: Any) -> list[str]:
    return [payload.decode() for payload in portion.rows["payload"].to_pylist()]


FULL = event(
    b"\x00value",
    id="e1",
    key=b"",
    headers=(("penstock", b"the sender's"), ("b", b""), ("b", b"\xff")),
    metadata={"a": "1"},
)


# Another client


def test_any_client_reads_what_was_sent(log: Log) -> None:
    """The value is the payload, the key the key, the headers the headers: nobody needs us."""
    log.append(FULL, event(b"", id="e2"))

    consumer = KafkaConsumer(bootstrap_servers=KAFKA, enable_auto_commit=False)
    consumer.assign([Place(log.topic, 0)])
    consumer.seek(Place(log.topic, 0), 0)
    records = [next(consumer), next(consumer)]
    consumer.close()

    assert records[0].value == b"\x00value"
    assert records[0].key == b""
    assert records[0].headers[0][0] == "penstock"
    assert tuple(records[0].headers[1:]) == FULL.headers
    assert (records[1].value, records[1].key) == (b"", None)


def test_records_copied_by_another_client_are_the_same_events(log: Log) -> None:
    """A mirrored topic is a log."""
    log.append(FULL)
    rows = log.read().rows.to_pylist()
    consumer = KafkaConsumer(bootstrap_servers=KAFKA, enable_auto_commit=False)
    consumer.assign([Place(log.topic, 0)])
    consumer.seek(Place(log.topic, 0), 0)
    record = next(consumer)
    consumer.close()

    producer = KafkaProducer(bootstrap_servers=KAFKA)
    producer.send(log.topic, record.value, record.key, headers=record.headers).get(10)
    producer.close()

    assert log.read().rows.to_pylist() == [rows[0], {**rows[0], "log_offset": 1}]


def test_records_of_others_are_events_of_their_own(log: Log) -> None:
    """Somebody else wrote into the topic: that stops nothing, and nothing of it is lost."""
    log.append(event("ours"))
    producer = Producer({"bootstrap.servers": KAFKA})
    producer.produce(log.topic, b"theirs", b"k", headers=[("a", b"1"), ("penstock", b"2")])
    producer.produce(log.topic, None, headers=[("penstock", b"no array")])
    producer.flush(10)
    log.append(event("ours again"))

    rows = log.read().rows.to_pylist()

    assert [row["payload"] for row in rows] == [b"ours", b"theirs", b"", b"ours again"]
    foreign = rows[1]
    assert foreign["event_id"] == f"{log.topic}-0-1"
    assert (foreign["source"], foreign["key"]) == ("kafka", b"k")
    assert foreign["headers"] == [
        {"key": "a", "value": b"1"},
        {"key": "penstock", "value": b"2"},
    ]
    assert abs(foreign["received_at"].timestamp() - time.time()) < 60
    assert dict(rows[2]["metadata"])["kafka_value"] == "null"
    assert rows[2]["headers"] == [{"key": "penstock", "value": b"no array"}]


def test_a_record_of_a_newer_release_stops_reading(log: Log) -> None:
    """Taken for somebody else's it would lose its id for ever."""
    log.append(event("ours"))
    producer = Producer({"bootstrap.servers": KAFKA})
    header = msgspec.msgpack.encode([2, {"another": "format"}])
    producer.produce(log.topic, b"x", headers=[("penstock", header)])
    producer.flush(10)

    with pytest.raises(LogDamaged, match="newer"):
        log.read()


def test_a_header_name_that_is_no_header_name_comes_back(log: Log) -> None:
    """The client library ends names at a zero byte."""
    strange = event("x", headers=(("a\0b", b"1"), ("", b"2")))
    log.append(strange)

    (row,) = log.read().rows.to_pylist()

    assert [(each["key"], each["value"]) for each in row["headers"]] == list(strange.headers)


# What others do to a topic


def test_markers_of_transactions_are_passed(log: Log) -> None:
    """They take offsets: a span that ends by its last record would never reach its end."""
    log.append(event("a"))
    producer = Producer({"bootstrap.servers": KAFKA, "transactional.id": fresh_name()})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(log.topic, b"given up")
    producer.flush(10)
    # Nothing behind an open transaction is shown, and no mark passes it.
    assert log.buffer.extents(FLIGHTS) == {0: Extent(0, 1)}
    hidden = log.append(event("behind it"))
    assert hidden == [Position(0, 2)]
    before = log.read()
    assert (payloads(before), before.mark.next) == (["a"], 1)
    assert log.read(before.mark).mark == before.mark
    producer.abort_transaction(20)
    until = time.monotonic() + 10
    while log.buffer.extents(FLIGHTS) != {0: Extent(0, 4)} and time.monotonic() < until:
        time.sleep(0.05)

    first = log.read()

    assert payloads(first) == ["a", "behind it"]
    assert first.mark.next == 4
    assert payloads(log.read(before.mark)) == ["behind it"]
    assert log.read(first.mark).mark == first.mark
    log.append(event("b"))
    assert payloads(log.read(first.mark)) == ["b"]
    # In the midst of what is no record.
    part = log.read(end=2)
    assert (payloads(part), part.mark.next) == (["a"], 2)
    assert payloads(log.read(part.mark)) == ["behind it", "b"]


def test_a_topic_that_was_made_anew_is_another_log(log: Log, admin: AdminClient) -> None:
    """Its offsets begin again: what has them is not what was absorbed."""
    log.append(*numbered(0, 5))
    mark = log.read(end=3).mark
    admin.delete_topics([log.topic])[log.topic].result(10)
    # The broker answers before it has done so.
    until = time.monotonic() + 20
    while FLIGHTS in log.buffer.collections() and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(LogChanged):
        log.read(mark)
    open_keeper(log.url).ensure(FLIGHTS)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not any(isinstance(one, Exception) for one in _tried(log, numbered(10, 5))):
            break

    assert log.buffer.log_id(FLIGHTS) != mark.log_id
    with pytest.raises(LogChanged):
        log.read(mark)
    with pytest.raises(LogChanged):
        log.buffer.release(FLIGHTS, [mark])
    assert payloads(log.read())[:5] == ["10", "11", "12", "13", "14"]


def _tried(log: Log, events: list[Event]) -> list[Position | Exception]:
    future = log.appender.append(FLIGHTS, events)
    failure = future.exception(timeout=20)
    return [failure] if isinstance(failure, Exception) else list(future.result())


def test_deleted_records_are_missed(log: Log, admin: AdminClient) -> None:
    """They were never absorbed: stop, do not skip."""
    log.append(*numbered(0, 5))
    early, late = log.read(end=1).mark, log.read(end=4).mark
    place = TopicPartition(log.topic, 0, 3)
    admin.delete_records([place])[place].result(10)

    for mark in (start_of(early.log_id, 0), early):
        with pytest.raises(LogTruncated):
            log.read(mark)
    assert payloads(log.read(late)) == ["4"]
    assert log.buffer.extents(FLIGHTS) == {0: Extent(3, 5)}


def test_all_records_deleted_leaves_the_mark_at_the_end_good(log: Log, admin: AdminClient) -> None:
    """Retention takes everything of a collection that is quiet."""
    log.append(*numbered(0, 5))
    mark = log.read().mark
    place = TopicPartition(log.topic, 0, 5)
    admin.delete_records([place])[place].result(10)

    assert log.read(mark).mark == mark
    log.append(event("next"))
    assert payloads(log.read(mark)) == ["next"]


# Partitions


def test_partitions_are_added_while_everything_runs(log: Log) -> None:
    """The appender uses them within seconds, readers at once."""
    keeper = open_keeper(log.url)
    assert keeper.ensure(FLIGHTS, partitions=2) == 2
    assert keeper.ensure(FLIGHTS, partitions=2) == 2
    log.append(event("a"))
    assert set(log.buffer.extents(FLIGHTS)) == {0, 1}

    assert keeper.ensure(FLIGHTS, partitions=4) == 4

    assert set(log.buffer.extents(FLIGHTS)) == {0, 1, 2, 3}
    used = set()
    until = time.monotonic() + 20
    while len(used) < 4 and time.monotonic() < until:
        (place,) = log.append(event("b"))
        assert isinstance(place, Position)
        used.add(place.partition)
        time.sleep(0.05)
    assert used == {0, 1, 2, 3}
    with pytest.raises(BadRequest, match="4 partitions"):
        keeper.ensure(FLIGHTS, partitions=3)
    assert keeper.ensure(FLIGHTS) == 4


def test_a_new_collection_gets_what_the_log_gives(admin: AdminClient) -> None:
    """Its topic holds the largest event there may be, and keeps it as long as the setting says."""
    from confluent_kafka.admin import ConfigResource, ResourceType

    name = fresh_name()
    keeper = open_keeper(f"kafka://{KAFKA}/{name}", Keeping(partitions=3, hours=2))

    assert keeper.ensure(CollectionId("shop", "orders")) == 3

    asked = ConfigResource(ResourceType.TOPIC, f"{name}.shop.orders")
    config = admin.describe_configs([asked])[asked].result(10)
    assert config["retention.ms"].value == str(2 * 3_600_000)
    assert int(config["max.message.bytes"].value) == LARGEST_BYTES
    assert config["unclean.leader.election.enable"].value == "false"


def test_one_copy_is_not_called_durable(log: Log) -> None:
    """An acknowledgement of one replica is gone with its disk; the doctor has to say so."""
    keeper = open_keeper(log.url)
    before = keeper.warning()
    log.append(event("a"))
    after = keeper.warning()

    assert before is not None
    assert "new collection" in before
    assert after is not None
    assert log.topic in after
    assert "one copy" in after


def test_many_threads_share_a_reader(log: Log) -> None:
    """Searches read beside each other; each gets its own records."""
    log.append(*numbered(0, 500))
    log_id = log.buffer.log_id(FLIGHTS)

    def read(first: int) -> list[str]:
        mark = Mark(log_id, 0, first, "0" if first else "")
        return payloads(log.read(mark, end=first + 20))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(read, range(0, 480, 10)))

    assert answers == [[str(n) for n in range(f, f + 20)] for f in range(0, 480, 10)]


def test_many_collections_are_looked_at_in_as_many_requests_as_two(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred of them took eleven seconds, one after the other."""
    some = [CollectionId("main", f"c{number}") for number in range(8)]
    for one in some:
        log.appender.append(one, [event("a"), event("b", received_at=NOON + 1)]).result(timeout=20)
    asked, turned = [], []
    real, lent = Cluster._asked, Consumers.lent
    monkeypatch.setattr(Cluster, "_asked", lambda self, *q: [asked.append(q), real(self, *q)][1])
    monkeypatch.setattr(Consumers, "lent", lambda self: [turned.append(self), lent(self)][1])

    def look(collections: list[CollectionId]) -> tuple[int, int]:
        asked.clear(), turned.clear()
        kept = log.buffer.kept(collections)
        firsts = [Glance(one, start_of(kept[one].log_id, 0), 2) for one in collections]
        lasts = [Glance(one, Mark(kept[one].log_id, 0, 1, "0"), 2) for one in collections]
        assert log.buffer.glance([*firsts, *lasts]) == [
            *[NOON] * len(collections),
            *[NOON + 1] * len(collections),
        ]
        return len(asked), len(turned)

    assert look(some[:2]) == look(some) == (6, 1)


# Appending


def test_an_oversized_event_fails_alone(log: Log) -> None:
    """No other event of the batch may suffer for it."""
    large = event(b"x" * (LARGEST_BYTES + 1), id="large")

    first, second, third = log.append(event("a"), large, event("b"))

    assert (first, third) == (Position(0, 0), Position(0, 1))
    assert isinstance(second, TooLarge)
    assert payloads(log.read()) == ["a", "b"]


def test_the_largest_event_is_taken(log: Log) -> None:
    """A whole body of HTTP as one event, which does not pack."""
    import random

    body = random.Random(7).randbytes(16 << 20)

    assert log.append(event(body, id="large")) == [Position(0, 0)]
    assert log.read().rows["payload"][0].as_py() == body


def test_what_was_just_read_is_released_without_reading_it_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landing releases what it has read, of hundreds of collections in turn."""
    log.append(event("a"), event("b"))
    first, both = log.read(end=1).mark, log.read().mark
    read: list[Mark] = []
    monkeypatch.setattr(log.buffer, "read", lambda _, mark, **__: read.append(mark))

    log.buffer.release(FLIGHTS, [both])
    assert not read
    assert log.buffer.released([FLIGHTS]) == {FLIGHTS: {0: 2}}

    log.buffer.release(FLIGHTS, [first])
    assert read == [first], "of that nothing is known any more"
