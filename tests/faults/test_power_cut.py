"""What an acknowledgement is worth when the power goes, at any step, in any state of the disk."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TypeVar
from uuid import UUID

import pytest
from balance import Findings, compare
from builders import event
from evidence.sheet import found, happened
from power_disk import Killed, PowerDisk, Unplugged

from penstock.buffer import released, start_of
from penstock.buffer.files import File
from penstock.buffer.reader import EmbeddedBuffer
from penstock.buffer.writer import Parcel, Writer
from penstock.codec import encode
from penstock.envelope import CollectionId, Extent, Mark
from penstock.errors import LogTruncated, Stopped

COLLECTIONS = [CollectionId("main", name) for name in ("a", "b", "c")]
LOG = UUID(int=1)
SEGMENT = 6_000
T = TypeVar("T")


class Broken(AssertionError):
    """The log did not keep its promise."""


class AcknowledgesEarly(Writer):
    """The seeded bug: positions are given, and readers told, before the sync."""

    def _make_durable(self, file: File) -> None:
        """Leave it to the operating system."""


class SyncsAgain(Writer):
    """The seeded bug: a sync that failed is tried again, and its success believed."""

    def _make_durable(self, file: File) -> None:
        try:
            file.sync()
        except OSError:
            file.sync()


class ForgetsTheFolder(PowerDisk):
    """The seeded bug: a new segment's name is not synced."""

    def sync_folder(self, path: Path) -> None:
        if path.name != "segments":
            super().sync_folder(path)


