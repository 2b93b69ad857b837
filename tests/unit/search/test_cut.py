"""The cut: each acknowledged event once, whatever landing does between the reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from lakes import BROKEN, MAIN, QUARANTINE, new_lake

from assets.landing import Landing
from lakehouse import Lake, TableView
from penstock.buffer import Portion
from penstock.buffer.memory import MemoryLog
from penstock.buffer.released import KEPT_AFTER_RELEASE
from penstock.envelope import CollectionId, Extent, Mark
from penstock.errors import EngineUnavailable, LogTruncated, TableChanged
from penstock.schema.convert import Rules
from penstock.schema.shape import EMPTY
from penstock.search.cut import Cut, Cuts
from penstock.search.tail import Tails

Action = Callable[[], None]


def nothing() -> None:
    """Nothing happens."""


class Home:
    """A log and a lake that landing moves events between."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog()
        self.lake = new_lake(folder)
        self.landing = Landing(
            self.log, self.lake, rules=lambda _: Rules(), clock=lambda: NOON, wait=lambda _: None
        )
        self._numbers = count()

    def send(self, *payloads: bytes | str) -> None:
        for payload in payloads or ("{}",):
            one = event(payload, id=f"e{next(self._numbers)}")
            self.log.append(FLIGHTS, [one]).result()

    def land(self) -> None:
        while self.landing.land_once(FLIGHTS) is not None:
            pass

    def send_and_land(self) -> None:
        self.send()
        self.land()

    def trim(self) -> None:
        """Let the log forget what has landed, as it may after a quarter of an hour."""
        view = self.lake.view(FLIGHTS)
        assert view is not None
        self.log.release(FLIGHTS, view.marks)
        self.log.trim(0)
        self.log.trim(KEPT_AFTER_RELEASE)

    def land_and_trim(self) -> None:
        self.send_and_land()
        self.trim()

    def cuts(self, **hooks: Action) -> Cuts:
        buffer = HookedBuffer(self.log, **hooks)
        return Cuts(HookedLake(self.lake, **hooks), buffer, tails(buffer))


def tails(buffer, most_bytes: int = 1 << 30) -> Tails:
    return Tails(buffer, lambda _: Rules(), most_bytes=most_bytes)


class HookedBuffer:
    """A log beside which things happen: after its ends were told, and before it is read."""

    def __init__(
        self,
        log: MemoryLog,
        after_ends: Action = nothing,
        before_log: Action = nothing,
        **_: Action,
    ) -> None:
        self._log = log
        self._after_ends = after_ends
        self._before_log = before_log

    def log_id(self, collection: CollectionId) -> str:
        return self._log.log_id(collection)

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        extents = self._log.extents(collection)
        self._after_ends()
        return extents

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        self._before_log()
        return self._log.read(collection, mark, end=end, max_bytes=max_bytes)


class HookedLake:
    """A lake beside which things happen after a table was loaded."""

    def __init__(
        self,
        lake: Lake,
        after_load: Action = nothing,
        after_quarantine: Action = nothing,
        changed: Callable[[TableView | None], TableView | None] = lambda view: view,
        **_: Action,
    ) -> None:
        self._lake = lake
        self._after_load = after_load
        self._after_quarantine = after_quarantine
        self._changed = changed

    def view(self, collection: CollectionId) -> TableView | None:
        view = self._changed(self._lake.view(collection))
        self._after_load()
        return view

    def quarantine_view(self, collection: CollectionId) -> TableView | None:
        view = self._lake.quarantine_view(collection)
        self._after_quarantine()
        return view

    def closed_view(self, collection: CollectionId) -> TableView | None:
        return self._lake.closed_view(collection)


def landed_offsets(home: Home, view: TableView | None, ends: Mapping[int, int], name=MAIN) -> list:
    """Read the offsets that the snapshot of a view holds before the ends."""
    if view is None or view.snapshot_id is None:
        return []
    table = home.lake.table(name)
    assert table is not None
    scan = table.scan(selected_fields=("log_offset",), snapshot_id=view.snapshot_id)
    return [o for o in scan.to_arrow()["log_offset"].to_pylist() if o < ends[0]]


