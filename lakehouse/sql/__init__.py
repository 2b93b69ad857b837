"""SQL over the tables of a team: what a statement may do, and what an engine answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from lakehouse.tables import TableView
from penstock.errors import BadSetting
from penstock.query.dialects import Dialect
from penstock.schema.shape import Struct
from penstock.settings import S3Options

DISTINCT = "__distinct"
"""The ending of the view that leaves out the events which repeat another one."""


class TableName(NamedTuple):
    """How a statement names a table: ``flights`` is ``main.flights`` to the team `main`."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Tables(Protocol):
    """The tables one caller may read. Whatever is not here does not exist for a statement."""

    @property
    def home(self) -> str:
        """The schema of names that stand alone."""
        ...

    def names(self) -> Collection[TableName]:
        """Answer every table there is for the caller."""
        ...

    def view(self, name: TableName) -> TableView:
        """Answer one of them as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one statement may take."""

    seconds: float
    rows: int
    bytes: int = 64 << 20
    """The most an answer may hold."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a statement; `truncated` when there were more than the limits let through."""

    rows: pa.Table
    truncated: bool


class Reader(Protocol):
    """A connection for our own SQL: search, plans, replays. Nothing is checked in it."""

    def lake(self, view: TableView, *, snapshot_id: int | None = None) -> str:
        """Answer what to write behind FROM for a table, now or as of one of its snapshots."""
        ...

    def files(self, files: Sequence[str]) -> str:
        """Answer what to write behind FROM for data files that have the same columns."""
        ...

    def file_name(self, file: str) -> str:
        """Answer what `filename` is of the rows of a data file."""
        ...

    def arrow(self, rows: pa.Table | pa.RecordBatchReader) -> str:
        """Answer what to write behind FROM for these rows; a reader can be read once."""
        ...

    def shape(self, source: str) -> Struct:
        """Answer the shape of `data` in a source: an old snapshot has fewer columns than now."""
        ...

    def rows(self, text: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Answer all rows."""
        ...

    def batches(
        self, text: str, parameters: Sequence[object] = (), *, rows: int = 10_000
    ) -> pa.RecordBatchReader:
        """Answer the rows in order, some at a time: what is not asked for is not computed."""
        ...


class Sql(Protocol):
    """Runs statements of callers on the lake's tables."""

    @property
    def dialect(self) -> Dialect:
        """What a statement is written in."""
        ...

    def query(self, statement: str, tables: Tables, limits: Limits) -> Answer:
        """Answer one SELECT or EXPLAIN of a caller.

        Raises `BadSql`, with a sentence for the person who wrote the statement, when it is
        anything else, names a table that is not theirs, reads or writes anything but tables, or
        needs more time or memory than it may; `EngineUnavailable` when there is nobody to ask.
        """
        ...

    def stream(
        self, statement: str, tables: Tables, *, seconds: float
    ) -> AbstractContextManager[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Answer one SELECT without a limit on rows, some at a time. Raises as `query` does.

        What runs for it ends with the block.
        """
        ...

    def close(self) -> None:
        """Let go of memory, connections and temporary files; twice is once."""
        ...


class Engine(Sql, Protocol):
    """Also reads for ourselves, in this process."""

    def reader(self, *, seconds: float | None = None) -> AbstractContextManager[Reader]:
        """Open a connection for our own SQL; over the time it raises `BadRequest`."""
        ...


def open_engine(
    folder: Path,
    *,
    memory: str,
    threads: int = 2,
    s3: S3Options | None = None,
    keep_metadata: bool = False,
) -> Engine:
    """Open the embedded engine; what does not fit into memory is spilled into `folder`.

    `s3` says how the object store of the tables is reached, if they are in one. `keep_metadata` is
    for those who read the same files again and again: some of the memory then holds what describes
    files.
    """
    from lakehouse.sql.embedded import DuckSql

    return DuckSql(folder, memory=memory, threads=threads, s3=s3, keep_metadata=keep_metadata)


def open_sql(url: str, *, embedded: Sql, password: str = "", token: str = "") -> Sql:
    """Open what runs callers' statements: Trino at `url`, or `embedded` if there is none.

    Search, plans and replays read with the embedded engine in any case
    (docs/decisions/0012-trino-for-callers.md). Raises `BadSetting`.
    """
    return open_trino(url, password=password, token=token) if url else embedded


def open_trino(url: str, *, password: str = "", token: str = "") -> Sql:
    """Open Trino at `url`; nothing is asked of it yet. Raises `BadSetting`."""
    match urlsplit(url).scheme:
        case "trino" | "trino+https":
            try:
                from lakehouse.sql.trino import TrinoSql
            except ModuleNotFoundError as error:
                raise BadSetting(
                    "sql_url asks for Trino, whose client is missing: pip install 'penstock[trino]'"
                ) from error
            return TrinoSql(url, password=password, token=token)
        case other:
            raise BadSetting(
                f"sql_url starts with {other!r}; use trino://user@host:port/catalog or trino+https://"
            )
