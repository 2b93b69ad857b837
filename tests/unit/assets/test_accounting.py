"""The books: the sum, the order of the reads, and what people are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from builders import FLIGHTS, NOON
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from lakes import BROKEN, append, batch_of, landing, log_of, new_lake, numbered, urls
from platform_stand_ins import table as view_of
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.typedef import Identifier
from sqlalchemy import event

from assets.accounting import (
    PARTS,
    Books,
    Standing,
    Watch,
    balance,
    difference,
    read_books,
    stand,
    stand_all,
    stop_of,
    troubles,
)
from assets.checks import check_books
from lakehouse import Lake
from lakehouse.catalog import RememberingCatalog, open_catalog
from lakehouse.commit import _quarantine_first
from lakehouse.files import path_of
from lakehouse.tables import NOTHING_EXPIRED, Expired, Gap, Seen, TableView
from penstock.buffer import Glance, Glanced, Kept
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId, Extent, Mark
from penstock.errors import (
    EngineUnavailable,
    LogTruncated,
    LogUnavailable,
    TableRolledBack,
    Unavailable,
)

LOG = "log-1"
SECOND = 1_000_000
HOUR = 3_600 * SECOND


@dataclass
class World:
    """A log and its tables, in which one thing happens at a time; both ports of the books."""

    end: int = 0
    start: int = 0
    mark: int = 0
    rows: int = 0
    aside: list[int] = field(default_factory=list)
    aside_mark: int = 0
    ended: list[int] = field(default_factory=list)
    dropped: int = 0
    aside_dropped: Expired = NOTHING_EXPIRED
    happens: Callable[[], None] = lambda: None

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        return {one: Kept(LOG, self.extents(one)) for one in collections}

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        self.happens()
        return {0: Extent(self.start, self.end)}

    def seen(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Seen]:
        """Read as a catalog does that has to be asked for each table."""
        return {one: self._seen(one) for one in collections}

    def _seen(self, collection: CollectionId) -> Seen:
        main = self.view(collection)
        quarantine, beyond = self.quarantine_beside(collection, main)
        return Seen(main, quarantine, beyond, self.closed_beside(collection, main))

    def view(self, collection: CollectionId) -> TableView | None:
        self.happens()
        found = view_of(FLIGHTS, rows=self.rows, mark=self.mark)
        return replace(found, expired={(LOG, 0): Expired(self.dropped, self.mark)})

    def quarantine_beside(
        self, collection: CollectionId, main: TableView | None
    ) -> tuple[TableView | None, int]:
        self.happens()
        mark = main.mark(LOG, 0).next if main is not None else 0
        found = view_of(FLIGHTS, rows=len(self.aside), mark=self.aside_mark)
        found = replace(found, expired={(LOG, 0): self.aside_dropped})
        return found, sum(position >= mark for position in self.aside)

    def closed_beside(self, collection: CollectionId, main: TableView | None) -> int:
        self.happens()
        mark = main.mark(LOG, 0).next if main is not None else 0
        return sum(position < mark for position in self.ended)

    # What happens

    def accept(self) -> None:
        self.end += 3

    def set_aside(self) -> None:
        """Commit every third event of what waits to quarantine, as landing does first."""
        start = max(self.mark, self.aside_mark)
        self.aside += [n for n in range(start, self.end) if n % 3 == 0]
        self.aside_mark = max(self.aside_mark, self.end)

    def land(self) -> None:
        """Commit the rest to main, as landing does last: as far as quarantine has decided."""
        held = sum(self.mark <= n < self.aside_mark for n in self.aside)
        self.rows += max(0, self.aside_mark - self.mark) - held
        self.mark = max(self.mark, self.aside_mark)

    def trim(self) -> None:
        self.start = self.mark

    def close(self) -> None:
        """Discard what is open and has landed."""
        self.ended = [position for position in self.aside if position < self.mark]

    def drop(self) -> None:
        """Drop every row there is."""
        self.dropped, self.rows = self.dropped + self.rows, 0

    def drop_aside(self) -> None:
        """Drop of quarantine what main has caught up with."""
        old = [n for n in self.aside if n < self.mark]
        self.aside = [n for n in self.aside if n >= self.mark]
        self.aside_dropped += Expired(len(old), max(old, default=-1) + 1)


STEPS = ("accept", "set_aside", "land", "trim", "close", "drop", "drop_aside")
between = st.lists(st.lists(st.sampled_from(STEPS), max_size=4), min_size=6, max_size=6)

Reader = Callable[[World, World, CollectionId], Books]


def wrong(reader: Reader, between: list[list[str]]) -> bool:
    """Say whether somebody who reads meanwhile is told that something is wrong; nothing is."""
    world = World()
    left = list(between)

    def happens() -> None:
        for step in left.pop(0) if left else ():
            getattr(world, step)()

    world.happens = happens
    happens()
    books = reader(world, world, FLIGHTS)
    stop = stop_of(books, world.extents(FLIGHTS))
    return bool(books.difference) or min(books.parts.values()) < 0 or stop is not None


@settings(max_examples=1_000)
@given(between)
def test_the_sum_is_right_whatever_happens_between_the_reads(between: list[list[str]]) -> None:
    """An alarm that cries while events arrive and land is switched off within a day."""
    assert not wrong(read_books, between)


def marks_before_ends(log: World, tables: World, collection: CollectionId) -> Books:
    table = tables.view(collection)
    quarantine, beyond = tables.quarantine_beside(collection, table)
    return _put(log.extents(collection), table, quarantine, beyond)


def quarantine_before_main(log: World, tables: World, collection: CollectionId) -> Books:
    extents = log.extents(collection)
    quarantine, beyond = tables.quarantine_beside(collection, None)
    table = tables.view(collection)
    mark = table.mark(LOG, 0).next if table else 0
    beyond = sum(n >= mark for n in tables.aside[: quarantine.rows if quarantine else 0])
    return _put(extents, table, quarantine, beyond)


def rows_and_marks_of_two_loads(log: World, tables: World, collection: CollectionId) -> Books:
    extents = log.extents(collection)
    first, second = tables.view(collection), tables.view(collection)
    assert first
    assert second
    quarantine, beyond = tables.quarantine_beside(collection, first)
    return _put(extents, replace(first, rows=second.rows), quarantine, beyond)


def all_of_quarantine(log: World, tables: World, collection: CollectionId) -> Books:
    extents = log.extents(collection)
    table = tables.view(collection)
    quarantine, _ = tables.quarantine_beside(collection, table)
    return _put(extents, table, quarantine, 0)


def accepted_up_to_the_ends_alone(log: World, tables: World, collection: CollectionId) -> Books:
    extents = log.extents(collection)
    table = tables.view(collection)
    quarantine, beyond = tables.quarantine_beside(collection, table)
    books = _put(extents, table, quarantine, beyond)
    return replace(books, accepted=sum(extent.end for extent in extents.values()))


def once_whatever_expired(log: World, tables: World, collection: CollectionId) -> Books:
    extents = log.extents(collection)
    table = tables.view(collection)
    return _put(extents, table, *tables.quarantine_beside(collection, table))


def _put(
    extents: Mapping[int, Extent],
    table: TableView | None,
    quarantine: TableView | None,
    beyond: int,
) -> Books:
    return balance(
        FLIGHTS, log_id=LOG, extents=extents, table=table, quarantine=quarantine, beyond=beyond
    )


@pytest.mark.parametrize(
    "mutant",
    [
        marks_before_ends,
        quarantine_before_main,
        rows_and_marks_of_two_loads,
        all_of_quarantine,
        accepted_up_to_the_ends_alone,
        once_whatever_expired,
    ],
)
def test_a_reader_in_another_order_is_found(mutant: Reader) -> None:
    """Mutants: without them nobody knows that the test above could fail."""
    try:
        find(between, lambda steps: wrong(mutant, steps), settings=settings(max_examples=2_000))
    except NoSuchExample:
        pytest.fail(f"{mutant.__name__} was never wrong")


parts = st.dictionaries(st.sampled_from([*PARTS, "erased"]), st.integers(0, 9))


@given(parts, st.integers(-3, 3))
def test_the_difference_is_what_the_parts_do_not_account_for(
    parts: dict[str, int], off: int
) -> None:
    """Every part counts once, also one that this release has no word for."""
    assert difference(sum(parts.values()) + off, parts) == off


def test_a_part_that_the_tables_keep_is_in_the_sum() -> None:
    """Whoever takes rows away says so beside them, in the same commit."""
    table = replace(view_of(FLIGHTS, rows=5, mark=10), counted=(("erased", 2), ("landed", 1)))
    table = replace(table, expired={(LOG, 0): Expired(1, 3)})
    quarantine = replace(view_of(FLIGHTS, rows=0, mark=10), counted=(("erased", 1),))

    books = _put({0: Extent(4, 12)}, table, quarantine, 0)

    assert (books.parts["erased"], books.parts["expired"]) == (3, 1)
    assert (books.accepted, books.difference) == (12, 0)
    assert "1 expired" in books.sentence


def test_rows_that_repeat_others_and_closed_events_are_parts_of_their_own() -> None:
    """What people look for is how many events there are, and how many need somebody."""
    table = replace(view_of(FLIGHTS, rows=7, mark=10), duplicates=2)
    quarantine = view_of(FLIGHTS, rows=4, mark=11)

    books = balance(
        FLIGHTS,
        log_id=LOG,
        extents={0: Extent(0, 11)},
        table=table,
        quarantine=quarantine,
        beyond=1,
        closed=2,
    )

    named = ("landed", "duplicates", "quarantined", "closed", "waiting")
    assert [books.parts[name] for name in named] == [5, 2, 1, 2, 1]
    assert books.difference == 0
    assert books.sentence == (
        "the books add up: 11 accepted, 5 landed + 2 duplicates + 1 quarantined + 2 closed "
        "+ 1 waiting"
    )


def test_a_log_that_let_go_of_what_landed_has_accepted_it_all_the_same() -> None:
    """Positions are never given twice: the end counts all, the start says what is kept."""
    books = _put({0: Extent(90, 100)}, view_of(FLIGHTS, rows=100, mark=100), None, 0)

    assert (books.accepted, books.waiting, books.difference) == (100, 0, 0)


def test_what_landed_from_an_earlier_log_was_accepted_too() -> None:
    """The log was lost and made anew: its events did not become fewer by that."""
    table = replace(
        view_of(FLIGHTS, rows=12), marks=(Mark("log-0", 0, 10, "f"), Mark(LOG, 0, 2, "f"))
    )

    books = _put({0: Extent(0, 5)}, table, None, 0)

    assert (books.accepted, books.waiting, books.difference) == (15, 3, 0)


def test_events_that_the_log_let_go_of_unlanded_are_missing_until_somebody_says_lost() -> None:
    """They are the very thing the books are kept for."""
    table = view_of(FLIGHTS, rows=10, mark=10)
    gone = _put({0: Extent(30, 40)}, table, None, 0)
    stated = replace(table, marks=(Mark(LOG, 0, 30, ""),), lost=(Gap(LOG, 0, 10, 30),))
    settled = _put({0: Extent(30, 40)}, stated, None, 0)

    assert gone.difference == 20
    assert "20 too few" in gone.sentence
    assert isinstance(stop_of(gone, {0: Extent(30, 40)}), LogTruncated)
    assert (settled.difference, settled.parts["lost"]) == (0, 20)
    assert stop_of(settled, {0: Extent(30, 40)}) is None


def test_too_many_are_told_as_well() -> None:
    """Doubled events are as wrong as missing ones."""
    books = _put({0: Extent(0, 5)}, view_of(FLIGHTS, rows=6, mark=5), None, 0)

    assert books.difference == -1
    assert "1 too many" in books.sentence


def test_the_books_of_a_real_lake_add_up_at_every_step_of_a_landing(tmp_path: Path) -> None:
    """Quarantine commits first: between the two commits its events still wait."""
    lake, log = new_lake(tmp_path), log_of(*numbered(3), BROKEN)
    standings = [stand(log, lake, None, FLIGHTS, now=NOON + 5 * SECOND)]
    landing(log, lake).land_once(FLIGHTS)
    append(log, *numbered(2), BROKEN)
    view = lake.view(FLIGHTS)
    assert view is not None
    _quarantine_first(lake, batch_of(log, view), lambda: NOON)
    standings.append(stand(log, lake, None, FLIGHTS, now=NOON + 5 * SECOND))
    landing(log, lake).land_once(FLIGHTS)
    standings.append(stand(log, lake, None, FLIGHTS, now=NOON + 5 * SECOND))

    told = [
        [one.books.parts[name] for name in ("landed", "quarantined", "waiting")]
        for one in standings
    ]
    assert told == [[0, 0, 4], [3, 1, 3], [5, 2, 0]]
    assert [one.books.difference for one in standings] == [0, 0, 0]
    assert [one.stop for one in standings] == [None, None, None]
    assert [one.lake_lag for one in standings] == [5 * SECOND, 5 * SECOND - 4, 0]
    assert standings[-1].newest == NOON + 6
    assert check_books(log, lake, FLIGHTS, NOON, None).passed


def test_a_row_that_was_deleted_by_hand_is_found(tmp_path: Path) -> None:
    """Seeded: the check can fail, and says how many."""
    lake, log = new_lake(tmp_path), log_of(*numbered(3))
    landing(log, lake).land_once(FLIGHTS)
    table = lake.table(("main", "flights"))
    assert table is not None
    table.delete("log_offset = 1")

    verdict = check_books(log, lake, FLIGHTS, NOON, None)

    assert not verdict.passed
    assert "2 landed" in verdict.sentence
    assert verdict.facts["difference"] == 1


@pytest.mark.parametrize(
    ("lag", "retention", "told"),
    [(0, HOUR, 0), (HOUR // 2, HOUR, 0), (HOUR // 2 + 1, HOUR, 1), (99 * HOUR, None, 0)],
)
def test_half_of_the_time_that_the_log_keeps_events_is_the_alarm(
    lag: int, retention: int | None, told: int
) -> None:
    """After all of it they are gone; the other half is for whoever is woken."""
    said = troubles(replace(STANDING, lake_lag=lag), retention)

    assert len(said) == told
    assert all("then it is lost" in sentence for sentence in said)


STANDING = Standing(
    books=_put({0: Extent(0, 5)}, view_of(FLIGHTS, rows=5, mark=5), None, 0),
    stop=None,
    lake_lag=0,
    search_lag=None,
    search_waiting=0,
    newest=NOON,
    at=NOON,
)


def test_a_stop_is_told_with_the_command_that_goes_on() -> None:
    """Whoever reads it at night must not have to look for the page."""
    (said,) = troubles(replace(STANDING, stop=TableRolledBack("it was rolled back")), None)

    assert "it was rolled back" in said
    assert "penstock collection resolve flights --by reset-marks" in said


@dataclass
class Looks:
    """Counts how often a collection is looked at."""

    standing: Standing = STANDING
    extent: Extent = field(default_factory=lambda: Extent(0, 5))
    now: int = NOON
    count: int = 0

    def look(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Standing]:
        self.count += len(collections)
        return {one: replace(self.standing, at=self.now) for one in collections}

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        return {one: {0: self.extent.end} for one in collections}

    def watch(self) -> Watch:
        return Watch(self.look, self.ends, clock=lambda: self.now)


def test_a_collection_at_rest_is_looked_at_every_few_minutes_only() -> None:
    """Three hundred of them cost a catalog six hundred loads, at every scrape."""
    looks = Looks()
    watch = looks.watch()
    for _ in range(10):
        watch.standings([FLIGHTS])
        looks.now += 15 * SECOND
    assert looks.count == 1

    looks.extent = Extent(0, 6)
    watch.standings([FLIGHTS])
    assert looks.count == 2

    looks.extent = Extent(0, 5)
    looks.now += 301 * SECOND
    watch.standings([FLIGHTS])
    assert looks.count == 3


@pytest.mark.parametrize(
    "standing",
    [
        replace(STANDING, stop=TableRolledBack("it was rolled back")),
        replace(STANDING, search_waiting=1),
        replace(STANDING, books=_put({0: Extent(0, 9)}, STANDING.books.table, None, 0)),
    ],
    ids=["stopped", "not indexed", "waiting"],
)
def test_a_collection_in_which_something_is_to_come_is_looked_at_each_time(
    standing: Standing,
) -> None:
    """It lands, or is repaired, without the log's end moving."""
    looks = Looks(standing)
    watch = looks.watch()
    for _ in range(3):
        watch.standings([FLIGHTS])
        looks.now += 15 * SECOND

    assert looks.count == 3


