"""The address guard: which addresses an outbound call may reach.

A destination is text that somebody typed, and its name leads wherever its owner's name server says,
at every look-up anew. So three things are checked, and nothing is left between them: the URL
(`Guard.endpoint`: scheme, port, host, and the address itself where the host is one), every answer
of the resolver (`GuardedResolver`), and the socket address about to be connected
(`Guard.open_socket`; aiohttp asks no resolver about a literal address). `Guard.check_peer` looks
once more at the connection that came of it.

An address passes if it is public. Only the operator makes exceptions (``allow_networks``,
``allow_ports``); nothing that a tenant can write does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypedDict

import idna

from penstock.errors import AddressRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Ask a name server: host and port to the texts of all addresses. Raises `OSError` for none."""

AddrInfo = tuple[Any, Any, Any, str, tuple[Any, ...]]
"""What `socket.getaddrinfo` answers: family, type, protocol, canonical name, socket address."""

_DEFAULT_PORT = {"http": 80, "https": 443}
# Kafka's are among the last ones.
_PORTS = frozenset({80, 443, *range(8000, 10_000)})

# Python's own `is_global` is asked too; it changed between versions, this list does not.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent, on an address that looks public
        "169.254.0.0/16",  # link local, and most clouds' metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "::/96",  # unspecified, loopback; IPv4-compatible addresses are unwrapped before
        "64:ff9b:1::/48",  # local NAT64, with the IPv4 address wherever that network puts it
        "100::/64",  # discard
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local; a cloud's metadata service at fd00:ec2::254 too
        "fe80::/10",  # link local
        "fec0::/10",  # site local, deprecated
        "ff00::/8",  # multicast
    )
)
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")  # one zero more than a mapped address
_CARRYING = (_COMPATIBLE, _NAT64, _TRANSLATED)
"""Networks whose last 32 bits are an IPv4 address."""

