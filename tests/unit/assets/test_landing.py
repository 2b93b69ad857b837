"""Landing: when a collection is due, what one batch is, and what goes wrong with one of many."""

from __future__ import annotations

import errno
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import FLIGHTS, NOON, event
from hypothesis import given
from hypothesis import strategies as st
from lakes import (
    BROKEN,
    MAIN,
    Tampered,
    append,
    batch_of,
    column,
    everywhere,
    landing,
    log_of,
    mark_of,
    new_lake,
    numbered,
    offsets,
)
from pyiceberg.io import OutputFile
from pyiceberg.table import Table

from assets.checks import check_conservation
from assets.landing import (
    Landed,
    Landing,
    Lane,
    Limits,
    Trouble,
    as_misfits,
    back_off,
    begin,
    due,
    patience_among,
)
from assets.remedies import explained
from lakehouse import Lake, TableView
from lakehouse.files import Durable, LocalFiles, path_of
from penstock.buffer import Glance, Glanced, Kept, Portion, glanced
from penstock.buffer.memory import MemoryLog
from penstock.envelope import SYSTEM_TEAM, CollectionId, Extent, Mark, Micros, Span
from penstock.errors import (
    LogChanged,
    LogTruncated,
    LogUnavailable,
    NotFound,
    TableChanged,
    TableReplaced,
)
from penstock.schema.convert import Rules
from penstock.schema.rows import rows_schema
from penstock.schema.shape import Leaf, Struct

SECOND = 1_000_000
LIMITS = Limits()
ORDERS = CollectionId("acme", "orders")


@pytest.mark.parametrize(
    ("waiting", "oldest", "expected"),
    [(0, 10, False), (1, 1, False), (1, 2, True), (99, 0, False), (100, 0, True)],
)
def test_a_collection_is_due_with_plenty_or_with_age(
    waiting: int, oldest: Micros, expected: bool
) -> None:
    """One event must land, too, and a flood must not wait for its patience."""
    assert due(waiting, oldest, plenty=100, patience=2) is expected


def test_few_collections_wait_as_set_and_hundreds_share_a_part_of_a_core() -> None:
    """Three hundred commits of 40 ms every two seconds would take six cores.

    But their turn comes after patience: both together are not to last longer.
    """
    commit = 40_000

    assert patience_among(1, commit, LIMITS) == LIMITS.patience
    assert patience_among(12, commit, LIMITS) == LIMITS.patience
    assert patience_among(100, commit, LIMITS) == 16 * SECOND
    assert patience_among(300, commit, LIMITS) == LIMITS.most_patience - 12 * SECOND
    assert patience_among(10_000, commit, LIMITS) == LIMITS.patience
    assert patience_among(5, commit, Limits(patience=90 * SECOND)) == 90 * SECOND


@given(st.integers(0, 100_000))
def test_a_collection_in_trouble_rests_longer_but_not_for_ever(failures: int) -> None:
    """An operator who repaired it must not wait for hours."""
    rest = back_off(failures, LIMITS)

    assert LIMITS.shortest_back_off <= rest <= LIMITS.longest_back_off
    assert rest <= back_off(failures + 1, LIMITS)


EMPTY_VIEW = TableView(
    collection=FLIGHTS,
    uuid="u",
    metadata_location="m",
    snapshot_id=None,
    schema_id=0,
    shape=Struct(()),
    marks=(),
    landed_sequence=0,
    rolled_back=False,
    rows=0,
    bytes=0,
    files=0,
)


def view_with(*marks: Mark) -> TableView:
    return replace(EMPTY_VIEW, marks=marks)


def test_a_partition_without_a_mark_begins_at_its_start() -> None:
    """Kafka may get partitions later."""
    known = Mark("log", 0, 7, "f")

    starts = begin(view_with(known), "log", {0: Extent(0, 9), 1: Extent(0, 3)})

    assert starts == [known, Mark("log", 1, 0, "")]


@pytest.mark.parametrize(
    ("view", "error"),
    [
        (view_with(Mark("another", 0, 7, "f")), LogChanged),
        (view_with(Mark("log", 0, 10, "f")), LogChanged),
        (replace(EMPTY_VIEW, rolled_back=True), TableChanged),
    ],
    ids=["another log", "mark behind the end", "rolled back"],
)
def test_landing_stops_where_it_could_skip(view: TableView, error: type[Exception]) -> None:
    """Beginning anew would double everything, going on would skip it."""
    with pytest.raises(error):
        begin(view, "log", {0: Extent(0, 9)})


