"""A contract tried on past events before it is switched on.

What has landed goes through landing's own conversion against the present columns, and nothing is
written. The events are read a few hundred at a time, and what is remembered of them is counts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import Lake, TableView
from lakehouse.sql import Engine, Reader
from penstock.codec import LOG_SCHEMA
from penstock.envelope import CollectionId, Micros
from penstock.schema.convert import Change, Converted, Rules, TooWide, convert
from penstock.schema.shape import EMPTY, Struct
from penstock.vocabulary import Contract

MOST_CAUSES = 1_000
"""Different causes that are told apart: whoever sends events also chooses their keys."""

LONGEST_PATH = 1_024
"""Characters of a path that are told."""

_EXAMPLES = 3
_ROWS_AT_ONCE = 500
_MOST_CELLS = 4_000_000

Outcome = Literal["misfit", "dropped", "quarantine"]
"""What becomes of a leaf without a column, or of its event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why events would not be rows with a column for each leaf, and some of them."""

    outcome: Outcome
    stage: str | None
    """Of quarantine."""
    reason: str
    path: str | None
    """The leaf without a column; None where the reason is another one."""
    events: int
    examples: tuple[str, ...]
    """Ids of the first such events, three at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of the past events so far.

    `events` is the sum of `whole`, `misfits`, `dropped` and `quarantined`. What explains them,
    from `columns` on, is told when it is `done`.
    """

    contract: Contract
    wanted: int
    """How many there are to be tried, about: some may land or expire meanwhile."""
    events: int
    whole: int
    """Rows with a column for each leaf."""
    misfits: int
    """Rows with leaves beside their columns."""
    dropped: int
    """Rows with leaves that only the payload has."""
    quarantined: int
    columns: tuple[Change, ...]
    """The changes of columns, with `evolve`."""
    causes: tuple[Cause, ...]
    """The most frequent ones first. An event with several misfits has several."""
    uncounted: int
    """Events with a cause that is not among them, because there are too many."""
    done: bool


@dataclass(slots=True)
class _Tally:
    events: int = 0
    examples: list[str] = field(default_factory=list)


_Key = tuple[Outcome, str | None, str, str | None]


class Tallying:
    """Converts batch by batch, and counts."""

    def __init__(self, contract: Contract, rules: Rules, shape: Struct) -> None:
        """Begin with the shape; `rules` are those of the collection but for the contract."""
        self._contract = contract
        # What would be dropped are the misfits of a frozen collection.
        self._rules = replace(rules, contract="freeze" if contract == "drop_value" else contract)
        self._shape = shape
        self._columns: list[Change] = []
        self._causes: dict[_Key, _Tally] = {}
        self._events = self._beside = self._quarantined = self._uncounted = 0

    def take(self, batch: pa.RecordBatch) -> None:
        """Convert a batch of `codec.LOG_SCHEMA`, and count what becomes of its events."""
        try:
            converted = convert(batch, self._shape, self._rules, most_cells=_MOST_CELLS)
        except TooWide as wide:
            self.take(batch.slice(0, wide.rows))
            self.take(batch.slice(wide.rows))
            return
        self._shape = converted.shape
        self._columns += converted.changes
        self._events += batch.num_rows
        self._count_misfits(converted.rows)
        self._count_quarantined(converted)

    def trial(self, wanted: int, *, done: bool) -> Trial:
        """Answer the counts so far, and what explains them when it is done."""
        causes = [
            Cause(
                outcome=outcome,
                stage=stage,
                reason=reason,
                path=path,
                events=tally.events,
                examples=tuple(tally.examples),
            )
            for (outcome, stage, reason, path), tally in self._causes.items()
            if done
        ]
        dropping = self._contract == "drop_value"
        return Trial(
            contract=self._contract,
            wanted=max(wanted, self._events),
            events=self._events,
            whole=self._events - self._beside - self._quarantined,
            misfits=0 if dropping else self._beside,
            dropped=self._beside if dropping else 0,
            quarantined=self._quarantined,
            columns=tuple(self._columns) if done else (),
            causes=tuple(sorted(causes, key=lambda cause: -cause.events)),
            uncounted=self._uncounted if done else 0,
            done=done,
        )

    def _count_misfits(self, rows: pa.Table) -> None:
        misfits = rows.column("misfits").combine_chunks()
        self._beside += len(misfits) - misfits.null_count
        if misfits.null_count == len(misfits):
            return
        outcome: Outcome = "dropped" if self._contract == "drop_value" else "misfit"
        ids = rows.column("event_id")
        leaves = pa.table(
            {
                "row": pc.list_parent_indices(misfits),
                "path": pc.struct_field(pc.list_flatten(misfits), "path"),
            }
        )
        # A list may have the same misfit a thousand times: it is one event.
        events = leaves.group_by(["path", "row"]).aggregate([]).sort_by("row")
        for path, found in _grouped(events):
            examples = [ids[row].as_py() for row in found[:_EXAMPLES]]
            self._count((outcome, None, "misfit", _shortened(path)), len(found), examples)

    def _count_quarantined(self, converted: Converted) -> None:
        for row in converted.quarantined.select(
            ["event_id", "stage", "reason", "detail"]
        ).to_pylist():
            if self._contract == "drop_value" and row["reason"] == "too_many_misfits":
                # Nothing is kept beside then, so there are never too many.
                self._beside += 1
                key: _Key = ("dropped", None, "misfit", None)
            else:
                self._quarantined += 1
                path = row["detail"] if row["stage"] == "contract" else None
                key = ("quarantine", row["stage"], row["reason"], path)
            self._count(key, 1, [row["event_id"]])

    def _count(self, key: _Key, events: int, examples: Sequence[str]) -> None:
        tally = self._causes.get(key)
        if tally is None:
            if len(self._causes) == MOST_CAUSES:
                self._uncounted += events
                return
            tally = self._causes[key] = _Tally()
        tally.events += events
        tally.examples += examples[: _EXAMPLES - len(tally.examples)]


def _shortened(path: str) -> str:
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"


def _grouped(events: pa.Table) -> Iterator[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for path, row in zip(events["path"].to_pylist(), events["row"].to_pylist(), strict=True):
        found.setdefault(path, []).append(row)
    yield from found.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Which past events: received from `since` until before `until`, `sample` of them at most."""

    since: Micros | None = None
    until: Micros | None = None
    sample: int | None = None