# No space, no control character, no backslash, nothing outside ASCII: what parsers of URLs
# disagree about is refused before one of them sees it. The host alone may be international.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]*)(?P<rest>(?:[/?][!-\"$-\[\]-~]*)?)"
)
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?")
_NAMED = re.compile(r"([^\[\]:@\\%\s\x00-\x1f\x7f]+)(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_HOST = 253
_LONGEST_URL = 2048


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL that passed: `url` is its normal form, and the only one to be used from then on."""

    url: str
    scheme: str
    host: str
    port: int
    literal: Address | None


class _NotConnected(AddressRefused, PermissionError):
    """`AddressRefused` from inside an event loop, which goes on to the next address on OSError."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What the operator allows beside public addresses on ports 80, 443 and 8000 to 9999."""

    allow_networks: tuple[Network, ...] = ()
    allow_ports: tuple[int, ...] = ()

    def endpoint(self, url: str) -> Endpoint:
        """Answer the normal form of an ``http`` or ``https`` URL.

        Raises `AddressRefused` for every other scheme, a port that is not allowed, a user name in
        the URL, a fragment, a host in one of the odd spellings of an address, and an address that
        is not public. A name is not looked up here.
        """
        if len(url) > _LONGEST_URL:
            raise AddressRefused(f"a URL may have {_LONGEST_URL} characters")
        parts = _URL.fullmatch(url)
        if not parts:
            raise AddressRefused(
                "write the URL as http://host[:port]/path or https://…, in printable ASCII "
                "(percent-encode the path), without a fragment"
            )
        scheme = parts["scheme"].lower()
        if scheme not in _DEFAULT_PORT:
            raise AddressRefused(f"{scheme} is not allowed, use http or https")
        host, literal, port = _authority(parts["authority"], _DEFAULT_PORT[scheme])
        self._check_port(port)
        if literal is not None:
            self.check_address(literal)

        shown = f"[{host}]" if ":" in host else host
        place = "" if port == _DEFAULT_PORT[scheme] else f":{port}"
        rest = parts["rest"] if parts["rest"].startswith("/") else f"/{parts['rest']}"
        return Endpoint(f"{scheme}://{shown}{place}{rest}", scheme, host, port, literal)

    def place(self, text: str, *, default_port: int) -> Endpoint:
        """Answer host and port of a server that is not spoken to in HTTP, ``host[:port]``.

        Raises `AddressRefused` as `endpoint` does. Its `url` is the normal form of ``host:port``.
        """
        host, literal, port = _authority(text, default_port)
        self._check_port(port)
        if literal is not None:
            self.check_address(literal)
        shown = f"[{host}]" if ":" in host else host
        return Endpoint(f"{shown}:{port}", "", host, port, literal)

    def with_ports(self, ports: Iterable[int]) -> Guard:
        """Answer a guard that lets these ports pass too."""
        return Guard(self.allow_networks, (*self.allow_ports, *ports))

    def check_address(self, address: Address) -> None:
        """Raise `AddressRefused` unless the address is public or in an allowed network.

        An IPv4 address in an IPv6 one (mapped, translated, compatible, NAT64, 6to4) is judged as
        itself.
        The message does not repeat the address: it may be one that the caller was fishing for.
        """
        inner = unwrapped(address)
        if any(_holds(network, inner) for network in self.allow_networks):
            return
        if not is_public(inner):
            raise AddressRefused("the host leads to an address that is not public")

    def check_answers(self, host: str, answers: Sequence[str]) -> None:
        """Raise `AddressRefused` unless every address that a name leads to passes.

        One bad answer refuses all: a name that leads to both has no honest reason to.
        """
        for answer in answers:
            try:
                self.check_address(ipaddress.ip_address(answer))
            except (ValueError, AddressRefused) as error:
                raise AddressRefused(f"{host} leads to an address that is not public") from error

    def open_socket(self, info: AddrInfo) -> socket.socket:
        """Answer a new socket for this address, not connected; aiohttp's `socket_factory`."""
        family, kind, protocol, _, place = info
        try:
            self.check_peer(place)
        except AddressRefused as error:
            raise _NotConnected(str(error)) from error
        return socket.socket(family, kind, protocol)

    def check_peer(self, place: object) -> None:
        """Raise `AddressRefused` unless a socket address may be spoken to, port included."""
        if not isinstance(place, tuple):  # a Unix socket's path, or a connection that is gone
            raise AddressRefused("the connection has no internet address")
        try:
            address = ipaddress.ip_address(place[0])
        except ValueError as error:
            raise AddressRefused("the connection has no internet address") from error
        self.check_address(address)
        self._check_port(place[1])

    def _check_port(self, port: int) -> None:
        if port not in _PORTS and port not in self.allow_ports:
            raise AddressRefused(f"port {port} is not allowed, use 80, 443 or 8000 to 9999")


class Answer(TypedDict):
    """One address of a host, as aiohttp's `ResolveResult`."""

    hostname: str
    host: str
    port: int
    family: int
    proto: int
    flags: int


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """Ask this machine's resolver."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


class GuardedResolver:
    """aiohttp's resolver: answers the addresses of a host after all of them passed.

    Kept free of aiohttp's types, so that checking a URL does not load it.
    """

    def __init__(self, guard: Guard, lookup: Lookup = system_lookup) -> None:
        self._guard = guard
        self._lookup = lookup

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Answer]:
        """Answer every address of `host`; raise `AddressRefused` if one of them does not pass.

        `family` is aiohttp's wish for IPv4 or IPv6 only. All answers are checked before it is
        granted.
        """
        texts = await self._lookup(host, port)
        self._guard.check_answers(host, texts)
        answers = []
        for text in dict.fromkeys(texts):
            kind = socket.AF_INET6 if ":" in text else socket.AF_INET
            if family in (0, kind):
                flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
                answers.append(
                    Answer(hostname=host, host=text, port=port, family=kind, proto=0, flags=flags)
                )
        if not answers:
            raise OSError(f"{host} has no address")
        return answers

    async def close(self) -> None:
        """Nothing is held."""


async def connected_socket(
    guard: Guard, host: str, port: int, lookup: Lookup = system_lookup
) -> socket.socket:
    """Answer a socket that is connected to a host, each of whose addresses passed.

    Raises `AddressRefused`, or the `OSError` of the last address that was tried.
    """
    answers = await GuardedResolver(guard, lookup).resolve(host, port)
    last = OSError(f"{host} has no address")
    for answer in answers:
        place = (answer["host"], port)
        info = (answer["family"], socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)
        connection = guard.open_socket(info)
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, place)
            guard.check_peer(connection.getpeername())
        except OSError as error:
            connection.close()
            last = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise last


def unwrapped(address: Address) -> Address:
    """Answer the IPv4 address that an IPv6 address carries for a translator, else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    low = int(address) & 0xFFFF_FFFF
    # 0 and 1 are :: and ::1
    if any(address in network for network in _CARRYING) and (address not in _COMPATIBLE or low > 1):
        return IPv4Address(low)
    return address


def is_public(address: Address) -> bool:
    """Tell whether anybody on the internet could reach this address too."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    return address.is_global and not any(_holds(network, address) for network in _NOT_PUBLIC)


def _holds(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def _authority(text: str, default_port: int) -> tuple[str, Address | None, int]:
    """Answer host, its address if it is one, and port; raise `AddressRefused` if in doubt."""
    if "@" in text:
        raise AddressRefused("a URL may not carry a user name or password, give them apart")
    literal: Address | None = None
    if found := _BRACKETED.fullmatch(text):
        try:
            literal = IPv6Address(found[1])
        except ValueError as error:
            raise AddressRefused("what stands in brackets is no IPv6 address") from error
        host = str(literal)
    elif found := _NAMED.fullmatch(text):
        host = _host_name(found[1])
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            literal = _dotted_quad(host)
    else:
        raise AddressRefused("the host cannot be read")
    return host, literal, int(found[2]) if found[2] else default_port


def _host_name(text: str) -> str:
    """Answer a host name in lower-case ASCII, as DNS carries it, without a last dot."""
    try:
        ascii_text = text if text.isascii() else idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise AddressRefused("the host is no international domain name") from error
    host = ascii_text.lower().removesuffix(".")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise AddressRefused("the host is no domain name")
    return host


def _dotted_quad(host: str) -> IPv4Address:
    """Read an address; systems also take 2130706433, 0177.1 and 0x7f.1 for one, we do not."""
    try:
        return IPv4Address(host)
    except ValueError as error:
        raise AddressRefused("write an IPv4 address as four decimal numbers") from error
