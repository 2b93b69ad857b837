"""How quarantined events are closed: released, discarded, or another copy of a released one.

A collection's quarantine has a table of its own for this, ``<collection>__closed``, to which rows
are only ever added: one for each position that is closed, and never two. What holds after `close`
returned: every position it was asked for is closed, by whoever was first. The look and the commit
are of one load, and the catalog refuses a commit that was made beside another one, so two who
close the same event agree on which of them did.

Landing closes the event that a released one comes from, before it puts that one anywhere
(`settle_releases`). What is closed stays closed, so a landing that repeats a batch decides alike,
and of all copies of a released event on the log exactly one goes to the tables as itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    TableAlreadyExistsError,
)
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import (
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from lakehouse.catalog import closed_table, quarantine_table
from lakehouse.columns import arrow_schema, partition_spec
from lakehouse.commit import Staged, write_days
from lakehouse.tables import PROPERTIES, Lake, read_view, scanned, scanned_as
from penstock.codec import TIME
from penstock.envelope import Clock, CollectionId, Micros
from penstock.errors import EngineUnavailable
from penstock.faults import fault
from penstock.quarantine.causes import COLUMNS
from penstock.quarantine.release import COPY, RELEASED_FROM, STAGE, Origin, Release, read_release
from penstock.schema.convert import Converted
from penstock.schema.rows import QUARANTINE_SCHEMA
from penstock.vocabulary import End

log = structlog.get_logger()

_FIELDS: tuple[tuple[str, IcebergType, bool], ...] = (
    ("event_id", StringType(), True),
    ("received_at", TimestamptzType(), True),
    ("log_id", StringType(), True),
    ("log_partition", IntegerType(), True),
    ("log_offset", LongType(), True),
    ("state", StringType(), True),
    ("closed_at", TimestamptzType(), True),
    ("closed_by", StringType(), True),
    ("why", StringType(), False),
    ("release", StringType(), False),
    ("to_partition", IntegerType(), False),
    ("to_offset", LongType(), False),
)

CLOSED_COLUMNS = tuple(name for name, _, _ in _FIELDS)

_PLACE = ("log_id", "log_partition", "log_offset")

_OTHER_ERRORS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """How one quarantined event was closed.

    `received_at` is the event's own. `to` is where the event is that it was released as, or of
    which it is a copy; None for one that was discarded, or is a copy of a discarded one.
    """

    origin: Origin
    event_id: str
    received_at: Micros
    state: End
    closed_at: Micros
    closed_by: str
    why: str | None = None
    release: str | None = None
    to: Origin | None = None


def closed_schema() -> Schema:
    """Answer the schema of that table; it is partitioned like the quarantine itself."""
    return Schema(
        *(
            NestedField(number, name, kind, required)
            for number, (name, kind, required) in enumerate(_FIELDS, 1)
        )
    )


class State(NamedTuple):
    """What a quarantine holds, by the snapshots of its tables; other contents have another one."""

    quarantined: int | None
    closed: int | None


def state_of(lake: Lake, collection: CollectionId) -> State:
    """Answer the state of a quarantine; what is read after it may be newer, and is never older."""
    tables = (lake.table(name(collection)) for name in (quarantine_table, closed_table))
    return State(
        *(None if table is None else table.metadata.current_snapshot_id for table in tables)
    )


def closings_of(
    lake: Lake, collection: CollectionId, origins: Iterable[Origin]
) -> dict[Origin, Closing]:
    """Answer how those of the positions were closed that are."""
    table = lake.table(closed_table(collection))
    return {} if table is None else _of(table, frozenset(origins))


def closed_positions(
    lake: Lake,
    collection: CollectionId,
    *,
    since: Micros | None = None,
    until: Micros | None = None,
) -> pa.Table:
    """Answer the positions of closed events that were received in this time."""
    schema = pa.schema([QUARANTINE_SCHEMA.field(name) for name in _PLACE])
    table = lake.table(closed_table(collection))
    if table is None:
        return schema.empty_table()
    return scanned_as(table, schema, _received(since, until))


def count_closed(lake: Lake, collection: CollectionId) -> int:
    """Answer how many events are closed, from what the table says about itself."""
    table = lake.table(closed_table(collection))
    return 0 if table is None else read_view(collection, table).rows


class Work(NamedTuple):
    """What somebody did to several events at once: a release, or a discard with one reason."""

    state: End
    by: str
    why: str | None
    release: str | None


@dataclass(frozen=True, slots=True)
class Worked:
    """How many events a work closed, and when the first and the last of them."""

    work: Work
    count: int
    first: Micros
    last: Micros


_WORK = ("state", "closed_by", "why", "release")


def works(lake: Lake, collection: CollectionId) -> list[Worked]:
    """Answer who closed how many of the collection's events and how, the latest work first.

    Reads those columns of all closings, batch by batch.
    """
    table = lake.table(closed_table(collection))
    if table is None:
        return []
    kinds = arrow_schema(table.metadata.schema())
    schema = pa.schema([kinds.field(name) for name in (*_WORK, "closed_at")])
    seen: dict[Work, Worked] = {}
    for batch in scanned(table, schema.names):
        rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        grouped = rows.group_by(list(_WORK)).aggregate(
            [("closed_at", "count"), ("closed_at", "min"), ("closed_at", "max")]
        )
        for row in grouped.to_pylist():
            work = Work(*(row[name] for name in _WORK))
            first, last = _micros(row["closed_at_min"]), _micros(row["closed_at_max"])
            one = seen.get(work, Worked(work, 0, first, last))
            count = one.count + row["closed_at_count"]
            seen[work] = Worked(work, count, min(one.first, first), max(one.last, last))
    return sorted(seen.values(), key=lambda one: (-one.last, str(one.work)))


def quarantined(
    lake: Lake,
    collection: CollectionId,
    *,
    since: Micros | None = None,
    until: Micros | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read the causes of the quarantined events that were received in this time, batch by batch."""
    table = lake.table(quarantine_table(collection))
    if table is not None:
        # Of texts PyIceberg answers one kind or the other, as it likes.
        schema = pa.schema([QUARANTINE_SCHEMA.field(name) for name in COLUMNS])
        for batch in scanned(table, COLUMNS, _received(since, until)):
            yield batch.select(COLUMNS).cast(schema)


