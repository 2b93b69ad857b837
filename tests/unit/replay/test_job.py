"""The Dagster job: what it is launched with, what it shows, and when its run fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest
from builders import FLIGHTS, event
from lakes import landing, new_lake
from metadata_builders import collection
from msgspec.structs import replace
from platform_stand_ins import StandInBus
from ready_store import ready_store
from receiving import Receiver, Reply, Request, receiving

from lakehouse import Lake
from lakehouse.sql import open_engine
from penstock.buffer.memory import MemoryLog
from penstock.cache import open_cache
from penstock.clock import machine_clock
from penstock.envelope import CollectionId
from penstock.errors import BadRequest, NotFound
from penstock.metadata.home import LEDGER_TOKEN
from penstock.metadata.records import Destination
from penstock.metadata.store import Store
from penstock.schema.formats import Format
from penstock.settings import Settings, door_of, load_settings
from replay.job import (
    REPLAY_TAG,
    REPLAYS,
    ReplayConfig,
    ask,
    ledger_token,
    replay,
    waker,
)
from replay.plan import Plan, Planner, read_plan
from replay.progress import Attempt
from replay.request import Options, ReplayRequest, read_request, read_time, record_of
from replay.saved import content_of, kept_as

SECRET = "Bearer do-not-show"


@dataclass
class HomeStores:
    """Stands where the resource of a home stands."""

    settings: Settings
    buffer: MemoryLog
    lake: Lake
    store: Store
    bus: StandInBus = field(default_factory=StandInBus)

    def landing(self):
        return landing(self.buffer, self.lake)


class World:
    """A home with 20 landed events, a destination, and something that takes the ledger."""

    def __init__(self, folder: Path, receiver: Receiver, door: Receiver) -> None:
        self.receiver = receiver
        self.door = door
        settings = load_settings(
            folder,
            {},
            http_port=door.port,
            sql_memory="300MB",
            allow_networks=(ip_network("127.0.0.1/32"),),
            allow_ports=(receiver.port,),
        )
        store = ready_store(folder)
        self.stores = HomeStores(settings, MemoryLog(), new_lake(folder), store)
        for n in range(20):
            self.stores.buffer.append(FLIGHTS, [event(b'{"n": %d}' % n, id=f"e{n}")])
        store.create_collection(collection())
        store.add_destination(
            Destination(
                team="main",
                name="d1",
                url=receiver.url,
                headers=(("Authorization", SECRET),),
                created_at=machine_clock(),
            )
        )

    result: dg.ExecuteInProcessResult

    def launch(self, **config: Any) -> dg.ExecuteInProcessResult:
        """Run the job in this process, as a launch with this config would."""
        with dg.DagsterInstance.ephemeral() as instance:
            result = replay.execute_in_process(
                run_config={"ops": {"send": {"config": config}}},
                resources={"stores": self.stores},
                instance=instance,
                raise_on_error=False,
            )
            self.tags = instance.get_run_by_id(result.run_id).tags
            self.events = [str(e) for e in instance.all_logs(result.run_id)]
            return result


def durable(request: Request) -> Reply:
    return Reply(202, body=b'{"accepted": %d}' % len(request.body.splitlines()))


@contextmanager
def a_world(folder: Path) -> Iterator[World]:
    with receiving() as receiver, receiving(durable) as door:
        made = World(folder, receiver, door)
        yield made
        made.stores.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Answer a world in which a replay was launched by hand and has run."""
    with a_world(tmp_path_factory.mktemp("launched")) as made:
        made.result = made.launch(
            collection="flights", destination="d1", query="n:>=5", rate=1_000.0
        )
        yield made


def test_a_replay_that_was_asked_for_is_run_by_its_id(world: World) -> None:
    """API and sensor launch it like this."""
    asked = read_request({"collection": "flights", "destination": "d1"}, team="main")
    world.stores.store.create_replay(record_of(asked, id="r7", now=machine_clock()))

    result = world.launch(replay_id="r7")

    assert result.success
    record = world.stores.store.replay("main", "r7")
    assert (record.state, record.run_id) == ("finished", result.run_id)
    assert len(world.receiver.requests) == 20
    assert world.tags[REPLAY_TAG] == "r7"