def test_a_collection_that_cannot_be_looked_at_is_left_out() -> None:
    """A figure of before would look as if all were well."""
    looks = Looks()
    away = False

    def look(
        collections: Sequence[CollectionId],
    ) -> Mapping[CollectionId, Standing | Unavailable]:
        if away:
            return dict.fromkeys(collections, EngineUnavailable("the catalog does not answer"))
        return looks.look(collections)

    watch = Watch(look, looks.ends, clock=lambda: looks.now)
    assert len(watch.standings([FLIGHTS])) == 1
    away = True
    looks.now += 400 * SECOND
    assert watch.standings([FLIGHTS]) == []


def test_where_the_log_does_not_tell_an_end_the_collection_is_looked_at() -> None:
    """It may be gone, and what was known of it would be shown for minutes."""
    looks = Looks()

    def ends(_: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        raise LogUnavailable("Kafka does not answer")

    for tells in (lambda _: {}, ends):
        watch = Watch(looks.look, tells, clock=lambda: looks.now)
        watch.standings([FLIGHTS])
        before = looks.count
        looks.now += 15 * SECOND
        watch.standings([FLIGHTS])
        assert looks.count == before + 1


def test_one_collection_that_does_not_answer_hides_no_other(tmp_path: Path) -> None:
    """Each is told by itself, though all are asked for together."""
    lake, log = new_lake(tmp_path), log_of(*numbered(3))
    landing(log, lake).land_once(FLIGHTS)
    away = CollectionId("main", "away")

    class Half(MemoryLog):
        def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
            return {one: log.kept([one])[one] for one in collections if one != away}

        def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
            return log.glance(asked)

    told = stand_all(Half(), lake, None, [away, FLIGHTS], now=NOON)

    assert isinstance(told[away], LogUnavailable)
    standing = told[FLIGHTS]
    assert isinstance(standing, Standing)
    assert standing.books.accepted == 3


def test_hundreds_of_collections_are_looked_at_in_as_many_questions_as_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus waits ten seconds, and each question to an engine takes milliseconds."""
    lake, log = new_lake(tmp_path), Counted()
    several = [CollectionId("main", f"c{number}") for number in range(12)]
    for one in several:
        append(log, *numbered(3), collection=one)
        landing(log, lake).land_once(one)
    other = Lake(open_catalog(*urls(tmp_path)))
    statements: list[str] = []
    engine = cast("SqlCatalog", other.catalog).engine
    event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    loads: list[Identifier] = []
    table_at = RememberingCatalog.table_at
    monkeypatch.setattr(
        RememberingCatalog,
        "table_at",
        lambda self, name, place: [loads.append(name), table_at(self, name, place)][1],
    )

    def asked(some: Sequence[CollectionId]) -> tuple[list[str], int, int]:
        log.asked.clear(), statements.clear(), loads.clear()
        told = stand_all(log, other, None, some, now=NOON)
        assert [one for one in told.values() if isinstance(one, Unavailable)] == []
        return list(log.asked), len(statements), len(loads)

    first, all_ = asked(several[:2]), asked(several)
    assert first == (["kept", "kept", "glance"], 1, 4)
    assert all_ == (["kept", "kept", "glance"], 1, 20), "what two were loaded for is known"
    assert asked(several) == (["kept", "kept", "glance"], 1, 0)

    append(log, *numbered(2, first=5), collection=several[3])
    landing(log, lake).land_once(several[3])
    assert asked(several) == (["kept", "kept", "glance"], 1, 1), "quarantine has not changed"


class Counted(MemoryLog):
    """Remembers what it was asked while it was not asked for one collection."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        self.asked.append("kept")
        return super().kept(collections)

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        self.asked.append("glance")
        return super().glance(asked)

    def log_id(self, collection: CollectionId) -> str:
        self.asked.append("log_id")
        return super().log_id(collection)


def test_tables_whose_metadata_was_cleaned_away_are_asked_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty commits after the catalog named it: then quarantine must not be of before, either."""
    lake, log = new_lake(tmp_path), log_of(*numbered(3), BROKEN)
    landing(log, lake).land_once(FLIGHTS)
    catalog = cast("RememberingCatalog", lake.catalog)
    before = catalog.locations([("main", "flights"), ("main__quarantine", "flights")])
    append(log, *numbered(2, first=9), BROKEN)
    landing(log, lake).land_once(FLIGHTS)
    other = Lake(open_catalog(*urls(tmp_path)))
    monkeypatch.setattr(other.catalog, "locations", lambda names: before)
    Path(path_of(before["main", "flights"])).unlink()

    standing = stand(log, other, None, FLIGHTS, now=NOON)

    assert not standing.books.difference
    parts = standing.books.parts
    assert (parts["landed"], parts["quarantined"], parts["waiting"]) == (5, 2, 0)


def test_a_memory_log_that_was_trimmed_keeps_its_books(tmp_path: Path) -> None:
    """The embedded log lets go of what landed a quarter of an hour ago."""
    lake, log = new_lake(tmp_path), log_of(*numbered(3))
    landing(log, lake).land_once(FLIGHTS)
    log.trim(0)
    log.trim(HOUR)
    assert log.extents(FLIGHTS)[0] == Extent(3, 3)

    standing = stand(log, lake, None, FLIGHTS, now=NOON)

    assert standing.books.accepted == 3
    assert not standing.books.difference
    assert (standing.stop, standing.newest, standing.lake_lag) == (None, None, 0)
    assert isinstance(log, MemoryLog)
