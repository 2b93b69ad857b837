"""A replay from its row to its end: a real store, lake and SQL engine, and a real destination."""

from __future__ import annotations

import hmac
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest
from builders import FLIGHTS, event
from descriptors import SHOP, order
from engines.fresh import fresh_name
from engines.places import RABBITMQ
from lakes import BROKEN, landing, new_lake
from metadata_builders import collection
from ready_store import ready_store
from receiving import Receiver, Reply, Request, receiving
from replaying import MemoryLedger
from tallied import tally

from lakehouse.sql import Engine, open_engine
from penstock.buffer.memory import MemoryLog
from penstock.bus import REPLAY, Bus, open_bus
from penstock.clock import machine_clock, steady_seconds
from penstock.envelope import CollectionId, Event, Micros
from penstock.errors import AddressRefused, EngineUnavailable, NotFound, WrongState
from penstock.guard import Guard
from penstock.metadata.records import Destination, ReplayRecord
from penstock.metadata.store import Store
from penstock.schema.convert import Rules
from penstock.schema.formats.protobuf import Protobuf
from replay.lease import Bounds
from replay.plan import Planner, pin_of
from replay.progress import read_progress, report
from replay.request import read_request, record_of, request_of
from replay.run import Tools, refuse_own_door, release_pins, run_replay, target_of
from replay.targets.spread import SpreadTarget

ORDERS = Rules(decoder=Protobuf(SHOP, message="shop.Order"))
HERE = ip_network("127.0.0.1/32")
BOUNDS = Bounds(checkpoint_seconds=0.1, lease_seconds=4.0, lease_margin=1.0, linger_seconds=0.3)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_engine(tmp_path_factory.mktemp("sql"), memory="500MB", threads=1)
    yield opened
    opened.close()


class World:
    """One installation with a collection, a destination and replays."""

    def __init__(self, folder: Path, engine: Engine, receiver: Receiver) -> None:
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.store: Store = ready_store(folder)
        self.receiver = receiver
        self.ledger = MemoryLedger()
        self.ledger.seconds = 0.0
        self.landing = landing(self.log, self.lake)
        self.told: list[ReplayRecord] = []
        self.stop = threading.Event()
        self.tools = Tools(
            store=self.store,
            planner=Planner(self.lake, self.log, engine, clock=machine_clock),
            guard=Guard((HERE,), (receiver.port,)),
            open_ledger=lambda: self.ledger,
            wake=self.wake,
            doors=("http://127.0.0.1:8080",),
            clock=machine_clock,
            bounds=BOUNDS,
        )
        self.store.create_collection(collection())
        self.destination("d1", receiver.url)

    def destination(self, name: str, url: str) -> None:
        self.store.add_destination(
            Destination(team="main", name=name, url=url, created_at=machine_clock())
        )

    def wake(self, which: CollectionId) -> None:
        while self.landing.land_once(which):
            pass

    def append(self, *events: Event) -> None:
        for each in events:
            self.log.append(FLIGHTS, [each])

    def ask(self, query: str = "", **more) -> str:
        more.setdefault("destination", "d1")
        asked = read_request({"collection": "flights", "query": query, **more}, team="main")
        number = len(self.store.replays("main"))
        self.store.create_replay(record_of(asked, id=f"r{number}", now=machine_clock()))
        return f"r{number}"

    def run(self, replay_id: str, **tools) -> ReplayRecord | None:
        return run_replay(
            replay_id,
            replace(self.tools, **tools),
            holder="run 1",
            stop=self.stop,
            told=self.told.append,
        )

    def wish(self, replay_id: str, wish) -> None:
        self.store.wish("main", replay_id, wish, machine_clock())

    def hurry(self, replay_id: str) -> None:
        """Let it go as fast as it can from now on."""
        options = {**self.record(replay_id).options, "rate": None}
        self.store.change_options("main", replay_id, options)

    def record(self, replay_id: str) -> ReplayRecord:
        return self.store.replay("main", replay_id)

    def received(self) -> Counter[str | None]:
        return Counter(r.header("penstock-event-id") for r in self.receiver.requests)


@pytest.fixture
def world(tmp_path: Path, engine: Engine) -> Iterator[World]:
    with receiving() as receiver:
        made = World(tmp_path, engine, receiver)
        yield made
        made.store.close()


