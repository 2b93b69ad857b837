"""PostgreSQL, through psycopg: one write at a time, and no wait without an end.

Writers take one lock before they look at anything, as SQLite's do, for as long as their short
transaction lasts. So versions grow in the order in which changes become visible, nothing that was
read changes until it is acted upon, and there is neither a deadlock nor a failed serialization
that would have to be tried again.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

from penstock.errors import BadSetting
from penstock.metadata.options import LONG, WRITES

CONNECT_SECONDS = 4
"""How long a server may take to let us in."""
WRITERS_WAIT_SECONDS = 8
"""How long a writer stands in line, and how long a halted one may hold the others up."""
STATEMENT_SECONDS = 10
SILENT_SECONDS = 12
"""A server that said nothing for so long is away: its own time-outs, above, were over before."""
LONG_SECONDS = 600
"""The same for changes of full tables."""

# Below it connections are kept open, above it they are made for a request; who finds all of them
# in use waits, and is told in the end. A server has 100 by default, for every process of ours.
_KEPT, _MORE, _LINE_SECONDS = 5, 15, 10

# A server that became a standby (which says that it reads only, or that it cannot do other), or
# that ends: its connections are of no use any more.
_OF_NO_USE = ("25006", "0A000", "57P01", "57P02", "57P03")


class _Patient(psycopg.Connection[Any]):
    """Gives up on a server that does not answer: one that was halted keeps connections open."""

    seconds: float = SILENT_SECONDS

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Do what the driver asks for, within our patience."""
        try:
            return super().wait(gen, interval, self.seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.info.transaction_status != TransactionStatus.ACTIVE:
                raise  # the server's answer, or no connection
            self.close()
            raise psycopg.OperationalError(
                f"the server did not answer within {self.seconds:g} seconds"
            ) from None


def connect(url: URL, *, lock: int, setting: str) -> Engine:
    """Answer an engine for the database; nothing is opened yet.

    Its writers exclude each other by the advisory lock `lock`. Raises `BadSetting` that names
    `setting` where the address has parts that the driver does not know.
    """
    address = url.translate_connect_args(username="user", database="dbname")
    values: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "penstock",
        # A machine that vanished says nothing, not even that the connection is gone.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "tcp_user_timeout": SILENT_SECONDS * 1_000,
        "options": f"-c statement_timeout={STATEMENT_SECONDS}s "
        f"-c lock_timeout={WRITERS_WAIT_SECONDS}s "
        f"-c idle_in_transaction_session_timeout={WRITERS_WAIT_SECONDS}s",
        **url.query,
        **address,
    }

    try:
        address_as_text = psycopg.conninfo.make_conninfo(**values)
    except psycopg.ProgrammingError as error:
        raise BadSetting(f"{setting} cannot be used: {error}") from None

    def open_one() -> _Patient:
        # Statements prepared in a session get lost behind a pooler such as PgBouncer.
        return _Patient.connect(address_as_text, prepare_threshold=None)

    engine = create_engine(
        URL.create("postgresql+psycopg"),
        creator=open_one,
        isolation_level="READ COMMITTED",
        pool_size=_KEPT,
        max_overflow=_MORE,
        pool_timeout=_LINE_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,  # errors are logged, and rows hold credentials
    )

    def begin(connection: Connection) -> None:
        _begin(connection, lock)

    event.listen(engine, "begin", begin)
    event.listen(engine, "handle_error", _forget_what_is_of_no_use)
    return engine


def _begin(connection: Connection, lock: int) -> None:
    options = connection.get_execution_options()
    if options.get(LONG):
        raw: Any = connection.connection.driver_connection
        raw.seconds = LONG_SECONDS
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {name} = '{LONG_SECONDS}s'")
    if options.get(WRITES):
        # A statement of its own: what is read after it has been committed by who had it before.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")


def _forget_what_is_of_no_use(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) in _OF_NO_USE:
        context.is_disconnect = True
