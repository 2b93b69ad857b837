"""SQL with Trino on the Iceberg tables: statements of callers, for many readers and much data.

A statement is read here first (`lakehouse.sql.trino_statement`), then Trino says which tables it
is going to read, and only then it runs. Nothing of an answer is kept but the page at hand.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import pyarrow as pa
import structlog
from trino.client import TrinoQuery
from trino.exceptions import Error, HttpError, TrinoQueryError

from lakehouse.sql import Answer, Limits, TableName, Tables
from lakehouse.sql.statement import known_tables
from lakehouse.sql.trino_session import GRACE_SECONDS, LateError, TrinoSession, away, begin
from lakehouse.sql.trino_statement import Checked, checked
from lakehouse.sql.trino_values import arrow_column, arrow_type
from penstock.errors import BadSql, EngineUnavailable, PenstockError
from penstock.query.dialects import TRINO

log = structlog.get_logger()

_BATCH = 2_000

# What Trino says of the text alone: it cannot hold anything that is in a row.
_ABOUT_TEXT = re.compile(
    r"SYNTAX_ERROR|.*_NOT_FOUND|TYPE_MISMATCH|.*AMBIGUOUS.*|MISSING_.*|EXPRESSION_.*"
    r"|INVALID_(COLUMN_REFERENCE|PARAMETER_USAGE|LITERAL|WINDOW_FRAME|ORDER_BY|LIMIT_CLAUSE)"
    r"|DUPLICATE_.*|NESTED_.*|QUERY_TEXT_TOO_LARGE|MISMATCHED_.*"
)
_NO_TABLE = ("TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "CATALOG_NOT_FOUND")
_PLACE = re.compile(r"line (\d+):(\d+): ")
_UNKNOWN_COLUMN = re.compile(r"Column '([^']+)' cannot be resolved")
_LONG_NUMBER = re.compile(r"[0-9]{5,}")
_LONGEST_SENTENCE = 500


class TrinoSql:
    """Keeps the promise of `lakehouse.sql.Sql`. Threads may share it; it holds no connection."""

    dialect = TRINO

    def __init__(
        self,
        url: str,
        *,
        password: str = "",
        token: str = "",
        check: Callable[..., Checked] = checked,
    ) -> None:
        """Sign in with a password or a token where there is one; both only over HTTPS.

        A test gives a `check` that lets everything pass, to see that Trino's plan decides, too.
        """
        self._check = check
        self._session = TrinoSession(url, password=password, token=token)
        self._at = self._session.at

    def query(self, statement: str, tables: Tables, limits: Limits) -> Answer:
        """Answer one SELECT or EXPLAIN of a caller."""
        with self.stream(statement, tables, seconds=limits.seconds) as (schema, batches):
            kept, truncated = _within(batches, limits)
            return Answer(pa.Table.from_batches(kept, schema), truncated)

    @contextmanager
    def stream(
        self, statement: str, tables: Tables, *, seconds: float
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Answer one SELECT without a limit on rows, some at a time."""
        told = _Told(statement, seconds, tables)
        names = tables.names()
        told.asked = self._check(statement, names, home=tables.home, catalog=self._at.catalog)
        until = time.monotonic() + seconds
        with told.errors():
            if told.asked.kind != "describe":
                self._confirm(told, frozenset(names), tables.home, until)
            told.prefix = "EXPLAIN " if told.asked.kind == "explain" else ""
            query = self._begun(told.prefix + told.asked.text, tables.home, seconds, until)
            schema = _schema(query)
        try:
            yield schema, told.batches(query, schema, until)
        finally:
            if not query.finished:
                # It goes on to its end otherwise. Somebody who is gone already needs no answer.
                with suppress(Error, HttpError, OSError):
                    query.cancel()

    def close(self) -> None:
        """Let go of memory, connections and temporary files; twice is once."""

    def _confirm(self, told: _Told, tables: frozenset[TableName], home: str, until: float) -> None:
        """Let Trino say which tables it would read; raises `BadSql` for any that is not theirs."""
        told.prefix = "EXPLAIN (TYPE IO, FORMAT JSON) "
        left = max(until - time.monotonic(), 0.1)
        query = self._begun(told.prefix + told.asked.text, home, left, until)
        ((plan,),) = query.result
        tree = json.loads(plan)
        if "outputTable" in tree:
            raise BadSql("a statement reads tables only")
        for read in tree["inputTableColumnInfos"]:
            table = read["table"]["schemaTable"]
            name = TableName(table["schema"], table["table"].partition("$")[0])
            if read["table"]["catalog"] != self._at.catalog or name not in tables:
                log.error("a statement would have read beyond its tables", table=str(name))
                raise BadSql(f"there is no such table. {known_tables(tables, home)}")

    def _begun(self, text: str, home: str, seconds: float, until: float) -> TrinoQuery:
        """Send a statement, and wait for its first rows."""
        query = self._session.prepared(text, schema=home, seconds=seconds, until=until)
        begin(query)
        return query