def test_a_replay_launched_by_hand_is_written_down_and_listed(launched: World) -> None:
    """Whoever uses Dagster's pages alone must not leave replays that nobody can find."""
    [record] = launched.stores.store.replays("main")

    assert launched.result.success
    assert (record.state, record.query, record.options["rate"]) == ("finished", "n:>=5", 1_000.0)
    assert len(launched.receiver.requests) == 15
    assert launched.tags[REPLAY_TAG] == record.id
    assert any(
        f"replay {record.id} is finished: 15 of 15 delivered, 0 failed" in each
        for each in launched.events
    )


def test_the_books_are_shown_with_the_run(launched: World) -> None:
    """The run's page answers what became of the events."""
    [shown] = launched.result.asset_materializations_for_node("send")

    assert shown.asset_key == REPLAYS
    figures = {name: each.value for name, each in shown.metadata.items()}
    assert (figures["matched"], figures["delivered"], figures["failed"]) == (15, 15, 0)


def test_every_attempt_is_sent_to_the_door(launched: World) -> None:
    """Penstock keeps its books with its own pipe."""
    rows = [
        msgspec.json.decode(line, type=Attempt)
        for request in launched.door.requests
        for line in request.body.splitlines()
    ]
    assert sorted(r.offset for r in rows if r.outcome == "delivered") == list(range(5, 20))
    assert {request.path for request in launched.door.requests} == {
        "/v1/events/penstock_system.replay_attempts"
    }


def test_no_credential_is_in_anything_that_dagster_keeps(launched: World) -> None:
    """Its pages have no sign-in of their own."""
    token = (launched.stores.settings.home / LEDGER_TOKEN).read_text().strip()

    assert {request.header("authorization") for request in launched.receiver.requests} == {SECRET}
    assert {request.header("authorization") for request in launched.door.requests} == {
        f"Bearer {token}"
    }
    kept = "\n".join([*launched.events, *launched.tags.values()])
    assert SECRET not in kept
    assert token not in kept


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "needs the name of a collection"),
        ({"collection": "flights", "destination": "nowhere"}, "no destination 'nowhere'"),
        ({"collection": "flights", "destination": "d1", "query": "a:("}, "at character"),
    ],
)
def test_a_run_that_cannot_be_done_fails_with_a_sentence(world: World, config, says: str) -> None:
    """The run's page is where whoever launched it looks."""
    result = world.launch(**config)

    assert not result.success
    assert any(says in each for each in world.events)
    assert world.receiver.requests == []


def test_a_paused_replay_is_no_failed_run(world: World) -> None:
    """The run did what it could; the row says why it stands still."""
    world.receiver.answer = lambda _: Reply(404)
    threading.Thread(target=cancel_when_paused, args=(world,), daemon=True).start()

    result = world.launch(collection="flights", destination="d1", pause_after=5, concurrency=1)

    assert result.success
    [record] = world.stores.store.replays("main")
    assert record.state == "cancelled"


def cancel_when_paused(world: World) -> None:
    """Cancel the only replay once it is paused, so that its run does not wait for ten minutes."""
    store = world.stores.store
    waiting = threading.Event()
    while not waiting.wait(0.05):
        for record in store.replays("main"):
            if record.state == "paused":
                store.wish("main", record.id, "cancel", machine_clock())
                return


def test_run_config_is_checked_before_a_run_is_made(world: World) -> None:
    """A misspelt option must not be ignored."""
    with pytest.raises(dg.DagsterInvalidConfigError):
        world.launch(collection="flights", destination="d1", ratee=3)
    with pytest.raises(dg.DagsterInvalidConfigError):
        world.launch(collection="flights", destination="d1", order="whatever")