def events(count: int, *, key: Callable[[int], bytes | None] = lambda _: None) -> list[Event]:
    return [event(b'{"n": %d}' % n, id=f"e{n}", key=key(n)) for n in range(count)]


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class Working:
    """A replay that runs in a thread."""

    def __init__(self, world: World, replay_id: str, **tools) -> None:
        self.result: ReplayRecord | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(world, replay_id, tools))
        self._thread.start()

    def _run(self, world: World, replay_id: str, tools: dict) -> None:
        try:
            self.result = world.run(replay_id, **tools)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def join(self) -> ReplayRecord:
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


def test_a_replay_goes_from_request_to_finished(world: World) -> None:
    """The whole of it: plan, pin, send, books, unpin."""
    world.append(*events(300))
    replay_id = world.ask("n:<200")

    record = world.run(replay_id)

    assert record is not None
    assert (record.state, record.error, record.epoch) == ("finished", None, 1)
    assert record.plan["count"] == 200
    assert world.received() == Counter({f"e{n}": 1 for n in range(200)})
    account = report(read_progress(record.progress), matched=200, ended=True)
    assert (account.delivered, account.skipped, account.repeated) == (200, 0, 0)
    assert tally(world.ledger.rows).delivered == 200
    assert {r.replay for r in world.ledger.rows} == {replay_id}
    assert world.lake.pins(FLIGHTS) == {}
    states = [each.state for each in world.told]
    assert sorted(set(states), key=states.index) == ["planning", "running", "finished"]
    assert record.started_at is not None
    assert record.finished_at is not None


def test_what_arrives_while_it_runs_is_not_sent(world: World) -> None:
    """The plan is the promise, not the table."""
    world.append(*events(50))
    replay_id = world.ask()

    def more(_: Request) -> Reply:
        if len(world.receiver.requests) == 1:
            world.append(*[event(b"{}", id=f"late{n}") for n in range(10)])
            world.wake(FLIGHTS)
        return Reply()

    world.receiver.answer = more
    world.run(replay_id)

    assert set(world.received()) == {f"e{n}" for n in range(50)}


def test_a_replay_of_messages_sends_the_very_bytes_that_came(world: World) -> None:
    """They are found by what they are decoded to; nothing of that goes on."""
    world.landing = landing(world.log, world.lake, rules=ORDERS)
    # As an older writer would have it: fields out of order, and one that nobody knows.
    odd = order(total=5.0) + order(id=2) + b"\x98\x06\x05"
    sent = {"e0": order(id=1), "e1": odd, "e2": b"\xff no message", "e3": order(id=3, note="x")}
    world.append(*(event(payload, id=name) for name, payload in sent.items()))

    world.run(world.ask("id:>1"))
    world.run(world.ask("quarantine.stage:gate", view="quarantine"))

    got = {one.header("penstock-event-id"): one.body for one in world.receiver.requests}
    assert got == {name: sent[name] for name in ("e1", "e2", "e3")}


def test_a_transform_changes_what_is_sent_and_nothing_else(world: World) -> None:
    """Receivers get what it makes, the ledger says so, and the log keeps what came."""
    world.append(
        event(b'{"n":1.10, "card":"4111"}', id="e0", key=b"k"),
        event(b'{"card":"4111"', id="e1", content_type="text/plain"),
        event(b'{"n":2}', id="e2"),
    )
    steps = ["mask card as hash", "set total = n where n", "remove n", "set headers.x-of = key"]

    record = world.run(world.ask(transform=steps, concurrency=1))

    assert record is not None
    progress = read_progress(record.progress)
    assert (record.state, progress.delivered, progress.failed) == ("finished", 2, 1)
    assert progress.last_failure == "the transform: the payload is no JSON"
    first, last = world.receiver.requests
    secret = hmac.digest(world.store.masking_secret("main"), b"4111", "sha256").hex()[:32]
    assert first.body == b'{ "card":"%s", "total":1.10}' % secret.encode()
    assert last.body == b'{"total":2}'
    assert (first.header("x-of"), last.header("x-of")) == ("k", None)
    name = first.header("penstock-transform")
    assert name is not None
    assert {row.transform for row in world.ledger.rows} == {name}
    assert "4111" not in str(world.ledger.rows)

    plain = world.run(world.ask("n:*", headers="verbatim", transform=["mask card"]))
    assert plain is not None
    assert plain.plan["digest"] != record.plan["digest"]
    assert world.receiver.requests[-2].header("penstock-transform") is None
    world.run(world.ask("n:*"))
    assert world.receiver.requests[-2].body == b'{"n":1.10, "card":"4111"}'
    assert world.ledger.rows[-1].transform is None