class Story:
    """A log that lives through random events, and what was promised of it."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        writer: type[Writer] = Writer,
        disk: type[PowerDisk] = PowerDisk,
    ) -> None:
        self.dice = Random(seed)
        self.folder = folder
        self.make_writer = writer
        self.make_disk = disk
        self.lives = 0
        self.now = 0
        self.sent = 0
        self.acknowledged: dict[CollectionId, dict[int, bytes]] = defaultdict(dict)
        self.seen: dict[CollectionId, dict[int, bytes]] = defaultdict(dict)
        self.marks: dict[CollectionId, list[Mark]] = defaultdict(list)
        self.released: dict[CollectionId, int] = defaultdict(int)
        self.boot = UUID(int=1_000)
        self.root = folder / "0"
        self.root.mkdir()
        self.disk = self.make_disk(self.root, self.dice)
        self.reader = EmbeddedBuffer(self.root, boot=self.boot)
        self.writer: Writer | None = None
        self.open()

    def open(self) -> None:
        """Start a writer; a disk that fails now is tried again, as a supervisor does."""
        while self.writer is None:
            try:
                self.writer = self.make_writer(
                    self.root,
                    files=self.disk,
                    boot=self.boot,
                    new_log_id=LOG,
                    segment_bytes=SEGMENT,
                )
            except Unplugged:
                self.cut()
            except OSError:
                continue
            except Killed:
                self.disk.forgive()

    def kill(self) -> None:
        """End the writer as SIGKILL does; what it wrote stays visible."""
        if self.writer is not None:
            os.close(self.writer._lock)
            self.writer = None

    def cut(self) -> None:
        """Cut the power, and look at what is there before any writer starts."""
        happened("power cuts")
        self.kill()
        self.lives += 1
        before = self.root
        self.root = self.folder / str(self.lives)
        self.disk.cut(self.root)
        for file in (before / released.FOLDER).glob("*"):
            if self.dice.random() < 0.5 and (self.root / "identity").exists():
                (self.root / released.FOLDER).mkdir(exist_ok=True)
                (self.root / released.FOLDER / file.name).write_bytes(file.read_bytes())
        self.disk = self.make_disk(self.root, self.dice)
        self.boot = UUID(int=1_000 + self.lives)
        self.reader = EmbeddedBuffer(self.root, boot=self.boot)
        self.check()
        if self.dice.random() < 0.3:
            self.disk.unplug_in(self.dice.randint(1, 12))
        self.open()
        self.check()

    def append(self) -> None:
        """Make a group of records, and note what was acknowledged."""
        parcels = []
        contents: list[list[bytes]] = []
        for _ in range(self.dice.randint(1, 4)):
            payloads = []
            for _ in range(self.dice.randint(1, 3)):
                self.sent += 1
                payloads.append(b"%08d" % self.sent + b"x" * self.dice.choice([0, 100, 2_000]))
            block = encode([event(payload) for payload in payloads])
            parcels.append(Parcel(self.dice.choice(COLLECTIONS), block, len(payloads)))
            contents.append(payloads)
        firsts = self.survive(lambda writer: writer.commit(parcels))
        if firsts is None:
            return
        for parcel, payloads, first in zip(parcels, contents, firsts, strict=True):
            for offset, payload in enumerate(payloads, first):
                known = self.acknowledged[parcel.collection].setdefault(offset, payload)
                if known != payload:
                    raise Broken(f"offset {offset} of {parcel.collection} was given twice")

    def read(self) -> None:
        """Read everything, as landing does, and note what was seen."""
        for collection in self.reader.collections():
            extent = self.reader.extents(collection)[0]
            mark = self.marks[collection][-1] if self.marks[collection] else start_of(str(LOG), 0)
            mark = mark if mark.next >= extent.start else Mark(str(LOG), 0, extent.start, "")
            while mark.next < extent.end:
                max_bytes = self.dice.choice([1, 1_000, 1 << 20])
                portion = self.reader.read(collection, mark, end=extent.end, max_bytes=max_bytes)
                rows = portion.rows.select(["log_offset", "payload"]).to_pylist()
                for row in rows:
                    self.seen[collection][row["log_offset"]] = row["payload"]
                mark = portion.mark
                self.marks[collection] = [*self.marks[collection][-10:], mark]

    def trim(self) -> None:
        """Release what was read, let time pass, let it go."""
        for collection in self.reader.collections():
            extent = self.reader.extents(collection)[0]
            marks = [m for m in self.marks[collection] if m.next >= extent.start]
            if marks and self.dice.random() < 0.8:
                mark = self.dice.choice(marks)
                self.reader.release(collection, [mark])
                self.released[collection] = max(self.released[collection], mark.next)
        for _ in range(2):
            self.now += released.KEPT_AFTER_RELEASE
            self.survive(lambda writer: writer.trim(self.now))

    def survive(self, act: Callable[[Writer], T]) -> T | None:
        """Answer what the writer does; None if it, its process or the machine failed."""
        assert self.writer is not None
        try:
            return act(self.writer)
        except Unplugged:
            self.cut()
        except OSError:
            happened("failing disks")
        except Killed:
            happened("kills")
            self.restart()
        return None

    def check(self) -> None:
        """Compare the log with what was promised, by the long-lived reader and by a new one."""
        for reader in (self.reader, EmbeddedBuffer(self.root, boot=self.boot)):
            for collection in COLLECTIONS:
                self._check(reader, collection)

    def _check(self, reader: EmbeddedBuffer, collection: CollectionId) -> None:
        extent, found = self._content(reader, collection)
        promised = self.acknowledged[collection] | self.seen[collection]
        if extent.start > self.released[collection]:
            raise Broken(f"{collection} begins at {extent.start}, released was less")
        if promised and extent.end <= max(promised):
            raise Broken(f"{collection} ends at {extent.end}, {max(promised)} was promised")
        if list(found) != list(range(*extent)):
            raise Broken(f"{collection} has other offsets than {extent}: {list(found)}")
        if (order := list(found.values())) != sorted(set(order)):
            raise Broken(f"{collection} doubles or swaps events")
        for offset, payload in promised.items():
            if offset >= extent.start and found[offset] != payload:
                raise Broken(f"offset {offset} of {collection} holds another event")
        for mark in self.marks[collection]:
            if mark.next >= extent.start:
                reader.read(collection, mark, end=0, max_bytes=1)

    def found(self) -> Findings:
        """Compare what was acknowledged with what is left, but for what was let go."""
        reader = EmbeddedBuffer(self.root, boot=self.boot)
        told: dict[tuple[str, int], bytes] = {}
        held: dict[tuple[str, int], bytes] = {}
        for collection in COLLECTIONS:
            extent, content = self._content(reader, collection)
            held |= {(str(collection), offset): payload for offset, payload in content.items()}
            told |= {
                (str(collection), offset): payload
                for offset, payload in self.acknowledged[collection].items()
                if offset >= extent.start
            }
        return compare(told, held.items(), known=held.keys(), lane=lambda place: place[0])

    def _content(
        self, reader: EmbeddedBuffer, collection: CollectionId
    ) -> tuple[Extent, dict[int, bytes]]:
        for _ in range(2):
            extent = reader.extents(collection)[0]
            mark = Mark(str(LOG), 0, extent.start, "")
            if extent.start == extent.end:
                return extent, {}
            try:
                rows = reader.read(collection, mark, end=extent.end, max_bytes=1 << 30).rows
            except LogTruncated:
                # A writer that is killed while it trims has told nobody yet.
                continue
            columns = rows.column("log_offset").to_pylist(), rows.column("payload").to_pylist()
            return extent, dict(zip(*columns, strict=True))
        raise Broken(f"{collection} cannot be read from where it begins")

    def restart(self) -> None:
        """Start another writer in the same boot, after the first one was killed or closed."""
        self.kill()
        self.disk.forgive()
        self.check()
        self.open()

    def close(self) -> None:
        """End the writer as it should be, and start another."""
        assert self.writer is not None
        writer, self.writer = self.writer, None
        with suppress(Killed):
            writer.close()
        if self.disk.plugged:
            self.restart()
        else:
            self.cut()

    def go_on(self, steps: int) -> None:
        """Live on; in the end the power is cut once more."""
        for _ in range(steps):
            soon = self.dice.randint(1, 8)
            match self.dice.randint(0, 19):
                case 0:
                    self.disk.unplug_in(soon)
                case 1:
                    self.disk.kill_in(soon)
                case 2 | 3:
                    number = self.dice.choice([errno.EIO, errno.ENOSPC])
                    self.disk.fail_in(soon, number, times=self.dice.choice([1, 1, 2, 4]))
                case 4:
                    self.cut()
                case 5:
                    self.close()
                case 6:
                    self.trim()
                case 7 | 8 | 9:
                    self.read()
                case 10:
                    self.check()
                case _:
                    self.append()
        self.cut()
        self.kill()


@pytest.mark.breaks("the log's disk, process and machine, at random steps")
@pytest.mark.parametrize("seed", range(40))
def test_what_was_promised_holds_whatever_happens(tmp_path: Path, seed: int) -> None:
    """Every acknowledged or seen event stays at its position; none doubles, none swaps."""
    story = Story(tmp_path, seed)

    story.go_on(50)

    assert story.acknowledged
    assert story.seen
    found(log=story.found())


MUTANTS: list[tuple[type[Writer], type[PowerDisk]]] = [
    (AcknowledgesEarly, PowerDisk),
    (SyncsAgain, PowerDisk),
    (Writer, ForgetsTheFolder),
]


@pytest.mark.parametrize(("writer", "disk"), MUTANTS)
def test_a_seeded_bug_is_found(tmp_path: Path, writer: type[Writer], disk: type[PowerDisk]) -> None:
    """A test that cannot fail proves nothing."""

    def live() -> None:
        for seed in range(40):
            folder = tmp_path / str(seed)
            folder.mkdir()
            Story(folder, seed, writer, disk).go_on(50)

    with pytest.raises((Broken, Stopped)):
        live()


def appended(folder: Path, disk: PowerDisk, payloads: list[str]) -> Writer:
    """Write each payload into a segment of its own, and leave the writer open."""
    writer = Writer(folder, files=disk, boot=UUID(int=1), new_log_id=LOG, segment_bytes=1)
    for payload in payloads:
        writer.commit([Parcel(COLLECTIONS[0], encode([event(payload)]), 1)])
    return writer


def payloads_of(reader: EmbeddedBuffer) -> list[bytes]:
    extent = reader.extents(COLLECTIONS[0])[0]
    mark = Mark(str(LOG), 0, extent.start, "")
    rows = reader.read(COLLECTIONS[0], mark, end=extent.end, max_bytes=1 << 20).rows
    payloads: list[bytes] = rows.column("payload").to_pylist()
    return payloads


def test_a_log_copied_here_is_durable_once_it_is_opened(tmp_path: Path) -> None:
    """A restored backup is in memory only; landing reads it, and the power goes."""
    folder = tmp_path / "log"
    appended(folder, PowerDisk(tmp_path, Random(0)), ["a", "b", "c"]).close()
    disk = PowerDisk(tmp_path, Random(0), synced=False)
    disk.sync_folder(tmp_path)

    Writer(folder, files=disk, boot=UUID(int=2), new_log_id=LOG, segment_bytes=1).close()
    seen = payloads_of(EmbeddedBuffer(folder, boot=UUID(int=2)))
    disk.cut(tmp_path / "after", harsh=True)

    assert seen == [b"a", b"b", b"c"]
    assert payloads_of(EmbeddedBuffer(tmp_path / "after" / "log", boot=UUID(int=3))) == seen


class KeepsTheLastChange(PowerDisk):
    """Of names that changed and were not synced, only the last change is on the disk."""

    def cut(self, into: Path, *, harsh: bool = True) -> None:
        for _, changes in self.changes[-1:]:
            self._keep(changes)
        super().cut(into, harsh=harsh)


@pytest.mark.breaks("the power, while segments are let go")
@pytest.mark.parametrize("step", range(1, 8))
def test_a_trimmed_log_has_no_hole(tmp_path: Path, step: int) -> None:
    """The power goes while segments are let go; the disk need not keep the order."""
    folder = tmp_path / "log"
    folder.mkdir()
    disk = KeepsTheLastChange(folder, Random(0))
    writer = appended(folder, disk, list("abcde"))
    reader = EmbeddedBuffer(folder, boot=UUID(int=1))
    mark = reader.read(COLLECTIONS[0], start_of(str(LOG), 0), end=3, max_bytes=9).mark
    reader.release(COLLECTIONS[0], [mark])
    writer.trim(0)
    disk.unplug_in(step)
    with suppress(Unplugged):
        writer.trim(released.KEPT_AFTER_RELEASE)
    os.close(writer._lock)
    disk.cut(tmp_path / "after")
    happened("power cuts")

    left = payloads_of(EmbeddedBuffer(tmp_path / "after", boot=UUID(int=2)))
    told, released_ones = dict.fromkeys((b"d", b"e")), {b"a", b"b", b"c"}
    found(log=compare(told, ((one, None) for one in left), known=released_ones))
    assert left == [b"a", b"b", b"c", b"d", b"e"][-len(left) :]
