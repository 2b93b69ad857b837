"""Which events repeat others: the decision, on Arrow columns. Pure.

A sender that got no answer sends again. An event whose sender gave its id repeats an earlier one
that has the same id and the same bytes, and was received no longer than a window before it. One
with that id and other bytes is no repetition: somebody used an id twice, and both are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from penstock.codec import TIME
from penstock.envelope import Micros

REUSED_ID = ("penstock_id", "reused")
"""In the metadata of an event with the id of an earlier one, and other bytes."""

_CE_SOURCE = "ce_source"
"""Where the door keeps the source of a CloudEvent: ids of two sources have nothing in common."""

CANDIDATE = pa.schema(
    [
        pa.field("event_id", pa.string()),
        pa.field("ce_source", pa.string()),
        pa.field("payload", pa.binary()),
        pa.field("received_at", pa.int64()),
    ]
)
"""What is compared."""

# So many ids are padded to the length of the longest one at a time.
_PIECE = 4_096
_WORD = 8
# 2^64 divided by the golden ratio, as a signed number; products wrap around.
_SPREAD = 0x9E37_79B9_7F4A_7C15 - (1 << 64)
_SHIFT = 29


class Judged(NamedTuple):
    """The rows that repeat another one, and those that have the id of one but other bytes."""

    repeats: list[int]
    reused: list[int]


@dataclass(frozen=True, slots=True)
class Marked:
    """Rows as they are kept, and how many of them repeat others or use an id again."""

    rows: pa.Table
    repeats: int = 0
    reused: int = 0
    window: Micros | None = None
    """How far back was looked, where that is less than was asked for."""


def hashes_of(ids: pa.Array, seed: int) -> pa.Array:
    """Answer a number of 64 bits for each id; equal ids have equal ones.

    Who does not know the seed cannot look for ids that collide.
    """
    if not len(ids):
        return pa.array([], pa.int64())
    return pa.concat_arrays(
        [_hashes(ids.slice(at, _PIECE), seed) for at in range(0, len(ids), _PIECE)]
    )


def _hashes(ids: pa.Array, seed: int) -> pa.Array:
    lengths = pc.binary_length(ids)
    shortest, longest = pc.min_max(lengths).as_py().values()
    words = max(1, -(-longest // _WORD))
    padded = pc.ascii_rpad(ids, width=words * _WORD, padding="\0")
    flat = pa.Array.from_buffers(pa.int64(), len(ids) * words, [None, padded.buffers()[2]])
    parts = pa.FixedSizeListArray.from_arrays(flat, words)
    spread = pa.scalar(_SPREAD, pa.int64())
    found = pc.bit_wise_xor(lengths.cast(pa.int64()), pa.scalar(seed, pa.int64()))
    for word in range(words):
        mixed = pc.multiply(pc.bit_wise_xor(found, pc.list_element(parts, word)), spread)
        mixed = pc.bit_wise_xor(mixed, pc.shift_right(mixed, _SHIFT))
        # What an id is padded with depends on its neighbours.
        reached = word * _WORD
        found = (
            mixed if shortest > reached else pc.if_else(pc.greater(lengths, reached), mixed, found)
        )
    return found


def named_in(rows: pa.Table, batch: pa.RecordBatch) -> pa.Array | None:
    """Say of each of the rows whether its sender gave its id; None where no sender gave any.

    The rows come from the batch, which is as a log answers it.
    """
    named = batch.column("named")
    count = pc.sum(named).as_py() or 0
    if count == 0:
        return None
    if count == len(named):
        return pa.repeat(pa.scalar(value=True), rows.num_rows)
    if rows.num_rows == batch.num_rows:
        return named
    asked = batch.select(["log_partition", "log_offset"]).filter(named)
    partitions, offsets = rows["log_partition"], rows["log_offset"]
    found: pa.ChunkedArray | None = None
    for partition in pc.unique(asked.column("log_partition")).to_pylist():
        of_it = asked.filter(pc.equal(asked.column("log_partition"), partition))
        here = pc.and_(
            pc.equal(partitions, partition), pc.is_in(offsets, of_it.column("log_offset"))
        )
        found = here if found is None else pc.or_(found, here)
    assert found is not None  # noqa: S101 - some are named
    return _one(found)


def candidates_of(rows: pa.Table) -> pa.Table:
    """Answer what has to be compared of rows of the envelope."""
    return pa.Table.from_arrays(
        [
            rows["event_id"],
            pc.map_lookup(rows["metadata"], _CE_SOURCE, "first"),
            rows["payload"],
            rows["received_at"].cast(TIME).cast(pa.int64()),
        ],
        schema=CANDIDATE,
    )


def judge(candidates: pa.Table, asking: Sequence[bool], window: Micros) -> Judged:
    """Judge the rows that ask, each against all rows before it.

    `candidates` have the columns of `CANDIDATE`. A row that was received more than `window`
    before another one does not count for that.
    """
    ids = _codes(candidates["event_id"])
    sources = _codes(candidates["ce_source"])
    payloads = _codes(candidates["payload"])
    received = candidates["received_at"].to_pylist()
    same: dict[tuple[int, int, int], Micros] = {}
    others: dict[tuple[int, int], Micros] = {}
    judged = Judged([], [])
    for row, asks in enumerate(asking):
        identity = (ids[row], sources[row])
        exactly = (*identity, payloads[row])
        now = received[row]
        last, any_ = same.get(exactly), others.get(identity)
        if asks and last is not None and last >= now - window:
            judged.repeats.append(row)
        elif asks and any_ is not None and any_ >= now - window:
            judged.reused.append(row)
        same[exactly] = now if last is None else max(last, now)
        others[identity] = now if any_ is None else max(any_, now)
    return judged


def mark(rows: pa.Table, judged: Judged) -> pa.Table:
    """Answer the rows with what was found of them: `duplicate_of`, and a note on ids used again."""
    if judged.repeats:
        position = rows.schema.get_field_index("duplicate_of")
        repeated = _mask(judged.repeats, rows.num_rows)
        ids = pc.if_else(repeated, rows["event_id"], pa.scalar(None, pa.string()))
        rows = rows.set_column(position, rows.schema.field(position), ids)
    if judged.reused:
        position = rows.schema.get_field_index("metadata")
        metadata = _one(rows.column(position))
        noted = metadata.take(pa.array(judged.reused, pa.int64())).to_pylist()
        notes = pa.array([[*(pairs or ()), REUSED_ID] for pairs in noted], metadata.type)
        places = list(range(rows.num_rows))
        for number, row in enumerate(judged.reused):
            places[row] = rows.num_rows + number
        both = pa.concat_arrays([metadata, notes]).take(pa.array(places, pa.int64()))
        rows = rows.set_column(position, rows.schema.field(position), both)
    return rows


def _codes(column: pa.ChunkedArray) -> list[int]:
    """Answer a number for each value; equal values, nulls too, have the same."""
    encoded = _one(column).dictionary_encode(null_encoding="encode")
    codes: list[int] = encoded.indices.to_pylist()
    return codes


def _mask(rows: Iterable[int], count: int) -> pa.Array:
    return pc.is_in(pa.array(range(count), pa.int64()), pa.array(rows, pa.int64()))


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Answer the column in one piece."""
    if isinstance(column, pa.Array):
        return column
    chunks = column.chunks
    return (
        chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks or [pa.array([], column.type)])
    )
