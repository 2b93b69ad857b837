"""The cache on local disk: one JSON file, replaced as a whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from penstock.cache import DOOR_LASTS, LOOK_SECONDS
from penstock.errors import EngineUnavailable
from penstock.metadata.records import Known

log = structlog.get_logger()

FORMAT = 1


class _File(msgspec.Struct, frozen=True):
    format: int
    known: Known


class _Door(msgspec.Struct, frozen=True):
    name: str
    digest: str


_decoder = msgspec.json.Decoder(_File)


class EmbeddedCache:
    """Keeps the promise of `Cache` in ``<folder>/known.json``, readable by this user only.

    Doors say what they go by in ``<folder>/doors``, one file a door.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._file = self._folder / "known.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._unreadable: tuple[tuple[int, int, int], str] | None = None
        self._complained: str | None = None
        self._known: Known | None = None
        self._digest = ""

    lag = LOOK_SECONDS

    def publish(self, ask: Callable[[], Known]) -> None:
        """Replace the file in one step, durably."""
        with self._alone():
            self._write(ask())

    def _write(self, known: Known) -> None:
        body = msgspec.json.format(msgspec.json.encode(_File(FORMAT, known)), indent=1)
        if self._holds(body):
            return
        # A name of one's own: what a publisher that was killed left behind is not in the way.
        fresh = self._folder / f"known.{os.getpid()}.{threading.get_ident()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(fresh, flags, 0o600), "wb") as out:
                out.write(body)
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(self._file)
            _sync_folder(self._folder)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            raise EngineUnavailable(f"the cache cannot be written: {error.strerror}") from error

    def _holds(self, body: bytes) -> bool:
        """Say whether that is what is there: readers need not take it for something new."""
        try:
            return self._file.read_bytes() == body
        except OSError:
            return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one publisher at a time ask and write; the folder itself is the lock."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise EngineUnavailable(f"the cache cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def read(self) -> Known | None:
        """Look whether the file is another one than last time; decode it only then."""
        with self._lock:
            try:
                self._refresh()
            except (OSError, _Unreadable) as error:
                if self._known is None:
                    raise EngineUnavailable(
                        f"the cache {self._file} cannot be read ({error}); "
                        "the platform writes it anew when it starts"
                    ) from error
                self._complain(str(error))
            return self._known

    def listen(self, told: Callable[[], None]) -> None:
        """Never call: the file is looked at when it is read."""

    def seen(self, door: str) -> None:
        """Write a file for the door, or touch it."""
        doors = self._folder / "doors"
        file = doors / f"{hashlib.sha256(door.encode()).hexdigest()[:32]}.json"
        fresh = file.with_suffix(".new")
        try:
            doors.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.write_bytes(msgspec.json.encode(_Door(door, self._digest)))
            fresh.replace(file)
        except OSError as error:
            self._complain(f"a door cannot say what it goes by: {error.strerror}")

    def doors(self) -> Mapping[str, bool]:
        """Read the files of the doors that were written lately; others are removed."""
        found: dict[str, bool] = {}
        try:
            current = _digest(self._file.read_bytes()) if self._file.exists() else ""
            for file in sorted((self._folder / "doors").glob("*.json")):
                if time.time() - file.stat().st_mtime > DOOR_LASTS:
                    file.unlink(missing_ok=True)
                    continue
                door = msgspec.json.decode(file.read_bytes(), type=_Door)
                found[door.name] = door.digest == current
        except FileNotFoundError:
            return found  # a door's file was removed in this moment
        except (OSError, msgspec.MsgspecError) as error:
            raise EngineUnavailable(f"the doors cannot be counted: {error}") from error
        return found

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _complain(self, reason: str) -> None:
        # Once a reason: a door looks twice a second.
        if reason != self._complained:
            self._complained = reason
            log.warning("cache not readable, going on with the last one", reason=reason)

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return
        # A replaced file has another inode or, where that was given out again, another time.
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        # What was in vain once is not tried again with the same file: every refused request asks.
        if self._unreadable and self._unreadable[0] == seen:
            raise _Unreadable(self._unreadable[1])
        content = self._file.read_bytes()
        try:
            known = _known(content)
        except _Unreadable as error:
            self._unreadable = seen, str(error)
            raise
        self._seen, self._known, self._complained = seen, known, None
        self._digest = _digest(content)


class _Unreadable(Exception):
    pass


def _known(content: bytes) -> Known:
    try:
        file = _decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise _Unreadable(str(error)) from error
    if file.format != FORMAT:
        raise _Unreadable(f"it has format {file.format}, this release reads {FORMAT}")
    return file.known


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
