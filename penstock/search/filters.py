"""What may be in which rows of a data file: a filter for each, derived and forgotten with it.

The rows of a row group are parted into 64 chunks at most. For each token (`penstock.query.pruning`)
a filter says in which chunks it may be: a Bloom filter of each chunk, the same bit of all chunks in
one word. It may say yes without cause, once in a hundred times, and never no. And it says at which
paths the file has misfits: where a search asks for no such path, columns alone decide. And it says
which columns have only small letters, or only capitals: their texts are compared as they are.

A filter has no word of any event in it, only bits and digests. It belongs to one file, which never
changes; a file without one is read. So every filter may be lost, and is lost with its file.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from lakehouse.listing import Listed
from penstock.envelope import Micros
from penstock.query.pruning import NOTHING, All, Need, Token, path_token
from penstock.query.spelling import Spelt
from penstock.query.stored import LeafColumn, columns_of
from penstock.schema.shape import Struct
from penstock.search.spans import Piece, whole_files

log = structlog.get_logger()

FORM = 2
"""Another number for other bits: filters of the one before are made anew."""

CHUNKS = 64
PROBES = 6
BITS_PER_TOKEN = 10
MOST_BITS = 1 << 18
"""A chunk has no more bits than that, 32 kB: beyond some 26,000 tokens it says yes more often."""

MOST_PATHS = 1_000
"""With misfits at more paths than that, a file may have them at any."""

LEAST_CHUNK = 256
"""Fewer rows are read in no time."""

_WORD = CHUNKS // 8
_MOST_KNOWN = 2_000
_SUFFIX = ".filter"
_ALL = (1 << CHUNKS) - 1


class Chunks(msgspec.Struct, frozen=True):
    """The chunks of one row group: how many rows each has, and when their events were received.

    `bits` is how many bits the filter of a chunk has.
    """

    rows: list[int]
    first: list[Micros]
    last: list[Micros]
    bits: int


class Group(NamedTuple):
    """What is known of a row group: its chunks, their words of bits, and where misfits are."""

    chunks: Chunks
    words: bytes
    misfits: frozenset[int]
    """Digests of the paths."""
    small: frozenset[int]
    """The columns whose texts are all in small letters, by their number among all of the shape."""
    capital: frozenset[int]
    """The columns whose texts are all ASCII and in capitals."""


class _Head(msgspec.Struct, frozen=True):
    form: int
    path: str
    groups: list[Chunks]
    checksum: int
    misfits: frozenset[int] | None
    # Filters of earlier versions do not say how texts are spelt.
    small: frozenset[int] = frozenset()
    capital: frozenset[int] = frozenset()


def chunk_rows(rows: int, least: int) -> int:
    """Answer how many rows of a row group make a chunk; no fewer than `least`."""
    return max(least, -(-rows // CHUNKS))


def bits_for(tokens: int) -> int:
    """Answer how many bits a filter has for the chunk that has the most tokens."""
    return max(64, min(MOST_BITS, tokens * BITS_PER_TOKEN))


def positions(digest: int, bits: int) -> list[int]:
    """Answer which bits stand for a token. `penstock.search.filling` computes the same in SQL."""
    step = (digest >> 32) | 1
    return [((digest & 0xFFFFFFFF) + probe * step) % bits for probe in range(PROBES)]


@dataclass(frozen=True, slots=True)
class Filter:
    """The filter of one file."""

    place: Path
    groups: tuple[Chunks, ...]
    starts: tuple[int, ...]
    misfits: frozenset[int] | None
    """Digests of all paths at which the file has misfits, if they are not too many."""
    small: frozenset[int]
    capital: frozenset[int]

    def spelt(self, columns: Iterable[tuple[int, LeafColumn]]) -> Spelt:
        """Answer which of these columns are spelt in one way, told with their numbers."""
        return frozenset(
            (column, "small" if number in self.small else "capital")
            for number, column in columns
            if number in self.small or number in self.capital
        )

    def may_misfit(self, paths: frozenset[str] | None) -> bool:
        """Say whether the file may have a misfit at one of these paths; None: at any."""
        if self.misfits is None or paths is None:
            return self.misfits is None or bool(self.misfits)
        return any(path_token(path) in self.misfits for path in paths)

    def pieces(self, file: Listed, need: Need, *, misfits: bool, spelt: Spelt) -> Iterator[Piece]:
        """Answer the rows in which there may be what is needed; neighbours are one piece.

        A few words of the filter are read, and it is open for no longer: a process may have as
        many filters as it likes. Raises `OSError` if it is gone.
        """
        with self.place.open("rb", buffering=0) as opened:
            maybe = [
                _chunks(opened.fileno(), group, start, need)
                for group, start in zip(self.groups, self.starts, strict=True)
            ]
        for number, (group, found) in enumerate(zip(self.groups, maybe, strict=True)):
            chunk = 0
            while chunk < len(group.rows):
                if not found >> chunk & 1:
                    chunk += 1
                    continue
                end = chunk
                while end < len(group.rows) and found >> end & 1:
                    end += 1
                yield Piece(
                    file,
                    number,
                    min(group.first[chunk:end]),
                    max(group.last[chunk:end]),
                    sum(group.rows[chunk:end]),
                    misfits=misfits,
                    spelt=spelt,
                )
                chunk = end


def _chunks(filter_file: int, group: Chunks, start: int, need: Need) -> int:
    """Answer the chunks that may have it, a bit for each; the words of the group are at `start`."""
    match need:
        case Token(digest):
            found = _ALL
            for position in positions(digest, group.bits):
                word = os.pread(filter_file, _WORD, start + position * _WORD)
                if len(word) < _WORD:
                    raise OSError("a filter has become shorter")
                found &= int.from_bytes(word, "little")
            return found
        case All(parts):
            found = _ALL
            for part in parts:
                found &= _chunks(filter_file, group, start, part)
            return found
        case _:
            found = 0
            for part in need.parts:
                found |= _chunks(filter_file, group, start, part)
            return found


class Filters:
    """Filters in a folder. Threads may share it, and processes: a file appears whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._known: OrderedDict[Path, Filter] = OrderedDict()

    def pieces(
        self,
        table: str,
        files: Sequence[Listed],
        need: Need,
        paths: frozenset[str] | None = None,
        *,
        compared: frozenset[str] = frozenset(),
    ) -> list[Piece]:
        """Answer the rows of a table's files in which there may be what is needed.

        At `paths` misfits can decide; None: at any. The texts at the paths that are `compared` may
        be spelt in one way.
        """
        columns = {shape: _texts_at(shape, compared) for shape in {one.shape for one in files}}
        found: list[Piece] = []
        for file in files:
            known = self.of(table, file)
            if known is None:
                found += whole_files([file])
                continue
            misfits, spelt = known.may_misfit(paths), known.spelt(columns[file.shape])
            if need == NOTHING:
                found += whole_files([file], misfits=misfits, spelt=spelt)
                continue
            try:
                found += list(known.pieces(file, need, misfits=misfits, spelt=spelt))
            except OSError as error:
                self._forget(self._place(table, file.path), error)
                found += whole_files([file])
        return found

    def _forget(self, place: Path, error: OSError) -> None:
        log.warning("a filter cannot be read, its file is", filter=place.name, error=str(error))
        with self._guard:
            self._known.pop(place, None)

    def of(self, table: str, file: Listed) -> Filter | None:
        """Answer the filter of a file, None where there is none."""
        place = self._place(table, file.path)
        with self._guard:
            known = self._known.get(place)
            if known is not None:
                self._known.move_to_end(place)
                return known
        try:
            found = _read(place, file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("a filter cannot be read, its file is", filter=place.name, error=str(error))
            place.unlink(missing_ok=True)
            return None
        with self._guard:
            self._known[place] = found
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return found

    def has(self, table: str, path: str) -> bool:
        """Say whether there is a filter of a file."""
        return self._place(table, path).exists()

    def write(self, table: str, path: str, groups: Sequence[Group]) -> int:
        """Keep the filter of a file; answer how many bytes it has."""
        place = self._place(table, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        body = b"".join(group.words for group in groups)
        paths = frozenset[int]().union(*(group.misfits for group in groups))
        head = _Head(
            form=FORM,
            path=path,
            groups=[group.chunks for group in groups],
            checksum=zlib.crc32(body),
            misfits=paths if len(paths) <= MOST_PATHS else None,
            small=frozenset[int].intersection(*(group.small for group in groups)),
            capital=frozenset[int].intersection(*(group.capital for group in groups)),
        )
        whole = msgspec.json.encode(head) + b"\n" + body
        fresh = place.with_suffix(f".{os.getpid()}-{threading.get_native_id()}")
        fresh.write_bytes(whole)
        fresh.replace(place)
        return len(whole)

    def sweep(self, table: str, kept: Collection[str]) -> int:
        """Delete the filters of a table but for those of these files; answer how many went."""
        folder = self._folder / table
        names = {self._place(table, path).name for path in kept}
        gone = [one for one in _entries(folder) if one.name not in names]
        for one in gone:
            one.unlink(missing_ok=True)
            with self._guard:
                self._known.pop(one, None)
        return len(gone)

    def sweep_tables(self, kept: Collection[str]) -> int:
        """Delete the filters of all tables but for these; answer how many tables went."""
        gone = [one for one in _entries(self._folder) if one.name not in kept and one.is_dir()]
        for one in gone:
            self.sweep(one.name, ())
            one.rmdir()
        return len(gone)

    def bytes(self) -> int:
        """Answer how many bytes all filters take."""
        return sum(one.stat().st_size for t in _entries(self._folder) for one in _entries(t))

    def _place(self, table: str, path: str) -> Path:
        name = blake2b(path.encode(), digest_size=16).hexdigest()
        return self._folder / table / f"{name}{_SUFFIX}"


def _texts_at(shape: Struct, paths: frozenset[str]) -> list[tuple[int, LeafColumn]]:
    """Answer the columns of texts at these paths, with their numbers."""
    return [
        (number, column)
        for number, column in enumerate(columns_of(shape))
        if column.kind == "string" and column.path in paths
    ]


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(place: Path, file: Listed) -> Filter:
    with place.open("rb") as opened:
        head = msgspec.json.decode(opened.readline(), type=_Head)
        start = opened.tell()
        words = opened.read()
    if (head.form, head.path) != (FORM, file.path):
        raise ValueError("it is of another form or file")
    if [sum(group.rows) for group in head.groups] != [group.rows for group in file.groups]:
        raise ValueError("its file has other rows")
    starts = []
    end = start
    for group in head.groups:
        starts.append(end)
        end += group.bits * _WORD
    if end != start + len(words) or zlib.crc32(words) != head.checksum:
        raise ValueError("it is not as it was written")
    return Filter(place, tuple(head.groups), tuple(starts), head.misfits, head.small, head.capital)
