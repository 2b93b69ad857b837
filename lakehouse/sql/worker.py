"""A process in which callers' statements run, one at a time, and what is said to it.

The engine's own limits are not enough: it counts neither the texts that functions make nor the
time inside of one. ``repeat('a', 4000000000)`` took 6 GB of a database that may use 500 MB, and
28 s of the 3 that it had. A process has limits that hold, and it can be ended; search and the API
go on beside it (docs/decisions/0007-statements-in-processes.md).

This file is started as a script (`lakehouse.sql.workers` does it), so that the process imports
the engine and little else. It has one database, locked before the first statement: no file outside
the folders of the tables it may read, no extension, no setting.
"""

from __future__ import annotations

import io
import os
import resource
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import duckdb
import msgspec
import pyarrow as pa

from penstock.errors import EngineUnavailable

CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Otherwise a name in a statement may mean a variable of this program.
    "python_enable_replacements": "false",
}

# The iceberg extension needs the first one. They come with their packages; nothing is downloaded.
_EXTENSIONS = ("avro", "iceberg")
_S3_EXTENSION = "httpfs"

# Files of a table never change, so what is known of one by its name stays true. Otherwise a name
# could also carry parameters that send the key to another server.
_S3_SETTINGS = {
    "s3_url_compatibility_mode": "true",
    "enable_http_metadata_cache": "true",
    "validate_external_file_cache": "'NO_VALIDATION'",
}

_BATCH = 2_000
_INTERRUPT_SECONDS = 0.05

# What the process has beside the engine's memory: Python, Arrow, stacks, and some room.
_BESIDE_ENGINE = 512 << 20

# The engine spills until the disk is full, and then the log could not be written.
_SPILL_PER_MEMORY = 4

# Rows go to the platform in pieces of this size, and a larger single row is refused: there every
# byte of an answer is copied a few times.
_PIECE_BYTES = 8 << 20
_MOST_ROW_BYTES = 64 << 20

READY, ROWS, END, FAILED = b"y", b"r", b"e", b"f"
TRUNCATED = b"t"
_HEAD = struct.Struct(">cQ")


class S3Access(msgspec.Struct, frozen=True):
    """How the engine reaches an object store. `endpoint` without a scheme; empty: AWS."""

    endpoint: str
    tls: bool
    region: str
    path_style: bool
    key: str
    secret: str
    token: str

    def __repr__(self) -> str:
        return f"S3Access({self.endpoint!r})"


class Begin(msgspec.Struct, frozen=True):
    """What the process is for. `folders` may be read, `spill` is for what exceeds memory.

    With `s3` the folders are prefixes of an object store.
    """

    folders: tuple[str, ...]
    spill: str
    memory: int
    threads: int
    s3: S3Access | None = None


class Shown(msgspec.Struct, frozen=True):
    """A name that means a table, as the metadata file at `metadata` has it."""

    schema: str
    name: str
    metadata: str
    distinct: bool


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A statement that was checked, the tables it names, and what its answer may hold."""

    statement: str
    home: str
    shown: tuple[Shown, ...]
    seconds: float
    rows: int | None = None
    bytes: int | None = None


def write_frame(stream: IO[bytes], kind: bytes, content: bytes | memoryview) -> None:
    """Send one frame."""
    stream.write(_HEAD.pack(kind, len(content)))
    stream.write(content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Answer the next frame; None if the other side has ended."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, size = _HEAD.unpack(head)
    content = stream.read(size)
    return (kind, content) if len(content) == size else None


def open_database(
    config: dict[str, Any], spill: Path, *, s3: bool = False
) -> duckdb.DuckDBPyConnection:
    """Make a database in memory with the extensions that the packages bring."""
    database = duckdb.connect(":memory:", config=config | {"temp_directory": str(spill)})
    for name in (*_EXTENSIONS, *([_S3_EXTENSION] if s3 else [])):
        spec = find_spec(f"duckdb_extension_{name}")
        if spec is None or spec.origin is None:
            raise EngineUnavailable(f"the package duckdb-extension-{name} is not installed")
        (file,) = Path(spec.origin).parent.rglob(f"{name}.duckdb_extension")
        database.execute(f"LOAD {text_of(str(file))}")
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    for name, value in _S3_SETTINGS.items() if s3 else ():
        database.execute(f"SET GLOBAL {name} = {value}")
    return database


def let_in(database: duckdb.DuckDBPyConnection, s3: S3Access, prefixes: Sequence[str]) -> None:
    """Give the database the key for objects with these prefixes, and for no others."""
    options = {
        "KEY_ID": s3.key,
        "SECRET": s3.secret,
        "SESSION_TOKEN": s3.token,
        "REGION": s3.region,
        "ENDPOINT": s3.endpoint,
        "URL_STYLE": "path" if s3.path_style else "vhost",
    }
    given = "".join(f", {name} {text_of(value)}" for name, value in options.items() if value)
    tls = "true" if s3.tls else "false"
    scope = ", ".join(text_of(prefix) for prefix in prefixes)
    try:
        database.execute(
            f"CREATE OR REPLACE SECRET lake (TYPE s3, PROVIDER config, USE_SSL {tls}{given}, "
            f"SCOPE [{scope}])"
        )
    except duckdb.Error:
        # What the engine says about a text repeats the text.
        raise EngineUnavailable("the engine does not take the key of the object store") from None


@contextmanager
def cursor_of(database: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection for the block."""
    cursor = database.cursor()
    try:
        yield cursor
    finally:
        cursor.close()


