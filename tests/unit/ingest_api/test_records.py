from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from builders import NOON, numbered
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wire_records import RECORDS, is_map, messages, paths, put, request, values

from ingest_api.proto import records_pb2 as r
from ingest_api.proto.generate import FOLDER, generate
from ingest_api.records import MAPPINGS, events_of, pieces
from ingest_api.times import micros_of
from penstock.envelope import Event

LIMIT = 1_000_000
HOME = "main.flights"
SECOND = 1_764_000_000

CONTRACT = """
GenericRecord: 1 body bytes, 2 source string, 3 timestamp int64, 4 metadata map string string,
  5 force_dead_letter bool
KafkaSinkRecord: 1 topic string, 2 key bytes, 3 value bytes, 4 timestamp int64, 5 offset int64,
  6 partition int32, 7 headers repeated KafkaHeader, 8 force_dead_letter bool
KafkaHeader: 1 key string, 2 value string
AMQPSinkRecord: 1 body bytes, 2 timestamp int64, 3 type string, 4 exchange string,
  5 routing_key string, 6 content_type string, 7 content_encoding string, 8 priority int32,
  9 expiration string, 10 message_id string, 11 user_id string, 12 app_id string,
  13 reply_to string, 14 correlation_id string, 15 headers repeated AMQPHeader,
  16 force_dead_letter bool
AMQPHeader: 1 key string, 2 value string
SQSRecord: 1 attributes map string string, 2 messageattributes map string SQSRecordMessageAttribute,
  3 messageid string, 4 receipt string, 5 body bytes, 6 timestamp int64, 7 force_dead_letter bool
SQSRecordMessageAttribute: 1 datatype string, 2 stringvalue string, 3 binaryvalue bytes
AzureSinkRecord: 1 content_type string, 2 correlation_id string, 3 data bytes,
  4 delivery_count uint32, 5 session_id string, 6 group_sequence uint32, 7 id string,
  8 label string, 9 reply_to string, 10 reply_to_group_id string, 11 to string, 12 ttl int64,
  13 lock_token string, 14 system_properties AzureSystemProperties,
  15 user_properties map string string, 16 format uint32, 17 force_dead_letter bool
AzureSystemProperties: 1 locked_until int64, 2 sequence_number int64, 3 partition_id int32,
  4 partition_key string, 5 enqueued_time int64, 6 dead_letter_source string,
  7 scheduled_enqueue_time int64, 8 enqueued_sequence_number int64, 9 via_partition_key string,
  10 annotations map string string
GCPRecord: 1 id string, 2 data bytes, 3 attributes map string string, 4 publish_time int64,
  5 delivery_attempt int32, 6 ordering_key string, 7 force_dead_letter bool
RedisRecord: 1 payload string, 2 channel string, 3 timestamp int64, 4 force_dead_letter bool
RedisStreamsRecord: 1 id string, 2 key string, 3 value string, 4 stream string, 5 timestamp int64,
  6 force_dead_letter bool
MQTTRecord: 1 id uint32, 2 topic string, 3 value bytes, 4 duplicate bool, 5 retained bool,
  6 qos uint32, 7 timestamp int64, 8 force_dead_letter bool
NSQRecord: 1 id string, 2 topic string, 3 channel string, 4 attempts int32, 5 nsqd_address string,
  6 value bytes, 7 timestamp int64, 8 force_dead_letter bool
KubeMQRecord: 1 id string, 2 client_id string, 3 channel string, 4 value bytes, 5 timestamp int64,
  6 sequence int64, 7 force_dead_letter bool
NATSRecord: 1 subject string, 2 value bytes, 3 timestamp int64, 4 force_dead_letter bool
NATSStreamingRecord: 1 channel string, 2 value bytes, 3 sequence uint64, 4 subject string,
  5 redelivered bool, 6 redelivery_count uint32, 7 crc32 uint32, 8 timestamp int64,
  9 force_dead_letter bool
NATSJetStreamRecord: 1 stream string, 2 value bytes, 3 timestamp int64, 4 force_dead_letter bool
"""

_SCALARS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def kind_of(field: FieldDescriptor) -> str:
    if is_map(field):
        return "map " + " ".join(map(kind_of, field.message_type.fields))
    kind = field.message_type.name if field.message_type else _SCALARS[field.type]
    return f"repeated {kind}" if field.is_repeated else kind


