"""SQLite: one file, one write at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from penstock.metadata.options import WRITES

# Writers wait in line: a transaction takes under 1 ms, but a busy machine may halt the one ahead.
BUSY_SECONDS = 20.0


def connect(url: URL) -> Engine:
    """Answer an engine for the file; nothing is opened yet."""
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS},
        max_overflow=-1,  # the callers' threads are the bound
        hide_parameters=True,  # errors are logged, and rows hold credentials
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def exists(engine: Engine) -> bool:
    """Say whether there is a file to look into: opening one would make it."""
    return _file(engine).exists()


@contextmanager
def alone(engine: Engine) -> Iterator[None]:
    """Let one process at a time prepare this database, whose file is there and in WAL mode then.

    A lock of our own: of 2,000 connections that switched a new file to WAL two at a time, 17 failed
    with "database is locked" at once, whatever the time-out.
    """
    file = _file(engine)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _create_private(file)
        with engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA journal_mode = WAL")
        yield
    finally:
        os.close(lock)


def _file(engine: Engine) -> Path:
    return Path(engine.url.database or "")


def _create_private(file: Path) -> None:
    # Its rows are for this user only. SQLite gives its other files the same mode.
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _prepare(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # Every commit is synced: a revoked token must stay revoked after a power cut (0.25 ms each).
    connection.execute("PRAGMA synchronous = FULL")
    # What was deleted is overwritten with zeros: rows hold what was a credential once.
    connection.execute("PRAGMA secure_delete = ON")


def _begin(connection: Connection) -> None:
    # The driver would begin one before the first change only, and a read would see two moments.
    # A transaction that reads first and asks for the write lock later cannot wait for it: SQLite
    # refuses at once, because what was read may be out of date.
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
