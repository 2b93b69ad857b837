"""Requests and answers on guarded connections of one URL, for destinations that speak HTTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from http import HTTPStatus
from typing import cast

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from yarl import URL

from penstock.guard import Guard, GuardedResolver, Lookup

CONNECT_SECONDS = 5.0

_CONNECT = aiohttp.ClientTimeout(connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)


class Wire:
    """Requests and answers on the connections of one URL.

    Connections, TLS and the reading of answers are aiohttp's. Its session and request are left
    out: what they do for any request anew (URL, cookies, redirects, a task for the body) took more
    than half of the time of a replay, and here it is decided already.
    """

    def __init__(
        self,
        url: URL,
        guard: Guard,
        lookup: Lookup,
        *,
        method: str = "POST",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._seen: set[object] = set()
        self._connector = aiohttp.TCPConnector(
            limit=0,  # the sender bounds what is in flight
            resolver=cast("AbstractResolver", GuardedResolver(guard, lookup)),
            socket_factory=guard.open_socket,
        )
        # Says where to connect to, and is not sent.
        self._where = aiohttp.ClientRequest(
            method, url, loop=asyncio.get_running_loop(), ssl=tls or True
        )
        self._start = (
            f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {self._where.headers['Host']}\r\n"
        )

    async def connect(self) -> Connection:
        """Answer a connection that is free, or a new one."""
        try:
            return await self._connector.connect(self._where, [], _CONNECT)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error

    def check(self, connection: Connection) -> None:
        """Look at the other end before a byte is written; raise `AddressRefused`."""
        peer = connection.transport.get_extra_info("peername") if connection.transport else None
        if peer not in self._seen:
            self._guard.check_peer(peer)
            self._seen.add(peer)

    async def exchange(
        self, connection: Connection, headers: Iterable[tuple[str, str]], body: bytes
    ) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        """Send one request; answer what came back, its body still to be read."""
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        lines = "".join([f"{name}: {text}\r\n" for name, text in headers])
        head = f"{self._start}{lines}Content-Length: {len(body)}\r\n\r\n"
        transport.writelines((head.encode(), body))
        while True:
            answer, rest = await protocol.read()
            if answer.code // 100 != 1 or answer.code == HTTPStatus.SWITCHING_PROTOCOLS:
                return answer, rest

    def let_go(self, connection: Connection) -> None:
        """Keep the connection for the next request if both sides are through with this one."""
        transport = connection.transport
        if transport is None or transport.get_write_buffer_size():
            connection.close()
        else:
            # It is closed, too, if it broke or has an answer that was not read to its end.
            connection.release()

    async def close(self) -> None:
        """Close every connection."""
        await self._connector.close()