def event_of(record: Any, limit: int = LIMIT) -> Event:
    [event] = events_of(
        [record],
        MAPPINGS[record.DESCRIPTOR.name],
        ids=numbered()(1),
        received_at=NOON,
        limit=limit,
        not_from=HOME,
    )
    return event


def test_the_messages_have_the_numbers_and_types_that_relays_in_the_field_use() -> None:
    """A field with another number would be silently empty in everything that relays send."""
    ours = {
        message.name: ", ".join(f"{f.number} {f.name} {kind_of(f)}" for f in message.fields)
        for message in r.DESCRIPTOR.message_types_by_name.values()
    }

    theirs = dict(line.split(": ") for line in CONTRACT.replace(",\n ", ",").strip().splitlines())
    assert ours == theirs


@pytest.mark.parametrize("kind", RECORDS)
def test_every_field_is_somewhere_in_the_event(kind: str) -> None:
    """What a relay sent and the event does not hold is lost for search and replay alike."""
    record = RECORDS[kind]()
    numbers = count(1_001)
    expected: list[Any] = []
    for path in paths(record.DESCRIPTOR):
        field = path[-1]
        name = ".".join(step.name for step in path)
        if is_map(field) and field.message_type.fields_by_name["value"].message_type:
            typed = r.SQSRecordMessageAttribute(
                datatype="Type", stringvalue="text", binaryvalue=b"data"
            )
            put(record, path, {"typed": typed})
            expected += ["typed", "Type", b"text", b"data"]
        elif is_map(field):
            put(record, path, {f"key of {name}": f"value of {name}"})
            expected += [f"key of {name}", f"value of {name}"]
        elif field.is_repeated:
            header = field.message_type
            record_header = r.KafkaHeader if header.name == "KafkaHeader" else r.AMQPHeader
            put(record, path, [record_header(key="header", value="of a message")])
            expected += ["header", b"of a message"]
        elif field.type == FieldDescriptor.TYPE_BOOL:
            put(record, path, True)
            expected.append(True if field.name == "force_dead_letter" else field.name)
        elif field.type == FieldDescriptor.TYPE_STRING:
            put(record, path, f"text of {name}")
            expected.append(f"text of {name}")
        elif field.type == FieldDescriptor.TYPE_BYTES:
            put(record, path, f"bytes of {name}".encode())
            expected.append(f"bytes of {name}".encode())
        else:
            put(record, path, next(numbers))
            expected.append(str(getattr_path(record, path)))

    event = event_of(record)

    seen = {
        event.payload,
        event.payload.decode(),
        event.key,
        (event.key or b"").decode(),
        event.content_type,
        event.quarantine,
        str((event.event_time or 0) // 1_000_000),
        *event.metadata,
        *event.metadata.values(),
        *(name for name, _ in event.headers),
        *(value for _, value in event.headers),
        *(value.decode() for _, value in event.headers),
    }
    assert [value for value in expected if value not in seen] == []


def getattr_path(record: Any, path: tuple[FieldDescriptor, ...]) -> Any:
    for step in path:
        record = getattr(record, step.name)
    return record


def possible(attribute: r.SQSRecordMessageAttribute) -> bool:
    """Say whether SQS could have held it: text or bytes, and the type says which."""
    return (
        (not attribute.stringvalue) if attribute.datatype == "Binary" else not attribute.binaryvalue
    )


@pytest.mark.parametrize("kind", RECORDS)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_two_records_that_differ_in_one_field_are_two_different_events(
    kind: str, data: st.DataObject
) -> None:
    """Otherwise the field is lost, or two fields share a place and one hides the other."""
    descriptor = RECORDS[kind].DESCRIPTOR
    record = data.draw(messages(descriptor))
    path = data.draw(st.sampled_from(list(paths(descriptor))))
    other = type(record)()
    other.CopyFrom(record)
    put(other, path, data.draw(values(path[-1])))
    assume(other != record)
    for sent in (record, other):
        assume(all(map(possible, getattr(sent, "messageattributes", {}).values())))

    assert event_of(record) != event_of(other)


def expected(source: str, payload: bytes, id: str | None = None, **other: Any) -> Event:  # noqa: A002
    """Answer an event; with an id it is one that the record gave."""
    return Event(
        id=id or "id-1",
        named=id is not None,
        received_at=NOON,
        payload=payload,
        source=source,
        **other,
    )


EXAMPLES: list[tuple[Any, Event]] = [
    (
        r.GenericRecord(
            body=b"\x00\xff",
            source="shop",
            timestamp=SECOND,
            metadata={"a": "1", "source": "x"},
            force_dead_letter=True,
        ),
        expected(
            "grpc",
            b"\x00\xff",
            event_time=SECOND * 1_000_000,
            metadata={"source": "shop", "a": "1", "metadata.source": "x"},
            quarantine=True,
        ),
    ),
    (
        r.KafkaSinkRecord(
            topic="flights",
            key=b"UA",
            value=b"{}",
            timestamp=SECOND * 1_000 + 5,
            offset=1,
            partition=3,
            headers=[
                r.KafkaHeader(key="b", value="ü"),
                r.KafkaHeader(key="a", value=""),
                r.KafkaHeader(key="b", value="2"),
            ],
            force_dead_letter=True,
        ),
        expected(
            "kafka",
            b"{}",
            id="kafka/flights/3/1/1764000000005",
            key=b"UA",
            event_time=SECOND * 1_000_000 + 5_000,
            headers=(("b", "ü".encode()), ("a", b""), ("b", b"2")),
            metadata={"topic": "flights", "partition": "3", "offset": "1"},
            quarantine=True,
        ),
    ),
    (
        r.AMQPSinkRecord(
            body=b"{}",
            timestamp=SECOND,
            type="t",
            exchange="air",
            routing_key="a.b",
            content_type="application/json",
            content_encoding="utf-8",
            priority=9,
            expiration="60000",
            message_id="m-1",
            user_id="u",
            app_id="a",
            reply_to="r",
            correlation_id="c",
            headers=[r.AMQPHeader(key="x", value="1"), r.AMQPHeader(key="x", value="1")],
            force_dead_letter=True,
        ),
        expected(
            "rabbitmq",
            b"{}",
            id="rabbitmq/air/a.b/m-1",
            event_time=SECOND * 1_000_000,
            content_type="application/json",
            headers=(("x", b"1"), ("x", b"1")),
            metadata={
                "type": "t",
                "exchange": "air",
                "routing_key": "a.b",
                "content_encoding": "utf-8",
                "priority": "9",
                "expiration": "60000",
                "message_id": "m-1",
                "user_id": "u",
                "app_id": "a",
                "reply_to": "r",
                "correlation_id": "c",
            },
            quarantine=True,
        ),
    ),
    (
        r.SQSRecord(
            body=b"{}",
            messageid="m-1",
            receipt="handle",
            timestamp=SECOND,
            attributes={"SenderId": "42", "message_id": "x"},
            messageattributes={
                "n": r.SQSRecordMessageAttribute(datatype="Number", stringvalue="7"),
                "b": r.SQSRecordMessageAttribute(datatype="Binary.png", binaryvalue=b"\xff"),
                "e": r.SQSRecordMessageAttribute(),
            },
            force_dead_letter=True,
        ),
        expected(
            "sqs",
            b"{}",
            id="sqs/m-1",
            event_time=SECOND * 1_000_000,
            headers=(("b", b"\xff"), ("e", b""), ("n", b"7")),
            metadata={
                "message_id": "m-1",
                "receipt_handle": "handle",
                "SenderId": "42",
                "attributes.message_id": "x",
                "messageattributes.n": "Number",
                "messageattributes.b": "Binary.png",
            },
            quarantine=True,
        ),
    ),
    (
        r.AzureSinkRecord(
            content_type="text/plain",
            correlation_id="c",
            data=b"{}",
            delivery_count=1,
            session_id="s",
            group_sequence=2,
            id="m-1",
            label="l",
            reply_to="r",
            reply_to_group_id="g",
            to="t",
            ttl=3,
            lock_token="k",
            system_properties=r.AzureSystemProperties(
                locked_until=4,
                sequence_number=5,
                partition_id=6,
                partition_key="UA",
                enqueued_time=SECOND,
                dead_letter_source="d",
                scheduled_enqueue_time=7,
                enqueued_sequence_number=8,
                via_partition_key="v",
                annotations={"x-opt": "1", "to": "2"},
            ),
            user_properties={"b": "2", "a": "1"},
            format=9,
            force_dead_letter=True,
        ),
        expected(
            "azure",
            b"{}",
            id="azure/m-1",
            content_type="text/plain",
            key=b"UA",
            event_time=SECOND * 1_000_000,
            headers=(("a", b"1"), ("b", b"2")),
            metadata={
                "correlation_id": "c",
                "delivery_count": "1",
                "session_id": "s",
                "group_sequence": "2",
                "message_id": "m-1",
                "label": "l",
                "reply_to": "r",
                "reply_to_group_id": "g",
                "to": "t",
                "ttl": "3",
                "lock_token": "k",
                "locked_until": "4",
                "sequence_number": "5",
                "partition_id": "6",
                "dead_letter_source": "d",
                "scheduled_enqueue_time": "7",
                "enqueued_sequence_number": "8",
                "via_partition_key": "v",
                "x-opt": "1",
                "annotations.to": "2",
                "format": "9",
            },
            quarantine=True,
        ),
    ),
    (
        r.GCPRecord(
            id="m-1",
            data=b"{}",
            attributes={"b": "2", "a": "1"},
            publish_time=SECOND * 10**9 + 1_000,
            delivery_attempt=5,
            ordering_key="UA",
            force_dead_letter=True,
        ),
        expected(
            "gcp",
            b"{}",
            id="gcp/m-1",
            key=b"UA",
            event_time=SECOND * 1_000_000 + 1,
            headers=(("a", b"1"), ("b", b"2")),
            metadata={"message_id": "m-1", "delivery_attempt": "5"},
            quarantine=True,
        ),
    ),
    (
        r.RedisRecord(payload="ü", channel="air", timestamp=SECOND, force_dead_letter=True),
        expected(
            "redis",
            "ü".encode(),
            event_time=SECOND * 1_000_000,
            metadata={"channel": "air"},
            quarantine=True,
        ),
    ),
    (
        r.RedisStreamsRecord(
            id="1-0",
            key="plane",
            value="N1",
            stream="air",
            timestamp=SECOND,
            force_dead_letter=True,
        ),
        expected(
            "redis_streams",
            b"N1",
            id="redis_streams/air/1-0/plane",
            event_time=SECOND * 1_000_000,
            metadata={"stream": "air", "message_id": "1-0", "key": "plane"},
            quarantine=True,
        ),
    ),
    (
        r.MQTTRecord(
            id=7,
            topic="a/b",
            value=b"1",
            duplicate=True,
            retained=True,
            qos=2,
            timestamp=SECOND,
            force_dead_letter=True,
        ),
        expected(
            "mqtt",
            b"1",
            event_time=SECOND * 1_000_000,
            metadata={
                "topic": "a/b",
                "packet_id": "7",
                "qos": "2",
                "duplicate": "true",
                "retained": "true",
            },
            quarantine=True,
        ),
    ),
    (
        r.NSQRecord(
            id="0abc",
            topic="t",
            channel="c",
            attempts=2,
            nsqd_address="n:1",
            value=b"1",
            timestamp=SECOND,
            force_dead_letter=True,
        ),
        expected(
            "nsq",
            b"1",
            id="nsq/t/0abc",
            event_time=SECOND * 1_000_000,
            metadata={
                "topic": "t",
                "channel": "c",
                "message_id": "0abc",
                "attempts": "2",
                "nsqd_address": "n:1",
            },
            quarantine=True,
        ),
    ),
    (
        r.KubeMQRecord(
            id="m",
            client_id="me",
            channel="c",
            value=b"1",
            sequence=9,
            timestamp=SECOND,
            force_dead_letter=True,
        ),
        expected(
            "kubemq",
            b"1",
            id="kubemq/c/m",
            event_time=SECOND * 1_000_000,
            metadata={"channel": "c", "message_id": "m", "sequence": "9", "client_id": "me"},
            quarantine=True,
        ),
    ),
    (
        r.NATSRecord(subject="a.b", value=b"1", timestamp=SECOND, force_dead_letter=True),
        expected(
            "nats",
            b"1",
            event_time=SECOND * 1_000_000,
            metadata={"subject": "a.b"},
            quarantine=True,
        ),
    ),
    (
        r.NATSStreamingRecord(
            channel="c",
            value=b"1",
            sequence=2**64 - 1,
            subject="s",
            redelivered=True,
            redelivery_count=3,
            crc32=2**32 - 1,
            timestamp=SECOND,
            force_dead_letter=True,
        ),
        expected(
            "nats_streaming",
            b"1",
            id="nats_streaming/c/18446744073709551615/1764000000",
            event_time=SECOND * 1_000_000,
            metadata={
                "channel": "c",
                "sequence": str(2**64 - 1),
                "subject": "s",
                "redelivered": "true",
                "redelivery_count": "3",
                "crc32": str(2**32 - 1),
            },
            quarantine=True,
        ),
    ),
    (
        r.NATSJetStreamRecord(stream="air", value=b"1", timestamp=SECOND, force_dead_letter=True),
        expected(
            "nats_jetstream",
            b"1",
            event_time=SECOND * 1_000_000,
            metadata={"stream": "air"},
            quarantine=True,
        ),
    ),
]


@pytest.mark.parametrize(
    ("record", "event"), EXAMPLES, ids=[record.DESCRIPTOR.name for record, _ in EXAMPLES]
)
def test_a_record_becomes_this_event(record: Any, event: Event) -> None:
    assert event_of(record) == event


def test_the_examples_are_of_every_type_and_set_every_field() -> None:
    """They are the reference of names: a field left out could be renamed without notice."""
    examples = sorted(record.DESCRIPTOR.name for record, _ in EXAMPLES)
    assert examples == sorted(RECORDS) == sorted(MAPPINGS)
    for record, _ in EXAMPLES:
        assert [path for path in paths(record.DESCRIPTOR) if not getattr_path(record, path)] == []


@pytest.mark.parametrize("kind", RECORDS)
def test_fields_that_were_not_sent_leave_no_trace(kind: str) -> None:
    """Except Kafka's position, where 0 is a value; empty texts would look like something sent."""
    position = {"partition": "0", "offset": "0"} if kind == "KafkaSinkRecord" else {}

    event = event_of(RECORDS[kind]())

    assert event == expected(event.source, b"", metadata=position)


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        (SECOND, None),
        (SECOND * 10**3, None),
        (SECOND * 10**6, None),
        (SECOND * 10**9, None),
        (SECOND * 10**9 + 999, str(SECOND * 10**9 + 999)),
        (-(SECOND * 10**9) - 1, str(-(SECOND * 10**9) - 1)),
        (2**63 - 1, str(2**63 - 1)),
        (-5, None),
        (0, None),
    ],
)
def test_a_time_that_microseconds_cannot_say_is_also_kept_as_a_number(
    number: int, kept: str | None
) -> None:
    """A replay or a comparison with the source needs the sender's own digits."""
    event = event_of(r.NATSRecord(timestamp=number))

    assert (event.event_time, event.metadata.get("timestamp")) == (micros_of(number), kept)


