"""Continuous replays: every match that lands, in order, whoever dies and whenever."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON, event
from msgspec.structs import replace as changed
from receiving import Reply, Request, receiving
from worlds import BOUNDS, LogLedger, World, books, names, number_of

from lakehouse.sql import Engine, open_engine
from penstock import faults
from penstock.clock import machine_clock
from penstock.envelope import Clock, Micros
from penstock.errors import BadRequest
from penstock.metadata.records import Destination, ReplayRecord
from replay.again import retry_of
from replay.beforehand import check
from replay.continuous import Behind, behind, new_record, wants_what_landed
from replay.ledger import ATTEMPTS
from replay.plan import Plan, Planner, at_rest, pin_of, read_plan
from replay.progress import Attempts, read_progress
from replay.request import Options, ReplayRequest, read_request

QUICK = replace(BOUNDS, window=10, look_seconds=0.02, idle_seconds=0.1)
MINUTE: Micros = 60_000_000
KEYS = 3
# Where a process may die: in and between the steps of a leg.
BETWEEN = ("replay_at_rest", "replay_leg_found", "replay_leg_made")
WITHIN = ("replay_sent", "replay_before_ckpt", "replay_after_ckpt")


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


@pytest.fixture(autouse=True)
def whole() -> Iterator[None]:
    yield
    faults.arm(None)


def ask(world: World, **more: Any) -> str:
    """Ask for a continuous replay as the API does."""
    asked = {"collection": "flights", "destination": "d1", "continuous": True, **more}
    request = read_request(asked, team="main")
    number = len(world.store.replays("main"))
    world.store.create_replay(
        new_record(
            request,
            world.tools.planner.begin,
            id=f"r{number}",
            now=machine_clock(),
            asked_by=None,
        )
    )
    return f"r{number}"


def land(world: World, numbers: range) -> None:
    """Have events of some keys in the table."""
    for n in numbers:
        body = b'{"n": %d}' % n
        world.log.append(
            FLIGHTS, [event(body, id=f"e{n}", received_at=NOON + n, key=b"k%d" % (n % KEYS))]
        )
    world.wake(FLIGHTS)


def run(world: World, replay_id: str, **tools: Any) -> ReplayRecord:
    """Run it until nothing more lands."""
    return world.run(replay_id, bounds=QUICK, **tools)


def assert_in_order(world: World) -> None:
    """Say that the events of each key came in their order, up to a repeated suffix."""
    for key in range(KEYS):
        came = [n for n in map(number_of, world.receiver.requests) if n % KEYS == key]
        place = {n: at for at, n in enumerate(sorted(set(came)))}
        assert max((place[b] - place[a] for a, b in pairwise(came)), default=0) <= 1


def test_what_lands_later_is_sent_leg_by_leg(world: World) -> None:
    """Each match once, in order, whether a run is there when it lands or comes later."""
    land(world, range(20))
    replay_id = ask(world, query="n:<35", since="2020-01-01")
    first = run(world, replay_id)
    land(world, range(20, 40))
    second = run(world, replay_id)

    assert (first.state, second.state) == ("running", "running")
    assert_in_order(world)
    assert world.received() == names(range(35))
    assert books(first) == (20, 20, 0)
    assert books(second) == (35, 35, 0)
    plan = read_plan(second.plan or {})
    assert (plan.leg, plan.before, plan.pin) == (2, 35, None)
    assert [(reach.start, reach.end, reach.events) for reach in plan.spans] == [(0, 35, 35)]
    assert (plan.first and plan.first.event_id, plan.last and plan.last.event_id) == ("e0", "e34")
    assert second.lease_until is None, "the next run need not wait"


def test_one_run_sends_what_lands_while_it_is_there(world: World) -> None:
    """No leg waits for a new process, and the ledger has a row for each event of every leg.

    The ledger folds what comes again under its key: two legs of a run must not have the same.
    """
    keys: list[str] = []

    class Noting(LogLedger):
        async def write(self, rows: Sequence[Attempts], *, key: str) -> None:
            keys.append(key)
            await super().write(rows, key=key)

    following = {0: range(10, 25), 10: range(25, 26)}

    def answer(request: Request) -> Reply:
        if (numbers := following.pop(number_of(request), None)) is not None:
            land(world, numbers)
        return Reply()

    world.receiver.answer = answer
    replay_id = ask(world)
    land(world, range(10))
    done = run(world, replay_id, open_ledger=lambda: Noting(world.log))

    assert world.received() == names(range(26))
    assert (done.epoch, read_plan(done.plan or {}).leg) == (1, 3)
    assert max(Counter(keys).values()) == 1


def test_from_now_on_is_from_when_it_was_asked_for(world: World) -> None:
    """Neither what had landed nor what was still on the log; all that was accepted after."""
    land(world, range(5))
    world.append(5, first=5)
    replay_id = ask(world)
    land(world, range(10, 15))

    done = run(world, replay_id)

    assert world.received() == names(range(10, 15))
    assert books(done) == (5, 5, 0)


def test_one_that_starts_later_begins_with_what_is_received_from_then_on() -> None:
    """Its process starts some seconds after its time, and nothing of those may be missing."""
    request = ReplayRequest(
        team="main", collection="c", destination="d1", options=Options(continuous=True)
    )

    def begin(_: ReplayRequest) -> Plan:
        raise AssertionError("it has not begun: paused and resumed, it would run before its time")

    at = NOON + MINUTE
    record = new_record(request, begin, id="r1", now=NOON, asked_by=None, start_at=at)
    told = changed(request, since=NOON)

    assert (record.since, record.plan) == (at, None)
    assert new_record(told, begin, id="r", now=NOON, asked_by=None, start_at=at).since == NOON


def test_what_it_was_asked_without_a_plan_it_begins_itself(world: World) -> None:
    """That is how one that starts later is found."""
    land(world, range(3))
    replay_id = world.ask(continuous=True, since="2020-01-01")

    assert books(run(world, replay_id)) == (3, 3, 0)


def test_where_nothing_matches_only_the_place_moves(world: World) -> None:
    """A query that finds little must not pin a snapshot, nor look at the same events again."""
    replay_id = ask(world, query="n:>=1000")
    land(world, range(30))
    plan = read_plan(run(world, replay_id).plan or {})

    assert (plan.leg, plan.count, plan.ends) == (0, 0, ((0, 30),))
    assert world.lake.pins(FLIGHTS) == {}
    assert not wants_what_landed(world.record(replay_id), world.lake, world.log)


def test_quarantined_events_are_followed(world: World) -> None:
    """Their rows are committed before the marks that say so."""
    replay_id = ask(world, view="quarantine")
    world.log.append(FLIGHTS, [event(b"{", id="e7"), event(b'{"n": 8}', id="e8")])
    world.wake(FLIGHTS)

    assert books(run(world, replay_id)) == (1, 1, 0)
    assert world.received() == names([7])


def test_duplicates_of_later_legs_are_left_out_too(world: World) -> None:
    """What repeats another event is folded, whichever leg that was in."""
    replay_id = ask(world)
    for payload in (b'{"n": 1}', b'{"n": 1}'):
        world.log.append(FLIGHTS, [event(payload, id="e1", received_at=NOON, named=True)])
        world.wake(FLIGHTS)
        done = run(world, replay_id)

    assert world.received() == names([1])
    assert (books(done), read_plan(done.plan or {}).folded) == ((1, 1, 0), 1)


# Killed


def minutes_later(minutes: int) -> Clock:
    """Answer a clock in whose time the lease of a run that died is over."""
    return lambda: machine_clock() + minutes * MINUTE


def follow_through_deaths(world: World, point: str, planner: Planner | None = None) -> ReplayRecord:
    """Kill each run at a later visit of a point, while more lands; answer the last one's row."""
    world.tools = replace(world.tools, planner=planner or world.tools.planner)
    replay_id = ask(world, concurrency=4, retries=3)
    land(world, range(20))
    count = 20
    for nth in range(1, 6):
        faults.arm(f"{point}:{nth}:raise")
        with suppress(faults.Injected):
            run(world, replay_id, clock=minutes_later(nth))
        land(world, range(count, count + 12))
        count += 12
    faults.arm(None)
    done = run(world, replay_id, clock=minutes_later(60))
    check_all_arrived(world, done, count)
    return done


