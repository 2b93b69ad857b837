"""Whatever way out and however it is written: no connection to an address that is not public.

A canary listens on every address of this machine, at a port that the guard lets pass and at one
that it does not, and is never to be touched. What is tried are the ways by which text of a tenant
becomes a connection; what is written are spellings of addresses, names, answers of name servers and
redirects. The end of this file shows that each of them would be noticed.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from advertising import Cluster
from builders import FLIGHTS, NOON, event
from far_sides import sent
from metadata_builders import collection
from platform_stand_ins import Caller, grant, platform
from ports import free_ports
from receiving import Receiver, Reply, receiving
from yarl import URL

from assets.registered import Away
from assets.registry import Http
from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.errors import AddressRefused, BadRequest
from penstock.guard import Address, AddrInfo, Endpoint, Guard, Lookup, system_lookup
from penstock.metadata.records import Destination
from penstock.vocabulary import Kind
from replay.targets import Delivered, Outcome
from replay.targets.opening import open_target

# Of `host:port`, for every way out.
SPELLINGS = [
    # Plainly
    "127.0.0.1:{port}",
    "127.0.0.1.:{port}",
    "127.127.127.127:{port}",
    "0.0.0.0:{port}",
    "[::1]:{port}",
    "[::]:{port}",
    "[0:0:0:0:0:0:0:1]:{port}",
    "[0000:0000:0000:0000:0000:0000:0000:0001]:{port}",
    "[0::1]:{port}",
    "[::0.0.0.1]:{port}",
    # Numbers that systems read as an address: decimal, hexadecimal, octal, mixed, short
    "2130706433:{port}",
    "02130706433:{port}",
    "0x7f000001:{port}",
    "0x7F000001:{port}",
    "0X7f.1:{port}",
    "0x7f.0x0.0x0.0x1:{port}",
    "0x0000007f.0.0.1:{port}",
    "017700000001:{port}",
    "0177.0.0.1:{port}",
    "0177.0.0.01:{port}",
    "0000177.0.0.1:{port}",
    "127.1:{port}",
    "127.0.1:{port}",
    "127.1.:{port}",
    "127.65535:{port}",
    "127.0x1:{port}",
    "127.0.0.01:{port}",
    "127.000.000.001:{port}",
    "127.0.0.0x1:{port}",
    "0:{port}",
    "0x0:{port}",
    "00:{port}",
    "0.0:{port}",
    # Digits and dots of other scripts, which names are mapped from
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11:{port}",
    "①②⑦.⓪.⓪.①:{port}",
    "127。0。0。1:{port}",
    "127\uff0e0\uff0e0\uff0e1:{port}",
    "127\uff610\uff610\uff611:{port}",
    "\U0001d7d9\U0001d7da\U0001d7df.\U0001d7d8.\U0001d7d8.\U0001d7d9:{port}",
    "\uff11\uff12\uff17.1:{port}",
    "127.0.0.¹:{port}",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}",
    # IPv4 inside IPv6: mapped, compatible, NAT64, 6to4, Teredo, ISATAP
    "[::ffff:127.0.0.1]:{port}",
    "[::FFFF:127.0.0.1]:{port}",
    "[::ffff:7f00:1]:{port}",
    "[0:0:0:0:0:ffff:7f00:0001]:{port}",
    "[::ffff:0:127.0.0.1]:{port}",
    "[::ffff:0.0.0.0]:{port}",
    "[::127.0.0.1]:{port}",
    "[::7f00:1]:{port}",
    "[64:ff9b::127.0.0.1]:{port}",
    "[64:ff9b::7f00:1]:{port}",
    "[64:ff9b:1::7f00:1]:{port}",
    "[2002:7f00:1::]:{port}",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]:{port}",
    "[fe80::5efe:127.0.0.1]:{port}",
    # Zones
    "[::1%lo]:{port}",
    "[::1%25lo]:{port}",
    "[::1%1]:{port}",
    "[fe80::1%25lo]:{port}",
    # Who is told, and who is asked
    "user@127.0.0.1:{port}",
    "user:word@127.0.0.1:{port}",
    "example.com@127.0.0.1:{port}",
    "example.com:80@127.0.0.1:{port}",
    "example.com%40127.0.0.1:{port}",
    "127.0.0.1:{port}\\@example.com",
    "127.0.0.1:{port}@example.com:80@127.0.0.1:{port}",
    # Percent-encoded, and with what ends a line or a text
    "%31%32%37.0.0.1:{port}",
    "127%2e0%2e0%2e1:{port}",
    "%6c%6f%63alhost:{port}",
    "127.0.0.1%00.example.com:{port}",
    "127.0.0.1\x00.example.com:{port}",
    "127.0.0.1%0d%0a:{port}",
    "127.0.0.1\r\n:{port}",
    "127.0.0.1\t:{port}",
    " 127.0.0.1:{port}",
    "127.0.0.1 :{port}",
    "127.0.0.1\u200b:{port}",
    "127.0.0.1\u00ad:{port}",
    # Ports
    "127.0.0.1:0{port}",
    "127.0.0.1:+{port}",
    "127.0.0.1:{port}:{port}",
    # Names: all of them lead inside, whoever is asked
    "localhost:{port}",
    "LocalHost:{port}",
    "localhost.:{port}",
    "localhost.localdomain:{port}",
    "inside.example:{port}",
    "INSIDE.example.:{port}",
    "127.0.0.1.inside.example:{port}",
    "xn--bcher-kva.example:{port}",
    "bücher.example:{port}",
]

# Whole URLs, for what speaks HTTP.
URLS = [
    *(f"http://{each}/" for each in SPELLINGS),
    "HTTP://127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}\\",
    "//127.0.0.1:{port}/",
    "\\\\127.0.0.1:{port}\\",
    "127.0.0.1:{port}",
    " http://127.0.0.1:{port}/",
    "\thttp://127.0.0.1:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    "http://example.com#@127.0.0.1:{port}/",
    "http://example.com?@127.0.0.1:{port}/",
    "http://example.com/@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#.example.com/",
    "http://127.0.0.1:{port}?.example.com/",
    "http://127.0.0.1:{port};.example.com/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_x",
    "ws://127.0.0.1:{port}/",
    "file://127.0.0.1:{port}/",
    "unix://127.0.0.1:{port}/",
]

# What a name server says of a name.
ANSWERS = [
    ["127.0.0.1"],
    ["0.0.0.0"],
    ["::1"],
    ["::"],
    ["::ffff:127.0.0.1"],
    ["::ffff:7f00:1"],
    ["::127.0.0.1"],
    ["64:ff9b::7f00:1"],
    ["::1%lo"],
    ["fe80::1%lo"],
    ["2130706433"],
    ["127.1"],
    ["0x7f.0.0.1"],
    ["localhost"],
    ["127.0.0.1", "93.184.216.34"],
    ["93.184.216.34", "127.0.0.1"],
    ["93.184.216.34", "::1"],
    ["93.184.216.34", "no address"],
]

HONEST, CLUSTER = "127.0.0.3", "127.0.0.2"
"""Where somebody lives whom the operator allows."""

GUARD_SAYS = "the address guard refused the destination's address"


@dataclass
class Canary:
    """Listeners at two ports, whom nobody is to connect to."""

    port: int
    """One that the guard lets pass, as it is among those for everybody."""
    forbidden: int
    listeners: Sequence[socket.socket] = field(repr=False)

    def touched(self) -> int:
        """Answer how often somebody connected since the last time."""
        return sum(map(_touched, self.listeners))


def _touched(listener: socket.socket) -> int:
    """Connect to it, and count who stands before us in its queue."""
    count = 0
    with socket.create_connection(listener.getsockname()[:2]) as own:
        while True:
            connection, peer = listener.accept()
            connection.close()
            if peer[:2] == own.getsockname()[:2]:
                return count
            count += 1


@pytest.fixture
def canary() -> Iterator[Canary]:
    [port] = free_ports(1, among=range(9100, 9900))
    [forbidden] = free_ports(1)
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(_listener(host, each))
            for each in (port, forbidden)
            for host in _own_addresses()
        ]
        yield Canary(port, forbidden, listeners)


def _own_addresses() -> set[str]:
    infos = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    own = {str(info[4][0]) for info in infos if info[0] == socket.AF_INET}
    return {"127.0.0.1", "127.127.127.127", *own, *(["::1"] if HAS_IPV6 else [])}


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=500)


def asked(answer: Callable[[], Sequence[str]]) -> Lookup:
    """Answer a name server; what is an address already is not its business."""

    async def lookup(host: str, _port: int) -> Sequence[str]:
        with suppress(ValueError):
            return [str(ip_address(host))]
        return answer()

    return lookup


INSIDE = asked(lambda: ["127.0.0.1"])
"""Answers, whoever is asked for, where the canary is."""


def saying(*answers: Sequence[str]) -> Lookup:
    """Answer a name server that gives these answers, one after the other, the last for ever."""
    left = list(answers)
    return asked(lambda: left.pop(0) if len(left) > 1 else left[0])


class Honest(NamedTuple):
    """Whom the operator allows: a receiver, and a cluster that advertises what it is told to."""

    receiver: Receiver
    cluster: Cluster

    def guard(self, kind: type[Guard] = Guard, *more: str, ports: Sequence[int] = ()) -> Guard:
        networks = [ip_network(f"{each}/32") for each in (HONEST, CLUSTER, *more)]
        return kind((*networks,), (self.receiver.port, self.cluster.port, *ports))


@pytest.fixture(scope="module")
def honest() -> Iterator[Honest]:
    with receiving(lambda _: Reply(204), host=HONEST) as receiver:
        cluster = Cluster(("", 0))
        yield Honest(receiver, cluster)
        cluster.close()


class Try(NamedTuple):
    """One attempt to get out."""

    place: str
    """``host:port`` or, of what speaks HTTP, a URL."""
    honest: Honest
    guard: Guard
    lookup: Lookup = INSIDE
    seconds: float = 20.0


Way = Callable[[Try], str]
"""Go out; answer what was said of it."""


def told(outcome: Outcome) -> str:
    if isinstance(outcome, Delivered):
        return outcome.differs or f"answered {outcome.status}"
    return outcome.reason


def sends(kind: Kind, url: str, tried: Try, **more: Any) -> str:
    """Open a destination as a replay does, and send it an event."""
    target = open_target(
        Destination(team="main", name="d", kind=kind, url=url, created_at=0, **more),
        guard=tried.guard,
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
        timeout=tried.seconds,
        lookup=tried.lookup,
    )
    return told(sent(target, [event(b"{}")])[0])


def by_url(tried: Try) -> str:
    return sends("http", tried.place, tried)


def by_compare_url(tried: Try) -> str:
    url = tried.honest.receiver.url
    return sends("http", url, tried, options={"compare_url": tried.place})


def by_token_url(tried: Try) -> str:
    """Ask for a token: with TLS, of which the canary would hear the hello."""
    token_url = tried.place
    if HONEST not in token_url:
        token_url = token_url.replace("http:", "https:")
    return sends(
        "http",
        tried.honest.receiver.url,
        tried,
        options={"token_url": token_url, "client_id": "we"},
        credentials={"client_secret": "s"},
    )


def by_registry(tried: Try) -> str:
    fetch = Http(tried.place, None, guard=tried.guard, seconds=tried.seconds, lookup=tried.lookup)
    try:
        return str(fetch(7))
    except Away as away:
        refused = isinstance(away.__context__, AddressRefused)
        return f"refused: {away}" if refused else str(away)


def by_kafka(tried: Try) -> str:
    return sends("kafka", f"kafka://{tried.place}/topic", tried)


def by_a_later_broker(tried: Try) -> str:
    first = f"{HONEST}:{tried.honest.receiver.port}"
    return sends("kafka", f"kafka://{first},{tried.place}/topic", tried)


def by_an_advertised_broker(tried: Try) -> str:
    """Go to an honest address, whose cluster says of itself what is tried."""
    cluster = tried.honest.cluster
    host, _, port = tried.place.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port):
        raise BadRequest("no cluster can say so")
    cluster.advertised = host.strip("[]"), int(port)
    return sends("kafka", f"kafka://{CLUSTER}:{cluster.port}/topic", tried)


def by_rabbitmq(tried: Try) -> str:
    return sends("rabbitmq", f"amqp://{tried.place}/", tried, secret="a:b")


def by_sqs(tried: Try) -> str:
    url = f"sqs+http://{tried.place}/000000000000/queue"
    return sends("sqs", url, tried, options={"region": "here"}, secret="a:b")


OVER_HTTP: dict[str, Way] = {
    "url": by_url,
    "compare_url": by_compare_url,
    "token_url": by_token_url,
    "registry": by_registry,
}
BY_HOST: dict[str, Way] = {
    "kafka": by_kafka,
    "a later broker": by_a_later_broker,
    "an advertised broker": by_an_advertised_broker,
    "rabbitmq": by_rabbitmq,
    "sqs": by_sqs,
}
WAYS = {**OVER_HTTP, **BY_HOST}


def written(way: str) -> Sequence[str]:
    """Answer what this way can be given."""
    return URLS if way in OVER_HTTP else SPELLINGS


def plainly(way: str, host: str, port: int) -> str:
    return f"http://{host}:{port}/" if way in OVER_HTTP else f"{host}:{port}"


def went(way: str, tried: Try) -> str:
    """Go out this way; answer what was said of it."""
    try:
        return WAYS[way](tried)
    except (AddressRefused, BadRequest) as refused:
        return f"refused: {refused}"


def is_refusal(said: str) -> bool:
    """Say whether somebody who reads it knows that it was not for the far side's being away."""
    return said.startswith("refused: ") or GUARD_SAYS in said or "not public" in said


