"""What can still be read of an embedded log, whatever has become of its folder.

A reader of the log stops at the first byte that is not what was written. This looks behind it: a
frame says its own address and carries the CRCs of its header and its body, both of this log, so a
whole one is found wherever it stands. Nothing is changed in the folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from penstock import codec
from penstock.buffer import frames, published, segments
from penstock.buffer.frames import Frame
from penstock.envelope import CollectionId
from penstock.errors import LogDamaged, NotFound, WrongState

Run = tuple[int, int]
"""Positions of a collection, the second one exclusive."""

_PAGE = 4096


class Piece(NamedTuple):
    """A frame of which every event can be read, and the segment that it is in."""

    base: int
    frame: Frame

    @property
    def run(self) -> Run:
        """The positions of its events."""
        return self.frame.first, self.frame.first + self.frame.events


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a folder holds of a log.

    Positions of a collection from its `starts` to its `ends` that are in none of its `pieces`
    cannot be read. What lies before was let go of once every store had it.
    """

    log_id: str
    pieces: Mapping[CollectionId, Sequence[Piece]]
    """By position; no two hold the same one."""
    starts: Mapping[CollectionId, int]
    ends: Mapping[CollectionId, int]
    """The next position, as far as anything that can be read proves it."""
    prints: Mapping[CollectionId, Mapping[int, str]]
    """The fingerprints of marks that heads of segments and broken frames tell, by position."""
    damage: tuple[str, ...]
    """What cannot be read, a sentence for each place."""

    def fingerprint(self, collection: CollectionId, position: int) -> str | None:
        """Answer the fingerprint of a mark there; None if it cannot be told."""
        for piece in self.pieces.get(collection, ()):
            start, end = piece.run
            if start < position <= end:
                return frames.fingerprint(piece.frame.incarnation, piece.frame.crc)
        return self.prints.get(collection, {}).get(position)

    def unreadable(self, collection: CollectionId, start: int) -> list[Run]:
        """Answer the positions from `start` on that cannot be read."""
        return without(
            [(start, self.ends.get(collection, 0))],
            (piece.run for piece in self.pieces.get(collection, ())),
        )


def without(runs: Iterable[Run], others: Iterable[Run]) -> list[Run]:
    """Answer the positions of `runs` that are in none of the others, as runs in order."""
    taken = sorted(others)
    left: list[Run] = []
    for start, end in sorted(runs):
        at = start
        for first, after in taken:
            if first >= end:
                break
            if after > at:
                if first > at:
                    left.append((at, first))
                at = after
        if at < end:
            left.append((at, end))
    return left


def read_folder(folder: Path, *, known: Sequence[str] = ()) -> Found:
    """Answer what the folder holds, with every frame read and checked.

    `known` are ids that the log may have, should the folder not say any more. Raises `NotFound`
    if there is no log, `LogDamaged` if nothing tells which log it is, and `WrongState` if a newer
    release wrote it.
    """
    log_id, damage = _identify(folder, known)
    seed = frames.seed_of(log_id)
    bases = segments.list_bases(folder)
    state = published.newest(_bytes_of(folder / published.FILE)[0], log_id)
    collecting = _Collecting(damage)
    for place, base in enumerate(bases):
        following = bases[place + 1] if place + 1 < len(bases) else None
        collecting.segment(folder, base, following, seed)
    durable = max([collecting.durable, state.end if state else 0, *bases[-1:]])
    collecting.end_at(durable)
    return Found(
        log_id=log_id,
        pieces={c: tuple(_undisputed(some)) for c, some in sorted(collecting.pieces.items())},
        starts=collecting.starts,
        ends=collecting.ends,
        prints=collecting.prints,
        damage=tuple(collecting.damage),
    )


