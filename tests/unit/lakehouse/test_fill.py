"""How full columns are, without reading a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import FLIGHTS
from lakes import append, landing, log_of, new_lake
from pyiceberg.types import LongType

from lakehouse.fill import Counted, Fill, fill, fill_of
from lakehouse.parquet import Column
from penstock.envelope import CollectionId


def test_rows_with_a_value_are_counted_file_by_file(tmp_path: Path) -> None:
    """A file that was written before a column came has none of it; lists are not counted."""
    lake, log = new_lake(tmp_path), log_of('{"a": 1}', '{"a": null}', '{"a": 2, "l": [1]}')
    work = landing(log, lake)
    work.land_once(FLIGHTS)
    append(log, '{"o": {"b": "x"}}', '{"a": 3, "o": {}}', '{"a": "misfit", "x.y": true}', "7")
    work.land_once(FLIGHTS)

    assert fill(lake, FLIGHTS) == Fill(7, {"a": 3, "o.b": 1, "x%2Ey": 1})


def test_a_collection_without_a_table_has_no_fill(tmp_path: Path) -> None:
    """It was made a moment ago."""
    assert fill(new_lake(tmp_path), CollectionId("main", "ships")) is None


def test_columns_beyond_the_hundredth_have_no_count(tmp_path: Path) -> None:
    """Saying 0 % of them would be a lie."""
    keys = ",".join(f'"k{n:03}": {n}' for n in range(120))
    lake, log = new_lake(tmp_path), log_of(f"{{{keys}}}")
    landing(log, lake).land_once(FLIGHTS)

    found = fill(lake, FLIGHTS)

    assert found is not None
    assert found.values == {f"k{n:03}": 1 for n in range(100)}


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (Counted(5, {1: 5, 7: 5}, {7: 2}), {"a": 3}),
        (Counted(5, {1: 5}, {}), {"a": 0}),
        (Counted(5, {1: 5, 7: 5}, {}), {}),
        (Counted(5, {}, {}), {}),
    ],
    ids=["counted", "before the column", "without nulls", "by an engine that counts nothing"],
)
def test_what_a_file_does_not_say_is_not_guessed(file: Counted, values: dict[str, int]) -> None:
    """Other engines write files, too."""
    columns = [
        Column(1, LongType(), "log_offset", measured=True),
        Column(7, LongType(), "data.a", measured=True),
        Column(8, LongType(), "data.l.list.element", measured=False),
    ]

    assert fill_of([file, Counted(0, {1: 0}, {1: 0})], columns) == Fill(5, values)
