"""Files that replays write: segments in a folder for each replay, put together when they are read.

A sender appends lines (`penstock.lines`) to a segment of its own, and says that an event is
delivered when its line is synced. The one that goes on after it was killed begins another segment,
and repeats what the books do not have. So a segment is sorted by the place of events on the log and
may end in half a line; two segments may have the same event.

Whoever reads takes them all at once, in the order of the log, each event once. Nothing has to be
written when a replay ends, so nothing can be half written then.
"""

from __future__ import annotations

import heapq
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import msgspec
import pyarrow as pa
import structlog

from penstock.codec import ENVELOPE, TIME
from penstock.envelope import Micros, Position
from penstock.errors import NotFound
from penstock.lines import Line, Place, bytes_of, micros_of, payload_of, read_line

log = structlog.get_logger()

Format = Literal["ndjson", "parquet"]
"""What somebody gets: lines, or columns of the same."""

SCHEMA = pa.schema([field for field in ENVELOPE if field.name != "log_id"])
"""The columns of a Parquet file."""

_ROWS = 5_000
_ROWS_BYTES = 32 << 20
_ABOUT = "about.json"
_SEGMENT = "*.segment"
_ID = re.compile(r"[0-9a-z]{1,64}")
_DAY: Micros = 86_400_000_000

_places = msgspec.json.Decoder(Place)


class About(msgspec.Struct, frozen=True):
    """What has to be known of a replay's file beside its segments."""

    team: str
    name: str
    format: Format


class Written(NamedTuple):
    """A file that a replay wrote, or writes."""

    folder: Path
    about: About
    bytes: int
    """Of all segments: what is in two of them counts twice."""

    def name(self, replay_id: str) -> str:
        """Name the file for who takes it away."""
        return f"{self.about.name}-{replay_id}.{self.about.format}"


def folder_of(files: Path, replay_id: str) -> Path:
    """Answer where a replay's segments are: below `files`, whatever the id says."""
    if not _ID.fullmatch(replay_id):
        raise NotFound("file of the replay", replay_id)
    return files / replay_id


def written(files: Path, replay_id: str) -> Written:
    """Answer what a replay wrote; raise `NotFound` where that is nothing, or gone."""
    folder = folder_of(files, replay_id)
    try:
        about = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.DecodeError):
        raise NotFound("file of the replay", replay_id) from None
    return Written(folder, about, sum(each.stat().st_size for each in folder.glob(_SEGMENT)))


class Segments:
    """The segments of one replay, of which a sender appends to one that nobody else has."""

    def __init__(self, folder: Path, about: About) -> None:
        self._folder = folder
        self._about = about
        # Who waits for a thread may be cancelled, and the thread goes on.
        self._guard = threading.Lock()
        self._file: int | None = None
        self._size = 0
        self._last: Position | None = None

    def append(self, lines: Mapping[Position, bytes]) -> None:
        """Have the lines on disk, synced; raise `OSError` where they are not."""
        with self._guard:
            self._append(lines)

    def _append(self, lines: Mapping[Position, bytes]) -> None:
        places = sorted(lines)
        # What belongs before what is there already would not be sorted.
        if self._file is not None and self._last is not None and places[0] <= self._last:
            self._let_go()
        if self._file is None:
            self._file, self._size = self._open(), 0
        content = b"".join([lines[place] for place in places])
        try:
            _write(self._file, content)
            os.fsync(self._file)
        except OSError:
            self._take_back()
            raise
        self._size += len(content)
        self._last = places[-1]

    def _open(self) -> int:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for above in (self._folder.parent, self._folder.parent.parent):
                _sync_folder(above)
        about = self._folder / _ABOUT
        if not about.exists():
            _put(about, msgspec.json.encode(self._about))
        numbers = [int(each.stem) for each in self._folder.glob(_SEGMENT)]
        file = self._folder / f"{max(numbers, default=0) + 1:06}.segment"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        opened = os.open(file, flags, 0o600)
        _sync_folder(self._folder)
        return opened

    def _take_back(self) -> None:
        """Cut off what was not written whole; leave the segment where that fails, too."""
        assert self._file is not None  # noqa: S101 - only called while one is open
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._let_go()

    def close(self) -> None:
        """Let go of the segment, once what is being written is."""
        with self._guard:
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):
                os.close(file)


def lines_of(folder: Path) -> Iterator[bytes]:
    """Answer the lines of all segments in the order of the log, each event's once."""
    with ExitStack() as opened:
        segments = [
            _segment(opened.enter_context(file.open("rb")))
            for file in sorted(folder.glob(_SEGMENT))
        ]
        before: Position | None = None
        for place, line in heapq.merge(*segments, key=lambda pair: pair[0]):
            if place != before:
                yield line
            before = place


def batches_of(folder: Path) -> Iterator[pa.RecordBatch]:
    """Answer the same events as columns."""
    lines = lines_of(folder)
    while part := _part(lines):
        yield _columns([read_line(line) for line in part])


def sweep(
    files: Path, ended_at: Callable[[str, str], Micros | None], *, now: Micros, days: int
) -> list[str]:
    """Delete the files of replays that ended so many days ago; answer whose they were.

    `ended_at` answers when the replay of a team ended, None while it has not, and 0 for one that
    nobody knows any more.
    """
    gone = []
    for folder in sorted(files.glob("*/")):
        try:
            about = written(files, folder.name).about
        except NotFound:
            continue
        ended = ended_at(about.team, folder.name)
        if ended is not None and ended + days * _DAY <= now:
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder.name)
    if gone:
        log.info("files of replays deleted", replays=gone)
    return gone


def _segment(file: BinaryIO) -> Iterator[tuple[Position, bytes]]:
    """Answer the lines of a segment up to the first that is not whole, each with its place."""
    for line in file:
        if not line.endswith(b"\n"):
            return
        try:
            place = _places.decode(line)
        except msgspec.MsgspecError:
            return
        yield Position(place.partition, place.offset), line


def _part(lines: Iterator[bytes]) -> list[bytes]:
    """Answer the next lines, as many as may be in memory together."""
    part, size = [], 0
    for line in islice(lines, _ROWS):
        part.append(line)
        size += len(line)
        if size >= _ROWS_BYTES:
            break
    return part


def _columns(lines: Sequence[Line]) -> pa.RecordBatch:
    columns = {
        "event_id": [line.id for line in lines],
        "received_at": [micros_of(line.received_at) for line in lines],
        "event_time": [
            None if line.event_time is None else micros_of(line.event_time) for line in lines
        ],
        "source": [line.source for line in lines],
        "content_type": [line.content_type for line in lines],
        "key": [None if line.key is None else bytes_of(line.key) for line in lines],
        "headers": [
            [{"key": name, "value": bytes_of(value)} for name, value in line.headers] or None
            for line in lines
        ],
        "metadata": [list(line.metadata.items()) or None for line in lines],
        "payload": [payload_of(line) for line in lines],
        "log_partition": [line.partition for line in lines],
        "log_offset": [line.offset for line in lines],
    }
    arrays = [
        pa.array(columns[field.name], pa.int64()).cast(TIME)
        if field.type == TIME
        else pa.array(columns[field.name], field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _write(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def _put(file: Path, content: bytes) -> None:
    """Have a small file whole or not at all."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    with fresh.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