def test_a_dry_run_says_what_could_not_be_changed(world: World) -> None:
    """The rehearsal fails where the replay would, and sends nothing."""
    world.append(event(b'{"a":1}', id="e0"), event(b'{"a":[1]}', id="e1"))

    record = world.run(world.ask(transform=["set a.b = 'x' where a == `1`"], dry_run=True))

    progress = read_progress(record.progress)
    assert (progress.skipped, progress.failed) == (1, 1)
    assert "no object" in (progress.last_failure or "")
    assert world.receiver.requests == []


def test_a_replay_is_resumed_with_its_transform(world: World) -> None:
    """A successor changes the rest likewise; its plan is for this transform."""
    world.append(*events(60))
    replay_id = world.ask(transform=["set n = 'x'"], rate=10)

    def stop(_: Request) -> Reply:
        world.stop.set()
        return Reply()

    world.receiver.answer = stop
    first = world.run(replay_id)
    assert first is not None
    assert first.state == "running"
    world.stop.clear()
    world.hurry(replay_id)
    world.receiver.answer = lambda _: Reply()
    assert world.run(replay_id).state == "finished"
    assert {request.body for request in world.receiver.requests} == {b'{"n": "x"}'}
    assert set(world.received()) == {f"e{n}" for n in range(60)}


def test_max_events_sends_the_first_and_counts_the_rest_as_skipped(world: World) -> None:
    """A rehearsal with ten events, whose books balance all the same."""
    world.append(*events(50))

    record = world.run(world.ask(max_events=10))

    progress = read_progress(record.progress)
    assert set(world.received()) == {f"e{n}" for n in range(10)}
    assert (progress.delivered, progress.skipped) == (10, 40)


def test_a_dry_run_does_everything_but_send(world: World) -> None:
    """What would be sent is planned, read and made ready; the destination hears nothing."""
    world.append(*events(50))

    record = world.run(world.ask(dry_run=True))

    progress = read_progress(record.progress)
    assert (record.state, progress.skipped, progress.delivered) == ("finished", 50, 0)
    assert world.receiver.connections == 0
    assert world.ledger.rows == []


def test_quarantined_events_are_replayed(world: World) -> None:
    """What could not become a row is delivered as it was received."""
    world.append(*events(5), event(BROKEN, id="bad"))

    record = world.run(world.ask(view="quarantine"))

    assert record.state == "finished"
    assert [(r.header("penstock-event-id"), r.body) for r in world.receiver.requests] == [
        ("bad", BROKEN)
    ]


def test_an_empty_plan_finishes_at_once(world: World) -> None:
    """Nothing matched, and the row says so instead of hanging."""
    record = world.run(world.ask("nothing:here"))

    assert (record.state, record.plan["count"]) == ("finished", 0)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"query": "a:("}, "at character"),
        ({"query": "* ${LIMIT 3}"}, "max_events"),
        ({"destination": "gone"}, "there is no destination 'gone'"),
        ({"destination": "inside"}, "not public"),
        ({"destination": "door", "headers": "verbatim"}, "own door"),
    ],
)
def test_what_cannot_be_done_fails_with_the_reason(world: World, given, error: str) -> None:
    """A row that stays requested for ever tells nobody anything."""
    world.append(*events(5))
    world.destination("inside", f"http://10.0.0.1:{world.receiver.port}/")
    world.destination("door", world.receiver.url)
    doors = (f"http://localhost:{world.receiver.port}",)

    record = world.run(world.ask(**given), doors=doors)

    assert record.state == "failed"
    assert error in record.error
    assert world.receiver.connections == 0
    assert world.lake.pins(FLIGHTS) == {} if world.lake.view(FLIGHTS) else True


def test_a_replay_that_another_run_holds_is_left_alone(world: World) -> None:
    """Two senders would double everything."""
    world.append(*events(5))
    replay_id = world.ask()
    world.store.claim_replay(replay_id, "another", machine_clock(), 60_000_000)

    assert world.run(replay_id) is None
    assert world.receiver.connections == 0


def test_a_replay_that_is_over_is_not_run_again(world: World) -> None:
    """Launching it twice by hand must not send it twice."""
    world.append(*events(5))
    replay_id = world.ask()
    world.run(replay_id)

    with pytest.raises(WrongState):
        world.run(replay_id)
    assert sum(world.received().values()) == 5


