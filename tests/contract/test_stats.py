"""What the statistics promise. A new kind joins by one line in `KINDS`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from builders import FLIGHTS
from engines.fresh import fresh_database
from engines.timescale import Timescale
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_engines import own_engine
from sqlalchemy import create_engine
from structlog.testing import capture_logs

from penstock.envelope import CollectionId, Micros, Span
from penstock.errors import BadSetting
from penstock.metadata.store import open_store
from penstock.stats import MINUTE, Batch, Minute, Stats, Step, every_step, open_stats, tables

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.engines)]
# It has one session at a time, and one worker fetches and starts it.
ON_TIMESCALE = (pytest.mark.engines, pytest.mark.xdist_group("timescale"))
WITH_TIMESCALE = [*KINDS, pytest.param("timescale", marks=ON_TIMESCALE)]

LOG = "log-1"
OTHERS = CollectionId("rivals", "flights")
HOUR = 60 * MINUTE
NOON: Micros = 1_764_000_000_000_000 // HOUR * HOUR


@pytest.fixture(scope="module")
def timescale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timescale]:
    """Start PostgreSQL with Timescale for these tests."""
    with own_engine(Timescale, tmp_path_factory.mktemp("timescale")) as engine:
        yield engine


@contextmanager
def session(engine: Timescale) -> Iterator[psycopg.Connection[Any]]:
    """Answer the one session there is; the tables are gone after it."""
    with psycopg.connect(engine.url, prepare_threshold=None, autocommit=True) as connection:
        yield connection
        for table in ("stats_minutes_2", "stats_marks_2"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")


@pytest.fixture(params=WITH_TIMESCALE)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    match request.param:
        case "sqlite":
            yield f"sqlite:///{tmp_path / 'home' / 'stats.db'}"
        case "timescale":
            engine = request.getfixturevalue("timescale")
            yield engine.url
            with session(engine):
                pass
        case _:
            with fresh_database() as address:
                yield address


@pytest.fixture
def stats(url: str) -> Iterator[Stats]:
    opened = open_stats(url)
    yield opened
    opened.close()


def batch(
    start: int,
    end: int,
    *,
    partition: int = 0,
    collection: CollectionId = FLIGHTS,
    log_id: str = LOG,
    at: Micros = NOON,
    quarantined: int = 0,
    duplicates: int = 0,
    lag: Micros | None = None,
) -> Batch:
    """Answer events of ten bytes, all received within a minute."""
    return Batch(
        collection=collection,
        log_id=log_id,
        spans=(Span(collection, partition, start, end),),
        minutes=(
            Minute(
                partition=partition,
                start=at,
                events=end - start,
                bytes=10 * (end - start),
                quarantined=quarantined,
                duplicates=duplicates,
            ),
        ),
        landed_at=at + 5,
        lag=lag,
    )


def together(*batches: Batch) -> Batch:
    """Answer one batch that fills the spans of all."""
    return Batch(
        collection=batches[0].collection,
        log_id=batches[0].log_id,
        spans=tuple(span for one in batches for span in one.spans),
        minutes=tuple(minute for one in batches for minute in one.minutes),
        landed_at=batches[0].landed_at,
        lag=batches[0].lag,
    )


def events(stats: Stats, collection: CollectionId = FLIGHTS) -> int:
    return sum(one.events for one in stats.steps(collection, 0, NOON + 100 * HOUR, HOUR))


class TestAdding:
    def test_what_is_told_is_answered_by_the_minute(self, stats: Stats) -> None:
        assert stats.add(batch(0, 5, quarantined=2, duplicates=1, lag=1_500))
        assert stats.add(batch(5, 8, lag=900))
        assert stats.add(batch(8, 9, at=NOON + MINUTE, lag=None))

        assert stats.steps(FLIGHTS, NOON, NOON + HOUR, MINUTE) == [
            Step(start=NOON, events=8, bytes=80, quarantined=2, duplicates=1, lag=1_500),
            Step(start=NOON + MINUTE, events=1, bytes=10, quarantined=0, duplicates=0, lag=None),
        ]
        assert stats.marks(FLIGHTS) == {(LOG, 0): 9}

    def test_many_are_asked_for_at_once_and_each_has_its_own(self, stats: Stats) -> None:
        stats.add(batch(0, 5))
        stats.add(batch(5, 6, at=NOON + MINUTE))
        stats.add(batch(6, 8, at=NOON + HOUR))
        names = [FLIGHTS.name, *(f"c{n}" for n in range(2_000))]

        asked = stats.arrivals(FLIGHTS.team, names, NOON, NOON + HOUR)

        assert asked == {FLIGHTS.name: {NOON: 5, NOON + MINUTE: 1}}
        assert stats.arrivals("another", names, NOON, NOON + HOUR) == {}
        assert stats.arrivals(FLIGHTS.team, ["c1"], NOON, NOON + HOUR) == {}

    def test_the_newest_minute_is_the_last_one_with_an_event(self, stats: Stats) -> None:
        """Long after the log has let go of it, somebody asks when the last event came."""
        assert stats.newest([FLIGHTS]) == {}
        stats.add(batch(0, 5))
        stats.add(batch(5, 6, at=NOON - HOUR, lag=3 * HOUR))

        assert stats.newest([FLIGHTS, OTHERS]) == {FLIGHTS: NOON}
        assert stats.newest([]) == {}

    def test_a_batch_that_is_told_twice_is_counted_once(self, stats: Stats) -> None:
        """A run that was killed after it told is followed by one that tells again."""
        assert stats.add(batch(0, 5, lag=7))
        assert stats.add(batch(0, 5, lag=7))
        assert stats.add(batch(2, 4))

        assert events(stats) == 5
        assert stats.marks(FLIGHTS) == {(LOG, 0): 5}

    def test_what_lies_behind_the_mark_is_not_counted_and_said_not_to_be(
        self, stats: Stats
    ) -> None:
        """A gap that is skipped is never filled: the mark says that all before it is there."""
        stats.add(batch(0, 5))

        assert not stats.add(batch(6, 9, lag=1))

        assert events(stats) == 5
        assert stats.marks(FLIGHTS) == {(LOG, 0): 5}
        assert stats.steps(FLIGHTS, 0, NOON + HOUR, MINUTE)[-1].lag is None
        assert stats.add(batch(5, 9))
        assert events(stats) == 9

    def test_what_begins_before_the_mark_and_ends_behind_it_is_left_out(self, stats: Stats) -> None:
        """Which of its events are counted already nobody can say."""
        stats.add(batch(0, 5))

        assert not stats.add(batch(3, 9))
        assert events(stats) == 5

    def test_partitions_are_counted_for_themselves(self, stats: Stats) -> None:
        stats.add(batch(0, 5, partition=1))

        whole = together(batch(0, 3), batch(2, 9, partition=1), batch(0, 2, partition=2))
        assert not stats.add(whole)

        assert stats.marks(FLIGHTS) == {(LOG, 0): 3, (LOG, 1): 5, (LOG, 2): 2}
        assert events(stats) == 10
        assert stats.add(together(batch(0, 3), batch(0, 5, partition=1)))
        assert events(stats) == 10

    def test_collections_teams_and_logs_are_kept_apart(self, stats: Stats) -> None:
        stats.add(batch(0, 5))
        stats.add(batch(0, 2, collection=OTHERS))
        stats.add(batch(0, 4, log_id="log-2"))

        assert (events(stats), events(stats, OTHERS)) == (9, 2)
        assert stats.marks(FLIGHTS) == {(LOG, 0): 5, ("log-2", 0): 4}
        assert stats.marks(OTHERS) == {(LOG, 0): 2}

    def test_a_span_may_hold_fewer_events_than_positions(self, stats: Stats) -> None:
        """A Kafka log has positions without a record."""
        holes = Batch(
            collection=FLIGHTS,
            log_id=LOG,
            spans=(Span(FLIGHTS, 0, 0, 100),),
            minutes=(),
            landed_at=NOON,
            lag=None,
        )

        assert stats.add(holes)
        assert stats.marks(FLIGHTS) == {(LOG, 0): 100}
        assert stats.steps(FLIGHTS, 0, NOON + HOUR, MINUTE) == []

    def test_the_lag_belongs_to_when_a_batch_landed(self, stats: Stats) -> None:
        """What was received at noon and landed an hour later was slow an hour later."""
        late = batch(0, 5, lag=HOUR)
        late = Batch(
            collection=late.collection,
            log_id=late.log_id,
            spans=late.spans,
            minutes=late.minutes,
            landed_at=NOON + HOUR + 5,
            lag=HOUR,
        )
        stats.add(late)

        assert stats.steps(FLIGHTS, NOON, NOON + 2 * HOUR, HOUR) == [
            Step(start=NOON, events=5, bytes=50, quarantined=0, duplicates=0, lag=None),
            Step(start=NOON + HOUR, events=0, bytes=0, quarantined=0, duplicates=0, lag=HOUR),
        ]

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(told=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(1, 8))))
    def test_whatever_is_told_all_before_the_mark_is_counted_once(
        self, stats: Stats, told: list[tuple[int, int, int]]
    ) -> None:
        """In any order, with gaps, overlaps and repetitions."""
        stats.forget(FLIGHTS)
        model: dict[int, int] = {}
        for partition, start, length in told:
            mark = model.get(partition, 0)
            answer = stats.add(batch(start, start + length, partition=partition))
            assert answer is (start == mark or start + length <= mark)
            if start == mark:
                model[partition] = start + length

        assert stats.marks(FLIGHTS) == {(LOG, p): mark for p, mark in model.items()}
        assert events(stats) == sum(model.values())


class TestAsking:
    def test_steps_begin_at_multiples_of_their_length(self, stats: Stats) -> None:
        for minute in range(90):
            stats.add(batch(minute, minute + 1, at=NOON + minute * MINUTE))

        found = stats.steps(FLIGHTS, NOON, NOON + 3 * HOUR, 30 * MINUTE)

        assert [(one.start - NOON, one.events) for one in found] == [
            (0, 30),
            (30 * MINUTE, 30),
            (60 * MINUTE, 30),
        ]

    def test_what_is_outside_is_not_answered(self, stats: Stats) -> None:
        stats.add(together(batch(0, 5, at=NOON), batch(0, 3, partition=1, at=NOON + HOUR)))

        assert stats.steps(FLIGHTS, NOON + MINUTE, NOON + HOUR, MINUTE) == []
        assert stats.steps(OTHERS, 0, NOON + HOUR, HOUR) == []

    def test_sums_are_exact_however_large(self, stats: Stats) -> None:
        large = Minute(partition=0, start=NOON, events=1 << 40, bytes=1 << 61, quarantined=3)
        first = batch(0, 1)
        for start in (0, 1, 2):
            stats.add(
                Batch(
                    collection=FLIGHTS,
                    log_id=LOG,
                    spans=(Span(FLIGHTS, 0, start, start + 1),),
                    minutes=(large,),
                    landed_at=first.landed_at,
                    lag=None,
                )
            )

        [one] = stats.steps(FLIGHTS, NOON, NOON + HOUR, HOUR)
        assert (one.events, one.bytes, one.quarantined) == (3 << 40, 3 << 61, 9)

    def test_old_minutes_are_forgotten_and_not_counted_again(self, stats: Stats) -> None:
        stats.add(batch(0, 5))
        stats.add(batch(5, 7, at=NOON + MINUTE))
        stats.add(batch(0, 2, collection=OTHERS))

        stats.forget_before(FLIGHTS, NOON + MINUTE)

        assert (events(stats), events(stats, OTHERS)) == (2, 2)
        assert stats.marks(FLIGHTS) == {(LOG, 0): 7}
        assert stats.add(batch(0, 5))
        assert events(stats) == 2

    def test_what_is_forgotten_is_counted_anew(self, stats: Stats) -> None:
        stats.add(batch(0, 5))
        stats.add(batch(0, 2, collection=OTHERS))

        stats.forget(FLIGHTS)

        assert (events(stats), stats.marks(FLIGHTS)) == (0, {})
        assert events(stats, OTHERS) == 2
        assert stats.add(batch(0, 5))
        assert events(stats) == 5


class TestKeeping:
    @pytest.fixture(params=KINDS)
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
        """Answer the address of books that several may have open at once."""
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path / 'home' / 'stats.db'}"
            return
        with fresh_database() as address:
            yield address

    def test_they_are_there_after_a_restart(self, stats: Stats, url: str) -> None:
        stats.add(batch(0, 5))
        again = open_stats(url)

        assert events(again) == 5
        again.ping()
        again.close()

    def test_they_may_be_where_the_metadata_is(self, stats: Stats, url: str) -> None:
        """That is where they are if nothing else is set."""
        store = open_store(url)
        stats.add(batch(0, 5))

        assert store.version() == 0
        assert events(stats) == 5
        store.close()

    def test_of_many_who_tell_the_same_at_once_one_is_counted(self, stats: Stats, url: str) -> None:
        """Two landing runs may follow each other before the first has noticed its end."""
        stats.ping()
        barrier = threading.Barrier(6)

        def tell(_: int) -> int:
            mine = open_stats(url)
            barrier.wait(10)
            for start in range(0, 100, 5):
                while not mine.add(batch(start, start + 5)):
                    pass
            mine.close()
            return 1

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(tell, range(6))) == 6

        assert events(stats) == 100
        assert stats.marks(FLIGHTS) == {(LOG, 0): 100}

    def test_processes_that_open_new_books_at_once_all_succeed(self, url: str) -> None:
        program = (
            "import sys; from penstock.stats import open_stats; "
            "books = open_stats(sys.argv[1]); books.ping(); books.close()"
        )
        started = [
            subprocess.Popen([sys.executable, "-W", "error", "-c", program, url]) for _ in range(4)
        ]

        assert [one.wait(60) for one in started] == [0] * 4


@pytest.mark.engines
@pytest.mark.xdist_group("timescale")
def test_minutes_are_a_hypertable_where_timescale_is(timescale: Timescale) -> None:
    """Chunks of a week: a table of all years would be read whole for the last hour."""
    stats = open_stats(timescale.url)
    week = 7 * 24 * HOUR
    assert stats.add(together(batch(0, 5), batch(0, 3, partition=1, at=NOON + 2 * week)))
    assert events(stats) == 5
    stats.close()

    with session(timescale) as connection:
        found = connection.execute(
            "SELECT hypertable_name, primary_dimension, num_chunks "
            "FROM timescaledb_information.hypertables"
        ).fetchall()

    assert found == [("stats_minutes_2", "minute", 2)]


@pytest.mark.engines
def test_minutes_are_a_plain_table_where_timescale_is_not() -> None:
    """The extension may also be there and refuse: to be created is an administrator's right."""
    with fresh_database() as url:
        open_stats(url).close()
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection, capture_logs() as lines:
            tables.make_hypertable(connection)
        engine.dispose()
        stats = open_stats(url)
        assert stats.add(batch(0, 5))
        assert events(stats) == 5
        stats.close()
        with psycopg.connect(url) as connection:
            [kind] = connection.execute(
                "SELECT relkind FROM pg_class WHERE relname = 'stats_minutes_2'"
            ).fetchall()

    assert kind == ("r",)
    assert [line["event"] for line in lines] == ["no hypertable for the statistics"]


@pytest.mark.parametrize(
    ("extensions", "hypertable"),
    [((), False), (("plpgsql", "timescaledb_toolkit"), False), (("plpgsql", "timescaledb"), True)],
)
def test_the_kind_of_table_is_decided_by_the_extensions_there_are(
    extensions: tuple[str, ...], hypertable: bool
) -> None:
    """What can be created counts, not what is: nobody has to prepare the database."""
    assert tables.as_hypertable(extensions) == hypertable


def test_an_unknown_url_is_refused_by_the_name_of_its_setting() -> None:
    with pytest.raises(BadSetting, match="stats_url"):
        open_stats("mysql://db/penstock")


def test_empty_steps_are_shown_too() -> None:
    """A plot without them hides an outage."""
    one = Step(start=NOON + HOUR, events=1, bytes=2, quarantined=0, duplicates=0, lag=None)

    steps = every_step([one], NOON + 1, NOON + 3 * HOUR, HOUR)

    assert [(s.start, s.events) for s in steps] == [
        (NOON, 0),
        (NOON + HOUR, 1),
        (NOON + 2 * HOUR, 0),
    ]
