"""The part of a search that an index answers, and when it may.

An index holds the rows of a table before its marks; they never change. So the state is read first
and the cut is taken after, and whatever happens to be in the index beyond the state's marks is left
out: the answer is the same as if the lake had been read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import structlog

from lakehouse.listing import EVER
from penstock.envelope import CollectionId, Micros
from penstock.errors import Unavailable
from penstock.query import Query
from penstock.query.elastic import (
    ALL,
    OFFSET,
    PARTITION,
    PATHS,
    RECEIVED,
    UNREAD,
    Bounds,
    Dsl,
    all_of,
    any_of,
    compile_elastic,
    in_range,
    negated,
)
from penstock.query.pieces import Sql, sql, value
from penstock.query.pieces import any_of as any_sql
from penstock.query.tokens import REPEATS
from penstock.search import DuplicatesShown, Place
from penstock.search.cut import Cut
from penstock.search.index import (
    FIRST_DAY,
    FORMAT,
    Gone,
    Index,
    Question,
    State,
    Unanswerable,
    last_moment,
)

log = structlog.get_logger()

REST_SECONDS = 10.0
"""How long an index is left alone after it did not answer: each time costs its whole time-out."""

MOST_DOUBTS = 5_000
"""Events that are looked up because the index cannot decide; with more of them the lake is read."""

MOST_PLACES = 5_000
"""Events whose places are told at once, to be read there."""


class NoAnswer(Exception):
    """The index does not answer this; `away` if it would when it were there."""

    def __init__(self, reason: str, *, away: bool) -> None:
        super().__init__(reason)
        self.away = away


class Shortcuts:
    """The index as searches use it, left alone for a while after it did not answer.

    Threads may share it.
    """

    def __init__(self, index: Index | None, steady: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._steady = steady
        self._ask_at = steady()
        self._away = False
        self._guard = threading.Lock()

    def begin(self, collection: CollectionId) -> State | None:
        """Answer how far the index is; to be asked before the cut is taken.

        None where there is none. Raises `NoAnswer` while it is away.
        """
        if self._index is None:
            return None
        with self._guard:
            now = self._steady()
            if now < self._ask_at:
                raise NoAnswer("the index did not answer a moment ago", away=True)
            if self._away:
                self._ask_at = now + REST_SECONDS  # this one tries it for all
        with self.asked():
            known = self._index.state(collection)
        with self._guard:
            self._away, self._ask_at = False, now
        return known.state if known is not None and known.state.format == FORMAT else None

    def part(
        self,
        state: State | None,
        cut: Cut,
        query: Query,
        *,
        since: Micros | None,
        until: Micros | None,
        duplicates: DuplicatesShown = "include",
    ) -> Part | None:
        """Answer the part of a search that the index answers, None if it cannot any."""
        table = cut.table
        if self._index is None or state is None or table is None:
            return None
        fits = state.log_id == cut.log_id and state.table == table.uuid
        if not fits or any(at > table.mark(cut.log_id, p).next for p, at in state.marks.items()):
            return None  # of another table, or of one that was rolled back since
        ends = {p: min(end, state.next(p)) for p, end in cut.ends.items() if state.next(p)}
        if not any(ends.values()) or not state.days:
            return None
        # Of days that the table dropped the index may have some events, or all of them still.
        if table.expired_before:
            state = msgspec.structs.replace(state, since=max(state.since, table.expired_before))
        return Part(
            self, self._index, state, ends, compile_elastic(query), since, until, duplicates
        )

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Turn what an index raises within the block into `NoAnswer`."""
        try:
            yield
        except Unavailable as error:
            with self._guard:
                self._away, self._ask_at = True, self._steady() + REST_SECONDS
            log.warning("the index is away, the lake is searched", reason=str(error))
            raise NoAnswer(str(error), away=True) from error
        except Gone as error:
            log.warning("the index is not whole, the lake is searched")
            raise NoAnswer("a part of the index is gone", away=True) from error
        except Unanswerable as error:
            log.info("the index cannot answer, the lake is searched", reason=str(error))
            raise NoAnswer(str(error), away=False) from error


class Rest(NamedTuple):
    """Rows of a table: the condition for them, and until when they were received at the latest."""

    where: Sql
    last: Micros


