"""The database of our own SQL stays small, and whoever reads in it notices nothing."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import _duckdb
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.sql import own
from lakehouse.sql.own import LOOK_SECONDS, OwnDatabase
from lakehouse.sql.worker import S3Access

MOST_KEPT = 200_000

# The allocator of DuckDB, where it is built with jemalloc.
_mallctl = getattr(ctypes.CDLL(_duckdb.__file__), "duckdb_je_mallctl", None)


def _gives_back() -> bool:
    """Say whether the allocator of this process has threads that give back what is free."""
    assert _mallctl is not None
    said, size = ctypes.c_bool(), ctypes.c_size_t(1)
    assert _mallctl(b"background_thread", ctypes.byref(said), ctypes.byref(size), None, 0) == 0
    return said.value


class Databases:
    """Databases that keep the metadata of files, and a clock that the test turns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.made: list[duckdb.DuckDBPyConnection] = []
        self.own = OwnDatabase(self._make, folder, most_kept=MOST_KEPT, steady=lambda: self.now)

    def _make(self, spill: Path) -> duckdb.DuckDBPyConnection:
        spill.mkdir()
        database = duckdb.connect(":memory:", config={"temp_directory": str(spill)})
        database.execute("SET GLOBAL parquet_metadata_cache = true")
        self.made.append(database)
        return database

    def read(self, file: Path) -> None:
        """Have the metadata of a file kept: some 230 KB are counted."""
        with self.own.cursor(None) as cursor:
            assert cursor.execute(f"SELECT sum(c0) FROM '{file}'").fetchone() == (45,)

    def spills(self) -> list[str]:
        return sorted(one.name for one in self.folder.iterdir() if one.is_dir())


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[Databases]:
    databases = Databases(tmp_path)
    yield databases
    databases.own.close()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("wide") / "wide.parquet"
    columns = {f"c{number}": pa.array(range(10)) for number in range(200)}
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def test_a_database_that_keeps_much_gives_way_to_a_new_one(
    databases: Databases, wide: Path
) -> None:
    databases.read(wide)
    databases.now = LOOK_SECONDS - 1
    databases.read(wide)
    assert len(databases.made) == 1

    databases.now = LOOK_SECONDS
    databases.read(wide)
    assert len(databases.made) == 2
    assert databases.spills() == ["own-2"]
    with pytest.raises(duckdb.ConnectionException):
        databases.made[0].execute("SELECT 1")


def test_where_no_new_database_can_be_made_the_old_one_goes_on(
    databases: Databases, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages may be exchanged beneath a process that runs."""
    databases.read(wide)
    with monkeypatch.context() as broken:
        broken.setattr(duckdb, "connect", _refuse)
        databases.now = LOOK_SECONDS
        databases.read(wide)
    assert len(databases.made) == 1

    databases.now += LOOK_SECONDS
    databases.read(wide)
    assert len(databases.made) == 2


def _refuse(*_: object, **__: object) -> duckdb.DuckDBPyConnection:
    raise duckdb.IOException("IO Error: the extension is of another version")


def test_a_reader_that_is_left_lying_is_ended_by_whoever_finds_it(
    databases: Databases, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage is collected in any line, also in one that holds the lock."""
    left = databases.own.cursor(None)
    left.__enter__()
    databases.read(wide)
    opened = OwnDatabase._open

    def collecting(own: OwnDatabase) -> object:
        left.__exit__(None, None, None)
        return opened(own)

    monkeypatch.setattr(OwnDatabase, "_open", collecting)
    databases.now = LOOK_SECONDS
    databases.read(wide)

    assert databases.spills() == ["own-2"]


def test_a_database_that_keeps_little_stays(databases: Databases) -> None:
    for databases.now in (10.0, 20.0, 30.0):
        with databases.own.cursor(None) as cursor:
            cursor.execute("SELECT 1")

    assert len(databases.made) == 1


def test_whoever_reads_goes_on_where_he_is(databases: Databases, wide: Path) -> None:
    """A plan takes minutes; its database is closed when the last of its readers has ended."""
    databases.read(wide)
    with ExitStack() as first, ExitStack() as second:
        early = first.enter_context(databases.own.cursor(None))
        also = second.enter_context(databases.own.cursor(None))
        early.execute("CREATE TEMP TABLE mine AS SELECT 7 AS n")
        databases.now = LOOK_SECONDS
        databases.read(wide)

        assert len(databases.made) == 2
        assert early.execute("SELECT n FROM mine").fetchone() == (7,)
        first.close()
        assert also.execute(f"SELECT sum(c1) FROM '{wide}'").fetchone() == (45,)
        assert databases.spills() == ["own-1", "own-2"]
    assert databases.spills() == ["own-2"]


@pytest.mark.skipif(_mallctl is None, reason="needs the jemalloc of DuckDB")
def test_what_statements_freed_is_given_back_also_after_a_database_gave_way(
    databases: Databases, wide: Path
) -> None:
    """The end of a database ends the threads that give back for all of the process."""
    assert _gives_back()
    databases.read(wide)
    with databases.own.cursor(None) as early:
        databases.now = LOOK_SECONDS
        databases.read(wide)
        early.execute("SELECT 1")
    assert databases.spills() == ["own-2"]
    assert _gives_back()

    databases.now += LOOK_SECONDS
    databases.read(wide)
    assert databases.spills() == ["own-3"]
    assert _gives_back()


def test_every_database_is_given_the_key(
    databases: Databases, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and again when it is another one."""
    given: list[tuple[int, str]] = []

    def let_in(database: duckdb.DuckDBPyConnection, access: S3Access, _prefixes: object) -> None:
        given.append((databases.made.index(database), access.key))

    def ask(key: str) -> None:
        access = S3Access("127.0.0.1", False, "here", True, key, "secret", "")
        with databases.own.cursor(access) as cursor:
            cursor.execute(f"SELECT sum(c0) FROM '{wide}'")

    monkeypatch.setattr(own, "let_in", let_in)
    ask("one")
    ask("one")
    ask("two")
    databases.now = LOOK_SECONDS
    ask("two")

    assert given == [(0, "one"), (0, "two"), (1, "two")]