def offsets(home: Home, cut: Cut) -> list[int]:
    tail = [o for piece in cut.tail for o in piece.rows["log_offset"].to_pylist()]
    return sorted([*landed_offsets(home, cut.table, cut.ends), *tail])


ACTIONS = ("nothing", "send", "land", "send_and_land")


@pytest.mark.parametrize(
    "actions", list(product(ACTIONS, ("nothing", "land", "send_and_land"), ACTIONS[:3]))
)
def test_a_cut_has_each_event_acknowledged_before_it_once(
    tmp_path: Path, actions: tuple[str, str, str]
) -> None:
    """Whatever is sent and lands between the reads."""
    home = Home(tmp_path)
    home.send("{}", '{"a": 1}')
    home.land()
    home.send("{}", '{"a": "x"}')
    names = ("after_ends", "after_load", "before_log")
    hooks: dict[str, Action] = {
        name: once(_act(home, action)) for name, action in zip(names, actions, strict=True)
    }

    cut = home.cuts(**hooks).take(FLIGHTS, "main")

    assert cut.ends == {0: 4}
    assert offsets(home, cut) == [0, 1, 2, 3]
    assert cut.unsearched == 0


def _act(home: Home, action: str) -> Action:
    return nothing if action == "nothing" else getattr(home, action)


def once(action: Action) -> Action:
    """Answer an action that does something the first time only."""
    left = [action]

    def act() -> None:
        if left:
            left.pop()()

    return act


# The other orders of the reads, to see that the test above could fail


@dataclass(frozen=True)
class Reads:
    """The single reads, and what happens between any two of them."""

    home: Home
    between: Iterator[Action]

    def view(self) -> TableView | None:
        next(self.between)()
        return self.home.lake.view(FLIGHTS)

    def ends(self) -> dict[int, int]:
        next(self.between)()
        return {p: extent.end for p, extent in self.home.log.extents(FLIGHTS).items()}

    def log(self, view: TableView | None, ends: dict[int, int]) -> list[int]:
        next(self.between)()
        start = (
            view.mark(self.home.log.log_id(FLIGHTS), 0)
            if view
            else Mark(self.home.log.log_id(FLIGHTS), 0, 0, "")
        )
        tail = tails(self.home.log).read(FLIGHTS, [start], ends, EMPTY)
        return [o for piece in tail.pieces for o in piece.rows["log_offset"].to_pylist()]

    def lake(self, view: TableView | None, ends: dict[int, int]) -> list[int]:
        return landed_offsets(self.home, view, ends)


def log_then_lake(reads: Reads) -> list[int]:
    marks = reads.view()
    ends = reads.ends()
    tail = reads.log(marks, ends)
    return tail + reads.lake(reads.view(), ends)


def lake_then_ends_of_another_load(reads: Reads) -> list[int]:
    view = reads.view()
    ends = reads.ends()
    return reads.lake(view, ends) + reads.log(reads.view(), ends)


def marks_then_snapshot(reads: Reads) -> list[int]:
    ends = reads.ends()
    marks = reads.view()
    return reads.log(marks, ends) + reads.lake(reads.view(), ends)


@pytest.mark.parametrize(
    "order", [log_then_lake, lake_then_ends_of_another_load, marks_then_snapshot]
)
def test_other_orders_of_the_reads_miss_or_double_events(tmp_path: Path, order) -> None:
    """So the interleavings above are the ones that matter."""
    wrong = 0
    for place in range(5):
        home = Home(tmp_path / str(place))
        home.send("{}", "{}")
        home.land()
        home.send("{}", "{}")
        between = iter([home.land if n == place else nothing for n in range(9)])
        wrong += sorted(order(Reads(home, between))) != [0, 1, 2, 3]

    assert wrong


# The log behind the marks