def test_there_are_enough_of_them() -> None:
    assert len(set(SPELLINGS)) == len(SPELLINGS) >= 60


@pytest.mark.parametrize("way", WAYS)
def test_no_spelling_of_an_inside_address_gets_out(
    way: str, honest: Honest, canary: Canary
) -> None:
    """Refused as text where it can be told from that, else once it is known where it leads."""
    said = {
        each: went(way, Try(each.format(port=canary.port), honest, honest.guard()))
        for each in written(way)
    }

    assert canary.touched() == 0
    assert {each: text for each, text in said.items() if not is_refusal(text)} == {}


@pytest.mark.parametrize("way", WAYS)
def test_no_name_that_this_machine_knows_for_itself_gets_out(
    way: str, honest: Honest, canary: Canary
) -> None:
    """As it is asked in earnest: by this machine's own resolver."""
    for host in ("localhost", "LOCALHOST", socket.gethostname()):
        place = plainly(way, host, canary.port)
        said = went(way, Try(place, honest, honest.guard(), system_lookup))

        assert is_refusal(said), host
    assert canary.touched() == 0


@pytest.mark.parametrize("way", WAYS)
def test_no_answer_of_a_name_server_gets_out(way: str, honest: Honest, canary: Canary) -> None:
    """A name leads where its owner says, and what an address is can be said in many ways."""
    place = plainly(way, "anybody.example", canary.port)
    for each in ANSWERS:
        said = went(way, Try(place, honest, honest.guard(), saying(each)))

        assert is_refusal(said), each
    assert canary.touched() == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("then", [["127.0.0.1"], ["::1"], [HONEST, "127.0.0.1"]])
