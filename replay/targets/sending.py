"""A process that sends events to one HTTP destination, and what is said to it.

`replay.targets.spread` starts it and says everything through its standard input, a socket: first
the destination with its credentials, which so stand in no argument and no environment, then one
message after the other. It answers what became of each, and decides nothing.

When the socket ends, whoever started it is gone or has no need of it. It ends then, too: at once,
whatever is under way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_network
from typing import Literal, NamedTuple, cast

import msgspec
import uvloop

from penstock.clock import machine_clock, steady_seconds
from penstock.envelope import CollectionId
from penstock.guard import Guard
from penstock.metadata.records import Destination
from replay.request import HeaderMode
from replay.targets import Delivered, Failed, Message, Outcome, Retry, Skipped, Target
from replay.targets.posted import open_posted

MOST_SECONDS = 2.0
"""What was handed over longer ago is not begun: less than a sender's lease goes on behind the
moment in which it stops to send, so nothing is begun in the time of its successor."""

HELD_UP = Retry("a process that sends was held up")

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send to, and how: what `open_posted` is told, and the guard's exceptions."""

    destination: Destination
    networks: tuple[str, ...]
    ports: tuple[int, ...]
    replay_id: str
    collection: CollectionId
    headers: HeaderMode
    marked: bool
    timeout: float
    begins_within: float = MOST_SECONDS

    def __repr__(self) -> str:
        """Say no more than the destination does, which may have credentials."""
        return f"Begin({self.destination!r})"


class Handed(NamedTuple):
    """A message, its number, and when it was handed over."""

    number: int
    at: float
    message: Message


class Answered(NamedTuple):
    """What became of a message: the parts of an outcome."""

    number: int
    word: Literal["delivered", "retry", "failed", "skipped"]
    status: int | None = None
    reason: str = ""
    after: float | None = None
    differs: str | None = None


def parts_of(number: int, outcome: Outcome) -> Answered:
    """Answer an outcome as it is told."""
    match outcome:
        case Delivered(status, differs):
            return Answered(number, "delivered", status, differs=differs)
        case Retry(reason, status, after):
            return Answered(number, "retry", status, reason, after)
        case Failed(reason, status, differs):
            return Answered(number, "failed", status, reason, differs=differs)
        case Skipped(status):
            return Answered(number, "skipped", status)


def outcome_of(told: Answered) -> Outcome:
    """Answer the outcome that was told."""
    match told.word:
        case "delivered":
            return Delivered(told.status, told.differs)
        case "retry":
            return Retry(told.reason, told.status, told.after)
        case "failed":
            return Failed(told.reason, told.status, told.differs)
        case "skipped":
            return Skipped(told.status)


class Frames(asyncio.Protocol):
    """Frames over a stream, each behind its length. What is said in one moment goes together."""

    def __init__(self, heard: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._heard, self._ended = heard, ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._said: list[bytes] = []
        self._rest = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, _: Exception | None) -> None:
        """Tell that there is nobody any more."""
        self._ended()

    def data_received(self, data: bytes) -> None:
        """Tell of each frame that is whole."""
        rest = self._rest
        rest += data
        start, end = 0, len(rest)
        while end - start >= _LENGTH.size:
            stop = start + _LENGTH.size + _LENGTH.unpack_from(rest, start)[0]
            if stop > end:
                break
            self._heard(bytes(rest[start + _LENGTH.size : stop]))
            start = stop
        del rest[:start]

    def say(self, frame: bytes) -> None:
        """Send a frame, with the others of this moment."""
        if not self._said:
            self._loop.call_soon(self._flush)
        self._said += (_LENGTH.pack(len(frame)), frame)

    def close(self) -> None:
        """Let go of the stream."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        said, self._said = self._said, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(said))


class _Work:
    """Opens the destination, and sends what is handed over."""

    def __init__(self) -> None:
        self.frames = Frames(self._heard, _end)
        self._target: Target | None = None
        self._begins_within = MOST_SECONDS
        self._read = msgspec.msgpack.Decoder(Handed).decode
        self._under_way: set[asyncio.Task[None]] = set()

    def _heard(self, frame: bytes) -> None:
        if self._target is None:
            begin = msgspec.msgpack.decode(frame, type=Begin)
            self._target, self._begins_within = opened(begin), begin.begins_within
            self.frames.say(b"")
            return
        handed = self._read(frame)
        if steady_seconds() - handed.at > self._begins_within:
            self._say(handed.number, HELD_UP)
            return
        task = asyncio.ensure_future(self._send(self._target, handed))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, target: Target, handed: Handed) -> None:
        [outcome] = await target.send([handed.message])
        self._say(handed.number, outcome)

    def _say(self, number: int, outcome: Outcome) -> None:
        self.frames.say(_encode(parts_of(number, outcome)))


def opened(begin: Begin) -> Target:
    """Answer the destination, ready to be sent to."""
    return open_posted(
        begin.destination,
        guard=Guard(tuple(map(ip_network, begin.networks)), begin.ports),
        replay_id=begin.replay_id,
        collection=begin.collection,
        clock=machine_clock,
        headers=begin.headers,
        marked=begin.marked,
        timeout=begin.timeout,
    )


def _end() -> None:
    os._exit(0)


async def _serve(line: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: _Work().frames, sock=line)
    await loop.create_future()


def main() -> None:
    """Send until the socket ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(socket.socket(fileno=0)))


if __name__ == "__main__":
    main()