def close(
    lake: Lake,
    collection: CollectionId,
    closings: Sequence[Closing],
    *,
    chance: Callable[[int], bytes] = os.urandom,
) -> dict[Origin, Closing]:
    """Close the positions that are open; answer how each of them was closed, by whoever was first.

    Of several closings of one position the first counts. Safe beside others and when repeated.
    Raises `EngineUnavailable` if others were faster for too long or the catalog does not answer,
    and whatever the file system raises; some or all may then be closed.
    """
    wanted: dict[Origin, Closing] = {}
    for closing in closings:
        wanted.setdefault(closing.origin, closing)
    failures: list[Exception] = []
    for _ in lake.patience.attempts():
        table = _made(lake, collection)
        known = _of(table, frozenset(wanted))
        new = [closing for origin, closing in wanted.items() if origin not in known]
        if not new:
            return known
        if len(failures) >= _OTHER_ERRORS:
            raise failures[-1]
        schema = table.metadata.schema()
        name = f"closed-{chance(8).hex()}"
        files = write_days(table, schema, _rows(new, arrow_schema(schema)), name=name, dense=False)
        staged = Staged(table)
        append = staged.update_snapshot().merge_append()
        for file in files:
            append.append_data_file(file)
        append.commit()
        fault("release_before_close")
        try:
            staged.send(lake)
        except CommitFailedException as error:
            log.info("closing met another one", error=str(error))
            continue
        except Exception as error:  # noqa: BLE001 - whatever it was, the table tells what holds
            log.warning("closing failed", error=type(error).__name__)
            failures.append(error)
            continue
        fault("release_closed")
        return known | {closing.origin: closing for closing in new}
    raise EngineUnavailable(f"the quarantine of {collection} kept changing beside this closing")


@dataclass(frozen=True, slots=True)
class _Released:
    """A released event of a batch: where it is, and what it says of its release."""

    position: Origin
    event_id: str
    received_at: Micros
    release: Release


