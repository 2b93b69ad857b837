"""A way to an object store on which requests and answers break, by chance."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

Break = Literal[
    "refusals", "pauses of two seconds", "cut requests", "cut answers", "answers that end early"
]
"""What may become of a request: it is refused before the store has it (503, SlowDown), kept for two
seconds, cut after some of its bytes; or it is passed on, and its answer is cut after some bytes, or
promises more bytes than come."""

_PAUSE = 2.0
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Ask less often.</Message></Error>"
_RESET = struct.pack("ii", 1, 0)

_OF_THE_WAY = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}
"""Headers that say how bytes come, and not what they are."""


class Unsteady:
    """Passes on what comes to `port` to a port of this machine, request by request.

    `often` says how often each break happens, of one in all; nothing breaks unless it says so.
    """

    def __init__(self, to: int, chance: Random) -> None:
        self.often: Mapping[Break, float] = {}
        self.happened: Counter[str] = Counter()
        self.begun_in_parts: list[str] = []
        """The paths of uploads that were begun to be sent in parts."""
        self._chance = chance
        self._guard = threading.Lock()
        self._server = _Server(to, self)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.cut_all()
        self._server.server_close()

    def fate(self) -> Break | None:
        """Answer what becomes of the next request."""
        with self._guard:
            left = self._chance.random()
            for broken, often in self.often.items():
                left -= often
                if left < 0:
                    return broken
        return None

    def some_of(self, whole: bytes) -> bytes:
        """Answer its first bytes, but never all."""
        with self._guard:
            return whole[: self._chance.randrange(len(whole))]

    def did(self, broken: Break) -> None:
        """Count it."""
        with self._guard:
            self.happened[broken] += 1


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, to: int, way: Unsteady) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.to = to
        self.way = way
        self.reset: set[Any] = set()
        self._there: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._there.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._there.discard(request)
        if request in self.reset:
            # Without it the end is orderly, and nobody is told of an error.
            self.reset.discard(request)
            with suppress(OSError):
                request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that meet a break go away."""

    def cut_all(self) -> None:
        for request in list(self._there):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _Answer(NamedTuple):
    head: bytes
    body: bytes


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass(self) -> None:
        way = self.server.way
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        query = self.path.partition("?")[2]
        if self.command == "POST" and query.partition("=")[0] == "uploads":
            way.begun_in_parts.append(self.path)
        match way.fate():
            case "refusals":
                way.did("refusals")
                self._send(self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN))
            case "pauses of two seconds":
                way.did("pauses of two seconds")
                time.sleep(_PAUSE)
                self._send(self._ask(body))
            case "cut requests":
                way.did("cut requests")
                self._ask_in_part(body)
                self._cut()
            case "cut answers":
                answer = self._ask(body)
                way.did("cut answers")
                self.wfile.write(way.some_of(answer.head + answer.body))
                self._cut()
            case "answers that end early" if (answer := self._ask(body)).body:
                way.did("answers that end early")
                self.wfile.write(answer.head + way.some_of(answer.body))
                self.close_connection = True
            case "answers that end early":
                self._send(answer)
            case None:
                self._send(self._ask(body))

    # By these names it is called.
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815

    def _ask(self, body: bytes) -> _Answer:
        """Answer what the store does."""
        with closing(HTTPConnection("127.0.0.1", self.server.to, timeout=60)) as far:
            far.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OF_THE_WAY:
                    far.putheader(name, value)
            far.putheader("Content-Length", str(len(body)))
            far.endheaders(body)
            answer = far.getresponse()
            return self._answer(answer.status, answer.getheaders(), answer.read())

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> _Answer:
        length = str(len(body))
        if self.command == "HEAD":
            length = dict(headers).get("Content-Length", "0")
            body = b""
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _OF_THE_WAY]
        lines += [f"Content-Length: {length}", "", ""]
        return _Answer("\r\n".join(lines).encode("latin-1"), body)

    def _ask_in_part(self, body: bytes) -> None:
        lines = [f"{self.command} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items() if name != "Expect"]
        whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        with socket.create_connection(("127.0.0.1", self.server.to)) as far:
            far.sendall(self.server.way.some_of(whole))
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _send(self, answer: _Answer) -> None:
        self.wfile.write(answer.head + answer.body)

    def _cut(self) -> None:
        self.server.reset.add(self.connection)
        self.close_connection = True

    def handle(self) -> None:
        with suppress(OSError, HTTPException):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
