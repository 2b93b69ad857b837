"""SQL: one SELECT over the team's tables."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Header, Response

from lakehouse.sql.tables import LakeTables
from penstock.api.access import Reader
from penstock.api.platform import API, Here, Platform
from penstock.api.streaming import Streamed
from penstock.api.values import csv_header, csv_rows, rows_of, to_json
from penstock.contract.sql import SqlAnswer, Statement

router = APIRouter(prefix=f"{API}/sql", tags=["sql"])

ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"


@router.post(
    "",
    response_model=SqlAnswer,
    responses={200: {"content": {CSV: {}, ARROW: {}}}},
)
def ask(
    asked: Statement, caller: Reader, here: Here, accept: Annotated[str, Header()] = ""
) -> Response:
    """Answer one SELECT or EXPLAIN.

    JSON holds the rows up to a limit. Asked for `text/csv` or an Arrow stream, all rows are sent;
    an answer that breaks off is not complete.
    """
    tables = LakeTables(here.lake, caller.team, system=caller.operator)
    if CSV in accept:
        return _streamed(here, asked.statement, tables, CSV, _csv)
    if ARROW in accept:
        return _streamed(here, asked.statement, tables, ARROW, _arrow)

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


def _taken(written: io.BytesIO) -> bytes:
    content = written.getvalue()
    written.seek(0)
    written.truncate()
    return content
