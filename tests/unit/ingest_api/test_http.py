from __future__ import annotations

import asyncio
import gc
import gzip
import json
import random
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from builders import FLIGHTS, NOON
from door_builders import (
    BOUND,
    EXPIRED,
    OTHER_TEAM,
    READER,
    REVOKED,
    TOKEN,
    UNKNOWN,
    Client,
    FailingLog,
    Reply,
    client_on,
    door_on,
    until,
)
from structlog.testing import capture_logs

from ingest_api.auth import Keyring
from ingest_api.http import HttpDoor
from ingest_api.limits import Limits
from penstock import faults
from penstock.envelope import CollectionId, Event
from penstock.errors import LogDamaged, LogUnavailable, Overloaded

NDJSON = "application/x-ndjson"
CE_BATCH = "application/cloudevents-batch+json"
UGLY = {
    "nothing": b"",
    "line ends": b"\r\n\n\r",
    "every byte": bytes(range(256)),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "bad UTF-8": b'{"a":"\xc3"}',
    "a lone surrogate": b'{"a":"\\ud800"}',
    "NaN": b'{"a":NaN}',
    "duplicate keys": b'{"a":1,"a":2}',
    "spaces": b' {\t"a" : 1.0000 }\n',
    "half a document": b'{"a":',
    "depth": b"[" * 500 + b"]" * 500,
    "a gzip file": gzip.compress(b"x"),
    "something like HTTP": b"POST / HTTP/1.1\r\n\r\n",
}


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """Switch every fault point off again."""
    yield
    faults.arm(None)


@pytest.mark.parametrize("name", UGLY)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_an_ugly_body_is_stored_to_the_byte(name: str, content_type: str) -> None:
    """The payload is what a replay sends; the door never judges it."""
    log = FailingLog()

    reply = client_on(door_on(log)).post(UGLY[name], content_type=content_type)

    assert reply.status == 202
    assert log.payloads == [UGLY[name]]


def test_one_event_is_answered_with_its_id_and_its_place() -> None:
    log = FailingLog()

    reply = client_on(door_on(log)).post(b"{}", content_type="application/json", x_a="1")

    assert reply.json() == {"accepted": 1, "ids": ["id-1"], "positions": [[0, 0, 1]]}
    assert reply.headers["content-type"] == "application/json"
    ((collection, event),) = log.stored
    assert collection == FLIGHTS
    assert event == Event(
        id="id-1",
        received_at=event.received_at,
        payload=b"{}",
        source="http",
        content_type="application/json",
        headers=(("x-a", b"1"),),
    )
    assert event.received_at >= NOON


def test_a_body_in_pieces_is_one_body() -> None:
    log = FailingLog()

    client_on(door_on(log)).post([b"{", b"", b'"a":', b"1}"])

    assert log.payloads == [b'{"a":1}']


@pytest.mark.parametrize(
    ("path", "collection"),
    [
        ("/v1/events/flights", "main.flights"),
        ("/v1/events/main.flights", "main.flights"),
        ("/v1/events/ships", "main.ships"),
    ],
)
def test_the_address_names_the_collection(path: str, collection: str) -> None:
    log = FailingLog()

    client_on(door_on(log)).post(b"x", path)

    assert [str(id_) for id_, _ in log.stored] == [collection]


def test_a_bare_name_is_one_of_the_tokens_team() -> None:
    """Read in the default team it would be somebody else's, and never found."""
    log = FailingLog()

    client_on(door_on(log)).post(b"x", "/v1/events/theirs", token=OTHER_TEAM)

    assert [id_ for id_, _ in log.stored] == [CollectionId("other", "theirs")]


def test_lines_are_answered_in_short_when_all_are_stored() -> None:
    """A thousand outcomes that all say the same cost more than the events."""
    log = FailingLog()

    reply = client_on(door_on(log)).post(b"a\nb\n\nc\n", content_type=NDJSON)

    assert reply.status == 202
    assert reply.json() == {
        "accepted": 3,
        "ids": ["id-1", "id-2", "id-3"],
        "positions": [[0, 0, 3]],
    }