class _Told:
    """A statement, and what is said to the person who wrote it."""

    asked: Checked

    def __init__(self, statement: str, seconds: float, tables: Tables) -> None:
        self.prefix = ""
        self._statement = statement
        self._seconds = seconds
        self._tables = tables

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what Trino and the way to it say into errors of ours."""
        try:
            yield
        except LateError:
            raise self._late() from None
        except TrinoQueryError as error:
            raise self._said(error) from error
        except (HttpError, Error, OSError) as error:
            raise away(error) from error

    def batches(
        self, query: TrinoQuery, schema: pa.Schema, until: float
    ) -> Iterator[pa.RecordBatch]:
        """Answer the rows as they come."""
        signatures = [column["typeSignature"] for column in query.columns]
        pages = _pages(query)
        while True:
            with self.errors():
                page = next(pages, None)
                if time.monotonic() > until + GRACE_SECONDS:
                    raise LateError
            if page is None:
                return
            yield _batch(schema, signatures, page)

    def _late(self) -> BadSql:
        return BadSql(f"the statement took longer than {self._seconds:g} s and was stopped")

    def _said(self, error: TrinoQueryError) -> PenstockError:
        name, said = error.error_name or "", error.message
        if name == "EXCEEDED_TIME_LIMIT":
            return self._late()
        if name in _NO_TABLE and said.endswith("does not exist"):
            known = known_tables(self._tables.names(), self._tables.home)
            return BadSql(f"there is no such table. {known}")
        match error.error_type:
            case "USER_ERROR" if name == "PERMISSION_DENIED":
                log.error("trino does not let Penstock read", error=said)
                return EngineUnavailable("Trino does not let Penstock read these tables")
            case "USER_ERROR" if name == "USER_CANCELED":
                return BadSql("the statement was stopped by an operator of Trino")
            case "USER_ERROR":
                return BadSql(self._sentence(name, said))
            case "INSUFFICIENT_RESOURCES" if "MEMORY" in name:
                return BadSql("the statement needs more memory than it may use")
            case "INSUFFICIENT_RESOURCES" if name != "QUERY_QUEUE_FULL":
                return BadSql(f"the statement needs more than it may use: {name}")
        log.error("trino could not run a statement", error=name)
        return EngineUnavailable("the tables cannot be read now")

    def _sentence(self, name: str, said: str) -> str:
        """Answer Trino's own words, at the place in the statement as it was written.

        What rows hold is left out: errors are logged and passed around.
        """
        place, about = _PLACE.match(said), _PLACE.sub("", said, count=1)
        if not _ABOUT_TEXT.fullmatch(name):
            about = _without_values(about, self._statement)
        about = about[:_LONGEST_SENTENCE]
        if place is not None:
            about += self._where(int(place[1]), int(place[2]))
        unknown = _UNKNOWN_COLUMN.search(about)
        if unknown and "." not in unknown[1]:
            about += f"\n\nA field of the payload is written data.{unknown[1]}"
        return about

    def _where(self, line: int, column: int) -> str:
        origin = self.asked.origin(line, column - len(self.prefix) * (line == 1))
        if origin is None or origin < 0:
            return ""
        before = self._statement[:origin]
        line, column = before.count("\n") + 1, origin - before.rfind("\n")
        return f", at line {line}, character {column}"


def _schema(query: TrinoQuery) -> pa.Schema:
    """Answer the names and types of an answer."""
    return pa.schema(
        [pa.field(column["name"], arrow_type(column["typeSignature"])) for column in query.columns]
    )


def _pages(query: TrinoQuery) -> Iterator[list[Any]]:
    """Answer the rows as they come: Trino sends some megabytes at a time."""
    rows = query.result.rows
    while True:
        some = iter(rows)
        while page := list(islice(some, _BATCH)):
            yield page
        if query.finished:
            return
        rows = query.fetch()


def _without_values(said: str, statement: str) -> str:
    quotes = [place for place, character in enumerate(said) if character in "'\""]
    if quotes and said[quotes[0] + 1 : quotes[-1]] not in statement:
        said = f"{said[: quotes[0] + 1]}…{said[quotes[-1] :]}"
    elif not quotes and ":" in said:
        # As in "Invalid JSON: …", which goes on with the text itself.
        about, _, value = said.rpartition(": ")
        said = said if value in statement else f"{about}: …"
    return _LONG_NUMBER.sub(lambda n: n[0] if n[0] in statement else "…", said)


def _batch(schema: pa.Schema, signatures: list[Any], page: list[Any]) -> pa.RecordBatch:
    columns = zip(*page, strict=True)
    arrays = []
    for field, signature, values in zip(schema, signatures, columns, strict=True):
        try:
            arrays.append(arrow_column(signature, values))
        except (pa.ArrowInvalid, ValueError, OverflowError) as error:
            raise BadSql(
                f"column {field.name!r} holds values that cannot be told; cast it to VARCHAR"
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _within(batches: Iterator[pa.RecordBatch], limits: Limits) -> tuple[list[pa.RecordBatch], bool]:
    """Answer as many rows as may be held, and whether there were more."""
    kept: list[pa.RecordBatch] = []
    rows, room = limits.rows, limits.bytes
    for batch in batches:
        part = batch.slice(0, rows)
        if part.nbytes > room:
            # One row is told, however large.
            part = part.slice(0, max(part.num_rows * room // part.nbytes, int(not kept)))
        kept.append(part)
        if part.num_rows < batch.num_rows:
            return kept, True
        rows, room = rows - part.num_rows, room - part.nbytes
    return kept, False