def test_every_option_can_be_given_and_is_described() -> None:
    """The launchpad is an interface like the others."""
    fields = ReplayConfig.model_fields
    beside = {"replay_id", "team", "collection", "query", "destination", "since", "until"}
    beside |= {"plan", "start_at"}

    assert set(fields) - beside == set(Options.__struct_fields__)
    assert [name for name, field in fields.items() if not field.description] == []


def none_is_begun(_: ReplayRequest) -> Plan:
    raise AssertionError("only a continuous replay is begun")


def test_a_continuous_replay_launched_by_hand_begins_there(world: World) -> None:
    """What is accepted while its run is starting is in it."""
    stores = world.stores
    for collection_ in stores.buffer.collections():
        stores.landing().land_once(collection_)
    began: list[ReplayRequest] = []

    def begin(request: ReplayRequest) -> Plan:
        began.append(request)
        return Planner(stores.lake, stores.buffer, None, clock=machine_clock).begin(request)

    config = ReplayConfig(collection="flights", destination="d1", continuous=True)
    record = stores.store.replay("main", ask(stores.store, config, machine_clock, begin, None))

    assert (record.state, record.asked_by) == ("requested", "Dagster")
    assert record.plan is not None
    assert read_plan(record.plan).ends == ((0, 20),)
    assert began[0].options.continuous


def test_the_defaults_of_the_launchpad_are_those_of_a_request() -> None:
    """Two lists of defaults drift apart unless somebody looks."""
    asked = ReplayConfig(collection="flights", destination="d1").asked()

    request = read_request(asked, team="main")
    assert request.options == Options()
    assert (request.query, request.since, request.until) == ("", None, None)


def test_times_and_choices_are_taken_over(world: World) -> None:
    """As text in the launchpad, as numbers in the row."""
    config = ReplayConfig(
        collection="flights",
        destination="d1",
        since="2026-11-22",
        until="2026-11-22T13:00:00Z",
        order="log",
        view="quarantine",
        duplicates="include",
        headers="verbatim",
        transform=["mask a", "remove b"],
    )
    store = world.stores.store
    record = store.replay("main", ask(store, config, machine_clock, none_is_begun, None))

    assert record.until - record.since == 13 * 3_600 * 1_000_000
    assert record.options["order"] == "log"
    assert record.options["view"] == "quarantine"
    assert record.options["duplicates"] == "include"
    assert record.options["headers"] == "verbatim"
    assert list(record.options["transform"]) == ["mask a", "remove b"]


def test_a_retry_can_be_launched_by_hand(world: World) -> None:
    """What is not said is as it was; which events those are is not said."""
    store = world.stores.store
    asked = read_request(
        {"collection": "flights", "destination": "d1", "query": "n:<9", "rate": 50}, team="main"
    )
    ended = msgspec.structs.replace(
        record_of(asked, id="r7", now=machine_clock()), state="finished", progress={"failed": 2}
    )
    store.create_replay(ended)

    config = ReplayConfig(retry_of="r7", order="log")
    made = store.replay("main", ask(store, config, machine_clock, none_is_begun, None))

    assert (made.collection, made.query, made.destination) == ("flights", "n:<9", "d1")
    expected = {**ended.options, "order": "log", "retry_of": "r7", "transform": []}
    assert made.options == expected
    with pytest.raises(BadRequest, match="query cannot be given"):
        ask(store, ReplayConfig(retry_of="r7", query="n:1"), machine_clock, none_is_begun, None)


