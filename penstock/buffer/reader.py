"""The reading side of the embedded log: any number of processes beside the one that writes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from penstock.buffer import (
    Glance,
    Glanced,
    Kept,
    Portion,
    frames,
    glanced,
    published,
    released,
    segments,
)
from penstock.buffer.files import Disk
from penstock.buffer.frames import Frame
from penstock.buffer.index import Gone, Index, Run, close_together, open_segment
from penstock.buffer.marks import refuse_outside
from penstock.codec import Gathering
from penstock.envelope import CollectionId, Extent, Mark
from penstock.errors import LogChanged, LogDamaged, LogReplaced, LogUnavailable

_T = TypeVar("_T")
_Seen = tuple[bytes, tuple[int, int]]
# The closed segments that there are, and how large.
_Closed = Sequence[tuple[int, int]]


class EmbeddedBuffer:
    """Reads the log in a folder; there need not be one yet. Threads may share it."""

    def __init__(self, folder: str | Path, *, boot: UUID | None = None) -> None:
        """Open nothing yet; `boot` is for tests, see `penstock.buffer.published`."""
        self._folder = Path(folder)
        self._boot = boot or published.this_boot()
        self._durable = str(self._folder / published.FILE)
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._seen: _Seen | None = None

    def log_id(self, collection: CollectionId) -> str:
        """Answer the UUID in the log's identity file, for every collection.

        Raises `LogUnavailable` while there is no log yet.
        """
        del collection
        log_id = self._ask(lambda index: index.log_id if index else None)
        if log_id is None:
            raise self._no_log()
        return log_id

    def collections(self) -> Sequence[CollectionId]:
        """Answer every collection that ever had a record, sorted."""
        return self._ask(lambda index: index.collections() if index else [])

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        """Answer what partition 0, the only one, holds."""
        return {0: self._ask(lambda index: index.extent(collection) if index else Extent(0, 0))}

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer where partition 0 of each ends."""
        return self._ask(
            lambda index: {one: {0: index.extent(one).end if index else 0} for one in collections}
        )

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        """Answer what is kept of each, at one moment; raise as `log_id` where there is no log."""

        def kept(index: Index | None) -> dict[CollectionId, Kept]:
            if index is None:
                raise self._no_log()
            return {one: Kept(index.log_id, {0: index.extent(one)}) for one in collections}

        return self._ask(kept)

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        """Answer when the first record of each span was received."""
        return [glanced(self.read, one) for one in asked]

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        """Answer the durable records from `mark` on; see `Buffer.read`."""
        gathering = Gathering()
        vanished: _Closed | None = None
        while True:
            room = max_bytes - gathering.payload_bytes
            run = self._ask(
                partial(_next_run, collection=collection, mark=mark, end=end, room=room)
            )
            if run is None:
                return Portion(gathering.batch(mark.log_id, mark.partition), mark)
            try:
                mark = self._gather(run, mark, max_bytes, gathering)
            except Gone:
                vanished = self._still_going(vanished)
                self._forget()

    def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        """Store what every store has absorbed; the writer's process reads it before it trims."""
        for mark in marks:
            self._ask(partial(_checked, collection=collection, mark=mark))
            if released.offset(self._folder, mark.log_id, collection) != mark.next:
                said = released.Released(mark.log_id, mark.next)
                released.write(Disk(), self._folder, collection, said)

    def released(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer the released offset of partition 0 of each."""
        log_id = self._ask(lambda index: index.log_id if index else None)
        return {
            one: {0: released.offset(self._folder, log_id, one) if log_id else 0}
            for one in collections
        }

    def close(self) -> None:
        """Forget the log; no file is held between calls."""
        self._forget()

    def _no_log(self) -> LogUnavailable:
        return LogUnavailable(f"there is no log in {self._folder} yet: no door has started")

    def _forget(self) -> None:
        with self._lock:
            self._index = None

    def _ask(self, question: Callable[[Index | None], _T]) -> _T:
        """Answer a question about the log as far as it is durable now; None is no log yet."""
        vanished: _Closed | None = None
        with self._lock:
            try:
                while True:
                    try:
                        return question(self._refreshed())
                    except Gone:
                        vanished = self._still_going(vanished)
                        self._index = None
            except OSError as error:
                self._index = None
                raise LogUnavailable(f"the log in {self._folder} cannot be read") from error

    def _still_going(self, before: _Closed | None) -> _Closed:
        """Answer the closed segments there are, after one that was looked for was gone.

        The writer lets go of hundreds one by one, so a new look may meet it again. Raises
        `LogDamaged` if nothing has changed since `before`: then it is not the writer.
        """
        now = segments.list_closed(self._folder)
        if now == before:
            raise LogDamaged(f"a segment of the log in {self._folder} is missing or too short")
        return now

    def _refreshed(self) -> Index | None:
        while True:
            seen = self._look()
            if self._index and seen == self._seen:
                return self._index
            identity = segments.read_identity(self._folder)
            if identity is None:
                return None
            log_id = str(identity.log_id)
            data, file = seen
            state = published.newest(data, log_id)
            if state and state.boot == self._boot:
                end, tip = state.end, state.tip
            else:
                found = segments.survey(self._folder, log_id, state, self._boot)
                end, tip = found.end, found.tip
                if self._look() != seen:
                    # A writer has started meanwhile and may have written what it has not synced.
                    continue
            index = self._index
            if (
                index is None
                or index.log_id != log_id
                or end < index.end
                or (self._seen and self._seen[1] != file)
            ):
                # Nothing yet, or another folder was put in the place of this one.
                index = Index(self._folder, log_id)
            index.advance(end, tip=tip, trims=state.trims if state else 0)
            self._index, self._seen = index, seen
            return index

    def _look(self) -> _Seen:
        """Answer what is published now, and in which file."""
        try:
            # Not pathlib's or io's way: this is the poll that every question begins with.
            file = os.open(self._durable, os.O_RDONLY)
        except FileNotFoundError:
            return b"", (0, 0)
        try:
            info = os.fstat(file)
            return os.pread(file, 2 * published.SLOT, 0), (info.st_dev, info.st_ino)
        finally:
            os.close(file)

    def _gather(self, run: Run, mark: Mark, max_bytes: int, gathering: Gathering) -> Mark:
        """Add the records of a run from the mark on; answer the mark behind them."""
        for frame, block in self._frames(run, frames.seed_of(mark.log_id)):
            room = max_bytes - gathering.payload_bytes
            if mark.next >= run.stop or room <= 0:
                break
            start = mark.next - frame.first
            stop = min(run.stop - frame.first, frame.events)
            stop = gathering.add(block, frame.first, start, stop, max_bytes=room)
            print_ = frames.fingerprint(frame.incarnation, frame.crc)
            mark = Mark(mark.log_id, mark.partition, frame.first + stop, print_)
        return mark

    def _frames(self, run: Run, seed: int) -> Iterator[tuple[Frame, memoryview]]:
        """Yield the frames of a run with their bodies, from a few large reads."""
        try:
            with open_segment(segments.segment_path(self._folder, run.base)) as file:
                for places in close_together(run.places):
                    begin = places[0].address
                    span = places[-1].address + places[-1].size - begin
                    data = segments.read_bytes(file, begin - run.base, span)
                    if len(data) < span:
                        raise Gone
                    view = memoryview(data)
                    # Rows hold on to what they were cut from; that must not be mostly others'.
                    sparse = 2 * sum(place.size for place in places) < span
                    for address, _ in places:
                        frame = frames.parse_header(data, address - begin, address, seed)
                        block = frames.whole(frame, view[address - begin :]) if frame else None
                        if frame is None or block is None:
                            what = "the frame is not what was written"
                            raise segments.damaged(run.base, address, what)
                        yield frame, memoryview(bytes(block)) if sparse else block
        except OSError as error:
            raise LogUnavailable(f"the log in {self._folder} cannot be read") from error


def _next_run(
    index: Index | None, *, collection: CollectionId, mark: Mark, end: int, room: int
) -> Run | None:
    """Answer what to read next; None where nothing durable is left, or no room."""
    stop = min(end, _checked(index, collection, mark).end)
    if index is None or mark.next >= stop or room <= 0:
        return None
    return index.run(collection, mark.next, stop, room)


def _checked(index: Index | None, collection: CollectionId, mark: Mark) -> Extent:
    """Answer the collection's extent; raise unless this log goes on where the mark says."""
    if index is None or index.log_id != mark.log_id or mark.partition != 0:
        raise LogReplaced(
            f"the mark {mark} of {collection} is of partition {mark.partition} of the log "
            f"{mark.log_id}; here is partition 0 of {index.log_id if index else 'no log'}"
        )
    extent = index.extent(collection)
    refuse_outside(collection, mark, extent)
    if mark.next and mark.fingerprint:
        found = index.fingerprint(collection, mark.next)
        if found != mark.fingerprint:
            raise LogChanged(
                f"the log of {collection} holds another record before {mark.next} than the one "
                f"that was absorbed ({found}, not {mark.fingerprint})"
            )
    return extent