def test_a_batch_lands_and_says_what_it_was(tmp_path: Path) -> None:
    """Dagster and the CLI show it; the log may forget it."""
    lake = new_lake(tmp_path)
    log = log_of('{"n": 1, "o": {"c": "x"}}', BROKEN, '{"n": 2}')
    times = itertools.count(NOON + 5 * SECOND, SECOND)

    landed = landing(log, lake, clock=lambda: next(times)).land_once(FLIGHTS)

    assert landed is not None
    assert landed.collection == FLIGHTS
    assert landed.spans == (Span(FLIGHTS, 0, 0, 3),)
    assert (landed.rows, landed.quarantined, landed.waiting) == (2, 1, 0)
    assert landed.bytes == len('{"n": 1, "o": {"c": "x"}}') + len(BROKEN) + len('{"n": 2}')
    assert landed.file_bytes > 0
    assert landed.columns == 2
    assert [(change.path, change.type) for change in landed.changes] == [
        ("n", "long"),
        ("o.c", "string"),
    ]
    assert landed.lag >= 5 * SECOND
    assert landed.seconds > 0
    view = lake.view(FLIGHTS)
    assert view is not None
    assert landed.snapshot_id == view.snapshot_id
    assert log.released([FLIGHTS])[FLIGHTS] == {0: 3}


def test_nothing_waiting_makes_no_table_and_no_commit(tmp_path: Path) -> None:
    """A collection may exist for months before its first event."""
    lake = new_lake(tmp_path)
    work = landing(MemoryLog(), lake)

    assert work.land_once(FLIGHTS) is None
    assert lake.view(FLIGHTS) is None

    log = log_of(*numbered(1))
    work = landing(log, lake)
    work.land_once(FLIGHTS)
    before = lake.view(FLIGHTS)
    assert work.land_once(FLIGHTS) is None
    assert lake.view(FLIGHTS) == before


def test_a_batch_takes_no_more_than_its_bytes(tmp_path: Path) -> None:
    """Memory follows the limit, not the backlog."""
    lake = new_lake(tmp_path)
    log = log_of(*numbered(10))
    work = landing(log, lake, limits=Limits(batch_bytes=25))

    spans = []
    while landed := work.land_once(FLIGHTS):
        spans += [(span.start, span.end) for span in landed.spans]

    assert spans == [(0, 4), (4, 8), (8, 10)]
    assert offsets(lake) == list(range(10))


@pytest.mark.parametrize(
    ("payload", "cells"),
    [
        # Each new field is another column of every row.
        (lambda n: f'{{"n": {n}, "f{n % 9}": 1}}', 10),
        # One column, but each object of the list has a cell in it.
        (lambda n: f'{{"n": {n}, "l": [{{"a": 1}}, {{}}, {{}}, {{}}]}}', 5),
    ],
    ids=["fields", "lists"],
)
def test_a_batch_takes_no_more_than_its_cells(
    tmp_path: Path, payload: Callable[[int], str], cells: int
) -> None:
    """Memory follows what is built of the events, which may be a hundred times their bytes."""
    lake = new_lake(tmp_path)
    log = MemoryLog()
    log.append(FLIGHTS, [event(payload(n), id=f"e{n}", received_at=NOON) for n in range(30)])
    work = landing(log, lake, limits=Limits(batch_cells=40))

    taken = []
    while landed := work.land_once(FLIGHTS):
        taken.append(landed.rows)

    # In the first batches not all columns are known.
    assert 1 < max(taken[2:]) <= 40 // cells
    assert column(lake, "n") == list(range(30))
    assert offsets(lake) == list(range(30))


def test_more_partitions_than_rows_take_turns(tmp_path: Path) -> None:
    """A row of each could be too many, and none would land nothing for ever."""
    lake = new_lake(tmp_path)
    log = Partitioned(log_of(*numbered(2)), log_of(*numbered(2, first=10)))
    work = landing(log, lake, limits=Limits(batch_cells=1))

    spans = []
    while landed := work.land_once(FLIGHTS):
        spans += [(span.partition, span.start, span.end) for span in landed.spans]

    assert spans == [(0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 1, 2)]
    assert Counter(column(lake, "n")) == Counter([0, 1, 10, 11])


def test_collections_of_penstock_itself_land_like_others(tmp_path: Path) -> None:
    """The ledger of replays is made with Penstock's own pipe."""
    attempts = CollectionId(SYSTEM_TEAM, "replay_attempts")
    lake = new_lake(tmp_path)
    log = log_of('{"replay": "r1"}', collection=attempts)

    landed = landing(log, lake).land_once(attempts)

    assert landed is not None
    assert lake.collections() == [attempts]