def test_pause_resume_and_cancel_by_the_row(world: World) -> None:
    """What a person presses arrives at the sender through the row alone."""
    world.append(*events(2_000))
    replay_id = world.ask(rate=100)
    working = Working(world, replay_id, bounds=replace(BOUNDS, linger_seconds=60.0))
    eventually(lambda: len(world.receiver.requests) > 20)

    world.wish(replay_id, "pause")
    eventually(lambda: world.record(replay_id).state == "paused")
    eventually(lambda: quiet_for(world.receiver, 0.3))
    world.wish(replay_id, "resume")
    paused_at = len(world.receiver.requests)
    eventually(lambda: len(world.receiver.requests) > paused_at + 10)
    world.wish(replay_id, "cancel")
    record = working.join()

    assert record.state == "cancelled"
    account = report(read_progress(record.progress), matched=2_000, ended=True)
    assert account.delivered == len(world.receiver.requests)
    assert account.skipped == 2_000 - account.delivered
    assert tally(world.ledger.rows).open == 0
    assert world.lake.pins(FLIGHTS) == {}


KINDS = [pytest.param("embedded"), pytest.param("rabbitmq", marks=pytest.mark.engines)]
RARELY = replace(BOUNDS, checkpoint_seconds=30.0, lease_seconds=120.0, linger_seconds=60.0)


@pytest.fixture(params=KINDS)
def buses(request: pytest.FixtureRequest, world: World) -> Iterator[tuple[Bus, Bus]]:
    """Open the bus twice: for who wishes, and for who sends."""
    exchange = fresh_name("bus")
    url = "" if request.param == "embedded" else f"{RABBITMQ}?exchange={exchange}"
    pair = open_bus(url, lambda: world.store), open_bus(url, lambda: world.store)
    yield pair
    for bus in pair:
        bus.close()


def test_a_wish_is_granted_at_once_where_a_message_says_so(
    world: World, buses: tuple[Bus, Bus]
) -> None:
    """A replay that sends slowly, or is paused, looks at its row now and then only."""
    mine, theirs = buses
    world.append(*events(100))
    replay_id = world.ask(rate=0.2)
    working = Working(world, replay_id, bounds=RARELY, bus=theirs)
    eventually(lambda: len(world.receiver.requests) == 1)
    took = {}
    for wish, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        eventually(lambda: quiet_for(world.receiver, 0.3))
        begun = time.monotonic()
        world.wish(replay_id, wish)
        mine.publish(REPLAY, "another")
        mine.publish(REPLAY, replay_id)
        eventually(lambda: world.record(replay_id).state == state)  # noqa: B023 - asked at once
        took[wish] = round(time.monotonic() - begun, 3)
    record = working.join()

    assert record.state == "cancelled"
    assert max(took.values()) < 5.0
    print(took)  # noqa: T201 - shown with -s


def test_without_a_message_a_wish_waits_for_the_next_checkpoint(
    world: World, buses: tuple[Bus, Bus]
) -> None:
    """Else the test before this one would prove nothing; and a lost message costs only time."""
    world.append(*events(100))
    replay_id = world.ask(rate=0.2)
    bounds = replace(RARELY, checkpoint_seconds=5.0)
    working = Working(world, replay_id, bounds=bounds, bus=buses[1])
    eventually(lambda: len(world.receiver.requests) == 1)
    eventually(lambda: quiet_for(world.receiver, 0.3))
    first = world.record(replay_id).progress
    eventually(lambda: still_for(world, replay_id, 1.0) not in (None, first))
    world.wish(replay_id, "pause")
    time.sleep(0.5)
    state = world.record(replay_id).state
    eventually(lambda: world.record(replay_id).state == "paused")
    world.wish(replay_id, "cancel")

    assert state == "running"
    assert working.join().state == "cancelled"


def quiet_for(receiver: Receiver, seconds: float) -> bool:
    before = len(receiver.requests)
    time.sleep(seconds)
    return len(receiver.requests) == before


def still_for(world: World, replay_id: str, seconds: float) -> dict | None:
    """Answer the progress, or None if a checkpoint changed it meanwhile: they come in pairs."""
    before = world.record(replay_id).progress
    time.sleep(seconds)
    return before if world.record(replay_id).progress == before else None


