"""SQL with DuckDB on the Iceberg tables, in this process.

Two kinds of databases, all in memory. Our own SQL (search, plans) runs in one that may read every
table. Statements of callers run in databases that are locked: no file outside the folders of the
tables they may read, no extension, no setting. A statement is checked before it gets there.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
import pyarrow as pa
import structlog

from lakehouse.files import path_of
from lakehouse.sql import DISTINCT, Answer, Limits, TableName, Tables
from lakehouse.sql.statement import explained, tables_used
from lakehouse.tables import TableView
from penstock.errors import BadRequest, BadSql, EngineUnavailable, PenstockError
from penstock.query.sql import quoted
from penstock.schema.shape import EMPTY, Leaf, List, Struct, Type

log = structlog.get_logger()

# The iceberg extension needs the other one. Both come with their packages; nothing is downloaded.
_EXTENSIONS = ("avro", "iceberg")

# A locked database costs 0.3 s to make and some MB to keep.
_LOCKED_KEPT = 4

_BATCH = 2_000
_INTERRUPT_SECONDS = 0.05

_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Otherwise a name in a statement may mean a variable of this program.
    "python_enable_replacements": "false",
}

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
_INTERRUPTED = "INTERRUPT Error"
_OUT_OF_MEMORY = "Out of Memory Error"
_FORBIDDEN = "Permission Error"


class DuckSql:
    """Keeps the promise of `lakehouse.sql.Engine`. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        *,
        memory: str,
        threads: int = 2,
        check: Callable[..., frozenset[TableName]] = tables_used,
    ) -> None:
        """Spill into a folder of its own below `folder`.

        `memory` is for our own SQL, and again for each of the few databases of callers. A test
        gives a `check` that lets everything pass, to see that the locks hold by themselves.
        """
        self._tables_used = check
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(mkdtemp(prefix="sql-", dir=folder))
        self._config = _CONFIG | {"memory_limit": memory, "threads": threads}
        self._own = _open(self._config, self._folder / "own")
        self._parser = duckdb.connect(":memory:", config=_CONFIG)
        self._locked: OrderedDict[tuple[str, ...], _Locked] = OrderedDict()
        self._made = 0
        self._guard = threading.Lock()

    def query(self, statement: str, tables: Tables, limits: Limits) -> Answer:
        """Answer one SELECT or EXPLAIN of a caller."""
        with self._run(statement, tables, limits.seconds) as results:
            return _gathered(results, limits)

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
        with _cursor(self._own) as cursor, _interrupted_after(seconds, cursor):
            try:
                yield DuckReader(cursor)
            except (duckdb.Error, OSError) as error:
                raise _told_to_us(error, seconds) from error

    def close(self) -> None:
        """Let go of memory and temporary files."""
        with self._guard:
            databases = [self._own, self._parser, *(one.database for one in self._locked.values())]
            self._locked.clear()
        for database in databases:
            database.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def _run(
        self, statement: str, tables: Tables, seconds: float
    ) -> Iterator[pa.RecordBatchReader]:
        folders: tuple[str, ...] = ()
        try:
            checked, used = self._check(statement, tables.names(), tables.home)
            views = {name: tables.view(name) for name in used}
            folders = tuple(sorted({_namespace_folder(view) for view in views.values()}))
            database = self._database(folders)
            with _cursor(database.database) as cursor, _interrupted_after(seconds, cursor):
                database.show(views, tables.home)
                cursor.execute(f"SET schema = {_text(tables.home)}")
                yield cursor.execute(checked).to_arrow_reader(_BATCH)
        except (duckdb.Error, OSError) as error:
            raise _told_to_caller(error, seconds, folders) from error

    def _check(
        self, statement: str, names: Collection[TableName], home: str
    ) -> tuple[str, frozenset[TableName]]:
        """Answer the statement as it may be run, and the tables that it reads."""
        with _cursor(self._parser) as parser:
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

    def _database(self, folders: tuple[str, ...]) -> _Locked:
        """Answer a database that can read these folders and nothing else."""
        with self._guard:
            found = self._locked.pop(folders, None)
            if found is None:
                self._made += 1
                database = _open(self._config, self._folder / f"locked-{self._made}")
                found = _Locked(database, folders)
            self._locked[folders] = found
            if len(self._locked) > _LOCKED_KEPT:
                # Statements that run in it hold it open until they are done.
                self._locked.popitem(last=False)
            return found


class _Locked:
    """A database in which callers' statements run."""

    def __init__(self, database: duckdb.DuckDBPyConnection, folders: Sequence[str]) -> None:
        self.database = database
        self._shown: dict[TableName, str] = {}
        self._guard = threading.Lock()
        allowed = ", ".join(_text(folder) for folder in folders)
        database.execute(f"SET allowed_directories = [{allowed}]")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")

    def show(self, views: dict[TableName, TableView], home: str) -> None:
        """Let the names mean the tables as these views saw them; `home` exists in any case."""
        with self._guard, _cursor(self.database) as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(home)}")
            for name, view in views.items():
                if self._shown.get(name) == view.metadata_location:
                    continue
                wanted = " WHERE duplicate_of IS NULL" if name.name.endswith(DISTINCT) else ""
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(name.schema)}")
                cursor.execute(
                    f"CREATE OR REPLACE VIEW {quoted(name.schema)}.{quoted(name.name)} AS "  # noqa: S608 - quoted
                    f"SELECT * FROM {_scan(view)}{wanted}"
                )
                self._shown[name] = view.metadata_location


