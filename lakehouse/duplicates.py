"""Looking for what events repeat, among the rows that have landed.

Who looks has the table that its answer holds for: landing commits only if that still is the
newest one, else it looks again. So of two that land the same id one meets the other's row.

Of every id in the window a hash of 8 bytes is kept, with the number of its file: 12 bytes an
event, sorted. Nothing is kept before a sender gives an id. A hash that is met says which file to
open, and the ids and bytes there decide: what is folded is never guessed.

Why so, and what it costs: docs/decisions/0020-sent-twice-seen-once.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestFile
from pyiceberg.table import Table

from penstock.envelope import Micros
from penstock.errors import EngineUnavailable
from penstock.schema.repeats import (
    CANDIDATE,
    Judged,
    Marked,
    candidates_of,
    hashes_of,
    judge,
    mark,
    named_in,
)

log = structlog.get_logger()

HOUR: Micros = 3_600_000_000
_DAY: Micros = 24 * HOUR

BYTES_PER_ID = 12
"""What an id takes in memory; for a moment twice that, while levels are joined."""

# Joining three million takes most of a second, which a batch waits for.
_LONGEST_LEVEL = 4_000_000
_LEVELS_OF_A_SIZE = 4

# Earlier rows that a batch is compared with at most, the newest first. Only an id that is given
# to everything has so many; without an end each batch would read the whole window.
_MOST_ROWS = 200_000
_MOST_BYTES = 256 << 20

_COMPARED = ("event_id", "received_at", "metadata", "payload")
_FOR_EVER: Micros = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class _File:
    """A data file: when its last row was received, and how many it has."""

    path: str
    upto: Micros
    rows: int


@dataclass(frozen=True, slots=True)
class _Level:
    """Sorted hashes, and for each the number of its file."""

    hashes: pa.Array
    files: pa.Array


@dataclass(slots=True)
class _Index:
    """What is kept of one table."""

    files: dict[int, _File] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    levels: list[_Level] = field(default_factory=list)
    listed: dict[str, tuple[_File, ...]] = field(default_factory=dict)
    """By manifest, which never changes."""
    floor: Micros = 0
    """Files that end before it are left out, for want of room."""
    next: int = 0

    @property
    def held(self) -> int:
        """How many ids are in memory, those of files that are gone included."""
        return sum(len(level.hashes) for level in self.levels)

    @property
    def alive(self) -> int:
        """How many of them are of files that the table has."""
        return sum(file.rows for file in self.files.values())

    def add(self, file: _File, hashes: pa.Array) -> None:
        """Take in the ids of a file."""
        number, self.next = self.next, self.next + 1
        self.files[number], self.numbers[file.path] = file, number
        if not len(hashes):
            return
        order = pc.array_sort_indices(hashes)
        files = pa.repeat(pa.scalar(number, pa.int32()), len(hashes))
        self.levels.append(_Level(hashes.take(order), files))
        self._merge()

    def drop(self, paths: Iterable[str]) -> None:
        """Leave files out; their ids stay in memory until half of what is there is theirs."""
        for path in paths:
            del self.files[self.numbers.pop(path)]
        if self.held > 2 * self.alive:
            self.purge()

    def purge(self) -> None:
        """Let go of the ids of files that were left out."""
        alive = pa.array(self.files, pa.int32())
        kept = []
        for level in self.levels:
            here = pc.is_in(level.files, alive)
            hashes = level.hashes.filter(here)
            if len(hashes):
                kept.append(_Level(hashes, level.files.filter(here)))
        self.levels = kept
        self._merge()

    def find(self, hashes: pa.Array) -> tuple[pa.Array, set[int]]:
        """Answer those of the (sorted) hashes that are known, and the files that have them."""
        known = pa.repeat(pa.scalar(value=False), len(hashes))
        files: set[int] = set()
        for level in self.levels:
            starts = pc.search_sorted(level.hashes, hashes, side="left")
            inside = pc.min_element_wise(starts, pa.scalar(len(level.hashes) - 1, pa.uint64()))
            here = pc.equal(level.hashes.take(inside), hashes)
            if not pc.any(here).as_py():
                continue
            known = pc.or_(known, here)
            ends = pc.search_sorted(level.hashes, hashes.filter(here), side="right")
            for start, end in set(
                zip(starts.filter(here).to_pylist(), ends.to_pylist(), strict=True)
            ):
                files.update(level.files.slice(start, end - start).unique().to_pylist())
        return hashes.filter(known), files & self.files.keys()

    def _merge(self) -> None:
        """Join levels of about one size: few are to be searched, and few are sorted again."""
        while True:
            sizes: dict[int, list[_Level]] = {}
            for level in self.levels:
                sizes.setdefault(_size(len(level.hashes)), []).append(level)
            full = next((group for group in sizes.values() if _may_be_joined(group)), None)
            if full is None:
                return
            hashes = pa.concat_arrays([level.hashes for level in full])
            files = pa.concat_arrays([level.files for level in full])
            order = pc.array_sort_indices(hashes)
            gone = {id(level) for level in full}
            self.levels = [level for level in self.levels if id(level) not in gone]
            self.levels.append(_Level(hashes.take(order), files.take(order)))


def _size(ids: int) -> int:
    """Answer the size of a level, as a power of four."""
    return max(ids, 1).bit_length() // 2


def _may_be_joined(levels: list[_Level]) -> bool:
    return (
        len(levels) >= _LEVELS_OF_A_SIZE
        and sum(len(level.hashes) for level in levels) <= _LONGEST_LEVEL
    )


class Duplicates:
    """Finds what rows repeat. Threads may share it."""

    def __init__(
        self, *, window: Micros = _DAY, most_bytes: int = 256 << 20, seed: int = 0
    ) -> None:
        """Look back for `window` from each row, 0: not at all; take `most_bytes` of memory.

        Where the ids of the window need more, it is made shorter: what is then not found is shown
        twice.
        """
        self._window = window
        self._most_ids = most_bytes // BYTES_PER_ID
        self._seed = seed
        self._indices: dict[str, _Index] = {}
        self._guard = threading.Lock()

    def among(self, batch: pa.RecordBatch) -> Callable[[Table, pa.Table], Marked]:
        """Answer what marks rows that come from this batch of a log, see `marked`."""
        return lambda table, rows: self.marked(table, rows, named_in(rows, batch))

    def marked(self, table: Table | None, rows: pa.Table, named: pa.Array | None) -> Marked:
        """Answer the rows, those marked that repeat a row of the table or one before them.

        `named` says which of the rows may: those whose senders gave the id. `table` is one load,
        without the rows; None where nothing has landed. Raises
        `EngineUnavailable` if its files cannot be read.
        """
        if named is None or self._window <= 0 or not rows.num_rows:
            return Marked(rows)
        judged, window = self._judged(table, rows, named)
        if judged.repeats or judged.reused:
            rows = mark(rows, judged)
        return Marked(rows, len(judged.repeats), len(judged.reused), window)

    def _judged(
        self, table: Table | None, rows: pa.Table, named: pa.Array
    ) -> tuple[Judged, Micros | None]:
        ids = rows["event_id"].combine_chunks()
        hashes = hashes_of(ids, self._seed)
        times = pc.min_max(rows["received_at"].cast(pa.int64())).as_py()
        since = times["min"] - self._window
        asked = hashes.filter(named)
        asked = asked.take(pc.array_sort_indices(asked))
        known, files, window = asked[:0], [], None
        if table is not None:
            with self._guard, _reading():
                index = self._indices.setdefault(str(table.metadata.table_uuid), _Index())
                self._bring_up_to_date(index, table, since)
                known, numbers = index.find(asked)
                files = [index.files[number] for number in numbers]
                window = times["max"] - index.floor if index.floor > since else None
        suspects = pa.concat_arrays([known, _doubles(hashes)])
        if not len(suspects):
            return Judged([], []), window
        here = pc.is_in(hashes, suspects)
        places = pc.indices_nonzero(here)
        earlier = CANDIDATE.empty_table()
        if table is not None:
            earlier = _earlier(table.io, files, pc.unique(ids.filter(here)), since)
        candidates = pa.concat_tables([earlier, candidates_of(rows.take(places))])
        asking = [False] * earlier.num_rows + named.take(places).to_pylist()
        found = judge(candidates, asking, self._window)
        first, at = earlier.num_rows, places.to_pylist()
        repeats, reused = ([at[row - first] for row in each] for each in found)
        return Judged(repeats, reused), window

    def _bring_up_to_date(self, index: _Index, table: Table, since: Micros) -> None:
        """Know the ids of every file of the table with rows from `since` on, as room allows."""
        there = {file.path: file for file in _files_of(index, table, since)}
        index.drop([path for path in index.numbers if path not in there])
        missing = [file for path, file in there.items() if path not in index.numbers]
        for file in sorted(missing, key=attrgetter("upto"), reverse=True):
            if file.upto <= index.floor:
                break
            if self._room_for(file, index):
                index.add(file, _hashes_in(table.io, file, self._seed))

    def _room_for(self, file: _File, index: _Index) -> bool:
        """Leave out the files that end first, of whatever table, until there is room for this one.

        False where it is one of them itself: then there is no need to read it.
        """
        if self._held() + file.rows <= self._most_ids:
            return True
        self._purge()
        left = self._held() + file.rows
        if left <= self._most_ids:
            return True
        there = [(known, one) for one in self._indices.values() for known in one.files.values()]
        for known, one in sorted([*there, (file, index)], key=lambda pair: pair[0].upto):
            # Some more than needed: it is not to happen at every batch.
            if left <= self._most_ids * 7 // 8:
                break
            left -= known.rows
            one.floor = max(one.floor, known.upto)
            if known is not file:
                one.drop([known.path])
        self._purge()
        log.warning(
            "there is no room for the ids of the whole window, older repetitions are not found",
            setting="duplicate_memory_mib",
            ids=left,
        )
        return file.upto > index.floor

    def _held(self) -> int:
        return sum(index.held for index in self._indices.values())

    def _purge(self) -> None:
        for index in self._indices.values():
            index.purge()


def _doubles(hashes: pa.Array) -> pa.Array:
    """Answer the hashes that are there more than once."""
    ordered = hashes.take(pc.array_sort_indices(hashes))
    return ordered[1:].filter(pc.equal(ordered[1:], ordered[:-1]))


def _files_of(index: _Index, table: Table, since: Micros) -> Iterator[_File]:
    """Answer the data files of the table that have rows received at `since` or later."""
    snapshot = table.metadata.current_snapshot()
    if snapshot is None:
        index.listed = {}
        return
    received = table.metadata.schema().find_field("received_at").field_id
    listed = {}
    for manifest in snapshot.manifests(table.io):
        if manifest.content != ManifestContent.DATA or _ends_before(manifest, since):
            continue
        files = index.listed.get(manifest.manifest_path)
        if files is None:
            files = tuple(_listed(table.io, manifest, received))
        listed[manifest.manifest_path] = files
        yield from (file for file in files if file.upto >= since)
    index.listed = listed


def _ends_before(manifest: ManifestFile, since: Micros) -> bool:
    """Say whether all days of the manifest's files are over by then."""
    (day, *_) = manifest.partitions or (None,)
    if day is None or day.upper_bound is None:
        return False
    return int.from_bytes(day.upper_bound, "little", signed=True) < since // _DAY


