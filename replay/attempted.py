"""Which events the ledger tells of: those that did not arrive in a replay, those that ever arrived.

A set of events is a set of places on the log. It is kept as words: one for each 64 neighbouring
offsets of a partition that has any, with a bit for each. So a million events that lie scattered are
24 MB, a hundred million in a row are 40, and whether an event is among them is one look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from lakehouse import TableView
from lakehouse.sql import Engine, Reader
from penstock.envelope import CollectionId
from penstock.query.pieces import ALWAYS, Sql, all_of, sql, value

WORD = 64
"""Log offsets of one word."""

_SCHEMA = pa.schema([("partition", pa.int64()), ("word", pa.int64()), ("bits", pa.uint64())])
NO_PLACES = _SCHEMA.empty_table()

# A column of the ledger appears with the first row that has a value for it. These an outcome has.
_NEEDED = frozenset(
    ("replay", "epoch", "team", "collection", "partition", "offset", "attempt", "kind", "outcome")
)
_AS_WORDS = (
    f"place // {WORD} AS word, bit_or(1::UBIGINT << CAST(place % {WORD} AS UBIGINT)) AS bits"
)
# A row `unknown` is written without looking at the ledger: what that knows of the same attempt
# holds.
_RANK = "epoch * 1048576 + attempt * 2 + CAST(outcome <> 'unknown' AS BIGINT)"
_LEFT = "('failed', 'unknown')"

# Each reads rows with the place and what else it needs; every piece is one of ours.
_OF_ALL = f"SELECT partition, {_AS_WORDS} FROM ({{0}}) GROUP BY 1, 2"  # noqa: S608
_OF_LEFT = f"""
WITH told AS NOT MATERIALIZED ({{0}}),
suspects AS (SELECT DISTINCT partition, place FROM told WHERE outcome IN {_LEFT}),
ends AS (
    SELECT partition, place, arg_max(outcome, {_RANK}) AS outcome
    FROM told SEMI JOIN suspects USING (partition, place)
    GROUP BY partition, place
)
SELECT partition, {_AS_WORDS} FROM ends WHERE outcome IN {_LEFT} GROUP BY 1, 2
"""  # noqa: S608


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshot of the ledger from which a plan knows what arrived."""

    table_uuid: str
    snapshot_id: str
    pin: str | None


@dataclass(frozen=True, slots=True)
class Places:
    """Only matches that are among the events whose words these are; or only the others."""

    words: Callable[[], pa.Table]
    among: bool

    def joined(self, source: str, words: str, name: str) -> str:
        """Answer a source whose rows have their word beside them, under this name."""
        return (
            f"{source} LEFT JOIN {words} AS {name} ON "
            f"{name}.partition = log_partition AND {name}.word = log_offset // {WORD}"
        )

    def holds(self, name: str) -> Sql:
        """Answer the condition on a row of that source."""
        bit = f"({name}.bits >> CAST(log_offset % {WORD} AS UBIGINT)) & 1::UBIGINT"
        return Sql(f"coalesce({bit}, 0) = {int(self.among)}")


class Attempted:
    """The ledger as of one snapshot, for the events of one collection on one log."""

    def __init__(
        self,
        engine: Engine,
        view: TableView,
        snapshot_id: int,
        *,
        collection: CollectionId,
        log_id: str,
    ) -> None:
        self._engine = engine
        self._view = view
        self._snapshot_id = snapshot_id
        self._collection = collection
        self._log_id = log_id

    def left(self, replay_id: str) -> pa.Table:
        """Answer the events that failed in a replay, or whose outcome there nobody knows.

        The last outcome of each decides.
        """
        told = "data.epoch AS epoch, data.attempt AS attempt, data.outcome AS outcome"
        # Most events arrive: the last outcome is looked for where it may be another one.
        return self._words(_OF_LEFT, told, sql("data.replay = {0}", value(replay_id)))

    def arrived(self, destination: str) -> pa.Table:
        """Answer the events that a destination has acknowledged in any replay."""
        there = sql("data.outcome = 'delivered' AND data.destination = {0}", value(destination))
        return self._words(_OF_ALL, "TRUE", there)

    def _words(self, template: str, more: str, where: Sql) -> pa.Table:
        with self._engine.reader() as reader:
            lake = reader.lake(self._view, snapshot_id=self._snapshot_id)
            known = {name for name, _ in reader.shape(lake).fields}
            if not known >= _NEEDED:
                return NO_PLACES
            statement = sql(template, self._outcomes(lake, known, more, where))
            return reader.rows(statement.text, statement.parameters).cast(_SCHEMA)

    def _outcomes(self, lake: str, known: set[str], more: str, where: Sql) -> Sql:
        """Answer the outcomes of the collection's events, with a row for each place."""
        last = 'coalesce(data."last", data."offset")' if "last" in known else 'data."offset"'
        # Rows of earlier releases do not say which log they speak of.
        ours = "data.log_id IS NULL OR data.log_id = {0}"
        on_log = sql(f"({ours})", value(self._log_id)) if "log_id" in known else ALWAYS
        condition = all_of(
            Sql("data.kind = 'outcome'"),
            sql("data.team = {0}", value(self._collection.team)),
            sql("data.collection = {0}", value(self._collection.name)),
            on_log,
            where,
        )
        columns = (
            "CAST(data.partition AS BIGINT) AS partition, "
            f'unnest(range(CAST(data."offset" AS BIGINT), {last} + 1)) AS place, {more}'
        )
        text = f"SELECT {columns} FROM {lake} WHERE {condition.text}"  # noqa: S608 - our own
        return Sql(text, condition.parameters)


def source_of(reader: Reader, lake: str, places: tuple[Places, ...]) -> tuple[str, Sql]:
    """Answer what to write behind FROM for rows that are bounded by places, and the condition."""
    source, conditions = lake, []
    for number, each in enumerate(places):
        name = f"told_{number}"
        source = each.joined(source, reader.arrow(each.words()), name)
        conditions.append(each.holds(name))
    return source, all_of(*conditions)
