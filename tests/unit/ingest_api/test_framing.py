from __future__ import annotations

import json

import pytest
from builders import NOON, numbered
from hypothesis import given
from hypothesis import strategies as st

from ingest_api.framing import MOST_EVENTS, Framed, Sent, frame, split_lines
from ingest_api.headers import by_name, key_of, stored, token_of
from penstock.errors import BadRequest, Malformed, TooLarge, TooMany

LEAST = {"specversion": "1.0", "id": "a-1", "source": "/ships", "type": "sailed"}
CE_HEADERS = [(b"ce-" + name.encode(), value.encode()) for name, value in LEAST.items()]

lines = st.binary(min_size=1, max_size=30).map(lambda line: line.replace(b"\n", b"."))
full_lines = lines.filter(lambda line: line.strip(b" \t\r") and not line.endswith(b"\r"))
blank_lines = st.sampled_from([b"", b" ", b"\t ", b"\r"])


def sent(
    body: bytes = b"",
    content_type: str | None = None,
    *headers: tuple[bytes, bytes],
    coding: str | None = None,
) -> Sent:
    return Sent(
        headers=headers,
        given=by_name(headers),
        content_type=content_type,
        body=body,
        coding=coding,
        received_at=NOON,
    )


def framed(
    body: bytes = b"", content_type: str | None = None, *headers: tuple[bytes, bytes]
) -> Framed:
    return frame(sent(body, content_type, *headers), numbered(), 1_000)


@given(st.lists(st.tuples(full_lines | blank_lines, st.sampled_from([b"\n", b"\r\n"]))), lines)
def test_a_line_is_a_payload_to_the_byte(parts: list[tuple[bytes, bytes]], last: bytes) -> None:
    """One byte more or less is another event, and a blank line is none."""
    body = b"".join(line + end for line, end in parts) + last
    everything = [*(line for line, _ in parts), last.removesuffix(b"\r")]
    full = [(n, line) for n, line in enumerate(everything, 1) if line.strip(b" \t\r")]

    found, numbers = split_lines(body)

    assert list(zip(numbers, found, strict=True)) == full


@given(st.binary(max_size=300))
def test_splitting_loses_nothing_but_line_ends_and_blanks(body: bytes) -> None:
    found, numbers = split_lines(body)

    blanks = b" \t\r\n"
    assert b"".join(found).translate(None, blanks) == body.translate(None, blanks)
    assert all(b"\n" not in line and line.strip(b" \t\r") for line in found)
    assert list(numbers) == sorted(set(numbers))


@pytest.mark.parametrize(
    "content_type",
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "Application/JSONL; x=y"],
)
def test_every_spelling_of_ndjson_is_a_batch(content_type: str) -> None:
    body = b'{"a":1}\n\n not json \r\n{"a":1}'

    found = framed(body, content_type, (b"x-kept", b"no"), (b"penstock-key", b"k"))

    assert found.batch
    assert [(e.id, e.payload, e.content_type, e.headers, e.key) for e in found.events] == [
        ("id-1", b'{"a":1}', "application/json", (), b"k"),
        ("id-2", b" not json ", "application/json", (), b"k"),
        ("id-3", b'{"a":1}', "application/json", (), b"k"),
    ]
    assert list(found.lines or ()) == [1, 3, 4]


def test_lines_get_their_numbers_added_to_the_key() -> None:
    """A repeated request must give every line the id it had."""
    found = framed(b"a\n\nb\n", "application/x-ndjson", (b"idempotency-key", b"up-7"))

    assert [event.id for event in found.events] == ["up-7:1", "up-7:3"]


