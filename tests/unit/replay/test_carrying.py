"""What AMQP tables and SQS messages make of an event can be read back."""

from __future__ import annotations

import base64
import string
from itertools import islice

import pytest
from builders import NOON, event
from hypothesis import given
from hypothesis import strategies as st
from replaying import in_columns

from penstock.envelope import Position
from penstock.errors import BadRequest
from replay.events import Original
from replay.targets.kafka import times_of
from replay.targets.kafka_metadata import Login, Scram
from replay.targets.places import kafka_options
from replay.targets.rabbitmq import headers_of as from_table
from replay.targets.rabbitmq import message_id, table_of
from replay.targets.sqs import attributes_of, body_of, group_of, payload_of
from replay.targets.sqs import headers_of as from_attributes

NAMES = st.text(max_size=3) | st.sampled_from(["penstock-headers", "x" * 200, "AWS.x", "a..b"])
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=8)), max_size=14).map(tuple)


@given(HEADERS)
def test_an_amqp_table_holds_every_header_and_the_order_of_each_name(headers) -> None:
    back = from_table(table_of(headers))

    assert sorted(back) == sorted(headers)
    for name in {name for name, _ in headers}:
        assert [v for n, v in back if n == name] == [v for n, v in headers if n == name]


@given(HEADERS, st.integers(0, 10))
def test_sqs_attributes_hold_every_header(headers, room: int) -> None:
    attributes = attributes_of(headers, room=max(room, 1), taken={})
    values = [
        (
            name,
            base64.b64decode(a["BinaryValue"]) if "BinaryValue" in a else a["StringValue"],
        )
        for name, a in attributes.items()
    ]

    assert len(attributes) <= max(room, 1)
    assert sorted(from_attributes(values)) == sorted(headers)


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_an_sqs_body_is_allowed_text_and_read_back(payload: bytes) -> None:
    body, encoding = body_of(payload)

    assert body
    assert not any(ord(c) < 0x20 and c not in "\t\n\r" for c in body)
    assert "\ufffe" not in body
    assert payload_of(body, encoding) == payload


@given(st.binary(max_size=200))
def test_a_message_group_has_allowed_characters_only(key: bytes) -> None:
    group = group_of(event(b"", id="e1", key=key))

    assert 1 <= len(group) <= 128
    assert set(group) <= set(string.ascii_letters + string.digits + string.punctuation)


def test_an_id_that_amqp_has_no_room_for_becomes_its_digest() -> None:
    assert message_id("e-1") == "e-1"
    assert len(message_id("x" * 300)) == 64


@pytest.mark.parametrize("nonce", ["other", ""])
def test_scram_answers_as_the_standard_says(nonce: str) -> None:
    """The exchange in RFC 7677; a challenge to somebody else's nonce is not answered."""
    login = Login("SCRAM-SHA-256", "user", "pencil")
    scram = Scram(login, "rOprNGfwEbeRWgbNEkqO")
    challenge = (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )

    assert scram.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert scram.final(challenge) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    with pytest.raises(ValueError, match="not SCRAM"):
        Scram(login, nonce + "mine").final(challenge)


def test_a_record_has_the_time_of_its_event_where_that_is_asked() -> None:
    """Unasked it is fresh: a topic deletes at once what is older than it keeps."""
    happened = NOON - 5_000_000
    told = [event(b"1", event_time=happened), event(b"2"), event(b"3", event_time=-7)]
    events = in_columns([Original(Position(0, n), each) for n, each in enumerate(told)])

    kept = times_of(kafka_options({"timestamps": "original"}).timestamps, events, slice(0, 3))
    fresh = times_of(kafka_options({}).timestamps, events, slice(0, 3))

    assert list(kept) == [happened // 1_000, NOON // 1_000, 1]
    assert list(islice(fresh, 3)) == [0, 0, 0], "the client's own"
    with pytest.raises(BadRequest):
        kafka_options({"timestamps": "now"})
