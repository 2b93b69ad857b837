"""The catalog's tables in PostgreSQL, as Trino's JDBC catalog (schema version 1) reads them too."""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

import structlog
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from lakehouse.catalog import CATALOG_NAME, RememberingCatalog
from penstock.errors import BadSetting, EngineUnavailable

try:
    import psycopg
    from psycopg.abc import PQGen
except ImportError as error:
    raise BadSetting("postgresql:// needs a client: pip install 'penstock[postgres]'") from error

log = structlog.get_logger()

_DRIVER = "postgresql+psycopg"

# A statement of the catalog takes a millisecond; a server that is stuck must not hold a landing.
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 30.0
_FREE_SECONDS = 10.0
_CONNECTIONS = 4
_MORE_CONNECTIONS = 12

# Processes that come to an empty database at the same time make its tables once. Any number does.
_ALONE = 4_711_476

_Answer = TypeVar("_Answer")


class _Connection(psycopg.Connection[Any]):
    """A connection that waits for an answer only so long, and is closed then."""

    def wait(
        self, gen: PQGen[_Answer], interval: float = 0.1, timeout: float | None = None
    ) -> _Answer:
        try:
            return super().wait(gen, interval, timeout or _ANSWER_SECONDS)
        except psycopg.OperationalError:
            self.pgconn.finish()
            raise


class PostgresCatalog(RememberingCatalog):
    """A catalog in PostgreSQL. Raises `EngineUnavailable` while the server is away.

    Its properties, which PyIceberg hands around, do not hold the database's address.
    """

    def __init__(self, name: str, url: str, **properties: Any) -> None:
        self._url = url
        super().__init__(name, uri=f"{_DRIVER}://", schema_version="v1", **properties)

    def _init_catalog(self) -> None:
        """Make the tables unless they are there."""
        self.engine = _engine(self._url)
        # Whoever lets go of a lake need not know that there are connections.
        weakref.finalize(self, self.engine.dispose)
        try:
            with self.engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _ALONE})
                SqlCatalog._init_catalog(self)  # noqa: SLF001 - the method that this one extends
        except SQLAlchemyError as error:
            kind = type(error).__name__
            raise EngineUnavailable(f"the catalog's database cannot be used: {kind}") from error


def open_postgres(url: str, properties: dict[str, Any]) -> PostgresCatalog:
    """Open the catalog in the database at this address, as libpq reads it."""
    address = url.replace(f"{_DRIVER}://", "postgresql://", 1)
    try:
        psycopg.conninfo.conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        # What libpq says about it repeats the address, the password too.
        raise BadSetting("catalog_url is no address of a PostgreSQL database") from None
    return PostgresCatalog(CATALOG_NAME, address, **properties)


def _engine(url: str) -> Engine:
    def connect() -> psycopg.Connection[Any]:
        return _Connection.connect(
            url,
            connect_timeout=_CONNECT_SECONDS,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            application_name="penstock",
        )

    engine = create_engine(
        f"{_DRIVER}://",
        creator=connect,
        hide_parameters=True,
        # One that the server closed meanwhile is noticed and replaced before it is used.
        pool_pre_ping=True,
        pool_size=_CONNECTIONS,
        max_overflow=_MORE_CONNECTIONS,
        pool_timeout=_FREE_SECONDS,
    )
    event.listen(engine, "handle_error", _tell)
    return engine


def _tell(context: ExceptionContext) -> None:
    """Raise what is to be done about an error that is not about the statement."""
    told = context.sqlalchemy_exception
    if isinstance(told, (OperationalError, InterfaceError, NoConnectionFree)):
        kind = type(context.original_exception).__name__
        log.info("the catalog's database does not answer", error=kind)
        raise EngineUnavailable(f"the catalog's database does not answer: {kind}") from (
            context.original_exception
        )