class Partitioned:
    """A log of two partitions, from two logs of one; the second one's records are renumbered."""

    def __init__(self, *logs: MemoryLog) -> None:
        self._logs = logs
        self.freed: list[Mark] = []

    def log_id(self, collection: CollectionId) -> str:
        return MemoryLog().log_id(collection)

    def collections(self) -> Sequence[CollectionId]:
        return self._logs[0].collections()

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        return {p: log.extents(collection)[0] for p, log in enumerate(self._logs)}

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        return {c: {p: e.end for p, e in self.extents(c).items()} for c in collections}

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        return {c: Kept(self.log_id(c), self.extents(c)) for c in collections}

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        return [glanced(self.read, one) for one in asked]

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        here = replace(mark, partition=0)
        portion = self._logs[mark.partition].read(collection, here, end=end, max_bytes=max_bytes)
        rows = portion.rows.to_pylist()
        for row in rows:
            row["log_partition"] = mark.partition
        renumbered = type(portion.rows).from_pylist(rows, schema=portion.rows.schema)
        return Portion(renumbered, replace(portion.mark, partition=mark.partition))

    def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        self.freed = list(marks)

    def released(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        return {collection: {} for collection in collections}

    def close(self) -> None:
        pass


def test_all_partitions_land_in_one_commit(tmp_path: Path) -> None:
    """A commit for each partition would cost as many times as much."""
    lake = new_lake(tmp_path)
    log = Partitioned(log_of(*numbered(3)), log_of(*numbered(2, first=10)))

    landed = landing(log, lake).land_once(FLIGHTS)

    assert landed is not None
    assert landed.spans == (Span(FLIGHTS, 0, 0, 3), Span(FLIGHTS, 1, 0, 2))
    view = lake.view(FLIGHTS)
    assert view is not None
    assert [(mark.partition, mark.next) for mark in view.marks] == [(0, 3), (1, 2)]
    assert view.landed_sequence == 1
    assert Counter(column(lake, "n")) == Counter([0, 1, 2, 10, 11])
    assert log.freed == list(view.marks)


def test_busy_partitions_share_a_batch(tmp_path: Path) -> None:
    """Read to its end, the first would keep the second waiting, or the memory would not do."""
    lake = new_lake(tmp_path)
    log = Partitioned(log_of(*numbered(50)), log_of(*numbered(50)))

    landed = landing(log, lake, limits=Limits(batch_bytes=80)).land_once(FLIGHTS)

    assert landed is not None
    assert [len(span) for span in landed.spans] == [5, 5]


def test_who_finds_the_batch_landed_goes_on_behind_it(tmp_path: Path) -> None:
    """Two runs at once: the second one's answer is what it landed itself."""
    lake = new_lake(tmp_path)
    log = log_of(*numbered(3))
    other = landing(log, new_lake(tmp_path))

    class Overtaken(MemoryLog):
        def read(
            self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int
        ) -> Portion:
            portion = log.read(collection, mark, end=end, max_bytes=max_bytes)
            if mark.next == 0:
                other.land_once(collection)
                append(log, *numbered(2, first=3))
            return portion

        def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
            return log.extents(collection)

        def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
            log.release(collection, marks)

    landed = landing(Overtaken(), lake).land_once(FLIGHTS)

    assert landed is not None
    assert landed.spans == (Span(FLIGHTS, 0, 3, 5),)
    assert everywhere(lake) == Counter(range(5))


def test_a_schema_that_others_changed_is_converted_for_again(tmp_path: Path) -> None:
    """The batch that was read is still right; its rows are not."""
    lake = new_lake(tmp_path)
    log = log_of('{"a": 1}', '{"b": 2}')
    first = landing(log, lake, limits=Limits(batch_bytes=1))
    first.land_once(FLIGHTS)
    reads = []

    class Slow(MemoryLog):
        def read(
            self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int
        ) -> Portion:
            reads.append(mark.next)
            table = lake.table(MAIN)
            assert table is not None
            with table.update_schema() as update:
                update.rename_column(("data", "a"), "z")
            return log.read(collection, mark, end=end, max_bytes=max_bytes)

        def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
            return log.extents(collection)

        def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
            log.release(collection, marks)

    assert landing(Slow(), lake).land_once(FLIGHTS) is not None

    assert reads == [1]
    assert column(lake, "z") == [1, None]
    assert column(lake, "b") == [None, 2]


def test_a_table_that_is_replaced_while_a_run_goes_on_stops_it(tmp_path: Path) -> None:
    """The new table has no marks: everything would land a second time."""
    lake = new_lake(tmp_path)
    log = log_of(*numbered(1))
    work = landing(log, lake)
    work.land_once(FLIGHTS)
    lake.catalog.drop_table(MAIN)
    lake.create(FLIGHTS)

    with pytest.raises(TableChanged):
        work.land_once(FLIGHTS)


def test_a_table_that_vanishes_inside_a_batch_is_told_with_where_to_read_on(
    tmp_path: Path,
) -> None:
    """The batch was made for it. The next look tells what to do about the table that is there."""
    log = log_of(*numbered(2))
    landing(log, new_lake(tmp_path)).land_once(FLIGHTS)
    append(log, *numbered(2))
    lake = new_lake(
        tmp_path, lambda real: Tampered(real, before=lambda n: n == 1 and real.drop_table(MAIN))
    )
    work = landing(log, lake)

    with pytest.raises(TableChanged, match="is gone; see 'When landing has stopped' in ") as error:
        work.land_once(FLIGHTS)

    trouble = Trouble(collection=FLIGHTS, error=error.value, again_at=0)
    assert trouble.stopped
    assert trouble.reason == str(error.value)
    with pytest.raises(TableReplaced) as following:
        work.land_once(FLIGHTS)
    assert "--by adopt-table" in explained(FLIGHTS, following.value)


def test_another_log_stops_a_collection(tmp_path: Path) -> None:
    """A restored backup or a new log begins at 0 with other events."""
    lake = new_lake(tmp_path)
    landing(log_of(*numbered(2)), lake).land_once(FLIGHTS)
    other = MemoryLog("00000000-0000-0000-0000-00000000000f")
    append(other, *numbered(5))

    with pytest.raises(LogChanged):
        landing(other, lake).land_once(FLIGHTS)


def test_a_log_that_lost_what_did_not_land_stops_a_collection(tmp_path: Path) -> None:
    """Going on behind the gap would lose acknowledged events without a word."""
    lake = new_lake(tmp_path)
    log = log_of(*numbered(4))
    view = lake.create(FLIGHTS)
    log.release(FLIGHTS, [batch_of(log, view, upto=2).marks[0]])
    log.trim(NOON)
    log.trim(NOON + 3_600 * SECOND)

    with pytest.raises(LogTruncated):
        landing(log, lake).land_once(FLIGHTS)


class History:
    """Keeps schema versions; `away` lets it fail."""

    def __init__(self) -> None:
        self.entries: list[tuple[CollectionId, list[str]]] = []
        self.away: Exception | None = None

    def add_schema_version(
        self, collection: CollectionId, at: Micros, changes: Sequence[Mapping[str, object]]
    ) -> int:
        if self.away:
            raise self.away
        self.entries.append((collection, [str(change["path"]) for change in changes]))
        return len(self.entries)


def test_new_columns_are_told_once_and_in_order(tmp_path: Path) -> None:
    """People ask when a column came, and which event brought it."""
    lake = new_lake(tmp_path)
    history = History()
    log = log_of('{"a": 1}', '{"a": 2}', '{"b": 1, "c": 2}')
    work = landing(log, lake, history=history, limits=Limits(batch_bytes=1))

    while work.land_once(FLIGHTS):
        pass

    assert history.entries == [(FLIGHTS, ["a"]), (FLIGHTS, ["b", "c"])]


def test_landing_goes_on_while_nobody_takes_the_history(tmp_path: Path) -> None:
    """The metadata database may be away for an hour; what it missed it gets."""
    lake = new_lake(tmp_path)
    history = History()
    history.away = LogUnavailable("away")
    log = log_of('{"a": 1}', '{"b": 1}', '{"b": 2}')
    work = landing(log, lake, history=history, limits=Limits(batch_bytes=1))

    assert work.land_once(FLIGHTS)
    assert work.land_once(FLIGHTS)
    history.away = None
    assert work.land_once(FLIGHTS)

    assert history.entries == [(FLIGHTS, ["a"]), (FLIGHTS, ["b"])]
    assert mark_of(lake).next == 3


def test_a_collection_that_the_history_does_not_know_lands(tmp_path: Path) -> None:
    """Penstock's own collections are in no list."""
    history = History()
    history.away = NotFound("collection", "x")
    log = log_of('{"a": 1}')

    assert landing(log, new_lake(tmp_path), history=history).land_once(FLIGHTS)
    assert history.entries == []


def test_a_row_that_would_be_quarantined_today_becomes_a_row_all_the_same() -> None:
    """Its batch was begun before, and main was where it belonged."""
    log = MemoryLog()
    log.append(FLIGHTS, [event('{"a": 1, "b": 2}', quarantine=True), event(BROKEN)])
    batch = batch_of(log, EMPTY_VIEW)
    assert batch.converted.quarantined.num_rows == 2
    shape = Struct((("a", Leaf("long")),))

    rows = as_misfits(
        batch.converted.quarantined, rows_schema(shape), shape=shape, rules=Rules()
    ).to_pylist()

    assert [row["data"] for row in rows] == [{"a": 1}, None]
    assert [row["misfits"] for row in rows] == [[{"path": "b", "value": "2"}], None]


@dataclass
class Hand:
    """A clock that only waiting moves."""

    now: Micros = NOON + 10 * SECOND

    def __call__(self) -> Micros:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def drained(
    log: MemoryLog, folder: Path, hand: Hand, *, idle: Micros = 5 * SECOND, **more: object
) -> list[Landed | Trouble]:
    """Drain until the log has been idle, and answer everything that was yielded."""
    work = landing(log, new_lake(folder), clock=hand, wait=hand.wait)
    return list(
        work.drain(log.collections, until=lambda: hand.now > NOON + 600 * SECOND, idle=idle)
    )


def test_a_drain_lands_everything_and_ends_when_idle(tmp_path: Path) -> None:
    """A run that never ended would keep its lane from being restarted."""
    log = log_of(*numbered(3))
    append(log, *numbered(2), collection=ORDERS)
    hand = Hand()

    found = drained(log, tmp_path, hand)

    assert [(item.collection, item.rows) for item in found if isinstance(item, Landed)] == [
        (ORDERS, 2),
        (FLIGHTS, 3),
    ]
    assert hand.now - NOON < 30 * SECOND


def test_a_drain_waits_for_company(tmp_path: Path) -> None:
    """A commit for every event would be all that the machine does."""
    log = log_of(*numbered(1))
    hand = Hand()
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)
    looks = itertools.count()

    def collections() -> Sequence[CollectionId]:
        if next(looks) < 4:
            append(log, *numbered(1))
        return log.collections()

    found = list(work.drain(collections, until=lambda: False, idle=SECOND))

    assert [item.rows for item in found if isinstance(item, Landed)] == [5]