def check_all_arrived(world: World, done: ReplayRecord, count: int) -> None:
    came = Counter(map(number_of, world.receiver.requests))
    assert set(came) == set(range(count)), "each at least once"
    assert_in_order(world)
    assert (done.state, *books(done)) == ("running", count, count, 0)
    assert world.lake.pins(FLIGHTS) == {}


@pytest.mark.parametrize("point", BETWEEN)
def test_killed_between_the_steps_of_a_leg_each_event_arrives_once(
    world: World, point: str
) -> None:
    """Neither left out nor repeated: where nothing is under way there is nothing to repeat."""
    done = follow_through_deaths(world, point)

    assert set(Counter(map(number_of, world.receiver.requests)).values()) == {1}
    assert read_progress(done.progress).repeated == 0


@pytest.mark.parametrize("point", WITHIN)
def test_killed_while_it_sends_no_more_than_the_window_is_repeated(
    world: World, point: str
) -> None:
    """What a leg promises is what every replay does."""
    done = follow_through_deaths(world, point)

    came = Counter(map(number_of, world.receiver.requests))
    assert sum(came.values()) - len(came) <= 5 * QUICK.window
    assert read_progress(done.progress).repeated >= sum(came.values()) - len(came)


class MovesFirst(Planner):
    """Says that it has looked, before what it has found is written down: a mutant."""

    def __init__(self, world: World) -> None:
        super().__init__(world.lake, world.log, world.engine, clock=machine_clock)
        self._store = world.store

    def next_leg(self, request: ReplayRequest, plan: Plan, replay_id: str) -> Plan | None:
        leg = super().next_leg(request, plan, replay_id)
        if leg is not None:
            moved = changed(at_rest(plan), ends=leg.ends)
            row = self._store.replay(request.team, replay_id)
            self._store.checkpoint_replay(
                replay_id,
                row.epoch,
                progress=row.progress,
                plan=moved.as_dict(),
                now=machine_clock(),
                ttl=0,
            )
        return leg


