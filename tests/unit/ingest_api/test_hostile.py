"""What strangers, and senders gone wrong, send at the real process.

Whatever it is: no 5xx but 503, the process lives, its memory stays under a cap, and who behaves is
served in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pyarrow as pa
import pytest
from door_builders import BOUND, TOKEN, known
from ports import free_ports
from ugly import FIXED
from wire_records import METHOD_OF, SERVICE

from ingest_api.proto import services_pb2 as s
from penstock.cache import open_cache
from penstock.settings import load_settings

pytestmark = pytest.mark.xdist_group("hostile")

MIB = 1 << 20
MEMORY_CAP = 400 * MIB
HONEST_SECONDS = 5.0
"""Generous: this machine may be busy. An attack that gets through takes for ever."""

DOOR = """
import sys
from pathlib import Path
from ingest_api.serve import serve
from penstock.settings import load_settings
serve(load_settings(Path(sys.argv[1]), {}, http_port=sys.argv[2], grpc_port=sys.argv[3]))
"""


@dataclass(frozen=True)
class Door:
    """A running door."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int

    def connect(self) -> socket.socket:
        """Open a connection that gives up after a while."""
        return socket.create_connection(("127.0.0.1", self.http), timeout=20)

    def statuses(self, *pieces: bytes, patience: float = 20.0) -> list[int]:
        """Send bytes, and answer the statuses that came back until the door closed.

        Where it waits for more, the sender leaves after so many seconds without a word.
        """
        with self.connect() as wire:
            wire.settimeout(patience)
            # The door may close before it has read everything.
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    wire.sendall(piece)
            answer = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                while part := wire.recv(1 << 16):
                    answer += part
        return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)]

    def memory(self) -> int:
        """Answer the memory that the process has now, in bytes."""
        return self._status("VmRSS")

    def forget_peak(self) -> None:
        """Let `peak` begin anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Answer the most memory that the process had since then, in bytes."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) * 1024

    def serves(self) -> None:
        """Fail unless somebody who behaves is served in time, over HTTP and gRPC."""
        begun = time.monotonic()
        with httpx.Client(timeout=20) as client:
            reply = client.post(
                f"http://127.0.0.1:{self.http}/v1/events/flights",
                content=b"{}",
                headers={"Authorization": f"Bearer {TOKEN}"},
            )
        assert reply.status_code == 202
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc}") as channel:
            test = channel.unary_unary(
                "/services.GRPCCollector/Test",
                request_serializer=s.TestRequest.SerializeToString,
                response_deserializer=s.TestResponse.FromString,
            )
            test(s.TestRequest(), metadata=(("batch-token", BOUND),), timeout=20)
        assert time.monotonic() - begun < HONEST_SECONDS


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("home")
    open_cache(load_settings(home, {}).cache).publish(known)
    http, grpc_ = free_ports(2)
    with (home / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", DOOR, str(home), str(http), str(grpc_)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
    door = Door(process, http, grpc_)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None
            try:
                door.connect().close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield door
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    output = (home / "out").read_bytes()
    assert process.returncode == 0, output.decode()
    assert b"unexpectedly" not in output, output.decode()
    assert b"Traceback" not in output, output.decode()
    assert TOKEN.encode() not in output


@pytest.fixture
def door(running: Door, request: pytest.FixtureRequest) -> Iterator[Door]:
    """Answer the door, and look at it after the attack."""
    running.forget_peak()
    yield running
    assert running.process.poll() is None
    running.serves()
    assert running.peak() < getattr(request, "param", MEMORY_CAP)


def head(*lines: bytes, path: bytes = b"/v1/events/flights") -> bytes:
    return b"\r\n".join(
        [
            b"POST " + path + b" HTTP/1.1",
            b"Host: door",
            b"Authorization: Bearer " + TOKEN.encode(),
            b"Connection: close",
            *lines,
            b"",
            b"",
        ]
    )


def post(body: bytes, *lines: bytes) -> bytes:
    return head(*lines, b"Content-Length: %d" % len(body)) + body


def no_failure(statuses: Sequence[int]) -> bool:
    return all(status < 500 or status == 503 for status in statuses)


EVENT = b'{"specversion":"1.0","id":"1","source":"/","type":"t"%s}'
DOCUMENTS = (
    *FIXED,
    *(EVENT % (b"," + part) for part in FIXED),
    *(EVENT % (b',"data":' + part) for part in FIXED),
    *(b"[" + EVENT % b"" + b"," + part + b"]" for part in FIXED),
    EVENT.replace(b'"1"', b'"\\ud800"') % b"",
    EVENT.replace(b'"1"', b'"\xff"') % b"",
    EVENT.replace(b'"1"', b"1e999") % b"",
    EVENT.replace(b'"1"', b"9" * 5_000) % b"",
    EVENT.replace(b'"1"', b'"' + b"i" * 2_000 + b'"') % b"",
    EVENT % b',"time":"9999999999999999999"',
    EVENT % b',"time":-1e400',
    EVENT % b',"time":"0000-00-00T00:00:00Z"',
    EVENT % b',"x":"\\u0000"',
    b"[" + b",".join([EVENT % b""] * 3) + b",",
    b"[" * 3,
    b"[,]",
    b"\n" * 1_000,
    b"\r\n" * 1_000,
    b" \r\n\t\n{}\r\n\r\n{}\n\x00\n",
    b"\r" * 1_000,
    b"{}\n" * 50_001,
    b"\n" * 60_000,
    b"1\n" * 49_999,
)
KINDS = (
    b"application/json",
    b"application/x-ndjson",
    b"application/cloudevents+json",
    b"application/cloudevents-batch+json",
    b"application/cloudevents+json; charset=utf-16",
    b"\xff\xfe",
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_document_breaks_the_door_as_whatever_it_is_declared(door: Door, kind: bytes) -> None:
    """The reader of frames meets deep, cut, and mislabelled text."""
    bad = [
        (document[:60], statuses)
        for document in DOCUMENTS
        if len(statuses := door.statuses(post(document, b"Content-Type: " + kind))) != 1
        or not no_failure(statuses)
    ]

    assert not bad


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


def bombs() -> Iterator[tuple[bytes, bytes]]:
    zeros = bytes(15 * MIB)
    for name, pack in ((b"gzip", gzip.compress), (b"zstd", zstd)):
        bomb = pack(zeros)
        yield name, bomb
        yield name, pack(bomb)
        yield name, bomb * 200
        yield name, bomb[: len(bomb) // 2]
        yield name, bomb[:-1]
        yield name, bomb + b"\x00"
        yield name, pack(b"") * 100_000
        yield name, pack(b"{}\n" * 300_000)
        yield name, pack(b"[" * 5 * MIB)
        yield name, b""
        yield name, b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff" + b"\xff" * MIB
        yield name, b"\x28\xb5\x2f\xfd" + b"\xff" * MIB
        # A window of gigabytes, which a decoder might allocate before it reads a byte.
        yield name, b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(MIB)
        yield name, b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(MIB)
        yield b"gzip, " + name, bomb
    yield b"zstd", gzip.compress(zeros)
    yield b"gzip", zstd(zeros)


def test_bombs_of_every_make_are_refused_in_little_memory(door: Door) -> None:
    answers = [
        door.statuses(post(body, b"Content-Encoding: " + coding, b"Content-Type: " + kind))
        for coding, body in bombs()
        for kind in (b"application/x-ndjson", b"application/octet-stream")
    ]

    assert {len(statuses) for statuses in answers} == {1}
    assert {status for statuses in answers for status in statuses} <= {202, 400, 413, 415}


CHUNKED = head(b"Transfer-Encoding: chunked")
WIRES: dict[str, list[bytes]] = {
    "too short": [head(b"Content-Length: 100"), b"x"],
    "too long": [head(b"Content-Length: 1"), b"xyz" * 1_000],
    "negative": [head(b"Content-Length: -1"), b"x"],
    "two lengths": [head(b"Content-Length: 1", b"Content-Length: 2"), b"xx"],
    "length of letters": [head(b"Content-Length: 0x10"), b"x" * 16],
    "length beyond 64 bits": [head(b"Content-Length: 99999999999999999999999"), b"x"],
    "length and chunks": [head(b"Content-Length: 3", b"Transfer-Encoding: chunked"), b"0\r\n\r\n"],
    "chunk of garbage": [CHUNKED, b"zz\r\nhello\r\n0\r\n\r\n"],
    "chunk too long": [CHUNKED, b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"],
    "chunk cut": [CHUNKED, b"5\r\nhel"],
    "chunk without end": [CHUNKED, b"5\r\nhelloworld\r\n0\r\n\r\n"],
    "chunk extension": [CHUNKED, b"1;" + b"x" * 100_000 + b"\r\na\r\n0\r\n\r\n"],
    "many tiny chunks": [CHUNKED, b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n"],
    "trailers": [CHUNKED, b"1\r\na\r\n0\r\n" + b"x: y\r\n" * 50_000 + b"\r\n"],
    "coding twice": [head(b"Transfer-Encoding: chunked, chunked"), b"0\r\n\r\n"],
    "coding unknown": [head(b"Transfer-Encoding: gzip"), b"x"],
    "header flood": [head(*[b"x%d: y" % n for n in range(100_000)])],
    "header without end": [head()[:-2] + b"x: " + b"y" * MIB],
    "binary header": [head(b"x-bin: \x80\xff\xfe\x01", b"Content-Length: 0")],
    "binary name": [head(b"x-\xff\x80: y", b"Content-Length: 0")],
    "nul header": [head(b"x-nul: a\x00b", b"Content-Length: 0")],
    "binary token": [head(b"Authorization: Bearer \xff\x00\xfe", b"Content-Length: 0")],
    "binary id": [head(b"Idempotency-Key: \xff\xfe\xed\xa0\x80", b"Content-Length: 0")],
    "binary time": [head(b"penstock-event-time: \xff", b"Content-Length: 0")],
    "huge time": [head(b"penstock-event-time: " + b"9" * 10_000, b"Content-Length: 0")],
    "folded header": [head(b"x: a\r\n b", b"Content-Length: 0")],
    "binary path": [head(b"Content-Length: 0", path=b"/v1/events/\xff\x00")],
    "escaped path": [head(b"Content-Length: 0", path=b"/v1/events/%ff%00%2e%2e")],
    "long path": [head(b"Content-Length: 0", path=b"/v1/events/" + b"a" * 60_000)],
    "whole address": [head(b"Content-Length: 0", path=b"http://elsewhere/v1/events/flights")],
    "star": [b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
    "old version": [b"POST /v1/events/flights HTTP/0.9\r\n\r\n"],
    "HTTP/2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64)],
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))],
    "random": [random.Random(7).randbytes(200_000)],
    "nothing": [b""],
    "blank lines": [b"\r\n" * 40_000],
    "many in a row": [head(b"Content-Length: 0").replace(b"close", b"keep-alive") * 2_000],
    "metrics with a body": [b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"],
    "binary CloudEvent": [
        post(b"x", b"ce-specversion: 1.0", b"ce-id: %ff%fe", b"ce-source: \xff", b"ce-type: %")
    ],
}


@pytest.mark.parametrize("name", WIRES)
def test_no_bytes_on_the_wire_break_the_door(door: Door, name: str) -> None:
    assert no_failure(door.statuses(*WIRES[name], patience=0.5))


def test_requests_with_flipped_bytes_break_nothing(door: Door) -> None:
    """Whatever the lists above forgot."""
    chance = random.Random(11)
    whole = (
        post(EVENT % b"", b"Content-Type: application/cloudevents+json"),
        post(
            gzip.compress(b"{}\n{}\n"),
            b"Content-Type: application/x-ndjson",
            b"Content-Encoding: gzip",
        ),
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    )
    bad = []
    for turn in range(600):
        request = bytearray(whole[turn % len(whole)])
        for _ in range(chance.randint(1, 4)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        if not no_failure(door.statuses(bytes(request), patience=0.1)):
            bad.append(bytes(request))

    assert not bad


def test_slow_and_idle_clients_keep_nobody_waiting(door: Door) -> None:
    """Each holds a connection, a few bytes at a time; that must cost the others nothing."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(door.connect()) for _ in range(300)]
        for place, wire in enumerate(wires):
            wire.sendall((b"", b"POST /v1", head(b"Content-Length: 900000") + b"x")[place % 3])
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                for wire in wires[2::3]:
                    with contextlib.suppress(OSError):
                        wire.send(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            for _ in range(3):
                door.serves()
        finally:
            stop.set()
            dripping.join()


def test_a_flood_of_wrong_tokens_keeps_nobody_waiting(door: Door) -> None:
    """Each of them makes the door look at its cache."""
    wrong = head(b"Content-Length: 0").replace(TOKEN.encode(), b"pst_wrong")
    flood = wrong.replace(b"close", b"keep-alive") * 5_000 + wrong
    answers: list[list[int]] = []
    senders = [
        threading.Thread(target=lambda: answers.append(door.statuses(flood))) for _ in range(4)
    ]
    for sender in senders:
        sender.start()
    door.serves()
    for sender in senders:
        sender.join()

    assert {status for statuses in answers for status in statuses} == {401}


async def code_of(channel: grpc.aio.Channel, method: str, message: bytes) -> grpc.StatusCode:
    call = channel.unary_unary(f"/services.GRPCCollector/{method}")
    try:
        await call(message, metadata=(("batch-token", BOUND),), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def to(door: Door) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{door.grpc}",
        options=(("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)),
    )


FINE = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def test_random_bytes_as_messages_are_refused_by_name(door: Door) -> None:
    chance = random.Random(13)

    def messages(method: str) -> Iterator[bytes]:
        record: Any = SERVICE.methods_by_name[method].input_type.fields_by_name["records"]
        yield b""
        yield b"\x0a\x00" * 5_000
        yield b"\x0a" + b"\xff" * 20
        yield b"\x0a\x05hell"
        yield b"\xff" * 1_000
        # One group in the other, as deep as it goes; a parser that recurses would die.
        yield b"\x0b" * 100_000
        for number in range(1, len(record.message_type.fields) + 2):
            for wire_type, value in (
                (0, b"\xff" * 9 + b"\x01"),
                (2, b"\x02\xff\xfe"),
                (2, b"\x00"),
            ):
                field = bytes([(number & 15) << 3 | wire_type]) + value
                yield b"\x0a" + bytes([len(field)]) + field
        for _ in range(40):
            yield chance.randbytes(chance.randint(1, 300))

    async def scenario() -> set[grpc.StatusCode]:
        async with to(door) as channel:
            return {
                await code_of(channel, method, message)
                for method in METHOD_OF.values()
                for message in messages(method)
            }

    assert asyncio.run(scenario()) <= FINE


# Four messages, and of each what arrived, what was parsed, its event and its frame.
@pytest.mark.parametrize("door", [1_600 * MIB], indirect=True)
def test_messages_of_the_largest_size_are_stored_or_told_to_wait(door: Door) -> None:
    """A hundred mebibytes of one record, of empty records, and of garbage, several at a time."""
    size = 100 * MIB - 64
    body = b"\x0a" + varint(size) + bytes(size)
    one = b"\x0a" + varint(len(body)) + body
    messages = (one, b"\x0a\x00" * 200_000, b"\xff" * size, one[: size // 2])

    async def scenario() -> set[grpc.StatusCode]:
        async with to(door) as channel:
            calls = [code_of(channel, "AddRecord", message) for message in messages]
            return set(await asyncio.gather(*calls))

    busy = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    assert asyncio.run(scenario()) <= FINE | busy
    deadline = time.monotonic() + 30
    while (held := door.memory()) > MEMORY_CAP:
        assert time.monotonic() < deadline, f"{held >> 20} MiB of what was taken are not given back"
        time.sleep(0.1)


def varint(number: int) -> bytes:
    digits = b""
    while number > 0x7F:
        digits += bytes([number & 0x7F | 0x80])
        number >>= 7
    return digits + bytes([number])


def test_idle_streams_and_connections_keep_nobody_waiting(door: Door) -> None:
    """A server with a thread for each stream stands still at as many as it has threads."""

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(32):
                channel = await stack.enter_async_context(to(door))
                for _ in range(4):
                    call = channel.stream_unary("/services.GRPCCollector/AddRecord")(
                        metadata=(("batch-token", BOUND),)
                    )
                    stack.callback(call.cancel)
            plain = [await asyncio.open_connection("127.0.0.1", door.grpc) for _ in range(32)]
            plain[0][1].write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 10_000)
            plain[1][1].write(b"POST / HTTP/1.1\r\n\r\n")
            await asyncio.to_thread(door.serves)
            for _, writer in plain:
                writer.close()

    asyncio.run(scenario())


def test_after_all_of_it_the_door_has_lost_nothing(door: Door) -> None:
    """What it held for the attackers is let go of, so that there is room for a full body."""
    line = msgspec.json.encode({"x": "y" * 900_000})
    body = b"\n".join([line] * 17)

    assert door.statuses(post(body, b"Content-Type: application/x-ndjson")) == [202]
