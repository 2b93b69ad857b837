"""What stands about an event, wherever it and what is near it are: in the lake or on the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import landing, new_lake

from lakehouse.sql import open_engine
from penstock.buffer.memory import MemoryLog
from penstock.schema.convert import Rules
from penstock.schema.shape import Leaf, List, Struct
from penstock.search.around import Around, cells_of
from penstock.search.embedded import EmbeddedSearcher


class World:
    def __init__(self, folder: Path) -> None:
        self.log, self.lake = MemoryLog(), new_lake(folder)
        self.engine = open_engine(folder / "sql", memory="500MB", threads=1)
        self.searcher = EmbeddedSearcher(
            self.lake, self.log, self.engine, rules=lambda _: Rules(), clock=lambda: NOON
        )

    def send(self, *numbers: int) -> None:
        payloads = [f'{{"n": {n}, "l": [{{"a": {n}}}, {{}}]}}' if n % 3 else "{" for n in numbers]
        self.log.append(
            FLIGHTS,
            [
                event(payload, id=f"e{n}", received_at=NOON + n, named=True)
                for n, payload in zip(numbers, payloads, strict=True)
            ],
        )

    def land(self) -> None:
        while landing(self.log, self.lake).land_once(FLIGHTS):
            pass

    def around(self, event_id: str, *, most: int = 2) -> Around:
        return self.searcher.around(FLIGHTS, self.searcher.event(FLIGHTS, event_id), most=most)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.engine.close()


@pytest.mark.parametrize("landed", [0, 1, 2])
def test_neighbours_are_told_across_lake_log_and_quarantine(world: World, landed: int) -> None:
    for number, sent in enumerate([(1, 2, 3, 4), (5, 6, 7, 8)]):
        world.send(*sent)
        if number < landed:
            world.land()

    found = world.around("e4")

    assert [(one.event_id, one.view) for one in found.before] == [
        ("e2", "main"),
        ("e3", "quarantine"),
    ]
    assert [(one.event_id, one.view) for one in found.after] == [
        ("e5", "main"),
        ("e6", "quarantine"),
    ]
    assert found.landed == (landed > 0)
    assert [(one.path, one.value) for one in found.cells or ()] == [("n", 4), ("l[].a", [4, None])]


def test_what_is_in_quarantine_is_no_row(world: World) -> None:
    world.send(2, 3)
    world.land()

    found = world.around("e3")

    assert (found.cells, found.landed) == (None, True)
    assert [one.event_id for one in found.before] == ["e2"]
    assert found.after == ()


@pytest.mark.parametrize("landed", [0, 1, 2])
def test_what_repeats_an_event_is_told(world: World, landed: int) -> None:
    for number in range(2):
        world.send(1, 2)
        if number < landed:
            world.land()

    found = world.around("e1")

    assert [(one.event_id, one.log_offset, one.duplicate_of) for one in found.repeated_by] == [
        ("e1", 2, "e1")
    ]


def test_an_event_with_many_gaps_beside_it_still_has_neighbours(world: World) -> None:
    """Offsets without a record, and rows that expired, lie between events."""
    world.send(*range(1, 3 * 70))
    world.land()

    found = world.around("e100", most=70)

    assert [one.log_offset for one in (*found.before, *found.after)] == [
        *range(99 - 70, 99),
        *range(100, 170),
    ]


def test_values_in_lists_are_told_by_their_column() -> None:
    shape = Struct(
        (
            ("a", List(List(Leaf("long")))),
            ("b", List(Struct((("c", List(Leaf("string"))), ("d", Leaf("bool")))))),
            ("e", Struct((("f", Leaf("double")),))),
        )
    )
    row = {"a": [[1], None, [2, 3]], "b": [{"c": ["x"], "d": None}, None], "e": {"f": 0.5}}

    assert [(one.path, one.kind, one.value) for one in cells_of(row, shape)] == [
        ("a[][]", "long", [1, 2, 3]),
        ("b[].c[]", "string", ["x"]),
        ("e.f", "double", 0.5),
    ]
    assert list(cells_of({"a": None, "b": None, "e": None}, shape)) == []
