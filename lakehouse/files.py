"""Files of a warehouse on local disk: on the disk when closed, and never written over.

PyIceberg's own writer leaves a file to the page cache. After a power cut the catalog, which does
sync, would then name metadata that is empty, and the table could not be opened any more.

Paths of single files are text: pathlib has Python remember each part of every path (`sys.intern`),
and with the names of thousands of files that table doubles.
"""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

SCHEME = "file://"

# One call to the kernel for a megabyte: a Parquet writer hands over a page at a time.
_BUFFER = 1 << 20


def path_of(location: str) -> str:
    """Answer the path of a ``file://`` location (or of a bare path)."""
    if not location.startswith("file:"):
        return location
    return unquote(urlsplit(location).path) if "%" in location else location[7:]


class Files(FileIO):
    """Reads, creates, deletes and lists the files of a warehouse.

    A file that was made is whole and durable, and is never written over. Raises
    `FileNotFoundError` and `FileExistsError` for what they say.
    """

    @abstractmethod
    def list(self, location: str) -> Iterator[str]:
        """Answer the locations of all files below this one, in no order."""


class LocalFiles(Files):
    """Files on a local disk."""

    def new_input(self, location: str) -> InputFile:
        """Answer the file to be read."""
        return _Input(location)

    def new_output(self, location: str) -> OutputFile:
        """Answer the file to be made."""
        return _Output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete the file; one that is gone already is no error."""
        name = location if isinstance(location, str) else location.location
        with suppress(FileNotFoundError):
            os.unlink(path_of(name))

    def list(self, location: str) -> Iterator[str]:
        """Answer the locations of all files below a ``file://`` location, in no order."""
        # Whoever sweeps compares the answers with what tables name: no slash may be there twice,
        # and what goes up has to stay.
        for folder, _, names in os.walk(Path(path_of(location))):
            for name in names:
                yield f"{SCHEME}{folder}/{name}"


class _Input(InputFile):
    def __len__(self) -> int:
        return os.stat(path_of(self.location)).st_size

    def exists(self) -> bool:
        return os.path.exists(path_of(self.location))

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002 - always seekable
        stream: InputStream = pa.OSFile(path_of(self.location), "rb")
        return stream


class _Output(OutputFile):
    def __len__(self) -> int:
        return os.stat(path_of(self.location)).st_size

    def exists(self) -> bool:
        return os.path.exists(path_of(self.location))

    def to_input_file(self) -> InputFile:
        return _Input(self.location)

    def create(self, overwrite: bool = False) -> OutputStream:
        """Make the file; it is durable once the stream was closed.

        Raises `FileExistsError` rather than write over a file, unless told to.
        """
        # The metadata of a commit comes after its manifests, in the same folder: its own close
        # makes their entries durable too, a millisecond each saved.
        entry = not self.location.endswith(".avro")
        return Durable(path_of(self.location), exclusive=not overwrite, entry=entry)


class Durable(io.BufferedWriter):
    """A new file that is on the disk when `close` returns; with `entry` also in its folder."""

    def __init__(self, path: str, *, exclusive: bool = True, entry: bool = True) -> None:
        folder = os.path.dirname(path) or os.curdir
        fresh = _make_folders(folder)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if exclusive else os.O_TRUNC)
        descriptor = os.open(path, flags, 0o644)
        super().__init__(io.FileIO(descriptor, "wb"), _BUFFER)
        self._folders = [folder, *fresh] if entry or fresh else []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write and sync what is left; let go of the file even if that fails."""
        if self.closed:
            return
        try:
            self.flush()
            os.fsync(self.fileno())
        finally:
            super().close()
        for folder in self._folders:
            _sync_folder(folder)


def _make_folders(folder: str) -> list[str]:
    """Make the folder; answer the folders whose entries changed by it."""
    changed: list[str] = []
    missing = folder
    while not os.path.exists(missing):
        missing = os.path.dirname(missing) or os.curdir
        changed.append(missing)
    os.makedirs(folder, exist_ok=True)
    return changed


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
