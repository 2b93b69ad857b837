"""A destination that notes when what came: `python -m benchmarks.timed_receiver PORT`.

It answers a POST after 50 ms, and a GET with what came since the last one: pairs of when the door
received the event, and the seconds at which it came here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from benchmarks.receiver import Connection, serve

_ANSWER_SECONDS = 0.05
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
_RECEIVED_AT = "penstock-received-at"


class _Timed(Connection):
    came: list[tuple[str, float]] = []  # noqa: RUF012 - of all connections

    def data_received(self, data: bytes) -> None:
        self._at = time.perf_counter()
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._received = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.decode().lower() == _RECEIVED_AT:
            self._received = value.decode()

    def on_message_complete(self) -> None:
        if self.parser.get_method() == b"GET":
            body = json.dumps(self.came).encode()
            self.came.clear()
            self.transport.write(_ANSWER % (len(body), body))
            return
        self.came.append((self._received, self._at))
        asyncio.get_running_loop().call_later(
            _ANSWER_SECONDS, self.transport.write, _ANSWER % (2, b"ok")
        )


if __name__ == "__main__":
    uvloop.run(serve(_Timed, int(sys.argv[1])))