def test_a_drain_waits_for_a_log_that_does_not_answer(tmp_path: Path) -> None:
    """A broker is away for a moment: the run that lands need not end for that."""

    class Moody(MemoryLog):
        asked = itertools.count()

        def collections(self) -> Sequence[CollectionId]:
            if next(self.asked) < 2:
                raise LogUnavailable("away")
            return super().collections()

        def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
            if next(self.asked) < 5:
                raise LogUnavailable("away")
            return super().extents(collection)

    log = Moody()
    log.append(FLIGHTS, [event(text, id=text) for text in numbered(3)])
    hand = Hand()
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)

    found = list(work.drain(log.collections, until=lambda: False, idle=20 * SECOND))

    assert [item.rows for item in found if isinstance(item, Landed)] == [3]


def test_a_lane_leaves_the_partitions_of_others(tmp_path: Path) -> None:
    """Two lanes that land one partition would only race for it."""
    log = log_of(*numbered(3))
    lake = new_lake(tmp_path)
    mine = next(Lane(n, 2) for n in range(2) if Lane(n, 2).drains(FLIGHTS, 0))
    other = Lane(1 - mine.number, 2)

    assert landing(log, lake, lane=other).land_once(FLIGHTS) is None
    assert lake.view(FLIGHTS) is None
    landed = landing(log, lake, lane=mine).land_once(FLIGHTS)
    assert landed is not None
    assert landed.rows == 3
    assert landing(log, lake, lane=other).land_once(FLIGHTS) is None


