"""How an HTTP destination lets us in: by tokens of OAuth2, and by client certificates."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from builders import FLIGHTS, NOON, event
from certificates import make_certificates
from far_sides import HERE
from metadata_builders import destination
from msgspec.structs import replace
from receiving import Receiver, Reply, Request, receiving

from penstock.envelope import Position
from penstock.errors import AddressRefused, BadRequest
from penstock.guard import Guard
from penstock.metadata.records import Destination
from replay.preview import previews
from replay.targets import REFUSED, Delivered, Failed, Message, Outcome, Retry
from replay.targets.http import HttpTarget
from replay.targets.oauth import NO_ANSWER, NO_TOKEN, NOT_LET_IN
from replay.targets.opening import checked
from replay.targets.posted import open_http

SECRET = "s3cret & more"


class Endpoint:
    """A token endpoint that gives out numbered tokens."""

    def __init__(self, **answer: Any) -> None:
        self.given = 0
        self.answer = {"token_type": "Bearer", "expires_in": 3600, **answer}
        self.status = 200
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.given += 1
        self.requests.append(request)
        body = {"access_token": f"t{self.given}", **self.answer}
        return Reply(self.status, body=json.dumps(body).encode())


class Guarded:
    """A receiver that takes the tokens in `good`, or every one."""

    def __init__(self, good: set[str] | None = None) -> None:
        self.good = good
        self.seen: list[str | None] = []

    def __call__(self, request: Request) -> Reply:
        self.seen.append(request.header("authorization"))
        taken = self.good is None or self.seen[-1] in {f"Bearer {one}" for one in self.good}
        return Reply(204 if taken else 401)


def record(receiver: Receiver, endpoint: Receiver, **options: object) -> Destination:
    asks = {"token_url": endpoint.url, "client_id": "me/1", **options}
    return replace(
        destination(),
        url=receiver.url,
        headers=(),
        options=asks,
        credentials={"client_secret": SECRET},
    )


def opened(of: Destination, *ports: int, clock: Callable[[], int] = lambda: NOON) -> HttpTarget:
    return open_http(
        of,
        guard=Guard((HERE,), ports),
        replay_id="r1",
        collection=FLIGHTS,
        clock=clock,
        timeout=5.0,
    )


async def one(target: HttpTarget) -> Outcome:
    [outcome] = await target.send([Message(event(b"{}", id="e1"), Position(0, 0), 1)])
    return outcome


def sent(target: HttpTarget, times: int = 1, *, together: bool = False) -> Sequence[Outcome]:
    async def main() -> list[Outcome]:
        try:
            if together:
                return list(await asyncio.gather(*(one(target) for _ in range(times))))
            return [await one(target) for _ in range(times)]
        finally:
            await target.close()

    return asyncio.run(main())


class TestTokens:
    def test_one_token_serves_every_event(self) -> None:
        """Token endpoints count what is asked of them, and refuse who asks too often."""
        endpoint, guarded = Endpoint(), Guarded({"t1"})
        with receiving(guarded) as receiver, receiving(endpoint, seconds=0.05) as asked:
            target = opened(record(receiver, asked), receiver.port, asked.port)
            outcomes = sent(target, 20, together=True)

        assert outcomes == [Delivered(204)] * 20
        assert endpoint.given == 1

    @pytest.mark.parametrize("how", ["basic", "body"])
    def test_it_is_asked_for_as_the_standard_says(self, how: str) -> None:
        endpoint = Endpoint()
        with receiving(Guarded()) as receiver, receiving(endpoint) as asked:
            to = record(receiver, asked, scope="a b", client_auth=how)
            sent(opened(to, receiver.port, asked.port))

        [request] = endpoint.requests
        form = dict(parse_qsl(request.body.decode()))
        basic = request.header("authorization")
        assert (request.method, request.header("content-type")) == (
            "POST",
            "application/x-www-form-urlencoded",
        )
        assert (form.pop("grant_type"), form.pop("scope")) == ("client_credentials", "a b")
        if how == "basic":
            # Each part is encoded as a form is: RFC 6749, section 2.3.1.
            pair = base64.b64decode((basic or "").removeprefix("Basic ")).decode()
            assert (pair, form) == ("me%2F1:s3cret+%26+more", {})
        else:
            assert (basic, form) == (None, {"client_id": "me/1", "client_secret": SECRET})

    def test_another_is_asked_for_shortly_before_it_ends(self) -> None:
        """One that ends on the way is refused."""
        endpoint, guarded, now = Endpoint(expires_in=600), Guarded(), [NOON]
        with receiving(guarded) as receiver, receiving(endpoint) as asked:
            target = opened(
                record(receiver, asked), receiver.port, asked.port, clock=lambda: now[0]
            )

            async def main() -> None:
                for seconds in (0, 539, 541, 1_080):
                    now[0] = NOON + seconds * 1_000_000
                    await one(target)
                await target.close()

            asyncio.run(main())

        assert guarded.seen == ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"]

    def test_one_that_is_refused_is_asked_for_anew_once(self) -> None:
        """It may have been taken back before its end."""
        endpoint, guarded = Endpoint(), Guarded({"t2"})
        with receiving(guarded) as receiver, receiving(endpoint) as asked:
            outcomes = sent(opened(record(receiver, asked), receiver.port, asked.port), 2)

        assert outcomes == [Delivered(204)] * 2
        assert guarded.seen == ["Bearer t1", "Bearer t2", "Bearer t2"]

    def test_a_destination_that_refuses_every_token_does_not_make_us_ask_for_each_event(
        self,
    ) -> None:
        endpoint, guarded = Endpoint(), Guarded(set())
        with receiving(guarded) as receiver, receiving(endpoint) as asked:
            outcomes = sent(opened(record(receiver, asked), receiver.port, asked.port), 10)

        assert outcomes == [Failed("answered 401", 401)] * 10
        assert endpoint.given == 2

    def test_together_they_ask_anew_once(self) -> None:
        endpoint, guarded = Endpoint(), Guarded({"t2"})
        with receiving(guarded, seconds=0.05) as receiver, receiving(endpoint) as asked:
            target = opened(record(receiver, asked), receiver.port, asked.port)
            outcomes = sent(target, 10, together=True)

        assert outcomes == [Delivered(204)] * 10
        assert endpoint.given == 2

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [
            (Reply(401, body=b'{"error": "invalid_client"}'), NOT_LET_IN),
            (Reply(400), NOT_LET_IN),
            (Reply(503), Retry("the token endpoint answered 503")),
            (Reply(302, (("Location", "http://127.0.0.1:1/"),)), None),
            (Reply(200, body=b"no json"), NO_TOKEN),
            (Reply(200, body=b'{"access_token": "a"}'), NO_TOKEN),
            (Reply(200, body=b'{"access_token": "a", "token_type": "mac"}'), NO_TOKEN),
            (Reply(200, body=b'{"access_token": "a\\r\\nX: 1", "token_type": "bearer"}'), NO_TOKEN),
            (Reply(200, body=b'{"access_token": "", "token_type": "bearer"}'), NO_TOKEN),
            (
                Reply(200, body=b'{"access_token":"a","token_type":"bearer","expires_in":-1}'),
                NO_TOKEN,
            ),
            (Reply(200, body=b" " * 100_000), NO_TOKEN),
            (Reply(how="reset"), NO_ANSWER),
            (Reply(how="garbage"), NO_ANSWER),
        ],
    )
    def test_without_a_token_nothing_is_sent_and_it_is_tried_again(
        self, reply: Reply, outcome: Outcome | None
    ) -> None:
        """The event is not to blame; and what the endpoint says is not repeated."""
        with receiving() as receiver, receiving(lambda _: reply) as asked:
            [said] = sent(opened(record(receiver, asked), receiver.port, asked.port))

        assert said == (outcome or Retry("the token endpoint answered 302"))
        assert receiver.requests == []

    def test_the_address_guard_stands_before_the_token_endpoint(self) -> None:
        """A name may lead elsewhere at every look-up: no byte of the secret goes there."""

        async def inside(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        with receiving() as receiver, receiving(Endpoint()) as asked:
            to = replace(
                record(receiver, asked, token_url=f"https://idp.example:{asked.port}/"),
                url="https://billing.example/",
            )
            target = open_http(
                to,
                guard=Guard((), (receiver.port, asked.port)),
                replay_id="r1",
                collection=FLIGHTS,
                clock=lambda: NOON,
                lookup=inside,
            )
            assert sent(target) == [REFUSED]

        assert (asked.connections, receiver.connections) == (0, 0)

    def test_the_token_and_the_secret_are_not_shown(self) -> None:
        with receiving() as receiver, receiving(Endpoint()) as asked:
            to = record(receiver, asked)
            guard = Guard((HERE,), (receiver.port, asked.port))
            [shown] = previews(
                [(Position(0, 0), event(b"{}", headers=(("authorization", b"Bearer old"),)))],
                to,
                guard=guard,
                collection=FLIGHTS,
                clock=lambda: NOON,
                mode="verbatim",
            )

        assert dict(shown.headers)["Authorization"] is None
        assert SECRET not in repr(to)
        assert asked.requests == []

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"credentials": {}}, "give all three or none"),
            ({"options": {"token_url": "https://idp.example/"}}, "give all three or none"),
            ({"options": {"client_id": "me"}}, "give all three or none"),
            ({"options": {"scope": "a"}, "credentials": {}}, "there is none"),
            ({"headers": (("authorization", "Bearer x"),)}, "cannot set the header"),
            (
                {"options": {"token_url": "http://idp.example/", "client_id": "me"}},
                "begins with https",
            ),
        ],
    )
    def test_what_cannot_ask_is_found_when_it_is_made(
        self, change: dict[str, Any], why: str
    ) -> None:
        good = replace(
            destination(),
            headers=(),
            options={"token_url": "https://idp.example/t", "client_id": "me"},
            credentials={"client_secret": SECRET},
        )

        assert checked(good, Guard()) == good
        with pytest.raises(BadRequest, match=why):
            checked(replace(good, **change), Guard())
        inside = {"token_url": "https://169.254.169.254/", "client_id": "me"}
        with pytest.raises(AddressRefused):
            checked(replace(good, options=inside), Guard())


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = tmp_path_factory.mktemp("certificates") / "made"
    make_certificates(folder)

    def read(name: str) -> str:
        return (folder / name).read_text()

    return read


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pem: Callable[[str], str]) -> ssl.SSLContext:
    """Answer the TLS of a server that lets in nobody without a certificate of its authority."""
    both = Path(tmp_path_factory.mktemp("server")) / "both.pem"
    both.write_text(pem("server.pem") + pem("server.key"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=pem("ca.pem"))
    context.load_cert_chain(both)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def secured(receiver: Receiver, ca: str | None, **credentials: str) -> Destination:
    return replace(
        destination(),
        url=receiver.url.replace("http:", "https:"),
        options={} if ca is None else {"ca": ca},
        credentials=credentials,
    )


class TestCertificates:
    def test_who_shows_its_certificate_is_let_in(
        self, pem: Callable[[str], str], server: ssl.SSLContext
    ) -> None:
        with receiving(tls=server) as receiver:
            to = secured(
                receiver,
                pem("ca.pem"),
                client_certificate=pem("client.pem"),
                client_key=pem("client.key"),
            )
            outcomes = sent(opened(to, receiver.port), 3)

        assert outcomes == [Delivered(200)] * 3
        assert receiver.connections == 1

    def test_who_shows_none_is_not(self, pem: Callable[[str], str], server: ssl.SSLContext) -> None:
        """Else the test above would say nothing."""
        with receiving(tls=server) as receiver:
            [outcome] = sent(opened(secured(receiver, pem("ca.pem")), receiver.port))

        assert isinstance(outcome, Retry)
        assert receiver.requests == []

    def test_a_server_of_another_authority_is_told_nothing(
        self, pem: Callable[[str], str], server: ssl.SSLContext
    ) -> None:
        with receiving(tls=server) as receiver:
            to = secured(
                receiver, None, client_certificate=pem("client.pem"), client_key=pem("client.key")
            )
            [outcome] = sent(opened(to, receiver.port))

        assert outcome == Retry("TLS failed")
        assert receiver.requests == []

    @pytest.mark.parametrize(
        ("certificate", "key", "why"),
        [
            ("client.pem", None, "belong together"),
            (None, "client.key", "belong together"),
            ("client.pem", "server.key", "do not belong together"),
            ("client.key", "client.key", "do not belong together"),
        ],
    )
    def test_what_cannot_be_shown_is_found_when_it_is_made(
        self, pem: Callable[[str], str], certificate: str | None, key: str | None, why: str
    ) -> None:
        given = {"client_certificate": certificate, "client_key": key}
        credentials = {name: pem(file) for name, file in given.items() if file is not None}
        to = replace(destination(), credentials=credentials)

        with pytest.raises(BadRequest, match=why) as refused:
            checked(to, Guard())
        assert "BEGIN" not in str(refused.value)
        with pytest.raises(BadRequest, match="begins with https"):
            checked(
                replace(to, url="http://b.example/", credentials={"client_certificate": "x"}),
                Guard(),
            )
