"""One statement, and its rows."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from penstock.contract.base import Asked, Told, example


class Statement(Asked):
    """One SELECT or EXPLAIN."""

    model_config = example(statement="SELECT data.origin, count(*) FROM flights GROUP BY 1")

    statement: str = Field(max_length=100_000)


class SqlAnswer(Told):
    """The rows of a statement; types are Arrow's.

    Bytes are text where they are UTF-8, else an object with `base64`.
    """

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool = Field(description="There were more rows than are told.")
    seconds: float
