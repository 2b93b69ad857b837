"""A real server on a free port, and bytes on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvloop
from door_builders import TOKEN, FailingLog, Reply, door_on, until

from ingest_api.connections import MAX_HEAD_BYTES, MAX_HEADERS, DoorProtocol
from ingest_api.http import HttpDoor
from ingest_api.serve import create_server, listen

HEAD = f"POST /v1/events/flights HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {TOKEN}\r\n"


class HastyProtocol(DoorProtocol):
    """The same with deadlines that a test can wait for."""

    head_seconds = 0.2
    body_seconds = 0.2
    linger_seconds = 0.2


@dataclass
class Wire:
    """One connection: bytes out, replies in."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: str | bytes) -> None:
        """Write bytes."""
        self.writer.write(data.encode() if isinstance(data, str) else data)

    async def reply(self) -> Reply:
        """Read one reply."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(head[0].split()[1]), headers, body)

    def reset(self) -> None:
        """Leave so that the other side cannot take it for the end of what was sent."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def closed(self) -> bool:
        """Say whether the server closes the connection, without another byte."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True


@dataclass
class Running:
    """A server that runs."""

    log: FailingLog
    port: int
    wires: list[Wire]
    connections: Collection[object]

    async def wire(self) -> Wire:
        """Open a connection."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire

    async def ask(self, data: str | bytes) -> Reply:
        """Send bytes on a connection of their own and answer the reply."""
        wire = await self.wire()
        wire.send(data)
        return await wire.reply()


@asynccontextmanager
async def running(
    protocol: type[DoorProtocol], most_connections: int | None
) -> AsyncIterator[Running]:
    log = FailingLog()
    app = HttpDoor(door_on(log), max_held_bytes=1 << 20)
    server = create_server(app, protocol=protocol)
    server.config.limit_concurrency = most_connections
    listening = listen("127.0.0.1", 0)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        await until(lambda: server.started)
        connections = server.server_state.connections
        up = Running(log, listening.getsockname()[1], [], connections)
        try:
            async with asyncio.timeout(10):
                yield up
        finally:
            for wire in up.wires:
                wire.writer.close()
    finally:
        server.should_exit = True
        await serving


def serve(
    scenario: Callable[[Running], Awaitable[None]],
    *,
    protocol: type[DoorProtocol] = DoorProtocol,
    most_connections: int | None = None,
) -> None:
    """Run the scenario against a server."""

    async def all_of_it() -> None:
        async with running(protocol, most_connections) as server:
            await scenario(server)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_it())


def post(body: bytes, *more: str) -> bytes:
    head = HEAD + "".join(f"{line}\r\n" for line in more)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_connection_serves_one_request_after_the_other() -> None:
    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(post(b"one"))
        first = await wire.reply()
        wire.send(post(b"two") + post(b"three"))
        rest = [await wire.reply(), await wire.reply()]

        assert [reply.status for reply in (first, *rest)] == [202] * 3
        assert server.log.payloads == [b"one", b"two", b"three"]
        assert "server" not in first.headers

    serve(scenario)


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000])
def test_bytes_arrive_as_they_were_sent(size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]

    async def scenario(server: Running) -> None:
        wire = await server.wire()
        data = post(b"\n".join([body[n : n + 900] for n in range(0, size, 900)]))
        for start in range(0, len(data), 7_000):
            wire.send(data[start : start + 7_000])
            await wire.writer.drain()
        assert (await wire.reply()).status in (202, 413)

        lengths = [len(payload) for payload in server.log.payloads]
        assert lengths in ([size], []), "one event, or too large for one"

    serve(scenario)


