"""Local files: durable when closed, never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.files import LocalFiles, path_of


def test_a_file_is_made_with_its_folders_and_read_back(tmp_path: Path) -> None:
    """A partition's folder does not exist before its first file."""
    location = f"file://{tmp_path}/data/day=1/a.parquet"

    with LocalFiles().new_output(location).create() as out:
        out.write(b"rows")

    with LocalFiles().new_input(location).open() as stream:
        assert stream.read() == b"rows"
    assert len(LocalFiles().new_input(location)) == 4


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    """A zombie that came back would truncate a file that is part of the table."""
    location = f"file://{tmp_path}/a.parquet"
    LocalFiles().new_output(location).create().close()

    with pytest.raises(FileExistsError):
        LocalFiles().new_output(location).create()


def test_deleting_what_is_gone_is_no_error(tmp_path: Path) -> None:
    """Two sweeps may meet; the slower one must not fail."""
    location = f"file://{tmp_path}/a"
    LocalFiles().new_output(location).create().close()

    LocalFiles().delete(location)
    LocalFiles().delete(location)

    assert not Path(path_of(location)).exists()


def test_all_files_below_a_location_are_listed(tmp_path: Path) -> None:
    """The sweep compares these names with those in the metadata, letter by letter."""
    names = {f"file://{tmp_path}/t/data/day=1/a", f"file://{tmp_path}/t/metadata/b"}
    for name in names:
        LocalFiles().new_output(name).create().close()

    assert set(LocalFiles().list(f"file://{tmp_path}/t")) == names
    assert set(LocalFiles().list(f"file://{tmp_path}//t/")) == names
    up = {name.replace("/t/", "/t/../t/") for name in names}
    assert set(LocalFiles().list(f"file://{tmp_path}/t/../t")) == up
