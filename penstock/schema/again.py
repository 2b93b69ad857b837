"""Payloads of rows to columns once more: the shape of a whole table, and rows of a given shape.

Landing converts a batch and lets the shape grow by it. Here the rows are there already: first the
shape of all of them is found, as if they were one batch, then each is converted for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Raw

from penstock.codec import LOG_SCHEMA
from penstock.schema.check import NO_BLANKS, failing, top_of
from penstock.schema.convert import MOST_TEXT, Rules, TooWide, convert, room_of
from penstock.schema.discover import Discovery, Seen, blanks, extends, widen
from penstock.schema.fit import Misfits
from penstock.schema.formats import Decoded, Decoder, TooMuchText
from penstock.schema.gate import Refused, read, value_of
from penstock.schema.shape import EMPTY, Struct, count_columns, count_repeated

CELLS = 16_000_000
"""Values of columns, nulls included, that are built at once."""

# As a batch: few at first, so that what they teach helps with the others.
_FIRST_BLOCK, _BLOCK = 256, 8_192
_NOTES = 20_000

Payloads = Callable[[], Iterable[pa.Array]]
"""Reads all payloads in order, as often as it is called."""


def discovered(payloads: Payloads, shape: Struct, rules: Rules) -> Struct:
    """Answer the shape with all that these payloads add to it, as if they were one batch.

    Where a collection takes no new columns the shape stays. Reads the payloads once, and once
    more where the first of them had led to guesses that the others belie, or where a decoder
    knows types that values do not show.
    """
    if rules.contract != "evolve":
        return shape
    if rules.decoder is not None:
        for decoded in _decoded(payloads(), rules.decoder):
            if decoded.seen is not None:
                shape = _widened(shape, decoded.seen, rules)
    found = _found(payloads(), shape, rules, guessing=True)
    if found is None:
        found = _found(payloads(), shape, rules, guessing=False)
    assert found is not None  # noqa: S101 - without guesses there are none to be belied
    return found


def _found(
    payloads: Iterable[pa.Array], shape: Struct, rules: Rules, *, guessing: bool
) -> Struct | None:
    """Answer the wider shape; None if an object was let pass by a guess that was wrong.

    An object that fits the guess is not looked at in Python. It holds nothing new, and would only
    have confirmed the guess, so what is not counted does no harm as long as the guess stays.
    """
    discovery = Discovery(
        top_of(shape),
        most=max(_NOTES, 4 * rules.max_columns),
        counting=count_columns(shape) < rules.max_columns,
    )
    expected, blank, row = shape, NO_BLANKS, 0
    for block in _texts(payloads, rules):
        texts = [b"{}" if _too_wide(text, expected, rules) else text for text in block.to_pylist()]
        positions = failing(texts, top_of(expected, blank))
        for position in positions:
            document = _object(texts[position], rules)
            if document is not None:
                discovery.look(document, row + position)
        row += len(texts)
        if not positions:
            continue
        if guessing:
            wider = _widened(shape, discovery.seen, rules)
            if not extends(wider, expected):
                return None
            expected = wider
        blank = blanks(expected, discovery.seen)
    return _widened(shape, discovery.seen, rules)


def _widened(shape: Struct, seen: Seen, rules: Rules) -> Struct:
    wider, _ = widen(shape, seen, max_columns=rules.max_columns, max_depth=rules.max_column_depth)
    return wider


def _texts(payloads: Iterable[pa.Array], rules: Rules) -> Iterator[pa.Array]:
    if rules.decoder is None:
        yield from _blocks(payloads)
    else:
        yield from (decoded.texts for decoded in _decoded(payloads, rules.decoder))


def _decoded(payloads: Iterable[pa.Array], decoder: Decoder) -> Iterator[Decoded]:
    """Answer what becomes of the payloads, in order and in parts."""
    for block in _blocks(payloads):
        waiting = [block]
        while waiting:
            part = waiting.pop()
            try:
                yield decoder.decode(part, most_text=MOST_TEXT)
            except TooMuchText as much:
                waiting += [part.slice(much.rows), part.slice(0, much.rows)]


def _blocks(payloads: Iterable[pa.Array]) -> Iterator[pa.Array]:
    size = _FIRST_BLOCK
    for piece in payloads:
        start = 0
        while start < len(piece):
            yield piece.slice(start, size)
            start, size = start + size, min(2 * size, _BLOCK)


def _too_wide(payload: bytes, shape: Struct, rules: Rules) -> bool:
    """Say whether the objects in the payload could take too many cells even to be checked."""
    repeated = count_repeated(shape)
    if 3 * rules.max_cells >= repeated * len(payload):
        return False
    return payload.count(b"{") * repeated > rules.max_cells


def _object(payload: bytes, rules: Rules) -> Raw | None:
    """Answer the text of the payload if it is a JSON object within the bounds."""
    try:
        text = read(payload, max_depth=rules.max_depth, max_keys=rules.max_keys)
    except Refused:
        return None
    return Raw(text) if text[:1] == b"{" else None


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of some rows, for each of them, in their order.

    `data` is None for a shape without columns. The `refused` ones have no columns: landing would
    put such an event into quarantine, but a row stays where it is. It has its leaves as misfits if
    its payload is JSON, whatever the format of today, so that they are found, or only its payload.
    """

    data: pa.ChunkedArray | None
    misfits: pa.ChunkedArray
    refused: int

    def lost(self, rows: pa.RecordBatch) -> int:
        """Answer how many of the rows have columns or misfits, and would have none any more."""
        columns = "data" in rows.schema.names
        had = pc.is_valid(rows.column("data")) if columns else pa.repeat(False, rows.num_rows)
        bare = pa.repeat(True, rows.num_rows) if self.data is None else pc.is_null(self.data)
        empty = pc.and_(bare, pc.is_null(self.misfits))
        lost = pc.or_(pc.and_(had, bare), pc.and_(pc.is_valid(rows.column("misfits")), empty))
        return pc.sum(lost).as_py() or 0


