"""Files replaced by others: manifests say all of them, and memory holds a few numbers of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS
from lakes import MAIN, append, landing, log_of, new_lake
from pyiceberg.manifest import DataFile, ManifestEntryStatus
from pyiceberg.table import Table

from lakehouse import Lake, replacing
from lakehouse.commit import Staged
from lakehouse.replacing import Packed, packed, plain, replace, tasks_of
from penstock.errors import TableChanged

METRICS = ("column_sizes", "value_counts", "null_value_counts", "lower_bounds", "upper_bounds")
PLACE = ("file_path", "file_format", "partition", "record_count", "file_size_in_bytes", "spec_id")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Answer a lake whose table has five files."""
    lake, log = new_lake(tmp_path), log_of()
    for number in range(5):
        append(log, f'{{"n": {number}, "s": "text {number}", "l": [1, 2]}}')
        assert landing(log, lake).land_once(FLIGHTS)
    return lake


def table_of(lake: Lake) -> Table:
    table = lake.table(MAIN)
    assert table is not None
    return table


def files_of(lake: Lake) -> list[DataFile]:
    return sorted((task.file for task in tasks_of(table_of(lake))), key=lambda f: f.file_path)


def said(file: DataFile) -> dict[str, Any]:
    metrics = {name: dict(getattr(file, name)) for name in METRICS}
    return {**{name: getattr(file, name) for name in (*PLACE, "split_offsets")}, **metrics}


def entries(table: Table) -> list[tuple[ManifestEntryStatus, str]]:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return sorted(
        (entry.status, Path(entry.data_file.file_path).name)
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    )


def test_a_file_is_unpacked_as_it_was_packed(lake: Lake) -> None:
    """Its counts and bounds are what engines leave files out by: a wrong one hides rows."""
    for file in files_of(lake):
        assert file.lower_bounds
        assert said(packed(file).unpacked()) == said(file)
        assert len(packed(file).metrics) < 1_000


def test_a_plain_file_is_the_same_file_without_metrics(lake: Lake) -> None:
    """A hundred columns' take 30 kB, for each of tens of thousands of files."""
    for file in files_of(lake):
        bare = plain(file)
        assert bare == file
        assert {bare} == {file}
        assert [getattr(bare, name) for name in PLACE] == [getattr(file, name) for name in PLACE]
        assert all(getattr(bare, name) is None for name in METRICS)


def test_tasks_are_those_of_a_scan(lake: Lake) -> None:
    """Read a manifest at a time, none may be left out."""
    scanned = {task.file.file_path for task in table_of(lake).scan().plan_files()}
    assert {file.file_path for file in files_of(lake)} == scanned
    assert len(scanned) == 5


def copied(file: DataFile) -> Packed:
    """Answer a copy of the file, as a rewrite makes one."""
    place = Path(file.file_path.removeprefix("file://"))
    copy = place.with_name(f"copy-of-{place.name}")
    copy.write_bytes(place.read_bytes())
    return Packed(at(file, f"file://{copy}"), packed(file).metrics)


def at(file: DataFile, location: str) -> DataFile:
    """Answer the same file somewhere else."""
    moved = DataFile.from_args(
        **{name: getattr(file, name) for name in ("content", *PLACE[1:-1])}, file_path=location
    )
    moved.spec_id = file.spec_id
    return moved


def test_some_files_are_replaced_and_manifests_say_which(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever expires the snapshot finds the old ones by it; the others stay as they were."""
    monkeypatch.setattr(replacing, "FILES_PER_MANIFEST", 2)
    old, others = files_of(lake)[:3], files_of(lake)[3:]
    fresh = [copied(file) for file in old]
    staged = Staged(table_of(lake))

    staged.snapshot_id = replace(staged, {"why": "test"}, old, fresh)
    after = staged.send(lake)

    found = entries(after)
    for status, files in (
        (ManifestEntryStatus.DELETED, old),
        (ManifestEntryStatus.ADDED, [file.plain for file in fresh]),
    ):
        assert {name for one, name in found if one == status} >= {name_of(f) for f in files}
    live = {name_of(task.file) for task in tasks_of(after)}
    assert live == {name_of(file) for file in (*others, *(file.plain for file in fresh))}
    by_name = {name_of(task.file): said(task.file) for task in tasks_of(after)}
    for file in fresh:
        assert by_name[name_of(file.plain)] == said(file.unpacked())
    snapshot = after.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    told = snapshot.summary.additional_properties
    assert (told["total-data-files"], told["total-records"], told["why"]) == ("5", "5", "test")
    assert (told["added-data-files"], told["deleted-data-files"]) == ("3", "3")
    assert after.scan().to_arrow().num_rows == 5


def test_a_file_that_is_not_there_any_more_is_not_replaced(lake: Lake) -> None:
    """Its rows would be there twice: merged by somebody else, and in its copy."""
    stranger = files_of(lake)[0]
    fresh = [copied(stranger)]
    gone = at(stranger, f"{stranger.file_path}.gone")

    with pytest.raises(TableChanged, match="not in the table"):
        replace(Staged(table_of(lake)), {}, [gone], fresh)


def name_of(file: DataFile) -> str:
    return Path(file.file_path).name
