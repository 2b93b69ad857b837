"""Searches and plans leave out what repeats others, in the tail as in the lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import landing, new_lake

from lakehouse import Lake
from lakehouse.sql import open_engine
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Event
from penstock.schema.convert import Rules
from penstock.search import SearchRequest
from penstock.search.embedded import EmbeddedSearcher
from replay.plan import Planner
from replay.request import read_request


class World:
    def __init__(self, folder: Path) -> None:
        self.log, self.lake = MemoryLog(), new_lake(folder)
        self.engine = open_engine(folder / "sql", memory="500MB", threads=1)
        self.searcher = EmbeddedSearcher(
            self.lake, self.log, self.engine, rules=lambda _: Rules(), clock=lambda: NOON
        )

    def send(self, *events: Event) -> None:
        self.log.append(FLIGHTS, list(events))

    def land(self) -> None:
        while landing(self.log, self.lake).land_once(FLIGHTS):
            pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.engine.close()


def named(number: int, at: int = 0) -> Event:
    payload = f'{{"n": {number}}}'
    return event(payload, id=f"e{number}", received_at=NOON + at, named=True)


def offsets(world: World, **asked: str) -> list[int]:
    page = world.searcher.search(SearchRequest(collection=FLIGHTS, **asked))  # type: ignore[arg-type]  # texts of literals
    return sorted(found.log_offset for found in page.events)


@pytest.mark.parametrize("landed", [0, 1, 2, 3])
def test_a_search_shows_each_event_once_wherever_its_copies_are(world: World, landed: int) -> None:
    """All in the tail; the first landed and its copies in the tail; all landed."""
    sent = [[named(1), named(2, 1)], [named(1, 2)], [named(2, 3), named(3, 4), named(2, 5)]]
    for number, events in enumerate(sent):
        world.send(*events)
        if number < landed:
            world.land()
    asked = SearchRequest(collection=FLIGHTS)

    page = world.searcher.search(asked)

    assert offsets(world) == [0, 1, 4]
    assert page.folded == 3
    assert offsets(world, duplicates="include") == [0, 1, 2, 3, 4, 5]
    assert offsets(world, duplicates="only") == [2, 3, 5]
    assert world.searcher.count(asked) == 3
    assert sum(bar.count for bar in world.searcher.histogram(asked, bars=5).bars) == 3
    assert world.searcher.event(FLIGHTS, "e2").log_offset == 1


def test_a_plan_has_what_a_search_shows(world: World) -> None:
    """The number previewed is the number replayed."""
    world.send(named(1), named(2, 1), named(1, 2))
    world.send(named(2, 3))
    planner = Planner(world.lake, world.log, world.engine, clock=lambda: NOON)

    def planned(**more: str) -> tuple[int, int]:
        request = read_request(
            {"collection": "flights", "destination": "here", **more}, team="main"
        )
        plan = planner.plan(request, wake=lambda _: world.land())
        return plan.count, plan.folded

    shown = world.searcher.count(SearchRequest(collection=FLIGHTS))
    assert planned() == (shown, 2) == (2, 2)
    assert planned(duplicates="include") == (4, 0)


@pytest.mark.parametrize(
    ("to", "warned"),
    [("http://other:8080/v1/events/flights", True), ("https://example.com/hook", False)],
)
def test_a_plan_warns_where_a_door_would_fold(world: World, to: str, warned: bool) -> None:
    """Whoever replays an event again on purpose would look for it in vain."""
    world.send(named(1))
    planner = Planner(world.lake, world.log, world.engine, clock=lambda: NOON)
    request = read_request({"collection": "flights", "destination": "here"}, team="main")

    plan = planner.plan(request, wake=lambda _: world.land(), to=to)

    assert any("duplicate_window_hours" in one for one in plan.warnings) is warned


def test_what_is_replayed_into_its_own_collection_is_seen_once(world: World) -> None:
    """Twice by accident or on purpose: nothing that a door sees tells the one from the other."""
    world.send(event('{"n": 1}', id="e1", received_at=NOON))
    world.land()
    for at in (1, 2):
        world.send(named(1, at))
    world.land()

    page = world.searcher.search(SearchRequest(collection=FLIGHTS))

    assert ([found.log_offset for found in page.events], page.folded) == ([0], 2)


def test_the_table_is_read_as_it_was_at_the_cut(world: World) -> None:
    """Rows that landed after the cut are the tail's own, and nothing that it repeats."""
    world.send(named(1))
    world.land()
    view = world.lake.view(FLIGHTS)
    assert view is not None
    world.send(named(2, 1))
    world.land()

    assert _rows(world.lake) == 2
    assert world.lake.at(view).scan().to_arrow().num_rows == 1


def _rows(lake: Lake) -> int:
    view = lake.view(FLIGHTS)
    assert view is not None
    return view.rows