def test_the_senders_own_map_cannot_pass_for_what_the_door_writes() -> None:
    """Landing trusts these names: a sender must not be able to write the reason of a quarantine."""
    sent = {
        "source": "s",
        "timestamp": "t",
        "penstock_reason": "p",
        "metadata.source": "m",
        "Source": "S",
        "": "",
    }

    event = event_of(r.GenericRecord(metadata=sent))

    assert event.metadata == {
        "metadata.source": "s",
        "metadata.timestamp": "t",
        "metadata.penstock_reason": "p",
        "metadata.metadata.source": "m",
        "Source": "S",
        "": "",
    }


def test_a_record_over_the_limit_is_an_event_that_wants_quarantine_and_says_why() -> None:
    """An error would make a relay drop the whole batch, its good records included."""
    fits, over = r.NATSRecord(value=b"12345", subject="s"), r.NATSRecord(value=b"123456")

    assert event_of(fits, limit=5).quarantine is False
    assert event_of(over, limit=5).quarantine is True
    assert event_of(over, limit=5).metadata == {"penstock_reason": "too_large"}
    assert event_of(over, limit=5).payload == b"123456"


ORIGIN = "penstock-collection"
ATTRIBUTE = r.SQSRecordMessageAttribute


@pytest.mark.parametrize(
    "record",
    [
        r.KafkaSinkRecord(headers=[r.KafkaHeader(key=ORIGIN, value=HOME)]),
        r.KafkaSinkRecord(headers=[r.KafkaHeader(key=ORIGIN.title(), value=HOME)]),
        r.KafkaSinkRecord(headers=[r.KafkaHeader(key=ORIGIN, value=v) for v in ("main.x", HOME)]),
        r.AMQPSinkRecord(headers=[r.AMQPHeader(key=ORIGIN, value=HOME)]),
        r.SQSRecord(messageattributes={ORIGIN: ATTRIBUTE(stringvalue=HOME)}),
        r.AzureSinkRecord(user_properties={ORIGIN: HOME}),
        r.GCPRecord(attributes={ORIGIN: HOME}),
        r.GenericRecord(metadata={ORIGIN: HOME}),
    ],
    ids=lambda record: record.DESCRIPTOR.name,
)
def test_a_record_that_a_replay_brings_back_wants_quarantine_and_says_why(record: Any) -> None:
    """Replayed into itself, a collection would grow until the disk is full."""
    event = event_of(record)

    assert (event.quarantine, event.metadata["penstock_reason"]) == (True, "loop")
    assert event.headers or event.metadata[ORIGIN] == HOME