def test_a_drain_does_not_wait_where_a_plan_does(tmp_path: Path) -> None:
    """With hundreds of collections a replay would be planned a minute later."""
    log = log_of(*numbered(1))
    hand = Hand()
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)

    stream = work.drain(log.collections, until=lambda: False, hurry=lambda: {FLIGHTS})

    assert isinstance(next(stream), Landed)
    assert hand.now == NOON + 10 * SECOND


def test_a_backlog_is_landed_batch_by_batch_without_waiting(tmp_path: Path) -> None:
    """After an outage there is plenty: patience would make it last for hours."""
    log = MemoryLog()
    log.append(FLIGHTS, [event(text, id=text) for text in numbered(40)])
    hand = Hand()
    limits = Limits(batch_bytes=80, plenty=5)
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait, limits=limits)

    stream = work.drain(log.collections, until=lambda: False, idle=SECOND)
    first = [item for item in itertools.islice(stream, 4) if isinstance(item, Landed)]

    assert len(first) == 4
    assert hand.now == NOON + 10 * SECOND


def test_a_look_at_many_collections_asks_the_log_once(tmp_path: Path) -> None:
    """On a broker each question is a round trip: with hundreds a look took seconds."""
    asked: list[int] = []

    class Counting(MemoryLog):
        def ends(
            self, collections: Sequence[CollectionId]
        ) -> Mapping[CollectionId, Mapping[int, int]]:
            asked.append(len(collections))
            return super().ends(collections)

    log = Counting()
    names = [CollectionId("main", f"c{number}") for number in range(20)]
    for name in names:
        log.append(name, [event("{}")])
    hand = Hand()
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)

    found = list(work.drain(log.collections, until=lambda: False, idle=0))

    assert sum(item.rows for item in found if isinstance(item, Landed)) == 20
    assert set(asked) == {20}


