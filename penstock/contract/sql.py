"""One statement, and its rows."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from penstock.contract.base import Asked, Told, example


class Statement(Asked):
    """One SELECT or EXPLAIN."""

    model_config = example(statement="SELECT data.origin, count(*) FROM flights GROUP BY 1")

    statement: str = Field(max_length=100_000)


class TablesTold(Told):
    """The tables there are for statements of the caller, and what one statement may take."""

    engine: str = Field(description="Whose SQL is written: DuckDB or Trino.")
    seconds: float = Field(description="A statement is stopped after so long.")
    rows: int = Field(description="The most rows of an answer in JSON.")
    tables: list[str]


class SqlColumnTold(Told):
    """A column as a statement names it, a field of the payload below `data`."""

    name: str
    type: str


class TableTold(Told):
    """One table, and its columns."""

    name: str
    rows: int
    columns: list[SqlColumnTold]


class SqlAnswer(Told):
    """The rows of a statement; types are Arrow's.

    Bytes are text where they are UTF-8, else an object with `base64`.
    """

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool = Field(description="There were more rows than are told.")
    seconds: float