@dataclass(frozen=True, slots=True)
class Part:
    """What the index answers of one search: the rows before `ends`. Raises `NoAnswer`."""

    shortcuts: Shortcuts
    index: Index
    state: State
    ends: Mapping[int, int]
    query: Bounds
    since: Micros | None
    until: Micros | None
    duplicates: DuplicatesShown

    def rest(self, cut: Cut) -> Rest | None:
        """Answer which rows of the table the index does not answer for; None if there are none."""
        table = cut.table
        assert table is not None  # noqa: S101 - there is no part without one
        conditions = [
            sql("(log_partition = {0} AND log_offset >= {1})", value(p), value(self._end(p)))
            for p, end in sorted(cut.ends.items())
            if min(end, table.mark(cut.log_id, p).next) > self._end(p)
        ]
        if any(mark.log_id != cut.log_id for mark in table.marks):
            conditions.append(sql("log_id <> {0}", value(cut.log_id)))
        newer = bool(conditions)
        if self.state.since > FIRST_DAY and (self.since is None or self.since < self.state.since):
            before = sql("make_timestamptz({0})", value(self.state.since))
            conditions.append(sql("received_at < {0}", before))
        if not conditions:
            return None
        return Rest(any_sql(*conditions), EVER[1] if newer else self.state.since - 1)

    def first(
        self, wanted: int, *, descending: bool, after: Place | None
    ) -> tuple[list[Place], list[Place]]:
        """Answer the first places found for certain, and the places where to look."""
        certain, doubtful = self._questions(wanted, descending=descending, after=after)
        with self.shortcuts.asked():
            found, doubts = self.index.places([certain, doubtful])
        return found, self._bearable(doubts)

    def doubts(self) -> list[Place]:
        """Answer the places where to look."""
        _, doubtful = self._questions(0, descending=True, after=None)
        with self.shortcuts.asked():
            (doubts,) = self.index.places([doubtful])
        return self._bearable(doubts)

    def count(self) -> int:
        """Answer how many events are found for certain."""
        certain, _ = self._questions(0, descending=True, after=None)
        with self.shortcuts.asked():
            return self.index.count(certain)

    def counts(self, of: Sequence[Dsl]) -> list[int]:
        """Answer how many events each of these queries finds among those found for certain."""
        certain, _ = self._questions(0, descending=True, after=None)
        with self.shortcuts.asked():
            return self.index.parts(certain, of)

    def bars(self, step: Micros, since: Micros | None, until: Micros | None) -> dict[int, int]:
        """Answer how many are found for certain in each step of time that has any."""
        certain, _ = self._questions(0, descending=True, after=None)
        within = all_of([certain.query, in_range(RECEIVED, gte=since, lt=until)])
        with self.shortcuts.asked():
            return self.index.bars(Question(indices=certain.indices, query=within), step)

    def _end(self, partition: int) -> int:
        return self.ends.get(partition, 0)

    def _questions(
        self, wanted: int, *, descending: bool, after: Place | None
    ) -> tuple[Question, Question]:
        unread: Dsl = {"term": {UNREAD: True}}
        bounds = self._bounds()
        sure = all_of([*bounds, self.query.certain, negated(unread)])
        doubts = [unread]
        if not self.query.exact:
            between = all_of([self.query.possible, negated(self.query.certain)])
            doubts.append(between)
        unsure = all_of([*bounds, any_of(doubts)])
        # Of no index at all the engine would ask every index it has.
        names = [name for name in self.state.days if self._may_hold(name)]
        names = names or list(self.state.days)
        return (
            Question(indices=names, query=sure, descending=descending, after=after, size=wanted),
            Question(
                indices=names,
                query=unsure,
                descending=descending,
                after=after,
                size=MOST_DOUBTS + 1,
            ),
        )

    def _bounds(self) -> list[Dsl]:
        before = [
            all_of([{"term": {PARTITION: p}}, in_range(OFFSET, lt=end)])
            for p, end in sorted(self.ends.items())
        ]
        since = None if self.state.since == FIRST_DAY else self.state.since
        return [
            any_of(before),
            in_range(RECEIVED, gte=since) if since is not None else ALL,
            in_range(RECEIVED, gte=self.since, lt=self.until),
            *self._repeating(),
        ]

    def _repeating(self) -> Iterator[Dsl]:
        repeats: Dsl = {"term": {PATHS: REPEATS}}
        if self.duplicates == "fold":
            yield negated(repeats)
        elif self.duplicates == "only":
            yield repeats

    def _may_hold(self, name: str) -> bool:
        """Say whether an index is of a day that is asked for."""
        end = last_moment(name)
        return (self.since is None or self.since < end) and (
            self.until is None or self.until > end - _DAY
        )

    def _bearable(self, doubts: list[Place]) -> list[Place]:
        if len(doubts) > MOST_DOUBTS:
            raise NoAnswer("the index leaves too much open", away=False)
        return doubts


_DAY: Micros = 86_400_000_000