def test_a_body_has_a_largest_count_of_lines() -> None:
    """16 MB of one-byte lines would become gigabytes of objects."""
    with pytest.raises(TooMany):
        split_lines(b"1\n" * (MOST_EVENTS + 1))

    assert len(split_lines(b"1\n" * MOST_EVENTS)[0]) == MOST_EVENTS


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'[{"a":1},{"a":2}]'),
        ("application/json", b'{"a":'),
        ("application/json", b"\n\n"),
        ("text/plain", b"one\ntwo\n"),
        ("application/cloudevents+xml", b"<event/>"),
        ("application/octet-stream", bytes(range(256))),
        ("\x00 no type at all", b"\xef\xbb\xbf{}"),
        (None, b""),
    ],
)
def test_everything_else_is_one_event(content_type: str | None, body: bytes) -> None:
    """The door does not judge payloads; an array is one event, and so is nothing."""
    found = framed(body, content_type, (b"x-kept", b"1"))

    (event,) = found.events
    assert (event.payload, event.content_type) == (body, content_type)
    assert event.headers == (("x-kept", b"1"),)
    assert not found.batch


def test_a_structured_cloudevent_is_its_own_payload() -> None:
    body = json.dumps({**LEAST, "time": "2025-11-24T16:00:00Z"}, indent=3).encode()

    (event,) = framed(body, "application/cloudevents+json; charset=utf-8", (b"x-a", b"1")).events

    assert (event.id, event.event_time, event.payload) == ("a-1", NOON, body)
    assert event.content_type == "application/cloudevents+json; charset=utf-8"
    assert event.headers == (("x-a", b"1"),)
    assert event.metadata["ce_type"] == "sailed"


def test_a_binary_cloudevent_keeps_body_type_and_headers() -> None:
    found = framed(b"\x00raw", "image/png", *CE_HEADERS, (b"ce-time", b"2025-11-24T16:00:00Z"))

    (event,) = found.events
    assert (event.id, event.event_time, event.payload) == ("a-1", NOON, b"\x00raw")
    assert event.content_type == "image/png"
    assert dict(event.headers)["ce-type"] == b"sailed"
    assert event.metadata["ce_source"] == "/ships"


def test_the_elements_of_a_batch_stand_alone() -> None:
    """One broken event is no reason to refuse its neighbours."""
    good = json.dumps(LEAST, indent=1).encode()
    body = b"[ " + good + b" , " + b'{"specversion":"1.0"}' + b"," + good + b"\n]"

    found = framed(body, "application/cloudevents-batch+json", (b"x-a", b"1"))

    assert [event.payload for event in found.events] == [good, good]
    assert {event.content_type for event in found.events} == {"application/cloudevents+json"}
    assert {event.headers for event in found.events} == {()}
    assert list(found.broken) == [1]
    assert isinstance(found.broken[1], Malformed)


def test_a_cloudevent_that_is_too_large_is_not_taken_apart() -> None:
    """Its attributes would become thirty times their size in memory."""
    large = json.dumps({**LEAST, "subject": "x" * 1_000}).encode()

    with pytest.raises(TooLarge):
        framed(large, "application/cloudevents+json")
    found = framed(b"[" + large + b"]", "application/cloudevents-batch+json")

    assert isinstance(found.broken[0], TooLarge)


@pytest.mark.parametrize(
    ("headers", "id_"),
    [
        ([(b"idempotency-key", b"i"), (b"penstock-event-id", b"p")], "i"),
        ([(b"penstock-event-id", b"p")], "p"),
        ([(b"idempotency-key", b""), (b"penstock-event-id", b"")], "id-1"),
        ([(b"idempotency-key", "ä".encode())], "ä"),
        ([(b"idempotency-key", b"\xff")], "ÿ"),
        ([*CE_HEADERS, (b"idempotency-key", b"i")], "a-1"),
    ],
)
def test_an_id_is_the_senders_if_there_is_one(headers: list[tuple[bytes, bytes]], id_: str) -> None:
    """Without it a repeated request is another event."""
    (event,) = framed(b"x", None, *headers).events

    assert event.id == id_