def test_a_paused_replay_gives_its_run_back_and_is_resumed_by_another(world: World) -> None:
    """A run must not sit there for days; nothing is sent twice when the next one goes on."""
    world.append(*events(200))
    replay_id = world.ask(rate=50)
    working = Working(world, replay_id)
    eventually(lambda: len(world.receiver.requests) > 20)
    world.wish(replay_id, "pause")
    first = working.join()

    assert (first.state, first.lease_until) == ("paused", None)
    assert world.lake.pins(FLIGHTS) == {pin_of(replay_id): int(first.plan["snapshot_id"])}
    with pytest.raises(WrongState, match="paused"):
        world.run(replay_id)
    world.wish(replay_id, "resume")
    world.hurry(replay_id)
    second = world.run(replay_id)

    assert second.state == "finished"
    assert world.received() == Counter({f"e{n}": 1 for n in range(200)})
    assert second.epoch > first.epoch


def test_a_run_that_is_told_to_stop_puts_the_replay_down_for_the_next_one(world: World) -> None:
    """Shutting down is no crash: nothing is repeated, nothing is unknown."""
    world.append(*events(200))
    replay_id = world.ask(rate=50)
    working = Working(world, replay_id)
    eventually(lambda: len(world.receiver.requests) > 20)
    world.stop.set()
    first = working.join()
    world.stop.clear()

    assert (first.state, first.lease_until) == ("running", None)
    world.hurry(replay_id)
    second = world.run(replay_id)

    assert second.state == "finished"
    assert world.received() == Counter({f"e{n}": 1 for n in range(200)})
    assert tally(world.ledger.rows).unknown == 0


def test_a_dead_destination_pauses_the_replay_with_the_reason(world: World) -> None:
    """And a person resumes it when the destination is back."""
    world.append(*events(100))
    world.receiver.answer = lambda _: Reply(404)
    replay_id = world.ask(pause_after=15, concurrency=4)

    first = world.run(replay_id)
    assert first.state == "paused"
    assert first.error == "15 attempts in a row failed, the last: answered 404"

    world.receiver.answer = lambda _: Reply()
    world.wish(replay_id, "resume")
    second = world.run(replay_id)

    progress = read_progress(second.progress)
    assert (second.state, second.error) == ("finished", None)
    assert progress.delivered + progress.failed == 100
    assert 15 <= progress.failed <= 19


def test_a_replay_is_cancelled_while_it_waits_for_landing(world: World) -> None:
    """Planning can take two minutes; a person must not have to wait for them."""
    world.append(*events(10))
    replay_id = world.ask()
    working = Working(world, replay_id, wake=lambda _: None)
    eventually(lambda: world.record(replay_id).progress.get("waiting") is not None)
    assert world.record(replay_id).progress["waiting"] == "landing has absorbed 0 of 10 events"
    world.wish(replay_id, "cancel")

    assert working.join().state == "cancelled"
    assert world.receiver.connections == 0


def test_a_run_that_stops_while_planning_leaves_the_replay_to_the_next_one(world: World) -> None:
    """A plan that was not written down is made again."""
    world.append(*events(10))
    replay_id = world.ask()
    working = Working(world, replay_id, wake=lambda _: None)
    eventually(lambda: world.record(replay_id).progress.get("waiting") is not None)
    world.stop.set()
    first = working.join()
    world.stop.clear()

    assert (first.state, first.lease_until) == ("planning", None)
    assert world.run(replay_id).state == "finished"


def test_landing_that_does_not_get_there_leaves_the_replay_to_the_next_run(world: World) -> None:
    """The log may be ahead for a while; that is no reason to fail a replay for ever."""
    world.append(*events(10))
    replay_id = world.ask()

    class Hasty(Planner):
        def plan(self, *args, **more):
            return super().plan(*args, **{**more, "patience": 0.3})

    planner = Hasty(world.lake, world.log, None, clock=machine_clock)
    with pytest.raises(EngineUnavailable, match="10 events"):
        world.run(replay_id, planner=planner, wake=lambda _: None)
    assert world.record(replay_id).state == "planning"


def test_rate_and_concurrency_of_the_row_are_taken_over(world: World) -> None:
    """The row is where they are changed; what cannot be read there changes nothing."""
    world.append(*events(400))
    replay_id = world.ask(rate=20)

    class Changing(Store):
        """A store in which somebody changes the options while the replay runs."""

        options: dict[str, object] | None = None

        def checkpoint_replay(self, *args, **more) -> ReplayRecord:
            record = super().checkpoint_replay(*args, **more)
            return record if self.options is None else with_options(record, self.options)

    store = Changing(world.store._engine)
    working = Working(world, replay_id, store=store)
    eventually(lambda: len(world.receiver.requests) > 5)
    store.options = {"rate": "nonsense"}
    time.sleep(0.3)
    assert len(world.receiver.requests) < 60
    store.options = {"rate": None}

    assert working.join().state == "finished"