def settle_releases(
    lake: Lake, collection: CollectionId, converted: Converted, *, clock: Clock
) -> Converted:
    """Close what the released events of a batch come from; answer the batch without their copies.

    An event whose origin somebody else closed, by another release or by discarding it, goes to
    quarantine as a copy, and is closed there. The others stay what they are; one that goes to
    quarantine again has its number of attempts.
    """
    released = [*_released_in(converted.rows), *_released_in(converted.quarantined)]
    if not released:
        return converted
    released.sort(key=lambda one: one.position)
    known = close(lake, collection, [_closing(one, clock()) for one in released])
    copies = [one for one in released if known[one.release.origin].to != one.position]
    if copies:
        log.info("copies of released events folded", collection=str(collection), n=len(copies))
        ends = [_copy(one, known[one.release.origin], clock()) for one in copies]
        close(lake, collection, ends)
    rows = converted.rows
    aside = _with_attempts(converted.quarantined, released)
    for part in _folded([one.position for one in copies]):
        # Whether a copy would be a row or not, it is a copy.
        moved = [_as_copies(table.filter(part.of(table))) for table in (rows, aside)]
        rows, aside = (table.filter(pc.invert(part.of(table))) for table in (rows, aside))
        aside = pa.concat_tables([aside, *moved])
    if copies:
        order = [("log_partition", "ascending"), ("log_offset", "ascending")]
        aside = aside.sort_by(order)
    return replace(converted, rows=rows, quarantined=aside)


def _closing(one: _Released, now: Micros) -> Closing:
    release = one.release
    return Closing(
        origin=release.origin,
        event_id=one.event_id,
        received_at=release.received_at,
        state="released",
        closed_at=now,
        closed_by=release.by,
        release=release.release,
        to=one.position,
    )


def _copy(one: _Released, first: Closing, now: Micros) -> Closing:
    return Closing(
        origin=one.position,
        event_id=one.event_id,
        received_at=one.received_at,
        state="copy",
        closed_at=now,
        closed_by=one.release.by,
        release=one.release.release,
        to=first.to,
    )


def _released_in(events: pa.Table) -> list[_Released]:
    """Answer the released events of a table, found without looking at others one by one."""
    found: list[_Released] = []
    wanted = pa.scalar(RELEASED_FROM)
    for batch in events.select(_LOOKED_AT).to_batches():
        metadata = batch.column("metadata")
        # Looking for the name among all of them is a tenth of looking into each event.
        if not pc.any(pc.equal(metadata.keys, wanted)).as_py():
            continue
        places = pc.indices_nonzero(pc.is_valid(pc.map_lookup(metadata, wanted, "first")))
        for row in batch.take(places).to_pylist(maps_as_pydicts="strict"):
            release = read_release(row["metadata"])
            if release is None:
                log.error("a released event does not say all of it", event_id=row["event_id"])
                continue
            position = Origin(row["log_id"], row["log_partition"], row["log_offset"])
            received = _micros(row["received_at"])
            found.append(_Released(position, row["event_id"], received, release))
    return found


