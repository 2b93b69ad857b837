"""One commit that replaces data files by others, in memory that does not grow with their columns.

PyIceberg holds, for each file of a table, what its manifest knows of each column, several times
over: some 100 kB a file where a hundred columns are measured, 2 GB for 20,000 files. Here a file is
a place and a few numbers; its metrics are packed, and unpacked when its manifest is written.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _OverwriteFiles
from pyiceberg.typedef import Record

from lakehouse.commit import Staged
from penstock.errors import TableChanged

FILES_PER_MANIFEST = 1_000
"""Files that a manifest is written for: whoever reads one holds all of it."""


class _Metrics(msgspec.Struct, frozen=True, array_like=True):
    """What a manifest knows of a file's columns."""

    sizes: dict[int, int]
    values: dict[int, int]
    nulls: dict[int, int]
    least: dict[int, bytes]
    most: dict[int, bytes]
    splits: list[int]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Metrics).decode


@dataclass(frozen=True, slots=True)
class Packed:
    """A data file that was written, with the metrics of its columns in a few bytes."""

    plain: DataFile
    metrics: bytes

    def unpacked(self) -> DataFile:
        """Answer the file as its manifest is to have it."""
        known = _decode(zlib.decompress(self.metrics))
        file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.plain.file_path,
            file_format=self.plain.file_format,
            partition=self.plain.partition,
            record_count=self.plain.record_count,
            file_size_in_bytes=self.plain.file_size_in_bytes,
            column_sizes=known.sizes,
            value_counts=known.values,
            null_value_counts=known.nulls,
            nan_value_counts={},
            lower_bounds=known.least,
            upper_bounds=known.most,
            key_metadata=None,
            split_offsets=known.splits,
            equality_ids=None,
            sort_order_id=None,
        )
        file.spec_id = self.plain.spec_id
        return file


def packed(file: DataFile) -> Packed:
    """Pack a file with all its metrics, as `lakehouse.parquet.data_file` answers it."""
    metrics = _Metrics(
        # Those of a file that a manifest knows are no dictionaries yet.
        dict(file.column_sizes),
        dict(file.value_counts),
        dict(file.null_value_counts),
        dict(file.lower_bounds),
        dict(file.upper_bounds),
        list(file.split_offsets or ()),
    )
    return Packed(plain(file), zlib.compress(_encode(metrics), 1))


def plain(file: DataFile) -> DataFile:
    """Answer the same file without the metrics of its columns."""
    bare = DataFile.from_args(
        content=file.content,
        file_path=file.file_path,
        file_format=FileFormat(file.file_format),
        partition=Record(*file.partition._data),  # noqa: SLF001 - a record has no other way
        record_count=file.record_count,
        file_size_in_bytes=file.file_size_in_bytes,
    )
    bare.spec_id = file.spec_id
    return bare


def tasks_of(table: Table) -> Iterator[FileScanTask]:
    """Yield a task for each data file of the table, with its metrics; drop it to free them.

    A manifest at a time, unless rows were deleted beside files: which delete file belongs to
    which data file PyIceberg knows, and reads all manifests for it.
    """
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    if any(manifest.content == ManifestContent.DELETES for manifest in manifests):
        yield from table.scan().plan_files()
        return
    for manifest in manifests:
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            yield FileScanTask(entry.data_file)


def replace(
    staged: Staged, why: dict[str, str], old: Sequence[DataFile], new: Sequence[Packed]
) -> int:
    """Stage the snapshot that has the new files for the old ones; answer its id.

    Raises `TableChanged` if the current snapshot has not all of the old files.
    """
    replacing = _Replacing(staged, why, new)
    for file in old:
        replacing.delete_data_file(file)
    replacing.commit()
    return replacing.snapshot_id


class _Replacing(_OverwriteFiles):
    """PyIceberg's overwrite, but that it reads and writes a manifest at a time."""

    def __init__(self, staged: Staged, why: dict[str, str], new: Sequence[Packed]) -> None:
        super().__init__(
            operation=Operation.OVERWRITE,
            transaction=staged,
            io=staged._table.io,  # noqa: SLF001 - as PyIceberg's own do
            snapshot_properties=why,
        )
        self._new = new
        # Its summary is made of these.
        self._added_data_files = [file.plain for file in new]

    def _manifests(self) -> list[ManifestFile]:
        metadata = self._transaction.table_metadata
        written: list[ManifestFile] = []
        files = iter(self._new)
        while some := list(islice(files, FILES_PER_MANIFEST)):
            entries = (
                ManifestEntry.from_args(
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=self._snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=file.unpacked(),
                )
                for file in some
            )
            written.append(self._written(metadata.spec().spec_id, entries, added=True))
        parent = metadata.snapshot_by_id(self._parent_snapshot_id or 0)
        replaced = 0
        for manifest in parent.manifests(self._io) if parent else ():
            if manifest.content == ManifestContent.DELETES:
                written.append(manifest)
                continue
            deleted: list[ManifestEntry] = []
            kept: list[ManifestEntry] = []
            for entry in manifest.fetch_manifest_entry(self._io, discard_deleted=True):
                (deleted if entry.data_file in self._deleted_data_files else kept).append(entry)
            replaced += len(deleted)
            if not deleted:
                written.append(manifest)
                continue
            spec = manifest.partition_spec_id
            gone = (self._as(ManifestEntryStatus.DELETED, entry) for entry in deleted)
            written.append(self._written(spec, gone))
            if kept:
                stay = (self._as(ManifestEntryStatus.EXISTING, entry) for entry in kept)
                written.append(self._written(spec, stay))
        if replaced != len(self._deleted_data_files):
            raise TableChanged("files that are to be replaced are not in the table any more")
        return written

    def _as(self, status: ManifestEntryStatus, entry: ManifestEntry) -> ManifestEntry:
        existing = status == ManifestEntryStatus.EXISTING
        return ManifestEntry.from_args(
            status=status,
            snapshot_id=entry.snapshot_id if existing else self._snapshot_id,
            sequence_number=entry.sequence_number,
            file_sequence_number=entry.file_sequence_number,
            data_file=entry.data_file,
        )

    def _written(
        self, spec: int, entries: Iterator[ManifestEntry], *, added: bool = False
    ) -> ManifestFile:
        with self.new_manifest_writer(self.spec(spec)) as writer:
            for entry in entries:
                writer.add(entry) if added else writer.add_entry(entry)
        return writer.to_manifest_file()
