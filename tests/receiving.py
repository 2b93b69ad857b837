"""A small HTTP server that answers as it is told and keeps what it was sent.

Runs in a thread of the test, or as a process of its own that counts: ``python receiving.py PORT``.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import httptools
import uvloop

How = Literal["answer", "hang", "reset", "slow body", "garbage", "break off", "endless body"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What to do with a request."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    how: How = "answer"


@dataclass(frozen=True, slots=True)
class Request:
    """What was sent: the headers as they stood on the wire."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key.decode().lower() == name:
                return value.decode()
        return None

    def names(self) -> list[str]:
        return [key.decode() for key, _ in self.headers]


@dataclass
class Receiver:
    """What a server got, and how it answers."""

    port: int = 0
    host: str = "127.0.0.1"
    answer: Callable[[Request], Reply] = field(default=lambda _: Reply())
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    seconds: float = 0.0
    open: set[asyncio.BaseTransport] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/in"


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        receiver.connections += 1
        self._receiver = receiver
        self._number = receiver.connections
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._receiver.open.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._receiver.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._path = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method().decode(),
            self._path.decode(),
            tuple(self._headers),
            b"".join(self._body),
            self._number,
        )
        self._receiver.requests.append(request)
        reply = self._receiver.answer(request)
        if self._receiver.seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self._receiver.seconds, self._reply, reply)
        else:
            self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        write = self._transport.write
        lines = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        start = f"HTTP/1.1 {reply.status} X\r\n{lines}"
        match reply.how:
            case "answer":
                head = f"{start}content-length: {len(reply.body)}\r\n\r\n"
                write(head.encode() + reply.body)
            case "hang":
                pass
            case "reset":
                self._transport.abort()
            case "garbage":
                write(b"what?\r\n\r\n")
            case "break off":
                write(f"{start}content-length: 1000\r\n\r\nno more".encode())
                self._transport.close()
            case "slow body":
                write(f"{start}content-length: 1000\r\n\r\n".encode())
                self._drip()
            case "endless body":
                write(f"{start}transfer-encoding: chunked\r\n\r\n".encode())
                self._flood()

    def _drip(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b".")
            asyncio.get_running_loop().call_later(0.05, self._drip)

    def _flood(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"4000\r\n" + b"." * 0x4000 + b"\r\n")
            asyncio.get_running_loop().call_later(0.001, self._flood)


@contextmanager
def receiving(
    answer: Callable[[Request], Reply] = lambda _: Reply(),
    *,
    seconds: float = 0.0,
    port: int = 0,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Iterator[Receiver]:
    """Serve on this machine, in a thread, until the block ends."""
    receiver = Receiver(port, host, answer, seconds=seconds)
    loop = asyncio.new_event_loop()

    async def serve() -> asyncio.Server:
        return await loop.create_server(lambda: _Connection(receiver), host, port, ssl=tls)

    server = loop.run_until_complete(serve())
    receiver.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        asyncio.run_coroutine_threadsafe(_hang_up(server, receiver), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _hang_up(server: asyncio.Server, receiver: Receiver) -> None:
    # What was accepted just now is a task first, and an open connection once that has ended;
    # the task of a server that is closed leaves its socket open.
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    if accepting := asyncio.all_tasks() - {asyncio.current_task()}:
        _, hanging = await asyncio.wait(accepting, timeout=1)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
    server.close()
    while receiver.open:
        for transport in receiver.open:
            transport.abort()
        await asyncio.sleep(0.001)


async def _count(port: int) -> None:
    receiver = Receiver(port)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(receiver), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - for who started us
    while True:
        await asyncio.sleep(1)
        receiver.requests.clear()


if __name__ == "__main__":
    uvloop.run(_count(int(sys.argv[1])))