class DuckReader:
    """Keeps the promise of `lakehouse.sql.Reader`."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._registered = 0

    def lake(self, view: TableView, *, snapshot_id: int | None = None) -> str:
        """Answer what to write behind FROM for a table, now or as of one of its snapshots."""
        return _scan(view, snapshot_id)

    def arrow(self, rows: pa.Table | pa.RecordBatchReader) -> str:
        """Answer what to write behind FROM for these rows."""
        self._registered += 1
        name = f"arrow_{self._registered}"
        self._cursor.register(name, rows)
        return name

    def shape(self, source: str) -> Struct:
        """Answer the shape of `data` in a source."""
        schema = self.rows(f"SELECT * FROM {source} LIMIT 0").schema  # noqa: S608 - our own
        position = schema.get_field_index("data")
        shape = EMPTY if position < 0 else _shape(schema.field(position).type)
        return shape if isinstance(shape, Struct) else EMPTY

    def rows(self, text: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Answer all rows."""
        table: pa.Table = self._cursor.execute(text, list(parameters)).to_arrow_table()
        return table

    def batches(
        self, text: str, parameters: Sequence[object] = (), *, rows: int = 10_000
    ) -> pa.RecordBatchReader:
        """Answer the rows in order, some at a time."""
        return self._cursor.execute(text, list(parameters)).to_arrow_reader(rows)


def _open(config: dict[str, Any], spill: Path) -> duckdb.DuckDBPyConnection:
    """Make a database in memory with the extensions that the packages bring."""
    database = duckdb.connect(":memory:", config=config | {"temp_directory": str(spill)})
    for name in _EXTENSIONS:
        spec = find_spec(f"duckdb_extension_{name}")
        if spec is None or spec.origin is None:
            raise EngineUnavailable(f"the package duckdb-extension-{name} is not installed")
        (file,) = Path(spec.origin).parent.rglob(f"{name}.duckdb_extension")
        database.execute(f"LOAD {_text(str(file))}")
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    return database


@contextmanager
def _cursor(database: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    cursor = database.cursor()
    try:
        yield cursor
    finally:
        cursor.close()


@contextmanager
def _interrupted_after(seconds: float | None, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    if seconds is None:
        yield
        return
    done = threading.Event()

    def interrupt() -> None:
        # Again and again: between two statements there is nothing that could be interrupted.
        if not done.wait(seconds):
            while not done.wait(_INTERRUPT_SECONDS):
                cursor.interrupt()

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _told_to_caller(error: Exception, seconds: float, folders: Sequence[str]) -> PenstockError:
    """Answer a sentence for the person who wrote the statement, without addresses of files."""
    text = str(error)
    about_files = any(folder in text for folder in folders)
    if text.startswith(_INTERRUPTED):
        return BadSql(f"the statement took longer than {seconds:g} s and was stopped")
    if text.startswith(_OUT_OF_MEMORY):
        return BadSql("the statement needs more memory than it may use")
    if text.startswith(_FORBIDDEN):
        return BadSql("a statement reads tables only, no files")
    if text.startswith(_ABOUT_STATEMENT) and not about_files:
        # The advice behind it is about settings and extensions.
        return BadSql(text.split("\n\nPossible solutions", 1)[0].strip())
    log.error("the engine could not run a statement", error=text)
    return EngineUnavailable("the tables cannot be read now")


def _told_to_us(error: Exception, seconds: float | None) -> PenstockError:
    """Answer what is to be done about an error in our own SQL."""
    text = str(error)
    if text.startswith(_INTERRUPTED):
        return BadRequest(f"this takes longer than {seconds:g} s; ask for a shorter time")
    if text.startswith(_OUT_OF_MEMORY):
        return BadRequest("this needs more memory than there is; ask for a shorter time")
    log.error("the engine could not run our own statement", error=text)
    return EngineUnavailable("the tables cannot be read now")


def _gathered(results: pa.RecordBatchReader, limits: Limits) -> Answer:
    batches: list[pa.RecordBatch] = []
    rows, room = limits.rows, limits.bytes
    for batch in results:
        fitting = batch.num_rows if batch.nbytes <= room else batch.num_rows * room // batch.nbytes
        # One row is told, however large.
        kept = batch.slice(0, min(rows, max(fitting, 0 if batches else 1)))
        batches.append(kept)
        if kept.num_rows < batch.num_rows:
            return Answer(pa.Table.from_batches(batches, results.schema), truncated=True)
        rows -= kept.num_rows
        room -= kept.nbytes
    return Answer(pa.Table.from_batches(batches, results.schema), truncated=False)


def _scan(view: TableView, snapshot_id: int | None = None) -> str:
    location = _text(str(path_of(view.metadata_location)))
    as_of = "" if snapshot_id is None else f", snapshot_from_id := {snapshot_id:d}"
    return f"iceberg_scan({location}{as_of})"


def _namespace_folder(view: TableView) -> str:
    """Answer the folder that holds all tables of the table's namespace, and nothing else."""
    metadata = path_of(view.metadata_location).parent
    return f"{metadata.parent.parent}/"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _shape(kind: pa.DataType) -> Type:
    if pa.types.is_struct(kind):
        return Struct(tuple((field.name, _shape(field.type)) for field in kind))
    if pa.types.is_list(kind):
        return List(_shape(kind.value_type))
    return Leaf(_KINDS[kind])


_KINDS: dict[pa.DataType, Any] = {
    pa.bool_(): "bool",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.string(): "string",
}
