"""A search as a statement: it has to find what the search finds, whatever is in the search."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from penstock.errors import BadRequest
from penstock.query import parse
from penstock.query.pieces import Sql
from penstock.query.statement import filled, literal, statement
from penstock.schema.shape import EMPTY, Leaf, Struct

SHAPE = Struct((("n", Leaf("long")), ("x", Leaf("double")), ("s", Leaf("string"))))
NASTY = ("'", "''; DROP TABLE t; --", "a?b", '"', "\\", "\n", "\u2028", "%_", "${", "NUL \0 here")


def write(text: str, **given: object) -> str:
    options: dict[str, object] = {"since": None, "until": None, "duplicates": "fold", **given}
    return statement(parse(text, now=0), SHAPE, "flights", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as engine:
        yield engine


@pytest.mark.parametrize("text", NASTY)
def test_a_text_stays_one_text(engine: duckdb.DuckDBPyConnection, text: str) -> None:
    """SQL in a search box would run, or change what is found."""
    assert engine.sql(f"SELECT {literal(text)}").fetchone() == (text,)
    piece = Sql("SELECT ? = 'a?b', '?', \"?\" FROM (SELECT 1 AS \"?\")", (text,))
    assert engine.sql(filled(piece)).fetchone() == (text == "a?b", "?", 1)


@pytest.mark.parametrize("number", [0, -5, 2**62, 0.5, -1e300, 1e-300, float("inf"), True])
def test_a_number_stays_the_number(engine: duckdb.DuckDBPyConnection, number: float) -> None:
    row = engine.sql(f"SELECT {literal(number)}").fetchone()

    assert row == (number,)
    assert row is not None
    assert type(row[0]) is type(number)


def test_a_statement_can_be_read() -> None:
    assert write("s:UA n:>40", since=0).splitlines()[:3] == [
        'SELECT received_at, event_id, data."n", data."x", data."s"',
        'FROM "flights__distinct"',
        "WHERE received_at >= make_timestamptz(0)",
    ]
    assert "\n  AND " in write("s:UA n:>40")
    assert 'FROM "flights"\n' in write("", duplicates="include")
    assert "duplicate_of IS NOT NULL" in write("", duplicates="only")
    assert write("${LIMIT 7}").endswith("LIMIT 7")


def test_a_collection_without_columns_shows_payloads() -> None:
    asked = parse("", now=0)

    made = statement(asked, EMPTY, "raw", since=None, until=None, duplicates="fold")

    assert made.startswith("SELECT received_at, event_id, payload\n")


@pytest.mark.parametrize("text", ["s:null", "s.length():>2", "a ${ORDER_BY n}", "a ${UNIQUE s}"])
def test_what_tables_cannot_answer_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        write(text)
