"""The catalog: several processes on one database, each version of metadata read once."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders import FLIGHTS
from lakes import MAIN, batch_of, log_of, new_lake, numbered, put, urls
from pyiceberg.exceptions import NamespaceAlreadyExistsError
from pyiceberg.serializers import FromInputFile

from lakehouse import open_lake
from lakehouse.catalog import CATALOG_NAME, Kept, memory_of, open_catalog
from penstock.errors import BadSetting


@pytest.mark.parametrize(
    ("catalog", "warehouse"),
    [("oracle://x", "file:///tmp/x"), ("sqlite:////tmp/x.db", "ftp://x")],
)
def test_an_unknown_kind_of_address_is_refused(catalog: str, warehouse: str) -> None:
    """A typing error must not make a second, empty lake somewhere."""
    with pytest.raises(BadSetting):
        open_lake(catalog, warehouse)


def test_the_catalog_has_the_name_that_trino_is_told(tmp_path: Path) -> None:
    """Tables belong to a catalog's name; under another one Trino would see none of them."""
    lake = new_lake(tmp_path)
    lake.create(FLIGHTS)

    rows = sqlite3.connect(tmp_path / "catalog.db").execute(
        "select distinct catalog_name from iceberg_tables"
    )

    assert rows.fetchall() == [(CATALOG_NAME,)] == [("penstock",)]


def test_many_may_open_the_catalog_at_once(tmp_path: Path) -> None:
    """`penstock up` starts platform and runs together; the first start must not fail."""
    with ThreadPoolExecutor(8) as pool:
        catalogs = list(pool.map(lambda _: open_catalog(*urls(tmp_path)), range(8)))

    mode = sqlite3.connect(tmp_path / "catalog.db").execute("pragma journal_mode").fetchone()
    assert mode == ("wal",)
    for catalog in catalogs:
        catalog.close()


def test_one_of_many_makes_the_namespace_and_the_others_are_told(tmp_path: Path) -> None:
    """PyIceberg answers a lost race with the database's own error."""
    catalog = open_catalog(*urls(tmp_path))

    def make(_: int) -> bool:
        try:
            catalog.create_namespace("team")
        except NamespaceAlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))

    assert made.count(True) == 1


def test_remembered_metadata_is_what_was_written(tmp_path: Path) -> None:
    """The next commit builds on it without reading it back."""
    lake = new_lake(tmp_path)
    log = log_of(*numbered(3))
    put(lake, batch_of(log, lake.create(FLIGHTS)))

    table = lake.table(MAIN)
    assert table is not None
    written = FromInputFile.table_metadata(table.io.new_input(table.metadata_location))

    assert written.model_dump_json() == table.metadata.model_dump_json()


def test_another_process_sees_a_commit_at_once(tmp_path: Path) -> None:
    """Metadata is remembered by its location, which the database is asked for each time."""
    ours, theirs = new_lake(tmp_path), new_lake(tmp_path)
    log = log_of(*numbered(2))
    before = ours.create(FLIGHTS)
    assert theirs.view(FLIGHTS) == before

    put(ours, batch_of(log, before))

    after = theirs.view(FLIGHTS)
    assert after is not None
    assert after.rows == 2


def test_the_newest_metadata_of_many_tables_is_kept_and_not_more_than_there_is_room_for(
    tmp_path: Path,
) -> None:
    """Old versions took the place of other tables: hundreds were parsed again at each commit."""
    lake = new_lake(tmp_path)
    lake.create(FLIGHTS)
    table = lake.table(MAIN)
    assert table is not None
    size = memory_of(table.metadata)
    kept = Kept(3 * size)

    for version in range(5):
        kept.keep(MAIN, f"a{version}", table.metadata)
    for name in ("b", "c"):
        kept.keep(("main", name), "1", table.metadata)
    assert kept.of(MAIN, "a3") is None
    assert kept.of(MAIN, "a4") == table.metadata
    kept.keep(("main", "d"), "1", table.metadata)

    assert [kept.of(("main", name), "1") is None for name in "bcd"] == [True, False, False]
    assert kept.of(MAIN, "a4") is not None
    kept.keep(MAIN, "huge", table.metadata.model_copy(update={"last_column_id": 10**9}))
    assert kept.of(MAIN, "huge") is not None
    assert kept.of(("main", "d"), "1") is None