def test_a_record_that_was_replayed_from_another_collection_is_as_good_as_any() -> None:
    """That is what replays are for."""
    headers = [
        r.KafkaHeader(key=ORIGIN, value="main.flights2"),
        r.KafkaHeader(key="other", value=HOME),
    ]

    event = event_of(r.KafkaSinkRecord(headers=headers))

    assert not event.quarantine
    assert "penstock_reason" not in event.metadata


@pytest.mark.parametrize(
    ("record", "id_"),
    [
        (r.KafkaSinkRecord(topic="a", timestamp=7), "kafka/a/0/0/7"),
        (r.KafkaSinkRecord(topic="a", offset=9), None),
        (r.KafkaSinkRecord(offset=9, timestamp=7), None),
        (r.AMQPSinkRecord(exchange="e", routing_key="r"), None),
        (
            r.AMQPSinkRecord(exchange="e/f", routing_key="100%", message_id="m"),
            "rabbitmq/e%2Ff/100%25/m",
        ),
        (r.SQSRecord(messageid="m", receipt="r"), "sqs/m"),
        (r.SQSRecord(messageid="m" * 2_000), None),
        (r.MQTTRecord(topic="t", id=7, timestamp=7), None),
        (r.NATSRecord(subject="s", timestamp=7), None),
    ],
)
def test_a_record_is_known_by_its_coordinates_if_all_of_them_were_sent(
    record: Any, id_: str | None
) -> None:
    """A relay that was killed sends again; but what only looks alike must not be taken for it."""
    event = event_of(record)

    assert (event.named, event.id) == (id_ is not None, id_ or "id-1")