class Rain(MemoryLog):
    """A log on which each of some collections has an event more every tenth of a second."""

    def __init__(self, names: Sequence[CollectionId], clock: Callable[[], Micros]) -> None:
        super().__init__()
        self.names = names
        self.begun = clock()
        self.clock = clock

    def collections(self) -> Sequence[CollectionId]:
        return self.names

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        return {0: Extent(0, (self.clock() - self.begun) * 10 // SECOND)}


class Steady(Landing):
    """Lands everything that waits in a collection, in so many microseconds, and nowhere."""

    def __init__(self, log: Rain, lake: Lake, hand: Hand, commit: Micros) -> None:
        super().__init__(
            log, lake, rules=lambda _: Rules(), clock=hand, limits=LIMITS, wait=hand.wait
        )
        self.log, self.hand, self.commit = log, hand, commit
        self.marks: dict[CollectionId, int] = {}

    def land_once(self, collection: CollectionId, *, parts: int = 1) -> Landed | None:
        assert parts == 1
        start, end = self.marks.get(collection, 0), self.log.extents(collection)[0].end
        self.hand.now += self.commit
        self.marks[collection] = end
        return Landed(
            collection=collection,
            spans=(Span(collection, 0, start, end),),
            rows=end - start,
            quarantined=0,
            bytes=1,
            file_bytes=1,
            columns=1,
            changes=(),
            snapshot_id=1,
            seconds=self.commit / SECOND,
            lag=self.hand.now - self.log.begun - start * SECOND // 10,
            waiting=0,
        )


@pytest.mark.parametrize("commit", [40_000, 90_000])
def test_events_of_hundreds_of_collections_are_rows_within_a_minute(
    tmp_path: Path, commit: Micros
) -> None:
    """Patience ends, then there is the turn of all the others; telling takes time, too."""
    hand = Hand()
    names = [CollectionId("main", f"c{number}") for number in range(300)]
    work = Steady(Rain(names, hand), new_lake(tmp_path), hand, commit)
    begun, lags, commits = hand.now, [], 0

    for item in work.drain(work.log.collections, until=lambda: hand.now - begun > 240 * SECOND):
        assert isinstance(item, Landed)
        lags.append(item.lag)
        commits += 1
        hand.now += commit // 3

    assert max(lags) <= 55 * SECOND
    # And not by committing all the time, where that can be helped.
    assert commit > 50_000 or commits * commit < 0.5 * (hand.now - begun)


class Crew(Landing):
    """Lands at the same time what it may, and says how many that were and which part each had."""

    def __init__(self, log: MemoryLog, lake: Lake, hand: Hand, *, at_once: int) -> None:
        limits = Limits(at_once=at_once, plenty=10)
        super().__init__(
            log, lake, rules=lambda _: Rules(), clock=hand, limits=limits, wait=hand.wait
        )
        self.together: dict[CollectionId, tuple[int, int]] = {}
        self._here: set[CollectionId] = set()
        self._guard = threading.Condition()

    def land_once(self, collection: CollectionId, *, parts: int = 1) -> Landed | None:
        with self._guard:
            self._here.add(collection)
            self._guard.notify_all()
            self._guard.wait_for(lambda: len(self._here) >= parts, timeout=5)
            self.together[collection] = (len(self._here), parts)
        landed = super().land_once(collection, parts=parts)
        with self._guard:
            self._guard.wait_for(lambda: len(self.together) % parts == 0, timeout=5)
            self._here.discard(collection)
        return landed


def test_small_batches_land_at_the_same_time_and_one_with_plenty_alone(tmp_path: Path) -> None:
    """A commit waits for its stores; of memory they may not take several times as much."""
    log = MemoryLog()
    names = [CollectionId("main", f"c{number}") for number in range(7)]
    for number, name in enumerate(names):
        append(log, *numbered(12 if number == 6 else 2), collection=name)
    hand = Hand()
    work = Crew(log, new_lake(tmp_path), hand, at_once=3)

    found = list(work.drain(log.collections, until=lambda: False, idle=0))

    landed = [(item.collection, item.rows) for item in found if isinstance(item, Landed)]
    assert sorted(landed) == [(name, 12 if name == names[6] else 2) for name in names]
    assert work.together[names[6]] == (1, 1)
    small = [work.together[name] for name in names[:6]]
    assert {parts for _, parts in small} == {3}
    assert max(count for count, _ in small) == 3


def test_what_is_under_way_when_a_drain_ends_is_told(tmp_path: Path) -> None:
    """It has landed: statistics and Dagster have to hear of it."""
    log = MemoryLog()
    names = [CollectionId("main", f"c{number}") for number in range(6)]
    for name in names:
        append(log, *numbered(2), collection=name)
    hand = Hand()
    lake, told = new_lake(tmp_path), []
    work = landing(log, lake, clock=hand, wait=hand.wait, limits=Limits(at_once=3))

    for item in work.drain(log.collections, until=lambda: bool(told), idle=0):
        assert isinstance(item, Landed)
        told.append(item.collection)

    rows = {name: view.rows for name in names if (view := lake.view(name))}
    assert 3 <= len(told) < 6
    assert sorted(told) == sorted(name for name, count in rows.items() if count)


def test_what_waited_for_the_next_drain_does_not_wait_again(tmp_path: Path) -> None:
    """Every quarter of an hour a run begins; nobody told it how long events have waited."""
    log = log_of(*numbered(2))
    lake = new_lake(tmp_path)
    assert landing(log, lake).land_once(FLIGHTS)
    append(log, *numbered(1))
    append(log, *numbered(1), collection=ORDERS)
    hand = Hand()
    begun, landed_at = hand.now, {}

    for item in landing(log, lake, clock=hand, wait=hand.wait).drain(
        log.collections, until=lambda: len(landed_at) == 3
    ):
        assert isinstance(item, Landed)
        landed_at[(item.collection, item.spans[0].start)] = hand.now - begun
        if item.collection == FLIGHTS:
            append(log, *numbered(1))

    assert landed_at[FLIGHTS, 2] == 0
    assert landed_at[FLIGHTS, 3] >= LIMITS.patience
    assert landed_at[ORDERS, 0] >= LIMITS.patience


def test_a_drain_ends_when_it_is_told(tmp_path: Path) -> None:
    """A run has a deadline, and a process is asked to stop."""
    log = log_of(*numbered(1))
    append(log, *numbered(1), collection=ORDERS)
    told = False
    hand = Hand()
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)

    stream = work.drain(log.collections, until=lambda: told)
    next(stream)
    told = True

    assert list(stream) == []


def test_a_drain_does_not_wait_for_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """Events would wait for as long as it was set back, and troubled collections rest."""
    log = Broken()
    log.error = LogUnavailable("away")
    append(log, *numbered(1))
    append(log, *numbered(1), collection=ORDERS)
    hand = Hand()
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)
    limits = Limits()
    landed_at = {}

    set_back = False
    for item in work.drain(log.collections, until=lambda: len(landed_at) == 2):
        if isinstance(item, Landed):
            landed_at[item.collection] = hand.now
        elif not set_back:
            log.error = None
            append(log, *numbered(1))
            set_back = True
            hand.now -= 86_400 * SECOND

    start = NOON + 10 * SECOND - 86_400 * SECOND
    assert max(landed_at.values()) - start < 2 * limits.longest_back_off


