"""Places of events in SQL: how they are asked for, compared, and read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from penstock.codec import TIME
from penstock.envelope import Micros
from penstock.query.pieces import ALWAYS, Sql, all_of, any_of, sql, value
from penstock.search import (
    Found,
    Place,
    View,
)

# Events of a page that are looked for one by one while rows are read.
_FEW = 64


_ENVELOPE = (
    "event_id, received_at, event_time, source, content_type, key, headers, metadata, "
    "log_partition, log_offset"
)
_OF_ROWS = "duplicate_of, misfits"


SHOWN: Mapping[View, str] = {
    "main": f"{_ENVELOPE}, payload, {_OF_ROWS}",
    "quarantine": f"{_ENVELOPE}, payload, stage, reason, detail, attempts",
}


BUT_PAYLOADS = Sql(f"{_ENVELOPE}, {_OF_ROWS}, filename, file_row_number AS file_row")
"""What is shown of rows in files but for their payloads, and which rows they are."""


PLACE = Sql("epoch_us(received_at) AS received, log_partition, log_offset")


def at_places(places: Sequence[Place]) -> Sql:
    """Answer a condition that the events at these places fulfil, and hardly any others."""
    # Not as parameters: DuckDB's package takes 0.3 ms for each.
    offsets = ", ".join(sorted(f"{place.offset:d}" for place in places))
    return all_of(
        _about(places),
        Sql(f"log_offset IN ({offsets})"),
        # The engine leaves out row groups by IN. This it asks while it reads one, and reads
        # the other columns no further than the last event: half the time for 20 rare ones.
        # Of many, comparing takes longer than that.
        Sql(f"list_contains([{offsets}], log_offset)") if len(places) <= _FEW else ALWAYS,
    )


def _about(places: Iterable[Place]) -> Sql:
    times = [place.received_at for place in places]
    return all_of(
        sql("received_at >= make_timestamptz({0})", value(min(times))),
        sql("received_at <= make_timestamptz({0})", value(max(times))),
    )


def exactly_at(log_id: str, places: Sequence[Place]) -> Sql:
    """Answer a condition that the events of a log at these places fulfil, and no others."""
    offsets: dict[int, list[str]] = {}
    for place in places:
        offsets.setdefault(place.partition, []).append(f"{place.offset:d}")
    return all_of(
        _about(places),
        sql("log_id = {0}", value(log_id)),
        any_of(
            *(
                Sql(f"(log_partition = {partition:d} AND log_offset IN ({', '.join(some)}))")
                for partition, some in sorted(offsets.items())
            )
        ),
    )


def received(*, since: Micros | None, until: Micros | None) -> Iterator[Sql]:
    """Answer the conditions for events received since then, and before then."""
    if since is not None:
        yield sql("received_at >= make_timestamptz({0})", value(since))
    if until is not None:
        yield sql("received_at < make_timestamptz({0})", value(until))


def found_of(rows: pa.Table) -> list[Found]:
    """Turn rows into events; columns that a view does not have keep their defaults."""
    for name in ("received_at", "event_time"):
        times = rows[name].cast(TIME).cast(pa.int64())
        rows = rows.set_column(rows.schema.get_field_index(name), name, times)
    events = []
    for record in rows.to_pylist(maps_as_pydicts="strict"):
        record["headers"] = tuple((h["key"], h["value"]) for h in record["headers"] or ())
        record["metadata"] = record["metadata"] or {}
        if "misfits" in record:
            record["misfits"] = tuple((m["path"], m["value"]) for m in record["misfits"] or ())
        events.append(Found(**record))
    return events


def places_of(table: pa.Table) -> list[Place]:
    """Read the places of a statement that selects `PLACE`."""
    columns = (table[name].to_pylist() for name in ("received", "log_partition", "log_offset"))
    return [Place(*row) for row in zip(*columns, strict=True)]


def first_places(count: int, *, descending: bool) -> str:
    """Answer what to write behind a condition for the first events in the order of places."""
    order = "DESC" if descending else "ASC"
    columns = ("received_at", "log_partition", "log_offset")
    return f"ORDER BY {', '.join(f'{name} {order}' for name in columns)} LIMIT {count}"


def beyond(place: Place, *, newest_first: bool) -> Sql:
    """Answer the condition for events that come after a place in the order of answers."""
    sign = "<" if newest_first else ">"
    at = sql("make_timestamptz({0})", value(place.received_at))
    partition, offset = value(place.partition), value(place.offset)
    return all_of(
        # By itself, so that engines can leave out partitions and row groups by it.
        sql(f"received_at {sign}= {{0}}", at),
        any_of(
            sql(f"received_at {sign} {{0}}", at),
            sql(f"log_partition {sign} {{0}}", partition),
            sql(f"(log_partition = {{0}} AND log_offset {sign} {{1}})", partition, offset),
        ),
    )
