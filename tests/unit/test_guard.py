"""The address guard: what text, resolver and socket may lead to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address, ip_network

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from penstock.errors import AddressRefused
from penstock.guard import Answer, Guard, GuardedResolver, is_public, unwrapped

GUARD = Guard()

# Every way we know of to write an address that is not the public's, and other things that a URL
# parser may take for one. None may come through as text; names are looked up later.
REFUSED = [
    # This machine, written plainly
    "http://127.0.0.1:8080/",
    "http://127.0.0.1:8080",
    "http://127.127.127.127:8080/",
    "http://0.0.0.0:8080/",
    "http://[::1]:8080/",
    "http://[::]:8080/",
    "http://[0:0:0:0:0:0:0:1]:8080/",
    "http://[0000::0001]:8080/",
    # This machine as numbers that systems also understand
    "http://2130706433:8080/",
    "http://0x7f000001:8080/",
    "http://0x7f.1:8080/",
    "http://017700000001:8080/",
    "http://0177.0.0.1:8080/",
    "http://127.1:8080/",
    "http://127.0.1:8080/",
    "http://0:8080/",
    "http://0x0:8080/",
    "http://127.0.0.01:8080/",
    "http://127.0.0.1.:8080x/",
    "http://127.000.000.001:8080/",
    "http://127.0.0.0x1:8080/",
    "http://256.256.256.256/",
    "http://1.2.3.4.5/",
    "http://example.0x7f/",
    # In other scripts: mapped to ASCII before they are looked at
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:8080/",
    "http://①②⑦.⓪.⓪.①:8080/",
    "http://127。0。0。1:8080/",
    "http://\U0001d7d9\U0001d7da\U0001d7df.\U0001d7d8.\U0001d7d8.\U0001d7d9:8080/",
    # IPv4 inside IPv6
    "http://[::ffff:127.0.0.1]:8080/",
    "http://[::ffff:7f00:1]:8080/",
    "http://[::127.0.0.1]:8080/",
    "http://[::ffff:0:127.0.0.1]:8080/",
    "http://[64:ff9b::127.0.0.1]:8080/",
    "http://[64:ff9b::7f00:1]:8080/",
    "http://[64:ff9b:1::7f00:1]:8080/",
    "http://[2002:7f00:1::]:8080/",
    "http://[2002:0a00:0001::1]:8080/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:8080/",
    "http://[::ffff:169.254.169.254]/",
    # Networks that are not public
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.7/",
    "http://203.0.113.9/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[fd00:ec2::254]/",
    "http://[fc00::1]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[100::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    # What parsers of URLs disagree about
    "http://user@93.184.216.34/",
    "http://user:word@example.com/",
    "http://example.com@127.0.0.1:8080/",
    "http://example.com:80@127.0.0.1:8080/",
    "http://127.0.0.1:8080\\@example.com/",
    "http://example.com\\.127.0.0.1/",
    "http://example.com#@127.0.0.1:8080/",
    "http://example.com/#fragment",
    "http://127.0.0.1:8080#.example.com/",
    "http://%31%32%37.0.0.1:8080/",
    "http://example.com%00.127.0.0.1/",
    "http://127.0.0.1%0d%0a:8080/",
    "http:/127.0.0.1:8080/",
    "http:127.0.0.1:8080",
    "//127.0.0.1:8080/",
    "http:///127.0.0.1:8080/",
    " http://93.184.216.34/",
    "http://93.184.216.34/ ",
    "http://exa mple.com/",
    "http://example.com/a b",
    "http://example.com/\r\nHost: a",
    "http://exam\tple.com/",
    "http://example.com/é",
    "http://[::1/",
    "http://::1/",
    "http://[v1.fe80::a]/",
    "http://",
    "http://:8080/",
    "http://./",
    "http://a..b/",
    "http://-a.com/",
    f"http://{'a' * 64}.com/",
    f"http://example.com/{'a' * 3000}",
    # Schemes and ports
    "ftp://93.184.216.34/",
    "file:///etc/passwd",
    "gopher://93.184.216.34/",
    "unix:///run/x.sock",
    "javascript:alert(1)",
    "http://93.184.216.34:22/",
    "http://93.184.216.34:0/",
    "http://93.184.216.34:65536/",
    "http://93.184.216.34:99999/",
    "http://93.184.216.34:/",
    "http://93.184.216.34:80 80/",
    "http://93.184.216.34:+80/",
    "http://93.184.216.34:٨٠/",
    "http://93.184.216.34:7999/",
    "http://93.184.216.34:10000/",
    "",
]

ACCEPTED = {
    "http://93.184.216.34": ("http://93.184.216.34/", "93.184.216.34", 80),
    "HTTPS://Example.COM:443/In?a=%20b": ("https://example.com/In?a=%20b", "example.com", 443),
    "http://example.com:8080/x": ("http://example.com:8080/x", "example.com", 8080),
    "http://example.com.:9999?q": ("http://example.com:9999/?q", "example.com", 9999),
    "https://[2606:2800:220:1::1]/": ("https://[2606:2800:220:1::1]/", "2606:2800:220:1::1", 443),
    "http://bücher.example/": ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80),
    "http://my_service.example/": ("http://my_service.example/", "my_service.example", 80),
    "http://1.example.com/": ("http://1.example.com/", "1.example.com", 80),
    "http://localhost:8080/": ("http://localhost:8080/", "localhost", 8080),
}


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_could_lead_inside_is_refused_as_text(url: str) -> None:
    """The cheapest place to stop it, and the only one that sees literal addresses."""
    with pytest.raises(AddressRefused):
        GUARD.endpoint(url)


@pytest.mark.parametrize("url", ACCEPTED)
def test_an_ordinary_url_passes_in_its_normal_form(url: str) -> None:
    """A guard that refuses everything would pass every other test here."""
    endpoint = GUARD.endpoint(url)

    assert (endpoint.url, endpoint.host, endpoint.port) == ACCEPTED[url]
    assert GUARD.endpoint(endpoint.url) == endpoint, "and the normal form is its own"
    parsed = URL(endpoint.url, encoded=True)
    assert (parsed.raw_host, parsed.port) == (endpoint.host, endpoint.port), "as aiohttp reads it"


def test_what_is_refused_is_not_told_which_address_it_was() -> None:
    """An error that names inside addresses maps the network for whoever asks often enough."""
    for refuse in (
        lambda: GUARD.endpoint("http://10.1.2.3/"),
        lambda: GUARD.check_answers("intern.example", ["10.1.2.3"]),
        lambda: GUARD.check_peer(("10.1.2.3", 80)),
    ):
        with pytest.raises(AddressRefused) as refused:
            refuse()
        assert "10.1.2.3" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.1.2.3:8080/",
        "http://[::ffff:10.1.2.3]:8080/",
        "http://[64:ff9b::10.1.2.3]:8080/",
        "http://10.1.2.3:5000/",
    ],
)
def test_the_operator_makes_exceptions(url: str) -> None:
    """A receiver in the own network is a good destination, if the operator says so."""
    allowing = Guard(allow_networks=(ip_network("10.1.0.0/16"),), allow_ports=(5000,))

    assert allowing.endpoint(url).literal is not None
    with pytest.raises(AddressRefused):
        allowing.endpoint(url.replace("10.1.2.3", "10.2.2.3"))


def test_an_allowed_port_opens_no_address_and_an_allowed_address_no_port() -> None:
    """Two settings, two decisions."""
    with pytest.raises(AddressRefused):
        Guard(allow_ports=(5000,)).endpoint("http://127.0.0.1:5000/")
    with pytest.raises(AddressRefused):
        Guard(allow_networks=(ip_network("127.0.0.0/8"),)).endpoint("http://127.0.0.1:5000/")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_inside_an_ipv6_one(inner: IPv4Address) -> None:
    """Otherwise every refused address has a second, accepted spelling."""
    number = int(inner)
    outer = [
        ip_address(f"::ffff:{inner}"),
        ip_address(f"::ffff:0:{inner}"),
        ip_address((0x64FF9B << 96) | number),
        ip_address((0x2002 << 112) | (number << 80)),
    ]
    assert {unwrapped(address) for address in outer} == {inner}
    assert not is_public(ip_address((0x64FF9B0001 << 80) | number))


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_never_public(address) -> None:
    """Our list is there for what Python's versions disagree about, not to overrule it."""
    if is_public(unwrapped(address)):
        assert unwrapped(address).is_global
        assert not unwrapped(address).is_multicast