def test_a_senders_id_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadRequest, match="1,024"):
        framed(b"x", None, (b"idempotency-key", b"k" * 1_025))


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        (b"2025-11-24T16:00:00Z", NOON),
        (b"1764000000000", NOON),
        (b"soon", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_the_senders_time_is_read_if_it_can_be(value: bytes, micros: int | None) -> None:
    """A wrong time is flagged later; it never refuses an event."""
    for content_type in (None, "application/x-ndjson"):
        (event,) = framed(b"x", content_type, (b"penstock-event-time", value)).events
        assert event.event_time == micros


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"user-42", b"user-42"),
        (b"a%00%FFb", b"a\x00\xffb"),
        (b"100%", b"100%"),
        (b"\xc3\xa4", b"\xc3\xa4"),
        (b"", None),
    ],
)
def test_a_key_may_be_any_bytes(value: bytes, key: bytes | None) -> None:
    """Kafka keys are often binary, and a replay has to bring them back."""
    assert key_of({b"penstock-key": value}) == key


def test_the_coding_that_was_undone_is_told() -> None:
    """Among the headers it would be a lie in every replay; forgotten it would be lost."""
    (event,) = frame(sent(b"{}", coding="zstd"), numbered(), 1_000).events

    assert event.metadata == {"content_encoding": "zstd"}


def test_headers_are_stored_in_order_with_duplicates_and_without_secrets() -> None:
    """Tokens and cookies in a table are a leak; connection headers would break a replay."""
    headers = [
        (b"host", b"door:8080"),
        (b"x-b", b"2"),
        (b"authorization", b"Bearer secret"),
        (b"batch-token", b"secret"),
        (b"streamdal-token", b"secret"),
        (b"x-amz-firehose-access-key", b"secret"),
        (b"cookie", b"secret"),
        (b"set-cookie", b"secret"),
        (b"proxy-authorization", b"secret"),
        (b"proxy-connection", b"keep-alive"),
        (b"connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"secret"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"expect", b"100-continue"),
        (b"content-length", b"2"),
        (b"content-type", b"text/plain"),
        (b"content-encoding", b"gzip"),
        (b"x-a", b"\xff\x00"),
        (b"user-agent", b"test"),
        (b"x-b", b"1"),
        (b"x-\xe4", b""),
    ]

    assert stored(headers, by_name(headers)) == (
        ("x-b", b"2"),
        ("x-a", b"\xff\x00"),
        ("user-agent", b"test"),
        ("x-b", b"1"),
        ("x-ä", b""),
    )


def test_what_penstock_reads_of_the_headers_is_stored_with_them() -> None:
    """At another door a replay of it has the same key, id and time, and says where it came from."""
    headers = [
        (b"penstock-key", b"%00"),
        (b"penstock-event-id", b"e1"),
        (b"penstock-event-time", b"2025-11-24T16:00:00Z"),
        (b"idempotency-key", b"i1"),
        (b"penstock-collection", b"main.ships"),
        (b"penstock-replay-id", b"r1"),
        (b"penstock-attempt", b"2"),
        (b"penstock-received-at", b"2025-11-24T16:00:00Z"),
    ]

    kept = stored(headers, by_name(headers))

    assert kept == tuple((name.decode(), value) for name, value in headers)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(b"authorization", b"Bearer  t ")], "t"),
        ([(b"authorization", b"bearer t")], "t"),
        ([(b"batch-token", b"t")], "t"),
        ([(b"streamdal-token", b" t")], "t"),
        ([(b"authorization", b"Basic eDp5"), (b"batch-token", b"t")], "t"),
        ([(b"authorization", b"Basic eDp5")], None),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], "a, Bearer b"),
        ([], None),
    ],
)
def test_a_token_stands_in_one_of_three_headers(
    headers: list[tuple[bytes, bytes]], token: str | None
) -> None:
    """Two tokens in one request are none: a proxy may have looked at the other one."""
    assert token_of(by_name(headers)) == token