def test_a_place_that_moves_before_its_leg_is_there_is_noticed(world: World) -> None:
    """The checker would let such a bug through otherwise."""
    with pytest.raises(AssertionError, match="each at least once"):
        follow_through_deaths(world, "replay_leg_found", MovesFirst(world))


# Steered


def test_paused_it_goes_on_later_with_all_that_landed_meanwhile(world: World) -> None:
    """Between two legs nobody sends, and the pause is the platform's to write down."""
    replay_id = ask(world)
    land(world, range(4))
    run(world, replay_id)
    world.store.wish("main", replay_id, "pause", machine_clock())
    land(world, range(4, 9))
    assert world.record(replay_id).state == "paused"

    world.store.wish("main", replay_id, "resume", machine_clock())
    done = run(world, replay_id)

    assert done.state == "running"
    assert world.received() == names(range(9))


@pytest.mark.parametrize(
    ("wish", "state"), [("pause", "paused"), ("cancel", "cancelled")], ids=["pause", "cancel"]
)
def test_a_run_that_waits_for_more_obeys(world: World, wish: Any, state: str) -> None:
    """It would go on for a minute, or send what lands meanwhile."""
    replay_id = ask(world)
    land(world, range(4))
    bounds = replace(QUICK, idle_seconds=30.0)

    def wished() -> None:
        while world.record(replay_id).progress.get("delivered") != 4:
            waited.wait(0.01)
        world.store.wish("main", replay_id, wish, machine_clock())

    waited = threading.Event()
    person = threading.Thread(target=wished)
    person.start()
    done = world.run(replay_id, bounds=bounds)
    person.join()

    assert (done.state, done.wish, done.lease_until) == (state, None, None)
    assert books(done) == (4, 4, 0)
    assert world.lake.pins(FLIGHTS) == {}


def test_a_cancel_in_a_leg_skips_what_is_left_of_it(world: World) -> None:
    """Matched is delivered + failed + skipped, also over several legs."""
    replay_id = ask(world, concurrency=1, order="log")
    land(world, range(5))
    run(world, replay_id)
    land(world, range(5, 30))

    def answer(request: Request) -> Reply:
        if number_of(request) == 10:
            world.store.wish("main", replay_id, "cancel", machine_clock())
        return Reply()

    world.receiver.answer = answer
    world.receiver.seconds = 0.05
    done = run(world, replay_id)

    far = read_progress(done.progress)
    assert done.state == "cancelled"
    assert far.skipped > 0
    assert far.delivered + far.skipped + far.unknown == read_plan(done.plan or {}).count == 30
    assert world.lake.pins(FLIGHTS) == {}


