"""The files below a warehouse: all that are there, and those that its tables need."""

from __future__ import annotations

from typing import cast

from lakes import MAIN, QUARANTINE

from lakehouse import Lake
from lakehouse.files import Files


def in_warehouse(lake: Lake, warehouse_url: str) -> set[str]:
    """Answer all files, whoever wrote them."""
    table = lake.table(MAIN)
    assert table is not None
    return set(cast("Files", table.io).list(warehouse_url))


def needed(lake: Lake) -> set[str]:
    """Answer the files of every snapshot, and those in which the tables say which these are."""
    files: set[str] = set()
    for table in map(lake.table, (MAIN, QUARANTINE)):
        if table is None:
            continue
        files.add(table.metadata_location)
        files.update(one.metadata_file for one in table.metadata.metadata_log)
        for snapshot in table.metadata.snapshots:
            files.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(table.io):
                files.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io)
                files.update(entry.data_file.file_path for entry in entries)
    return files
