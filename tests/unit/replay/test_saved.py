"""Plans in files: they keep what they read, and are started as they are or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON
from hypothesis import given
from hypothesis import strategies as st
from lakes import MAIN
from msgspec.structs import replace
from receiving import receiving
from worlds import World, names

from assets.upkeep import Aims, Notes, tend
from lakehouse.pins import over, pin_until
from lakehouse.sql import Engine, open_engine
from penstock.clock import machine_clock
from penstock.errors import BadRequest, WrongState
from penstock.metadata.records import ReplayRecord
from replay.ledger import ATTEMPTS
from replay.plan import pin_of
from replay.request import ReplayRequest, read_request
from replay.run import release_pins
from replay.saved import content_of, digest_of, kept_as, read, started

DAY = 86_400_000_000


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


def asking(query: str = "", **more: Any) -> ReplayRequest:
    asked = {"collection": "flights", "query": query, "destination": "d1"}
    return read_request({**asked, **more}, team="main")


def saved(world: World, request: ReplayRequest, *, days: int = 7) -> dict[str, Any]:
    """Answer a plan as its file is read again."""
    until = machine_clock() + days * DAY
    plan = world.tools.planner.plan(request, wake=world.wake, kept_as=kept_as("p1", until))
    to = world.store.listed_destination("main", request.destination)
    file = content_of(request, plan, to, id="p1", planned_by="ops (t1)", until=until)
    found: dict[str, Any] = json.loads(json.dumps(file, indent=2))
    return found


def start(world: World, file: dict[str, Any], replay_id: str = "r7", **more: Any) -> str:
    record = started(
        read(file, team="main"),
        world.store,
        world.tools.planner,
        files=None,
        id=replay_id,
        clock=more.get("clock", machine_clock),
        asked_by=None,
    )
    return record.id


def tidied(world: World, now: int) -> None:
    """Have upkeep at a time: of each table the newest snapshot stays, and what is pinned."""
    for collection in (FLIGHTS, ATTEMPTS):
        tend(
            world.lake,
            collection,
            aims=Aims(keep=1, below=1, target=1),
            notes=Notes(swept=now),
            clock=lambda: now,
            chance=lambda count: b"x" * count,
        )


def test_what_was_planned_is_sent_days_later(world: World) -> None:
    """Nothing that came since, although upkeep went over the table."""
    world.append(20)
    file = saved(world, asking("n:>=5", rate=5_000.0))
    world.append(30, first=20)
    world.wake(FLIGHTS)
    tidied(world, machine_clock())

    replay_id = start(world, file)
    record = world.run(replay_id)

    assert (record.state, record.options["rate"]) == ("finished", 5_000.0)
    assert world.received() == names(range(5, 20))
    assert record.plan is not None
    assert record.plan["count"] == file["plan"]["count"] == 15
    assert list(world.lake.pins(FLIGHTS)) == [file["plan"]["pin"]], "it can be started again"


def test_what_was_missing_then_is_what_is_sent(world: World) -> None:
    """The ledger is kept with it."""
    world.append(10)
    world.run(world.ask("n:<4"))
    file = saved(world, asking(missing=True))
    world.run(world.ask("n:<8"))
    world.received()
    world.wake(ATTEMPTS)
    tidied(world, machine_clock())

    world.run(start(world, file))

    assert world.received() == names(range(4, 10))
    assert list(world.lake.pins(ATTEMPTS)) == [file["plan"]["ledger"]["pin"]]


def test_a_plan_ends_and_upkeep_lets_it_go(world: World) -> None:
    """A file that nobody starts must not keep its rows for ever."""
    world.append(10)
    world.run(world.ask("n:<4"))
    file = saved(world, asking(missing=True), days=2)
    world.append(10, first=10)
    world.wake(FLIGHTS)
    world.wake(ATTEMPTS)

    tidied(world, machine_clock() + DAY)
    assert list(world.lake.pins(FLIGHTS)) == list(world.lake.pins(ATTEMPTS)) == [pinned(file)]
    tidied(world, machine_clock() + 2 * DAY + 1_000_000)

    assert world.lake.pins(FLIGHTS) == world.lake.pins(ATTEMPTS) == {}
    later = machine_clock() + 2 * DAY
    with pytest.raises(WrongState, match=r"was kept until .*; plan it again"):
        start(world, file, clock=lambda: later)
    with pytest.raises(WrongState, match="no longer pinned"):
        start(world, file)
    assert len(world.store.replays("main")) == 1


def pinned(file: dict[str, Any]) -> str:
    pin = file["plan"]["pin"]
    assert isinstance(pin, str)
    return pin


def test_a_replay_that_was_started_keeps_what_its_plan_lets_go(world: World) -> None:
    """It may take longer than its plan was kept."""
    world.append(10)
    file = saved(world, asking())
    replay_id = start(world, file)
    world.append(10, first=10)
    world.wake(FLIGHTS)
    tidied(world, machine_clock() + 8 * DAY)
    assert set(world.lake.pins(FLIGHTS)) == {pin_of(replay_id)}

    world.run(replay_id)

    assert world.received() == names(range(10))
    assert world.lake.pins(FLIGHTS) == {}


class Tidied:
    """A store; before it has a replay, somebody lets go of pins that belong to none."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.released: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    def create_replay(self, record: ReplayRecord) -> None:
        store, planner = self._world.store, self._world.tools.planner
        self.released = release_pins(store, planner, FLIGHTS)
        store.create_replay(record)