@pytest.mark.parametrize(
    "record",
    [
        r.KafkaSinkRecord(
            topic="a",
            timestamp=7,
            headers=[r.KafkaHeader(key="x"), r.KafkaHeader(key="Penstock-Event-Id", value="own")],
        ),
        r.SQSRecord(
            messageid="m", messageattributes={"penstock-event-id": ATTRIBUTE(stringvalue="own")}
        ),
        r.GenericRecord(metadata={"penstock-event-id": "own"}),
    ],
    ids=lambda record: record.DESCRIPTOR.name,
)
def test_an_id_that_came_with_a_record_goes_before_its_coordinates(record: Any) -> None:
    """A replay that sends an event twice to a bus gives it two offsets and one id."""
    event = event_of(record)

    assert (event.named, event.id) == (True, "own")


def test_events_that_share_their_metadata_share_one_object() -> None:
    """The log writes equal metadata once for all; comparing one object with itself is free."""
    records = [r.NATSRecord(subject=subject, value=b"1") for subject in "aaab"]

    first, second, third, fourth = events_of(
        records,
        MAPPINGS["NATSRecord"],
        ids=numbered()(4),
        received_at=NOON,
        limit=LIMIT,
        not_from=HOME,
    )

    assert first.metadata is second.metadata is third.metadata
    assert fourth.metadata == {"subject": "b"}


