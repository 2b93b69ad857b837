"""Bodies of events that bring their envelopes: what a door believes of them, and what not."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from builders import NOON
from door_builders import BOUND, OTHER_TEAM, READER, TOKEN, FailingLog, Reply, client_on, door_on
from hypothesis import given
from hypothesis import strategies as st

from ingest_api import enveloped as module
from penstock.envelope import ENVELOPES, Enveloped
from penstock.errors import LogUnavailable

HERE = (("penstock-collection", b"main.flights"),)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
envelopes = st.builds(
    Enveloped,
    payload=st.binary(max_size=200),
    id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50),
    content_type=st.none() | st.text("abc/;", min_size=1),
    key=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=5).map(tuple),
    metadata=st.dictionaries(texts.filter(lambda name: not name.startswith("penstock")), texts),
    event_time=st.none() | st.integers(-(10**15), 10**16),
)


def post(
    log: FailingLog,
    *events: Enveloped | Mapping[str, object],
    path: str = "/v1/events/flights",
    token: str = TOKEN,
    **headers: str,
) -> Reply:
    body = msgspec.msgpack.encode(events)
    return client_on(door_on(log)).post(body, path, token=token, content_type=ENVELOPES, **headers)


@given(sent=st.lists(envelopes, max_size=5))
def test_what_was_sent_is_stored_as_it_was_sent(sent: list[Enveloped]) -> None:
    """Order, bytes and duplicates of headers; time of receipt and source are the door's."""
    log = FailingLog()

    reply = post(log, *sent)

    assert (reply.status, reply.json()["accepted"]) == (202, len(sent))
    assert [
        Enveloped(
            payload=each.payload,
            id=each.id,
            content_type=each.content_type,
            key=each.key,
            headers=each.headers,
            metadata=each.metadata,
            event_time=each.event_time,
        )
        for each in log.events
    ] == sent
    assert all(each.named and each.source == "http" for each in log.events)
    assert all(each.received_at >= NOON and not each.quarantine for each in log.events)


def test_an_event_without_an_id_gets_one() -> None:
    """Of the request's key, so that a request that is sent again brings nothing new."""
    log = FailingLog()
    post(log, Enveloped(payload=b"1"), Enveloped(payload=b"2", id="mine"))
    post(log, Enveloped(payload=b"1"), Enveloped(payload=b"2"), idempotency_key="k")

    assert [(each.id, each.named) for each in log.events] == [
        ("id-1", False),
        ("mine", True),
        ("k:1", True),
        ("k:2", True),
    ]


def test_a_sender_cannot_say_what_landing_says() -> None:
    """Metadata of a release would close other people's quarantined events."""
    log = FailingLog()

    post(log, Enveloped(payload=b"{}", metadata={"penstock_release": "r1", "topic": "t"}))

    assert [each.metadata for each in log.events] == [{"topic": "t"}]


def test_a_time_that_no_reader_can_show_is_left_out() -> None:
    log = FailingLog()

    post(log, Enveloped(payload=b"{}", event_time=2**62), Enveloped(payload=b"{}", event_time=5))

    assert [each.event_time for each in log.events] == [None, 5]


def test_only_what_was_taken_from_this_collection_is_refused() -> None:
    """One event of a batch that came back must not stop the others."""
    log = FailingLog()
    batch = (
        Enveloped(payload=b"1", headers=HERE),
        Enveloped(payload=b"2", headers=(("penstock-collection", b"main.ships"),)),
        Enveloped(payload=b"3", headers=(("Penstock-Collection", b"main.flights"),)),
    )

    parts = post(log, *batch).json()["outcomes"]

    assert [part["status"] for part in parts] == [409, 202, 409]
    assert log.payloads == [b"2"]
    echo = Enveloped(payload=b"4", headers=(("penstock-collection", b"main.echo"),))
    assert post(log, echo, path="/v1/events/echo").status == 202


def test_each_event_has_its_outcome() -> None:
    log = FailingLog(broken={b"lost": LogUnavailable("away")})
    batch = (
        Enveloped(payload=b"x" * 2_000, id="large"),
        {"payload": b"1", "source": "mine"},
        {"id": "without a payload"},
        Enveloped(payload=b"2", id="i" * 2_000),
        Enveloped(payload=b"lost", id="lost"),
        Enveloped(payload=b"good", id="good"),
    )

    parts = post(log, *batch).json()["outcomes"]

    assert [part["status"] for part in parts] == [413, 400, 400, 400, 503, 202]
    assert log.payloads == [b"good"]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"{}", b"\x92\x80", b"\xdd\x00\x00", b"\x81\xa1a\x01"]
)
def test_what_is_no_list_is_refused(body: bytes) -> None:
    log = FailingLog()

    assert client_on(door_on(log)).post(body, content_type=ENVELOPES).status == 400
    assert log.events == []


def test_a_body_that_says_it_has_very_many_events_is_not_read() -> None:
    body = b"\xdd\xff\xff\xff\xff" + b"\x80" * 1_000

    assert client_on(door_on(FailingLog())).post(body, content_type=ENVELOPES).status == 413


def test_headers_are_counted_over_all_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bytes of a body are a header, and a header is a hundred bytes of memory."""
    monkeypatch.setattr(module, "MOST_ENTRIES", 5)
    log = FailingLog()
    three = Enveloped(payload=b"{}", headers=(("", b""),) * 3)

    assert post(log, three).status == 202
    assert post(log, three, three).status == 400
    assert len(log.events) == 1


def test_an_event_beside_which_much_more_stands_is_not_read() -> None:
    event = Enveloped(payload=b"{}", metadata={"a": "x" * 150_000})
    limit = module.ENVELOPE_BYTES
    assert limit > 150_000
    [told] = module.enveloped(msgspec.msgpack.encode([event]), most=1, max_event_bytes=100 - limit)
    assert not isinstance(told, Enveloped)


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (READER, "/v1/events/flights", 403),
        (BOUND, "/v1/events/ships", 403),
        (OTHER_TEAM, "/v1/events/main.flights", 404),
        ("pst_x", "/v1/events/flights", 401),
        (TOKEN, "/v1/events/paused", 409),
        (TOKEN, "/v1/events/other.theirs", 404),
    ],
)
def test_no_batch_goes_where_an_event_could_not(token: str, path: str, status: int) -> None:
    log = FailingLog()

    assert post(log, Enveloped(payload=b"{}"), token=token, path=path).status == status
    assert post(log, token=token, path=path).status == status
    assert log.events == []