def test_one_oversized_line_does_not_refuse_the_others() -> None:
    """Refusing the whole batch would make the sender repeat it for ever."""
    log = FailingLog()
    body = b"good\n\n" + b"x" * 1_001 + b"\nalso good\n"

    reply = client_on(door_on(log)).post(body, content_type=NDJSON, idempotency_key="k")

    assert reply.status == 202
    assert reply.json() == {
        "accepted": 2,
        "ids": ["k:1", "k:4"],
        "positions": [[0, 0, 2]],
        "outcomes": [
            {"status": 202, "id": "k:1", "line": 1, "position": [0, 0]},
            {
                "status": 413,
                "id": "k:3",
                "line": 3,
                "type": "urn:penstock:too-large",
                "title": "Too large",
                "detail": "the event has 1,001 bytes or more, the limit is 1,000",
            },
            {"status": 202, "id": "k:4", "line": 4, "position": [0, 1]},
        ],
    }
    assert log.payloads == [b"good", b"also good"]


def test_a_batch_of_which_nothing_is_stored_is_the_worst_error() -> None:
    """202 would say that something was accepted, and 413 that repeating cannot help."""
    log = FailingLog(broken={b"bad": LogUnavailable("no answer", retry_after=7)})

    reply = client_on(door_on(log)).post(b"x" * 1_001 + b"\nbad\n", content_type=NDJSON)

    assert reply.status == 503
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["content-type"] == "application/problem+json"
    assert [outcome["status"] for outcome in reply.json()["outcomes"]] == [413, 503]
    assert not log.stored


def test_a_batch_without_events_stores_nothing_and_is_no_error() -> None:
    """Senders flush empty buffers."""
    log = FailingLog()

    reply = client_on(door_on(log)).post(b"\n\r\n", content_type=NDJSON)

    assert (reply.status, reply.json()["accepted"]) == (202, 0)
    assert not log.stored


def test_a_broken_cloudevent_in_a_batch_is_named() -> None:
    log = FailingLog()
    good = {"specversion": "1.0", "id": "a", "source": "s", "type": "t"}
    body = json.dumps([{"specversion": "1.0"}, good]).encode()

    reply = client_on(door_on(log)).post(body, content_type=CE_BATCH)

    assert reply.status == 202
    assert [outcome["status"] for outcome in reply.json()["outcomes"]] == [400, 202]
    assert log.events[0].id == "a"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/cloudevents+json", b'{"specversion":"1.0"}'),
        (CE_BATCH, b"{}"),
        (CE_BATCH, b'[{"specversion":"1.0"}]'),
    ],
)
def test_broken_framing_is_400(content_type: str, body: bytes) -> None:
    log = FailingLog()

    reply = client_on(door_on(log)).post(body, content_type=content_type)

    assert reply.status == 400
    assert reply.json()["title"] == "Malformed"
    assert not log.stored


@pytest.mark.parametrize(
    ("given", "status", "title"),
    [
        ({"token": None}, 401, "Unauthorized"),
        ({"token": UNKNOWN}, 401, "Unauthorized"),
        ({"token": READER}, 403, "Forbidden"),
        ({"token": BOUND, "path": "/v1/events/ships"}, 403, "Forbidden"),
        ({"path": "/v1/events/trains"}, 404, "Not found"),
        ({"path": "/v1/events/other.theirs"}, 404, "Not found"),
        ({"path": "/v1/events/NO"}, 400, "Bad name"),
        ({"path": "/v1/events/paused"}, 409, "Collection paused"),
        ({"path": "/v1/collection"}, 400, "Bad request"),
        ({"path": "/v1/events/"}, 404, "Not found"),
        ({"path": "/v1/events/a/b"}, 404, "Not found"),
        ({"path": "/v1/kinesis"}, 404, "Not found"),
        ({"method": "GET"}, 405, "Method not allowed"),
        ({"method": "HEAD", "path": "/v1/collection"}, 405, "Method not allowed"),
        ({"content_encoding": "br"}, 415, "Unknown encoding"),
        ({"content_length": "200001"}, 413, "Too large"),
        ({"content_length": "1_0"}, 400, "Malformed"),
        ({"content_length": "9" * 30}, 400, "Malformed"),
        ({"penstock_collection": "main.flights"}, 409, "Loop"),
        ({"penstock_collection": "main.ships, main.flights"}, 409, "Loop"),
    ],
)
def test_what_can_be_refused_early_is_refused_before_the_body(
    given: dict[str, Any], status: int, title: str
) -> None:
    """Reading a body that nobody wants costs memory, and the sender its bandwidth."""
    log = FailingLog()
    client = client_on(door_on(log))

    reply = client.post(b"payload", **given)

    assert (reply.status, reply.json()["title"], reply.json()["status"]) == (status, title, status)
    assert reply.headers["content-type"] == "application/problem+json"
    assert client.pieces_read == 0
    assert not log.stored


