"""The tail: events that were acknowledged and have not landed, as the rows they will become.

They pass landing's own conversion, so that they are found by the same conditions. What was
converted is kept from one search to the next, until the lake has it.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from penstock.buffer import Buffer, Portion
from penstock.envelope import CollectionId, Mark
from penstock.schema.convert import Converted, Rules, TooWide, convert
from penstock.schema.repeats import named_in
from penstock.schema.shape import Struct, count_columns

_READ_BYTES = 16 << 20

MOST_CELLS = 4_000_000
"""Values of discovered columns of one piece, nulls included: some 20 bytes of memory each while
it is made. 16 MB of small events with 1,000 different fields would make 30 GB."""

# Each search adds a piece; scanning hundreds of small ones costs more than joining them.
_MOST_PIECES = 32


@dataclass(frozen=True, slots=True)
class Piece:
    """A span of one partition, converted."""

    partition: int
    start: int
    end: int
    rows: pa.Table
    quarantined: pa.Table
    shape: Struct
    named: pa.Array
    """Of each row whether its sender gave its id."""

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        size: int = self.rows.nbytes + self.quarantined.nbytes
        return size

    def between(self, start: int, end: int) -> Piece:
        """Answer the part of it from offset `start` up to `end`."""
        return Piece(
            self.partition,
            max(start, self.start),
            min(end, self.end),
            _between(self.rows, start, end),
            _between(self.quarantined, start, end),
            self.shape,
            self.named.slice(*_place(self.rows, start, end)),
        )


@dataclass(frozen=True, slots=True)
class Tail:
    """What was asked for of a collection's log, without a gap, or as much of it as there is room.

    `ends` says by partition how far it goes.
    """

    pieces: tuple[Piece, ...]
    ends: Mapping[int, int]


@dataclass(slots=True)
class _Part:
    """What is kept of one partition: pieces without a gap, up to a mark."""

    mark: Mark
    rules: Rules | None
    """By which they are converted: another contract makes other rows of the same events."""
    pieces: list[Piece] = field(default_factory=list)
    fitting: int = sys.maxsize
    """How many rows like the last ones a piece can take."""

    @property
    def start(self) -> int:
        return self.pieces[0].start if self.pieces else self.mark.next


@dataclass(slots=True)
class _Kept:
    """What is kept of one collection, by partition. Whoever looks at it holds `guard`."""

    parts: dict[int, _Part] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)
    size: int = 0


class Tails:
    """The tails of all collections. Threads may share it."""

    def __init__(
        self,
        buffer: Buffer,
        rules: Callable[[CollectionId], Rules],
        *,
        most_bytes: int = 256 << 20,
        most_cells: int = MOST_CELLS,
    ) -> None:
        """Keep `most_bytes` of converted events at most, and answer no more at once.

        What goes beyond that is one piece of `most_cells` values, or one event.
        """
        self._buffer = buffer
        self._rules = rules
        self._most_bytes = most_bytes
        self._most_cells = most_cells
        self._kept: OrderedDict[CollectionId, _Kept] = OrderedDict()
        self._guard = threading.Lock()

    def read(
        self,
        collection: CollectionId,
        marks: Sequence[Mark],
        ends: Mapping[int, int],
        shape: Struct,
    ) -> Tail:
        """Answer the events from the marks up to `ends`; `shape` is what the lake has.

        Raises as `Buffer.read` does.
        """
        kept = self._of(collection)
        # Where nothing waits nobody needs to know them.
        waits = any(mark.next < ends[mark.partition] for mark in marks)
        rules = self._rules(collection) if waits else None
        with kept.guard:
            found: list[Piece] = []
            reached = {}
            for mark in marks:
                part = self._from(mark, kept, rules)
                end = ends[mark.partition]
                self._extend(collection, kept, part, end, shape)
                reached[mark.partition] = min(end, part.mark.next)
                found += (piece.between(mark.next, end) for piece in part.pieces)
            kept.size = sum(piece.size for part in kept.parts.values() for piece in part.pieces)
        self._forget_others(collection)
        return Tail(tuple(found), reached)

    def _of(self, collection: CollectionId) -> _Kept:
        with self._guard:
            kept = self._kept.setdefault(collection, _Kept())
            self._kept.move_to_end(collection)
            return kept

    def _from(self, mark: Mark, kept: _Kept, rules: Rules | None) -> _Part:
        """Answer what is kept behind a mark, after letting go of what lies before it."""
        part = kept.parts.get(mark.partition)
        if (
            part is None
            or part.mark.log_id != mark.log_id
            or rules not in (None, part.rules)
            or not part.start <= mark.next <= part.mark.next
        ):
            part = kept.parts[mark.partition] = _Part(mark, rules)
        part.pieces = [piece for piece in part.pieces if piece.end > mark.next]
        return part

    def _extend(
        self, collection: CollectionId, kept: _Kept, part: _Part, end: int, shape: Struct
    ) -> None:
        size = sum(piece.size for each in kept.parts.values() for piece in each.pieces)
        while part.rules and part.mark.next < end and size < self._most_bytes:
            # The shape so far, so that pieces are of one shape as long as nothing new comes.
            known = part.pieces[-1].shape if part.pieces else shape
            most = self._most_cells
            rows = max(1, min(part.fitting, most // max(1, count_columns(known))))
            upto = min(end, part.mark.next + rows)
            portion = self._buffer.read(collection, part.mark, end=upto, max_bytes=_READ_BYTES)
            if portion.mark.next == part.mark.next:
                break
            try:
                converted = convert(portion.rows, known, part.rules, most_cells=most)
            except TooWide as wide:
                part.fitting = wide.rows
                continue
            # The next rows are like these, a little wider perhaps.
            part.fitting = 7 * portion.rows.num_rows * most // (8 * max(1, converted.cells))
            part.pieces.append(_piece(part.mark, portion, converted))
            part.mark = portion.mark
            size += part.pieces[-1].size
        if len(part.pieces) > _MOST_PIECES:
            part.pieces = list(_fewer(part.pieces))

    def _forget_others(self, collection: CollectionId) -> None:
        """Let go of the tails that nobody asked for the longest, while all take too much."""
        with self._guard:
            size = sum(kept.size for kept in self._kept.values())
            for name in [name for name in self._kept if name != collection]:
                if size <= self._most_bytes:
                    break
                size -= self._kept.pop(name).size


def _piece(start: Mark, portion: Portion, converted: Converted) -> Piece:
    named = named_in(converted.rows, portion.rows)
    if named is None:
        named = pa.repeat(pa.scalar(value=False), converted.rows.num_rows)
    return Piece(
        start.partition,
        start.next,
        portion.mark.next,
        converted.rows,
        converted.quarantined,
        converted.shape,
        named,
    )


def _fewer(pieces: list[Piece]) -> Iterator[Piece]:
    """Join neighbours of one shape."""
    for shape, neighbours in groupby(pieces, lambda piece: piece.shape):
        same = list(neighbours)
        yield Piece(
            same[0].partition,
            same[0].start,
            same[-1].end,
            pa.concat_tables([piece.rows for piece in same]).combine_chunks(),
            pa.concat_tables([piece.quarantined for piece in same]).combine_chunks(),
            shape,
            pa.concat_arrays([piece.named for piece in same]),
        )


def _between(rows: pa.Table, start: int, end: int) -> pa.Table:
    """Answer the rows with offsets from `start` up to `end`; the offsets of a piece rise."""
    return rows.slice(*_place(rows, start, end))


def _place(rows: pa.Table, start: int, end: int) -> tuple[int, int]:
    """Answer how many rows come before them, and how many they are."""
    offsets = rows.column("log_offset")
    skipped = pc.sum(pc.less(offsets, start)).as_py() or 0
    kept = pc.sum(pc.less(offsets, end)).as_py() or 0
    return skipped, max(0, kept - skipped)
