"""Keeping the search index up to date: from the lake to the index, span by span.

Nothing here knows Dagster. Whatever goes wrong with an index, landing goes on: the index lags, and
searches read in the lake what it does not have yet. A run may be killed at any point; the state in
the index says where the next one goes on.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import msgspec
import pyarrow as pa
import structlog

from assets.landing import Trouble
from lakehouse import Lake, TableView
from lakehouse.sql import Engine
from penstock.envelope import Clock, CollectionId, Micros, Span
from penstock.errors import EngineUnavailable, PenstockError, TableRolledBack, Unavailable
from penstock.faults import fault
from penstock.query.pieces import all_of, sql, value
from penstock.search import Place
from penstock.search.documents import COLUMNS_READ, Document, Documents, told
from penstock.search.index import (
    FIRST_DAY,
    FORMAT,
    Gone,
    Index,
    Known,
    Moved,
    Role,
    Row,
    State,
    last_moment,
)

log = structlog.get_logger()

_SECOND: Micros = 1_000_000
_DAY: Micros = 86_400 * _SECOND

# Rows that are read, and bytes of documents that are kept until they are sent.
_ROWS_AT_ONCE = 200
_BYTES_AT_ONCE = 6 << 20

_SETTLED: Micros = 3_600 * _SECOND
"""How long after a day its index is merged: by then all of it has landed."""

_REST_SECONDS = 10.0
"""How long indexing rests after the engine did not answer."""

_LAST_SECONDS = 5.0
"""How long a run that ends waits for the index to catch up: nobody lands meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A span that is searchable in the index."""

    collection: CollectionId
    span: Span
    rows: int
    refused: int
    """Rows that the engine did not take: every search looks them up in the lake."""
    bytes: int
    """What was sent."""
    seconds: float
    lag: Micros
    """How old the oldest event of the span was when it was searchable."""
    waiting: int
    """Landed positions behind the span."""


class Indexing:
    """Indexes the collections of one log. One thread uses it; others may index beside it."""

    def __init__(
        self,
        index: Index,
        lake: Lake,
        engine: Engine,
        *,
        log_id: Callable[[CollectionId], str],
        clock: Clock,
        days: int = 0,
        span: int = 20_000,
        always_json: Callable[[CollectionId], bool] = lambda _: True,
        chance: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Index `span` positions of a partition at once, and keep the last `days` (0: all).

        `always_json` says whether a collection's payloads landed as the JSON that they are.
        """
        self._index = index
        self._lake = lake
        self._engine = engine
        self._log_id = log_id
        self._clock = clock
        self._days = days
        self._span = span
        self._always_json = always_json
        self._chance = chance
        self._documents = Documents()

    def collections(self) -> list[CollectionId]:
        """Answer every collection that has a table."""
        return self._lake.collections()

    def index_once(self, collection: CollectionId) -> Indexed | None:
        """Index one span of the collection; None if the index has all that has landed.

        An index that is not whole, or not of this table, is begun anew. Raises `TableRolledBack` if
        the table was rolled back, `Unavailable` if trying again later can help.
        """
        view = self._view(collection)
        if view is None:
            return None
        for _ in self._lake.patience.attempts():
            try:
                known = self._usable(collection, view)
                self._check(collection, known.state)
                return self._step(collection, view, known, "used")
            except Gone:
                self._anew(collection, view, self._state(collection), "used")
                self.sweep(collection)
            except Moved:
                log.debug("another process moved the index", collection=str(collection))
        raise EngineUnavailable(f"others kept indexing {collection} beside this process")

    def reindex(self, collection: CollectionId) -> Iterator[Indexed]:
        """Make the index of the collection again from the lake, beside the one that is used.

        Searches use the old one until the new one has all that has landed. One that was broken
        off is gone on with.
        """
        view = self._view(collection)
        if view is None:
            return
        coming: Known | None = self._coming(collection, view)
        while view is not None and coming is not None:
            done = None
            try:
                self._check(collection, coming.state)
                done = self._step(collection, view, coming, "coming")
            except Gone:
                self._begin_again(collection, view, coming)
            except Moved:
                log.debug("another process moved the index", collection=str(collection))
            if done is not None:
                yield done
            view, coming = self._view(collection), self._state(collection, "coming")
            if view is not None and coming is not None and not self._where(view, coming.state):
                break
        self._use(collection)

    def _coming(self, collection: CollectionId, view: TableView) -> Known:
        """Answer the state of the index that is being made, which is begun unless there is one."""
        for _ in self._lake.patience.attempts():
            used, coming = self._state(collection), self._state(collection, "coming")
            same = used and coming and used.state.generation == coming.state.generation
            if coming is not None and not same and self._fits(coming.state, view):
                return coming
            try:
                return self._anew(collection, view, coming, "coming")
            except Moved:
                log.debug("another process begins the index", collection=str(collection))
        raise EngineUnavailable(f"the index of {collection} kept moving")

    def _begin_again(self, collection: CollectionId, view: TableView, coming: Known) -> None:
        try:
            self._anew(collection, view, coming, "coming")
        except Moved:
            log.debug("another process begins the index", collection=str(collection))

    def retain(self, collection: CollectionId) -> int:
        """Drop the days that are older than is kept; answer how many indices that were."""
        return self._drop_before(collection, self._since())

    def forget_before(self, collection: CollectionId, before: Micros) -> int:
        """Drop what was received before a moment; answer how many indices that were.

        From then on searches look for it in the lake only. Raises `EngineUnavailable` where others
        keep moving the index, or it is away.
        """
        dropped = 0
        for _ in self._lake.patience.attempts():
            dropped += self._drop_before(collection, max(before, self._since()))
            known = self._state(collection)
            if known is None or known.state.since >= before:
                return dropped
        raise EngineUnavailable(f"the index of {collection} kept moving")

    def _drop_before(self, collection: CollectionId, since: Micros) -> int:
        known = self._state(collection)
        if known is None or since <= known.state.since:
            return 0
        old = [name for name in known.state.days if last_moment(name) <= since]
        kept = {name: id_ for name, id_ in known.state.days.items() if name not in old}
        state = msgspec.structs.replace(known.state, since=since, days=kept)
        try:
            # Before they are deleted: a search must not miss what it believes to be there.
            self._index.write(collection, state, known)
        except Moved:
            return 0  # the next time
        self._index.drop(old)
        return len(old)

    def sweep(self, collection: CollectionId) -> int:
        """Delete what is left of indices that were replaced or broken off."""
        # The names first: an index that is begun meanwhile is not among them.
        names = self._index.ids(collection)
        roles: tuple[Role, Role] = ("used", "coming")
        states = [self._state(collection, role) for role in roles]
        kept = {known.state.generation for known in states if known is not None}
        left = [name for name in names if name.rpartition("-")[2] not in kept]
        self._index.drop(left)
        return len(left)

    def merge(self, collection: CollectionId) -> int:
        """Merge the indices of days that are over; answer how many were not merged yet.

        While a day is filled the engine keeps what it was sent, and searches many small parts.
        """
        known = self._state(collection)
        if known is None:
            return 0
        now = self._clock()
        over = [name for name in known.state.days if last_moment(name) + _SETTLED <= now]
        return self._index.merge(over)

    # Where an index is

    def _view(self, collection: CollectionId) -> TableView | None:
        view = self._lake.view(collection)
        if view is not None and view.rolled_back:
            raise TableRolledBack(f"the table of {collection} was rolled back")
        return view

    def _state(self, collection: CollectionId, role: Role = "used") -> Known | None:
        return self._index.state(collection, role)

    def _usable(self, collection: CollectionId, view: TableView) -> Known:
        known = self._state(collection)
        if known is not None and self._fits(known.state, view):
            return known
        if known is not None:
            log.warning("the index is of another table", collection=str(collection))
        return self._anew(collection, view, known, "used")

    def _fits(self, state: State, view: TableView) -> bool:
        """Say whether all that is in the index is in the table."""
        log_id = self._log_id(view.collection)
        same = (state.format, state.log_id, state.table) == (FORMAT, log_id, view.uuid)
        return same and all(end <= view.mark(log_id, p).next for p, end in state.marks.items())

    def _anew(
        self, collection: CollectionId, view: TableView, before: Known | None, role: Role
    ) -> Known:
        state = State(
            generation=self._chance(4).hex(),
            log_id=self._log_id(collection),
            table=view.uuid,
            marks={},
            days={},
            since=self._since(),
        )
        log.info("an index is begun", collection=str(collection), generation=state.generation)
        return self._index.write(collection, state, before, role)

    def _since(self) -> Micros:
        if not self._days:
            return FIRST_DAY
        return (self._clock() // _DAY - self._days + 1) * _DAY

    def _check(self, collection: CollectionId, state: State) -> None:
        """Raise `Gone` unless every index is there, and is the one that was filled."""
        found = self._index.ids(collection, state.generation)
        if any(found.get(name) != id_ for name, id_ in state.days.items()):
            log.error("a part of the index is gone", collection=str(collection))
            raise Gone

    def _where(self, view: TableView, state: State) -> tuple[int, int, int] | None:
        """Answer partition, start and end of what the table has and the index has not."""
        for mark in view.marks:
            start = state.next(mark.partition)
            if mark.log_id == state.log_id and start < mark.next:
                return mark.partition, start, mark.next
        return None

    def _use(self, collection: CollectionId) -> None:
        """Put the index that is coming in place of the one in use, unless another process has."""
        for _ in self._lake.patience.attempts():
            coming = self._state(collection, "coming")
            if coming is None:
                return
            try:
                self._index.write(collection, coming.state, self._state(collection))
                fault("index_swapped")
                self._index.forget(collection, coming, "coming")
            except Moved:
                continue
            self.sweep(collection)
            return
        raise EngineUnavailable(f"the index of {collection} kept moving")

    # From rows to documents

    def _step(
        self, collection: CollectionId, view: TableView, known: Known, role: Role
    ) -> Indexed | None:
        began, state = self._clock(), known.state
        where = self._where(view, state)
        if where is None:
            return None
        partition, start, end = where
        upto = min(end, start + self._span)
        filling = _Filling(self._index, collection, state)
        for batch in self._rows(view, partition, start, upto):
            filling.take(self._documents.of(batch))
        filling.send()
        fault("index_stored")
        self._index.refresh(sorted(filling.touched))
        fault("index_refreshed")
        days = self._with_new(collection, state, filling.touched)
        moved = msgspec.structs.replace(state, marks={**state.marks, partition: upto}, days=days)
        self._index.write(collection, moved, known, role)
        now = self._clock()
        return Indexed(
            collection=collection,
            span=Span(collection, partition, start, upto),
            rows=filling.rows,
            refused=filling.refused,
            bytes=filling.bytes,
            seconds=(now - began) / _SECOND,
            lag=0 if filling.oldest is None else max(0, now - filling.oldest),
            waiting=sum(
                max(0, mark.next - moved.next(mark.partition))
                for mark in view.marks
                if mark.log_id == state.log_id
            ),
        )

    def _rows(
        self, view: TableView, partition: int, start: int, end: int
    ) -> Iterator[pa.RecordBatch]:
        here = all_of(
            sql("log_id = {0}", value(self._log_id(view.collection))),
            sql("log_partition = {0}", value(partition)),
            sql("log_offset >= {0}", value(start)),
            sql("log_offset < {0}", value(end)),
        )
        columns = COLUMNS_READ
        if not self._always_json(view.collection):
            columns = f"{columns}, {told(view.shape)}"
        with self._engine.reader() as reader:
            text = f"SELECT {columns} FROM {reader.lake(view)} WHERE {here.text}"  # noqa: S608
            yield from reader.batches(text, here.parameters, rows=_ROWS_AT_ONCE)

    def _with_new(
        self, collection: CollectionId, state: State, touched: Iterable[str]
    ) -> dict[str, str]:
        """Answer the indices of the state and those that came, with the ids of all."""
        new = [name for name in touched if name not in state.days]
        if not new:
            return state.days
        found = self._index.ids(collection, state.generation)
        if any(name not in found for name in new):
            raise Gone
        return {**state.days, **{name: found[name] for name in new}}


class _Filling:
    """Sends documents to the indices of their days, some at a time."""

    def __init__(self, index: Index, collection: CollectionId, state: State) -> None:
        self._index = index
        self._collection = collection
        self._state = state
        self._names: dict[int, str] = {}
        self._waiting: list[Row] = []
        self._size = 0
        self.touched: set[str] = set()
        self.rows = self.refused = self.bytes = 0
        self.oldest: Micros | None = None

    def take(self, documents: Iterable[Document]) -> None:
        """Take documents in; those of days that are not kept are left out."""
        log_id = self._state.log_id
        for document in documents:
            if document.at < self._state.since:
                continue
            place = Place(*document[:3])
            name = self._names.get(document.at // _DAY) or self._name(document.at)
            id_ = f"{log_id}:{document.partition}:{document.offset}"
            self._waiting.append(Row(name, id_, place, document.body))
            self._size += len(document.body)
            if self.oldest is None or document.at < self.oldest:
                self.oldest = document.at
            if self._size >= _BYTES_AT_ONCE:
                self.send()

    def send(self) -> None:
        """Send what was taken."""
        if self._waiting:
            self.refused += self._index.add(self._waiting)
            self.rows += len(self._waiting)
            self.bytes += self._size
        self._waiting, self._size = [], 0

    def _name(self, at: Micros) -> str:
        name = self._index.name(self._collection, self._state.generation, at)
        if name not in self._state.days:
            self._index.create(name)
        self._names[at // _DAY] = name
        self.touched.add(name)
        return name


class Beside:
    """Indexes in a thread of its own what a run lands, and never keeps the run from landing."""

    def __init__(
        self, indexing: Indexing, *, clock: Clock, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._indexing = indexing
        self._clock = clock
        self._steady = steady
        self._waiting: deque[CollectionId] = deque()
        self._done: deque[Indexed | Trouble] = deque(maxlen=10_000)
        self._woken = threading.Event()
        self._ending: float | None = None
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)

    def landed(self, collection: CollectionId) -> None:
        """Let it know that there is something to index."""
        self._waiting.append(collection)
        self._woken.set()

    def told(self) -> Iterator[Indexed | Trouble]:
        """Answer, once, what was done and what went wrong."""
        while self._done:
            yield self._done.popleft()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(_LAST_SECONDS if kind is None else 0.0)

    def end(self, seconds: float) -> None:
        """End when everything is indexed, or after so many seconds."""
        self._ending = self._steady() + seconds
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(seconds + _LAST_SECONDS)

    def _over(self) -> bool:
        return self._ending is not None and self._steady() >= self._ending

    def _run(self) -> None:
        for collection in self._collections():
            for outcome in catch_up(
                self._indexing, [collection], clock=self._clock, until=self._over
            ):
                self._done.append(outcome)
                if isinstance(outcome, Trouble):
                    self._rest(collection)

    def _collections(self) -> Iterator[CollectionId]:
        """Answer what to index next, until the end."""
        while not self._over():
            if self._waiting:
                collection = self._waiting.popleft()
                while collection in self._waiting:
                    self._waiting.remove(collection)
                yield collection
            elif self._ending is not None:
                return
            else:
                self._woken.wait(1.0)
                self._woken.clear()

    def _rest(self, collection: CollectionId) -> None:
        """Leave the engine alone for a while, then try again."""
        end = self._steady() + _REST_SECONDS
        while self._ending is None and self._steady() < end:
            self._woken.wait(1.0)
            self._woken.clear()
        if self._ending is None:
            self._waiting.append(collection)


def catch_up(
    indexing: Indexing,
    collections: Iterable[CollectionId],
    *,
    clock: Clock,
    until: Callable[[], bool] = lambda: False,
) -> Iterator[Indexed | Trouble]:
    """Index everything that has landed; answer each span and each trouble.

    What goes wrong with one collection does not stop the others; an engine that does not answer
    ends it, for they are all on that one.
    """
    for collection in collections:
        try:
            while not until() and (done := indexing.index_once(collection)) is not None:
                log.info("rows indexed", span=str(done.span), rows=done.rows, refused=done.refused)
                yield done
        except Exception as error:  # noqa: BLE001 - one collection must not stop the others
            known = isinstance(error, PenstockError)
            log.warning(
                "not indexed",
                collection=str(collection),
                reason=str(error) if known else type(error).__name__,
            )
            yield Trouble(collection=collection, error=error, again_at=clock())
            if isinstance(error, Unavailable):
                return