@given(st.text(max_size=40).map(lambda text: f"http://{text}/"))
def test_any_text_is_refused_or_read_as_aiohttp_reads_it(url: str) -> None:
    """Two parsers that read two hosts in one URL are how guards are passed."""
    try:
        endpoint = GUARD.endpoint(url)
    except AddressRefused:
        return
    parsed = URL(endpoint.url, encoded=True)
    assert (parsed.raw_host, parsed.port, parsed.user) == (endpoint.host, endpoint.port, None)
    assert endpoint.url.isascii()


def lookup_of(*answers: Sequence[str]):
    """Answer a name server that gives these answers, one after the other, the last for ever."""
    left = list(answers)

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return lookup


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["127.0.0.1", "93.184.216.34"],
        ["93.184.216.34", "::1"],
        ["93.184.216.34", "fe80::1%eth0"],
        ["93.184.216.34", "::ffff:10.0.0.1"],
        ["93.184.216.34", "no address"],
    ],
)
def test_one_bad_answer_of_the_resolver_refuses_the_host(answers: list[str]) -> None:
    """A name that leads to both would be connected to whichever answers first."""
    resolver = GuardedResolver(GUARD, lookup_of(answers))

    with pytest.raises(AddressRefused):
        asyncio.run(resolver.resolve("mixed.example", 80, socket.AF_INET))


