"""A destination that notes when what came: `python -m benchmarks.timed_receiver PORT`.

It answers a POST after 50 ms, and a GET with what came since the last one: pairs of when the door
received the event, and the seconds at which it came here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import httptools
import uvloop

_ANSWER_SECONDS = 0.05
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
_RECEIVED_AT = "penstock-received-at"


class _Connection(asyncio.Protocol):
    came: list[tuple[str, float]] = []  # noqa: RUF012 - of all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._parser = httptools.HttpRequestParser(self)
        self._received = ""

    def data_received(self, data: bytes) -> None:
        self._at = time.perf_counter()
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.decode().lower() == _RECEIVED_AT:
            self._received = value.decode()

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            body = json.dumps(self.came).encode()
            self.came.clear()
            self._transport.write(_ANSWER % (len(body), body))
            return
        self.came.append((self._received, self._at))
        asyncio.get_running_loop().call_later(
            _ANSWER_SECONDS, self._transport.write, _ANSWER % (2, b"ok")
        )


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