def test_a_log_that_is_trimmed_beside_the_search_is_read_again(tmp_path: Path) -> None:
    """The table has by now what the log has no more."""
    home = Home(tmp_path)
    home.send("{}")
    home.land()
    home.send("{}", "{}")

    cut = home.cuts(after_load=once(home.land_and_trim)).take(FLIGHTS, "main")

    assert offsets(home, cut) == [0, 1, 2]


def test_a_log_that_is_always_trimmed_is_not_followed_for_ever(tmp_path: Path) -> None:
    """A request ends."""
    home = Home(tmp_path)
    home.send("{}")
    home.land_and_trim()

    class Gone(HookedBuffer):
        def read(self, *_: object, **__: object) -> Portion:
            raise LogTruncated("gone")

    home.send("{}")
    buffer = Gone(home.log)
    cuts = Cuts(home.lake, buffer, tails(buffer))

    with pytest.raises(EngineUnavailable, match="trimmed"):
        cuts.take(FLIGHTS, "main")


def test_a_table_that_was_rolled_back_is_not_searched(tmp_path: Path) -> None:
    """Its marks promise events that it no longer has, and nobody would miss them."""
    home = Home(tmp_path)
    home.send("{}")
    home.land()
    lake = HookedLake(home.lake, changed=lambda view: replace(view, rolled_back=True))

    with pytest.raises(TableChanged, match="rolled back"):
        Cuts(lake, home.log, tails(home.log)).take(FLIGHTS, "main")


def test_a_collection_without_table_and_events_is_empty(tmp_path: Path) -> None:
    """It was made a moment ago."""
    home = Home(tmp_path)
    cut = home.cuts().take(FLIGHTS, "main")

    assert (cut.table, cut.tail, cut.ends) == (None, (), {0: 0})


# Quarantine


@pytest.mark.parametrize("place", ["after_ends", "after_load", "after_quarantine", "before_log"])
@pytest.mark.parametrize("landed", [0, 1, 2])
def test_quarantined_events_are_in_their_cut_once(tmp_path: Path, place: str, landed: int) -> None:
    """Quarantine commits before the main table, whose marks are the ones that count."""
    home = Home(tmp_path)
    for _ in range(landed):
        home.send(BROKEN, "{}")
        home.land()
    home.send("{}", BROKEN)

    cut = home.cuts(**{place: once(home.land)}).take(FLIGHTS, "quarantine")

    tail = [o for piece in cut.tail for o in piece.quarantined["log_offset"].to_pylist()]
    found = sorted([*landed_offsets(home, cut.table, cut.ends, QUARANTINE), *tail])
    assert found == [*range(0, 2 * landed, 2), 2 * landed + 1]


def test_a_landing_that_broke_off_after_quarantine_doubles_nothing(tmp_path: Path) -> None:
    """Quarantine is ahead of the main table then."""
    home = Home(tmp_path)
    home.send("{}")
    home.land()
    before = home.lake.view(FLIGHTS)
    home.send(BROKEN, "{}")
    home.land()
    lake = HookedLake(home.lake, changed=lambda _: before)

    cut = Cuts(lake, home.log, tails(home.log)).take(FLIGHTS, "quarantine")

    tail = [o for piece in cut.tail for o in piece.quarantined["log_offset"].to_pylist()]
    assert (landed_offsets(home, cut.table, cut.ends, QUARANTINE), tail) == ([1], [])


# Pages


def test_a_cut_can_be_taken_again_at_its_ends(tmp_path: Path) -> None:
    """Each page of a cursor is of the cut of the first, wherever its events are by now."""
    home = Home(tmp_path)
    home.send("{}", "{}")
    cuts = home.cuts()
    first = cuts.take(FLIGHTS, "main")
    home.send("{}")
    home.land()
    home.send("{}")
    again = cuts.take(FLIGHTS, "main", first.ends)

    assert offsets(home, first) == offsets(home, again) == [0, 1]
    assert again.landed().parameters == (home.log.log_id(FLIGHTS), 0, 2)
    assert first.landed().parameters == ()
