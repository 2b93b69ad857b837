"""Every target keeps the promise of `replay.targets.Target`; each kind keeps some of its own."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_network

import pytest
import ugly
from builders import FLIGHTS, NOON, event
from far_sides import FarSide, Took, far_side
from far_sides import sent as sent_to
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from receiving import Receiver, Reply, Request, receiving

from penstock.envelope import Event, Position
from penstock.errors import AddressRefused, BadRequest
from penstock.guard import Endpoint, Guard
from replay.targets import ADDED, Delivered, Failed, Message, Outcome, Retry, Target
from replay.targets.http import NOT_FORWARDED, HttpTarget, retry_after
from replay.targets.kafka import KafkaTarget
from replay.targets.opening import open_target

HERE = ip_network("127.0.0.1/32")


def guard_for(receiver: Receiver) -> Guard:
    return Guard(allow_networks=(HERE,), allow_ports=(receiver.port,))


def http(receiver: Receiver, **options) -> HttpTarget:
    return HttpTarget(
        options.pop("url", receiver.url),
        guard=options.pop("guard", guard_for(receiver)),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
        **options,
    )


def sent(target: HttpTarget, *events: Event, attempt: int = 1) -> list[Outcome]:
    """Send the events one after the other; answer their outcomes."""

    async def main() -> list[Outcome]:
        try:
            outcomes: list[Outcome] = []
            for number, each in enumerate(events):
                outcomes += await target.send([Message(each, Position(0, number), attempt)])
            return outcomes
        finally:
            await target.close()

    return asyncio.run(main())


def answering(reply: Reply, *events: Event, **options) -> tuple[list[Outcome], list[Request]]:
    """Send events (one, unless some are given) to a server that answers each like this."""
    with receiving(lambda _: reply) as receiver:
        outcomes = sent(http(receiver, **options), *(events or [event(b"{}")]))
    return outcomes, receiver.requests


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_is_delivered(status: int) -> None:
    """Any 2xx is the destination's word that it has the event."""
    outcomes, _ = answering(Reply(status))

    assert outcomes == [Delivered(status)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 415, 422])
def test_a_refusal_is_failed_for_good(status: int) -> None:
    """The same event would be refused again."""
    outcomes, _ = answering(Reply(status))

    assert outcomes == [Failed(f"answered {status}", status)]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_trouble_that_may_pass_is_a_retry(status: int) -> None:
    """These say nothing about the event, only about the moment."""
    outcomes, _ = answering(Reply(status))

    assert outcomes == [Retry(f"answered {status}", status)]