def _listed(io: FileIO, manifest: ManifestFile, received: int) -> Iterator[_File]:
    for entry in manifest.fetch_manifest_entry(io, discard_deleted=True):
        file = entry.data_file
        if file.content != DataFileContent.DATA:
            continue
        bound = (file.upper_bounds or {}).get(received)
        upto = _FOR_EVER if bound is None else int.from_bytes(bound, "little", signed=True)
        yield _File(file.file_path, upto, file.record_count)


def _hashes_in(io: FileIO, file: _File, seed: int) -> pa.Array:
    """Answer the hashes of a file's ids."""
    with io.new_input(file.path).open() as stream:
        parquet = pq.ParquetFile(stream, page_checksum_verification=True)
        batches = parquet.iter_batches(columns=["event_id"], use_threads=False)
        found = [hashes_of(batch.column(0), seed) for batch in batches]
    return pa.concat_arrays(found) if found else pa.array([], pa.int64())


def _earlier(io: FileIO, files: Iterable[_File], ids: pa.Array, since: Micros) -> pa.Table:
    """Answer what has to be compared of the files' rows with these ids, the newest files first."""
    found = [CANDIDATE.empty_table()]
    rows = size = 0
    for file in sorted(files, key=attrgetter("upto"), reverse=True):
        if rows >= _MOST_ROWS or size >= _MOST_BYTES:
            log.warning("an id is used by so many events that not all of them are compared")
            break
        with _reading():
            part = pa.concat_tables([CANDIDATE.empty_table(), *_with_ids(io, file, ids, since)])
        rows, size = rows + part.num_rows, size + part.nbytes
        found.append(part)
    return pa.concat_tables(found)


def _with_ids(io: FileIO, file: _File, ids: pa.Array, since: Micros) -> Iterator[pa.Table]:
    with io.new_input(file.path).open() as stream:
        parquet = pq.ParquetFile(stream, page_checksum_verification=True)
        for group in range(parquet.num_row_groups):
            there = pc.is_in(parquet.read_row_group(group, ["event_id"])["event_id"], ids)
            if pc.any(there).as_py():
                rows = candidates_of(parquet.read_row_group(group, _COMPARED).filter(there))
                yield rows.filter(pc.greater_equal(rows["received_at"], since))


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise EngineUnavailable("the tables cannot be read now") from error
