"""How the database is opened. All that differs between databases is in this file.

Engines have two kinds of transaction, `reading` and `writing`; a writing one sees what it read
until it commits (SQLite lets one write at a time, others lock the rows read for update).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, column, create_engine, event, inspect, select, table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from penstock.errors import BadSetting

# Writers wait in line: a transaction takes under 1 ms, but a busy machine may halt the one ahead.
BUSY_SECONDS = 20.0

# The newest of `migrations/versions`. A database that has it is opened without Alembic, which
# takes 0.2 s to import, and without waiting for the write lock.
NEWEST = "0001"

_WRITES = "penstock_writes"


def open_engine(url: str) -> Engine:
    """Open the database at `url` with every migration applied, made first if there is none."""
    try:
        parts = make_url(url)
    except ArgumentError as error:
        raise BadSetting("metadata_url is no database URL; use sqlite:///file") from error
    if parts.drivername != "sqlite" or not parts.database or parts.database == ":memory:":
        raise BadSetting(f"metadata_url starts with {parts.drivername!r}; use sqlite:///file")

    file = Path(parts.database)
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS},
        max_overflow=-1,  # the callers' threads are the bound
        hide_parameters=True,  # errors are logged, and rows hold credentials
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    if not file.exists() or _version(engine) != NEWEST:
        with _alone(file):
            _create_private(file)
            with engine.connect() as connection:
                _switch_to_wal(connection)
            with writing(engine) as connection:
                _migrate(connection)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose statements all see one moment of the database."""
    with engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose changes are durable after the block, or undone if it raised."""
    with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        yield connection


def _version(engine: Engine) -> str | None:
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        version: str | None = connection.execute(
            select(column("version_num")).select_from(table("alembic_version"))
        ).scalar()
        return version


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "penstock.metadata:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise BadSetting(
            "the metadata database was made by a newer release of Penstock; use that one"
        ) from error


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Let one process at a time prepare this database.

    A lock of our own: of 2,000 connections that switched a new file to WAL two at a time, 17 failed
    with "database is locked" at once, whatever the time-out.
    """
    lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _create_private(file: Path) -> None:
    # Destinations have credentials in their headers. SQLite gives its other files the same mode.
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _switch_to_wal(connection: Connection) -> None:
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA journal_mode = WAL")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # Every commit is synced: a revoked token must stay revoked after a power cut (0.25 ms each).
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    # The driver would begin one before the first change only, and a read would see two moments.
    # A transaction that reads first and asks for the write lock later cannot wait for it: SQLite
    # refuses at once, because what was read may be out of date.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
