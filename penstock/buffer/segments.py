"""Reading the log's folder: which segments there are, their frames, and where the log ends.

::

    <folder>/identity              the log's id and its newest incarnation
    <folder>/lock                  held by the one writer
    <folder>/durable               see `penstock.buffer.published`
    <folder>/segments/<base>.log   see `penstock.buffer.frames`
    <folder>/released/<collection> see `penstock.buffer.released`
    <folder>/renewal/              see `penstock.buffer.renewal`, as are `renewed/` and `aside/`

A segment is part of the log up to the base of the next one, and no further: a segment whose sync
failed keeps bytes that are not part of the log, whether they reached the disk or not. The next
segment is made at the durable end, and before anything in it is acknowledged its name is synced.
So the name of a segment proves that everything below its base was durable.

A segment whose records are not needed any more is deleted, or, while an older one is still needed,
cut down to its head, which says where the older one ends and which offsets are gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from uuid import UUID

import msgspec

from penstock.buffer import frames
from penstock.buffer.frames import Frame, Tail
from penstock.buffer.published import Published
from penstock.envelope import CollectionId
from penstock.errors import LogDamaged

SEGMENTS = "segments"
IDENTITY = "identity"
RENEWAL = "renewal"
INTENT = "intent"
RENEW = "penstock log renew"
"""The command that makes a new log of what can be read of one that cannot go on."""

# Headers are looked at in pieces of this size: hopping over large frames costs one read each, a
# run of small ones costs one read for hundreds.
_HOP = 64 << 10
_BODIES = 4 << 20


class Identity(msgspec.Struct, frozen=True):
    """Which log this is. The id stays; each life of a writer has a higher incarnation."""

    log_id: UUID
    incarnation: int


def read_identity(folder: Path) -> Identity | None:
    """Answer the identity of the log in the folder; None while no writer has made one."""
    file = folder / IDENTITY
    try:
        return msgspec.json.decode(file.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise LogDamaged(f"{file} does not say which log this is") from error


def segment_path(folder: Path, base: int) -> Path:
    """Answer where the segment that begins at this address is."""
    return folder / SEGMENTS / frames.segment_name(base)


def list_bases(folder: Path) -> list[int]:
    """Answer the base of every segment file, in order."""
    try:
        bases = [frames.base_of(file.name) for file in (folder / SEGMENTS).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(base for base in bases if base is not None)


def list_closed(folder: Path) -> list[tuple[int, int]]:
    """Answer base and size of every segment file but the newest, in order."""
    found: list[tuple[int, int]] = []
    for base in list_bases(folder)[:-1]:
        with contextlib.suppress(FileNotFoundError):
            found.append((base, segment_path(folder, base).stat().st_size))
    return found


def damaged(base: int, address: int, what: str) -> LogDamaged:
    """Say where the log cannot be read; never what stands there."""
    name = frames.segment_name(base)
    return LogDamaged(f"log segment {name}, address {address} (byte {address - base}): {what}")


def walk(
    file: FileIO, *, base: int, start: int, limit: int, seed: int, bodies: bool
) -> Iterator[Frame]:
    """Yield the frames from address `start` up to `limit`, and stop before what is none.

    With `bodies` their CRC is checked too.
    """
    step = _BODIES if bodies else _HOP
    chunk, chunk_start, at = b"", start, start
    while at < limit:
        have = chunk_start + len(chunk)
        if have - at < frames.LONGEST_HEADER and have < limit:
            chunk, chunk_start = read_bytes(file, at - base, min(step, limit - at)), at
        frame = frames.parse_header(chunk, at - chunk_start, at, seed)
        if frame is None or frame.end > limit:
            return
        if bodies:
            if frame.end > chunk_start + len(chunk):
                chunk, chunk_start = read_bytes(file, at - base, max(step, frame.size)), at
            if frames.whole(frame, memoryview(chunk)[at - chunk_start :]) is None:
                return
        yield frame
        at = frame.end


def read_bytes(file: FileIO, offset: int, size: int) -> bytes:
    """Answer that part of a file, or what there is of it."""
    return os.pread(file.fileno(), size, offset)


def read_head(file: FileIO, base: int, seed: int) -> tuple[Frame, dict[CollectionId, Tail]] | None:
    """Answer a segment's head; None if there is no whole one."""
    start = read_bytes(file, 0, _HOP)
    frame = frames.parse_header(start, 0, base, seed)
    if frame is None or frame.kind != frames.HEAD:
        return None
    body = frames.whole(
        frame, start if len(start) >= frame.size else read_bytes(file, 0, frame.size)
    )
    return (frame, frames.parse_head(body)) if body is not None else None