def test_a_collection_that_allows_loops_takes_its_own_events_back() -> None:
    """Its owner decided so; others are refused, see above."""
    log = FailingLog()

    reply = client_on(door_on(log)).post(
        b"again", "/v1/events/echo", penstock_collection="main.echo"
    )

    assert reply.status == 202
    assert log.payloads == [b"again"]


def test_a_wrong_token_of_any_kind_gets_the_same_answer() -> None:
    """A difference would say which tokens were real."""
    client = client_on(door_on(FailingLog()))

    replies = [client.post(b"x", token=token) for token in (None, UNKNOWN, REVOKED, EXPIRED, "x")]

    assert {(reply.status, reply.body) for reply in replies} == {(401, replies[0].body)}
    assert replies[0].headers["www-authenticate"] == "Bearer"


def test_a_token_in_the_query_string_is_none() -> None:
    """Addresses are logged by every proxy on the way."""
    client = client_on(door_on(FailingLog()))

    assert client.post(b"x", f"/v1/events/flights?token={TOKEN}", token=None).status == 401


@pytest.mark.parametrize("header", ["batch_token", "streamdal_token"])
def test_the_tokens_of_batch_clients_are_understood(header: str) -> None:
    reply = client_on(door_on(FailingLog())).post(b"x", token=None, **{header: TOKEN})

    assert reply.status == 202


def test_batchs_own_route_answers_as_batch_did() -> None:
    """Its clients compare nothing else, and are not going to be changed."""
    log = FailingLog()
    client = client_on(door_on(log))

    reply = client.post(
        b"a\nb\n", "/v1/collection", token=None, batch_token=BOUND, content_type=NDJSON
    )

    assert reply.status == 200
    assert reply.body == b'{"message":"event has been successfully collected"}'
    assert [(id_, event.payload) for id_, event in log.stored] == [(FLIGHTS, b"a\nb\n")]
    assert client.post(b"", "/v1/collection", token=None, batch_token=UNKNOWN).status == 401
    assert client.post(b"x" * 1_001, "/v1/collection", token=BOUND).status == 413


def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    """A sender in pieces does not say its length."""
    client = client_on(door_on(FailingLog()))

    reply = client.post([b"x" * 100_000] * 9)

    assert reply.status == 413
    assert client.pieces_read == 3


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_coded_body_is_stored_as_it_was_before(coding: str) -> None:
    log = FailingLog()
    coded = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[coding](b"{}")

    reply = client_on(door_on(log)).post(coded, content_encoding=coding)

    assert reply.status == 202
    (event,) = log.events
    assert (event.payload, event.metadata) == (b"{}", {"content_encoding": coding})


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["bomb", "cut"])
def test_bombs_and_cut_streams_are_refused(coding: str, damage: str) -> None:
    log = FailingLog()
    compress = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[coding]
    body = compress(bytes(20 << 20)) if damage == "bomb" else compress(b"whole")[:-3]

    reply = client_on(door_on(log)).post(body, content_encoding=coding)

    assert reply.status == {"bomb": 413, "cut": 400}[damage]
    assert not log.stored


def test_a_refused_coding_says_which_are_known() -> None:
    reply = client_on(door_on(FailingLog())).post(b"x", content_encoding="br")

    assert reply.headers["accept-encoding"] == "gzip, zstd"