def test_a_chunked_body_is_one_body_and_has_the_same_limit() -> None:
    async def scenario(server: Running) -> None:
        chunked = HEAD + "Transfer-Encoding: chunked\r\n\r\n"
        good = await server.ask(chunked + "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
        wire = await server.wire()
        wire.send(chunked)
        for _ in range(5):
            wire.send(b"c350\r\n" + b"x" * 50_000 + b"\r\n")
        large = await wire.reply()

        assert (good.status, large.status) == (202, 413)
        assert server.log.payloads == [b"abc"]

    serve(scenario)


def test_a_client_that_asks_first_never_sends_what_is_refused() -> None:
    async def scenario(server: Running) -> None:
        refused = await server.ask(HEAD + "Expect: 100-continue\r\nContent-Length: 200001\r\n\r\n")
        wire = await server.wire()
        wire.send(HEAD + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        go_on = await wire.reply()
        wire.send("abc")

        assert refused.status == 413
        assert go_on.status == 100
        assert (await wire.reply()).status == 202
        assert server.log.payloads == [b"abc"]

    serve(scenario)


@pytest.mark.parametrize(
    "data",
    [
        "hello\r\n\r\n",
        "POST /v1/events/flights HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "POST /v1/events/flights HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /v1/ev\xe4nts HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_bytes_that_are_no_http_are_refused_with_a_problem(data: str | bytes) -> None:
    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(data)
        reply = await wire.reply()

        assert (reply.status, reply.json()["title"]) == (400, "Malformed")
        assert reply.headers["content-type"] == "application/problem+json"
        assert await wire.closed()
        assert not server.log.stored

    serve(scenario)


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("piece", [7, 100_000])
def test_a_request_to_upgrade_is_served_as_it_is(protocol: str, piece: int) -> None:
    """Java's own client asks for HTTP/2 with its first POST, and the parser drops that body."""

    async def scenario(server: Running) -> None:
        wire = await server.wire()
        more = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "X-A: 1"]
        data = post(b"x" * 900, *more) + post(b"next")
        for start in range(0, len(data), piece):
            wire.send(data[start : start + piece])
            await asyncio.sleep(0)

        assert [(await wire.reply()).status for _ in range(2)] == [202, 202]
        assert server.log.payloads == [b"x" * 900, b"next"]
        assert server.log.events[0].headers == (("x-a", b"1"),)

    serve(scenario)


def test_a_request_to_connect_is_refused() -> None:
    async def scenario(server: Running) -> None:
        reply = await server.ask("CONNECT door:80 HTTP/1.1\r\nHost: door\r\n\r\n")

        assert reply.status == 400

    serve(scenario)


def test_a_slow_body_gets_408_and_stores_nothing() -> None:
    """A thousand connections that send a byte a second would hold the door for ever."""

    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(HEAD + "Content-Length: 100\r\n\r\nhalf")
        reply = await wire.reply()

        assert (reply.status, reply.json()["title"]) == (408, "Too slow")
        assert await wire.closed()
        assert not server.log.stored

    serve(scenario, protocol=HastyProtocol)


@pytest.mark.parametrize("start", ["", "POST /v1/ev", HEAD])
def test_a_slow_head_is_closed(start: str) -> None:
    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(start)
        assert await wire.closed()

    serve(scenario, protocol=HastyProtocol)


def test_a_slow_second_head_is_closed_too() -> None:
    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(post(b"one"))
        await wire.reply()
        wire.send(HEAD)
        assert await wire.closed()

    serve(scenario, protocol=HastyProtocol)


@pytest.mark.parametrize("lines", [1, 5_000])
def test_a_head_has_a_largest_size(lines: int) -> None:
    """One endless header would otherwise be gathered in memory."""

    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(HEAD)
        for number in range(lines):
            wire.send(f"x-{number}: " + "x" * (4 * MAX_HEAD_BYTES // lines) + "\r\n" * (lines > 1))
        reply = await wire.reply()

        assert (reply.status, reply.json()["status"]) == (431, 431)
        assert await wire.closed()

    serve(scenario)


def test_a_request_has_a_largest_number_of_headers() -> None:
    """64 KiB of tiny ones become megabytes of objects, on each of thousands of connections."""

    async def scenario(server: Running) -> None:
        lines = "".join(f"x{number}:\r\n" for number in range(MAX_HEADERS - 4))
        fine = await server.ask(f"{HEAD}Content-Length: 1\r\n{lines}\r\nx")
        wire = await server.wire()
        wire.send(f"{HEAD}Content-Length: 1\r\n{lines}y:\r\ny:\r\n\r\nx")
        refused = await wire.reply()

        assert (fine.status, refused.status) == (202, 431)
        assert await wire.closed()
        assert server.log.payloads == [b"x"]

    serve(scenario)


@pytest.mark.parametrize("trailer", ["x: y\r\n", "x"])
@pytest.mark.parametrize("token", [TOKEN, "wrong"])
def test_what_follows_a_body_has_a_largest_size(trailer: str, token: str) -> None:
    """Trailers are gathered like headers: without end, in memory, and before any token counts."""

    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(HEAD.replace(TOKEN, token) + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        wire.send("x: ")
        answered = []
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                wire.send(trailer * (10_000 // len(trailer)))
                await wire.writer.drain()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                answered.append((await wire.reply()).status)

        # A reset may overtake the answer.
        assert answered in ([401], [431], [])
        await until(lambda: not server.connections)
        assert not server.log.stored

    serve(scenario)


def test_many_requests_at_once_on_one_connection_are_no_large_head() -> None:
    """They come in one piece, which ends in the midst of the last one's head."""

    async def scenario(server: Running) -> None:
        count = 4 * MAX_HEAD_BYTES // len(post(b"x"))
        wire = await server.wire()
        wire.send(post(b"x") * count + HEAD.encode())
        replies = [(await wire.reply()).status for _ in range(count)]
        wire.send("Content-Length: 1\r\n\r\ny")

        assert {*replies, (await wire.reply()).status} == {202}
        assert len(server.log.payloads) == count + 1

    serve(scenario)


def test_over_the_most_connections_a_new_one_is_asked_to_wait() -> None:
    async def scenario(server: Running) -> None:
        for _ in range(2):
            await server.ask(post(b"x"))
        third = await server.wire()
        reply = await third.reply()

        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert await third.closed()

    serve(scenario, most_connections=2)


def test_a_client_that_leaves_in_its_body_stores_nothing_and_hurts_nobody() -> None:
    async def scenario(server: Running) -> None:
        for _ in range(20):
            wire = await server.wire()
            wire.send(HEAD + "Content-Length: 10\r\n\r\nhalf")
            await wire.writer.drain()
            wire.writer.transport.abort()

        assert (await server.ask(post(b"whole"))).status == 202
        assert server.log.payloads == [b"whole"]

    serve(scenario)


def test_a_client_that_leaves_before_its_answer_has_sent_its_event() -> None:
    """It was whole; that the sender does not know is why ids exist."""

    async def scenario(server: Running) -> None:
        server.log.held = True
        wire = await server.wire()
        wire.send(post(b"whole"))
        await until(lambda: len(server.log.waiting) == 1)
        wire.writer.transport.abort()
        server.log.release()
        server.log.held = False

        assert (await server.ask(post(b"next"))).status == 202
        assert server.log.payloads == [b"whole", b"next"]

    serve(scenario)


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_has_no_more_to_send_gets_its_answers(requests: int) -> None:
    """It ends its side and waits; unanswered it would send the stored event again."""

    async def scenario(server: Running) -> None:
        server.log.held = True
        wire = await server.wire()
        wire.send(post(b"x") * requests)
        await until(lambda: len(server.log.waiting) == 1)
        wire.writer.write_eof()
        # Another one's request is served meanwhile, so the end has arrived.
        assert (await server.ask("GET / HTTP/1.1\r\nHost: door\r\n\r\n")).status == 404
        server.log.held = False
        server.log.release()

        assert [(await wire.reply()).status for _ in range(requests)] == [202] * requests
        assert await wire.closed()

    serve(scenario)


@pytest.mark.parametrize("start", ["POST /v1", HEAD + "Content-Length: 9\r\n\r\nhalf"])
def test_a_client_that_ends_in_the_midst_of_a_request_is_closed(start: str) -> None:
    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send(start)
        wire.writer.write_eof()

        assert await wire.closed()
        assert not server.log.stored

    serve(scenario)


def test_a_client_that_leaves_with_many_requests_open_is_not_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An answer to nobody would be a stack trace in the log, and anybody could fill the disk."""

    async def scenario(server: Running) -> None:
        server.log.held = True
        wire = await server.wire()
        wire.send(post(b"x") * 3)
        await until(lambda: len(server.log.waiting) == 1)
        wire.reset()
        await until(lambda: not server.connections)
        server.log.release()
        server.log.held = False

        assert (await server.ask(post(b"next"))).status == 202
        assert server.log.payloads == [b"x", b"next"]

    serve(scenario)

    assert [record.getMessage() for record in caplog.records] == []


def test_what_comes_after_a_refusal_is_thrown_away_for_a_while() -> None:
    """Closing at once would make a client lose the answer; never closing would keep it for ever."""

    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send("POST /v1/events/flights HTTP/1.1\r\nContent-Length: 5\r\n\r\n12")
        assert (await wire.reply()).status == 401
        wire.send("345" + post(b"next").decode())
        assert (await wire.reply()).status == 202

        endless = await server.wire()
        endless.send("POST /v1/events/flights HTTP/1.1\r\nContent-Length: 99\r\n\r\n1")
        assert (await endless.reply()).status == 401
        endless.send("2")
        assert await endless.closed()

        assert server.log.payloads == [b"next"]

    serve(scenario, protocol=HastyProtocol)


def test_a_connection_that_rests_after_a_refusal_gets_no_second_answer() -> None:
    """The body came whole, only later than the refusal: nothing is slow."""

    async def scenario(server: Running) -> None:
        wire = await server.wire()
        wire.send("POST /v1/events/flights HTTP/1.1\r\nContent-Length: 5\r\n\r\n12")
        assert (await wire.reply()).status == 401
        wire.send("345")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * HastyProtocol.body_seconds):
                await wire.reader.read(1)
        wire.send(post(b"next"))

        assert (await wire.reply()).status == 202

    serve(scenario, protocol=HastyProtocol)


def test_many_connections_at_once_get_their_own_answers() -> None:
    async def scenario(server: Running) -> None:
        async def one(number: int) -> tuple[int, str]:
            reply = await server.ask(post(b"%d" % number, f"Idempotency-Key: n{number}"))
            return reply.status, json.loads(reply.body)["ids"][0]

        replies = await asyncio.gather(*(one(number) for number in range(100)))

        assert replies == [(202, f"n{number}") for number in range(100)]
        assert len(server.log.stored) == 100

    serve(scenario)
