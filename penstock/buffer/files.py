"""What the log's writer does to the disk, so that tests can break each step of it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

# Linux takes at most 1,024 pieces in one call.
_PIECES = 1024


class File(Protocol):
    """An open file. Nothing written is sure to survive a power cut before `sync` returned."""

    def append(self, pieces: Sequence[bytes]) -> None:
        """Write all pieces behind what was appended before; after an error, any part of them."""
        ...

    def write_at(self, data: bytes, offset: int) -> None:
        """Write over a place in the file."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to its first `size` bytes."""
        ...

    def sync(self) -> None:
        """Make the file's bytes and size durable; its name in the folder is another matter.

        After it failed nobody knows what of the file is on the disk, and a second try may succeed
        without writing anything.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Files(Protocol):
    """The steps the writer takes; all raise OSError."""

    def create(self, path: Path) -> File:
        """Make a new, empty file; it must not exist."""
        ...

    def open(self, path: Path) -> File:
        """Open a file that exists."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Put a file in the place of another at once."""
        ...

    def unlink(self, path: Path) -> None:
        """Take a file's name away."""
        ...

    def make_folder(self, path: Path) -> None:
        """Make one folder, readable by its owner only: payloads are the senders' secrets."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Make names that came, went or changed in the folder durable."""
        ...


class DiskFile:
    """A file of the operating system."""

    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags, 0o600)

    def append(self, pieces: Sequence[bytes]) -> None:
        """Write all pieces; a short write goes on where it stopped."""
        left = deque(memoryview(piece) for piece in pieces)
        while left:
            written = os.writev(self._fd, [left[n] for n in range(min(len(left), _PIECES))])
            while left and written >= len(left[0]):
                written -= len(left.popleft())
            if written:
                left[0] = left[0][written:]

    def write_at(self, data: bytes, offset: int) -> None:
        """Write over a place in the file; a write of one slot is never short."""
        os.pwrite(self._fd, data, offset)

    def truncate(self, size: int) -> None:
        """Cut the file."""
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Make bytes and size durable."""
        if sys.platform == "darwin":
            import fcntl

            # There, fsync stops at the drive's own cache.
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file; its number may soon be another file's."""
        fd, self._fd = self._fd, -1
        os.close(fd)


class Disk:
    """The operating system's files."""

    def create(self, path: Path) -> DiskFile:
        """Make a new, empty file."""
        return DiskFile(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)

    def open(self, path: Path) -> DiskFile:
        """Open a file that exists."""
        return DiskFile(path, os.O_RDWR)

    def rename(self, source: Path, target: Path) -> None:
        """Put a file in the place of another."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Take a file's name away."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make one folder."""
        path.mkdir(mode=0o700)

    def sync_folder(self, path: Path) -> None:
        """Make the folder's names durable."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@contextlib.contextmanager
def opened(files: Files, path: Path) -> Iterator[File]:
    """Open a file that exists, and close it."""
    file = files.open(path)
    try:
        yield file
    finally:
        file.close()


def make_folders(files: Files, path: Path) -> None:
    """Make a folder with those above it, durably."""
    if path.is_dir():
        return
    make_folders(files, path.parent)
    files.make_folder(path)
    files.sync_folder(path.parent)


def replace(files: Files, path: Path, data: bytes, *, scratch: str) -> None:
    """Give a file this content: after a crash it has the old or the new one, never a mixture.

    `scratch` is the suffix of the file in between; two that may write at once need two.
    """
    draft = path.with_name(f".{path.name}.{scratch}")
    if draft.exists():
        files.unlink(draft)
    file = files.create(draft)
    try:
        file.append([data])
        file.sync()
    finally:
        file.close()
    files.rename(draft, path)