def test_a_name_that_changes_its_answer_gets_to_where_it_was_allowed_only(
    way: str, then: list[str], honest: Honest, canary: Canary
) -> None:
    """Where one look-up is for the check and another one for the connection, it gets inside."""
    place = plainly(way, "changing.example", canary.port)
    lookup = saying([HONEST], then)
    with receiving(lambda _: Reply(204), host=HONEST, port=canary.port):
        tried = Try(place, honest, honest.guard(), lookup, seconds=2.0)
        said = [went(way, tried) for _ in range(3)]

    assert canary.touched() == 0
    assert not is_refusal(said[0])
    assert is_refusal(said[-1])


@pytest.mark.parametrize("way", OVER_HTTP)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_no_redirect_leads_inside(way: str, status: int, honest: Honest, canary: Canary) -> None:
    """Whoever runs a destination decides what it answers."""
    left = locations(canary.port)
    with receiving(lambda _: redirect(status, left[-1]), host=HONEST) as there:
        guard = honest.guard(ports=[there.port])
        while left:
            said = went(way, Try(there.url, honest, guard, system_lookup))
            assert f"answered {status}" in said
            left.pop()

    assert canary.touched() == 0


def locations(port: int) -> list[str]:
    """Answer where an answer may point to; what would end its line is not in it."""
    found = [each.format(port=port) for each in URLS]
    return [each for each in found if each.isprintable()]


