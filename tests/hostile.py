"""Clients that send a door the worst, many at once, in a process of their own beside a test."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pyarrow as pa
from door_builders import BOUND, UNKNOWN
from lakes import begin_process

MIB = 1 << 20
HOST = "127.0.0.1"

_PATIENCE = 3.0
"""So long, in seconds, an attack waits for answers, or takes over its bytes."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_POSITIONS = re.compile(rb'"positions":(\[\[[\d,\[\]]*\]\])')


@dataclass
class Told:
    """What the clients did, and what they were told."""

    attacks: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    """As many as were sent whole, and as connections that sent less."""
    answers: Counter[str] = field(default_factory=Counter)
    """The statuses of HTTP and the codes of gRPC."""
    kept: list[list[int]] = field(default_factory=list)
    """Of what was acknowledged: partition, first offset, and the one after the last."""

    def __add__(self, other: Told) -> Told:
        """Add what others did."""
        return Told(
            self.attacks + other.attacks,
            self.requests + other.requests,
            self.answers + other.answers,
            self.kept + other.kept,
        )


def attack_in_process(
    folder: Path, ports: Sequence[int], clients: int, seconds: float, seed: int
) -> None:
    """Attack the door with so many clients at once, so long; leave what they were told."""
    begin_process(None)
    told = asyncio.run(_attack(ports, clients, seconds, seed))
    (folder / f"hostile-{seed}").write_text(json.dumps(vars(told)))


def read_told(folder: Path) -> Told:
    """Answer what all clients were told."""
    parts = (json.loads(file.read_text()) for file in folder.glob("hostile-*"))
    return sum(
        (
            Told(Counter(p["attacks"]), p["requests"], Counter(p["answers"]), p["kept"])
            for p in parts
        ),
        Told(),
    )


async def _attack(ports: Sequence[int], clients: int, seconds: float, seed: int) -> Told:
    told, loads, until = Told(), _loads(), asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            one = _Client(ports, told, random.Random(f"{seed} {number}"), loads)
            group.create_task(one.until(until))
    return told


def _head(*lines: bytes, token: str = BOUND, keep: bool = False) -> bytes:
    begin = (
        b"POST /v1/events/flights HTTP/1.1",
        b"Host: door",
        b"Authorization: Bearer " + token.encode(),
        b"Connection: " + (b"keep-alive" if keep else b"close"),
    )
    return b"\r\n".join([*begin, *lines, b"", b""])


def _post(body: bytes, *lines: bytes, token: str = BOUND, keep: bool = False) -> bytes:
    return _head(*lines, b"Content-Length: %d" % len(body), token=token, keep=keep) + body


