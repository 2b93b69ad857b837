"""The cut: which events an answer is about, and where each of them is read. No engine.

The order of the reads is the point. Log before lake doubled events in half of all interleavings,
lake before log missed some in a sixth of them, and a snapshot and marks from two loads missed
some in half. This order had no fault:

1. After the request arrived, read where the log ends: E.
2. One load of the table gives the snapshot S and the marks M. Of S the rows before E count.
3. Read the log from M to E. If the log begins behind M by now, go back to 2.

For the quarantine its table is loaded after the main one: landing brings events to quarantine
first and moves main's marks last, so that everything before M is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import structlog

from lakehouse import Lake, TableView
from lakehouse.duplicates import Duplicates
from penstock.buffer import Buffer
from penstock.envelope import CollectionId, Mark
from penstock.errors import EngineUnavailable, LogTruncated, TableRolledBack
from penstock.query.pieces import ALWAYS, Sql, any_of, sql, value
from penstock.schema.shape import EMPTY
from penstock.search import View
from penstock.search.tail import Piece, Tails

log = structlog.get_logger()

# The log is kept for 15 minutes behind the marks, so that a second try succeeds.
_TRIES = 5

_MARKED_BY = ["event_id", "received_at", "metadata", "payload", "duplicate_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where the events of an answer are: rows of `table` before `ends`, and the tail.

    `table` is None where nothing has landed. `asked` are the ends that were to be reached. Of the
    quarantine, `closed` says which positions were released or discarded; None where none were.
    """

    log_id: str
    table: TableView | None
    tail: tuple[Piece, ...]
    ends: Mapping[int, int]
    asked: Mapping[int, int]
    closed: TableView | None = None

    @property
    def unsearched(self) -> int:
        """How many positions lie behind `ends`, because there is no room for them."""
        return sum(self.asked[partition] - end for partition, end in self.ends.items())

    def landed(self) -> Sql:
        """Answer the condition for rows of the table that lie before the cut."""
        if self.table is None:
            return ALWAYS
        marks = {m.partition: m.next for m in self.table.marks if m.log_id == self.log_id}
        if all(following <= self.ends.get(p, 0) for p, following in marks.items()):
            return ALWAYS
        before = any_of(
            *(
                sql("(log_partition = {0} AND log_offset < {1})", value(p), value(end))
                for p, end in sorted(self.ends.items())
            )
        )
        return any_of(sql("log_id <> {0}", value(self.log_id)), before)


class Cuts:
    """Takes cuts through log and lake. Threads may share it."""

    def __init__(
        self, lake: Lake, buffer: Buffer, tails: Tails, duplicates: Duplicates | None = None
    ) -> None:
        self._lake = lake
        self._buffer = buffer
        self._tails = tails
        self._duplicates = duplicates or Duplicates()

    def take(
        self, collection: CollectionId, view: View, ends: Mapping[int, int] | None = None
    ) -> Cut:
        """Cut at `ends`, or at the ends that the log has now."""
        if ends is None:
            extents = self._buffer.extents(collection)
            ends = {partition: extent.end for partition, extent in extents.items()}
        for _ in range(_TRIES):
            table, marks = self._load(collection, view, ends)
            shape = table.shape if table and view == "main" else EMPTY
            try:
                tail = self._tails.read(collection, marks, ends, shape)
            except LogTruncated as error:
                log.info("the log was trimmed beside a search", reason=str(error))
                continue
            return Cut(
                log_id=self._buffer.log_id(collection),
                table=table,
                tail=self._marked(table, tail.pieces) if view == "main" else tail.pieces,
                ends=tail.ends,
                asked=ends,
                closed=self._lake.closed_view(collection) if view == "quarantine" else None,
            )
        raise EngineUnavailable(f"the log of {collection} is trimmed faster than it can be read")

    def main(self, collection: CollectionId) -> TableView | None:
        """Answer the collection's main table as it is now, None where nothing has landed."""
        return self._lake.view(collection)

    def _marked(self, table: TableView | None, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Mark what repeats others among the pieces and in the table, as landing will."""
        named = [piece.named for piece in pieces if piece.named.true_count]
        if not named:
            return pieces
        rows = pa.concat_tables([piece.rows.select(_MARKED_BY) for piece in pieces])
        all_named = pa.concat_arrays([piece.named for piece in pieces])
        loaded = self._lake.at(table) if table is not None else None
        marked = self._duplicates.marked(loaded, rows, all_named)
        if marked.rows is rows:
            return pieces
        found, start = [], 0
        for piece in pieces:
            mine = marked.rows.slice(start, piece.rows.num_rows)
            start += piece.rows.num_rows
            shown = piece.rows
            for name in ("duplicate_of", "metadata"):
                place = shown.schema.get_field_index(name)
                shown = shown.set_column(place, shown.schema.field(place), mine[name])
            found.append(replace(piece, rows=shown))
        return tuple(found)

    def _load(
        self, collection: CollectionId, view: View, ends: Mapping[int, int]
    ) -> tuple[TableView | None, list[Mark]]:
        """Answer the table, and where the log goes on after it in each partition."""
        log_id = self._buffer.log_id(collection)
        main = self._lake.view(collection)
        _refuse_rolled_back(main)
        marks = [main.mark(log_id, p) if main else Mark(log_id, p, 0, "") for p in sorted(ends)]
        if view == "main":
            return main, marks
        quarantine = self._lake.quarantine_view(collection)
        _refuse_rolled_back(quarantine)
        if quarantine is None:
            return None, marks
        # After a landing that broke off, quarantine is ahead of the main table.
        ahead = [quarantine.mark(log_id, mark.partition) for mark in marks]
        return quarantine, [
            max(pair, key=lambda mark: mark.next) for pair in zip(marks, ahead, strict=True)
        ]


def _refuse_rolled_back(view: TableView | None) -> None:
    if view is not None and view.rolled_back:
        raise TableRolledBack(
            f"the table of {view.collection} was rolled back: its marks say that events landed "
            "which it no longer has"
        )