def redirect(status: int, location: str) -> Reply:
    more = {"Refresh": f"0; url={location}", "Alt-Svc": f'http/1.1="{location}"', "URI": location}
    return Reply(status, (("Location", location), *more.items()))


# By the API: at every time that a destination is looked at, and of the registry of a collection.


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Platform, Caller]]:
    here = platform(tmp_path)
    here.store.create_collection(collection())
    yield here, Caller(create_app(here), grant(here.store, "admin", "replay", "read"))
    here.store.close()


def records(place: str) -> list[dict[str, Any]]:
    """Answer what a tenant would ask for to have this URL called."""
    honest = "https://billing.example/"
    asks = {"token_url": place.replace("http:", "https:"), "client_id": "we"}
    return [
        {"url": place},
        {"url": honest, "options": {"compare_url": place}},
        {"url": honest, "options": asks, "credentials": {"client_secret": "s"}},
    ]


def buses(place: str) -> list[dict[str, Any]]:
    """Answer what a tenant would ask for to have this host called."""
    return [
        {"url": f"kafka://{place}/topic"},
        {"url": f"kafka://billing.example:9092,{place}/topic"},
        {"url": f"amqp://{place}/", "secret": "a:b"},
        {
            "url": f"sqs+http://{place}/000000000000/queue",
            "options": {"region": "here"},
            "secret": "a:b",
        },
    ]


