"""The events a replay matches, on one snapshot of one table: counted, and read in log order.

A sort of ten million payloads would spill gigabytes before the first event is sent. So they are
counted once by ranges of log offsets (`Bucket`), and read range by range (`Slice`), each small
enough to be sorted in memory. How many rows a slice holds is known before it is read, and a slice
that holds another number stops the replay: then the snapshot is not the one that was planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import TableView
from lakehouse.sql import Engine, Reader
from penstock.envelope import Micros, Position
from penstock.errors import TableChanged
from penstock.query import Query
from penstock.query.sql import Rows, Sql, all_of, any_of, compile_parts, compile_sql, sql, value
from penstock.schema.shape import Struct
from penstock.search.facts import with_facts, with_leaves
from replay.events import Events, events_of
from replay.request import View

WIDTH = 4096
"""Log offsets of one bucket."""

SLICE_ROWS = 50_000
SLICE_BYTES = 32 << 20
BATCH_ROWS = 2_000
"""Rows that are taken out of Arrow at once."""

_COLUMNS = (
    "log_partition, log_offset, event_id, received_at, event_time, source, content_type, key, "
    "headers, metadata, payload"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are matches: a query, a time range, and the cut through the log."""

    query: Query
    view: View
    since: Micros | None
    until: Micros | None
    log_id: str
    ends: Mapping[int, int]
    """By partition the offset from which on events were not there yet when the plan was made."""

    def cut(self) -> Sql:
        """Answer the condition on the envelope alone."""
        parts = [sql("log_id = {0}", value(self.log_id))]
        parts.append(
            any_of(
                *(
                    sql("(log_partition = {0} AND log_offset < {1})", value(p), value(end))
                    for p, end in sorted(self.ends.items())
                )
            )
        )
        if self.since is not None:
            parts.append(sql("received_at >= make_timestamptz({0})", value(self.since)))
        if self.until is not None:
            parts.append(sql("received_at < make_timestamptz({0})", value(self.until)))
        return all_of(*parts)

    @property
    def reads_payloads(self) -> bool:
        """Whether only payloads can tell what matches: in quarantine leaves have no columns."""
        return bool(self.query.facts) or (self.view == "quarantine" and self.query.reads_payload)

    def told(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Answer rows with the columns that only payloads can tell."""
        known = with_leaves(batch) if self.view == "quarantine" else batch
        return with_facts(known, self.query.facts)


class Bucket(NamedTuple):
    """What matches among `WIDTH` neighbouring offsets of one partition."""

    partition: int
    number: int
    events: int
    bytes: int
    first: int
    last: int
    earliest: Micros
    latest: Micros


class Slice(NamedTuple):
    """Offsets of one partition, both ends included, that are read together."""

    partition: int
    first: int
    last: int
    events: int
    bytes: int


def merged(buckets: Iterable[Bucket]) -> list[Bucket]:
    """Answer one bucket for each range, in log order: parts of one may come from several reads."""
    found: dict[tuple[int, int], Bucket] = {}
    for each in buckets:
        name = (each.partition, each.number)
        old = found.get(name)
        if old is not None:
            each = Bucket(  # noqa: PLW2901 - the sum takes its place
                each.partition,
                each.number,
                old.events + each.events,
                old.bytes + each.bytes,
                min(old.first, each.first),
                max(old.last, each.last),
                min(old.earliest, each.earliest),
                max(old.latest, each.latest),
            )
        found[name] = each
    return [found[name] for name in sorted(found)]


def slices(
    buckets: Iterable[Bucket], *, rows: int = SLICE_ROWS, size: int = SLICE_BYTES
) -> Iterator[Slice]:
    """Join neighbouring buckets of a partition while they hold no more than so many rows and bytes.

    A bucket that alone holds more is a slice of its own.
    """
    open_: Slice | None = None
    for each in buckets:
        grown = each.events + (open_.events if open_ else 0) <= rows
        grown = grown and each.bytes + (open_.bytes if open_ else 0) <= size
        if open_ is not None and grown and open_.partition == each.partition:
            open_ = Slice(
                open_.partition,
                open_.first,
                each.last,
                open_.events + each.events,
                open_.bytes + each.bytes,
            )
            continue
        if open_ is not None:
            yield open_
        open_ = Slice(each.partition, each.first, each.last, each.events, each.bytes)
    if open_ is not None:
        yield open_


def cut_up(lengths: Iterable[tuple[int, int]], partition: int, size: int) -> Iterator[Slice]:
    """Cut a slice of large events into smaller ones, given offsets and lengths in log order."""
    first = last = count = held = 0
    for offset, length in lengths:
        if count and held + length > size:
            yield Slice(partition, first, last, count, held)
            count = held = 0
        if not count:
            first = offset
        last, count, held = offset, count + 1, held + length
    if count:
        yield Slice(partition, first, last, count, held)


def behind(slice_: Slice, after: Position | None) -> bool:
    """Say whether all of the slice lies at or before a position."""
    return after is not None and (slice_.partition, slice_.last) <= after


class Matches:
    """The matches on one snapshot. `look` answers the table as it is now, to find its files by.

    Blocks; whoever has an event loop calls it in a thread.
    """

    def __init__(
        self,
        engine: Engine,
        look: Callable[[], TableView | None],
        selection: Selection,
        *,
        uuid: str,
        snapshot_id: int,
    ) -> None:
        self._engine = engine
        self._look = look
        self._selection = selection
        self._uuid = uuid
        self._snapshot_id = snapshot_id
        self._shape: tuple[str, Struct] | None = None

    def buckets(self) -> list[Bucket]:
        """Count the matches by ranges of offsets, in log order."""
        columns = (
            f"log_partition, log_offset // {WIDTH}, count(*), sum(octet_length(payload)), "
            "min(log_offset), max(log_offset), "
            "epoch_us(min(received_at)), epoch_us(max(received_at))"
        )
        rows = (
            row
            for table in self._select(columns, None, "GROUP BY 1, 2")
            for row in zip(*(column.to_pylist() for column in table.columns), strict=True)
        )
        return merged(Bucket(*(int(number) for number in row)) for row in rows)

    def batches(
        self, buckets: Iterable[Bucket], after: Position | None, *, size: int = SLICE_BYTES
    ) -> Iterator[Events]:
        """Answer the matches after a position, in log order, a few thousand at a time.

        They are read by slices of about `size` bytes of payload at most. Raises `TableChanged` if
        a slice does not hold what was counted.
        """
        for each in slices(buckets, size=size):
            for part in [each] if each.bytes <= size else self._cut_up(each, size):
                if not behind(part, after):
                    yield from self._read(part, after)

    def at(self, positions: Iterable[Position]) -> list[tuple[Position, str, Micros]]:
        """Answer id and time of receipt of the events at these positions, in log order."""
        places = any_of(
            *(
                sql("(log_partition = {0} AND log_offset = {1})", value(p), value(o))
                for p, o in positions
            )
        )
        found = [
            (Position(int(partition), int(offset)), str(event_id), int(received))
            for table in self._select(
                "log_partition, log_offset, event_id, epoch_us(received_at)", places, ""
            )
            for partition, offset, event_id, received in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            )
        ]
        return sorted(found)

    def _read(self, part: Slice, after: Position | None) -> Iterator[Events]:
        rows = self._sorted(_COLUMNS, _range_of(part))
        if rows.num_rows != part.events:
            raise TableChanged(
                f"the pinned snapshot holds {rows.num_rows} matches, not {part.events} as planned"
            )
        if after is not None and after.partition == part.partition:
            rows = rows.filter(pc.greater(rows["log_offset"], after.offset))
        for start in range(0, rows.num_rows, BATCH_ROWS):
            yield events_of(rows.slice(start, BATCH_ROWS), part.partition)

    def _sorted(self, columns: str, where: Sql) -> pa.Table:
        tables = list(self._select(columns, where, ""))
        if not tables:
            raise TableChanged("the pinned snapshot holds nothing where matches were planned")
        rows = pa.concat_tables(tables)
        # Files are in the order of the log, so mostly there is nothing to sort.
        return rows if _ascends(rows["log_offset"]) else rows.sort_by("log_offset")

    def _cut_up(self, slice_: Slice, size: int) -> Iterator[Slice]:
        columns = "log_offset, octet_length(payload) AS length"
        rows = self._sorted(columns, _range_of(slice_))
        lengths = zip(rows["log_offset"].to_pylist(), rows["length"].to_pylist(), strict=True)
        return cut_up(lengths, slice_.partition, size)

    def _shape_of(self, view: TableView, reader: Reader, lake: str) -> Struct:
        """Answer the shape of `data`, which takes a statement to find out, once for a table."""
        if self._shape is None or self._shape[0] != view.metadata_location:
            self._shape = (view.metadata_location, reader.shape(lake))
        return self._shape[1]

    def _select(self, columns: str, where: Sql | None, tail: str) -> Iterator[pa.Table]:
        """Select columns of the matches; the rows come in several tables where payloads decide."""
        view = self._look()
        if view is None or view.uuid != self._uuid:
            raise TableChanged("the table is not the one that was planned")
        selection = self._selection
        cut = all_of(selection.cut(), *([where] if where else []))
        rows: Rows = "quarantine" if selection.view == "quarantine" else "rows"
        with self._engine.reader() as reader:
            lake = reader.lake(view, snapshot_id=self._snapshot_id)
            shape = self._shape_of(view, reader, lake)
            if not selection.reads_payloads:
                for part in compile_parts(selection.query, shape, rows=rows):
                    yield _run(reader, columns, lake, all_of(cut, part), tail)
                return
            condition = compile_sql(selection.query, shape, rows=rows)
            # Another connection: one cannot read a result and run a statement at once.
            with self._engine.reader() as source:
                for batch in source.batches(*_text("SELECT *", lake, cut, "")):
                    told = reader.arrow(pa.Table.from_batches([selection.told(batch)]))
                    yield _run(reader, columns, told, condition, tail)


def _ascends(offsets: pa.ChunkedArray) -> bool:
    whole = offsets.combine_chunks()
    ascends: bool | None = pc.all(pc.greater(whole[1:], whole[:-1])).as_py()
    return ascends is not False


def _range_of(part: Slice) -> Sql:
    return sql(
        "(log_partition = {0} AND log_offset BETWEEN {1} AND {2})",
        value(part.partition),
        value(part.first),
        value(part.last),
    )


def _run(reader: Reader, columns: str, source: str, where: Sql, tail: str) -> pa.Table:
    return reader.rows(*_text(f"SELECT {columns}", source, where, tail))


def _text(select: str, source: str, where: Sql, tail: str) -> tuple[str, tuple[object, ...]]:
    return f"{select} FROM {source} WHERE {where.text} {tail}", where.parameters