@contextmanager
def interrupted_after(seconds: float | None, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Stop what the connection does when the time is over."""
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


def text_of(text: str) -> str:
    """Answer a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def main() -> None:
    """Run the tasks that come, until the platform ends."""
    tasks = sys.stdin.buffer
    # What libraries print must not get between the frames.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    first = read_frame(tasks)
    if first is None:
        return
    begin = msgspec.msgpack.decode(first[1], type=Begin)
    most = begin.memory + _BESIDE_ENGINE
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    database = _locked(begin)
    write_frame(answers, READY, b"")
    shown: dict[tuple[str, str], str] = {}
    while (frame := read_frame(tasks)) is not None:
        task = msgspec.msgpack.decode(frame[1], type=Task)
        try:
            write_frame(answers, *_answered(database, task, shown, answers))
        except BrokenPipeError:
            return  # nobody is there any more


def _answered(
    database: duckdb.DuckDBPyConnection,
    task: Task,
    shown: dict[tuple[str, str], str],
    answers: IO[bytes],
) -> tuple[bytes, bytes]:
    """Send the rows of a task; answer the frame that ends them."""
    try:
        return END, TRUNCATED if _run(database, task, shown, answers) else b""
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - told to whoever asked, who sorts them
        told = "Out of Memory Error" if isinstance(error, MemoryError) else str(error)
        return FAILED, told.encode(errors="replace")


def _locked(begin: Begin) -> duckdb.DuckDBPyConnection:
    config = CONFIG | {"memory_limit": f"{begin.memory}B", "threads": begin.threads}
    config["max_temp_directory_size"] = f"{begin.memory * _SPILL_PER_MEMORY}B"
    database = open_database(config, Path(begin.spill), s3=begin.s3 is not None)
    if begin.s3 is not None and begin.folders:
        let_in(database, begin.s3, begin.folders)
    allowed = ", ".join(text_of(folder) for folder in begin.folders)
    database.execute(f"SET allowed_directories = [{allowed}]")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def _run(
    database: duckdb.DuckDBPyConnection,
    task: Task,
    shown: dict[tuple[str, str], str],
    answers: IO[bytes],
) -> bool:
    """Send the rows; say whether there were more than may be sent."""
    with cursor_of(database) as cursor, interrupted_after(task.seconds, cursor):
        _show(cursor, task, shown)
        cursor.execute(f"SET schema = {text_of(task.home)}")
        results = cursor.execute(task.statement).to_arrow_reader(_BATCH)
        _send(answers, results.schema, None)
        left, room, first = task.rows, task.bytes, True
        for batch in results:
            kept = batch if left is None else batch.slice(0, left)
            if room is not None and kept.nbytes > room:
                # One row is told, however large.
                kept = kept.slice(0, max(kept.num_rows * room // kept.nbytes, int(first)))
            _send_in_pieces(answers, kept)
            if kept.num_rows < batch.num_rows:
                return True
            left = None if left is None else left - kept.num_rows
            room = None if room is None else room - kept.nbytes
            first = False
    return False


def _show(cursor: duckdb.DuckDBPyConnection, task: Task, shown: dict[tuple[str, str], str]) -> None:
    """Let the names mean the tables as they are now; the home exists in any case."""
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(task.home)}")
    for view in task.shown:
        if shown.get((view.schema, view.name)) == view.metadata:
            continue
        wanted = " WHERE duplicate_of IS NULL" if view.distinct else ""
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(view.schema)}")
        cursor.execute(
            f"CREATE OR REPLACE VIEW {_quoted(view.schema)}.{_quoted(view.name)} AS "  # noqa: S608 - quoted
            f"SELECT * FROM iceberg_scan({text_of(view.metadata)}){wanted}"
        )
        shown[view.schema, view.name] = view.metadata


def _send_in_pieces(answers: IO[bytes], batch: pa.RecordBatch) -> None:
    start = 0
    while start < batch.num_rows:
        rest = batch.slice(start)
        size = max(1, rest.num_rows * _PIECE_BYTES // max(rest.nbytes, 1))
        piece = rest.slice(0, size)
        while piece.nbytes > _MOST_ROW_BYTES and piece.num_rows > 1:
            piece = piece.slice(0, piece.num_rows // 2)
        if piece.nbytes > _MOST_ROW_BYTES:
            raise ValueError(
                f"Out of Range Error: a row has {piece.nbytes:,} bytes; "
                f"an answer takes rows of {_MOST_ROW_BYTES:,} bytes at most"
            )
        _send(answers, batch.schema, piece)
        start += piece.num_rows


def _send(answers: IO[bytes], schema: pa.Schema, batch: pa.RecordBatch | None) -> None:
    written = io.BytesIO()
    with pa.ipc.new_stream(written, schema) as stream:
        if batch is not None:
            stream.write_batch(batch)
    write_frame(answers, ROWS, written.getbuffer())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


if __name__ == "__main__":
    main()