def with_options(record: ReplayRecord, options: dict[str, object]) -> ReplayRecord:
    return msgspec.structs.replace(record, options=options)


def test_pins_of_replays_that_ended_elsewhere_are_released(world: World) -> None:
    """Cancelling a replay that nobody holds ends it in the row; its snapshot is still pinned."""
    world.append(*events(300))
    cancelled, paused = world.ask(rate=100), world.ask(rate=100)
    for replay_id in (cancelled, paused):
        begun = len(world.receiver.requests)
        working = Working(world, replay_id)
        eventually(lambda begun=begun: len(world.receiver.requests) > begun + 5)
        world.wish(replay_id, "pause")
        working.join()
    world.wish(cancelled, "cancel")
    assert set(world.lake.pins(FLIGHTS)) == {pin_of(cancelled), pin_of(paused)}
    world.lake.pin(FLIGHTS, world.lake.view(FLIGHTS).snapshot_id, "somebody-elses")

    assert release_pins(world.store, world.tools.planner, FLIGHTS) == [cancelled]
    assert set(world.lake.pins(FLIGHTS)) == {pin_of(paused), "somebody-elses"}


@pytest.mark.parametrize(
    ("url", "doors", "refused"),
    [
        ("http://127.0.0.1:8080/v1/events/x", ["http://127.0.0.1:8080"], True),
        ("http://localhost:8080/", ["http://127.0.0.1:8080"], True),
        ("http://127.0.0.2:8080/", ["http://127.0.0.1:8080"], True),
        ("http://events.example:8080/", ["http://events.example:8080"], True),
        ("http://here.example:8080/", ["http://127.0.0.1:8080"], True),
        ("http://127.0.0.1:8081/", ["http://127.0.0.1:8080"], False),
        ("http://93.184.216.34:8080/", ["http://127.0.0.1:8080"], False),
        ("http://other.example:8080/", ["http://127.0.0.1:8080"], False),
        ("http://nowhere.example:8080/", ["http://127.0.0.1:8080"], False),
    ],
)
def test_an_own_door_is_known_by_its_address_however_it_is_written(
    url: str, doors: Sequence[str], refused: bool
) -> None:
    """Verbatim headers defeat the loop guard: such a replay would feed itself."""
    names = {
        "localhost": ["127.0.0.1"],
        "here.example": ["93.184.216.34", "127.0.0.1"],
        "other.example": ["93.184.216.34"],
    }
    endpoint = Guard((ip_network("127.0.0.0/8"),)).endpoint(url)

    def asked() -> None:
        refuse_own_door(endpoint, doors, lookup=lambda host: names.get(host, []))

    if refused:
        with pytest.raises(AddressRefused, match="own door"):
            asked()
    else:
        asked()


@pytest.mark.parametrize(
    ("senders", "asked", "spread"),
    [
        (2, {}, True),
        (1, {}, False),
        (2, {"dry_run": True}, False),
        (2, {"order": "log"}, False),
    ],
)
def test_processes_send_where_they_are_of_use(world: World, senders, asked, spread) -> None:
    """Not where nothing is sent, nor where events go one at a time."""
    record = world.record(world.ask(**asked))
    tools = replace(world.tools, senders=senders)
    to = world.store.destination("main", "d1")

    target = target_of(to, record, request_of(record), tools)

    assert isinstance(target, SpreadTarget) is spread


def test_steady_seconds_do_not_go_back() -> None:
    """A lease is measured by them."""
    first: float = steady_seconds()
    assert steady_seconds() >= first


def test_a_replay_nobody_asked_for_cannot_be_run(world: World) -> None:
    """Told to whoever launched it."""
    with pytest.raises(NotFound):
        world.run("r99")


def test_micros_of_the_lease_are_those_of_the_bounds(world: World) -> None:
    """Store and sender must mean the same end, or one sends when it no longer may."""
    world.append(*events(5))
    kept: list[Micros] = []

    class Noting(Store):
        def checkpoint_replay(self, *args, now: Micros, ttl: Micros, **more) -> ReplayRecord:
            kept.append(ttl)
            return super().checkpoint_replay(*args, now=now, ttl=ttl, **more)

    world.run(world.ask(), store=Noting(world.store._engine))

    assert set(kept) == {4_000_000}
