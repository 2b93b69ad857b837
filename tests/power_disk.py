"""A disk whose power can be cut, and whose steps can fail, for tests of the log.

`PowerDisk` does everything to real files below `root`, which stand for what the operating system
shows, and remembers what of it a power cut would leave. `cut` makes the folder that is found after
the cut: what was synced, and of the rest whatever the dice say, down to single sectors.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from penstock.buffer.files import Disk, File

SECTOR = 512


class Killed(BaseException):
    """The process ends here."""


class Unplugged(OSError):
    """The machine ends here."""


@dataclass(eq=False)
class Content:
    """What is on the platter of one file (or folder), and what is only on its way there."""

    synced: bytes = b""
    pending: list[Callable[[bytearray], None]] = field(default_factory=list)
    folder: bool = False


Change = tuple[Path, Content | None]
"""A name and what it stands for from now on."""


class PowerDisk:
    """Counts steps, and breaks the one it was told to."""

    def __init__(self, root: Path, dice: Random, *, synced: bool = True) -> None:
        """Find in `root` what a cut left, or, unless `synced`, what somebody just copied there."""
        self._real = Disk()
        self.root = root
        self.dice = dice
        self.names: dict[Path, Content] = {}
        self.kept: dict[Path, Content] = {}
        self.changes: list[tuple[Path, list[Change]]] = []
        self.plugged = True
        self._steps = 0
        self._first = self._last = -1
        self._error: BaseException = OSError()
        for path in sorted(root.rglob("*")):
            content = Content(folder=path.is_dir())
            self._change(path.parent, (path, content))
            if path.is_file():
                content.pending.append(partial(_put, at=0, data=path.read_bytes()))
            if synced:
                _sync(content)
                self._keep([(path, content)])
        if synced:
            self.changes.clear()

    def fail_in(self, steps: int, number: int, *, times: int = 1) -> None:
        """Let that step from now, and some after it, raise OSError."""
        self._break(steps, times, OSError(number, "refused by the test"))

    def kill_in(self, steps: int) -> None:
        """Let whoever takes that step stop there; `forgive` lets the next writer work."""
        self._break(steps, 1 << 30, Killed())

    def unplug_in(self, steps: int) -> None:
        """Let the power go at that step; only `cut` is left to do."""
        self._break(steps, 1 << 30, Unplugged(errno.EIO, "unplugged"))

    def _break(self, steps: int, times: int, error: BaseException) -> None:
        self._first, self._last = self._steps + steps, self._steps + steps + times - 1
        self._error = error

    def forgive(self) -> None:
        """Break nothing more."""
        self._first = self._last = -1

    def step(self) -> bool:
        """Count a step; answer whether it breaks, for `broken` to say how."""
        self._steps += 1
        if not self._first <= self._steps <= self._last:
            return False
        if isinstance(self._error, Unplugged):
            self.plugged = False
        return True

    def broken(self) -> BaseException:
        """Answer what a step that breaks raises."""
        return self._error

    def _change(self, folder: Path, *changes: Change) -> None:
        for path, content in changes:
            if content is None:
                self.names.pop(path)
            else:
                self.names[path] = content
        self.changes.append((folder, list(changes)))

    def create(self, path: Path) -> File:
        if self.step():
            raise self.broken()
        file = self._real.create(path)
        self._change(path.parent, (path, Content()))
        return PowerFile(self, file, self.names[path])

    def open(self, path: Path) -> File:
        if self.step():
            raise self.broken()
        return PowerFile(self, self._real.open(path), self.names[path])

    def rename(self, source: Path, target: Path) -> None:
        if self.step():
            raise self.broken()
        self._real.rename(source, target)
        self._change(source.parent, (target, self.names[source]), (source, None))

    def unlink(self, path: Path) -> None:
        if self.step():
            raise self.broken()
        self._real.unlink(path)
        self._change(path.parent, (path, None))

    def make_folder(self, path: Path) -> None:
        if self.step():
            raise self.broken()
        self._real.make_folder(path)
        self._change(path.parent, (path, Content(folder=True)))

    def sync_folder(self, path: Path) -> None:
        if self.step():
            raise self.broken()
        for folder, changes in self.changes:
            if folder == path:
                self._keep(changes)
        self.changes = [change for change in self.changes if change[0] != path]

    def _keep(self, changes: Sequence[Change]) -> None:
        for path, content in changes:
            if content is None:
                self.kept.pop(path, None)
            else:
                self.kept[path] = content

    def cut(self, into: Path, *, harsh: bool = False) -> None:
        """Make the folder that is found when the power is back; `harsh`: only what was synced."""
        self.plugged = False
        lucky = 0.0 if harsh else self.dice.random()
        for _, changes in self.changes:
            if self.dice.random() < lucky:
                self._keep(changes)
        into.mkdir()
        for path, content in sorted(self.kept.items()):
            target = into / path.relative_to(self.root)
            if not target.parent.is_dir():
                continue
            if content.folder:
                target.mkdir()
            else:
                target.write_bytes(content.synced if harsh else self._left_of(content))

    def _left_of(self, content: Content) -> bytes:
        left = bytearray(content.synced)
        lucky = self.dice.choice([0.0, 0.5, 0.9, 1.0])
        for apply in content.pending:
            if self.dice.random() < lucky:
                apply(left)
            else:
                self._torn(apply, left)
        return bytes(left)

    def _torn(self, apply: Callable[[bytearray], None], left: bytearray) -> None:
        """Let any sectors of a change arrive and others not; or only its first bytes."""
        whole = bytearray(left)
        apply(whole)
        if self.dice.random() < 0.3:
            return
        if self.dice.random() < 0.5:
            size = self.dice.randint(min(len(left), len(whole)), max(len(left), len(whole)))
            left[:] = whole[:size]
            return
        size = self.dice.choice([len(left), len(whole)])
        left[:] = left[:size].ljust(size, b"\0")
        for sector in range(0, min(size, len(whole)), SECTOR):
            if self.dice.random() < 0.5:
                left[sector : sector + SECTOR] = whole[sector : min(size, sector + SECTOR)]


class PowerFile:
    """An open file of a `PowerDisk`."""

    def __init__(self, disk: PowerDisk, real: File, content: Content) -> None:
        self._disk = disk
        self._real = real
        self._content = content
        self._size = len(content.synced)

    def append(self, pieces: Sequence[bytes]) -> None:
        data = b"".join(pieces)
        if self._disk.step():
            self._write(data[: self._disk.dice.randint(0, len(data))])
            raise self._disk.broken()
        self._write(data)

    def _write(self, data: bytes) -> None:
        at, self._size = self._size, self._size + len(data)
        self._real.append([data])
        self._content.pending.append(partial(_put, at=at, data=data))

    def write_at(self, data: bytes, offset: int) -> None:
        if self._disk.step():
            raise self._disk.broken()
        self._real.write_at(data, offset)
        self._content.pending.append(partial(_put, at=offset, data=data))

    def truncate(self, size: int) -> None:
        if self._disk.step():
            raise self._disk.broken()
        self._real.truncate(size)
        self._content.pending.append(partial(_cut, size=size))

    def sync(self) -> None:
        content = self._content
        if self._disk.step():
            if isinstance(self._disk.broken(), OSError) and self._disk.plugged:
                # As Linux does: what was not written is forgotten, and the next sync succeeds.
                content.synced = self._disk._left_of(content)
                content.pending.clear()
            raise self._disk.broken()
        _sync(content)

    def close(self) -> None:
        self._real.close()


def _sync(content: Content) -> None:
    left = bytearray(content.synced)
    for apply in content.pending:
        apply(left)
    content.synced = bytes(left)
    content.pending.clear()


def _put(left: bytearray, at: int, data: bytes) -> None:
    if len(left) < at:
        left.extend(b"\0" * (at - len(left)))
    left[at : at + len(data)] = data


def _cut(left: bytearray, size: int) -> None:
    del left[size:]
    left.extend(b"\0" * (size - len(left)))