def converted(
    rows: pa.RecordBatch, shape: Struct, rules: Rules, *, most_cells: int = CELLS
) -> Iterator[tuple[pa.RecordBatch, Made]]:
    """Answer the rows, in parts, each with what its payloads are in columns of just this shape.

    The rows have at least the columns of the envelope, and keep their places. A part has no more
    than about `most_cells` values.
    """
    if rules.contract != "drop_value":
        rules = replace(rules, contract="freeze")
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        if not part.num_rows:
            continue
        try:
            yield part, _made(part, shape, rules, most_cells)
        except TooWide as wide:
            first = max(1, min(wide.rows, part.num_rows - 1))
            waiting += [part.slice(first), part.slice(0, first)]


def _made(rows: pa.RecordBatch, shape: Struct, rules: Rules, most_cells: int) -> Made:
    count = rows.num_rows
    done = convert(_as_batch(rows), shape, rules, most_cells=most_cells)
    data = None if shape == EMPTY else done.rows["data"]
    misfits = done.rows["misfits"]
    refused = count - done.rows.num_rows
    if refused:
        # Where each of the rows is among those that were made, null where it is not.
        places: list[int | None] = [None] * count
        for place, row in enumerate(done.rows["log_offset"].to_pylist()):
            places[row] = place
        data = None if data is None else data.take(pa.array(places, pa.int64()))
        misfits = _with_leaves(misfits, places, rows.column("payload"), rules)
    return Made(data, misfits, refused)


def _with_leaves(
    made: pa.ChunkedArray, places: list[int | None], payloads: pa.Array, rules: Rules
) -> pa.ChunkedArray:
    """Answer the misfits of all rows: those that were made, else all leaves of the payload."""
    if rules.contract == "drop_value":
        return made.take(pa.array(places, pa.int64()))
    more: list[list[dict[str, str]] | None] = []
    taken: list[int] = []
    for row, place in enumerate(places):
        if place is not None:
            taken.append(place)
            continue
        taken.append(len(made) + len(more))
        leaves = _leaves_of(payloads[row].as_py(), rules)
        more.append([{"path": path, "value": text} for path, text in leaves] or None)
    both = pa.chunked_array([*made.chunks, pa.array(more, made.type)], made.type)
    return both.take(pa.array(taken, pa.int64()))


def _leaves_of(payload: bytes, rules: Rules) -> Sequence[tuple[str, str]]:
    """Answer the leaves of a payload as misfits, none if it is no JSON within the bounds."""
    misfits = Misfits(room_of(payload))
    try:
        misfits.add(
            value_of(read(payload, max_depth=rules.max_depth, max_keys=rules.max_keys)), None
        )
    except Refused:
        return ()
    return misfits.leaves


def _as_batch(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Answer the rows as a log has them, at offsets that say where they are among these."""
    given = {
        "log_offset": pa.array(range(rows.num_rows), pa.int64()),
        "quarantine_wish": pa.repeat(pa.scalar(value=False), rows.num_rows),
        "named": pa.repeat(pa.scalar(value=False), rows.num_rows),
    }
    columns = [given.get(field.name) for field in LOG_SCHEMA]
    return pa.RecordBatch.from_arrays(
        [
            _as(rows.column(field.name), field.type) if column is None else column
            for field, column in zip(LOG_SCHEMA, columns, strict=True)
        ],
        schema=LOG_SCHEMA,
    )


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values if values.type == kind else values.cast(kind)
