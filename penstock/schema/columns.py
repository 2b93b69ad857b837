"""The columns that events get in landing: `data` from their texts, and `misfits`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pyarrow as pa
from pyarrow import json

from penstock.schema.gate import NOT_READ
from penstock.schema.rows import MISFITS, arrow_type, arrow_type_by_key
from penstock.schema.shape import Struct

PIECE_BYTES = 16 << 20
"""Text that is parsed at once: what the reader builds meanwhile takes a multiple of it."""

_LEAVES_IN_PYTHON = 65_536
"""Misfits that wait as Python objects, which take some ten times the room they have in Arrow."""

_REFUSALS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowCapacityError)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Full(Exception):
    """The texts have more cells than they may; the first `rows` of them (at least 1) have not."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows


def parse(
    texts: pa.Array,
    shape: Struct,
    *,
    strict: bool,
    piece_bytes: int = PIECE_BYTES,
    most_cells: int | None = None,
) -> tuple[pa.ChunkedArray, list[int]]:
    """Answer the column `data`, a struct for each text, and the rows that could not be parsed.

    Each text is one JSON object that fits the shape (which has a column) entirely. Fields without
    a column are left out unless `strict`. No text should be refused; one that is has only nulls.
    Raises `Full` as soon as several texts have made more than `most_cells`; beyond that nothing
    is built but what `piece_bytes` of text make.
    """
    refused: list[int] = []
    pieces: list[pa.StructArray] = []
    rows = cells = 0
    for piece in _pieces(texts, 0, _Reader(shape, strict=strict), refused, piece_bytes):
        cells += count_cells(piece)
        if most_cells is not None and cells > most_cells and len(texts) > 1:
            raise Full(rows or max(1, len(piece) // 2))
        pieces.append(piece)
        rows += len(piece)
    return pa.chunked_array(pieces, arrow_type(shape)), refused


def count_cells(values: pa.Array | pa.ChunkedArray) -> int:
    """Answer how many values of leaf columns there are, nulls included: each takes memory."""
    if isinstance(values, pa.ChunkedArray):
        return sum(count_cells(chunk) for chunk in values.chunks)
    if pa.types.is_list(values.type):
        return count_cells(values.flatten())
    if pa.types.is_struct(values.type):
        return sum(count_cells(values.field(place)) for place in range(values.type.num_fields))
    return len(values)


class _Reader:
    """pyarrow's JSON reader for the texts of one shape."""

    def __init__(self, shape: Struct, *, strict: bool) -> None:
        self._type = arrow_type(shape)
        self._fields = list(arrow_type_by_key(shape))
        self._options = json.ParseOptions(
            explicit_schema=pa.schema(self._fields),
            unexpected_field_behavior="error" if strict else "ignore",
        )

    def read(self, texts: pa.Array) -> pa.StructArray:
        """Parse the texts; raises one of `_REFUSALS` if one of them cannot be parsed."""
        text = _text(texts)
        table = json.read_json(
            pa.BufferReader(text),
            # In one block an object ends with its brace. Parted in blocks it would end with its
            # line, and an event that was sent on several lines would be torn.
            json.ReadOptions(use_threads=False, block_size=text.size + 1),
            self._options,
        )
        if table.num_rows != len(texts):
            raise pa.ArrowInvalid(f"{len(texts)} texts made {table.num_rows} rows")
        columns = [column.combine_chunks() for column in table.columns]
        # The same memory, with fields named by columns instead of keys.
        return pa.StructArray.from_arrays(columns, fields=self._fields).view(self._type)


def _pieces(
    texts: pa.Array, first: int, reader: _Reader, refused: list[int], most: int
) -> Iterator[pa.StructArray]:
    if len(texts) == 0:
        return
    piece = _parsed(texts, reader) if _text(texts).size <= most or len(texts) == 1 else None
    if piece is not None:
        yield piece
    elif len(texts) == 1:
        refused.append(first)
        yield reader.read(pa.array([b"{}"]))
    else:
        middle = len(texts) // 2
        yield from _pieces(texts[:middle], first, reader, refused, most)
        yield from _pieces(texts[middle:], first + middle, reader, refused, most)


def _parsed(texts: pa.Array, reader: _Reader) -> pa.StructArray | None:
    try:
        return reader.read(texts)
    except _REFUSALS:
        pass
    # The reader refuses duplicate keys and some spellings of numbers. Written anew by the parser
    # that let them pass, each key is there once and each number in its plainest form.
    try:
        again = [_encode(_decode(text)) for text in texts.to_pylist()]
        return reader.read(pa.array(again, pa.binary()))
    except (*_REFUSALS, *NOT_READ):
        return None


def _text(texts: pa.Array) -> pa.Buffer:
    """Answer the bytes of all texts, one behind the other, without copying them."""
    _, offsets, data = texts.buffers()
    ends = memoryview(offsets).cast("i")
    start, end = ends[texts.offset], ends[texts.offset + len(texts)]
    return data.slice(start, end - start)


class MisfitColumn:
    """Gathers the column `misfits`."""

    def __init__(self) -> None:
        self._entries: dict[int, int] = {}
        self._ends = [0]
        self._paths: list[str] = []
        self._values: list[str] = []
        self._gathered: list[pa.StructArray] = []

    def put(self, row: int, misfits: Sequence[tuple[str, str]]) -> None:
        """Give a row its misfits; what it was given before is forgotten."""
        if not misfits:
            return
        self._entries[row] = len(self._ends) - 1
        self._ends.append(self._ends[-1] + len(misfits))
        for path, value in misfits:
            self._paths.append(path)
            self._values.append(value)
        if len(self._paths) > _LEAVES_IN_PYTHON:
            self._gather()

    def column(self, count: int) -> pa.Array:
        """Answer the column of `count` rows, null where a row was given nothing."""
        if not self._entries:
            return pa.nulls(count, MISFITS)
        self._gather()
        ends = pa.array(self._ends, pa.int32())
        entries = pa.ListArray.from_arrays(ends, pa.concat_arrays(self._gathered), type=MISFITS)
        return entries.take(pa.array([self._entries.get(row) for row in range(count)], pa.int32()))

    def _gather(self) -> None:
        columns = [pa.array(self._paths, pa.string()), pa.array(self._values, pa.string())]
        fields = list(MISFITS.value_type)
        self._gathered.append(pa.StructArray.from_arrays(columns, fields=fields))
        self._paths, self._values = [], []