class Broken(MemoryLog):
    """A log of which one collection cannot be read while `error` is set."""

    error: Exception | None = None

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        if collection == ORDERS and self.error:
            raise self.error
        return super().read(collection, mark, end=end, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("error", "stopped", "level"),
    [
        (LogTruncated("gone"), True, "error"),
        (LogUnavailable("away"), False, "warning"),
        (ValueError("secret of the sender"), False, "error"),
    ],
)
def test_trouble_of_one_collection_is_told_and_stops_no_other(
    tmp_path: Path, error: Exception, stopped: bool, level: str
) -> None:
    """One team's lost log must not stop a hundred others, nor be overheard."""
    log = Broken()
    log.error = error
    append(log, *numbered(2), collection=ORDERS)
    append(log, *numbered(3))
    hand = Hand()

    with structlog.testing.capture_logs() as lines:
        work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)
        until = NOON + 60 * SECOND
        found = list(work.drain(log.collections, until=lambda: hand.now > until))

    landed = [item for item in found if isinstance(item, Landed)]
    troubles = [item for item in found if isinstance(item, Trouble)]
    assert [item.collection for item in landed] == [FLIGHTS]
    assert {item.collection for item in troubles} == {ORDERS}
    assert troubles[0].stopped is stopped
    assert troubles[0].error is error
    assert "secret" not in troubles[0].reason
    rests = [b.again_at - a.again_at for a, b in itertools.pairwise(troubles)]
    assert rests == sorted(rests)
    assert 3 < len(troubles) < 8
    heard = [line for line in lines if line.get("collection") == str(ORDERS)]
    assert len(heard) == len(troubles)
    assert all(
        line["log_level"] == ("warning" if not stopped and "away" in str(error) else "error")
        for line in heard
    )
    assert not any("secret" in str(line) for line in lines)


