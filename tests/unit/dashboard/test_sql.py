from __future__ import annotations

import io
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import FLIGHTS
from fastapi import FastAPI
from forms import Browser, browser
from platform_stand_ins import StandInLake, StandInSql, grant, table

from penstock.api.platform import Platform
from penstock.contract.sql import SqlAnswer, SqlColumnTold, TableTold
from penstock.dashboard.sql import cell, chart_of, examples_of, line_of
from penstock.errors import BadSql, EngineUnavailable


@pytest.fixture
def reader(app: FastAPI, here: Platform) -> Browser:
    made = browser(app)
    made.sign_in(grant(here.store, "read"))
    return made


def engine(here: Platform) -> StandInSql:
    assert isinstance(here.sql, StandInSql)
    return here.sql


def test_rows_have_types_and_nothing_of_them_becomes_markup(
    reader: Browser, here: Platform
) -> None:
    engine(here).rows = pa.table(
        {"<b>x": ["<script>alert(1)</script>", None], "n": [3, 4], "deep": [{"<i>": [1]}, None]}
    )

    shown = reader.post("/sql", statement="SELECT <u>")

    assert shown.status_code == 200
    assert "&lt;script&gt;" in shown.text
    assert "int64" in shown.text
    assert not re.search(r"<script>|<b>|<i>\"|<u>", shown.text)


def test_a_wrong_statement_is_kept_and_its_line_named(reader: Browser, here: Platform) -> None:
    engine(here).error = BadSql("syntax error\n\nLINE 2: FRM <b>\n        ^")

    shown = reader.post("/sql", statement="SELECT 1\nFRM <b>")

    assert shown.status_code == 422
    assert "Line 2: the statement cannot be run" in shown.text
    assert "SELECT 1\nFRM &lt;b&gt;</textarea>" in shown.text
    assert reader.post("/sql", statement=" ").status_code == 422


def test_a_statement_is_kept_while_the_engine_is_away(reader: Browser, here: Platform) -> None:
    engine(here).error = EngineUnavailable("Trino does not answer")

    for path in ("/sql", "/sql/csv"):
        shown = reader.post(path, statement="SELECT 17")
        assert shown.status_code == 503
        assert "Trino does not answer" in shown.text
        assert "SELECT 17</textarea>" in shown.text


def test_files_hold_all_rows(reader: Browser, here: Platform) -> None:
    engine(here).rows = rows = pa.table({"a": ["x", None, "z"], "b": [[1], [], None]})

    csv = reader.post("/sql/csv", statement="SELECT 1")
    parquet = reader.post("/sql/parquet", statement="SELECT 1")

    assert csv.text == "a,b\nx,[1]\n,[]\nz,\n"
    assert csv.headers["content-disposition"] == 'attachment; filename="penstock.csv"'
    # A group of rows for each batch: what the footer says of their places has to be right.
    assert pq.read_table(io.BytesIO(parquet.content)).equals(rows)
    assert reader.post("/sql/exe", statement="SELECT 1").status_code == 404


def test_a_link_brings_a_statement_and_does_not_run_it(reader: Browser, here: Platform) -> None:
    shown = reader.get("/sql?q=SELECT%20%3Cb%3E")

    assert "SELECT &lt;b&gt;</textarea>" in shown.text
    assert engine(here).asked == []


def test_tables_are_listed_with_columns_and_none_teach(reader: Browser, here: Platform) -> None:
    assert "No tables yet" in reader.get("/sql").text
    lake = here.lake
    assert isinstance(lake, StandInLake)
    lake.views[FLIGHTS] = table(FLIGHTS, rows=3)

    shown = reader.get("/sql").text

    assert "main__quarantine.flights" in shown
    assert "received_at" in shown
    assert "FROM flights" in shown


def test_what_an_engine_says_names_a_line() -> None:
    assert line_of("no\n\nLINE 12: x", "") == 12
    assert line_of("no such column, at line 3, character 4", "\n\nSELECT") == 5
    assert line_of("no", "no") is None
    assert line_of('Could not find key "totl"', "SELECT 1,\n  data.totl") == 2
    assert line_of('Could not find key "a"', "SELECT a,\n a") is None
    assert line_of('Could not find key "a"', "SELECT ab") is None


def test_long_and_nested_values_are_folded_and_none_is_endless() -> None:
    assert cell({"a": 1}).text == '{"a":1}'
    folded = cell(["x" * 10_000])
    assert len(folded.text) < 100
    assert (len(folded.whole), folded.cut) == (4_000, 6_004)
    assert cell({"base64": "AAA="}).text == "2 bytes, no text"


def answer(types: list[str], rows: list[list[object]]) -> SqlAnswer:
    names = ["a", "b"][: len(types)]
    return SqlAnswer(columns=names, types=types, rows=rows, truncated=False, seconds=0.1)


def test_two_columns_that_fit_are_drawn() -> None:
    times = [["2026-11-26T10:01:00.000000Z", 2], ["2026-11-26T10:00:00.000000Z", 1]]
    timed = chart_of(answer(["timestamp[us, tz=UTC]", "int64"], times))
    assert timed is not None
    assert (timed.starts[1] - timed.starts[0], timed.values) == (60.0, [1.0, 2.0])
    days = chart_of(answer(["date32[day]", "int64"], [["2026-11-26", 1], ["2026-11-27", 3]]))
    assert days is not None
    assert days.starts[1] - days.starts[0] == 86_400.0

    bars = chart_of(answer(["string", "double"], [["x", 4.0], ["y", 1.0], [None, 9.0]]))
    assert bars is not None
    assert bars.bars == [("x", 4.0, 100.0), ("y", 1.0, 25.0)]
    assert chart_of(answer(["string", "string"], [["x", "y"], ["x", "y"]])) is None
    assert chart_of(answer(["string", "int64"], [["x", 1]])) is None


def test_examples_use_columns_that_are_there() -> None:
    columns = [("data.carrier", "string"), ("data.items[].n", "long"), ("data.delay", "double")]
    told = TableTold(
        name="flights",
        rows=1,
        columns=[SqlColumnTold(name=name, type=kind) for name, kind in columns],
    )
    texts = " ".join(text for _, text in examples_of(told))

    assert "data.carrier" in texts
    assert "avg(data.delay)" in texts
    assert "[]" not in texts
    assert examples_of(told.model_copy(update={"name": 'a"; drop'})) == []
