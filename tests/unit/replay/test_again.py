"""Retries, and what is missing: the ledger says which events those are, on a real lake."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_builders import replay
from msgspec.structs import replace as changed
from receiving import Reply, Request, receiving
from worlds import World, books, names, number_of

from lakehouse.catalog import main_table
from lakehouse.sql import Engine, open_engine
from lakehouse.upkeep import expire
from penstock.clock import machine_clock
from penstock.errors import BadRequest, TableChanged, WrongState
from replay.again import expected, retry_of
from replay.attempted import Attempted
from replay.lease import Bounds
from replay.ledger import ATTEMPTS
from replay.plan import Planner, pin_of, read_plan
from replay.progress import Attempt, Progress, read_progress
from replay.request import read_request, record_of


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_engine(tmp_path_factory.mktemp("sql"), memory="500MB", threads=1)
    yield opened
    opened.close()


@pytest.fixture
def world(tmp_path: Path, engine: Engine) -> Iterator[World]:
    with receiving() as receiver:
        made = World(tmp_path, engine, receiver)
        yield made
        made.store.close()


def test_a_retry_sends_exactly_what_failed(world: World) -> None:
    """What arrived is not sent again, and what came in since is not sent at all."""
    world.append(200)
    world.refuse(lambda n: n % 7 == 0)
    first = world.run(world.ask("n:<150", pause_after=1_000, rate=5_000.0))
    failed = [n for n in range(150) if n % 7 == 0]
    assert books(first) == (150, 150 - len(failed), len(failed))
    world.received()
    world.append(50, first=200)
    world.refuse(lambda _: False)

    again = world.run(world.retry(first.id, concurrency=2))

    assert again.state == "finished"
    assert books(again) == (len(failed), len(failed), 0)
    assert world.received() == names(failed)
    assert (again.query, again.destination) == ("n:<150", "d1")
    assert (again.options["rate"], again.options["concurrency"]) == (5_000.0, 2)
    assert again.plan is not None
    assert read_plan(again.plan).warnings == ()
    assert world.lake.pins(FLIGHTS) == world.lake.pins(ATTEMPTS) == {}


def test_what_failed_twice_is_retried_from_the_retry(world: World) -> None:
    """Each retry has what is left of the one before, elsewhere too."""
    world.append(30)
    world.refuse(lambda n: n < 10)
    first = world.run(world.ask(pause_after=1_000, max_events=20))
    world.refuse(lambda n: n < 4)
    second = world.run(world.retry(first.id, pause_after=1_000))
    world.received()
    world.refuse(lambda _: False)

    third = world.run(world.retry(second.id, destination="d2"))

    assert books(second) == (10, 6, 4)
    assert books(third) == (4, 4, 0)
    assert world.received() == names(range(4))


def test_a_retry_asks_its_query_no_more(world: World) -> None:
    """``now-1h`` was another hour when it was asked."""
    now = machine_clock()
    for n in range(5):
        world.log.append(FLIGHTS, [event(b"{}", id=f"e{n}", received_at=now - 1_000_000)])
    world.refuse(lambda n: n == 3)
    first = world.run(world.ask("received_at:>now-1h", pause_after=1_000))
    assert books(first) == (5, 4, 1)
    world.received()
    world.refuse(lambda _: False)
    later = machine_clock() + 7_200_000_000
    planner = Planner(world.lake, world.log, world.engine, clock=lambda: later)

    again = world.run(world.retry(first.id), planner=planner)

    assert books(again) == (1, 1, 0)


def test_the_retry_of_a_cancel_sends_what_was_cut_off(world: World) -> None:
    """Nobody knows whether it arrived: that is no reason to leave it out."""
    world.append(12)
    asked, release = threading.Event(), threading.Event()

    def never(request: Request) -> Reply:
        if number_of(request) == 2:
            asked.set()
            release.wait(20)
        return Reply()

    world.receiver.answer = never
    replay_id = world.ask(concurrency=1)
    bounds = Bounds(checkpoint_seconds=0.05, grace_seconds=0.1)
    runner = threading.Thread(target=world.run, args=(replay_id,), kwargs={"bounds": bounds})
    runner.start()
    assert asked.wait(20)
    world.store.wish("main", replay_id, "cancel", machine_clock())
    runner.join(20)
    release.set()
    progress = read_progress(world.record(replay_id).progress)
    assert (world.record(replay_id).state, progress.unknown) == ("cancelled", 1)
    world.received()

    again = world.run(world.retry(replay_id))

    assert books(again) == (1, 1, 0)
    assert world.received() == names([2])


def test_what_is_missing_is_sent_once_and_then_is_nothing(world: World) -> None:
    """A replay that is run again and again must not send twice."""
    world.append(60)
    world.refuse(lambda n: n in (5, 50))
    first = world.run(world.ask("n:<40"))
    world.received()
    world.append(10, first=60)

    second = world.run(world.ask(missing=True, pause_after=1_000))
    assert books(second) == (31, 29, 2)
    assert world.received() == names([5, *range(40, 70)])
    world.refuse(lambda _: False)
    third = world.run(world.ask("n:<60", missing=True))
    assert books(third) == (2, 2, 0)
    assert world.received() == names([5, 50])
    fourth = world.run(world.ask(missing=True))
    assert (fourth.state, books(fourth)) == ("finished", (0, 0, 0))
    assert books(first) == (40, 39, 1)
    assert world.received() == Counter()
    elsewhere = read_request(
        {"collection": "flights", "destination": "d2", "missing": True}, team="main"
    )
    assert world.plan(elsewhere).count == 70, "another destination had none of it"


def test_before_the_first_replay_everything_is_missing(world: World) -> None:
    """There is no ledger yet."""
    world.append(3)

    assert books(world.run(world.ask(missing=True))) == (3, 3, 0)


def test_a_dry_run_acknowledges_nothing(world: World) -> None:
    """It did not send."""
    world.append(3)
    world.run(world.ask(dry_run=True))

    assert books(world.run(world.ask(missing=True))) == (3, 3, 0)


def test_what_is_missing_can_be_asked_by_what_only_payloads_tell(world: World) -> None:
    """Such a query goes another way through the engine."""
    for n in range(6):
        world.log.append(FLIGHTS, [event(b'{"n": %d, "x": null}' % n, id=f"e{n}")])
    world.refuse(lambda n: n == 4)
    world.run(world.ask("x:null"))
    world.received()
    world.refuse(lambda _: False)

    again = world.run(world.ask("x:null", missing=True))

    assert books(again) == (1, 1, 0)
    assert world.received() == names([4])


def test_what_arrives_in_the_ledger_after_the_plan_changes_nothing(world: World) -> None:
    """The number planned is the number sent, also for whoever goes on after a crash."""
    world.append(20)
    request = read_request(
        {"collection": "flights", "destination": "d1", "missing": True}, team="main"
    )
    world.run(world.ask("n:<5"))
    world.store.create_replay(record_of(request, id="mine", now=NOON))
    plan = world.tools.planner.plan(request, wake=world.wake, replay_id="mine")
    world.run(world.ask("n:<12"))
    world.wake(ATTEMPTS)
    expire(world.lake, main_table(ATTEMPTS), keep=1)

    reopened = Planner(world.lake, world.log, world.engine, clock=machine_clock)
    matches = reopened.open(request, plan)

    assert matches is not None
    found = [o.event.id for batch in matches.batches(matches.buckets(), None) for o in batch]
    assert found == [f"e{n}" for n in range(5, 20)]
    assert plan.count == 15
    assert [o.event.id for o in reopened.first(request, plan, 2)] == ["e5", "e6"]
    assert set(world.lake.pins(ATTEMPTS)) == {pin_of("mine")}
    world.lake.unpin(ATTEMPTS, pin_of("mine"))
    with pytest.raises(TableChanged, match="pinned in the ledger"):
        reopened.open(request, plan)


def test_a_retry_that_finds_less_says_so(world: World) -> None:
    """Retention dropped what the ledger knew: nobody should believe that all was sent."""
    world.append(10)
    world.refuse(lambda n: n < 3)
    first = world.run(world.ask(pause_after=1_000))
    request = retry_of(world.record(first.id), changes={})
    asked = expected(world.store, request)
    assert asked == 3

    planned = world.tools.planner.plan(request, wake=world.wake, expected=asked)
    assert (planned.count, planned.warnings) == (3, ())
    less = world.tools.planner.plan(
        changed(request, options=changed(request.options, retry_of="r7")),
        wake=world.wake,
        expected=asked,
    )

    assert less.count == 0
    assert any("3 events failed or were cut off in r7; 0 are" in said for said in less.warnings)


@pytest.mark.parametrize(
    ("state", "more", "changes", "says"),
    [
        ("running", {}, {}, "is running"),
        ("finished", {"progress": Progress(delivered=3).as_dict()}, {}, "nothing failed"),
        ("finished", {"options": {"dry_run": True}}, {}, "dry run"),
        ("finished", {}, {"query": "x"}, "query cannot be given"),
        ("finished", {}, {"view": "quarantine"}, "view cannot be given"),
        ("finished", {}, {"rate": -1}, "rate"),
        ("finished", {}, {"retry_of": "r9"}, "retry_of cannot be given"),
    ],
)
def test_a_retry_that_cannot_be_is_refused(state, more, changes, says: str) -> None:
    """Whoever asks for it learns why, before anything is sent."""
    values = {"progress": Progress(failed=2).as_dict(), "options": {}, **more}
    record = changed(replay("r1", state=state), **values)

    with pytest.raises((WrongState, BadRequest), match=says):
        retry_of(record, changes=changes)


def test_requests_of_before_have_the_digests_they_had() -> None:
    """A replay that runs while Penstock is upgraded goes on with its plan."""
    request = read_request({"collection": "flights", "destination": "d1"}, team="main")
    known = "140062d4eb82aa93eb91d5f1000fb84adfa7ac241557bdf82d5ea1ca561aa061"
    assert request.digest() == known
    digests = {
        changed(request, options=changed(request.options, **each)).digest()
        for each in ({}, {"missing": True}, {"retry_of": "missing"}, {"retry_of": "r1"})
    }
    assert len(digests) == 4


Outcome = tuple[str, int, int, int, int, str]
"""Replay, epoch, attempt, offset, how many, outcome."""

outcomes = st.lists(
    st.tuples(
        st.sampled_from(["r1", "r2"]),
        st.integers(1, 2),
        st.integers(1, 3),
        st.sampled_from([0, 1, 60, 62, 63, 64, 65, 127, 128, 4095]),
        st.integers(1, 4),
        st.sampled_from(["delivered", "failed", "unknown", "retry", "skipped"]),
    ),
    min_size=1,
    max_size=30,
)


def told_of(row: Outcome) -> Attempt:
    replay_id, epoch, attempt, offset, events, outcome = row
    return Attempt(
        replay=replay_id,
        epoch=epoch,
        event_id=f"e{offset}",
        team="main",
        collection="flights",
        partition=0,
        offset=offset,
        last=offset + events - 1,
        events=events,
        attempt=attempt,
        kind="outcome",
        outcome=outcome,
        at="2025-11-24T16:00:00.000000Z",
        destination="d1",
        who="run 1",
        log_id="this",
    )


class Shown:
    """A connection to whom the ledger is rows at hand."""

    def __init__(self, real: Any, rows: pa.Table) -> None:
        self._real = real
        self._rows = rows
        self.shape = real.shape
        self.rows = real.rows

    def lake(self, view: object, *, snapshot_id: int | None = None) -> str:
        name: str = self._real.arrow(self._rows)
        return name


class Shows:
    """An engine of such connections."""

    def __init__(self, engine: Engine, rows: Sequence[Attempt]) -> None:
        told = [{"data": {"log_id": None, **msgspec.to_builtins(row)}} for row in rows]
        self._engine = engine
        self._rows = pa.Table.from_pylist(told)

    @contextmanager
    def reader(self) -> Iterator[Shown]:
        with self._engine.reader() as real:
            yield Shown(real, self._rows)


def places_of(words: pa.Table) -> set[int]:
    return {
        row["word"] * 64 + bit
        for row in words.to_pylist()
        for bit in range(64)
        if row["bits"] >> bit & 1
    }


def books_on(engine: Engine, rows: Sequence[Attempt], log_id: str = "this") -> Attempted:
    shows: Any = Shows(engine, rows)
    view: Any = None
    return Attempted(shows, view, 1, collection=FLIGHTS, log_id=log_id)


@settings(max_examples=60, deadline=None)
@given(outcomes)
def test_the_ledger_is_read_event_by_event(engine: Engine, rows: list[Outcome]) -> None:
    """Rows overlap, repeat and come in any order; what each event came to is what decides."""
    ends: dict[int, dict[tuple[int, int, bool], set[bool]]] = {}
    arrived = set()
    for replay_id, epoch, attempt, offset, events, outcome in rows:
        for place in range(offset, offset + events):
            if outcome == "delivered":
                arrived.add(place)
            if replay_id == "r1":
                rank = (epoch, attempt, outcome != "unknown")
                left = outcome in ("failed", "unknown")
                ends.setdefault(place, {}).setdefault(rank, set()).add(left)
    last = {place: told[max(told)] for place, told in ends.items()}
    # Of one attempt a ledger says one thing; these rows may say two.
    sure = {place for place, left in last.items() if left == {True}}
    unsure = {place for place, left in last.items() if len(left) > 1}
    books = books_on(engine, [told_of(row) for row in rows])

    assert places_of(books.left("r1")) - unsure == sure
    assert places_of(books.arrived("d1")) == arrived
    assert places_of(books.arrived("d2")) == set()


def test_another_log_and_another_collection_say_nothing(engine: Engine) -> None:
    """A renewed log gives offsets again: nobody has sent the events that are there now."""
    row = told_of(("r1", 1, 1, 7, 1, "delivered"))
    lost = told_of(("r1", 1, 1, 8, 1, "failed"))
    others = [changed(row, offset=9, last=9, collection="orders"), changed(row, team="rivals")]

    books = books_on(engine, [row, lost, *others])

    assert places_of(books.arrived("d1")) == {7}
    assert places_of(books.left("r1")) == {8}
    elsewhere = books_on(engine, [row, lost, *others], log_id="that")
    assert places_of(elsewhere.arrived("d1")) == places_of(elsewhere.left("r1")) == set()
    of_before = [changed(row, log_id=""), lost]
    assert places_of(books_on(engine, of_before).arrived("d1")) == {7}


@pytest.mark.parametrize("turn", [1, -1])
def test_what_a_successor_did_not_look_up_does_not_count(engine: Engine, turn: int) -> None:
    """It writes `unknown` of what its predecessor delivered and had no time to check off."""
    told = [
        *(told_of(("r1", 1, 1, n, 1, "delivered")) for n in range(64)),
        *(told_of(("r1", 1, 1, n, 1, "unknown")) for n in range(65)),
    ]

    books = books_on(engine, told[::turn])

    assert places_of(books.left("r1")) == {64}
