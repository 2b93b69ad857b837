"""How a database is opened, read, written, and what its errors are called.

Engines have two kinds of transaction, `reading` and `writing`. Writers exclude each other, so a
writing one may act upon what it read. What differs between databases is in `sqlite` and
`postgresql`, and in the texts of `texts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, column, inspect, select, table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    TimeoutError,  # noqa: A004 - the pool's
)

from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata import sqlite
from penstock.metadata.keys import Keyring
from penstock.metadata.options import LONG, WRITES

# The newest of `migrations/versions`. A database that has it is opened without Alembic, which
# takes 0.2 s to import, and without waiting for the write lock.
NEWEST = "0014"

# Any numbers, as long as no two kinds of tables in one PostgreSQL database share one.
_LOCK = 0x70656E_0001

_DENIED = "42501"


def open_engine(url: str, keys: Keyring) -> Engine:
    """Open the database at `url` with every migration applied, made first if there is none.

    Credentials that a migration finds in plain text are encrypted with `keys`. Raises `BadSetting`
    for a URL of another kind, or where the database is of a newer release.
    """
    return open_tables(
        url,
        setting="metadata_url",
        lock=_LOCK,
        made=lambda connection: _version(connection) == NEWEST,
        make=lambda connection: _migrate(connection, keys),
    )


def open_tables(
    url: str,
    *,
    setting: str,
    lock: int,
    made: Callable[[Connection], bool],
    make: Callable[[Connection], None],
) -> Engine:
    """Open the database at `url`, with its tables made unless `made` says that they are.

    Of several processes at once one makes them. `setting` is what errors call the URL; `lock` is
    what writers exclude each other by where the database is not a file.
    """
    try:
        parts = make_url(url)
    except ArgumentError as error:
        raise BadSetting(f"{setting} is no database URL; {_USE}") from error
    first: AbstractContextManager[object] = nullcontext()
    match parts.drivername:
        case "sqlite" if parts.database and parts.database != ":memory:":
            engine = sqlite.connect(parts)
            first = sqlite.alone(engine)
            known = sqlite.exists(engine)
        case "postgresql" if parts.database:
            engine = _postgresql(setting).connect(parts, lock=lock, setting=setting)
            known = True
        case other:
            raise BadSetting(f"{setting} starts with {other!r}; {_USE}")
    try:
        if known:
            with reading(engine) as connection:
                known = made(connection)
        if not known:
            with first, _making(engine) as connection:
                make(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


def ping(url: str, *, setting: str) -> None:
    """Return if the database at `url` lets us in; nothing in it is looked at.

    Raises `BadSetting`, and `EngineUnavailable` if it does not.
    """
    with answering(f"the database of {setting}"):
        open_tables(
            url, setting=setting, lock=_LOCK, made=lambda _: True, make=lambda _: None
        ).dispose()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose statements all see one moment of the database."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose changes are durable after the block, or undone if it raised.

    Nobody else writes meanwhile.
    """
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        yield connection


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Raise `EngineUnavailable` when the database, called `what`, does not do its part.

    What is wrong with a statement of ours is raised as it is.
    """
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError) as error:
        if getattr(error.orig, "sqlstate", None) != _DENIED:
            raise  # the database is well
        raise EngineUnavailable(f"{what} refuses: {sentence_of(error)}") from error
    except (DatabaseError, InterfaceError) as error:
        raise EngineUnavailable(f"{what} does not answer: {sentence_of(error)}") from error
    except TimeoutError as error:
        raise EngineUnavailable(f"{what} has no connection left") from error


_USE = "use sqlite:///file or postgresql://user:password@host:port/database"


def _postgresql(setting: str) -> Any:
    try:
        from penstock.metadata import postgresql
    except ImportError as error:
        raise BadSetting(
            f"{setting} needs the client of PostgreSQL: pip install 'penstock[postgres]'"
        ) from error
    return postgresql


@contextmanager
def _making(engine: Engine) -> Iterator[Connection]:
    long = {WRITES: True, LONG: True}
    with engine.connect().execution_options(**long) as connection:
        with connection.begin():
            yield connection
        # It waits longer than others: closed, and not back into the pool. One that is detached
        # instead stays open where its commit is refused by a server that ends.
        connection.invalidate()


def sentence_of(error: DatabaseError | InterfaceError) -> str:
    """Say what the database or its driver said, in one line without values of a statement."""
    # `orig` is the driver's own error: the outer one repeats statement and values, and all but the
    # first sentence of the server's may quote a row.
    first = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    # What libpq asks behind it ("Is the server running on that host …?") is on lines of its own.
    said = first or str(error.orig).partition("\n")[0]
    if "certificate verify failed" in said:
        return f"{said}; see sslrootcert in its address"
    return said


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(
        select(column("version_num")).select_from(table("alembic_version"))
    ).scalar()
    return version


def _migrate(connection: Connection, keys: Keyring) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "penstock.metadata:migrations")
    config.attributes["connection"] = connection
    config.attributes["keys"] = keys
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise BadSetting(
            "the metadata database was made by a newer release of Penstock; use that one"
        ) from error
