"""The catalog's tables in PostgreSQL, as Trino's JDBC catalog (schema version 1) reads them too."""

from __future__ import annotations

import weakref
from typing import Any

import structlog
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError

from lakehouse.catalog import CATALOG_NAME, RememberingCatalog
from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata.database import sentence_of

try:
    from penstock.metadata.postgresql import connect
except ImportError as error:
    raise BadSetting("postgresql:// needs a client: pip install 'penstock[postgres]'") from error

log = structlog.get_logger()

# Processes that come to an empty database at the same time make its tables once. Any number does.
_ALONE = 4_711_476


class PostgresCatalog(RememberingCatalog):
    """A catalog in PostgreSQL. Raises `EngineUnavailable` while the server is away.

    Its properties, which PyIceberg hands around, do not hold the database's address.
    """

    def __init__(self, name: str, url: URL, **properties: Any) -> None:
        self._url = url
        super().__init__(name, uri=f"{url.drivername}://", schema_version="v1", **properties)

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
    """Open the catalog in the database at this address."""
    try:
        return PostgresCatalog(CATALOG_NAME, make_url(url), **properties)
    except ArgumentError:
        # What is said about it repeats the address, the password too.
        raise BadSetting("catalog_url is no address of a PostgreSQL database") from None


def _engine(url: URL) -> Engine:
    engine = connect(url, lock=_ALONE, setting="catalog_url")
    event.listen(engine, "handle_error", _tell)
    return engine


def _tell(context: ExceptionContext) -> None:
    """Raise what is to be done about an error that is not about the statement."""
    if context.is_pre_ping:
        return  # a connection that the server closed meanwhile is replaced by another one
    told = context.sqlalchemy_exception
    if isinstance(told, (OperationalError, InterfaceError)):
        reason = sentence_of(told)
        log.info("the catalog's database does not answer", error=reason)
        raise EngineUnavailable(f"the catalog's database does not answer: {reason}") from (
            context.original_exception
        )