def _loads() -> dict[str, list[bytes]]:
    """Answer whole requests by what is wrong with them."""
    lines, text = b"Content-Type: application/x-ndjson", b"Content-Type: application/json"
    zeros, many = bytes(15 * MIB), b"{}\n" * 300_000
    packed: list[tuple[bytes, bytes]] = []
    for data in (zeros, many, b"[" * 5 * MIB):
        packed += [(b"gzip", gzip.compress(data)), (b"zstd", _zstd(data))]
    packed += [(coding, data * 200) for coding, data in packed[:2]]
    packed += [(b"gzip", _zstd(zeros)), (b"gzip", gzip.compress(zeros)[:-9])]
    packed += [(b"zstd", b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(MIB)), (b"br", b"x"), (b"\xff", b"x")]
    deep = [b"[" * MIB, b'{"a":' * 200_000, b'{"a":[' * 100_000 + b"1"]
    odd = [b'"\xff\xfe"', '{"n": "ü"}'.encode("utf-16"), b'{"n": "\\ud800"}', bytes(1_000)]
    wide = [b'{"n": "%s"}' % (b"y" * 900_000), b"{}\n" * 50_001, b"1\n" * 2_000]
    return {
        "bombs": [_post(body, lines, b"Content-Encoding: " + coding) for coding, body in packed],
        "deep nesting": [_post(body, kind) for body in deep for kind in (lines, text)],
        "wrong encodings": [
            _post(body, kind)
            for body in odd
            for kind in (lines, text, b"Content-Type: application/json; charset=utf-16", b"\xff: x")
        ],
        "large bodies": [_post(body, lines) for body in wide],
        "huge headers": [
            _head(*(b"x%d: y" % n for n in range(20_000))),
            _head()[:-2] + b"x: " + b"y" * MIB,
            _head(b"Idempotency-Key: " + b"i" * 60_000, b"Content-Length: 0"),
        ],
        "tiny requests": [_post(b"{}", keep=True) * 200 + _post(b"1")],
        "wrong tokens": [_post(b"{}", token=UNKNOWN, keep=True) * 200 + _post(b"1", token="\xff")],
        "wrong lengths": [
            _head(b"Content-Length: -1"),
            _head(b"Content-Length: 9", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
            _head(b"Transfer-Encoding: chunked") + b"zz\r\nhello\r\n0\r\n\r\n",
            _head(b"Transfer-Encoding: chunked") + b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n",
        ],
    }


def _zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


class _Client:
    """One client, who does one thing after the other."""

    def __init__(
        self,
        ports: Sequence[int],
        told: Told,
        chance: random.Random,
        loads: dict[str, list[bytes]],
    ) -> None:
        self._http, self._grpc = ports
        self._told, self._chance, self._loads = told, chance, loads
        self._ways: dict[str, Callable[[], Awaitable[None]]] = {
            "endless bodies": self._endless,
            "slow senders": self._slow,
            "half-open connections": self._half,
            "garbage": self._garbage,
            "garbage on gRPC": self._garbage_grpc,
            "calls without a message": self._idle_call,
            "messages of garbage": self._messages,
        }

    async def until(self, moment: float) -> None:
        """Attack until then."""
        loop = asyncio.get_running_loop()
        while loop.time() < moment:
            what = self._chance.choice([*self._loads, *self._ways])
            self._told.attacks[what] += 1
            if what in self._ways:
                await self._ways[what]()
            else:
                load = self._chance.choice(self._loads[what])
                await self._say(self._http, [load], requests=load.count(b" HTTP/1.1\r\n"))

    async def _say(
        self,
        port: int,
        pieces: Iterable[bytes],
        *,
        pause: float = 0.0,
        requests: int = 1,
        listen: bool = True,
    ) -> None:
        """Send the pieces, then listen until the door closes; leave without a word."""
        self._told.requests += requests
        heard = b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    with suppress(ConnectionError):
                        for piece in pieces:
                            writer.write(piece)
                            await writer.drain()
                            await asyncio.sleep(pause)
                    while listen and (part := await reader.read(MIB)):
                        heard += part
                finally:
                    writer.transport.abort()
        self._told.answers.update(f"HTTP {int(status)}" for status in _STATUS.findall(heard))
        for positions in _POSITIONS.findall(heard):
            self._told.kept += json.loads(positions)

    async def _endless(self) -> None:
        piece = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        whole = (piece for _ in range(1_000))
        await self._say(self._http, [_head(b"Transfer-Encoding: chunked"), *whole])

    async def _slow(self) -> None:
        begin = self._chance.choice([b"POST /v1", _head(b"Content-Length: 900000")])
        await self._say(self._http, [begin, *[b"x"] * 100], pause=0.1)

    async def _half(self) -> None:
        cut = _post(b'{"n": 1}')
        pieces = [cut[: self._chance.randrange(len(cut))]]
        port = self._chance.choice([self._http, self._grpc])
        await self._say(port, pieces, pause=self._chance.random(), listen=False)

    async def _garbage(self) -> None:
        await self._say(self._http, [self._chance.randbytes(50_000)])

    async def _garbage_grpc(self) -> None:
        begin = self._chance.choice([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", _head()])
        await self._say(self._grpc, [begin + self._chance.randbytes(50_000)])

    async def _idle_call(self) -> None:
        async with self._channel() as channel:
            call = channel.stream_unary("/services.GRPCCollector/AddRecord")(
                metadata=(("batch-token", BOUND),)
            )
            await asyncio.sleep(self._chance.random())
            call.cancel()
        self._told.requests += 1

    async def _messages(self) -> None:
        size = self._chance.choice([1, 300, 300, MIB])
        async with self._channel() as channel:
            send = channel.unary_unary("/services.GRPCCollector/AddRecord")
            for _ in range(5):
                token = self._chance.choice([BOUND, BOUND, UNKNOWN])
                message = b"\x0a" + self._chance.randbytes(size)
                try:
                    await send(message, metadata=(("batch-token", token),), timeout=_PATIENCE)
                    code = grpc.StatusCode.OK
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                self._told.requests += 1
                self._told.answers[f"gRPC {code.name}"] += 1

    def _channel(self) -> grpc.aio.Channel:
        own = (("grpc.use_local_subchannel_pool", 1),)
        return grpc.aio.insecure_channel(f"{HOST}:{self._grpc}", options=own)
