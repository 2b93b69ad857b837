"""The events a replay matches, on one snapshot of one table: counted, and read in log order.

A sort of ten million payloads would spill gigabytes before the first event is sent. So they are
counted once by ranges of log offsets (`Bucket`), and read range by range (`Slice`), each small
enough to be sorted in memory. How many rows a slice holds is known before it is read, and a slice
that holds another number stops the replay: then the snapshot is not the one that was planned.

Most replays send most of what they look at, and an engine takes five times as long to answer a row
as it takes to unpack it. So where every row of a part of a file matches, the part is read from the
file as it is, and an engine is asked for the others. It unpacks a row group from its beginning
however few of its rows are asked for: slices end where row groups do, if their limits allow that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import Run, TableView
from lakehouse.parquet import ROWS_PER_GROUP
from lakehouse.sql import Engine, Reader
from penstock.envelope import Micros, Position
from penstock.errors import TableChanged
from penstock.query import Query
from penstock.query.pieces import Sql, all_of, any_of, sql, value
from penstock.query.sql import Rows, compile_parts, compile_sql
from penstock.schema.shape import Struct
from penstock.search import DuplicatesShown
from penstock.search.facts import with_facts, with_leaves
from replay.attempted import Places, source_of
from replay.events import Events, events_of
from replay.request import Timing, View
from replay.timing import Stretch

WIDTH = 4096
"""Log offsets of one bucket."""

SLICE_ROWS = ROWS_PER_GROUP
SLICE_BYTES = 96 << 20
BATCH_ROWS = 2_000
"""Rows that are taken out of Arrow at once."""

NOWHERE = Run("", 0, -1)
"""No run is known: the events do not stand together in one file."""

_COLUMNS = (
    "log_offset",
    "event_id",
    "received_at",
    "event_time",
    "source",
    "content_type",
    "key",
    "headers",
    "metadata",
    "payload",
)

# What the engine knows without reading a column.
_FILE, _ROW = "filename", "file_row_number"


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
    duplicates: DuplicatesShown = "fold"
    places: tuple[Places, ...] = ()
    """What the ledger decides."""
    starts: Mapping[int, int] = field(default_factory=dict)
    """By partition the offset before which nothing is taken; without one, everything is."""

    def cut(self) -> Sql:
        """Answer the condition on the envelope alone."""
        parts = [sql("log_id = {0}", value(self.log_id))]
        parts.append(
            any_of(
                *(
                    sql(
                        "(log_partition = {0} AND log_offset >= {1} AND log_offset < {2})",
                        value(p),
                        value(self.starts.get(p, 0)),
                        value(end),
                    )
                    for p, end in sorted(self.ends.items())
                )
            )
        )
        if self.view == "main" and self.duplicates != "include":
            negated = "" if self.duplicates == "fold" else "NOT "
            parts.append(Sql(f"duplicate_of IS {negated}NULL"))
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
    """What matches among `WIDTH` neighbouring offsets of one partition, in one row group."""

    partition: int
    number: int
    group: int
    """The number of the row group in its file, if it was written as landing does."""
    run: Run
    """From the first row to the last one in its file."""
    events: int
    bytes: int
    first: int
    last: int
    earliest: Micros
    latest: Micros

    @property
    def whole(self) -> bool:
        """Whether every row of the run matches."""
        return self.events == self.run.last - self.run.first + 1


class Slice(NamedTuple):
    """Offsets of one partition, both ends included, that are read together."""

    partition: int
    first: int
    last: int
    events: int
    bytes: int
    runs: tuple[Run, ...] = ()
    """The rows in their files, in log order; none where only an engine knows which those are."""


def merged(buckets: Iterable[Bucket]) -> list[Bucket]:
    """Answer buckets in log order, none of which begins before another one's end.

    Parts of one may come from several reads. Of files that lie across each other no run is known:
    one after the other they are not in the order of the log.
    """
    found: list[Bucket] = []
    for each in sorted(buckets, key=lambda bucket: (bucket.partition, bucket.first)):
        if found and found[-1].partition == each.partition and each.first <= found[-1].last:
            found[-1] = _both(found[-1], each)
        else:
            found.append(each)
    return found


def _both(one: Bucket, other: Bucket) -> Bucket:
    run = NOWHERE
    if one.run.file == other.run.file:
        first = min(one.run.first, other.run.first)
        run = Run(one.run.file, first, max(one.run.last, other.run.last))
    return one._replace(
        run=run,
        events=one.events + other.events,
        bytes=one.bytes + other.bytes,
        first=min(one.first, other.first),
        last=max(one.last, other.last),
        earliest=min(one.earliest, other.earliest),
        latest=max(one.latest, other.latest),
    )


def slices(
    buckets: Iterable[Bucket], *, rows: int = SLICE_ROWS, size: int = SLICE_BYTES
) -> Iterator[Slice]:
    """Join neighbouring buckets of a partition while they hold no more than so many rows and bytes.

    A row group is not parted if it fits. A bucket that alone holds more is a slice of its own.
    """
    open_: Slice | None = None
    for _, group in groupby(buckets, key=lambda each: (each.partition, each.run.file, each.group)):
        parts = [_slice_of(each) for each in group]
        whole = reduce(_joined, parts)
        for part in [whole] if _fits(whole, rows, size) else parts:
            joined = _joined(open_, part) if open_ and open_.partition == part.partition else None
            if joined is not None and _fits(joined, rows, size):
                open_ = joined
                continue
            if open_ is not None:
                yield open_
            open_ = part
    if open_ is not None:
        yield open_


def _slice_of(bucket: Bucket) -> Slice:
    return Slice(
        bucket.partition,
        bucket.first,
        bucket.last,
        bucket.events,
        bucket.bytes,
        (bucket.run,) if bucket.whole else (),
    )


def _joined(one: Slice, following: Slice) -> Slice:
    return one._replace(
        last=following.last,
        events=one.events + following.events,
        bytes=one.bytes + following.bytes,
        runs=_runs(one.runs, following.runs) if one.runs and following.runs else (),
    )


def _runs(one: tuple[Run, ...], following: tuple[Run, ...]) -> tuple[Run, ...]:
    """Join the last of the one and the first of the other, if they meet in a file."""
    last, first = one[-1], following[0]
    if last.file == first.file and last.last + 1 == first.first:
        return (*one[:-1], last._replace(last=first.last), *following[1:])
    return one + following


def _fits(slice_: Slice, rows: int, size: int) -> bool:
    return slice_.events <= rows and slice_.bytes <= size


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


class ReadFiles(Protocol):
    """Reads columns of rows straight from their files."""

    def __call__(
        self, runs: Sequence[Run], columns: Sequence[str], *, size: int
    ) -> Iterator[pa.RecordBatch]:
        """Answer the rows in the order of the runs, no more than `size` at a time."""
        ...


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
        read_files: ReadFiles,
        selection: Selection,
        *,
        uuid: str,
        snapshot_id: int,
    ) -> None:
        self._engine = engine
        self._look = look
        self._read_files = read_files
        self._selection = selection
        self._uuid = uuid
        self._snapshot_id = snapshot_id
        self._shape: tuple[str, Struct] | None = None

    def buckets(self) -> list[Bucket]:
        """Count the matches by ranges of offsets, in log order."""
        columns = (
            f"log_partition, log_offset // {WIDTH}, {_ROW} // {ROWS_PER_GROUP}, "
            f"{_FILE}, min({_ROW}), max({_ROW}), "
            "count(*), CAST(sum(octet_length(payload)) AS BIGINT), "
            "min(log_offset), max(log_offset), "
            "epoch_us(min(received_at)), epoch_us(max(received_at))"
        )
        return merged(
            Bucket(partition, number, group, Run(file, first, last), *figures)
            for table in self._select(columns, None, "GROUP BY 1, 2, 3, 4")
            for partition, number, group, file, first, last, *figures in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            )
        )

    def stretches(self, timing: Timing, width: Micros) -> list[Stretch]:
        """Answer between which times events lie, so many microseconds wide, by partition and time.

        Events whose time is not known are left out.
        """
        time = "event_time" if timing == "event" else "received_at"
        columns = (
            f"log_partition, epoch_us({time}) // {width} AS place, "
            f"epoch_us(min({time})), epoch_us(max({time})), count(*)"
        )
        found: dict[tuple[int, int], Stretch] = {}
        for table in self._select(columns, sql(f"{time} IS NOT NULL"), "GROUP BY 1, 2"):
            for partition, number, first, last, events in zip(
                *(column.to_pylist() for column in table.columns), strict=True
            ):
                each = Stretch(partition, first, last, events)
                old = found.get((partition, number), each._replace(events=0))
                found[partition, number] = Stretch(
                    partition, min(old.first, first), max(old.last, last), old.events + events
                )
        return [found[place] for place in sorted(found)]

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
        """Read a slice, without what lies at or before a position."""
        passed = -1 if after is None or after.partition != part.partition else after.offset
        for rows in self._from_files(part) or self._from_engine(part):
            offsets = rows.column("log_offset")
            left = rows if offsets[0].as_py() > passed else rows.filter(pc.greater(offsets, passed))
            if left.num_rows:
                yield events_of(left, part.partition)

    def _from_files(self, part: Slice) -> Iterator[pa.RecordBatch] | None:
        """Answer the rows of the runs; None without any, and where they are in another order."""
        if not part.runs:
            return None
        found = self._read_files(part.runs, ["log_offset"], size=SLICE_ROWS)
        offsets = pa.chunked_array([batch.column("log_offset") for batch in found])
        _check_count(len(offsets), part)
        if not _ascends(offsets):
            return None
        return self._read_files(part.runs, _COLUMNS, size=BATCH_ROWS)

    def _from_engine(self, part: Slice) -> Iterator[pa.RecordBatch]:
        rows = self._sorted(", ".join(_COLUMNS), _range_of(part))
        _check_count(rows.num_rows, part)
        return iter(rows.to_batches(BATCH_ROWS))

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
        rows: Rows = "quarantine" if selection.view == "quarantine" else "rows"
        with self._engine.reader() as reader:
            lake = reader.lake(view, snapshot_id=self._snapshot_id)
            shape = self._shape_of(view, reader, lake)
            if not selection.reads_payloads:
                source, told_of = source_of(reader, lake, selection.places)
                cut = all_of(selection.cut(), told_of, *([where] if where else []))
                for part in compile_parts(selection.query, shape, rows=rows):
                    yield _run(reader, columns, source, all_of(cut, part), tail)
                return
            condition = compile_sql(selection.query, shape, rows=rows)
            # Another connection: one cannot read a result and run a statement at once.
            with self._engine.reader() as other:
                source, told_of = source_of(other, f"{lake} AS lake", selection.places)
                cut = all_of(selection.cut(), told_of, *([where] if where else []))
                every = f"SELECT lake.*, {_FILE}, {_ROW}"
                for batch in other.batches(*_text(every, source, cut, "")):
                    told = reader.arrow(pa.Table.from_batches([selection.told(batch)]))
                    yield _run(reader, columns, told, condition, tail)


def _check_count(rows: int, part: Slice) -> None:
    if rows != part.events:
        raise TableChanged(
            f"the pinned snapshot holds {rows} matches, not {part.events} as planned"
        )


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
