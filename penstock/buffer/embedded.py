"""The embedded log: segment files in a folder, made durable by group commit.

`EmbeddedAppender` is the door's side: it takes events from any thread and lets one thread write.
`penstock.buffer.frames` has the layout, `penstock.buffer.segments` the rules of the folder.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from penstock.buffer.files import Disk, Files
from penstock.buffer.published import this_boot
from penstock.buffer.reader import EmbeddedBuffer
from penstock.buffer.weight import weight
from penstock.buffer.writer import Parcel, Writer
from penstock.codec import encode
from penstock.envelope import Clock, CollectionId, Event, Micros, Position
from penstock.errors import LogDamaged, LogUnavailable, Overloaded
from penstock.faults import fault

__all__ = ["EmbeddedAppender", "EmbeddedBuffer"]

log = structlog.get_logger()

Outcome = Sequence[Position | Exception]

# 8 MiB take about 25 ms to the disk; more in one group only makes the first of them wait.
_GROUP_BYTES = 8 << 20
# A frame is read and checked as one: small enough for a page of search, large enough for landing.
_FRAME_BYTES = 1 << 20


@dataclass(slots=True, eq=False)
class _Call:
    """One call of `append`, waiting to be durable."""

    collection: CollectionId
    events: Sequence[Event]
    size: int
    future: Future[Outcome]


def uptime() -> int:
    """Answer microseconds that only ever grow: retention must not follow a clock that was set."""
    return time.monotonic_ns() // 1000


class EmbeddedAppender:
    """The one writer of the log in a folder; a call of `append` is durable whole or not at all."""

    def __init__(
        self,
        folder: str | Path,
        *,
        max_waiting_bytes: int = 64 << 20,
        segment_bytes: int = 64 << 20,
        files: Files | None = None,
        clock: Clock = uptime,
        trim_seconds: float = 60.0,
        boot: UUID | None = None,
    ) -> None:
        """Take the log, or make one.

        Raises `BadSetting` while another process holds it, `LogDamaged` if something that was
        durable cannot be read, and `LogUnavailable` if the disk does not let it. `files` and
        `boot` are for tests.
        """
        self._max_waiting = max_waiting_bytes
        self._clock = clock
        self._trim_seconds = trim_seconds
        try:
            self._writer = Writer(
                Path(folder),
                files=files or Disk(),
                boot=boot or this_boot(),
                new_log_id=uuid4(),
                segment_bytes=segment_bytes,
            )
        except OSError as error:
            raise LogUnavailable(f"the log in {folder} cannot be opened: {error}") from error
        self._queue: deque[_Call] = deque()
        self._waiting = 0
        self._closed = False
        self._idle = False
        self._failing = False
        self._changed = threading.Condition(threading.Lock())
        self._trimming = threading.Lock()
        self._stop = threading.Event()
        # Daemons: a process that ends without `close` has acknowledged nothing that it lost.
        self._threads = [
            threading.Thread(target=self._commit_groups, name="log committer", daemon=True),
            threading.Thread(target=self._trim_regularly, name="log trimmer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def append(self, collection: CollectionId, events: Sequence[Event]) -> Future[Outcome]:
        """Queue the events; the future answers their positions once they are durable."""
        if not events:
            raise ValueError("append takes at least one event")
        future: Future[Outcome] = Future()
        size = weight(events)
        refusal: Exception
        with self._changed:
            if self._closed:
                refusal = LogUnavailable("the log is closed")
            elif self._waiting and self._waiting + size > self._max_waiting:
                refusal = Overloaded(f"{self._waiting:,} bytes wait for the log already")
            else:
                self._queue.append(_Call(collection, events, size, future))
                self._waiting += size
                if self._idle:
                    self._changed.notify()
                return future
        future.set_exception(refusal)
        return future

    def trim(self, now: Micros) -> int:
        """Let go of segments nobody needs; answer how many. Done every minute by itself."""
        with self._trimming:
            return self._writer.trim(now)

    def close(self) -> None:
        """Make durable what was appended, then let go of the log."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._writer.close()

    def _trim_regularly(self) -> None:
        while not self._stop.wait(self._trim_seconds):
            try:
                self.trim(self._clock())
            except (OSError, LogDamaged) as error:
                log.warning("log not trimmed, will try again", error=str(error))

    def _commit_groups(self) -> None:
        while calls := self._next_group():
            self._commit(calls)
            with self._changed:
                self._waiting -= sum(call.size for call in calls)

    def _next_group(self) -> list[_Call]:
        """Wait for calls; answer none when the log is closed and all is done."""
        with self._changed:
            while not self._queue and not self._closed:
                self._idle = True
                self._changed.wait()
                self._idle = False
            calls: list[_Call] = []
            size = 0
            while self._queue and size < _GROUP_BYTES:
                call = self._queue.popleft()
                calls.append(call)
                size += call.size
            return calls

    def _commit(self, calls: Sequence[_Call]) -> None:
        """Make a group durable, then answer each of its calls."""
        # From here on nobody can cancel the rest; a call that was cancelled is not written.
        wanted = [call for call in calls if call.future.set_running_or_notify_cancel()]
        written: list[Sequence[_Call]] = []
        try:
            firsts = self._writer.commit(_parcels(wanted, written))
            self._recovered()
            fault("before_ack")
        except Exception as error:  # noqa: BLE001 - whatever it was, these callers have to be told
            self._failed(error, wanted)
            return
        for together, offset in zip(written, firsts, strict=True):
            first = offset
            for call in together:
                end = first + len(call.events)
                call.future.set_result([Position(0, n) for n in range(first, end)])
                first = end

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            log.info("the log makes events durable again")

    def _failed(self, error: Exception, calls: Sequence[_Call]) -> None:
        if not self._failing:
            self._failing = True
            log.error("the log cannot make events durable", error=repr(error))
        for call in calls:
            if call.future.done():
                continue
            refusal = LogUnavailable("the log cannot make anything durable now")
            refusal.__cause__ = error
            call.future.set_exception(refusal)


def _together(calls: Sequence[_Call]) -> list[list[_Call]]:
    """Sort the calls of a group into frames, in their order, of about `_FRAME_BYTES`."""
    shared: list[list[_Call]] = []
    filling: dict[CollectionId, tuple[list[_Call], int]] = {}
    for call in calls:
        frame, size = filling.get(call.collection, ([], 0))
        if not frame or size + call.size > _FRAME_BYTES:
            frame, size = [], 0
            shared.append(frame)
        frame.append(call)
        filling[call.collection] = frame, size + call.size
    return shared


def _parcels(calls: Sequence[_Call], written: list[Sequence[_Call]]) -> Iterator[Parcel]:
    """Yield the frames of a group, and note for each the calls in it.

    A call that cannot be encoded fails alone.
    """
    for together in _together(calls):
        for part, block in _encoded(together):
            written.append(part)
            yield Parcel(part[0].collection, block, sum(len(call.events) for call in part))


def _encoded(calls: Sequence[_Call]) -> list[tuple[Sequence[_Call], bytes]]:
    events = calls[0].events if len(calls) == 1 else [e for call in calls for e in call.events]
    try:
        return [(calls, encode(events))]
    except Exception as error:  # noqa: BLE001 - it goes to the caller who gave the event
        if len(calls) > 1:
            return [alone for call in calls for alone in _encoded([call])]
        calls[0].future.set_exception(error)
        return []
