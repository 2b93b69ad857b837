"""What stands about an event: its row in columns, its neighbours on the log, its repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lakehouse import TableView
from lakehouse.sql import Engine, Reader
from penstock.envelope import CollectionId, Micros
from penstock.query.pieces import Sql, all_of, sql, value
from penstock.schema.shape import EMPTY, Leaf, List, Struct, Type, below
from penstock.search import Found, View
from penstock.search.cut import Cut, Cuts

MOST_REPEATS = 100

# Offsets beside an event that are looked at: on Kafka some have no record, and some have expired.
_WIDTHS = (64, 65_536)

_SHOWN = (
    "event_id, epoch_us(received_at) AS received_at, log_id, log_partition, log_offset, "
    "octet_length(payload) AS size"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """An event that stands near another one, or repeats it. `size` is its payload's, in bytes."""

    event_id: str
    received_at: Micros
    log_id: str
    log_partition: int
    log_offset: int
    size: int
    view: View
    duplicate_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A column of a row that has a value; below a list the value is the list of all of them."""

    path: str
    kind: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What stands about an event. It is of one moment for each of rows and quarantine."""

    log_id: str | None
    """The log that it came on; None where it went away since it was found."""
    landed: bool
    """Whether it is in the lake, in its table or in quarantine; else it waits on the log."""
    cells: tuple[Cell, ...] | None
    """The columns of its row; None for an event that is no row."""
    shape: Struct
    """The columns that its row could have."""
    before: tuple[Beside, ...]
    """The nearest ones before it in its partition of the log, the nearest last."""
    after: tuple[Beside, ...]
    repeated_by: tuple[Beside, ...]
    """Those that repeat it, the first one first; `MOST_REPEATS` at most."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one view, in the lake or on the log."""

    view: View
    relation: str
    shape: Struct
    counts: Sql
    landed: bool


def around(
    cuts: Cuts, engine: Engine, collection: CollectionId, event: Found, *, most: int, seconds: float
) -> Around:
    """Answer what stands about an event that was found, with `most` neighbours on each side."""
    views: tuple[View, View] = ("main", "quarantine")
    taken = {view: cuts.take(collection, view) for view in views}
    end = taken["main"].ends.get(event.log_partition, 0)
    with engine.reader(seconds=seconds) as reader:
        sources = [rows for view in views for rows in _rows(view, taken[view], reader)]
        log_id, landed, cells, shape = _row(reader, sources, event)
        near: list[Beside] = []
        for width in _WIDTHS:
            near = _near(reader, sources, event, log_id, width)
            before = sum(one.log_offset < event.log_offset for one in near)
            full = before >= most or width >= event.log_offset
            if full and (len(near) - before >= most or event.log_offset + width >= end):
                break
        repeated_by = _repeats(reader, sources, event, taken["main"])
    return Around(
        log_id=log_id,
        landed=landed,
        cells=cells,
        shape=shape,
        before=tuple([one for one in near if one.log_offset < event.log_offset][-most:]),
        after=tuple([one for one in near if one.log_offset > event.log_offset][:most]),
        repeated_by=repeated_by,
    )


def _rows(view: View, cut: Cut, reader: Reader) -> Iterator[_Rows]:
    table = cut.table
    if table is not None and table.snapshot_id is not None:
        shape = table.shape if view == "main" else EMPTY
        yield _Rows(view, reader.lake(table), shape, cut.landed(), landed=True)
    for piece in cut.tail:
        rows = piece.rows if view == "main" else piece.quarantined
        if rows.num_rows:
            shape = piece.shape if view == "main" else EMPTY
            yield _Rows(view, reader.arrow(rows), shape, Sql("TRUE"), landed=False)