def test_events_keep_the_order_of_records_and_ids() -> None:
    records = [r.NATSRecord(value=str(n).encode()) for n in range(100)]

    events = events_of(
        iter(records),
        MAPPINGS["NATSRecord"],
        ids=numbered()(100),
        received_at=NOON,
        limit=LIMIT,
        not_from=HOME,
    )

    assert [(e.id, e.payload) for e in events] == [
        (f"id-{n + 1}", str(n).encode()) for n in range(100)
    ]


@given(
    st.lists(messages(r.GenericRecord.DESCRIPTOR), max_size=20),
    st.integers(1, 60),
    st.integers(1, 5),
)
@settings(max_examples=100, deadline=None)
def test_the_pieces_of_a_request_are_requests_that_hold_its_records(
    records: list[Any], size: int, most: int
) -> None:
    """A cut in the wrong place would lose records or make others of them."""
    whole = request("GenericRecord", records)
    message = whole.SerializeToString()

    cut = list(pieces(message, size, most))

    assert b"".join(cut) == message
    held = [type(whole).FromString(piece).records for piece in cut]
    assert [record for piece in held for record in piece] == records
    longest = max((record.ByteSize() + 11 for record in records), default=0)
    assert all(len(piece) < size + longest for piece in cut)
    assert all(len(piece) <= most for piece in held[:-1])


