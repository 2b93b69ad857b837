"""10,000 events, each sent once to five times, over every way in: seen 10,000 times.

Landing is killed in between, and several lanes land at once; every row stays, and says what it
repeats. The checker finds seeded bugs in what decides it.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa
import pytest
from balance import compare, totals
from builders import FLIGHTS, NOON, event
from door_builders import known
from door_process import door
from evidence.sheet import found
from lakes import (
    STORE,
    child,
    finished,
    land_in_process,
    land_lane_in_process,
    landing,
    new_lake,
    tell_elsewhere,
)
from partitioned import PartitionedLog
from ports import free_ports
from pyiceberg.table import Table
from repeating import MOST_COPIES, Doors, Sending, faults, number_of, payload, rows_of, schedule

from assets.accounting import read_books, stand
from assets.checks import check_books, check_conservation
from assets.landing import Lane, Limits
from assets.stats import count_from_lake
from lakehouse import Lake
from lakehouse.duplicates import HOUR, Duplicates
from lakehouse.sql import Limits as SqlLimits
from lakehouse.sql import Sql, open_engine, open_trino
from lakehouse.sql.tables import LakeTables
from penstock import faults as points
from penstock.api.metrics import books_text
from penstock.buffer import Buffer, open_buffer, open_keeper
from penstock.cache import open_cache
from penstock.envelope import Event, Micros
from penstock.errors import Unavailable
from penstock.schema.convert import Rules
from penstock.schema.repeats import CANDIDATE, Judged, Marked, candidates_of, judge, mark
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher
from penstock.settings import S3Options, load_settings
from penstock.stats import open_stats

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

EVENTS = 10_000
BATCH_BYTES = 30_000
"""Of payloads: a thousand events or so, and each has its copies in many batches."""

DEATHS = (
    "after_parquet:1:kill",
    None,
    "after_commit:2:kill",
    "before_commit:1:kill",
    "after_commit:1:kill",
    "mid_parquet:2:kill",
)
"""How each landing ends that begins while senders send."""
LEAST_DEATHS = 2


def assert_seen_once(
    folder: Path, lake: Lake, log: Buffer, sent: Counter[int], *, s3: S3Options | None = None
) -> None:
    """Look at rows, search, SQL, status, metrics and statistics: each event once, no row lost."""
    view = lake.view(FLIGHTS)
    assert view is not None
    assert faults(sent, rows_of(lake, FLIGHTS), view.duplicates) == []
    copies = sent.total() - len(sent)
    assert copies > len(sent), "hardly anything was sent twice"
    shown = [(row.number, None) for row in rows_of(lake, FLIGHTS) if row.duplicate_of is None]
    found(tables=compare(dict.fromkeys(sent), shown))

    engine = open_engine(folder / "spill", memory="500MB", s3=s3)
    searcher = EmbeddedSearcher(
        lake, log, engine, rules=lambda _: Rules(), clock=lambda: NOON, seconds=60.0
    )
    assert searcher.count(SearchRequest(collection=FLIGHTS)) == len(sent)
    every = SearchRequest(collection=FLIGHTS, duplicates="include")
    assert searcher.count(every) == sent.total()
    found(search=compare(dict.fromkeys(sent), ((n, None) for n in shown_by(searcher))))

    assert_counted(engine, lake, sent)
    engine.close()

    books = read_books(log, lake, FLIGHTS)
    assert (books.parts["landed"], books.parts["duplicates"]) == (len(sent), copies)
    assert books.accepted == sent.total()
    now = NOON + HOUR
    assert check_books(log, lake, FLIGHTS, now, None).passed
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed
    metrics = books_text([stand(log, lake, None, FLIGHTS, now=now)]).decode()
    assert f'penstock_duplicate_events{{collection="flights"}} {float(copies)}' in metrics

    with closing(open_stats(f"sqlite:///{folder / 'stats.db'}")) as stats:
        count_from_lake(stats, lake, FLIGHTS, clock=lambda: now)
        year = 365 * 24 * HOUR
        steps = stats.steps(FLIGHTS, NOON - 10 * year, NOON + 90 * year, HOUR)
        found(statistics=totals(sent.total(), sum(step.events for step in steps)))
        assert sum(step.duplicates for step in steps) == copies


def assert_counted(engine: Sql, lake: Lake, sent: Counter[int]) -> None:
    """Ask SQL, as callers do."""

    def row(statement: str) -> tuple[object, ...]:
        answer = engine.query(statement, LakeTables(lake, "main"), SqlLimits(seconds=60, rows=10))
        return tuple(column[0].as_py() for column in answer.rows.columns)

    counts = "select count(*), count(duplicate_of) from"
    assert row(f"{counts} flights") == (sent.total(), sent.total() - len(sent))
    assert row(f"{counts} flights__distinct") == (len(sent), 0)


def shown_by(searcher: EmbeddedSearcher) -> list[int]:
    """Answer the numbers that a search of everything shows, over all pages."""
    numbers: list[int] = []
    cursor = None
    while True:
        asked = SearchRequest(collection=FLIGHTS, limit=1_000, cursor=cursor)
        page = searcher.search(asked)
        numbers += [number_of(event.payload) for event in page.events]
        cursor = page.cursor
        if cursor is None:
            return numbers


def send_while_landing_dies(
    home: Path,
    events: int,
    landings: Callable[[str | None], list[BaseProcess]],
    *,
    settings_file: Path | None = None,
) -> Counter[int]:
    """Send events through the doors of one process; landings begin beside it, and die.

    Answers how often each was acknowledged, once all have landed.
    """
    open_cache(load_settings(home, {}).cache).publish(known)
    ports = free_ports(2)
    requests = schedule(events, seed=11)
    sent: Counter[int] = Counter()
    ends: list[int] = []
    share = -(-len(requests) // len(DEATHS))
    addresses = f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    with (
        door(home, ports, None, settings_file=settings_file),
        closing(Doors(*addresses)) as doors,
    ):
        for start, death in zip(range(0, len(requests), share), DEATHS, strict=True):
            under_way = landings(death)
            for number, request in enumerate(requests[start : start + share]):
                # Landing goes on beside the senders.
                if number == share // 2:
                    for process in under_way:
                        process.start()
                doors.send(request)
                sent.update(request.numbers)
            ends += [finished(process, 120) for process in under_way]
    # One that finds little to land may come to its end before the point where it was to die.
    assert set(ends) <= {0, -signal.SIGKILL}
    assert ends.count(-signal.SIGKILL) >= LEAST_DEATHS, "landing was hardly ever killed"
    under_way = landings(None)
    for process in under_way:
        process.start()
    assert {finished(process, 120) for process in under_way} == {0}
    assert set(sent) == set(range(events))
    assert max(sent.values()) == MOST_COPIES
    return sent


@pytest.mark.breaks("landing, while senders repeat themselves")
def test_what_senders_repeat_is_seen_once_whenever_landing_dies(tmp_path: Path) -> None:
    """Idempotency keys, CloudEvents, and relays of Kafka, SQS and AMQP, over real sockets."""
    sent = send_while_landing_dies(
        tmp_path, EVENTS, lambda death: [child(land_in_process, tmp_path, death, BATCH_BYTES)]
    )

    with closing(open_buffer(f"embedded://{tmp_path / 'log'}")) as log:
        assert_seen_once(tmp_path, new_lake(tmp_path), log, sent)


def land_lane_dying(folder: Path, log_url: str, lane: Lane, death: str | None) -> None:
    """Land a lane in a process of its own, until it dies of it."""
    if death:
        os.environ[points.VARIABLE] = death
    land_lane_in_process(folder, log_url, lane, BATCH_BYTES)


@pytest.mark.engines
@pytest.mark.breaks("landing in two lanes, while senders repeat themselves")
@pytest.mark.timeout(900)
def test_the_same_with_two_lanes_on_kafka_and_trino(tmp_path: Path) -> None:
    """A topic of two partitions, a lake in S3, and its catalog in PostgreSQL."""
    # Only who wants an engine needs its client.
    from engines.fresh import fresh_lake, fresh_name
    from engines.places import HOST, KAFKA, TRINO_PORT

    log_url = f"kafka://{KAFKA}/{fresh_name()}"
    settings_file = tmp_path / "door.toml"
    settings_file.write_text(f'log_url = "{log_url}"\n')
    with closing(open_keeper(log_url)) as keeper:
        assert keeper.ensure(FLIGHTS, partitions=2) == 2
    with fresh_lake() as fresh:
        tell_elsewhere(tmp_path, fresh.catalog_url, fresh.warehouse_url)
        lake = new_lake(tmp_path)
        lake.create(FLIGHTS)
        sent = send_while_landing_dies(
            tmp_path,
            EVENTS,
            lambda death: [
                child(land_lane_dying, tmp_path, log_url, Lane(number, 2), death)
                for number in range(2)
            ],
            settings_file=settings_file,
        )

        assert {row.place[1] for row in rows_of(lake, FLIGHTS)} == {0, 1}
        with closing(open_buffer(log_url)) as log:
            assert_seen_once(tmp_path, lake, log, sent, s3=STORE)
        trino = f"trino://{fresh.trino_catalog}@{HOST}:{TRINO_PORT}/{fresh.trino_catalog}"
        with closing(open_trino(trino)) as engine:
            assert_counted(engine, lake, sent)


# Several lanes, and mutants

Make = Callable[[Lane], Duplicates]


def events_of(request: Sending, chance: random.Random, at: Micros) -> list[Event]:
    """Answer a request as events of a sender that gives another key each time it sends one."""
    return [
        event(
            payload(number),
            id=f"{number}",
            named=True,
            received_at=at,
            key=b"%d" % chance.randrange(16),
        )
        for number in request.numbers
    ]


def land_in_lanes(
    folder: Path, requests: list[Sending], *, lanes: int, make: Make, deaths: int
) -> tuple[Lake, PartitionedLog, Counter[int]]:
    """Let so many lanes land at once what is sent meanwhile, and let them die so often."""
    log = PartitionedLog(lanes)
    chance = random.Random(lanes)
    sent: Counter[int] = Counter()
    new_lake(folder).create(FLIGHTS)
    share = -(-len(requests) // (deaths + 1))
    for number, start in enumerate(range(0, len(requests), share)):
        for request in requests[start : start + share]:
            log.append(FLIGHTS, events_of(request, chance, NOON + start + number))
            sent.update(request.numbers)
        dying = number < deaths
        points.arm(f"{('after_commit', 'before_commit')[number % 2]}:3:raise" if dying else None)
        try:
            _land_at_once(folder, log, [Lane(n, lanes) for n in range(lanes)], make)
        finally:
            points.arm(None)
    return new_lake(folder), log, sent


def _land_at_once(folder: Path, log: PartitionedLog, lanes: list[Lane], make: Make) -> None:
    """Land in a thread for each lane until it is done, or dies."""
    failures: list[Exception] = []

    def run(lane: Lane) -> None:
        work = landing(
            log,
            new_lake(folder),
            lane=lane,
            limits=Limits(batch_bytes=BATCH_BYTES),
            duplicates=make(lane),
        )
        try:
            while True:
                try:
                    if work.land_once(FLIGHTS) is None:
                        return
                except Unavailable:  # the other lane was faster for too long
                    continue
        except points.Injected:
            return
        except Exception as error:  # noqa: BLE001 - a test has to hear of it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_lanes_see_what_the_others_landed(tmp_path: Path) -> None:
    """A sender that gives its event another key has its copies in both partitions."""
    lake, log, sent = land_in_lanes(
        tmp_path, schedule(EVENTS, seed=12), lanes=2, make=lambda _: Duplicates(), deaths=4
    )

    places = {row.place[1] for row in rows_of(lake, FLIGHTS)}
    assert places == {0, 1}
    assert_seen_once(tmp_path, lake, log, sent)


class OwnMemory(Duplicates):
    """A mutant: remembers what it has landed itself, and never looks into the lake."""

    def __init__(self) -> None:
        super().__init__()
        self._landed = CANDIDATE.empty_table()
        self._known: dict[tuple[int, int], Marked] = {}

    def marked(self, table: Table | None, rows: pa.Table, named: pa.Array | None) -> Marked:
        if named is None or not rows.num_rows:
            return Marked(rows)
        first = (rows["log_partition"][0].as_py(), rows["log_offset"][0].as_py())
        if first not in self._known:
            asking = [False] * self._landed.num_rows + named.to_pylist()
            before = self._landed.num_rows
            self._landed = pa.concat_tables([self._landed, candidates_of(rows)])
            judged = judge(self._landed, asking, 24 * HOUR)
            repeats, reused = ([row - before for row in each] for each in judged)
            marked = mark(rows, Judged(repeats, reused))
            self._known[first] = Marked(marked, len(repeats), len(reused))
        return self._known[first]


class Itself(Duplicates):
    """A mutant: takes a row for what it repeats itself, so that nothing is left to point at."""

    def marked(self, table: Table | None, rows: pa.Table, named: pa.Array | None) -> Marked:
        every = list(range(rows.num_rows))
        return Marked(mark(rows, Judged(every, [])), rows.num_rows)


class Uncounted(Duplicates):
    """A mutant: marks rows and says nothing of it."""

    def marked(self, table: Table | None, rows: pa.Table, named: pa.Array | None) -> Marked:
        return Marked(super().marked(table, rows, named).rows)


def kept_by_lane() -> Make:
    """Answer memories that outlive a restart, each of its lane alone."""
    memories: dict[Lane, OwnMemory] = {}
    return lambda lane: memories.setdefault(lane, OwnMemory())


@pytest.mark.parametrize(
    ("lanes", "make", "said"),
    [
        (1, lambda: lambda _lane: OwnMemory(), "shown 2 times"),
        (2, kept_by_lane, "shown 2 times"),
        (1, lambda: lambda _lane: Itself(), "every copy points at a duplicate"),
        (1, lambda: lambda _lane: Uncounted(), "0 duplicates are counted"),
    ],
    ids=["window forgotten at restart", "deaf lane", "duplicate of a duplicate", "not counted"],
)
def test_the_checker_finds_seeded_bugs(
    tmp_path: Path, lanes: int, make: Callable[[], Make], said: str
) -> None:
    """Mutants: without them nobody knows that the tests above could fail."""
    lake, _, sent = land_in_lanes(
        tmp_path, schedule(400, seed=13), lanes=lanes, make=make(), deaths=2
    )
    view = lake.view(FLIGHTS)
    assert view is not None

    wrong = faults(sent, rows_of(lake, FLIGHTS), view.duplicates)

    assert any(said in one for one in wrong), wrong[:5]
