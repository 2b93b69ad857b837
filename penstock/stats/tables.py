"""The tables of the books, and how they are made.

There are no migrations: what is in them can be counted again. Tables of another shape get another
name, and are filled from the lake.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    inspect,
)
from sqlalchemy.exc import DBAPIError

from penstock.metadata.texts import Text
from penstock.metadata.times import Micros

log = structlog.get_logger()

metadata = MetaData()

minutes = Table(
    "stats_minutes_2",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("minute", Micros, nullable=False),
    # Received within the minute.
    Column("events", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    # Of the batches that landed within the minute.
    Column("lag", Micros),
    PrimaryKeyConstraint("team", "name", "minute"),
)

marks = Table(
    "stats_marks_2",
    metadata,
    Column("team", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("log_id", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("next", BigInteger, nullable=False),
    PrimaryKeyConstraint("team", "name", "log_id", "partition"),
)

# A week of minutes: of a hundred busy collections that is a million rows.
_CHUNK = 7 * 86_400_000_000

# Both are in Timescale's Apache edition.
_EXTENSION = "CREATE EXTENSION IF NOT EXISTS timescaledb"
_HYPERTABLE = (
    f"SELECT create_hypertable('{minutes.name}', 'minute', chunk_time_interval => {_CHUNK}::bigint)"
)


def made(connection: Connection) -> bool:
    """Say whether the tables are there."""
    return inspect(connection).has_table(marks.name)


def make(connection: Connection) -> None:
    """Make the tables, that of minutes as a hypertable where the database has Timescale."""
    metadata.create_all(connection)
    if connection.dialect.name == "postgresql" and as_hypertable(_extensions(connection)):
        make_hypertable(connection)


def as_hypertable(extensions: Iterable[str]) -> bool:
    """Say whether minutes become a hypertable where these extensions can be created."""
    return "timescaledb" in extensions


def _extensions(connection: Connection) -> list[str]:
    found = connection.exec_driver_sql("SELECT name FROM pg_available_extensions")
    return [name for (name,) in found]


def make_hypertable(connection: Connection) -> None:
    """Spread the minutes over chunks of time; where that is refused a plain table does as well."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(_EXTENSION)
            connection.exec_driver_sql(_HYPERTABLE)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        log.warning("no hypertable for the statistics", reason=type(error.orig).__name__)
