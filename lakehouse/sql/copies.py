"""Copies of what describes a table in an object store, for an engine that has to find them.

DuckDB reads Avro by an extension that ends the whole process if a read fails (its exception
passes through code that bears none; seen with 1.5.5 and a store that refused one manifest). So a
scan in our own process begins at a metadata file on the disk whose one snapshot names copies of its
manifests. They are fetched by the client that waits and tries again, and whose errors are told. The
data files that they name are read where they are.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from tempfile import mkdtemp

from pyiceberg.io import FileIO, OutputFile
from pyiceberg.manifest import ManifestFile, write_manifest_list
from pyiceberg.serializers import FromInputFile, ToOutputFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot

from lakehouse.files import SCHEME, LocalFiles
from lakehouse.tables import TableView
from penstock.errors import EngineUnavailable

MOST = 500
"""Snapshots that are kept; the one that was asked for longest ago goes first."""

KEPT_SECONDS = 3_600.0
"""How long one is kept that nobody asks for: manifests say from which value to which columns go."""

_METADATA, _LIST = "table.metadata.json", "manifests.avro"


class Copies:
    """Keeps copies in a folder of its own. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        files: FileIO,
        *,
        most: int = MOST,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._manifests = folder / "manifests"
        self._manifests.mkdir(parents=True)
        self._files = files
        self._most = most
        self._steady = steady
        self._guard = threading.Lock()
        self._asked: OrderedDict[str, float] = OrderedDict()
        """When each was asked for last, by its name."""

    def metadata(self, view: TableView, snapshot_id: int | None) -> Path:
        """Answer a metadata file of the table as it was viewed, with that snapshot alone.

        None stands for the current one. Raises `EngineUnavailable` if the store cannot be read, or
        has the snapshot no more.
        """
        name = _name_of(f"{view.metadata_location} {snapshot_id}")
        place = self._folder / name
        with self._guard:
            known = name in self._asked
            if known:
                self._asked_now(name)
        if not known:
            fresh = Path(mkdtemp(dir=self._folder))
            try:
                self._make(fresh, place, view, snapshot_id)
                with self._guard:
                    if name not in self._asked:
                        fresh.rename(place)
                    self._asked_now(name)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return place / _METADATA

    def _asked_now(self, name: str) -> None:
        self._asked[name] = self._steady()
        self._asked.move_to_end(name)
        gone = list(self._outlived())
        for other in gone:
            shutil.rmtree(self._folder / other, ignore_errors=True)
        if gone:
            self._sweep()

    def _outlived(self) -> Iterator[str]:
        """Take out what is too many or too old, and answer it."""
        oldest = self._steady() - KEPT_SECONDS
        while len(self._asked) > self._most or next(iter(self._asked.values())) < oldest:
            yield self._asked.popitem(last=False)[0]

    def _sweep(self) -> None:
        """Delete the manifests that no snapshot has any more."""
        for entry in os.scandir(self._manifests):
            if entry.stat().st_nlink == 1:
                Path(entry.path).unlink(missing_ok=True)

    def _make(self, fresh: Path, place: Path, view: TableView, snapshot_id: int | None) -> None:
        """Put into a `fresh` folder what is to be at `place`."""
        try:
            metadata = FromInputFile.table_metadata(self._files.new_input(view.metadata_location))
            wanted = metadata.current_snapshot_id if snapshot_id is None else snapshot_id
            snapshot = None if wanted is None else metadata.snapshot_by_id(wanted)
            if snapshot is None and wanted is not None:
                raise EngineUnavailable("the table does not have this snapshot any more")
            if snapshot is not None:
                self._copy_manifests(metadata, snapshot, fresh, place)
            local = with_one_snapshot(metadata, snapshot, f"{SCHEME}{place / _LIST}")
            ToOutputFile.table_metadata(local, _output(fresh / _METADATA))
        except (OSError, ValueError) as error:
            raise EngineUnavailable("the tables cannot be read now") from error

    def _copy_manifests(
        self, metadata: TableMetadata, snapshot: Snapshot, fresh: Path, place: Path
    ) -> None:
        local = []
        for manifest in snapshot.manifests(self._files):
            name = f"{_name_of(manifest.manifest_path)}.avro"
            self._link(manifest.manifest_path, self._manifests / name, fresh / name)
            local.append(_at(manifest, place / name))
        with write_manifest_list(
            metadata.format_version,
            _output(fresh / _LIST),
            snapshot.snapshot_id,
            snapshot.parent_snapshot_id,
            snapshot.sequence_number,
            "null",
        ) as writer:
            writer.add_manifests(local)

    def _link(self, location: str, shared: Path, own: Path) -> None:
        """Have a manifest in the folder of its snapshot, as a link where another one has it."""
        try:
            os.link(shared, own)
        except FileNotFoundError:
            with self._files.new_input(location).open() as stream:
                own.write_bytes(stream.read())
            with suppress(FileExistsError):
                os.link(own, shared)


def with_one_snapshot(
    metadata: TableMetadata, snapshot: Snapshot | None, manifest_list: str
) -> TableMetadata:
    """Answer the metadata with this snapshot alone, whose manifests are listed there."""
    nothing: dict[str, object] = {
        "snapshots": [],
        "snapshot_log": [],
        "metadata_log": [],
        "statistics": [],
        "partition_statistics": [],
        "refs": {},
        "current_snapshot_id": None,
    }
    if snapshot is None:
        return metadata.model_copy(update=nothing)
    at = snapshot.snapshot_id
    main = SnapshotRef.model_validate({"snapshot-id": at, "type": SnapshotRefType.BRANCH})
    return metadata.model_copy(
        update=nothing
        | {
            "snapshots": [snapshot.model_copy(update={"manifest_list": manifest_list})],
            "refs": {MAIN_BRANCH: main},
            "current_snapshot_id": at,
        }
    )


def _at(manifest: ManifestFile, place: Path) -> ManifestFile:
    return ManifestFile(f"{SCHEME}{place}", *(manifest[n] for n in range(1, len(manifest))))


def _output(place: Path) -> OutputFile:
    return LocalFiles().new_output(f"{SCHEME}{place}")


def _name_of(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