def _row(
    reader: Reader, sources: Sequence[_Rows], event: Found
) -> tuple[str | None, bool, tuple[Cell, ...] | None, Struct]:
    """Answer on which log it came, whether it is in the lake, its columns, and all there are."""
    where = all_of(
        sql("received_at = make_timestamptz({0})", value(event.received_at)),
        _at(event.log_partition, event.log_offset, event.log_offset),
        sql("event_id = {0}", value(event.event_id)),
    )
    for rows in sources:
        data = ", data" if rows.shape != EMPTY else ""
        found = _select(reader, f"log_id{data}", rows, where, "LIMIT 1")
        if found.num_rows:
            cells: tuple[Cell, ...] | None = None
            if rows.view == "main":
                row = found["data"][0].as_py() if data else None
                cells = tuple(cells_of(row or {}, rows.shape))
            return found["log_id"][0].as_py(), rows.landed, cells, rows.shape
    return None, False, None, EMPTY


def cells_of(row: Mapping[str, Any], shape: Struct) -> Iterator[Cell]:
    """Answer the columns of a row that have a value, in the order of the shape."""
    for name, kind in shape.fields:
        yield from _cells(row.get(name), kind, name)


def _cells(found: Any, kind: Type, path: str) -> Iterator[Cell]:
    if found is None:
        return
    match kind:
        case Leaf(scalar):
            yield Cell(path=path, kind=scalar, value=found)
        case Struct(fields):
            for name, field in fields:
                yield from _cells(found.get(name), field, below(path, name))
        case List(element):
            yield from _listed(found, element, f"{path}[]")


def _listed(found: Sequence[Any], kind: Type, path: str) -> Iterator[Cell]:
    """Answer the columns below a list, each with the values of all its elements."""
    match kind:
        case Leaf(scalar):
            if any(one is not None for one in found):
                yield Cell(path=path, kind=scalar, value=list(found))
        case Struct(fields):
            for name, field in fields:
                values = [None if one is None else one.get(name) for one in found]
                yield from _listed(values, field, below(path, name))
        case List(element):
            flat = [one for inner in found for one in (inner or ())]
            yield from _listed(flat, element, f"{path}[]")


def _near(
    reader: Reader, sources: Sequence[_Rows], event: Found, log_id: str | None, width: int
) -> list[Beside]:
    where = all_of(
        _at(event.log_partition, event.log_offset - width, event.log_offset + width),
        sql("log_offset <> {0}", value(event.log_offset)),
    )
    found = (_beside(reader, rows, where, "") for rows in sources)
    by_place = {one.log_offset: one for some in found for one in some if one.log_id == log_id}
    return [by_place[offset] for offset in sorted(by_place)]


def _repeats(
    reader: Reader, sources: Sequence[_Rows], event: Found, cut: Cut
) -> tuple[Beside, ...]:
    """Answer what repeats the event. Rows of the lake are looked at only if some repeat any."""
    lake: TableView | None = cut.table
    none = lake is None or not lake.duplicates
    where = sql("duplicate_of = {0}", value(event.event_id))
    rest = f"ORDER BY received_at, log_partition, log_offset LIMIT {MOST_REPEATS:d}"
    own = (event.received_at, event.log_partition, event.log_offset)
    found = [
        one
        for rows in sources
        if rows.view == "main" and not (rows.landed and none)
        for one in _beside(reader, rows, where, rest)
    ]
    places = {(one.received_at, one.log_partition, one.log_offset): one for one in found}
    return tuple(places[at] for at in sorted(places) if at != own)[:MOST_REPEATS]


def _at(partition: int, first: int, last: int) -> Sql:
    return sql(
        "log_partition = {0} AND log_offset BETWEEN {1} AND {2}",
        value(partition),
        value(first),
        value(last),
    )


def _beside(reader: Reader, rows: _Rows, where: Sql, rest: str) -> Iterator[Beside]:
    repeats = "duplicate_of" if rows.view == "main" else "CAST(NULL AS VARCHAR) AS duplicate_of"
    for record in _select(reader, f"{_SHOWN}, {repeats}", rows, where, rest).to_pylist():
        yield Beside(view=rows.view, **record)


def _select(reader: Reader, columns: str, rows: _Rows, where: Sql, rest: str) -> pa.Table:
    condition = all_of(rows.counts, where)
    text = f"SELECT {columns} FROM {rows.relation} WHERE {condition.text} {rest}"  # noqa: S608 - ours
    return reader.rows(text, condition.parameters)