@pytest.mark.parametrize(
    "error",
    [
        LogUnavailable("disk full", retry_after=3),
        Overloaded("too much is waiting"),
        LogDamaged("a record cannot be read back"),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
def test_a_log_that_fails_is_503_and_never_202(error: Exception, content_type: str) -> None:
    """The one promise of the door."""
    reply = client_on(door_on(FailingLog(error=error))).post(b"{}", content_type=content_type)

    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1


def test_a_token_that_sends_too_fast_is_told_when_to_come_back() -> None:
    client = client_on(door_on(FailingLog(), limits=Limits(1_000, 1_000, 20, events_per_second=1)))

    assert client.post(b"a").status == 202
    reply = client.post(b"b")
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")


def test_a_log_that_never_answers_is_503() -> None:
    """The disk hangs without an error; the sender is told to come back, not left to wait."""
    log = FailingLog(held=True)

    reply = Client(HttpDoor(door_on(log), max_held_bytes=1 << 20, log_seconds=0.05)).post(b"x")

    assert (reply.status, reply.json()["title"]) == (503, "Log unavailable")
    assert "0.05 seconds" in reply.detail
    log.release()


def test_nothing_is_answered_before_the_log_is_done() -> None:
    """An acknowledgement of what is still in memory is a lost event at the next power cut."""
    log = FailingLog(held=True)
    client = client_on(door_on(log))

    async def scenario() -> tuple[bool, Reply | None]:
        call = asyncio.ensure_future(client.call(b"x"))
        await until(lambda: len(log.waiting) == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        early = call.done()
        # The log finishes its futures in a thread of its own.
        thread = threading.Thread(target=log.release)
        thread.start()
        reply = await call
        thread.join()
        return early, reply

    early, reply = asyncio.run(scenario())

    assert not early
    assert reply is not None
    assert reply.status == 202


def test_many_requests_are_answered_by_one_waking_each_with_its_own() -> None:
    """The log finishes them together; an answer that went to another request would be a lie."""
    log = FailingLog(held=True)
    client = client_on(door_on(log))

    async def scenario() -> list[Reply | None]:
        calls = [asyncio.ensure_future(client.call(b"%d" % n)) for n in range(50)]
        await until(lambda: len(log.waiting) == len(calls))
        thread = threading.Thread(target=log.release)
        thread.start()
        replies = await asyncio.gather(*calls)
        thread.join()
        return replies

    replies = asyncio.run(scenario())

    by_id = {event.id: event.payload for event in log.events}
    told = [by_id[reply.json()["ids"][0]] for reply in replies if reply]
    assert told == [b"%d" % n for n in range(50)]


def test_a_waiter_that_was_given_up_hurts_nobody() -> None:
    """A cancelled request must not keep the others from their answers."""
    log = FailingLog(held=True)
    client = client_on(door_on(log))

    async def scenario() -> Reply | None:
        gone = asyncio.ensure_future(client.call(b"gone"))
        stays = asyncio.ensure_future(client.call(b"stays"))
        await until(lambda: len(log.waiting) == 2)
        gone.cancel()
        await asyncio.sleep(0)
        log.release()
        return await stays

    reply = asyncio.run(scenario())

    assert reply is not None
    assert reply.status == 202
    assert log.payloads == [b"gone", b"stays"]


def test_a_client_that_leaves_within_its_body_stores_nothing() -> None:
    """Half a body is not what was meant."""
    log = FailingLog()
    client = client_on(door_on(log))

    assert asyncio.run(client.call([b"half", b"more"], disconnect=True)) is None
    assert not log.stored
    assert client.post(b"next").status == 202


def test_bodies_that_arrive_together_are_bounded() -> None:
    """A thousand slow uploads of 16 MB would otherwise be 16 GB."""
    log = FailingLog()
    client = client_on(door_on(log), max_held_bytes=10)

    reply = client.post([b"x" * 6, b"x" * 6])

    assert reply.status == 503
    assert reply.headers["retry-after"] == "1"
    assert not log.stored
    assert [client.post(b"x" * 10).status for _ in range(3)] == [202] * 3


def test_bodies_that_were_refused_are_gone_at_once() -> None:
    """They are refused because there is too much; the collector may come a minute later."""
    client = client_on(door_on(FailingLog(error=Overloaded("too much is waiting"))))
    body = [b"%d\n" % number * 90 for number in range(300)]

    async def scenario() -> None:
        for _ in range(5):
            reply = await client.call(body, headers=[(b"content-type", NDJSON.encode())])
            assert reply is not None
            assert reply.status == 503

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        asyncio.run(scenario())
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()

    assert left < 1_000_000


def test_bytes_held_are_let_go_after_every_kind_of_end() -> None:
    """A leak here would close the door after a while."""
    client = client_on(door_on(FailingLog()), max_held_bytes=1_000)
    for _ in range(5):
        client.post(b"x" * 900, content_encoding="gzip")
        client.post(b"x" * 900, content_type="application/cloudevents+json")
        client.post([b"x" * 900, b"x" * 900])
        asyncio.run(client.call([b"x" * 900], disconnect=True))

    assert client.post(b"x" * 900).status == 202


@pytest.mark.parametrize("point", ["recv", "parsed"])
def test_what_breaks_before_the_log_stores_nothing(point: str) -> None:
    log = FailingLog()
    client = client_on(door_on(log))
    faults.arm(f"{point}:1:raise")

    assert client.post(b"x").status == 500
    assert not log.stored


def test_what_breaks_before_the_answer_is_no_success() -> None:
    """The event is stored and nobody knows: the sender repeats it, and landing folds it."""
    log = FailingLog()
    client = client_on(door_on(log))
    faults.arm("before_ack:1:raise")

    assert client.post(b"x").status == 500
    assert log.payloads == [b"x"]


def test_an_unexpected_error_tells_nothing_and_is_logged_without_the_payload() -> None:
    """The text of an error may quote what it was raised for."""
    log = FailingLog(error=ValueError("canary in the text"))

    with capture_logs() as logged:
        reply = client_on(door_on(log)).post(b"canary in the payload")

    assert reply.status == 500
    assert reply.json()["detail"] == "something went wrong; the log says what"
    assert b"canary" not in reply.body
    assert [entry["kind"] for entry in logged] == ["ValueError", "ValueError"]
    assert "canary" not in repr(logged)
    assert TOKEN not in repr(logged)


def test_a_door_that_knows_no_tokens_yet_asks_to_wait() -> None:
    """401 would make relays drop what they hold."""
    reply = client_on(door_on(FailingLog(), keyring=Keyring())).post(b"x")

    assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_no_bytes_at_all_are_a_server_error() -> None:
    """Whatever comes is accepted, or refused by name."""
    chance = random.Random(20)
    client = client_on(door_on(FailingLog()))
    types = [NDJSON, CE_BATCH, "application/cloudevents+json", "application/json", "\x00", ""]
    codings = ["", "gzip", "zstd", "identity", "x"]
    seeds = [b"", b"{", b"[", b'{"specversion":"1.0",', gzip.compress(b"{}"), b"\x28\xb5\x2f\xfd"]

    statuses = set()
    for _ in range(300):
        reply = client.post(
            chance.choice(seeds) + chance.randbytes(chance.randrange(1_200)),
            chance.choice(["/v1/events/flights", "/v1/collection"]),
            token=BOUND,
            content_type=chance.choice(types),
            content_encoding=chance.choice(codings),
            idempotency_key=chance.randbytes(3).decode("latin-1"),
            penstock_key=chance.randbytes(3).decode("latin-1"),
            penstock_event_time=chance.randbytes(3).decode("latin-1"),
            **{
                chance.choice(["ce_specversion", "ce_id", "x"]): chance.randbytes(2).decode(
                    "latin-1"
                )
            },
        )
        statuses.add(reply.status)

    assert statuses <= {200, 202, 400, 413, 415}
    assert {200, 202, 400} <= statuses


def test_refusals_are_counted_once() -> None:
    log = FailingLog()
    door = door_on(log)
    client = client_on(door)
    value = door.metrics.registry.get_sample_value

    client.post(b"x", token=UNKNOWN)
    client.post(b"x" * 1_001)
    client.post(json.dumps([{"specversion": "1.0"}]).encode(), content_type=CE_BATCH)
    log.error = LogUnavailable("disk full")
    client.post(b"x")

    for reason in ("Unauthorized", "TooLarge", "Malformed", "LogUnavailable"):
        assert value("penstock_door_refused_total", {"reason": reason}) == 1, reason
