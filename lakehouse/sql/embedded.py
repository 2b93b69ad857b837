"""SQL with DuckDB on the Iceberg tables.

Our own SQL (search, plans) runs in a database of this process that may read every table. Statements
of callers are checked here and run in processes of their own, in databases that are locked
(`lakehouse.sql.worker`).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import structlog

from lakehouse.columns import shape_in
from lakehouse.files import path_of
from lakehouse.sql import DISTINCT, Answer, Limits, TableName, Tables
from lakehouse.sql.copies import Copies
from lakehouse.sql.own import OwnDatabase
from lakehouse.sql.statement import explained, tables_used
from lakehouse.sql.worker import (
    CONFIG,
    S3Access,
    Shown,
    Task,
    cursor_of,
    interrupted_after,
    open_database,
    text_of,
)
from lakehouse.sql.workers import INTERRUPTED, OUT_OF_MEMORY, Results, StatementFailed, Workers
from lakehouse.tables import TableView
from penstock.errors import BadRequest, BadSql, EngineUnavailable, PenstockError
from penstock.query.dialects import DUCKDB
from penstock.schema.shape import EMPTY, Struct
from penstock.settings import S3Options

log = structlog.get_logger()

# The beginnings of what DuckDB says about a statement, to the person who wrote it. The text is
# looked at and not the class, because errors that come while rows are read are all `OSError`.
_ABOUT_STATEMENT = (
    "Parser Error",
    "Syntax Error",
    "Binder Error",
    "Catalog Error",
    "Conversion Error",
    "Out of Range Error",
    "Mismatch Type Error",
    "Invalid type Error",
    "Invalid Input Error",
    "Not implemented Error",
    "Constraint Error",
)
_UNKNOWN_COLUMN = re.compile(r'Binder Error: Referenced column "([^"]+)" not found')
_FORBIDDEN = "Permission Error"
_ABOUT_FILES = "IO Error"

# Those come before there are rows.
_ABOUT_TEXT = ("Parser Error", "Syntax Error", "Binder Error", "Catalog Error")
_LONG_NUMBER = re.compile(r"[0-9]{5,}")
_LONGEST_SENTENCE = 500

# Of 2 GB this is 32 MB counted, which takes 128; a table of two million events needs 2 of them.
_PART_FOR_METADATA = 64

# What threads may have answered before somebody reads it; then they wait. A chunk of answers that
# has lists takes 300 kB, however few rows are in it, so that with DuckDB's own 1 MB one thread
# works for all: 95 ms instead of 57 for fifty events that lie far apart.
_ANSWERED_AHEAD = "16MB"


class DuckSql:
    """Keeps the promise of `lakehouse.sql.Engine`. Threads may share it."""

    dialect = DUCKDB

    def __init__(
        self,
        folder: Path,
        *,
        memory: str,
        threads: int = 2,
        s3: S3Options | None = None,
        keep_metadata: bool = False,
        check: Callable[..., frozenset[TableName]] = tables_used,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Spill into a folder of its own below `folder`.

        `keep_metadata` is for those who read the same files again and again.

        `memory` is for our own SQL, and again for each of the few processes of callers. A test
        gives a `check` that lets everything pass, to see that the locks hold by themselves.
        """
        self._tables_used = check
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(mkdtemp(prefix="sql-", dir=folder))
        config = CONFIG | {"memory_limit": memory, "threads": threads}
        self._s3 = s3
        self._parser = duckdb.connect(":memory:", config=CONFIG)
        found = self._parser.execute("SELECT parse_formatted_bytes(?)", [memory]).fetchone()
        assert found is not None  # noqa: S101 - a SELECT of one row

        def make(spill: Path) -> duckdb.DuckDBPyConnection:
            database = open_database(config, spill, s3=s3 is not None)
            # Global, as cursors do not inherit them.
            if keep_metadata:
                database.execute("SET GLOBAL parquet_metadata_cache = true")
            if s3 is None:
                # The kernel keeps what was read of local files, and takes it back when it must.
                database.execute("SET GLOBAL enable_external_file_cache = false")
            return database

        most_kept = int(found[0])
        if s3 is None:
            # Of an object store the database keeps what was read, too, which is worth more.
            most_kept //= _PART_FOR_METADATA
        self._own = OwnDatabase(make, self._folder, most_kept=most_kept, steady=steady)
        self._copies = None if s3 is None else _copies(self._folder / "metadata", s3)
        self._workers = Workers(self._folder, memory=int(found[0]), threads=threads)

    def query(self, statement: str, tables: Tables, limits: Limits) -> Answer:
        """Answer one SELECT or EXPLAIN of a caller."""
        with self._run(statement, tables, limits.seconds, limits.rows, limits.bytes) as results:
            batches = list(results)
            return Answer(pa.Table.from_batches(batches, results.schema), results.truncated)

    @contextmanager
    def stream(
        self, statement: str, tables: Tables, *, seconds: float
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Answer one SELECT without a limit on rows, some at a time."""
        with self._run(statement, tables, seconds) as results:
            yield results.schema, iter(results)

    @contextmanager
    def reader(self, *, seconds: float | None = None) -> Iterator[DuckReader]:
        """Open a connection for our own SQL."""
        with self._own.cursor(self._access()) as cursor, interrupted_after(seconds, cursor):
            try:
                cursor.execute(f"SET streaming_buffer_size = '{_ANSWERED_AHEAD}'")
                yield DuckReader(cursor, self._copies)
            except (duckdb.Error, OSError) as error:
                raise _told_to_us(error, seconds) from error

    def close(self) -> None:
        """Let go of memory and temporary files."""
        self._workers.close()
        self._own.close()
        self._parser.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _access(self) -> S3Access | None:
        """Answer how the object store is reached now: a key may end, and be renewed."""
        if self._s3 is None:
            return None
        from lakehouse.s3 import store_of

        store = store_of(self._s3)
        key = store.key()
        endpoint = urlsplit(self._s3.endpoint)
        return S3Access(
            endpoint=endpoint.netloc,
            tls=endpoint.scheme != "http",
            region=store.region,
            path_style=self._s3.path_style,
            key=key.name,
            secret=key.secret,
            token=key.token,
        )

    @contextmanager
    def _run(
        self,
        statement: str,
        tables: Tables,
        seconds: float,
        rows: int | None = None,
        size: int | None = None,
    ) -> Iterator[Results]:
        folders: tuple[str, ...] = ()
        try:
            checked, used = self._check(statement, tables.names(), tables.home)
            views = {name: tables.view(name) for name in used}
            folders = tuple(sorted({_namespace_folder(view) for view in views.values()}))
            task = Task(
                statement=checked,
                home=tables.home,
                shown=tuple(_shown(name, view) for name, view in views.items()),
                seconds=seconds,
                rows=rows,
                bytes=size,
            )
            with self._workers.run(folders, task, self._access()) as results:
                yield results
        except (duckdb.Error, StatementFailed) as error:
            raise _told_to_caller(error, statement, seconds, folders) from error

    def _check(
        self, statement: str, names: Collection[TableName], home: str
    ) -> tuple[str, frozenset[TableName]]:
        """Answer the statement as it may be run, and the tables that it reads."""
        with cursor_of(self._parser) as parser:
            statements = parser.extract_statements(statement)
            if len(statements) != 1:
                raise BadSql(f"one statement at a time; these are {len(statements)}")
            kind = statements[0].type
            if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
                raise BadSql(f"only SELECT and EXPLAIN are run here, not {kind.name}")
            text = statements[0].query
            inner = explained(text)
            select = text if inner is None else inner
            ((answer,),) = parser.execute("SELECT json_serialize_sql(?)", [select]).fetchall()
        tree: dict[str, Any] = json.loads(answer)
        if tree["error"]:
            raise BadSql(f"only a single SELECT can be run here: {tree['error_message']}")
        used = self._tables_used(tree, names, home)
        return (select if inner is None else f"EXPLAIN {select}"), used


class DuckReader:
    """Keeps the promise of `lakehouse.sql.Reader`."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, copies: Copies | None) -> None:
        """Read what describes tables from `copies`, or where it is."""
        self._cursor = cursor
        self._copies = copies
        self._registered = 0

    def lake(self, view: TableView, *, snapshot_id: int | None = None) -> str:
        """Answer what to write behind FROM for a table, now or as of one of its snapshots."""
        place = _place(view.metadata_location)
        if self._copies is not None:
            place = str(self._copies.metadata(view, snapshot_id))
        as_of = "" if snapshot_id is None else f", snapshot_from_id := {snapshot_id:d}"
        return f"iceberg_scan({text_of(place)}{as_of})"

    def arrow(self, rows: pa.Table | pa.RecordBatchReader) -> str:
        """Answer what to write behind FROM for these rows."""
        self._registered += 1
        name = f"arrow_{self._registered}"
        self._cursor.register(name, rows)
        return name

    def shape(self, source: str) -> Struct:
        """Answer the shape of `data` in a source."""
        schema = self.rows(f"SELECT * FROM {source} LIMIT 0").schema  # noqa: S608 - our own
        return shape_in(schema) or EMPTY

    def files(self, files: Sequence[str]) -> str:
        """Answer what to write behind FROM for data files of one shape."""
        listed = ", ".join(text_of(_place(file)) for file in files)
        # Folders are named after the day; that is no column of the table.
        return f"read_parquet([{listed}], hive_partitioning := false)"

    def file_name(self, file: str) -> str:
        """Answer what `filename` is of the rows of a data file."""
        return _place(file)

    def rows(self, text: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Answer all rows."""
        table: pa.Table = self._cursor.execute(text, list(parameters)).to_arrow_table()
        return table

    def batches(
        self, text: str, parameters: Sequence[object] = (), *, rows: int = 10_000
    ) -> pa.RecordBatchReader:
        """Answer the rows in order, some at a time."""
        return self._cursor.execute(text, list(parameters)).to_arrow_reader(rows)


def _told_to_caller(
    error: Exception, statement: str, seconds: float, folders: Sequence[str]
) -> PenstockError:
    """Answer a sentence for the person who wrote the statement, without addresses of files."""
    text = str(error)
    about_files = any(folder in text for folder in folders)
    if text.startswith(INTERRUPTED):
        return BadSql(f"the statement took longer than {seconds:g} s and was stopped")
    if text.startswith(OUT_OF_MEMORY):
        return BadSql("the statement needs more memory than it may use")
    if text.startswith(_FORBIDDEN):
        return BadSql("a statement reads tables only, no files")
    if text.startswith(_ABOUT_STATEMENT) and not about_files:
        # The advice behind it is about settings and extensions.
        said = text.split("\n\nPossible solutions", 1)[0].strip()
        said = said if text.startswith(_ABOUT_TEXT) else without_values(said, statement)
        return BadSql(said + _where_fields_are(said))
    log.error("the engine could not run a statement", error=_loggable(text))
    return EngineUnavailable("the tables cannot be read now")


def _where_fields_are(said: str) -> str:
    """Answer what helps whoever took a field of the payload for a column of the table."""
    unknown = _UNKNOWN_COLUMN.match(said)
    return f"\n\nA field of the payload is written data.{unknown[1]}" if unknown else ""


def without_values(said: str, statement: str) -> str:
    """Leave out of an engine's sentence what rows hold: errors are logged and passed around.

    What the statement itself says stays.
    """
    about, line, excerpt = said.partition("\n\nLINE ")
    about = about.partition("\n")[0]
    quotes = [place for place, character in enumerate(about) if character in "'\""]
    if quotes and about[quotes[0] + 1 : quotes[-1]] not in statement:
        about = f"{about[: quotes[0] + 1]}…{about[quotes[-1] :]}"
    about = _LONG_NUMBER.sub(lambda n: n[0] if n[0] in statement else "…", about)
    return about[:_LONGEST_SENTENCE] + line + excerpt


def _loggable(text: str) -> str:
    """Errors of files tell which, others may tell what is in a row."""
    return text if text.startswith(_ABOUT_FILES) else text.partition(":")[0]


def _told_to_us(error: Exception, seconds: float | None) -> PenstockError:
    """Answer what is to be done about an error in our own SQL."""
    text = str(error)
    if text.startswith(INTERRUPTED):
        return BadRequest(f"this takes longer than {seconds:g} s; ask for a shorter time")
    if text.startswith(OUT_OF_MEMORY):
        return BadRequest("this needs more memory than there is; ask for a shorter time")
    log.error("the engine could not run our own statement", error=_loggable(text))
    return EngineUnavailable("the tables cannot be read now")


def _shown(name: TableName, view: TableView) -> Shown:
    distinct = name.name.endswith(DISTINCT)
    return Shown(name.schema, name.name, _place(view.metadata_location), distinct)


def _place(location: str) -> str:
    """Answer the location as the engine takes it."""
    return location if location.startswith("s3:") else path_of(location)


def _copies(folder: Path, s3: S3Options) -> Copies:
    # Only who has an object store needs its client.
    from lakehouse.s3 import OPTIONS, S3Files

    return Copies(folder, S3Files({OPTIONS: s3}))


def _namespace_folder(view: TableView) -> str:
    """Answer the folder that holds all tables of the table's namespace, and nothing else."""
    namespace, _table, _metadata, _file = _place(view.metadata_location).rsplit("/", 3)
    return f"{namespace}/"