def test_good_answers_of_the_resolver_are_given_with_the_family_asked_for() -> None:
    """The addresses given are the addresses checked: nothing is looked up a second time."""
    resolver = GuardedResolver(GUARD, lookup_of(["93.184.216.34", "2606:2800:220:1::1"]))

    both = asyncio.run(resolver.resolve("good.example", 443))
    only = asyncio.run(resolver.resolve("good.example", 443, socket.AF_INET6))

    assert [(a["host"], a["port"]) for a in both] == [
        ("93.184.216.34", 443),
        ("2606:2800:220:1::1", 443),
    ]
    assert [a["host"] for a in only] == ["2606:2800:220:1::1"]


@pytest.mark.parametrize("port", [8080, 22])
def test_a_socket_is_made_for_good_addresses_only(port: int) -> None:
    """The last look: aiohttp asks no resolver about literals, and names change their answers."""
    inside = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    outside = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 8080))

    with pytest.raises(AddressRefused):
        GUARD.open_socket(inside)
    with pytest.raises(OSError, match="not public"):
        GUARD.open_socket(inside)
    GUARD.open_socket(outside).close()


@pytest.mark.parametrize("peer", [None, "/run/some.sock", ("127.0.0.1", 8080), ("what", 80)])
def test_a_connection_to_no_public_address_is_not_spoken_on(peer: object) -> None:
    """Whatever made it: the other end is looked at once more before a byte is written."""
    with pytest.raises(AddressRefused):
        GUARD.check_peer(peer)


class Unguarded(GuardedResolver):
    """A resolver that was asked before the name changed its answer, so to speak."""

    async def resolve(self, host: str, port: int = 0, family: int = 0):
        return [Answer(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)]


async def fetched(urls: Sequence[str], guard: Guard, resolver: GuardedResolver) -> list[str]:
    """Ask for URLs by aiohttp, with resolver and socket guarded but not the URL's text."""
    answered = []
    for url in urls:
        connector = aiohttp.TCPConnector(resolver=resolver, socket_factory=guard.open_socket)
        async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
            try:
                async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)):
                    answered.append(url)
            except (aiohttp.ClientError, AddressRefused, ValueError, TimeoutError):
                continue
    return answered


@asynccontextmanager
async def listening(host: str, port: int = 0) -> AsyncIterator[tuple[int, list[str]]]:
    """Answer the port of a small HTTP server, and the list of those who connected to it."""
    visitors: list[str] = []

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(str(writer.get_extra_info("peername")))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(visited, host, port)
    yield server.sockets[0].getsockname()[1], visitors
    server.close()
    await server.wait_closed()


def test_no_spelling_reaches_a_listener_on_this_machine_even_without_the_check_of_the_url() -> None:
    """Resolver and socket have to hold alone: a URL may come from elsewhere one day."""

    async def main() -> None:
        async with listening("127.0.0.1") as (port, visitors):
            urls = [url.replace(":8080", f":{port}") for url in REFUSED if ":8080" in url]
            assert len(urls) >= 30
            guard = Guard(allow_ports=(port,))
            answers = lookup_of(["127.0.0.1"])
            assert await fetched(urls, guard, GuardedResolver(guard, answers)) == []
            assert await fetched([f"http://a.example:{port}/"], guard, Unguarded(guard)) == []
            assert visitors == []

    asyncio.run(main())


def test_a_name_that_changes_its_answer_reaches_what_was_allowed_and_nothing_else() -> None:
    """DNS rebinding: the first answer passes, the next one leads inside."""

    async def main() -> None:
        async with (
            listening("127.0.0.1") as (port, inside),
            listening("127.0.0.2", port) as (
                _,
                outside,
            ),
        ):
            guard = Guard(allow_networks=(ip_network("127.0.0.2/32"),), allow_ports=(port,))
            changing = GuardedResolver(guard, lookup_of(["127.0.0.2"], ["127.0.0.1"]))
            urls = [f"http://rebinding.example:{port}/{number}" for number in range(4)]

            assert await fetched(urls, guard, changing) == urls[:1]
            assert (len(outside), inside) == (1, [])

    asyncio.run(main())
