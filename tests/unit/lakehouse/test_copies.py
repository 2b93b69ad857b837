"""Copies of what describes a table: the same rows, few files, and errors that are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from builders import FLIGHTS
from lakes import append, landing, log_of, new_lake
from pyiceberg.io import InputFile

from lakehouse import Lake, TableView
from lakehouse.files import LocalFiles, path_of
from lakehouse.sql import Engine, open_engine
from lakehouse.sql.copies import Copies
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable

LANDINGS = 4


class Counted(LocalFiles):
    """A store that counts what is read, and may refuse it."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Counter[str] = Counter()
        self.refuses: Callable[[str], bool] = lambda _: False

    def new_input(self, location: str) -> InputFile:
        self.read[location] += 1
        if self.refuses(location):
            raise EngineUnavailable("the object store refuses: SlowDown")
        return super().new_input(location)


@pytest.fixture
def store() -> Counted:
    return Counted()


@pytest.fixture
def copies(tmp_path: Path, store: Counted) -> Copies:
    return Copies(tmp_path / "copies", store, most=3)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with closing(open_engine(tmp_path / "sql", memory="100MB", threads=1)) as engine:
        yield engine


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return new_lake(tmp_path)


def views_of(lake: Lake) -> list[TableView]:
    """Answer the table after each of some landings of one event."""
    log = log_of()
    work, found = landing(log, lake), []
    for number in range(LANDINGS):
        append(log, f'{{"n": {number}}}')
        work.land_once(FLIGHTS)
        view = lake.view(FLIGHTS)
        assert view is not None
        found.append(view)
    return found


def offsets(engine: Engine, metadata: Path) -> list[int]:
    with engine.reader() as reader:
        found = reader.rows(f"SELECT log_offset FROM iceberg_scan('{metadata}') ORDER BY 1")
    return [int(one) for one in found["log_offset"].to_pylist()]


def test_a_table_has_the_same_rows_through_its_copy(
    lake: Lake, copies: Copies, engine: Engine
) -> None:
    """Now, and as of each snapshot it has."""
    views = views_of(lake)
    newest = views[-1]

    for number, view in enumerate(views, 1):
        assert offsets(engine, copies.metadata(view, None)) == list(range(number))
        assert offsets(engine, copies.metadata(newest, view.snapshot_id)) == list(range(number))


def test_a_table_without_rows_has_none(lake: Lake, copies: Copies) -> None:
    view = lake.create(FLIGHTS)

    assert copies.metadata(view, None).exists()
    with pytest.raises(EngineUnavailable, match="snapshot"):
        copies.metadata(view, 17)


def test_what_is_known_is_not_read_again(lake: Lake, copies: Copies, store: Counted) -> None:
    """A manifest is in every snapshot behind its own."""
    views = views_of(lake)
    for view in (*views[:2], *views[:2]):
        copies.metadata(view, None)

    read = {where: times for where, times in store.read.items() if where.endswith("-m0.avro")}
    assert len(read) == 2
    assert set(read.values()) == {1}
    assert store.read[views[0].metadata_location] == 1


def test_the_oldest_go_and_come_again(
    tmp_path: Path, lake: Lake, copies: Copies, engine: Engine
) -> None:
    """No more than three; what goes takes nothing from the others."""
    views = views_of(lake)
    for view in views:
        copies.metadata(view, None)

    assert len([one for one in (tmp_path / "copies").iterdir() if one.name != "manifests"]) == 3
    for number, view in reversed(list(enumerate(views, 1))):
        assert offsets(engine, copies.metadata(view, None)) == list(range(number))


def test_what_nobody_asks_for_goes_after_an_hour(
    tmp_path: Path, lake: Lake, store: Counted, engine: Engine
) -> None:
    """With the manifests that no other one has: they say what values there are."""
    now = 0.0
    copies = Copies(tmp_path / "copies", store, steady=lambda: now)
    log = log_of()
    work = landing(log, lake)
    append(log, '{"n": 0}')
    work.land_once(FLIGHTS)
    old = lake.view(FLIGHTS)
    assert old is not None
    other = CollectionId("main", "others")
    append(log, '{"n": 0}', collection=other)
    work.land_once(other)
    new = lake.view(other)
    assert new is not None
    copies.metadata(old, None)
    now = 3_000.0
    copies.metadata(new, None)
    now = 3_700.0
    metadata = copies.metadata(new, None)

    left = [one for one in (tmp_path / "copies").iterdir() if one.name != "manifests"]
    assert left == [metadata.parent]
    assert len(list((tmp_path / "copies" / "manifests").iterdir())) == 1
    assert offsets(engine, copies.metadata(old, None)) == [0]


def test_many_may_ask_at_once(lake: Lake, copies: Copies, engine: Engine) -> None:
    newest = views_of(lake)[-1]
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: copies.metadata(newest, None), range(32)))

    [metadata] = found
    assert offsets(engine, metadata) == list(range(LANDINGS))


@pytest.mark.parametrize("ending", [".json", ".avro", "-m0.avro"])
def test_what_cannot_be_read_is_told_and_leaves_nothing(
    tmp_path: Path, lake: Lake, copies: Copies, store: Counted, engine: Engine, ending: str
) -> None:
    """It is read as soon as the store answers again."""
    newest = views_of(lake)[-1]
    store.refuses = lambda location: location.endswith(ending)
    with pytest.raises(EngineUnavailable):
        copies.metadata(newest, None)
    assert [one.name for one in (tmp_path / "copies").iterdir()] == ["manifests"]

    store.refuses = lambda _: False
    assert offsets(engine, copies.metadata(newest, None)) == list(range(LANDINGS))


def test_metadata_that_is_gone_is_told(lake: Lake, copies: Copies) -> None:
    newest = views_of(lake)[-1]
    Path(path_of(newest.metadata_location)).unlink()

    with pytest.raises(EngineUnavailable, match="cannot be read"):
        copies.metadata(newest, None)
