"""Whole replays through a tunnel: planned, handed over, interrupted, gone on with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import NOON
from metadata_builders import destination
from msgspec.structs import replace
from receiving import receiving
from served import until
from tunnelling import TunnelDoor, headers_of, killed, plumber, tunnel_door
from worlds import World, books

from lakehouse.sql import Engine, open_engine
from penstock.clock import machine_clock
from replay.beforehand import UNCONFIRMED
from replay.plan import read_plan

EVENTS = 500


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = open_engine(tmp_path_factory.mktemp("sql"), memory="500MB", threads=1)
    yield opened
    opened.close()


@pytest.fixture
def world(tmp_path: Path, engine: Engine) -> Iterator[World]:
    with receiving() as receiver:
        made = World(tmp_path, engine, receiver)
        made.store.add_destination(
            replace(
                destination(),
                name="inside",
                kind="tunnel",
                url="tunnel://ships",
                headers=(),
                created_at=NOON,
            )
        )
        made.append(EVENTS)
        yield made
        made.store.close()


@pytest.fixture
def door() -> Iterator[TunnelDoor]:
    with tunnel_door() as made:
        yield made


def numbers(written: list[Any]) -> list[int]:
    return [int(dict(headers_of(each))["penstock-event-id"][1:]) for each in written]


def test_a_replay_goes_through_and_its_plan_says_what_delivered_means(
    world: World, door: TunnelDoor
) -> None:
    with plumber(door) as client:
        replay_id = world.ask(destination="inside")
        record = world.run(replay_id, doorway=door.doorway)
        until(lambda: len(client.written) == EVENTS)

    assert record.state == "finished", record.error
    assert books(record) == (EVENTS, EVENTS, 0)
    assert numbers(client.written) == list(range(EVENTS))
    assert set(client.replays) == {replay_id}
    assert record.plan is not None
    assert UNCONFIRMED in read_plan(record.plan).warnings


def test_without_a_tunnel_a_replay_pauses_with_the_reason_and_goes_on_with_one(
    world: World, door: TunnelDoor
) -> None:
    replay_id = world.ask(destination="inside", pause_after=2)
    record = world.run(replay_id, doorway=door.doorway)

    assert record.state == "paused"
    assert "no tunnel of this name is connected" in str(record.error)
    with plumber(door) as client:
        world.store.wish("main", replay_id, "resume", machine_clock())
        record = world.run(replay_id, doorway=door.doorway)
        until(lambda: len(client.written) == EVENTS)

    assert record.state == "finished", record.error
    assert books(record) == (EVENTS, EVENTS, 0)
    assert numbers(client.written) == list(range(EVENTS))


def test_a_tunnel_that_breaks_is_waited_for_and_the_order_kept(
    world: World, door: TunnelDoor
) -> None:
    """Lost is what its connection had taken; never is anything sent out of turn."""
    first: list[Any] = []
    broken = threading.Event()

    def write(outbound: Any) -> None:
        if len(first) == 50:
            broken.set()
            raise killed()
        first.append(outbound)

    done: list[Any] = []
    replay_id = world.ask(destination="inside", rate=400)

    def run() -> None:
        done.append(world.run(replay_id, doorway=door.doorway))

    running = threading.Thread(target=run)
    with plumber(door, write=write):
        running.start()
        assert broken.wait(60)
    with plumber(door) as second:
        running.join(60)
        [record] = done
        until(lambda: numbers(second.written)[-1:] == [EVENTS - 1])

    assert record.state == "finished", record.error
    assert books(record) == (EVENTS, EVENTS, 0)
    assert numbers(first) == list(range(50))
    after = numbers(second.written)
    assert after == list(range(after[0], EVENTS))
    assert after[0] >= 50