def test_the_wish_to_be_left_alone_is_told() -> None:
    """The sender has to know for how long."""
    outcomes, _ = answering(Reply(429, (("Retry-After", "120"),)))

    assert outcomes == [Retry("answered 429", 429, 120.0)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is an address that somebody else chose."""
    with receiving() as elsewhere, receiving() as receiver:
        receiver.answer = lambda _: Reply(status, (("Location", elsewhere.url),))
        guard = Guard((HERE,), (receiver.port, elsewhere.port))
        outcomes = sent(http(receiver, guard=guard), event(b"{}"))

    assert outcomes == [Failed(f"answered {status}; redirects are not followed", status)]
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("hang", "no answer in time"),
        ("reset", "the connection broke"),
        ("garbage", "the answer is not HTTP"),
    ],
)
def test_no_answer_is_a_retry(how, reason: str) -> None:
    """Whether the destination has the event is not known, so it is sent again."""
    outcomes, requests = answering(Reply(how=how), timeout=0.5)

    assert outcomes == [Retry(reason)]
    assert len(requests) == 1, "and the target itself does not try again"


@pytest.mark.parametrize("how", ["slow body", "break off", "endless body"])
@pytest.mark.parametrize(("status", "kind"), [(200, Delivered), (500, Retry), (400, Failed)])
def test_the_status_decides_whatever_comes_behind_it(how, status: int, kind: type) -> None:
    """The body of an answer is read so that the connection can go on, and for nothing else."""
    [outcome], _ = answering(Reply(status, how=how), timeout=0.6)

    assert isinstance(outcome, kind)
    assert outcome.status == status


def test_a_closed_port_is_a_retry() -> None:
    """A destination that is being restarted comes back."""
    with receiving() as receiver:
        pass
    [outcome] = sent(http(receiver), event(b"{}"))

    assert outcome == Retry("no connection")


def test_a_host_without_address_is_a_retry() -> None:
    """Name servers have bad moments too."""

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    target = HttpTarget(
        "http://nobody.example/",
        guard=Guard(),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
        lookup=lookup,
    )
    assert sent(target, event(b"{}")) == [Retry("the host was not found")]


UGLY = [
    b"",
    b"{}",
    b"not json",
    bytes(range(256)),
    b"\xff\xfe" * 100,
    b"\r\n\r\n",
    "ein Flug nach Zürich".encode(),
    b'{"a": 1, "a": 2}',
    b"x" * (1 << 20),
]


@pytest.mark.parametrize("headers", ["add", "verbatim"])
def test_bytes_and_content_type_arrive_as_they_were_received(headers) -> None:
    """Byte for byte is what a replay is for."""
    types = ["application/json", None, "text/plain; charset=latin-1", "application/octet-stream"]
    events = [event(body, content_type=kind) for body in UGLY for kind in types]

    outcomes, requests = answering(Reply(), *events, headers=headers)

    assert outcomes == [Delivered(200)] * len(events)
    assert [request.body for request in requests] == [each.payload for each in events]
    assert [r.header("content-type") for r in requests] == [e.content_type for e in events]


def test_added_headers_say_what_is_replayed() -> None:
    """A receiver can tell a replay from the original, and a repeat from a first time."""
    with receiving() as receiver:
        sent(http(receiver), event(b"{}", id="e-7", received_at=NOON + 1), attempt=3)
    [request] = receiver.requests

    assert {name: request.header(name) for name in ADDED} == {
        "penstock-replay-id": "r1",
        "penstock-event-id": "e-7",
        "penstock-collection": "main.flights",
        "penstock-attempt": "3",
        "penstock-received-at": "2025-11-24T16:00:00.000001Z",
    }


def test_verbatim_adds_nothing_but_what_frames_the_message() -> None:
    """Not a user agent, not what is accepted: the receiver sees what the door saw."""
    _, requests = answering(Reply(), event(b"{}", content_type=None), headers="verbatim")

    assert [name.lower() for name in requests[0].names()] == ["host", "content-length"]


def test_original_headers_arrive_in_order_with_duplicates() -> None:
    """Signatures and trace ids are worth nothing when they change."""
    headers = (
        ("X-One", b"1"),
        ("x-two", b""),
        ("X-ONE", b"another"),
        ("User-Agent", b"door/1"),
        ("x-umlaut", "Zürich".encode()),
        ("X-One", b"third"),
        ("accept", b"text/html"),
    )
    _, requests = answering(Reply(), event(b"{}", headers=headers), headers="verbatim")

    kept = [(name, v) for name, v in requests[0].headers if name.lower() not in _FRAMING]
    assert kept == [(name.encode(), value) for name, value in headers]


_FRAMING = {b"host", b"content-length", b"content-type"}


def test_headers_of_a_connection_and_credentials_are_not_forwarded() -> None:
    """A smuggled Transfer-Encoding is an attack, a forwarded Authorization a leak."""
    headers = [(name, b"whatever") for name in sorted(NOT_FORWARDED)]
    headers += [(name.title(), b"whatever") for name in sorted(NOT_FORWARDED)]
    headers += [("connection", b"close, X-Gone"), ("x-gone", b"1"), ("x-stays", b"1")]

    for mode in ("add", "verbatim"):
        outcomes, [request] = answering(
            Reply(), event(b"{}", content_type=None, headers=tuple(headers)), headers=mode
        )
        assert outcomes == [Delivered(200)]
        assert request.header("x-stays") == "1"
        names = {name.lower() for name in request.names()} - {"host", "content-length"}
        assert names & (NOT_FORWARDED | {"x-gone"}) == set()
        assert request.body == b"{}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bad name", b"1"),
        ("", b"1"),
        ("x:y", b"1"),
        ("x\r\ny", b"1"),
        ("naïve", b"1"),
        ("x-break", b"a\r\nInjected: 1"),
        ("x-nul", b"a\x00b"),
        ("x-latin", "Zürich".encode("latin-1")),
    ],
)
def test_what_http_cannot_carry_is_left_out_and_the_event_still_goes(name, value) -> None:
    """A Kafka header may be anything; that must neither inject a line nor stop the event."""
    headers = ((name, value), ("x-stays", b"1"))
    outcomes, [request] = answering(Reply(), event(b"{}", headers=headers))

    assert outcomes == [Delivered(200)]
    assert request.header("x-stays") == "1"
    assert request.header("injected") is None
    assert len(request.headers) == 4 + len(ADDED)


def test_an_id_or_type_that_http_cannot_carry_does_not_stop_the_event() -> None:
    """Ids are the senders' choice; one with a line break must not fail, or inject, anything."""
    odd = event(b"{}", id="a\r\nb: c", content_type="x\ny")
    outcomes, [request] = answering(Reply(), odd)

    assert outcomes == [Delivered(200)]
    assert request.header("penstock-event-id") is None
    assert request.header("content-type") is None
    assert request.header("b") is None


def test_a_destinations_headers_win_over_the_events() -> None:
    """Its credentials belong to it; an event must not bring others."""
    own = (("Authorization", "Bearer abc"), ("X-Api-Key", "k1"), ("X-Api-Key", "k2"))
    headers = (("x-api-key", b"old"), ("x-other", b"1"))
    _, [request] = answering(Reply(), event(b"{}", headers=headers), own_headers=own)

    assert request.header("authorization") == "Bearer abc"
    keys = [value for name, value in request.headers if name.lower() == b"x-api-key"]
    assert keys == [b"k1", b"k2"]
    assert request.header("x-other") == "1"


@pytest.mark.parametrize(
    "header",
    [
        ("Host", "a"),
        ("content-length", "3"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Penstock-Attempt", "1"),
        ("bad name", "x"),
        ("x", "a\r\nb"),
        ("x", "\ud800"),
    ],
)
def test_a_destination_cannot_set_what_frames_the_message(header: tuple[str, str]) -> None:
    """Found when the destination is made, not when a million events fail."""
    with receiving() as receiver, pytest.raises(BadRequest):
        http(receiver, own_headers=(header,))


def test_connections_are_used_again() -> None:
    """A connection per event would cost more than the event."""
    with receiving(lambda _: Reply(200, body=b"x" * 1000)) as receiver:
        sent(http(receiver), *[event(b"{}")] * 20)

    assert receiver.connections == 1


def test_an_answer_longer_than_64_kb_costs_its_connection() -> None:
    """Nobody makes a replay read without end, and an unread rest must not be the next answer."""
    with receiving(lambda _: Reply(200, body=b"x" * 200_000)) as receiver:
        outcomes = sent(http(receiver), *[event(b"{}")] * 3)

    assert outcomes == [Delivered(200)] * 3
    assert receiver.connections == 3


def test_an_answer_that_comes_too_late_is_not_that_of_the_next_event() -> None:
    """What was delivered would be told of an event that was not."""

    def answer(request: Request) -> Reply:
        return Reply(how="hang") if request.body == b"slow" else Reply(204)

    with receiving(answer) as receiver:
        outcomes = sent(http(receiver, timeout=0.3), event(b"slow"), event(b"{}"))

    assert outcomes == [Retry("no answer in time"), Delivered(204)]
    assert receiver.connections == 2


def test_an_answer_before_the_event_is_written_costs_its_connection() -> None:
    """The rest of that event would stand before the next one, and be read as its beginning."""
    connections = []

    class Refusing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connections.append(transport)

        def data_received(self, _: bytes) -> None:
            connections[-1].pause_reading()
            connections[-1].write(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")

    async def main() -> list[Outcome]:
        server = await asyncio.get_running_loop().create_server(Refusing, "127.0.0.1", 0)
        receiver = Receiver(server.sockets[0].getsockname()[1])
        target = http(receiver, timeout=5.0)
        large = Message(event(b"x" * (16 << 20)), Position(0, 0), 1)
        try:
            return [*await target.send([large]), *await target.send([large])]
        finally:
            await target.close()
            server.close()
            for transport in connections:
                transport.abort()

    assert [outcome.status for outcome in asyncio.run(main())] == [413, 413]
    assert len(connections) == 2


def test_no_cookie_is_kept() -> None:
    """A destination must not tie events together, nor one team's to another's."""
    with receiving(lambda _: Reply(200, (("Set-Cookie", "a=b"),))) as receiver:
        sent(http(receiver), event(b"{}"), event(b"{}"))

    assert [request.header("cookie") for request in receiver.requests] == [None, None]


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to what the guard refuses."""
    with receiving() as proxy, receiving() as receiver:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        outcomes = sent(http(receiver), event(b"{}"))

    assert outcomes == [Delivered(200)]
    assert proxy.connections == 0


def test_a_literal_address_inside_is_refused_when_the_target_is_made() -> None:
    """Nothing is opened for it, not even once."""
    with receiving() as receiver, pytest.raises(AddressRefused):
        http(receiver, guard=Guard(allow_ports=(receiver.port,)))


@pytest.mark.parametrize(
    "answers", [["127.0.0.1"], ["127.0.0.1", "::1"], ["93.184.216.34", "127.0.0.1"]]
)
def test_a_name_that_leads_inside_reaches_nothing(answers: list[str]) -> None:
    """The event stays where it is, and the listener sees no connection."""

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return answers

    with receiving() as receiver:
        target = http(
            receiver,
            url=f"http://inside.example:{receiver.port}/",
            guard=Guard(allow_ports=(receiver.port,)),
            lookup=lookup,
        )
        [outcome] = sent(target, event(b"{}"))

    assert outcome == Retry("the address guard refused the destination's address")
    assert receiver.connections == 0


class Forgetful(Guard):
    """A guard that lets every URL and every answer of a resolver pass."""

    def endpoint(self, url: str) -> Endpoint:
        return Guard((HERE,), tuple(range(1, 65536))).endpoint(url)

    def check_answers(self, host: str, answers: Sequence[str]) -> None:
        """Forget to look."""


class MoreForgetful(Forgetful):
    """One that also opens every socket."""

    def open_socket(self, info) -> socket.socket:
        return socket.socket(*info[:3])


@pytest.mark.parametrize("host", ["127.0.0.1", "inside.example"])
def test_the_socket_is_looked_at_even_if_everything_before_let_it_pass(host: str) -> None:
    """Each of the nets has to hold alone: a change in one must not open the others."""

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    with receiving() as receiver:
        url = f"http://{host}:{receiver.port}/"
        for guard, connections in ((Forgetful(), 0), (MoreForgetful(), 1)):
            [outcome] = sent(http(receiver, url=url, guard=guard, lookup=lookup), event(b"{}"))
            assert outcome == Retry("the address guard refused the destination's address")
            # The other end learns of a connection a moment after this one.
            deadline = time.monotonic() + 5
            while receiver.connections != connections and time.monotonic() < deadline:
                time.sleep(0.001)
            assert receiver.connections == connections
    assert receiver.requests == []


def test_reasons_carry_no_address_and_no_payload() -> None:
    """They are shown to tenants and kept in a table."""
    secret = "s3cr3t"
    reasons = []
    for how in ("hang", "reset", "garbage"):
        with receiving(lambda _, how=how: Reply(how=how)) as receiver:
            own = (("Authorization", secret),)
            [outcome] = sent(http(receiver, timeout=0.3, own_headers=own), event(secret.encode()))
            reasons.append(outcome.reason)
    assert all("127.0.0.1" not in reason and secret not in reason for reason in reasons)


def test_a_cancelled_send_leaves_no_connection_open() -> None:
    """A sender that loses its lease lets go at once."""
    arrived = threading.Event()

    def hang(_: Request) -> Reply:
        arrived.set()
        return Reply(how="hang")

    async def main(receiver: Receiver) -> None:
        target = http(receiver)
        task = asyncio.ensure_future(target.send([Message(event(b"{}"), Position(0, 0), 1)]))
        assert await asyncio.to_thread(arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await target.close()

    with receiving(hang) as receiver:
        asyncio.run(main(receiver))


TEXTS: list[tuple[str | None, float | None]] = [
    (None, None),
    ("", None),
    ("soon", None),
    ("-5", None),
    ("1.5", None),
    ("0", 0.0),
    ("120", 120.0),
    (" 7 ", 7.0),
    ("3600", 3600.0),
    ("86400", 3600.0),
    ("9" * 400, 3600.0),
    ("Mon, 24 Nov 2025 16:01:00 GMT", 60.0),
    ("Mon, 24 Nov 2025 15:00:00 GMT", 0.0),
    ("Wed, 24 Dec 2025 16:00:00 GMT", 3600.0),
    ("Mon, 24 Nov 2025 16:01:00 -0000", 60.0),
    ("Mon, 24 Nov 99999 16:01:00 GMT", None),
]


@pytest.mark.parametrize(("text", "seconds"), TEXTS)
def test_retry_after_is_read_as_seconds_or_a_date_and_capped(
    text: str | None, seconds: float | None
) -> None:
    """A destination may not put a replay to sleep for a year, nor crash it."""
    assert retry_after(text, now=NOON) == seconds


@settings(max_examples=200)
@given(st.text(max_size=40))
def test_retry_after_survives_any_text(text: str) -> None:
    """The answer is the destination's, and it may be hostile."""
    found = retry_after(text, now=NOON)
    assert found is None or 0 <= found <= 3600


@pytest.mark.parametrize("make", [http])
def test_a_target_is_closed_without_having_been_used(
    make: Callable[[Receiver], HttpTarget],
) -> None:
    """A replay of nothing opens nothing."""
    with receiving() as receiver:
        assert sent(make(receiver)) == []
    assert receiver.connections == 0


# Every kind

ENGINES = pytest.mark.engines
KINDS = [
    pytest.param("http"),
    pytest.param("kafka", marks=ENGINES),
    pytest.param("rabbitmq", marks=ENGINES),
    pytest.param("sqs", marks=ENGINES),
]
BUSES = KINDS[1:]
MIB = 1 << 20


def ugly_events(count: int, *, largest: int = MIB // 2) -> list[Event]:
    """Answer events as only machines and attackers send them."""
    chance = random.Random(7)
    more: list[tuple[tuple[str, bytes], ...]] = [
        (),
        (("x", b"\xff\x00"), ("y", b"1"), ("x", b""), ("X", b"2")),
        (("Ünï", "Zürich".encode()), ("nul", b"a\x00b"), ("line", b"a\r\nb: c")),
        (("n" * 300, b"long"), ("a..b", b"1"), ("AWS.x", b"2")),
        (("", b"nameless"), ("many", b"v")),
        tuple((f"h{n}", b"%d" % n) for n in range(12)),
        (("penstock-headers", b"mine"), ("penstock-key", b"mine"), ("Content-Type", b"odd")),
    ]
    found = []
    for number, message in enumerate(ugly.messages(count)):
        own = tuple((name, value.encode()) for name, value in message.headers)
        found.append(
            event(
                message.payload[:largest],
                id=f"e{number}",
                content_type=message.content_type,
                key=message.key,
                headers=chance.choice(more) + own,
                event_time=NOON + number * 1_000,
            )
        )
    return found


def ids_of(far: FarSide, took: Sequence[Took]) -> dict[str, Took]:
    """Answer what arrived by the id of its event."""
    found = {}
    for each in took:
        values = dict(each.headers)
        name = values.get("penstock-event-id", b"")
        found[name.decode() if isinstance(name, bytes) else name] = each
    return found


def payload_at(far: FarSide, each: Took) -> bytes:
    if far.kind != "sqs":
        return each.payload
    from replay.targets.sqs import payload_of

    return payload_of(each.payload.decode(), dict(each.headers).get("penstock-encoding"))


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_ugly_events_arrive_byte_for_byte(kind) -> None:
    """Each once, whatever it looks like; more than any client takes in one call."""
    # The engine that stands for SQS takes 256 KiB, and Base64 is a third longer.
    events = ugly_events(10_000, largest=150_000 if kind == "sqs" else MIB // 2)
    with far_side(kind) as far:
        outcomes = sent_to(far.open(), events)
        took = far.took(len(events))

    assert {type(outcome) for outcome in outcomes} == {Delivered}
    assert len(took) == len(events)
    arrived = ids_of(far, took)
    wrong = [e.id for e in events if payload_at(far, arrived[e.id]) != e.payload]
    assert wrong == []
    keys = [(each.id, each.key) for each in events if each.key is not None]
    match kind:
        case "http":
            return
        case "kafka":
            assert [(e.id, arrived[e.id].key) for e in events] == [(e.id, e.key) for e in events]
        case "rabbitmq":
            told = [(name, bytes(dict(arrived[name].headers)["penstock-key"])) for name, _ in keys]
            assert told == keys
        case _:
            keys = [(name, key) for name, key in keys if key]
            told = [(name, dict(arrived[name].headers)["penstock-key"]) for name, _ in keys]
            assert [(n, t if isinstance(t, bytes) else t.encode()) for n, t in told] == keys


def expected_in_kafka(each: Event) -> list[tuple[str, bytes]]:
    """Order, duplicates and bytes, as they came; and a content type if none did."""
    kind = each.content_type
    typed = any(name.lower() == "content-type" for name, _ in each.headers)
    return [*each.headers, *([("content-type", kind.encode())] if kind and not typed else [])]


@pytest.mark.engines
@pytest.mark.parametrize("mode", ["add", "verbatim"])
def test_kafka_headers_are_the_same_in_number_order_and_bytes(mode) -> None:
    events = ugly_events(300)
    with far_side("kafka", partitions=1) as far:
        sent_to(far.open(headers=mode), events, attempt=3)
        took = far.took(len(events))

    for each, found in zip(events, took, strict=True):
        own = [(n, v) for n, v in found.headers if mode == "verbatim" or n not in ADDED]
        assert own == expected_in_kafka(each)
        if mode == "add":
            assert found.headers[-5:] == [
                ("penstock-replay-id", b"r1"),
                ("penstock-event-id", each.id.encode()),
                ("penstock-collection", b"main.flights"),
                ("penstock-attempt", b"3"),
                ("penstock-received-at", b"2025-11-24T16:00:00.000000Z"),
            ]


@pytest.mark.engines
@pytest.mark.parametrize("mode", ["add", "verbatim"])
def test_rabbitmq_headers_are_read_back_as_they_were_sent(mode) -> None:
    """But for the order between names, which a table does not have."""
    from replay.targets.rabbitmq import headers_of

    events = ugly_events(300)
    with far_side("rabbitmq") as far:
        sent_to(far.open(headers=mode), events)
        took = far.took(len(events))

    taken = {*ADDED, "penstock-key"} if mode == "add" else set()
    for each, found in zip(events, took, strict=True):
        own = {name: value for name, value in found.headers if name not in taken}
        wanted = [pair for pair in each.headers if pair[0] not in taken]
        back = headers_of(own)
        assert sorted(back) == sorted(wanted)
        for name in dict(wanted):
            assert [v for n, v in back if n == name] == [v for n, v in wanted if n == name]
        assert found.more["message_id"] == each.id
        assert found.more["content_type"] == each.content_type
        assert found.more["timestamp"].timestamp() == (each.event_time or 0) // 1_000_000


@pytest.mark.engines
@pytest.mark.parametrize("mode", ["add", "verbatim"])
def test_sqs_headers_are_attributes_or_all_in_one(mode) -> None:
    """Ten attributes are all there are."""
    from replay.targets.sqs import headers_of

    events = ugly_events(300, largest=150_000)
    with far_side("sqs") as far:
        sent_to(far.open(headers=mode), events)
        took = far.took(len(events))

    ours = {"penstock-key", "penstock-encoding", "content-type", *ADDED}
    arrived = Counter(
        tuple(sorted(headers_of([p for p in found.headers if p[0] not in ours]))) for found in took
    )
    skipped = {"penstock-key", "penstock-encoding", *ADDED} if mode == "add" else set()
    wanted = Counter(
        tuple(sorted(pair for pair in each.headers if pair[0] not in skipped)) for each in events
    )
    if mode == "add":
        wanted = Counter(
            tuple(sorted(p for p in e.headers if p[0] not in {*skipped, "penstock-headers"}))
            for e in events
        )
    assert arrived == wanted


def picky(kind: str) -> Iterator[tuple[FarSide, list[Event], type]]:
    """Make a far side that takes two of three events, and the three."""
    good = [event(b"good", id="a"), event(b"good too", id="c")]
    match kind:
        case "http":
            with receiving(lambda r: Reply(400 if r.body == b"bad" else 200)) as receiver:
                far = FarSide("http", receiver.url, lambda _: [], guard_for(receiver))
                yield far, [good[0], event(b"bad", id="b"), good[1]], Failed
        case "kafka":
            with far_side("kafka", **{"max.message.bytes": "20000"}) as far:
                yield far, [good[0], event(os.urandom(30_000), id="b"), good[1]], Failed
        case "rabbitmq":
            with far_side("rabbitmq") as far:
                queue = far.options.pop("routing_key")
                assert isinstance(queue, str)
                routed = [replace(each, metadata={"routing_key": queue}) for each in good]
                lost = event(b"bad", id="b", metadata={"routing_key": "nobody"})
                yield far, [routed[0], lost, routed[1]], Failed
        case _:
            with far_side("sqs") as far:
                yield far, [good[0], event(b"x" * (MIB + 1), id="b"), good[1]], Failed


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_far_side_refuses_does_not_take_the_others_with_it(kind) -> None:
    """An outcome for each event, in order."""
    for far, events, refused in picky(kind):
        outcomes = sent_to(far.open(), events)

        assert [type(outcome) for outcome in outcomes] == [Delivered, refused, Delivered]


@contextmanager
def silence() -> Iterator[int]:
    """Take every connection and say nothing, ever; answer the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []
        stop = threading.Event()

        def take() -> None:
            listener.settimeout(0.05)
            while not stop.is_set():
                with suppress(TimeoutError):
                    held.append(listener.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield listener.getsockname()[1]
        stop.set()
        thread.join()
        for each in held:
            each.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


ADDRESSES = {
    "http": "http://127.0.0.1:{}/in",
    "kafka": "kafka://127.0.0.1:{}/topic",
    "rabbitmq": "amqp://127.0.0.1:{}/",
    "sqs": "sqs+http://127.0.0.1:{}/000000000000/queue",
}
OPTIONS = {"sqs": {"region": "here"}}


def far_at(kind: str, port: int, guard: Guard | None = None, host: str = "127.0.0.1") -> FarSide:
    url = ADDRESSES[kind].format(port).replace("127.0.0.1", host)
    guard = guard or Guard((HERE,), (port,))
    return FarSide(kind, url, lambda _: [], guard, OPTIONS.get(kind, {}))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_a_far_side_that_is_away_is_a_retry(kind: str) -> None:
    """Within a bounded time, and closing does not wait for it either."""
    far = far_at(kind, free_port())
    begun = time.monotonic()
    outcomes = sent_to(far.open(timeout=1.0), [event(b"1"), event(b"2")])

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry]
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_a_far_side_that_says_nothing_is_a_retry(kind: str) -> None:
    """A machine that hangs keeps its port open."""
    with silence() as port:
        begun = time.monotonic()
        outcomes = sent_to(far_at(kind, port).open(timeout=1.0), [event(b"1"), event(b"2")])

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry]
    assert time.monotonic() - begun < 8
    assert all("127.0.0.1" not in str(outcome) for outcome in outcomes)


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_a_send_can_be_cancelled(kind: str) -> None:
    """A sender that loses its lease lets go at once."""

    async def main(port: int) -> float:
        target = far_at(kind, port).open(timeout=5.0)
        task = asyncio.ensure_future(target.send([Message(event(b"{}"), Position(0, 0), 1)]))
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await target.close()
        return time.monotonic() - begun

    with silence() as port:
        assert asyncio.run(main(port)) < 7


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_addresses_inside_are_refused_before_anything_is_opened(kind: str) -> None:
    with silence() as port, pytest.raises(AddressRefused):
        far_at(kind, port, Guard(allow_ports=(port,))).open()


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_a_name_with_one_answer_inside_is_refused(kind: str) -> None:
    """One bad answer refuses all: a name that leads to both has no honest reason to."""

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.216.34", "127.0.0.1"]

    far = far_at(kind, 9092, Guard(), host="inside.example")
    target = open_target(
        far.destination(),
        guard=Guard(),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
        lookup=lookup,
    )
    outcomes = sent_to(target, [event(b"{}")])

    assert outcomes == [Retry("the address guard refused the destination's address")]


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_any_target_is_closed_without_having_been_used(kind: str) -> None:
    with silence() as port:
        assert sent_to(far_at(kind, port).open(), []) == []


# Kafka


class Cluster:
    """Speaks just enough Kafka to tell metadata: one broker, at the address it is given."""

    def __init__(self, advertised: tuple[str, int]) -> None:
        self._advertised = advertised
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.2", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        stream = connection.makefile("rwb")
        while head := stream.read(12):
            size, api, version, correlation = struct.unpack(">ihhi", head)
            stream.read(size - 8)
            body = struct.pack(">i", correlation) + (
                self._metadata() if api == 3 else self._versions(version)
            )
            stream.write(struct.pack(">i", len(body)) + body)
            stream.flush()
        connection.close()

    def _versions(self, version: int) -> bytes:
        error = 0 if version == 0 else 35
        apis = [(0, 3, 7), (3, 1, 1), (18, 0, 0), (22, 0, 0)]
        return struct.pack(">hi", error, len(apis)) + b"".join(
            struct.pack(">hhh", *each) for each in apis
        )

    def _metadata(self) -> bytes:
        host, port = self._advertised
        broker = struct.pack(">iih", 1, 7, len(host)) + host.encode()
        broker += struct.pack(">ih", port, -1)
        topic = struct.pack(">ihh", 1, 0, 5) + b"topic" + struct.pack(">bi", 0, 1)
        partition = struct.pack(">hiiiiii", 0, 0, 7, 1, 7, 1, 7)
        return broker + struct.pack(">i", 7) + topic + partition

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_broker_that_a_cluster_advertises_is_looked_at_before_it_is_spoken_to(host: str) -> None:
    """Whoever runs a cluster decides what it advertises."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.5)
        cluster = Cluster((host, inside.getsockname()[1]))
        guard = Guard((ip_network("127.0.0.2/32"),), (cluster.port, inside.getsockname()[1]))
        far = far_at("kafka", cluster.port, guard, host="127.0.0.2")
        outcomes = sent_to(far.open(timeout=5.0), [event(b"{}")])
        reached = True
        try:
            inside.accept()[0].close()
        except TimeoutError:
            reached = False
        cluster.close()

    assert outcomes == [Retry("the address guard refused the destination's address")]
    assert cluster.connections > 0
    assert not reached


@pytest.mark.engines
def test_a_broker_that_appears_later_ends_the_client() -> None:
    """It may be anywhere; the next send looks at all of them again."""

    async def main(target: Target) -> tuple[list[Outcome], object]:
        assert isinstance(target, KafkaTarget)
        outcomes = [*await target.send([Message(event(b"1"), Position(0, 0), 1)])]
        assert target._producer is not None
        target._producer._allowed = frozenset()  # as if this one had not been there
        await asyncio.sleep(0.8)
        await target.send([Message(event(b"2"), Position(0, 1), 1)])
        left = target._producer
        outcomes += await target.send([Message(event(b"3"), Position(0, 2), 1)])
        await target.close()
        return outcomes, left

    with far_side("kafka") as far:
        outcomes, left = asyncio.run(main(far.open()))

    assert outcomes == [Delivered(None)] * 2
    assert left is None


@pytest.mark.engines
def test_events_of_a_key_keep_their_order_and_their_partition() -> None:
    events = [event(b"%d" % n, key=b"k%d" % (n % 5)) for n in range(3_000)]
    with far_side("kafka") as far:
        sent_to(far.open(), events)
        took = far.took(len(events))

    for key in {each.key for each in events}:
        mine = [each for each in took if each.key == key]
        assert [each.payload for each in mine] == [e.payload for e in events if e.key == key]
        assert len({each.more["partition"] for each in mine}) == 1


@pytest.mark.engines
def test_partition_and_time_are_kept_where_that_is_asked() -> None:
    events = [
        event(b"%d" % n, event_time=NOON + n * 1_000, metadata={"partition": str(n % 3)})
        for n in range(30)
    ]
    events.append(event(b"none such", metadata={"partition": "9"}))
    # Retention goes by the time of the records: this broker would delete them in a second.
    with far_side("kafka", **{"retention.ms": "-1"}) as far:
        outcomes = sent_to(far.open(partition="kept", timestamp="original"), events)
        took = far.took(30)

    assert outcomes[-1] == Failed("the topic has no such partition")
    assert {(e.payload, e.more["partition"], e.more["timestamp"]) for e in took} == {
        (b"%d" % n, n % 3, NOON // 1_000 + n) for n in range(30)
    }


@pytest.mark.engines
def test_a_header_name_that_the_client_would_cut_fails_its_event() -> None:
    """A header under another name is another header."""
    cut = event(b"1", headers=(("a\0b", b"1"),))
    with far_side("kafka") as far:
        assert sent_to(far.open(), [cut, event(b"2")]) == [
            Failed("Kafka cannot carry this event's headers"),
            Delivered(None),
        ]


def test_topics_of_our_own_log_are_refused() -> None:
    """Only doors write those."""
    far = FarSide(
        "kafka", "kafka://93.184.216.34:9092/penstock.main.flights", lambda _: [], Guard()
    )
    with pytest.raises(BadRequest, match="own log"):
        far.open()


# RabbitMQ


@pytest.mark.engines
def test_two_events_of_one_id_are_two_messages() -> None:
    """A server returns a message by its id: one must not take the outcome of the other."""
    with far_side("rabbitmq") as far:
        queue = str(far.options.pop("routing_key"))
        routed = event(b"1", id="same", metadata={"routing_key": queue})
        lost = event(b"2", id="same", metadata={"routing_key": "nobody"})
        outcomes = sent_to(far.open(), [routed, lost, routed])
        took = far.took(2)

    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]
    assert [each.payload for each in took] == [b"1", b"1"]


@pytest.mark.engines
def test_a_queue_that_is_full_is_a_retry() -> None:
    """It says no to each, and will have room again."""
    with far_side("rabbitmq", **{"x-max-length": 2, "x-overflow": "reject-publish"}) as far:
        outcomes = sent_to(far.open(), [event(b"%d" % n) for n in range(4)])

    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, Retry, Retry]


# SQS


@pytest.mark.engines
def test_fifo_queues_keep_the_order_of_a_key_and_fold_what_is_sent_again() -> None:
    """The same attempt again, as after a lost answer; another replay is another message."""
    events = [event(b"%d" % n, key=b"k %d" % (n % 2)) for n in range(6)]
    with far_side("sqs", fifo=True) as far:
        for replay in ("r1", "r1", "r2"):
            assert sent_to(far.open(replay_id=replay), events) == [Delivered(200)] * 6
        took = far.took(12)

    for key in (0, 1):
        mine = [int(each.payload) for each in took if int(each.payload) % 2 == key]
        assert mine == [n for n in range(6) if n % 2 == key] * 2
    assert len(took) == 12


@pytest.mark.parametrize("kind", BUSES)
@pytest.mark.parametrize("right", [True, False])
def test_a_look_says_whether_the_place_is_there(kind, right) -> None:
    """And sends nothing."""
    sentences = {
        "kafka": "there is no such topic",
        "rabbitmq": "there is no such queue",
        "sqs": "there is no such queue",
    }

    async def look(target: Target) -> str | None:
        try:
            return await target.examine()
        finally:
            await target.close()

    with far_side(kind) as far:
        if not right:
            far.url = far.url.replace("/t_", "/u_").replace("/t-", "/u-")
            if kind == "rabbitmq":
                far.options["routing_key"] = "nobody"
        said = asyncio.run(look(far.open()))

    assert said == (None if right else sentences[kind])