def blocks(folder: Path, log_id: str, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, bytes]]:
    """Yield the blocks of these pieces in the order of the log, each checked again."""
    seed = frames.seed_of(log_id)
    by_base: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_base.setdefault(piece.base, []).append(piece)
    for base, some in sorted(by_base.items()):
        data, _ = _bytes_of(segments.segment_path(folder, base))
        for piece in sorted(some, key=lambda one: one.frame.address):
            at = piece.frame.address - base
            frame = frames.parse_header(data, at, piece.frame.address, seed)
            body = frames.whole(frame, memoryview(data)[at:]) if frame else None
            if frame != piece.frame or body is None:
                raise segments.damaged(base, piece.frame.address, "it could be read a moment ago")
            yield piece, bytes(body)


def _identify(folder: Path, known: Sequence[str]) -> tuple[str, list[str]]:
    """Answer the log's id, from the folder or from the one of `known` that its frames are of."""
    bases = segments.list_bases(folder)
    try:
        identity = segments.read_identity(folder)
    except (LogDamaged, OSError):
        identity = None
    if identity is not None:
        return str(identity.log_id), []
    if not bases:
        raise NotFound("log in the folder", str(folder))
    told = published.log_ids(_bytes_of(folder / published.FILE)[0])
    for log_id in dict.fromkeys([*map(str, told), *known]):
        try:
            seed = frames.seed_of(str(UUID(log_id)))
        except ValueError:
            # The id of a topic: of a log that is not in a folder.
            continue
        for base in bases:
            data, _ = _bytes_of(segments.segment_path(folder, base))
            if any(body is not None for _, body in _frames(data, base, len(data), seed)):
                return log_id, ["the log's identity cannot be read"]
    raise LogDamaged(f"nothing in {folder} or in the tables tells which log this is")


class _Collecting:
    """What was found, segment by segment."""

    def __init__(self, damage: list[str]) -> None:
        self.damage = damage
        self.pieces: dict[CollectionId, list[Piece]] = {}
        self.starts: dict[CollectionId, int] = {}
        self.ends: Counter[CollectionId] = Counter()
        self.prints: dict[CollectionId, dict[int, str]] = {}
        self.durable = 0
        """An address below which everything was durable."""
        self._first: dict[CollectionId, frames.Tail] | None = None
        self._reached = 0
        self._broken: list[Frame] = []
        self._torn: list[tuple[int, int]] = []

    def segment(self, folder: Path, base: int, following: int | None, seed: int) -> None:
        """Take in one file; it counts up to where the following one begins, and no further."""
        data, unread = _bytes_of(segments.segment_path(folder, base))
        stop = len(data) if following is None else min(len(data), following - base)
        name = frames.segment_name(base)
        if self._reached and base > self._reached:
            self.damage.append(f"addresses {self._reached} to {base} are missing")
        if unread:
            self.damage.append(f"segment {name}: the disk does not give {unread:,} bytes back")
        head = frames.parse_header(data, 0, base, seed)
        let_go = following is not None and head is not None and len(data) == head.size
        if base == 0 and not let_go:
            # Nothing was before it, whatever has become of its head.
            self._first = {}
        at = 0
        for frame, body in _frames(data, base, stop, seed):
            if frame.address > base + at:
                self._torn.append((base + at, frame.address))
            at = frame.address - base
            self.durable = max(self.durable, frame.durable)
            if body is None:
                self._broken.append(frame)
                self._torn.append((frame.address, min(frame.end, base + stop)))
            elif frame.kind == frames.HEAD:
                self._head(body, let_go=let_go)
            else:
                self._records(Piece(base, frame), body)
            at = min(frame.end - base, stop) if body is not None else at + 1
        if at < stop:
            self._torn.append((base + at, base + stop))
        self._reached = base + stop if following is None or not let_go else following
        if following is not None and not let_go and base + stop < following:
            self.damage.append(f"segment {name}: its last {following - base - stop:,} bytes")
            self._reached = following

    def _head(self, body: memoryview, *, let_go: bool) -> None:
        tails = frames.parse_head(body)
        if self._first is None and not let_go:
            self._first = tails
        for collection, tail in tails.items():
            self.ends[collection] = max(self.ends[collection], tail.next)
            self.prints.setdefault(collection, {})[tail.next] = tail.fingerprint
            if not let_go:
                self._starts_at(collection, tail.next)

    def _records(self, piece: Piece, body: memoryview) -> None:
        frame = piece.frame
        if body[0] > codec.VERSION:
            raise WrongState("a newer release wrote to the log: use that one")
        try:
            codec.cut(body, 0, frame.events)
        except LogDamaged:
            self._broken.append(frame)
            self._torn.append((frame.address, frame.end))
            return
        if frame.collection is None:
            return
        self.pieces.setdefault(frame.collection, []).append(piece)
        self.ends[frame.collection] = max(self.ends[frame.collection], frame.tail.next)
        self._starts_at(frame.collection, frame.first)

    def _starts_at(self, collection: CollectionId, position: int) -> None:
        self.starts[collection] = min(self.starts.get(collection, position), position)

    def end_at(self, durable: int) -> None:
        """Take what is torn above the durable end for what it is: nobody was told of it."""
        for frame in self._broken:
            if frame.address < durable and frame.collection is not None:
                self.ends[frame.collection] = max(self.ends[frame.collection], frame.tail.next)
                self._starts_at(frame.collection, frame.first)
                # The header tells which frame it was, though it cannot be read.
                known = self.prints.setdefault(frame.collection, {})
                name = frames.fingerprint(frame.incarnation, frame.crc)
                for position in range(frame.first, frame.first + frame.events):
                    known[position + 1] = name
        if self._first is not None:
            for collection in self.ends:
                self._starts_at(collection, self._first.get(collection, frames.NOTHING).next)
        self.damage += [
            f"addresses {start} to {end} hold nothing that was written there"
            for start, end in _joined(self._torn)
            if start < durable
        ]
        if self._reached < durable:
            self.damage.append(
                f"addresses {self._reached} to {durable}, the end of the log, are missing: how "
                "many events they held is not known"
            )


