"""Files are read by themselves only where that is reading the table."""

from __future__ import annotations

import gc
from pathlib import Path

import pyarrow as pa
import pytest
from builders import FLIGHTS
from indexing import Home

from lakehouse import listing
from lakehouse.catalog import main_table
from lakehouse.columns import arrow_schema
from lakehouse.listing import Listing, _same_columns
from lakehouse.sql import Engine, open_engine
from lakehouse.tables import TableView
from lakehouse.upkeep import compact


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    engine: Engine = open_engine(tmp_path_factory.mktemp("spill"), memory="500MB", threads=1)
    yield engine
    engine.close()


def view(home: Home) -> TableView:
    found = home.lake.view(FLIGHTS)
    assert found is not None
    return found


def landed(home: Home, *payloads: str) -> None:
    home.send(*payloads)
    home.land()


def test_files_are_told_with_their_times_and_shapes(tmp_path: Path, engine: Engine) -> None:
    """A file that came before a column has another shape than those after it."""
    home = Home(tmp_path, engine, None)
    landed(home, '{"n": 1}', '{"n": 2}')
    landed(home, '{"n": 3, "s": "x"}')

    first, second = Listing(home.lake).files(view(home)) or ()

    assert (first.rows, second.rows) == (2, 1)
    assert first.last < second.first == second.last
    assert [group.ids for group in (*first.groups, *second.groups)] == [
        ("e0", "e1"),
        ("e2", "e2"),
    ]
    assert [(group.rows, group.first, group.last) for group in first.groups] == [
        (2, first.first, first.last)
    ]
    assert len(first.shape.fields) == 1
    assert second.shape == view(home).shape
    with engine.reader() as reader:
        rows = reader.rows(f"SELECT data.n AS n FROM {reader.files([first.path])} ORDER BY n")
    assert rows["n"].to_pylist() == [1, 2]


def test_what_was_read_once_is_not_read_again(tmp_path: Path, engine: Engine) -> None:
    """Not even for the next landing, but for what that one brought."""
    home = Home(tmp_path, engine, None)
    landed(home, '{"n": 1}')
    known = Listing(home.lake)
    (first,) = known.files(view(home)) or ()
    Path(first.path.removeprefix("file://")).unlink()

    landed(home, '{"n": 2}')

    assert [one.rows for one in known.files(view(home)) or ()] == [1, 1]


def footers() -> int:
    gc.collect()
    return sum(isinstance(one, listing._Footer) for one in gc.get_objects())


def test_after_merging_the_new_file_is_told_and_no_other(tmp_path: Path, engine: Engine) -> None:
    """Nothing of the others is kept in mind: a table that lands for years has few files."""
    home = Home(tmp_path, engine, None)
    known = Listing(home.lake)
    before = footers()
    for number in range(3):
        landed(home, f'{{"n": {number}}}')
    assert len(known.files(view(home)) or ()) == 3
    assert footers() == before + 3

    compact(home.lake, main_table(FLIGHTS), new_name=lambda: "merged", fewest=2)

    (one,) = known.files(view(home)) or ()
    assert one.rows == 3
    assert "merged" in one.path
    assert footers() == before + 1


def test_many_shapes_are_left_to_the_engine(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, engine, None)
    for number in range(3):
        landed(home, f'{{"n{number}": 1}}')
    assert len(Listing(home.lake).files(view(home)) or ()) == 3

    monkeypatch.setattr(listing, "MOST_SHAPES", 2)

    assert Listing(home.lake).files(view(home)) is None
    assert len(home.find("n1:1")) == 1, "and they are found by it"


def test_columns_of_another_name_id_or_type_are_no_columns_of_the_table(
    tmp_path: Path, engine: Engine
) -> None:
    """A column that was made anew has another id; a file that has the old one lacks it."""
    home = Home(tmp_path, engine, None)
    landed(home, '{"n": 1, "o": {"s": "x"}, "l": [{"k": 1}]}')
    table = home.lake.table(main_table(FLIGHTS))
    assert table is not None
    columns = arrow_schema(table.schema())

    def with_data(change) -> pa.Schema:
        place = columns.get_field_index("data")
        field = columns.field(place)
        fields = [change(one) if one.name == "n" else one for one in field.type]
        return columns.set(place, field.with_type(pa.struct([f for f in fields if f])))

    assert _same_columns(columns, columns)
    assert _same_columns(with_data(lambda _: None), columns), "an earlier file"
    assert not _same_columns(columns, with_data(lambda _: None)), "a column that went"
    other_id = {"PARQUET:field_id": "999"}
    assert not _same_columns(with_data(lambda one: one.with_metadata(other_id)), columns)
    assert not _same_columns(with_data(lambda one: one.with_type(pa.string())), columns)
    assert not _same_columns(with_data(lambda one: one.with_name("N")), columns)
    place = columns.get_field_index("misfits")
    assert not _same_columns(columns.remove(place), columns), "the envelope is whole"


def test_a_path_that_is_a_pattern_is_left_to_the_engine(tmp_path: Path, engine: Engine) -> None:
    """It could name other files."""
    folder = tmp_path / "odd[1]"
    folder.mkdir()
    home = Home(folder, engine, None)
    landed(home, '{"n": 1}')

    assert Listing(home.lake).files(view(home)) is None
