"""A new log in the place of one that cannot go on, made of what can still be read of that.

::

    <folder>/renewal/intent    what is being done; from here on there is only forward
    <folder>/renewal/making/   the new log while it is made
    <folder>/renewal/log/      the new log, whole
    <folder>/renewed/<name>    what was done, by the id of the old log and the time
    <folder>/aside/<name>/     the old log: nothing of it is deleted

Who is killed in between goes on where it was: `intent` is written before the first table is told,
and again before each, a new log that was not made to its end is made again, and files change places
one by one. Until it is done no door writes to the log.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import msgspec

from penstock import codec
from penstock.buffer import published, salvage, segments
from penstock.buffer.files import Files, make_folders, replace
from penstock.buffer.published import this_boot
from penstock.buffer.reader import EmbeddedBuffer
from penstock.buffer.salvage import Run
from penstock.buffer.writer import Parcel, Writer, hold
from penstock.envelope import CollectionId, Micros, parse_collection
from penstock.errors import LogDamaged
from penstock.faults import fault

RENEWED = "renewed"
ASIDE = "aside"
_LOG = "log"
_MAKING = "making"

_GROUP_BYTES = 8 << 20
_SEGMENT_BYTES = 64 << 20
# Readers find no log while there is no identity: that goes first, and comes last.
_FILES = (segments.IDENTITY, published.FILE, segments.SEGMENTS)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a collection: positions of the log that is put aside."""

    mark: int
    """Where its table was."""
    end: int
    """Up to where every position is accounted for afterwards."""
    carried: tuple[Run, ...]
    """What the new log holds of it."""
    lost: tuple[Run, ...]
    forked: bool
    """Whether the log holds other events than the table at the same positions.

    Then `carried` are positions of that log, which count in the books of the new one alone.
    """
    stated: bool
    """Whether its table is told."""

    @property
    def events(self) -> int:
        """How many events the new log holds of it."""
        return sum(end - start for start, end in self.carried)

    @property
    def gone(self) -> int:
        """How many events are lost."""
        return sum(end - start for start, end in self.lost)


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What is done, by whom and why."""

    old: UUID
    new: UUID
    at: Micros
    by: str
    why: str
    damage: tuple[str, ...]
    shares: dict[str, Share]

    @property
    def name(self) -> str:
        """What the files of it are called."""
        return f"{self.old}-{self.at}"

    def share(self, collection: CollectionId) -> Share | None:
        """Answer what becomes of a collection; None before that is decided."""
        return self.shares.get(str(collection))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep doors from the log for the block; raises `BadSetting` while one has it."""
    lock = hold(folder)
    try:
        yield
    finally:
        os.close(lock)


def begun(folder: Path) -> Intent | None:
    """Answer the renewal that was begun and not finished."""
    try:
        return msgspec.json.decode(_intent(folder).read_bytes(), type=Intent)
    except FileNotFoundError:
        return None


def made(folder: Path) -> bool:
    """Say whether the new log of the renewal that was begun is whole."""
    return (folder / segments.RENEWAL / _LOG).exists()


def renewals(folder: Path) -> list[Intent]:
    """Answer every renewal of the log that is done, the oldest first."""
    try:
        files = list((folder / RENEWED).iterdir())
    except FileNotFoundError:
        return []
    done = [
        msgspec.json.decode(file.read_bytes(), type=Intent)
        for file in files
        if not file.name.startswith(".")
    ]
    return sorted(done, key=lambda one: one.at)


def begin(files: Files, folder: Path, intent: Intent) -> None:
    """Say durably that a renewal is being done; from then on it has to be finished."""
    # What an earlier one left once it was done.
    shutil.rmtree(folder / segments.RENEWAL, ignore_errors=True)
    write(files, folder, intent)


def write(files: Files, folder: Path, intent: Intent) -> None:
    """Say durably what is decided by now."""
    make_folders(files, folder / segments.RENEWAL)
    replace(files, _intent(folder), msgspec.json.encode(intent), scratch="new")
    files.sync_folder(folder / segments.RENEWAL)


def make(files: Files, folder: Path, intent: Intent) -> None:
    """Make the new log, with what is carried of each collection; raises `LogDamaged` if it is not.

    The events are the same to the byte, with their ids and times.
    """
    making = folder / segments.RENEWAL / _MAKING
    # Of a try that did not come to its end.
    shutil.rmtree(making, ignore_errors=True)
    wanted = {parse_collection(name): share.carried for name, share in intent.shares.items()}
    found = salvage.read_folder(folder, known=[str(intent.old)])
    writer = Writer(
        making,
        files=files,
        boot=this_boot(),
        new_log_id=intent.new,
        segment_bytes=_SEGMENT_BYTES,
    )
    try:
        for group in _groups(_parcels(folder, found, wanted)):
            writer.commit(group)
            fault("renewing_log")
    finally:
        writer.close()
    reader = EmbeddedBuffer(making)
    for name, share in intent.shares.items():
        holds = reader.extents(parse_collection(name))[0].end
        if holds != share.events:
            raise LogDamaged(
                f"{holds:,} of {share.events:,} events of {name} could be carried over: the log "
                "changes under the hand"
            )
    fault("before_made")
    files.rename(making, making.with_name(_LOG))
    files.sync_folder(making.parent)


def finish(files: Files, folder: Path, intent: Intent) -> Path:
    """Put the old log aside and the new one in its place; answer where the old one is."""
    new = folder / segments.RENEWAL / _LOG
    aside = folder / ASIDE / intent.name
    make_folders(files, aside)
    for name in _FILES:
        fault("putting_aside")
        if (new / name).exists() and (folder / name).exists() and not (aside / name).exists():
            files.rename(folder / name, aside / name)
    files.sync_folder(aside)
    files.sync_folder(folder)
    for name in reversed(_FILES):
        fault("putting_in_place")
        if (new / name).exists():
            files.rename(new / name, folder / name)
    files.sync_folder(folder)
    make_folders(files, folder / RENEWED)
    fault("before_renewed")
    files.rename(_intent(folder), folder / RENEWED / intent.name)
    files.sync_folder(folder / RENEWED)
    files.sync_folder(folder / segments.RENEWAL)
    shutil.rmtree(folder / segments.RENEWAL, ignore_errors=True)
    return aside


def _intent(folder: Path) -> Path:
    return folder / segments.RENEWAL / segments.INTENT


def _parcels(
    folder: Path, found: salvage.Found, wanted: Mapping[CollectionId, Sequence[Run]]
) -> Iterator[Parcel]:
    """Yield what is carried, in the order of the log."""
    pieces = [
        piece
        for collection, some in found.pieces.items()
        for piece in some
        if _shared(piece.run, wanted.get(collection, ()))
    ]
    for piece, block in salvage.blocks(folder, found.log_id, pieces):
        collection = piece.frame.collection
        if collection is None:
            continue
        first = piece.frame.first
        for start, end in _shared(piece.run, wanted[collection]):
            yield Parcel(collection, codec.cut(block, start - first, end - first), end - start)


def _shared(run: Run, others: Sequence[Run]) -> list[Run]:
    """Answer the positions of the run that are in the others as well."""
    both = ((max(run[0], start), min(run[1], end)) for start, end in others)
    return [(start, end) for start, end in both if start < end]


def _groups(parcels: Iterator[Parcel]) -> Iterator[list[Parcel]]:
    group: list[Parcel] = []
    size = 0
    for parcel in parcels:
        group.append(parcel)
        size += len(parcel.block)
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
