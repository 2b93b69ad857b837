"""The books in a SQL database: SQLite, or PostgreSQL, with Timescale if it has that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    case,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    update,
)

from penstock.envelope import CollectionId, Micros, Span
from penstock.metadata import database
from penstock.stats import MINUTE, Batch, Step, tables
from penstock.stats.tables import marks, minutes

# None of the metadata's: who counts does not wait for who makes a token.
_LOCK = 0x70656E_0002

_SUMS = ("events", "bytes", "quarantined", "duplicates")
"""What is added up of each minute."""


class SqlStats:
    """Sums by minute, and a mark for each log partition, which move in one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ping(self) -> None:
        """Return if the database answers."""
        with self._reading() as connection:
            connection.execute(select(1))

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def add(self, batch: Batch) -> bool:
        """Count what begins at the marks, and move them."""
        collection, log_id = batch.collection, batch.log_id
        with self._writing() as connection:
            reached = _marks(connection, collection)
            starts = {
                span.partition: reached.get((log_id, span.partition), 0) for span in batch.spans
            }
            new = [span for span in batch.spans if span.start == starts[span.partition] < span.end]
            counted = {span.partition for span in new}
            sums: dict[Micros, dict[str, int]] = {}
            for one in batch.minutes:
                if one.partition in counted:
                    sum_ = sums.setdefault(one.start, dict.fromkeys(_SUMS, 0))
                    for name in _SUMS:
                        sum_[name] += getattr(one, name)
            for minute, sum_ in sorted(sums.items()):
                _count(connection, collection, minute, sum_)
            for span in new:
                _move(connection, log_id, span)
            if counted and batch.lag is not None:
                _lagged(connection, collection, batch.landed_at // MINUTE * MINUTE, batch.lag)
        return all(
            span.partition in counted or span.end <= starts[span.partition] for span in batch.spans
        )

    def marks(self, collection: CollectionId) -> Mapping[tuple[str, int], int]:
        """Answer the next position that is not counted, by log id and partition."""
        with self._reading() as connection:
            return _marks(connection, collection)

    def steps(
        self, collection: CollectionId, since: Micros, until: Micros, step: Micros
    ) -> Sequence[Step]:
        """Answer the stretches from `since` to `until` in which anything happened, in order."""
        start = (minutes.c.minute - minutes.c.minute % step).label("start")
        query = (
            select(
                start,
                func.max(minutes.c.lag),
                *(func.sum(minutes.c[name]) for name in _SUMS),
            )
            .where(_of(minutes, collection))
            .where(minutes.c.minute >= since, minutes.c.minute < until)
            .group_by(start)
            .order_by(start)
        )
        with self._reading() as connection:
            return [
                Step(
                    start=int(begin),
                    lag=lag,
                    # PostgreSQL's sum of large numbers is a decimal.
                    **dict(zip(_SUMS, map(int, sums), strict=True)),
                )
                for begin, lag, *sums in connection.execute(query)
            ]

    def arrivals(
        self, team: str, names: Sequence[str], since: Micros, until: Micros
    ) -> Mapping[str, Mapping[Micros, int]]:
        """Answer how many events each of these collections received, by the minute."""
        query = (
            select(minutes.c.name, minutes.c.minute, minutes.c.events)
            # The names make it a step into the key for each; without them all minutes are read.
            .where(minutes.c.team == team, minutes.c.name.in_(names))
            .where(minutes.c.minute >= since, minutes.c.minute < until, minutes.c.events > 0)
        )
        found: dict[str, dict[Micros, int]] = {}
        with self._reading() as connection:
            for name, minute, events in connection.execute(query):
                found.setdefault(name, {})[minute] = events
        return found

    def newest(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Micros]:
        """Answer the last minute in which an event of each was received that is counted."""
        names: dict[str, list[str]] = {}
        for one in collections:
            names.setdefault(one.team, []).append(one.name)
        wanted = [
            and_(minutes.c.team == team, minutes.c.name.in_(some)) for team, some in names.items()
        ]
        query = select(minutes.c.team, minutes.c.name, func.max(minutes.c.minute))
        query = query.where(or_(false(), *wanted), minutes.c.events > 0)
        with self._reading() as connection:
            rows = connection.execute(query.group_by(minutes.c.team, minutes.c.name)).all()
        return {CollectionId(team, name): int(minute) for team, name, minute in rows}

    def forget_before(self, collection: CollectionId, before: Micros) -> None:
        """Forget the minutes before a moment."""
        old = and_(_of(minutes, collection), minutes.c.minute < before)
        with self._writing() as connection:
            connection.execute(delete(minutes).where(old))

    def forget(self, collection: CollectionId) -> None:
        """Forget sums and marks of the collection."""
        with self._writing() as connection:
            connection.execute(delete(minutes).where(_of(minutes, collection)))
            connection.execute(delete(marks).where(_of(marks, collection)))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _answering(), database.reading(self._engine) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _answering(), database.writing(self._engine) as connection:
            yield connection


def open_sql(url: str) -> SqlStats:
    """Open the books at `url`; see `open_stats`."""
    with _answering():
        return SqlStats(
            database.open_tables(
                url, setting="stats_url", lock=_LOCK, made=tables.made, make=tables.make
            )
        )


def _answering() -> Any:
    return database.answering("the database of the statistics")


def _of(table: Any, collection: CollectionId) -> Any:
    return and_(table.c.team == collection.team, table.c.name == collection.name)


def _marks(connection: Connection, collection: CollectionId) -> dict[tuple[str, int], int]:
    query = select(marks.c.log_id, marks.c.partition, marks.c.next)
    found = connection.execute(query.where(_of(marks, collection)))
    return {(log_id, partition): following for log_id, partition, following in found}


# Writers exclude each other: what is not there after an update can be inserted.


def _count(
    connection: Connection,
    collection: CollectionId,
    minute: Micros,
    sums: Mapping[str, int],
) -> None:
    values = {name: minutes.c[name] + more for name, more in sums.items()}
    row = {"minute": minute, **sums}
    _upsert(connection, minutes, collection, minutes.c.minute == minute, values, row)


def _lagged(connection: Connection, collection: CollectionId, minute: Micros, lag: Micros) -> None:
    longest = case((minutes.c.lag > lag, minutes.c.lag), else_=lag)
    row = {"minute": minute, **dict.fromkeys(_SUMS, 0), "lag": lag}
    _upsert(connection, minutes, collection, minutes.c.minute == minute, {"lag": longest}, row)


def _move(connection: Connection, log_id: str, span: Span) -> None:
    mine = and_(marks.c.log_id == log_id, marks.c.partition == span.partition)
    row = {"log_id": log_id, "partition": span.partition, "next": span.end}
    _upsert(connection, marks, span.collection, mine, {"next": span.end}, row)


def _upsert(
    connection: Connection,
    table: Any,
    collection: CollectionId,
    which: Any,
    values: Mapping[str, Any],
    row: Mapping[str, Any],
) -> None:
    changed = update(table).where(_of(table, collection), which).values(values)
    if connection.execute(changed).rowcount == 0:
        connection.execute(insert(table).values(team=collection.team, name=collection.name, **row))
