"""What the HTTP target keeps beyond the promise of every target."""

from __future__ import annotations

import asyncio
import hmac
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence

import pytest
from builders import FLIGHTS, NOON, event
from far_sides import HERE
from hypothesis import given, settings
from hypothesis import strategies as st
from receiving import Receiver, Reply, Request, receiving

from penstock.envelope import Event, Position
from penstock.errors import AddressRefused, BadRequest
from penstock.guard import Endpoint, Guard
from replay.targets import ADDED, Delivered, Failed, Message, Outcome, Retry
from replay.targets.http import NOT_FORWARDED, HttpTarget, retry_after
from replay.targets.places import HttpOptions


def guard_for(receiver: Receiver) -> Guard:
    return Guard(allow_networks=(HERE,), allow_ports=(receiver.port,))


def http(receiver: Receiver, **options) -> HttpTarget:
    return HttpTarget(
        options.pop("url", receiver.url),
        options.pop("options", HttpOptions()),
        guard=options.pop("guard", guard_for(receiver)),
        replay_id="r1",
        collection=FLIGHTS,
        clock=options.pop("clock", lambda: NOON),
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


class Verifying:
    """A receiver that takes what Standard Webhooks says it may, and nothing else."""

    def __init__(self, secret: bytes, *, fails: int = 0) -> None:
        self.secret = secret
        self.fails = fails
        self.seen: list[str] = []

    def __call__(self, request: Request) -> Reply:
        signed_id, seconds = request.header("webhook-id"), request.header("webhook-timestamp")
        text = f"{signed_id}.{seconds}.".encode() + request.body
        expected = b64encode(hmac.digest(self.secret, text, "sha256")).decode()
        made = (request.header("webhook-signature") or "").split(" ")
        if f"v1,{expected}" not in made or request.names().count("webhook-signature") != 1:
            return Reply(401)
        self.seen.append(signed_id or "")
        return Reply(500 if len(self.seen) <= self.fails else 204)


SIGNED = HttpOptions(signing="standard")
SECRETS = [bytes([n]) * 32 for n in range(2)]


def signing_with(*secrets: bytes) -> str:
    return "\n".join(f"whsec_{b64encode(one).decode()}" for one in secrets)


@pytest.mark.parametrize("mode", ["add", "verbatim"])
@pytest.mark.parametrize("payload", [b"{}", b"", b"\x00\xff", "é".encode() * 100_000])
def test_a_receiver_that_verifies_takes_what_is_signed(mode, payload: bytes) -> None:
    """Whatever the bytes are, and also where the event came with the signature of its sender."""
    stale = (("Webhook-Signature", b"v1,stale"), ("webhook-timestamp", b"1"), ("X-Kept", b"1"))
    with receiving(Verifying(SECRETS[0])) as receiver:
        target = http(receiver, options=SIGNED, secret=signing_with(*SECRETS), headers=mode)
        outcomes = sent(target, event(payload, id="e.1\r\nX: 1", headers=stale))

    assert outcomes == [Delivered(204)]
    assert receiver.requests[0].header("x-kept") == "1"
    assert receiver.requests[0].header("x") is None


def test_one_that_has_another_secret_does_not() -> None:
    """Else the tests above would say nothing."""
    with receiving(Verifying(SECRETS[1])) as receiver:
        outcomes = sent(
            http(receiver, options=SIGNED, secret=signing_with(SECRETS[0])), event(b"{}")
        )

    assert outcomes == [Failed("answered 401", 401)]


def test_each_attempt_is_signed_with_its_own_time() -> None:
    """An event that waits an hour for its destination would be refused as too old."""
    now = [NOON]
    with receiving(Verifying(SECRETS[0], fails=1)) as receiver:
        target = http(
            receiver, options=SIGNED, secret=signing_with(SECRETS[0]), clock=lambda: now[0]
        )

        async def main() -> list[Outcome]:
            first = await target.send([Message(event(b"{}", id="e1"), Position(0, 0), 1)])
            now[0] += 3_600_000_000
            second = await target.send([Message(event(b"{}", id="e1"), Position(0, 0), 2)])
            await target.close()
            return [*first, *second]

        outcomes = asyncio.run(main())

    assert outcomes == [Retry("answered 500", 500), Delivered(204)]
    times = [int(one.header("webhook-timestamp") or 0) for one in receiver.requests]
    assert times == [NOON // 1_000_000, NOON // 1_000_000 + 3600]


@pytest.mark.parametrize("name", ["webhook-id", "Webhook-Signature"])
def test_a_destination_cannot_set_what_its_signature_sets(name: str) -> None:
    with receiving() as receiver, pytest.raises(BadRequest, match="cannot set the header"):
        http(
            receiver,
            options=SIGNED,
            secret=signing_with(SECRETS[0]),
            own_headers=((name, "x"),),
        )


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_the_method_and_the_query_of_the_address_are_the_destinations(method: str) -> None:
    """Receivers take them for what they are, in the spelling that was given."""
    path = "/in?a=%2Fx&b=1+2&c=&a=%c3%a9;d"
    with receiving() as receiver:
        target = http(
            receiver,
            url=f"http://127.0.0.1:{receiver.port}{path}",
            options=HttpOptions(method=method),
        )
        outcomes = sent(target, event(b"{}"), event(b"[]"))

    assert outcomes == [Delivered(200)] * 2
    assert [(one.method, one.path, one.body) for one in receiver.requests] == [
        (method, path, b"{}"),
        (method, path, b"[]"),
    ]


def test_a_header_can_be_made_of_the_event() -> None:
    own = (("X-Trace", "{event.id}/{event.header.hop}"), ("Authorization", "Bearer a{b}"))
    first = event(b"{}", id="e1", headers=(("hop", b"7"), ("x-trace", b"old")))
    with receiving() as receiver:
        sent(http(receiver, own_headers=own), first, event(b"{}", id="e2"))

    assert [one.header("x-trace") for one in receiver.requests] == ["e1/7", None]
    assert [one.header("authorization") for one in receiver.requests] == ["Bearer a{b}"] * 2


@pytest.mark.parametrize(
    "evil", ["a\r\nInjected: 1", "a\nInjected: 1", "a\x00", "a\r\n\r\nPOST /", "\ud800"]
)
def test_what_an_event_brings_injects_no_header(evil: str) -> None:
    """Ids and headers are the senders' choice, and this request carries the credentials."""
    own = (("X-Trace", "{event.id}"), ("X-Hop", "{event.header.hop}"), ("X-Own", "1"))
    odd = event(b"{}", id=evil, headers=(("hop", evil.encode(errors="surrogatepass")),))
    with receiving() as receiver:
        outcomes = sent(http(receiver, own_headers=own), odd)

    assert outcomes == [Delivered(200)]
    [request] = receiver.requests
    assert request.header("injected") is None
    assert request.header("x-trace") is request.header("x-hop") is None
    assert request.header("x-own") == "1"


def test_a_header_of_what_no_event_has_is_found_when_the_destination_is_made() -> None:
    with receiving() as receiver, pytest.raises(BadRequest, match="event does not have"):
        http(receiver, own_headers=(("X-Trace", "{event.nix}"),))
