"""A load generator that costs little: requests prepared once, sent over kept connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True)
class Load:
    """What a run of the generator saw."""

    requests: int
    wall: float
    latencies: list[float]
    """Seconds, one a request."""


def request(path: str, body: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
    """Prepare a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class _Connection(asyncio.Protocol):
    """Sends one request after the other; an answer ends where its declared length does."""

    def __init__(self, prepared: bytes, stop_at: float, done: asyncio.Future[None]) -> None:
        self._prepared = prepared
        self._stop_at = stop_at
        self._done = done
        self._buffer = b""
        self._sent = 0.0
        self.latencies: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._prepared)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(rest) < length:
            return
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
            self._done.set_exception(RuntimeError(head.split(b"\r\n")[0].decode()))
            return
        self._buffer = b""
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        if now < self._stop_at:
            self._send()
        else:
            self._transport.close()
            self._done.set_result(None)


async def drive(host: str, port: int, prepared: bytes, *, connections: int, seconds: float) -> Load:
    """Send the same request over so many connections for so long."""
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    ends = [loop.create_future() for _ in range(connections)]
    protocols = []
    for done in ends:
        _, protocol = await loop.create_connection(
            lambda done=done: _Connection(prepared, begun + seconds, done), host, port
        )
        protocols.append(protocol)
    await asyncio.gather(*ends)
    latencies = [one for protocol in protocols for one in protocol.latencies]
    return Load(len(latencies), time.perf_counter() - begun, latencies)
