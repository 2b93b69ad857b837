"""The processes that callers' statements run in, seen from the platform."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import msgspec
import pyarrow as pa
import structlog

from lakehouse.sql import worker
from lakehouse.sql.worker import END, FAILED, ROWS, Begin, S3Access, Task

log = structlog.get_logger()

INTERRUPTED = "INTERRUPT Error"
OUT_OF_MEMORY = "Out of Memory Error"

# The engine stops within milliseconds where it can; whoever does not is ended.
_GRACE_SECONDS = 1.0
_START_SECONDS = 60.0

# One costs half a second to start and 120 MB to keep.
_KEPT = 4
_IDLE_SECONDS = 60.0


# The engine makes settings of AWS's variables, which a statement can read.
_SECRET = ("PENSTOCK_", "AWS_")


class StatementFailed(Exception):
    """What the engine said about a statement. It may name files."""


class _EndedError(Exception):
    """The process is gone."""


class Results:
    """The rows of a statement as they come. `truncated` is known once all have come."""

    schema: pa.Schema

    def __init__(self, answers: IO[bytes]) -> None:
        self.truncated = False
        self.over = False
        self._answers = answers

    def begin(self) -> None:
        """Wait for the first rows, or for what they look like; raise `StatementFailed`."""
        self.schema, _ = self._next()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Answer the rows, some at a time; raise `StatementFailed`."""
        while not self.over:
            yield from self._next()[1]

    def _next(self) -> tuple[pa.Schema, list[pa.RecordBatch]]:
        frame = worker.read_frame(self._answers)
        match frame:
            case (kind, content) if kind == ROWS:
                with pa.ipc.open_stream(pa.py_buffer(content)) as stream:
                    return stream.schema, list(stream)
            case (kind, content) if kind == END:
                self.over, self.truncated = True, content == worker.TRUNCATED
                return pa.schema([]), []
            case (kind, content) if kind == FAILED:
                self.over = True
                raise StatementFailed(content.decode())
            case _:
                raise _EndedError


class _Worker:
    """A process, and the folder for what it spills."""

    def __init__(self, folder: Path, begin: Begin) -> None:
        self.begin = begin
        self.ready = False
        self.late = False
        self.idle_until: threading.Timer | None = None
        self._folder = folder
        # Nothing of the platform's settings is of use there, and some are secret.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_SECRET)}
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-P", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Other allocators reserve memory that counts against the limit.
            env=environment | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
            # Ctrl-C is for the platform, which ends this one.
            start_new_session=True,
        )
        # Both were asked for above.
        self._tasks = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        self._say(begin)

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> None:
        """Return when it is ready for tasks."""
        if not self.ready and worker.read_frame(self._answers) is None:
            raise _EndedError
        self.ready = True

    def ask(self, task: Task) -> Results:
        self._say(task)
        return Results(self._answers)

    @contextmanager
    def killed_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        self.late = True
        self._process.kill()

    def end(self) -> int:
        """Let go of the process and its files; answer how it ended."""
        if self.idle_until is not None:
            self.idle_until.cancel()
        self._process.kill()
        with suppress(BrokenPipeError), self._process:
            pass
        shutil.rmtree(self._folder, ignore_errors=True)
        return self._process.returncode

    def _say(self, what: Begin | Task) -> None:
        # One that has ended is noticed when it does not answer.
        with suppress(BrokenPipeError):
            worker.write_frame(self._tasks, b"t", msgspec.msgpack.encode(what))


class Workers:
    """Processes for statements, each of one set of folders. Threads may share it."""

    def __init__(self, folder: Path, *, memory: int, threads: int) -> None:
        self._folder = folder
        self._memory = memory
        self._threads = threads
        self._guard = threading.Lock()
        self._made = 0
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._closed = False

    @contextmanager
    def run(
        self, folders: tuple[str, ...], task: Task, s3: S3Access | None = None
    ) -> Iterator[Results]:
        """Answer the rows of a task by a process that can read these folders and nothing else.

        With `s3` they are prefixes of an object store.

        Raises `StatementFailed`, also in the block. The process is ended when the time is over,
        or when the block does not want the rest.
        """
        one = self._taken(folders, s3)
        results: Results | None = None
        try:
            with one.killed_after(_START_SECONDS):
                one.wait()
            with one.killed_after(task.seconds + _GRACE_SECONDS):
                results = one.ask(task)
                results.begin()
                yield results
        except _EndedError:
            if not one.ready:
                raise StatementFailed("a process for statements could not be started") from None
            raise StatementFailed(INTERRUPTED if one.late else OUT_OF_MEMORY) from None
        finally:
            self._given_back(one, healthy=results is not None and results.over)

    def close(self) -> None:
        """End every process."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
            for one in self._busy:
                one.kill()
        for one in idle:
            one.end()

    def _taken(self, folders: tuple[str, ...], s3: S3Access | None) -> _Worker:
        with self._guard:
            for one in self._idle:
                # One that was given another key, since renewed, is left to its end.
                if (one.begin.folders, one.begin.s3) == (folders, s3) and one.alive():
                    self._idle.remove(one)
                    self._busy.append(one)
                    if one.idle_until is not None:
                        one.idle_until.cancel()
                    return one
            self._made += 1
            folder = self._folder / f"worker-{self._made}"
            one = _Worker(folder, Begin(folders, str(folder), self._memory, self._threads, s3))
            self._busy.append(one)
        return one

    def _given_back(self, one: _Worker, *, healthy: bool) -> None:
        with self._guard:
            self._busy.remove(one)
            surplus = [one]
            if healthy and not one.late and not self._closed:
                self._idle.append(one)
                surplus = [self._idle.pop(0)] if len(self._idle) > _KEPT else []
                one.idle_until = threading.Timer(_IDLE_SECONDS, self._let_go, [one])
                one.idle_until.daemon = True
                one.idle_until.start()
        for other in surplus:
            ended = other.end()
            if not healthy and not one.late:
                log.info("a process for statements was ended", status=ended)

    def _let_go(self, one: _Worker) -> None:
        with self._guard:
            if one not in self._idle:
                return
            self._idle.remove(one)
        one.end()