NAMED = re.compile(r"localhost|ⓛⓞⓒⓐⓛ|\.example[.:]|//example\.com[/?]", re.IGNORECASE)
"""Names are kept: where they lead is known when they are asked for, and refused then."""


def test_the_api_keeps_no_destination_that_is_written_with_an_inside_address(
    api: tuple[Platform, Caller], canary: Canary
) -> None:
    _, caller = api
    kept = []
    wanted = [(url, each) for url in URLS for each in records(url.format(port=canary.port))]
    wanted += [(host, each) for host in SPELLINGS for each in buses(host.format(port=canary.port))]
    for number, (place, each) in enumerate(wanted):
        answer = caller("POST", "/api/v1/destinations", {"name": f"d{number}", **each})
        assert answer.status_code in (201, 400, 422), each
        kept += [place] if answer.status_code == 201 else []

    assert canary.touched() == 0
    assert [each for each in kept if not NAMED.search(each)] == []


def test_what_is_kept_already_is_looked_at_when_it_is_tried_and_previewed(
    api: tuple[Platform, Caller], canary: Canary
) -> None:
    """An operator may have taken an exception back since; names may lead elsewhere since."""
    here, caller = api
    for number, each in enumerate([*URLS, "http://localhost:{port}/x"]):
        place = each.format(port=canary.port)
        for kind, asks in zip("uct", records(place), strict=True):
            name = f"{kind}{number}"
            here.store.add_destination(Destination(team="main", name=name, created_at=0, **asks))
        tried = caller("POST", f"/api/v1/destinations/u{number}/test")
        others = [caller("POST", f"/api/v1/destinations/{o}{number}/test") for o in "ct"]
        wanted = {"collection": "flights", "query": "a:1", "destination": f"u{number}"}
        shown = caller("POST", "/api/v1/replays/preview", wanted)
        planned = caller("POST", "/api/v1/replays/plan", wanted)

        assert tried.status_code == 400 or not tried.json()["delivered"], each
        assert {one.status_code for one in (*others, shown, planned)} <= {200, 400}, each
    assert canary.touched() == 0


def test_the_api_keeps_no_registry_that_is_written_with_an_inside_address(
    api: tuple[Platform, Caller], canary: Canary
) -> None:
    _, caller = api
    for each in URLS:
        url = each.format(port=canary.port)
        wanted = {"name": "avro", "registry": url}
        answer = caller("POST", "/api/v1/collections/flights/format", wanted)
        assert answer.status_code != 200 or NAMED.search(url), url

    assert canary.touched() == 0


# Every test above would notice: what follows are guards that let something through.