def test_whoever_tidies_up_while_a_plan_is_started_takes_nothing(world: World) -> None:
    """The pins are there before the replay is; to the end of another one they are forgotten."""
    world.append(10)
    store: Any = Tidied(world)
    file = saved(world, asking())

    started(
        read(file, team="main"),
        store,
        world.tools.planner,
        files=None,
        id="r7",
        clock=machine_clock,
        asked_by=None,
    )

    assert store.released == ["r7"]
    assert set(world.lake.pins(FLIGHTS)) == {pin_of("r7"), pinned(file)}


def test_the_number_that_was_agreed_on_is_the_number_there(world: World) -> None:
    """Whoever makes the digest again for a file they edited does not get past the snapshot."""
    world.append(10)
    file = saved(world, asking())
    file["plan"]["count"] = 9
    with pytest.raises(BadRequest, match="was changed after it was made"):
        start(world, file)
    file["digest"] = digest_of(file)
    with pytest.raises(WrongState, match="10 matches, 9 were planned"):
        start(world, file)
    file["plan"]["count"], file["request"]["query"] = 10, "n:<3"
    file["digest"] = digest_of(file)
    with pytest.raises(WrongState, match="made for another request"):
        start(world, file)
    file["request"]["query"], file["plan"]["pin"] = "", "somebody-elses"
    file["digest"] = digest_of(file)
    with pytest.raises(BadRequest, match="its own snapshot"):
        start(world, file)
    assert world.store.replays("main") == []


def made_anew(world: World, **more: Any) -> None:
    """Delete the destination, and make one of the same name."""
    before = world.store.destination("main", "d1")
    world.store.delete_destination("main", "d1")
    world.store.add_destination(replace(before, created_at=machine_clock(), **more))


@pytest.mark.parametrize(
    "another",
    [
        {"url": "http://elsewhere.example/in"},
        {"options": {"compare_url": "http://elsewhere.example/in"}},
        {"kind": "tunnel", "url": "tunnel:ships"},
    ],
)
def test_a_destination_that_goes_elsewhere_by_now_is_refused(world: World, another: Any) -> None:
    """Its name was agreed on because of what it stood for."""
    world.append(10)
    file = saved(world, asking())
    made_anew(world, **another)

    with pytest.raises(WrongState, match=r"'d1' was another when this was planned; now it is \w+ "):
        start(world, file)

    file["to"] |= {"options": {}, **another}
    with pytest.raises(BadRequest, match="was changed after it was made"):
        start(world, file)
    assert world.store.replays("main") == []


def test_a_destination_that_is_where_it_was_may_have_other_credentials(world: World) -> None:
    """They are renewed between a review and the start, and its rate is nobody's route."""
    world.append(10)
    file = saved(world, asking())
    made_anew(world, headers=(("authorization", "Bearer new"),), rate=5_000.0)

    assert world.run(start(world, file)).state == "finished"

    assert world.received() == names(range(10))


def test_a_plan_that_does_not_say_where_it_goes_is_from_before(world: World) -> None:
    """It was saved before an upgrade, and is started as it was."""
    world.append(10)
    file = saved(world, asking())
    del file["to"]
    with pytest.raises(BadRequest, match="was changed after it was made"):
        start(world, file)
    file["digest"] = digest_of(file)
    made_anew(world, url=f"{world.receiver.url}/new")

    assert world.run(start(world, file)).state == "finished"


def test_a_plan_of_a_table_that_was_dropped_says_so(world: World) -> None:
    """There is nothing left to send."""
    world.append(10)
    file = saved(world, asking())
    world.lake.catalog.drop_table(MAIN)

    with pytest.raises(WrongState, match="table of the plan is gone"):
        start(world, file)


def test_a_plan_of_nothing_is_a_replay_of_nothing(world: World) -> None:
    """A daily run finds no table, and is no error."""
    file = saved(world, asking())

    record = world.run(start(world, file))

    assert (record.state, file["plan"]["pin"]) == ("finished", None)


@given(
    st.recursive(
        st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.none()
        | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_how_a_file_is_laid_out_is_no_edit(value: Any) -> None:
    """Editors, formatters and jq write the same values in other ways."""
    file = {"format": "x", "value": value, "digest": "y"}

    again = json.loads(json.dumps(file, indent=3, sort_keys=True))

    assert digest_of(again) == digest_of(file) == digest_of(file | {"digest": "z"})
    assert digest_of(file | {"value": [value]}) != digest_of(file)


def test_a_pin_ends_to_the_second() -> None:
    """And one without an end never does."""
    pin = pin_until("penstock-plan-1", NOON + 5_400_000)

    assert not over(pin, NOON + 4_999_999)
    assert over(pin, NOON + 5_000_000)
    assert not over("penstock-replay-7", NOON)
    assert not over("until-1", NOON)
