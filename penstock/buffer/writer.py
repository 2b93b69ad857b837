"""The one writer of an embedded log: makes groups of records durable, and lets old ones go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import msgspec
import structlog

from penstock.buffer import frames, published, released, segments
from penstock.buffer.files import File, Files, make_folders, opened, replace
from penstock.buffer.frames import NOTHING, Frame, Tail
from penstock.buffer.published import Published
from penstock.envelope import CollectionId, Micros
from penstock.errors import BadSetting, LogDamaged
from penstock.faults import fault

log = structlog.get_logger()

# Frames are written as soon as they are this much: memory that was just used is used again, which
# halves the CPU of large groups.
_WRITE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Parcel:
    """Some events of one collection, encoded: durable together or not at all."""

    collection: CollectionId
    block: bytes
    events: int


@dataclass(frozen=True, slots=True)
class _Start:
    """A segment, by where it and the collections in it begin."""

    base: int
    head_size: int
    ends: Mapping[CollectionId, Tail]


class Writer:
    """Holds the log in a folder; everything but `trim` is for one thread.

    After a failed `commit` the segment is given up at the durable end, and the next one tries a
    new segment in a new incarnation: what a failed sync left is never taken for clean.
    """

    def __init__(
        self,
        folder: Path,
        *,
        files: Files,
        boot: UUID,
        new_log_id: UUID,
        segment_bytes: int,
    ) -> None:
        """Take the log in the folder, or make one named `new_log_id`.

        Raises `BadSetting` while another process holds it, `LogDamaged` if something that was
        durable cannot be read.
        """
        self._folder = folder
        self._files = files
        self._boot = boot
        self._segment_bytes = segment_bytes
        self._file: File | None = None
        # Guards what `trim` shares with `commit`: the list of segments, and the published state.
        self._shared = threading.Lock()
        self._free_since: dict[int, Micros] = {}

        make_folders(files, folder / segments.SEGMENTS)
        self._lock = hold(folder)
        try:
            self._recover(str(new_log_id))
        except BaseException:
            os.close(self._lock)
            raise

    def _recover(self, new_log_id: str) -> None:
        if (self._folder / segments.RENEWAL / segments.INTENT).exists():
            raise LogDamaged(
                f"the log in {self._folder} is being renewed: '{segments.RENEW}' goes on with it"
            )
        identity = segments.read_identity(self._folder)
        if identity is None and segments.list_bases(self._folder):
            raise LogDamaged(f"the log in {self._folder} has segments, but no identity")
        self.log_id = str(identity.log_id) if identity else new_log_id
        self._incarnation = identity.incarnation if identity else 0
        self._seed = frames.seed_of(self.log_id)

        durable = self._folder / published.FILE
        if not durable.exists():
            self._files.create(durable).close()
        state = published.newest(durable.read_bytes(), self.log_id)
        found = segments.survey(self._folder, self.log_id, state, self._boot)
        self._starts = [self._read_start(base) for base in found.bases]
        self._hollow = {start.base for start in self._starts[:-1] if self._is_hollow(start)}
        self._ends = dict(found.ends)
        self._end = found.end
        self._number = state.number if state else 0
        self._trims = state.trims if state else 0

        # A log that was just copied here is whole, but perhaps not yet on the disk.
        for base in found.bases:
            with opened(self._files, segments.segment_path(self._folder, base)) as file:
                file.sync()
        self._files.sync_folder(self._folder / segments.SEGMENTS)
        self._begin_incarnation()
        self._durable = self._files.open(durable)
        with self._shared:
            self._publish()
        log.info(
            "log opened",
            folder=str(self._folder),
            log_id=self.log_id,
            incarnation=self._incarnation,
            end=self._end,
        )

    def _read_start(self, base: int) -> _Start:
        with segments.segment_path(self._folder, base).open("rb", buffering=0) as file:
            head = segments.read_head(file, base, self._seed)
        if head is None:
            raise segments.damaged(base, base, "the segment's head cannot be read")
        return _Start(base, head[0].size, head[1])

    def _is_hollow(self, start: _Start) -> bool:
        path = segments.segment_path(self._folder, start.base)
        return path.stat().st_size == start.head_size

    def _begin_incarnation(self) -> None:
        identity = segments.Identity(UUID(self.log_id), self._incarnation + 1)
        path = self._folder / segments.IDENTITY
        replace(self._files, path, msgspec.json.encode(identity), scratch="new")
        self._files.sync_folder(self._folder)
        self._incarnation = identity.incarnation
        self._sound = True

    def _publish(self) -> None:
        """Tell readers; the caller holds `_shared`."""
        self._number += 1
        state = Published(
            log_id=UUID(self.log_id),
            boot=self._boot,
            number=self._number,
            end=self._end,
            tip=self._starts[-1].base if self._starts else 0,
            trims=self._trims,
        )
        self._durable.write_at(published.pack_slot(state), published.slot_offset(self._number))

    def commit(self, parcels: Iterable[Parcel]) -> list[int]:
        """Make the parcels durable and let readers see them; answer each one's first offset.

        Each is dropped once it is written. After an error nothing is promised about any of them.
        """
        try:
            return self._commit(parcels)
        except BaseException:
            self._give_up_segment()
            raise

    def _commit(self, parcels: Iterable[Parcel]) -> list[int]:
        fault("before_log")
        if not self._sound:
            self._begin_incarnation()
        if self._file and self._end - self._base >= self._segment_bytes:
            full, self._file = self._file, None
            full.close()
        file = self._file
        begun: _Start | None = None
        at = self._end
        waiting: list[bytes] = []
        written = at
        ends: dict[CollectionId, Tail] = {}
        firsts: list[int] = []
        for parcel in parcels:
            if file is None:
                file = self._create_segment()
                waiting, frame = self._frame(frames.pack_head(self._ends), at=at)
                at = frame.end
                begun = _Start(self._end, frame.size, dict(self._ends))
            tail = ends.get(parcel.collection) or self._ends.get(parcel.collection, NOTHING)
            packed, frame = self._frame(parcel.block, at=at, of=parcel, first=tail.next)
            waiting += packed
            at = frame.end
            ends[parcel.collection] = frame.tail
            firsts.append(tail.next)
            if at - written >= _WRITE_BYTES:
                file.append(waiting)
                waiting, written = [], at
        if file is None or not firsts:
            return []

        file.append(waiting)
        self._make_durable(file)
        fault("after_log")
        with self._shared:
            if begun:
                self._starts.append(begun)
            self._end = at
            self._ends.update(ends)
            self._publish()
        return firsts

    def _frame(
        self, body: bytes, *, at: int, of: Parcel | None = None, first: int = 0
    ) -> tuple[list[bytes], Frame]:
        header, frame = frames.pack_header(
            body,
            kind=frames.RECORDS if of else frames.HEAD,
            collection=of.collection if of else None,
            address=at,
            durable=self._end,
            incarnation=self._incarnation,
            first=first,
            events=of.events if of else 0,
            seed=self._seed,
        )
        return [header, body], frame

    def _create_segment(self) -> File:
        path = segments.segment_path(self._folder, self._end)
        # Left by an earlier try at this address, of which nothing became durable.
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(path)
        self._file = file = self._files.create(path)
        self._base = self._end
        self._files.sync_folder(path.parent)
        return file

    def _make_durable(self, file: File) -> None:
        file.sync()

    def _give_up_segment(self) -> None:
        """Leave the segment at the durable end, where the next one will begin."""
        self._sound = False
        if self._file is None:
            return
        file, self._file = self._file, None
        # Only to give the space back: if it fails, those bytes are still not part of the log.
        with contextlib.suppress(OSError):
            file.truncate(self._end - self._base)
        with contextlib.suppress(OSError):
            file.close()

    def trim(self, now: Micros) -> int:
        """Let go of segments of which every record was released 15 minutes ago; answer how many.

        The newest segment stays. May run beside `commit`, in one thread at a time.
        """
        with self._shared:
            starts = list(self._starts)
        said = cache(partial(released.offset, self._folder, self.log_id))
        gone: list[_Start] = []
        oldest = True
        try:
            for start, following in pairwise(starts):
                if not self._may_go(start, following, said, now):
                    oldest = False
                elif oldest:
                    gone.append(start)
                    self._delete(start)
                elif start.base not in self._hollow:
                    gone.append(start)
                    self._hollow_out(start)
        finally:
            # Also after an error: readers must look again at what is there.
            if gone:
                with self._shared:
                    self._trims += 1
                    self._publish()
        if gone:
            log.info("log trimmed", folder=str(self._folder), segments=len(gone))
        return len(gone)

    def _delete(self, start: _Start) -> None:
        path = segments.segment_path(self._folder, start.base)
        # It may be gone since a try of which only the sync failed.
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(path)
        # One by one: names that go in another order would leave a hole after a power cut.
        self._files.sync_folder(path.parent)
        self._free_since.pop(start.base)
        self._hollow.discard(start.base)
        with self._shared:
            self._starts.remove(start)

    def _hollow_out(self, start: _Start) -> None:
        with opened(self._files, segments.segment_path(self._folder, start.base)) as file:
            file.truncate(start.head_size)
            file.sync()
        self._hollow.add(start.base)

    def _may_go(
        self,
        start: _Start,
        following: _Start,
        said: Callable[[CollectionId], int],
        now: Micros,
    ) -> bool:
        """Answer whether nobody has needed the records between these two for long enough."""
        needed = any(
            tail.next > start.ends.get(collection, NOTHING).next and said(collection) < tail.next
            for collection, tail in following.ends.items()
        )
        if needed:
            self._free_since.pop(start.base, None)
            return False
        return now - self._free_since.setdefault(start.base, now) >= released.KEPT_AFTER_RELEASE

    def close(self) -> None:
        """Let go of the log; what was committed is what the next writer finds."""
        if self._file is not None:
            self._file.close()
            self._file = None
        try:
            # From now on the end is known exactly, even on another machine.
            self._durable.sync()
        except OSError as error:
            log.warning("durable end of the log not synced", error=str(error))
        finally:
            self._durable.close()
            os.close(self._lock)


def hold(folder: Path) -> int:
    """Answer the lock that makes this process the one writer; closing it lets go.

    Raises `BadSetting` while another process has it.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise BadSetting(
            f"process {holder or 'unknown'} writes the log in {folder}; one door at a time can"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
