"""The lease of a lane: one run holds it, and none needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import NOON

from orchestration.lease import TTL, held
from penstock.errors import EngineUnavailable
from penstock.metadata.store import Store, open_store

LANE = "lane 0"


class Metadata:
    """Answers the store, unless it is away."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = False

    def __call__(self) -> Store:
        if self.away:
            raise EngineUnavailable("locked")
        return self.store


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    store = open_store(f"sqlite:///{tmp_path / 'metadata.db'}")
    yield Metadata(store)
    store.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def holder(store: Store) -> str | None:
    lease = store.lease(LANE)
    return lease.holder if lease and lease.until > NOON else None


def test_one_run_holds_a_lane_and_gives_it_up(metadata: Metadata) -> None:
    """Two would race for the same commits; a lane that stays taken waits for nothing."""
    with held(metadata, LANE, holder="a", clock=lambda: NOON) as first:
        with held(metadata, LANE, holder="b", clock=lambda: NOON) as second:
            assert (first is None, second is None) == (False, True)
        assert holder(metadata.store) == "a"

    assert holder(metadata.store) is None


def test_a_run_that_could_not_take_the_lease_takes_it_when_it_can(metadata: Metadata) -> None:
    """Without it a second run would start beside this one for as long as this one lives."""
    metadata.away = True
    with held(metadata, LANE, holder="a", clock=lambda: NOON, beat_seconds=0.01) as lease:
        assert lease is not None
        metadata.away = False
        until(lambda: holder(metadata.store) == "a")
        assert not lease.lost

    assert holder(metadata.store) is None


def test_a_run_that_went_on_without_ends_where_another_holds_the_lane(metadata: Metadata) -> None:
    """It was started while nobody could tell."""
    metadata.store.take_lease(LANE, "b", NOON, TTL)
    metadata.away = True
    with held(metadata, LANE, holder="a", clock=lambda: NOON, beat_seconds=0.01) as lease:
        assert lease is not None
        metadata.away = False
        until(lambda: lease.lost)

    assert holder(metadata.store) == "b"


def test_a_run_ends_well_although_it_cannot_give_the_lease_up(metadata: Metadata) -> None:
    """What it landed has landed; the lease lapses by itself."""
    with held(metadata, LANE, holder="a", clock=lambda: NOON):
        metadata.away = True