def test_what_failed_is_retried_while_it_goes_on(world: World) -> None:
    """Who waits for its end waits for ever; and what one retry brought, the next leaves out."""
    replay_id = ask(world)
    world.refuse(lambda n: n % 5 == 0)
    land(world, range(10))
    run(world, replay_id)
    world.wake(ATTEMPTS)
    world.received()
    world.refuse(lambda n: n == 5)

    first = world.run(world.retry(replay_id))
    assert (books(first), world.received()) == ((2, 1, 1), names([0, 5]))
    world.wake(ATTEMPTS)
    world.refuse(lambda _: False)
    again = world.run(world.retry(replay_id))

    assert (books(again), world.received()) == ((1, 1, 0), names([5]))
    assert not retry_of(world.record(replay_id), changes={}).options.continuous


# Refused


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_events": 5}, "leave out max_events"),
        ({"missing": True}, "leave out missing"),
        ({"speed": 2.0}, "leave out speed"),
        ({"until": "2030-01-01"}, "leave out until"),
    ],
)
def test_what_has_an_end_is_refused(given: Any, says: str) -> None:
    """It would be told of a replay that does not do it."""
    with pytest.raises(BadRequest, match=says):
        read_request(
            {"collection": "c", "destination": "d1", "continuous": True, **given}, team="main"
        )


def test_it_is_not_made_of_what_replays_write_themselves() -> None:
    """Each of its sends would be two more of its events."""
    with pytest.raises(BadRequest, match="not replayed continuously"):
        ReplayRequest(
            team="penstock_system",
            collection="replay_attempts",
            destination="d1",
            options=Options(continuous=True),
        )


def test_no_file_is_written_for_ever(world: World) -> None:
    """It could never be taken away."""
    world.store.add_destination(
        Destination(team="main", name="f", kind="file", url="file://f", created_at=NOON)
    )
    asked = {"collection": "flights", "destination": "f", "continuous": True}
    with pytest.raises(BadRequest, match="leave out continuous"):
        check(read_request(asked, team="main"), world.store, None)


def test_the_digest_says_that_it_is_continuous() -> None:
    """Plans of others must not be taken over, and theirs stay as they were."""
    one = ReplayRequest(team="main", collection="c", destination="d1")
    other = changed(one, options=Options(continuous=True))

    assert one.digest() != other.digest()


# Seen from outside


def test_it_says_how_far_it_is_behind(world: World) -> None:
    """In events and in time: what is on the log and not looked at, and what is not sent yet."""
    replay_id = ask(world, order="log")
    assert behind(world.record(replay_id), world.log, NOON) == Behind(0, None)
    world.append(3)
    told = behind(world.record(replay_id), world.log, NOON + MINUTE)
    assert told == Behind(3, MINUTE)
    assert behind(world.record(replay_id), world.log, NOON, timed=False) == Behind(3, None)
    world.wake(FLIGHTS)
    far: list[Behind | None] = []

    def answer(_: Request) -> Reply:
        far.append(behind(world.record(replay_id), world.log, NOON + 2 * MINUTE))
        return Reply()

    world.receiver.answer = answer
    run(world, replay_id)

    assert far[0] == Behind(3, 2 * MINUTE)
    assert behind(world.record(replay_id), world.log, NOON) == Behind(0, None)
    assert behind(world.record(world.ask()), world.log, NOON) is None


def test_one_that_rests_is_left_alone_until_something_has_landed(world: World) -> None:
    """A process for each of hundreds that have nothing to do is what the machine would do."""

    def wants() -> bool:
        return wants_what_landed(world.record(replay_id), world.lake, world.log)

    replay_id = ask(world)
    assert wants(), "it has not begun"
    run(world, replay_id)
    assert not wants()
    world.append(2)
    assert not wants(), "it has not landed, and so cannot be sent"
    world.wake(FLIGHTS)
    assert wants()
    run(world, replay_id)
    assert not wants()
    world.store.wish("main", replay_id, "pause", machine_clock())
    world.store.wish("main", replay_id, "resume", machine_clock())
    assert not wants(), "resumed without anything to do"
    assert wants_what_landed(world.record(world.ask()), world.lake, world.log)


def test_the_pin_of_one_that_died_before_its_leg_was_there_is_let_go(world: World) -> None:
    """Upkeep would keep the files of that snapshot until the next leg, which may never come."""
    replay_id = ask(world)
    land(world, range(3))
    run(world, replay_id)
    view = world.lake.view(FLIGHTS)
    assert view is not None
    assert view.snapshot_id is not None
    world.lake.pin(FLIGHTS, view.snapshot_id, pin_of(replay_id))

    run(world, replay_id)

    assert world.lake.pins(FLIGHTS) == {}