class Trials:
    """Tries contracts on what has landed. Threads may share it."""

    def __init__(
        self, lake: Lake, engine: Engine, *, rules: Callable[[CollectionId], Rules]
    ) -> None:
        """Read with the engine; `rules` answers those of a collection as landing has them."""
        self._lake = lake
        self._engine = engine
        self._rules = rules

    def run(
        self,
        collection: CollectionId,
        contract: Contract,
        past: Past,
        *,
        rules: Rules | None = None,
    ) -> Generator[Trial]:
        """Answer the counts again and again, the last time with `done`.

        `rules` stand for those of the collection, where another format is tried as well.
        Rows and quarantined events are tried alike, but for those whose senders wished them in
        quarantine: no contract has a say in that. Of a sample every so manieth position of the
        log is taken, so that it is spread over the time. Raises as `Rules` are asked for,
        `EngineUnavailable` if the tables cannot be read.
        """
        view = self._lake.view(collection)
        rules = rules or self._rules(collection)
        tallying = Tallying(contract, rules, view.shape if view else EMPTY)
        wanted = 0
        with ExitStack() as opened:
            reader = opened.enter_context(self._engine.reader())
            sources = self._sources(collection, view, reader)
            where, parameters = _condition(past)
            wanted = sum(_count(reader, source, where, parameters) for source in sources)
            if past.sample is not None and wanted > past.sample:
                where += f" AND log_offset % {-(-wanted // past.sample)} = 0"
                wanted = past.sample
            yield tallying.trial(wanted, done=False)
            for batch in chain.from_iterable(
                _batches(reader, source, where, parameters) for source in sources
            ):
                tallying.take(batch)
                yield tallying.trial(wanted, done=False)
        yield tallying.trial(0, done=True)

    def _sources(
        self, collection: CollectionId, view: TableView | None, reader: Reader
    ) -> Sequence[str]:
        """Answer what to write behind FROM for the rows, and for those in quarantine."""
        aside = self._lake.quarantine_view(collection)
        sources = [] if view is None or not view.rows else [reader.lake(view)]
        if aside is not None and aside.rows:
            sources.append(f"(SELECT * FROM {reader.lake(aside)} WHERE stage <> 'wish')")  # noqa: S608
        return sources


def _condition(past: Past) -> tuple[str, list[object]]:
    text, parameters = "TRUE", list[object]()
    for sign, moment in ((">=", past.since), ("<", past.until)):
        if moment is not None:
            text += f" AND received_at {sign} make_timestamptz(?)"
            parameters.append(moment)
    return text, parameters


def _count(reader: Reader, source: str, where: str, parameters: Sequence[object]) -> int:
    found = reader.rows(f"SELECT count(*) AS n FROM {source} WHERE {where}", parameters)  # noqa: S608
    count: int = found["n"][0].as_py()
    return count


def _batches(
    reader: Reader, source: str, where: str, parameters: Sequence[object]
) -> Iterator[pa.RecordBatch]:
    """Answer the events as landing reads them; of their envelopes only what it looks at."""
    text = f"SELECT event_id, content_type, payload FROM {source} WHERE {where}"  # noqa: S608
    for found in reader.batches(text, parameters, rows=_ROWS_AT_ONCE):
        columns = {
            "event_id": found.column("event_id").cast(pa.string()),
            "content_type": found.column("content_type").cast(pa.string()),
            "payload": found.column("payload").cast(pa.binary()),
            "quarantine_wish": pa.repeat(pa.scalar(value=False), found.num_rows),
            "named": pa.repeat(pa.scalar(value=False), found.num_rows),
        }
        yield pa.RecordBatch.from_arrays(
            [
                columns[name] if name in columns else pa.nulls(found.num_rows, kind)
                for name, kind in zip(LOG_SCHEMA.names, LOG_SCHEMA.types, strict=True)
            ],
            schema=LOG_SCHEMA,
        )