@pytest.mark.parametrize("there", [2, 3, 5])
def test_a_log_that_changed_before_a_run_began_stops_its_collection_alone(
    tmp_path: Path, there: int
) -> None:
    """The log refuses the table's marks before anything is read; no event need wait for that."""
    log, hand = log_of(*numbered(3)), Hand()
    assert drained(log, tmp_path, hand)
    copy = MemoryLog(log.log_id(FLIGHTS))
    append(copy, *numbered(there, first=7))
    append(copy, *numbered(2), collection=ORDERS)

    found = drained(copy, tmp_path, Hand(), idle=0)

    landed = [item.collection for item in found if isinstance(item, Landed)]
    troubles = [item for item in found if isinstance(item, Trouble)]
    assert landed == [ORDERS]
    assert {(item.collection, type(item.error)) for item in troubles} == {(FLIGHTS, LogChanged)}


def test_a_collection_that_recovered_lands(tmp_path: Path) -> None:
    """Nobody has to restart anything."""
    log = Broken()
    log.error = LogUnavailable("away")
    append(log, *numbered(2), collection=ORDERS)
    hand = Hand()
    work = landing(log, new_lake(tmp_path), clock=hand, wait=hand.wait)

    found: list[Landed | Trouble] = []
    for item in work.drain(log.collections, until=lambda: False, idle=SECOND):
        found.append(item)
        if len(found) == 2:
            log.error = None

    assert [type(item) for item in found] == [Trouble, Trouble, Landed]


class Disk(LocalFiles):
    """Files of which the n-th that is written (from 0) finds the disk full."""

    def __init__(self, full_at: int) -> None:
        super().__init__()
        self.full_at = full_at
        self.written = 0

    def new_output(self, location: str) -> OutputFile:
        output = super().new_output(location)
        if self.written == self.full_at:
            output.create = lambda overwrite=False: Cut(path_of(location), exclusive=not overwrite)  # type: ignore[method-assign]
        self.written += 1
        return output


class Cut(Durable):
    """A file of which nothing reaches the disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")


class OnDisk(Tampered):
    """A catalog whose tables are on the disk, while there is one."""

    disk: Disk | None = None

    def load_table(self, name: Any) -> Table:
        table = self.real.load_table(name)
        if self.disk:
            table.io = self.disk
        return table


@pytest.mark.parametrize("full_at", range(7))
def test_a_disk_that_was_full_loses_and_doubles_nothing(tmp_path: Path, full_at: int) -> None:
    """Rows, manifests, lists, for claim, quarantine and main: each file may be the one."""
    lake = new_lake(tmp_path, OnDisk)
    log = log_of(*numbered(2), BROKEN)
    lake.create(FLIGHTS)
    lake.catalog.disk = Disk(full_at)  # type: ignore[attr-defined]
    hand = Hand()
    work = landing(log, lake, clock=hand, wait=hand.wait)

    found: list[Landed | Trouble] = []
    for item in work.drain(log.collections, until=lambda: False, idle=SECOND):
        found.append(item)
        lake.catalog.disk = None  # type: ignore[attr-defined]

    assert [type(item) for item in found] == [Trouble, Landed]
    assert found[0].reason == "no space left on device"  # type: ignore[union-attr]
    assert everywhere(lake) == Counter(range(3))
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_a_run_lets_the_log_forget_what_an_earlier_one_landed(tmp_path: Path) -> None:
    """It was killed between the commit and the release; no event may come for weeks."""
    log = log_of(*numbered(3))
    lake = new_lake(tmp_path)
    landing(log, lake).land_once(FLIGHTS)
    same = log_of(*numbered(3))
    assert same.released([FLIGHTS])[FLIGHTS] == {0: 0}
    hand = Hand()

    work = landing(same, lake, clock=hand, wait=hand.wait)
    assert list(work.drain(same.collections, until=lambda: False, idle=SECOND)) == []

    assert same.released([FLIGHTS])[FLIGHTS] == {0: 3}


def test_hundreds_of_idle_collections_cost_one_look_each(tmp_path: Path) -> None:
    """The catalog is asked once; after that only the log, which has it in memory."""
    log = MemoryLog()
    many = [CollectionId("main", f"c{number}") for number in range(300)]
    for collection in many:
        append(log, "{}", collection=collection)
    lake = new_lake(tmp_path)
    looks = Counter[CollectionId]()
    real = lake.view

    def view(collection: CollectionId) -> TableView | None:
        looks[collection] += 1
        return real(collection)

    lake.view = view  # type: ignore[method-assign]  # counted, nothing else
    work = landing(log, lake, clock=Hand(), wait=lambda _seconds: None)
    ends = iter([False] * 20 + [True])

    found = list(work.drain(lambda: many, until=lambda: next(ends)))

    assert found == []
    assert max(looks.values()) == 1