def test_a_plan_in_a_file_can_be_launched(world: World) -> None:
    """Its text is all that is said."""
    stores = world.stores
    request = read_request(
        {
            "collection": "flights",
            "destination": "d1",
            "query": "n:<4",
            "transform": ["remove b"],
        },
        team="main",
    )
    until = machine_clock() + 60_000_000
    engine = open_engine(stores.settings.home / "sql", memory="300MB", threads=1)
    planner = Planner(stores.lake, stores.buffer, engine, clock=machine_clock)
    plan = planner.plan(request, wake=waker(stores, machine_clock), kept_as=kept_as("p1", until))
    engine.close()
    to = stores.store.listed_destination("main", "d1")
    file = content_of(request, plan, to, id="p1", planned_by=None, until=until)
    text = msgspec.json.encode(file).decode()

    assert not world.launch(plan=text, rate=5.0).success
    assert not world.launch(plan=text.replace("n:<4", "n:<5")).success
    stores.store.set_format(FLIGHTS, Format(name="avro"))
    assert not world.launch(plan=text).success, "as the API refuses it, before there is a row"
    assert stores.store.replays("main") == []
    stores.store.set_format(FLIGHTS, Format())
    assert world.launch(plan=text).success

    [record] = stores.store.replays("main")
    assert (record.state, record.query, record.asked_by) == ("finished", "n:<4", "Dagster")
    assert len(world.receiver.requests) == 4


def test_a_replay_that_starts_later_is_asked_for_and_left_to_the_sensor(world: World) -> None:
    """The run that asks ends; the sensor launches another one once its time has come."""
    result = world.launch(collection="flights", destination="d1", start_at="2999-01-01")

    assert result.success
    [record] = world.stores.store.replays("main")
    assert (record.state, record.epoch) == ("requested", 0)
    assert record.start_at == read_time("2999-01-01", what="a test")
    assert world.receiver.requests == []


def test_nothing_is_written_down_that_cannot_be_run(world: World) -> None:
    """A row that fails at once tells less than the launchpad's own error."""
    store = world.stores.store
    for config in (
        ReplayConfig(collection="nothing", destination="d1"),
        ReplayConfig(collection="flights", destination="nowhere"),
    ):
        with pytest.raises(NotFound):
            ask(store, config, machine_clock, none_is_begun, None)
    store.create_collection(
        replace(collection(CollectionId("main", "wire")), format=Format(name="protobuf"))
    )
    for config in (
        ReplayConfig(collection="flights", destination="d1", retries=-1),
        ReplayConfig(collection="flights", destination="d1", transform=["drop a"]),
        ReplayConfig(collection="wire", destination="d1", transform=["mask a"]),
    ):
        with pytest.raises(BadRequest):
            ask(store, config, machine_clock, none_is_begun, None)
    assert store.replays("main") == []


def test_a_new_ledger_token_is_told_to_the_doors(world: World) -> None:
    """A door knows tokens from its cache alone."""
    token = ledger_token(world.stores)

    known = open_cache(world.stores.settings.cache).read()
    assert [each.name for each in known.tokens] == ["ledger of replays"]
    assert known.tokens[0].scopes == ("ingest",)
    assert ledger_token(world.stores) == token


def test_a_plan_is_helped_by_landing_unless_a_landing_run_is_alive(world: World) -> None:
    """Without Dagster's daemon a replay still gets its plan; with it, nobody lands twice."""
    stores = world.stores
    epoch = stores.store.take_lease("lane 0", "a run", machine_clock(), 60_000_000)
    wake = waker(stores, machine_clock)

    wake(FLIGHTS)
    assert stores.lake.view(FLIGHTS) is None
    stores.store.drop_lease("lane 0", epoch)
    wake(FLIGHTS)
    assert stores.lake.view(FLIGHTS).rows == 20


def test_a_landing_run_that_is_alive_but_stuck_is_helped_after_a_while(world: World) -> None:
    """Somebody waits for the plan."""
    stores = world.stores
    stores.store.take_lease("lane 0", "a run", machine_clock(), 60_000_000)
    wake = waker(stores, machine_clock)

    for _ in range(4):
        wake(FLIGHTS)

    assert stores.lake.view(FLIGHTS).rows == 20


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
    ],
)
def test_the_door_is_asked_on_this_machine(tmp_path: Path, host: str, url: str) -> None:
    """The address that a server binds to is not always one to connect to."""
    assert door_of(load_settings(tmp_path, {}, host=host)) == url
