"""The database of our own SQL, made anew when it keeps too much of the files that it read.

DuckDB remembers the metadata of Parquet files where it is told to, which saves a search over 31
files 5 ms a statement. It forgets none before `memory` is full, not even that of files that are
gone, and that takes four times what it counts of it (236 MB where it says 58). There is no way to
forget some.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import structlog

from lakehouse.sql.worker import S3Access, cursor_of, let_in
from penstock.errors import PenstockError

log = structlog.get_logger()

LOOK_SECONDS = 10.0
"""How often it is looked at how much is kept, at most."""

_GIVE_BACK = "SET GLOBAL allocator_background_threads = true"

_KEPT = "SELECT sum(memory_usage_bytes) FROM duckdb_memory() WHERE tag = 'OBJECT_CACHE'"


@dataclass(eq=False, slots=True)
class _Opened:
    database: duckdb.DuckDBPyConnection
    spill: Path
    readers: int = 0
    key: S3Access | None = None


class OwnDatabase:
    """Connections to a database that stays small. Threads may share it."""

    def __init__(
        self,
        make: Callable[[Path], duckdb.DuckDBPyConnection],
        folder: Path,
        *,
        most_kept: int,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make` databases that spill into folders below `folder`.

        What statements freed goes back to the system within seconds, and not with the next one.
        One that counts more than `most_kept` bytes of metadata gives way to a new one, if that can
        be made, and is closed when nobody reads in it any more.
        """
        self._make = make
        self._folder = folder
        self._most_kept = most_kept
        self._steady = steady
        self._made = 0
        self._over = False
        self._opened = self._open()
        self._look_at = steady() + LOOK_SECONDS
        # A reader that was left lying may be ended anywhere, also by a thread that is in here.
        self._guard = threading.RLock()

    @contextmanager
    def cursor(self, access: S3Access | None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection for the block, which reaches the object store by this key."""
        with self._guard:
            self._renew()
            opened = self._opened
            if access is not None and access != opened.key:
                let_in(opened.database, access, ("s3://",))
                opened.key = access
            opened.readers += 1
        try:
            with cursor_of(opened.database) as cursor:
                yield cursor
        finally:
            with self._guard:
                opened.readers -= 1
                if opened is not self._opened and not opened.readers:
                    self._give_up(opened)

    def close(self) -> None:
        """Let go of memory and temporary files."""
        with self._guard:
            self._over = True
            _close(self._opened)

    def _open(self) -> _Opened:
        self._made += 1
        spill = self._folder / f"own-{self._made}"
        database = self._make(spill)
        database.execute(_GIVE_BACK)
        return _Opened(database, spill)

    def _give_up(self, before: _Opened) -> None:
        _close(before)
        if not self._over:
            # The end of any database ends the threads that give back, which the process has once.
            # Said beside what the database is being asked, for a reader may end in the midst of it.
            with cursor_of(self._opened.database) as cursor:
                cursor.execute(_GIVE_BACK)

    def _renew(self) -> None:
        now = self._steady()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        found = self._opened.database.execute(_KEPT).fetchone()
        if found is None or (found[0] or 0) <= self._most_kept:
            return
        try:
            fresh = self._open()
        except (duckdb.Error, PenstockError, OSError, ValueError) as error:
            # Packages that were exchanged beneath a process, a disk that is full.
            log.warning("the engine's database is kept as it is", error=type(error).__name__)
            return
        before, self._opened = self._opened, fresh
        if not before.readers:
            self._give_up(before)


def _close(opened: _Opened) -> None:
    opened.database.close()
    shutil.rmtree(opened.spill, ignore_errors=True)