@pytest.mark.parametrize("way", WAYS)
def test_every_way_leads_to_the_canary_once_it_is_allowed(
    way: str, honest: Honest, canary: Canary
) -> None:
    """What does not connect at all would pass every test above."""
    guard = honest.guard(Guard, "127.0.0.1", ports=[canary.forbidden])
    for port in (canary.port, canary.forbidden):
        place = plainly(way, "127.0.0.1", port)
        went(way, Try(place, honest, guard, system_lookup, seconds=1.0))

        assert canary.touched() >= 1


class NoGuard(Guard):
    """One that takes every URL as aiohttp reads it, and looks at nothing."""

    def endpoint(self, url: str) -> Endpoint:
        read = URL(url)
        if read.raw_host is None or read.port is None:
            raise AddressRefused("no host")
        return Endpoint(str(read.with_user(None)), read.scheme, read.raw_host, read.port, None)

    def check_address(self, address: Address) -> None:
        """Let it pass."""

    def check_answers(self, host: str, answers: Sequence[str]) -> None:
        """Let them pass."""

    def open_socket(self, info: AddrInfo) -> socket.socket:
        return socket.socket(*info[:3])

    def check_peer(self, place: object) -> None:
        """Let it pass."""


def reached(guard: Guard, honest: Honest, canary: Canary) -> list[str]:
    """Answer the spellings by which the canary is touched, with this guard."""
    found = []
    for each in SPELLINGS:
        url = f"http://{each.format(port=canary.port)}/"
        with suppress(ValueError, TypeError):  # of parsers of URLs
            went("url", Try(url, honest, guard, seconds=0.2))
        found += [each] if canary.touched() else []
    return found


def test_without_a_guard_most_spellings_lead_to_the_canary(honest: Honest, canary: Canary) -> None:
    """Otherwise they are no ways to write its address, and refusing them shows nothing."""
    assert len(reached(honest.guard(NoGuard), honest, canary)) >= 40


class ForgetsLoopback(Guard):
    def check_address(self, address: Address) -> None:
        if address not in ip_network("127.0.0.0/8"):
            super().check_address(address)


class ForgetsIPv6(Guard):
    def check_address(self, address: Address) -> None:
        if address.version == 4:
            super().check_address(address)


class ForgetsMapped(Guard):
    def check_address(self, address: Address) -> None:
        if address.version == 4 or address.ipv4_mapped is None:
            super().check_address(address)


class ForgetsUnspecified(Guard):
    def check_address(self, address: Address) -> None:
        if not address.is_unspecified:
            super().check_address(address)


class ForgetsNames(NoGuard):
    """One that looks at the text only."""

    def endpoint(self, url: str) -> Endpoint:
        return Guard.endpoint(self, url)

    def check_address(self, address: Address) -> None:
        return Guard.check_address(self, address)


class ForgetsOddNumbers(NoGuard):
    """One that knows an address only where Python's own parser does."""

    def endpoint(self, url: str) -> Endpoint:
        found = super().endpoint(url)
        with suppress(ValueError):
            Guard.check_address(self, ip_address(found.host))
        return found


MUTANTS: dict[type[Guard], str] = {
    ForgetsLoopback: "127.0.0.1:{port}",
    ForgetsIPv6: "[::1]:{port}",
    ForgetsMapped: "[::ffff:127.0.0.1]:{port}",
    ForgetsUnspecified: "0.0.0.0:{port}",
    ForgetsNames: "inside.example:{port}",
    ForgetsOddNumbers: "0x7f000001:{port}",
}


@pytest.mark.parametrize(("mutant", "spelling"), MUTANTS.items())
def test_a_guard_that_forgets_one_class_of_spellings_is_found(
    mutant: type[Guard], spelling: str, honest: Honest, canary: Canary
) -> None:
    if mutant is ForgetsIPv6 and not HAS_IPV6:
        pytest.skip("this machine has no IPv6")

    assert spelling in reached(honest.guard(mutant), honest, canary)


def test_a_client_that_follows_redirects_is_found(canary: Canary) -> None:
    left = locations(canary.port)

    async def main(url: str) -> None:
        timeout = aiohttp.ClientTimeout(0.2)
        while left:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                with suppress(aiohttp.ClientError, ValueError, TimeoutError):
                    await session.post(url)
            left.pop()

    with receiving(lambda _: redirect(307, left[-1]), host=HONEST) as there:
        asyncio.run(main(there.url))

    assert canary.touched() >= 20
