"""What the door's HTTP server does about connections, beyond what uvicorn does.

- Over `limit_concurrency` connections a new one is told 503 with `Retry-After` and closed.
- The head of a request has `head_seconds` to arrive whole, from the first of its bytes (for the
  first request, from the opening of the connection), and may have `MAX_HEADERS` and
  `MAX_HEAD_BYTES`, and what came in one piece with the request before. What frames a body and is
  none of it (trailers, mostly) has the same limits.
- The body has `body_seconds` from there; who is slower gets 408.
- After an answer that did not wait for the whole body, what is still coming is thrown away for
  `linger_seconds`: closing at once would make the client lose the answer.
- An idle connection is closed by uvicorn, after `timeout_keep_alive`.
- Bytes that are no HTTP are answered with a problem document like everything else.
- A client that ends its side once it has sent everything gets the answers it waits for.
- A request that asks to upgrade the connection is served without. The parser throws its body away
  (and Java's own client asks for h2c with its first POST: an empty event would be stored), so it is
  parsed again without that header.
- Where the client leaves, the request that is being answered is told, not only the last one that
  was read: an answer on a closed connection is an error with a stack trace in the log.

Timers are set only for what did not arrive in one piece: most requests need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingest_api.answers import Answer, problem_answer, refusal
from penstock.errors import Malformed, Overloaded, TooSlow
from penstock.problem import Problem

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 500
_HEAD_TOO_LARGE = problem_answer(
    Problem(
        431,
        "Request header fields too large",
        f"a request may have {MAX_HEADERS:,} headers and {MAX_HEAD_BYTES:,} bytes of them",
        None,
        {},
    )
)


class _TooManyHeaders(Exception):
    """Stops the parser."""


class DoorProtocol(HttpToolsProtocol):
    """One connection to the door."""

    head_seconds = 10.0
    body_seconds = 30.0
    linger_seconds = 10.0

    _deadline: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None
    _in_head = True
    _progressed = False
    _in_body = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request, or refuse the connection."""
        super().connection_made(transport)
        most, self.limit_concurrency = self.limit_concurrency, None
        if most is not None and len(self.connections) > most:
            self._refuse(refusal(Overloaded("too many connections are open")))
        else:
            self._after(self.head_seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline; let nobody answer any more."""
        self._disarm()
        if self._answering and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Say whether the connection stays open although the client has no more to send.

        It does as long as requests that are whole wait for their answers; with the last of these
        it is closed.
        """
        cycle = self.cycle
        if self._in_body or cycle is None or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Read on; look at the size and the time of what is not whole yet."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._progressed = False
        self._feed(data)
        if self.transport.is_closing() or not (self._in_head or self._in_body):
            return
        # Where in the data a head or a trailer begins, the parser does not say.
        self._head_bytes = 0 if self._progressed else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._deadline is None:
            if self._in_head:
                self._after(self.head_seconds, self.transport.close)
            else:
                self._after(self.body_seconds, self._refuse_slow_body)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.parser.get_method() == b"CONNECT":
                self.send_400_response("")
            else:
                self._feed_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooManyHeaders):
                self._refuse_head()
            else:
                self.send_400_response("")

    def _feed_without_upgrade(self, rest: bytes) -> None:
        """Parse the head again without the header that the parser stopped at, then the rest."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn sets it: requests after one that closes the connection are not an error.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(b"\r\n".join([*lines, b"", rest]))

    def on_message_begin(self) -> None:
        """Note that a head is coming."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer; the parser is stopped at one too many."""
        if len(self.headers) == MAX_HEADERS:
            raise _TooManyHeaders
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Note that the body goes on."""
        self._progressed = True
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Note that the head is whole."""
        if self.parser.should_upgrade():
            return
        self._in_head = False
        self._progressed = True
        self._in_body = True
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the body is whole."""
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Give the rest of a body that nobody wants a little time to pass."""
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete:
            self._after(self.linger_seconds, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP; uvicorn's own text is plain."""
        del msg
        self._refuse(refusal(Malformed("this is no HTTP request that can be read")))

    def _refuse_head(self) -> None:
        """Refuse what is too large, in front of a body or behind it."""
        if self._in_body and self.cycle.response_complete:
            self.transport.close()
        else:
            self._refuse(_HEAD_TOO_LARGE)

    def _refuse_slow_body(self) -> None:
        # The application waits for the body, so nothing has been answered.
        seconds = f"{self.body_seconds:g}"
        self._refuse(refusal(TooSlow(f"the body did not arrive within {seconds} seconds")))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, act)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, answer: Answer) -> None:
        """Answer outside any request, then close."""
        self._disarm()
        headers = (
            *answer.headers,
            (b"content-length", b"%d" % len(answer.body)),
            (b"connection", b"close"),
        )
        status = HTTPStatus(answer.status)
        lines = [b"HTTP/1.1 %d %s" % (status.value, status.phrase.encode())]
        lines += [name + b": " + value for name, value in headers]
        self.transport.write(b"\r\n".join([*lines, b"", answer.body]))
        self.transport.close()
