"""An HTTP destination to which several processes send.

The replay's own process reads, decides and keeps the books: it hands a message over when it may
go, and hears what became of it. So everything that is promised of a replay is kept where it was,
and what is here is a destination like any other (docs/decisions/0057-processes-that-send.md).
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from penstock.clock import steady_seconds
from replay.targets import Failed, Message, Outcome, Retry, Target
from replay.targets.sending import Answered, Begin, Frames, Handed, outcome_of

log = structlog.get_logger()

ENDED = Retry("the process that sent it ended")

FIRST = 2_000
"""So many events are sent before a process is started: it costs a second of CPU."""

_START_SECONDS = 120.0
# One that has not answered long after an attempt's time is over is ended.
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 1.0
# Nothing of the platform's settings is of use there, and some are secret.
_SECRET = ("PENSTOCK_", "AWS_")

_encode = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(Answered).decode


class _Sent(NamedTuple):
    at: float
    answer: asyncio.Future[Outcome]


class _Process:
    """A process that sends: `ready` while it may be given messages, `over` when it has ended.

    One that has `sent` was ready once.
    """

    def __init__(self, begin: bytes) -> None:
        self.ready = self.sent = self.over = False
        self.pending: dict[int, _Sent] = {}
        self._frames = Frames(self._heard, self._ended)
        self._number = 0
        self._begun = asyncio.Event()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "replay.targets.sending"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(os.environ),
                # Ctrl-C is for the replay, which ends this one.
                start_new_session=True,
            )
        self._start = asyncio.ensure_future(self._say_where(ours, begin))

    async def _say_where(self, line: socket.socket, begin: bytes) -> None:
        """Return when it may be given messages, or has ended."""
        await asyncio.get_running_loop().create_connection(lambda: self._frames, sock=line)
        self._frames.say(begin)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._begun.wait()
        except TimeoutError:
            self.kill()

    async def ask(self, message: Message) -> Outcome:
        """Hand a message over; answer what became of it."""
        self._number = number = self._number + 1
        at = steady_seconds()
        try:
            frame = _encode(Handed(number, at, message))
        except UnicodeEncodeError:
            return Failed("the event cannot be handed over: it has text that is none")
        sent = _Sent(at, asyncio.get_running_loop().create_future())
        self.pending[number] = sent
        self._frames.say(frame)
        return await sent.answer

    def is_late(self, seconds: float) -> bool:
        """Say whether a message was handed over longer ago than that, without an answer."""
        first = next(iter(self.pending.values()), None)
        return first is not None and steady_seconds() - first.at > seconds

    def kill(self) -> None:
        """End it; what was handed over is told as unanswered."""
        self._process.kill()

    async def end(self) -> None:
        """Wait until it has ended, which it does by itself or was told."""
        await self._start
        self._frames.close()
        self._process.kill()  # its socket may end before it does
        await asyncio.to_thread(self._process.wait)

    def _heard(self, frame: bytes) -> None:
        if not self.ready:
            self.ready = self.sent = True
            self._begun.set()
            return
        told = _read(frame)
        answer = self.pending.pop(told.number).answer
        # Whoever asked may have been cancelled.
        if not answer.done():
            answer.set_result(outcome_of(told))

    def _ended(self) -> None:
        self.ready, self.over = False, True
        self._begun.set()
        pending, self.pending = self.pending, {}
        for _, answer in pending.values():
            if not answer.done():
                answer.set_result(ENDED)


class SpreadTarget:
    """Has so many processes send to one destination. Used by one event loop.

    `target` is the same destination in this process. It sends the first events, so that nothing is
    started for a few, and whatever comes while no process is ready. In the place of a process that
    ends, or does not answer any more, comes another one; what it had in hand is answered with
    `Retry`.
    """

    most = 1
    ordered = False

    def __init__(self, target: Target, begin: Begin, *, count: int, first: int = FIRST) -> None:
        self._target = target
        self._begin = _encode(begin)
        self._late = begin.timeout + _GRACE_SECONDS
        self._missing = count
        self._first = first
        self._processes: list[_Process] = []
        self._watch: asyncio.Task[None] | None = None

    def check(self, message: Message) -> Failed | None:
        """Say what the destination says here."""
        return self._target.check(message)

    async def examine(self) -> str | None:
        """Say what the destination says here."""
        return await self._target.examine()

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Have each message sent by the process that has the least to do."""
        outcomes: list[Outcome] = []
        for message in messages:
            if ready := self._ready():
                outcomes.append(await min(ready, key=_load).ask(message))
            else:
                outcomes += await self._target.send([message])
        return outcomes

    async def close(self) -> None:
        """End the processes, with what is under way in them."""
        if self._watch is not None:
            self._watch.cancel()
        processes, self._processes = self._processes, []
        for process in processes:
            process.kill()
        for process in processes:
            await process.end()
        await self._target.close()

    def _ready(self) -> Sequence[_Process]:
        """Answer the processes that may be given a message."""
        if self._watch is None:
            if self._first > 0:
                self._first -= 1
                return ()
            self._start()
            self._watch = asyncio.ensure_future(self._look())
        return [each for each in self._processes if each.ready]

    def _start(self) -> None:
        while self._missing:
            self._missing -= 1
            try:
                self._processes.append(_Process(self._begin))
            except OSError as error:
                log.warning("a process that sends cannot be started", error=str(error))

    async def _look(self) -> None:
        """Now and then, end what does not answer and start what is missing."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for process in [*self._processes]:
                if process.is_late(self._late):
                    log.warning("a process that sends does not answer, and is ended")
                    process.kill()
                if process.over:
                    self._processes.remove(process)
                    await process.end()
                    # What cannot even start will not the next time.
                    self._missing += process.sent
                    log.warning("a process that sends has ended", replaced=process.sent)
            self._start()


def _load(process: _Process) -> int:
    return len(process.pending)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in ours.items() if not name.startswith(_SECRET)}
