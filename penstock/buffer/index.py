"""Where the records of each collection are, learnt by hopping from header to header."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from penstock.buffer import frames, segments
from penstock.buffer.frames import NOTHING, Frame
from penstock.envelope import CollectionId, Extent

# Closed segments whose frames are kept in mind: a reader moves forward through one or two.
_LOADED = 8
# Bytes and frames that are looked up at once; asking again costs as much as ten small frames.
_RUN_BYTES = 4 << 20
_RUN_FRAMES = 4096
# Frames that stand this close are read at once, with what lies between: 16 KiB are copied in the
# time that another read takes.
_GAP = 16 << 10
_READ = 1 << 20


class Gone(Exception):
    """A segment, or a part of it, is not there (any more)."""


class Place(NamedTuple):
    """Where a frame is."""

    address: int
    size: int


class Run(NamedTuple):
    """Frames of one collection in one segment, in order."""

    base: int
    places: Sequence[Place]
    stop: int
    """The offset to stop before, which may be in the midst of the last one."""


class _Places:
    """The frames of one collection in one segment, in order."""

    __slots__ = ("addresses", "crcs", "firsts", "sizes")

    def __init__(self) -> None:
        self.firsts = array("q")
        self.addresses = array("q")
        self.sizes = array("q")
        self.crcs = array("I")

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        self.firsts.append(frame.first)
        self.addresses.append(frame.address)
        self.sizes.append(frame.size)
        self.crcs.append(frame.crc)


class _Segment:
    """One segment: what its head says, and the frames that were looked at so far."""

    def __init__(self, folder: Path, base: int, seed: int, *, closed: bool) -> None:
        self.base = base
        self._path = segments.segment_path(folder, base)
        self._seed = seed
        with open_segment(self._path) as file:
            head = segments.read_head(file, base, seed)
            size = os.fstat(file.fileno()).st_size
        if head is None:
            raise segments.damaged(base, base, "the segment's head cannot be read")
        frame, self.starts = head
        self.hollow = closed and size == frame.size
        """The records were let go; only the head is left."""
        self.incarnation = frame.incarnation
        self._first = frame.end
        self.forget()

    def forget(self) -> None:
        """Have nothing in mind but the head."""
        self._looked = self._first
        self.ends = dict(self.starts)
        self.places: dict[CollectionId, _Places] = {}

    def start(self, collection: CollectionId) -> int:
        """Answer the offset with which the collection begins here."""
        return self.starts.get(collection, NOTHING).next

    def look(self, to: int) -> None:
        """Learn of every frame below that address, where one has to end."""
        if self._looked >= to:
            return
        with open_segment(self._path) as file:
            for frame in segments.walk(
                file, base=self.base, start=self._looked, limit=to, seed=self._seed, bodies=False
            ):
                self._take(frame)
            size = os.fstat(file.fileno()).st_size
        if self._looked < to:
            if self.base + size < to:
                raise Gone
            raise segments.damaged(self.base, self._looked, "no frame, below the durable end")

    def _take(self, frame: Frame) -> None:
        collection = frame.collection
        if collection is None or frame.first != self.ends.get(collection, NOTHING).next:
            raise segments.damaged(self.base, frame.address, "a frame that does not follow")
        places = self.places.get(collection)
        if places is None:
            places = self.places[collection] = _Places()
        places.add(frame)
        self.ends[collection] = frame.tail
        self._looked = frame.end


class Index:
    """The log up to a durable end. For one thread at a time.

    The segments' heads tell where each collection begins in each of them, so frames are looked at
    only in the newest segment and in those that are read.
    """

    def __init__(self, folder: Path, log_id: str) -> None:
        self.log_id = log_id
        self._seed = frames.seed_of(log_id)
        self.end = 0
        self._folder = folder
        self._trims = 0
        self._segments: list[_Segment] = []
        self._loaded: dict[int, _Segment] = {}

    def advance(self, end: int, *, tip: int, trims: int) -> None:
        """Take in what became durable, up to `end`; `tip` is the base of the newest segment.

        Raises `Gone` when a segment vanished meanwhile, `LogDamaged` where there is no frame.
        """
        if end and (not self._segments or self._segments[-1].base != tip or self._trims != trims):
            known = {s.base: s for s in self._segments} if self._trims == trims else {}
            bases = [base for base in segments.list_bases(self._folder) if base < end]
            if not bases or bases[-1] != tip:
                raise segments.damaged(tip, end, "the segment is missing")
            self._segments = [
                known.get(base) or _Segment(self._folder, base, self._seed, closed=base != tip)
                for base in bases
            ]
            self._trims = trims
        if self._segments:
            self._segments[-1].look(end)
        self.end = end

    def collections(self) -> list[CollectionId]:
        """Answer every collection that ever had a record, sorted."""
        return sorted(self._segments[-1].ends) if self._segments else []

    def extent(self, collection: CollectionId) -> Extent:
        """Answer the offsets of which every record is still there, up to the newest."""
        end = after = self._end(collection)
        for segment in reversed(self._segments):
            before = segment.start(collection)
            if segment.hollow and before < after:
                break
            after = before
        return Extent(after, end)

    def fingerprint(self, collection: CollectionId, offset: int) -> str:
        """Answer the fingerprint for a mark at an offset within the collection's extent."""
        place = bisect_left(self._segments, offset, key=lambda s: s.start(collection))
        if place < len(self._segments) and self._segments[place].start(collection) == offset:
            tail = self._segments[place].starts.get(collection, NOTHING)
            return tail.fingerprint
        if offset == self._end(collection):
            return self._segments[-1].ends[collection].fingerprint
        segment = self._load(place - 1)
        places = segment.places[collection]
        crc = places.crcs[bisect_left(places.firsts, offset) - 1]
        return frames.fingerprint(segment.incarnation, crc)

    def run(self, collection: CollectionId, offset: int, stop: int, room: int) -> Run:
        """Answer the frames that hold the records from `offset` on, the next megabytes of them.

        Not more than hold offset `stop` or `room` bytes. The offset has a record.
        """
        place = bisect_right(self._segments, offset, key=lambda s: s.start(collection)) - 1
        segment = self._load(place)
        at = segment.places[collection]
        first = bisect_right(at.firsts, offset) - 1
        last = min(bisect_left(at.firsts, stop), first + _RUN_FRAMES)
        room = min(room, _RUN_BYTES)
        for place in range(first, last):
            room -= at.sizes[place]
            if room <= 0:
                last = place + 1
                break
        places = map(Place, at.addresses[first:last], at.sizes[first:last])
        return Run(segment.base, list(places), stop)

    def _end(self, collection: CollectionId) -> int:
        return self._segments[-1].ends.get(collection, NOTHING).next if self._segments else 0

    def _load(self, place: int) -> _Segment:
        """Answer a segment with all its frames in mind."""
        segment = self._segments[place]
        if place + 1 == len(self._segments):
            return segment
        segment.look(self._segments[place + 1].base)
        self._loaded.pop(segment.base, None)
        self._loaded[segment.base] = segment
        if len(self._loaded) > _LOADED:
            self._loaded.pop(next(iter(self._loaded))).forget()
        return segment


def close_together(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    """Cut a row of frames into such rows as are worth one read of about a megabyte."""
    begin = 0
    for at, (before, place) in enumerate(pairwise(places), 1):
        gap = place.address - before.address - before.size
        if gap > _GAP or place.address + place.size - places[begin].address > _READ:
            yield places[begin:at]
            begin = at
    yield places[begin:]


def open_segment(path: Path) -> FileIO:
    """Open a segment for reading; raises `Gone` if there is none."""
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise Gone from None
