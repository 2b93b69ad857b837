"""The cache on local disk: one JSON file, replaced as a whole."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from penstock.errors import EngineUnavailable
from penstock.metadata.records import Known

log = structlog.get_logger()

FORMAT = 1


class _File(msgspec.Struct, frozen=True):
    format: int
    known: Known


_decoder = msgspec.json.Decoder(_File)


class EmbeddedCache:
    """Keeps the promise of `Cache` in ``<folder>/known.json``, readable by this user only."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._file = self._folder / "known.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._unreadable: tuple[tuple[int, int, int], str] | None = None
        self._complained: str | None = None
        self._known: Known | None = None

    def publish(self, known: Known) -> None:
        """Replace the file in one step, durably."""
        body = msgspec.json.format(msgspec.json.encode(_File(FORMAT, known)), indent=1)
        # A name of one's own: two publishers at once must not write into the same file.
        fresh = self._folder / f"known.{os.getpid()}.{threading.get_ident()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