@pytest.mark.parametrize("length", [1, 127, 128, 16_383, 16_384, 2**21 - 1, 2**21])
def test_records_of_any_length_are_cut_where_they_end(length: int) -> None:
    """The length of a record takes a byte more at each of these bounds."""
    nats = r.NATSRecord(value=bytes(length))
    one = request("NATSRecord", [nats]).SerializeToString()

    assert list(pieces(one * 3, 1, 9)) == [one, one, one]


@given(st.binary(max_size=200), st.integers(1, 20))
def test_bytes_that_are_no_request_are_cut_into_the_same_bytes(message: bytes, size: int) -> None:
    """Damage is for the parser to find; cutting must neither hide it nor run for ever."""
    assert b"".join(pieces(message, size, 3)) == message


def test_a_long_row_of_length_bytes_is_not_read_as_one_enormous_number() -> None:
    message = b"\x0a" + b"\xff" * 1_000_000

    assert b"".join(pieces(message, 10, 3)) == message


def test_what_follows_an_unknown_field_stays_in_one_piece() -> None:
    """Newer clients may send fields of their own; the parser skips them, the cut need not."""
    first = request("NATSRecord", [r.NATSRecord(value=b"one")]).SerializeToString()
    unknown = b"\x7a\x02hi"

    assert list(pieces(first * 2 + unknown + first * 2, 1, 9)) == [
        first,
        first,
        unknown + first * 2,
    ]


def test_generating_the_modules_again_changes_nothing(tmp_path: Path) -> None:
    """The committed modules must be those of the committed messages."""
    made = generate(tmp_path)

    assert {path.name: (tmp_path / path).read_text() for path in made} == {
        path.name: path.read_text() for path in FOLDER.glob("*_pb2*.py*")
    }


def test_other_messages_of_the_same_names_do_not_disturb() -> None:
    """The packages are called records, events and services; anybody may have such names."""
    code = """
from google.protobuf import descriptor_pb2, descriptor_pool
for package in ("records", "events", "services"):
    file = descriptor_pb2.FileDescriptorProto(
        name=f"ingest_api/proto/{package}.proto", package=package, syntax="proto3"
    )
    file.message_type.add(name="GenericRecord")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
import grpc_health.v1.health, grpc_reflection.v1alpha.reflection
import ingest_api.grpc_server
from ingest_api.proto import records_pb2
assert records_pb2.GenericRecord(body=b"x").body == b"x"
import grpc_health.v1.health_pb2, grpc_reflection.v1alpha.reflection_pb2
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
