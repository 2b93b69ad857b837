"""A plan wakes landing, from another process: the message goes over the bus."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, event

from assets.landing import Landed, Landing, Limits
from assets.stores import Stores, opened
from lakehouse.sql import open_engine
from penstock.buffer import open_appender
from penstock.bus import LAND
from penstock.clock import machine_clock
from penstock.envelope import CollectionId
from penstock.errors import EngineUnavailable
from penstock.settings import load_settings
from replay.plan import Planner
from replay.request import read_request

WANTED = read_request({"collection": "flights", "query": "", "destination": "d1"}, team="main")
MINUTE = 60_000_000


@pytest.fixture
def home(tmp_path: Path) -> Path:
    appender = open_appender(f"embedded://{tmp_path / 'log'}")
    appender.append(FLIGHTS, [event('{"n": 1}', received_at=machine_clock())]).result(10)
    appender.close()
    return tmp_path


class Run:
    """A landing run that is alive, and as patient as with hundreds of collections."""

    def __init__(self, home: Path) -> None:
        self.landed: list[CollectionId] = []
        self._home = home
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._drain)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _drain(self) -> None:
        with opened(load_settings(self._home, {})) as stores:
            landing = Landing(
                stores.buffer,
                stores.lake,
                rules=stores.rules,
                clock=machine_clock,
                limits=Limits(patience=MINUTE),
                wait=lambda _seconds: self._enough.wait(0.05),  # type: ignore[arg-type, return-value]  # its answer is not asked
            )
            for outcome in landing.drain(
                stores.buffer.collections, until=self._enough.is_set, hurry=stores.hurried
            ):
                assert isinstance(outcome, Landed)
                self.landed.append(outcome.collection)


@pytest.fixture
def stores(home: Path) -> Iterator[Stores]:
    with opened(load_settings(home, {})) as stores:
        yield stores


@pytest.fixture
def planner(stores: Stores, tmp_path: Path) -> Iterator[Planner]:
    engine = open_engine(tmp_path / "sql", memory="500MB", threads=1)
    yield Planner(stores.lake, stores.buffer, engine, clock=machine_clock)
    engine.close()


def test_a_plan_does_not_wait_for_landings_patience(
    home: Path, stores: Stores, planner: Planner
) -> None:
    """With hundreds of collections each replay would start a minute later."""
    with Run(home):
        plan = planner.plan(
            WANTED,
            wake=lambda collection: stores.bus.publish(LAND, str(collection)),
            patience=30.0,
        )

    assert plan.count == 1


def test_without_waking_landing_a_plan_waits(home: Path, planner: Planner) -> None:
    """Else the test before this one would prove nothing."""
    with Run(home), pytest.raises(EngineUnavailable, match="not landed yet"):
        planner.plan(WANTED, wake=lambda _collection: None, patience=2.0)
