"""SQL: one SELECT over the team's tables."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import APIRouter, Header, Response

from lakehouse.catalog import QUARANTINE_SUFFIX
from lakehouse.sql import TableName
from lakehouse.sql.tables import LakeTables
from penstock.api.access import Reader
from penstock.api.platform import API, Here, Platform
from penstock.api.streaming import Streamed
from penstock.api.values import csv_header, csv_rows, rows_of, to_json
from penstock.codec import ENVELOPE
from penstock.contract.sql import SqlAnswer, SqlColumnTold, Statement, TablesTold, TableTold
from penstock.errors import BadSql, NotFound
from penstock.schema.rows import QUARANTINE_SCHEMA, ROWS_TAIL
from penstock.schema.shape import columns

router = APIRouter(prefix=f"{API}/sql", tags=["sql"])

ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"


@router.post(
    "",
    response_model=SqlAnswer,
    responses={200: {"content": {CSV: {}, ARROW: {}, PARQUET: {}}}},
)
def ask(
    asked: Statement, caller: Reader, here: Here, accept: Annotated[str, Header()] = ""
) -> Response:
    """Answer one SELECT or EXPLAIN.

    JSON holds the rows up to a limit. Asked for `text/csv`, an Arrow stream or Parquet, all rows
    are sent; an answer that breaks off is not complete.
    """
    tables = LakeTables(here.lake, caller.team, system=caller.operator)
    if CSV in accept:
        return _streamed(here, asked.statement, tables, CSV, _csv)
    if ARROW in accept:
        return _streamed(here, asked.statement, tables, ARROW, _arrow)
    if PARQUET in accept:
        return _streamed(here, asked.statement, tables, PARQUET, parquet)

    with here.rooms.sql:
        begun = time.perf_counter()
        answer = here.sql.query(asked.statement, tables, here.sql_limits)
        body = {
            "columns": answer.rows.schema.names,
            "types": [str(field.type) for field in answer.rows.schema],
            "rows": rows_of(answer.rows),
            "truncated": answer.truncated,
            "seconds": time.perf_counter() - begun,
        }
        return Response(to_json(body), media_type="application/json")


@router.get("/tables")
def list_tables(caller: Reader, here: Here) -> TablesTold:
    """List the tables that the caller's statements may read, and what a statement may take."""
    tables = LakeTables(here.lake, caller.team, system=caller.operator)
    names = sorted(tables.names(), key=lambda one: (one.schema != tables.home, one))
    return TablesTold(
        engine=here.sql.dialect.engine,
        seconds=here.sql_limits.seconds,
        rows=here.sql_limits.rows,
        tables=[_written(name, tables.home) for name in names],
    )


@router.get("/tables/{name}")
def show_table(name: str, caller: Reader, here: Here) -> TableTold:
    """Show the columns of a table, as statements name them."""
    tables = LakeTables(here.lake, caller.team, system=caller.operator)
    found = [one for one in tables.names() if name in (str(one), _written(one, tables.home))]
    if not found:
        raise NotFound("table", name)
    view = tables.view(found[0])
    quarantined = found[0].schema.endswith(QUARANTINE_SUFFIX)
    fixed = QUARANTINE_SCHEMA if quarantined else pa.schema([*ENVELOPE, *ROWS_TAIL])
    data = [] if quarantined else columns(view.shape)
    return TableTold(
        name=_written(found[0], tables.home),
        rows=view.rows,
        columns=[
            *(SqlColumnTold(name=f"data.{path}", type=kind) for path, kind in data),
            *(SqlColumnTold(name=field.name, type=str(field.type)) for field in fixed),
        ],
    )


def _written(name: TableName, home: str) -> str:
    """Answer the shortest name that a statement of the team takes."""
    return name.name if name.schema == home else str(name)


Encode = Callable[[pa.Schema, Iterator[pa.RecordBatch]], Iterator[bytes]]


def _streamed(
    here: Platform, statement: str, tables: LakeTables, media_type: str, encode: Encode
) -> Response:
    """Answer all rows as they come.

    The first ones are computed and written before anything is sent: until then errors can be told.
    """
    with ExitStack() as opened:
        opened.enter_context(here.rooms.sql)
        schema, batches = opened.enter_context(
            here.sql.stream(statement, tables, seconds=here.sql_limits.seconds)
        )
        pieces = encode(schema, batches)
        first = list(islice(pieces, 2))
        return Streamed(chain(first, pieces), opened.pop_all(), media_type)


def _csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    yield csv_header(schema)
    for batch in batches:
        yield csv_rows(batch)


def _arrow(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    written = io.BytesIO()
    with pa.ipc.new_stream(written, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
            yield _taken(written)
    yield _taken(written)


class _Growing(io.RawIOBase):
    """A file that is taken away while it is written: it knows how long it became in all."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()
        self._before = 0

    def writable(self) -> bool:
        """Say that it is."""
        return True

    def write(self, content: Any) -> int:
        """Keep the bytes until they are taken."""
        self._held += content
        return len(content)

    def tell(self) -> int:
        """Answer how many bytes were written in all: Parquet's footer says where things are."""
        return self._before + len(self._held)

    def taken(self) -> bytes:
        """Answer what was written since the last time."""
        content = bytes(self._held)
        self._before += len(content)
        self._held.clear()
        return content


def parquet(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    """Write rows as a Parquet file, in pieces."""
    written = _Growing()
    try:
        writer = pq.ParquetWriter(written, schema, compression="zstd")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise BadSql("Parquet has no such type as one of the columns; cast it") from error
    with writer:
        for batch in batches:
            writer.write_batch(batch)
            if piece := written.taken():
                yield piece
    yield written.taken()


def _taken(written: io.BytesIO) -> bytes:
    content = written.getvalue()
    written.seek(0)
    written.truncate()
    return content