_LOOKED_AT = ["event_id", "received_at", "metadata", "log_id", "log_partition", "log_offset"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _micros(moment: datetime) -> Micros:
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def _with_attempts(quarantined: pa.Table, released: Sequence[_Released]) -> pa.Table:
    attempts = {one.position: one.release.attempt for one in released}
    if not quarantined.num_rows:
        return quarantined
    places = zip(
        *(quarantined[name].to_pylist() for name in ("log_id", "log_partition", "log_offset")),
        strict=True,
    )
    numbers = [attempts.get(Origin(*place), 1) for place in places]
    index = quarantined.schema.get_field_index("attempts")
    field = quarantined.schema.field(index)
    return quarantined.set_column(index, field, pa.array(numbers, field.type))


@dataclass(frozen=True, slots=True)
class _Part:
    """Positions of one log partition."""

    log_id: str
    partition: int
    offsets: tuple[int, ...]

    def of(self, table: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
        """Say of each row of a table whether it is at one of them."""
        return reduce(
            pc.and_,
            (
                pc.equal(table["log_id"], self.log_id),
                pc.equal(table["log_partition"], self.partition),
                pc.is_in(table["log_offset"], pa.array(self.offsets, pa.int64())),
            ),
        )


def _folded(positions: Iterable[Origin]) -> list[_Part]:
    parts: dict[tuple[str, int], list[int]] = {}
    for position in positions:
        parts.setdefault((position.log_id, position.partition), []).append(position.offset)
    return [_Part(*part, tuple(offsets)) for part, offsets in sorted(parts.items())]


_COPY_DETAIL = "the event it was released from is closed already"


def _as_copies(events: pa.Table) -> pa.Table:
    """Answer events as they are kept in quarantine where they are copies."""
    count = events.num_rows
    said = {"stage": STAGE, "reason": COPY, "detail": _COPY_DETAIL, "attempts": 1}
    return pa.Table.from_arrays(
        [
            pa.repeat(pa.scalar(said[field.name], field.type), count)
            if field.name in said
            else events[field.name]
            for field in QUARANTINE_SCHEMA
        ],
        schema=QUARANTINE_SCHEMA,
    )


def _of(table: Table, origins: frozenset[Origin]) -> dict[Origin, Closing]:
    """Answer the closings of these positions that the table has."""
    found: dict[Origin, Closing] = {}
    for part in _folded(origins):
        wanted = (
            f"log_partition = {part.partition} and log_offset >= {min(part.offsets)} "
            f"and log_offset <= {max(part.offsets)}"
        )
        for there in scanned(table, CLOSED_COLUMNS, wanted):
            mine = map(_closing_of, there.filter(part.of(there)).to_pylist())
            found.update((closing.origin, closing) for closing in mine)
    return found


def _closing_of(row: Mapping[str, object]) -> Closing:
    values = dict(row)
    log_id, partition, offset = (values.pop(n) for n in ("log_id", "log_partition", "log_offset"))
    to_partition, to_offset = values.pop("to_partition"), values.pop("to_offset")
    to = None if to_offset is None else Origin(log_id, to_partition, to_offset)  # type: ignore[arg-type]  # as the schema says
    for name in ("received_at", "closed_at"):
        values[name] = _micros(values[name])  # type: ignore[arg-type]  # as the schema says
    return Closing(origin=Origin(log_id, partition, offset), to=to, **values)  # type: ignore[arg-type]  # as the schema says


def _rows(closings: Sequence[Closing], schema: pa.Schema) -> pa.Table:
    columns = {
        "event_id": [c.event_id for c in closings],
        "received_at": [c.received_at for c in closings],
        "log_id": [c.origin.log_id for c in closings],
        "log_partition": [c.origin.partition for c in closings],
        "log_offset": [c.origin.offset for c in closings],
        "state": [c.state for c in closings],
        "closed_at": [c.closed_at for c in closings],
        "closed_by": [c.closed_by for c in closings],
        "why": [c.why for c in closings],
        "release": [c.release for c in closings],
        "to_partition": [c.to and c.to.partition for c in closings],
        "to_offset": [c.to and c.to.offset for c in closings],
    }
    arrays = []
    for field in schema:
        if field.type == TIME:
            arrays.append(pa.array(columns[field.name], pa.int64()).cast(TIME))
        else:
            arrays.append(pa.array(columns[field.name], field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _received(since: Micros | None, until: Micros | None) -> str | BooleanExpression:
    bounds = [
        f"received_at {sign} '{_written(time)}'"
        for sign, time in ((">=", since), ("<", until))
        if time is not None
    ]
    return " and ".join(bounds) or AlwaysTrue()


def _written(time: Micros) -> str:
    seconds, micros = divmod(time, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros).isoformat()


def _made(lake: Lake, collection: CollectionId) -> Table:
    """Answer the table, made first if there is none yet."""
    name = closed_table(collection)
    table = lake.table(name)
    if table is not None:
        return table
    schema = closed_schema()
    try:
        lake.catalog.create_namespace(name[:-1])
    except NamespaceAlreadyExistsError:
        log.debug("namespace exists already", namespace=name[0])
    try:
        lake.catalog.create_table(
            name, schema, partition_spec=partition_spec(schema), properties=PROPERTIES
        )
    except TableAlreadyExistsError:
        log.debug("table exists already", table=".".join(name))
    table = lake.table(name)
    if table is None:
        raise EngineUnavailable(f"the table {'.'.join(name)} was dropped while it was made")
    return table