@dataclass(frozen=True, slots=True)
class _Chain:
    """The frames of one segment, one behind the other, as far as they are whole."""

    ends: dict[CollectionId, Tail] | None
    """Of the head; None if that is not whole."""
    start: int
    """Where the head ends and the frames begin."""
    frames: Sequence[Frame]
    end: int
    durable: int
    """An address that something in the segment, even behind the break, proves durable."""


def _read_chain(folder: Path, base: int, limit: int | None, seed: int) -> _Chain:
    with segment_path(folder, base).open("rb", buffering=0) as file:
        stop = base + os.fstat(file.fileno()).st_size if limit is None else limit
        head = read_head(file, base, seed)
        start = head[0].end if head else base
        found: list[Frame] = []
        if head:
            found += walk(file, base=base, start=start, limit=stop, seed=seed, bodies=True)
        end = found[-1].end if found else start
        proofs = [frame.durable for frame in found]
        if end < stop:
            proofs += _proofs(file, base=base, start=end, stop=stop, seed=seed)
        return _Chain(head[1] if head else None, start, found, end, max(proofs, default=base))


def _proofs(file: FileIO, *, base: int, start: int, stop: int, seed: int) -> Iterator[int]:
    """Yield what headers behind a break say was durable when they were written.

    A torn tail has none that says more than where it begins: all of it was written at once.
    """
    at = start
    while at < stop:
        chunk = read_bytes(file, at - base, _BODIES)
        place = chunk.find(frames.MAGIC)
        while place >= 0:
            frame = frames.parse_header(chunk, place, at + place, seed)
            if frame:
                yield frame.durable
            place = chunk.find(frames.MAGIC, place + 1)
        if len(chunk) < _BODIES:
            return
        at += len(chunk) - frames.LONGEST_HEADER


@dataclass(frozen=True, slots=True)
class Found:
    """How far a log is durable, learnt from the disk alone."""

    end: int
    bases: tuple[int, ...]
    """The segments that hold something below the end."""
    ends: Mapping[CollectionId, Tail]

    @property
    def tip(self) -> int:
        """Base of the newest of them; 0 in a log without any."""
        return self.bases[-1] if self.bases else 0


def survey(folder: Path, log_id: str, published: Published | None, boot: UUID) -> Found:
    """Find the durable end of a log that no writer has published in this boot, or is starting on.

    In the boot it was written in, `published` is the end: what stands above it was never synced
    as far as anybody knows. After a power cut (or on another machine) the bytes come from the disk
    itself, so the end is behind the last whole frame. Whatever anything proves durable has to be
    there: raises `LogDamaged` if it is not.
    """
    bases = list_bases(folder)
    seed = frames.seed_of(log_id)
    known = published.end if published else 0
    if not bases:
        if known:
            raise LogDamaged(f"the log in {folder} has no segment, but {known} bytes were durable")
        return Found(0, (), {})

    newest = bases[-1]
    chain = _read_chain(folder, newest, None, seed)
    known = max(known, newest, chain.durable)
    if chain.end < known:
        raise damaged(newest, chain.end, f"no frame, but everything below {known} was durable")
    end = known if published and published.boot == boot else chain.end
    kept = tuple(base for base in bases if base < end)
    if end and not kept:
        raise damaged(newest, end, "the segment before it is missing")
    if chain.ends is None and kept:
        newest = kept[-1]
        chain = _read_chain(folder, newest, end, seed)
    if end != newest and end not in (chain.start, *(frame.end for frame in chain.frames)):
        raise damaged(newest, chain.end, f"no frame ends at {end}, where the log ends")
    return Found(end, kept, ends_at(chain.ends or {}, chain.frames, end))


def ends_at(
    ends: Mapping[CollectionId, Tail], found: Sequence[Frame], end: int
) -> dict[CollectionId, Tail]:
    """Answer where the collections end at an address, from a head and the frames behind it."""
    reached = dict(ends)
    for frame in found:
        if frame.end <= end and frame.collection:
            reached[frame.collection] = frame.tail
    return reached