def _joined(runs: Iterable[Run]) -> list[Run]:
    joined: list[Run] = []
    for start, end in sorted(runs):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _undisputed(pieces: Iterable[Piece]) -> list[Piece]:
    """Leave out what a later life of the writer wrote again at the same positions."""
    kept: list[Piece] = []
    newest_first = sorted(
        pieces, key=lambda one: (one.frame.incarnation, one.frame.address), reverse=True
    )
    for piece in sorted(newest_first, key=lambda one: one.frame.first):
        if kept and piece.frame.first < kept[-1].run[1]:
            other = kept[-1].frame
            if (other.incarnation, other.address) > (piece.frame.incarnation, piece.frame.address):
                continue
            kept.pop()
        kept.append(piece)
    return kept


def _frames(
    data: bytes, base: int, stop: int, seed: int
) -> Iterator[tuple[Frame, memoryview | None]]:
    """Yield every frame with a whole header, and its body unless that is not what was written."""
    at = 0
    view = memoryview(data)
    while 0 <= at < stop:
        frame = frames.parse_header(data, at, base + at, seed)
        body = None
        if frame is not None:
            if at + frame.size <= stop:
                body = frames.whole(frame, view[at : at + frame.size])
            yield frame, body
        at = at + frame.size if frame and body is not None else data.find(frames.MAGIC, at + 1)


def _bytes_of(path: Path) -> tuple[bytes, int]:
    """Answer a file's bytes, zeros where the disk does not give them, and how many those are."""
    try:
        return path.read_bytes(), 0
    except FileNotFoundError:
        return b"", 0
    except OSError:
        pass
    unread = 0
    pieces = []
    file = os.open(path, os.O_RDONLY)
    try:
        for at in range(0, os.fstat(file).st_size, _PAGE):
            try:
                pieces.append(os.pread(file, _PAGE, at))
            except OSError:
                pieces.append(bytes(_PAGE))
                unread += _PAGE
    finally:
        os.close(file)
    return b"".join(pieces), unread
