"""What one load of a table says, and the pins that keep a snapshot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders import FLIGHTS
from hypothesis import given
from hypothesis import strategies as st
from lakes import BROKEN, MAIN, PLACES, Tampered, batch_of, lake_at, log_of, new_lake, numbered, put

from lakehouse import Lake, TableView
from lakehouse.tables import mark_properties, marks_of, rolled_back
from lakehouse.upkeep import expire
from penstock.envelope import SYSTEM_TEAM, CollectionId, Mark
from penstock.errors import AlreadyExists, EngineUnavailable, NotFound
from penstock.schema.shape import Leaf, Struct

marks = st.builds(
    Mark,
    st.text("0123456789abcdef-.", min_size=1),
    st.integers(0, 999),
    st.integers(0, 2**60),
    st.text("0123456789abcdef:-"),
)


@given(st.lists(marks, unique_by=lambda mark: (mark.log_id, mark.partition)))
def test_marks_survive_as_properties(given: list[Mark]) -> None:
    """They are all that says where landing goes on; log ids of Kafka have dots in them."""
    assert set(marks_of({**mark_properties(given), "owner": "team"})) == set(given)


@pytest.mark.parametrize(
    ("ancestors", "landed", "expected"),
    [
        ([], 0, False),
        ([], 3, True),
        ([3, 2, 1], 3, False),
        ([5, 4, 3, 2], 3, False),
        ([2, 1], 3, True),
        ([6, 2, 1], 3, True),
        ([9, 8], 3, False),
    ],
    ids=[
        "new",
        "everything is gone",
        "just landed",
        "compacted since",
        "rolled back",
        "rolled back and written to again",
        "the landing was expired",
    ],
)
def test_a_rollback_is_seen(ancestors: list[int], landed: int, expected: bool) -> None:
    """Properties are not rolled back with the rows: the marks promise what is not there."""
    assert rolled_back(ancestors, landed) is expected


@pytest.fixture(params=PLACES)
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Let the lake of each test be here and in the real engines."""
    with lake_at(request.param, tmp_path) as folder:
        yield folder


def filled(folder: Path, count: int = 3) -> tuple[Lake, TableView]:
    """Answer a lake in which `count` events landed, one commit each."""
    lake = new_lake(folder)
    log = log_of(*numbered(count))
    view = lake.create(FLIGHTS)
    for upto in range(1, count + 1):
        put(lake, batch_of(log, view, upto=upto))
        view = lake.view(FLIGHTS) or view
    return lake, view


def test_a_catalog_that_does_not_answer_is_no_empty_lake(tmp_path: Path) -> None:
    """Taken for a missing table, landing would make a second one and begin anew."""
    lake, _ = filled(tmp_path, 1)

    class Away(Tampered):
        def load_table(self, name: object) -> object:
            raise ConnectionError("refused")

    with pytest.raises(EngineUnavailable):
        Lake(Away(lake.catalog)).view(FLIGHTS)  # type: ignore[arg-type]  # a stand-in


def test_there_is_no_view_before_the_first_landing(tmp_path: Path) -> None:
    """A collection that never got an event has no table; that is no error."""
    lake = new_lake(tmp_path)

    assert lake.view(FLIGHTS) is None
    assert lake.quarantine_view(FLIGHTS) is None


def test_a_view_says_everything_about_one_moment(tmp_path: Path) -> None:
    """Snapshot and marks of two loads doubled or lost events in half of all searches."""
    _, view = filled(tmp_path)

    assert view.rows == view.files == 3
    assert view.shape == Struct((("n", Leaf("long")),))
    assert [mark.next for mark in view.marks] == [3]
    assert view.landed_sequence == 3
    assert not view.rolled_back
    assert view.snapshot_id is not None
    assert view.mark("another log", 0) == Mark("another log", 0, 0, "")


def test_an_unchanged_table_is_not_read_again(tmp_path: Path) -> None:
    """Search asks for a view with every request."""
    lake, view = filled(tmp_path, 1)

    assert lake.view(FLIGHTS) is lake.view(FLIGHTS)
    assert lake.view(FLIGHTS) == view


def test_many_may_create_the_same_tables(tmp_path: Path) -> None:
    """Two lanes may meet a new collection at the same moment."""
    lake = new_lake(tmp_path)
    start = threading.Barrier(4)

    def create(_: int) -> str:
        start.wait()
        return lake.create(FLIGHTS).uuid

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(create, range(4)))) == 1

    assert lake.quarantine_view(FLIGHTS) is not None


def test_collections_are_listed_without_their_quarantine(tmp_path: Path) -> None:
    """Whoever checks or tends all collections starts here."""
    lake = new_lake(tmp_path)
    all_of_them = [
        CollectionId("acme", "orders"),
        FLIGHTS,
        CollectionId(SYSTEM_TEAM, "replay_attempts"),
    ]
    for collection in reversed(all_of_them):
        lake.create(collection)

    assert lake.collections() == all_of_them


def test_a_pin_keeps_a_snapshot_until_it_is_taken_away(tmp_path: Path) -> None:
    """A plan promises a number; the rows it counted must stay."""
    lake, _ = filled(tmp_path)
    first = snapshots(lake)[0]

    lake.pin(FLIGHTS, first, "replay-1")
    lake.pin(FLIGHTS, first, "replay-1")
    assert expire(lake, MAIN, keep=1) == 1
    assert lake.pins(FLIGHTS) == {"replay-1": first}
    assert first in snapshots(lake)

    lake.unpin(FLIGHTS, "replay-1")
    lake.unpin(FLIGHTS, "replay-1")
    assert expire(lake, MAIN, keep=1) == 1
    assert lake.pins(FLIGHTS) == {}


def test_a_snapshot_of_quarantine_is_pinned_for_itself(tmp_path: Path) -> None:
    """Quarantined events are replayed, too; the same name may pin one of each table."""
    lake = new_lake(tmp_path)
    put(lake, batch_of(log_of(*numbered(1), BROKEN), lake.create(FLIGHTS)))
    aside = lake.quarantine_view(FLIGHTS)
    assert aside is not None

    lake.pin(FLIGHTS, aside.snapshot_id or 0, "replay-1", quarantine=True)

    assert lake.pins(FLIGHTS, quarantine=True) == {"replay-1": aside.snapshot_id}
    assert lake.pins(FLIGHTS) == {}
    lake.unpin(FLIGHTS, "replay-1", quarantine=True)
    assert lake.pins(FLIGHTS, quarantine=True) == {}


def test_a_name_pins_one_snapshot(tmp_path: Path) -> None:
    """Moved to another snapshot, a pin would let go of what a plan counted."""
    lake, _ = filled(tmp_path)
    first, second, _ = snapshots(lake)
    lake.pin(FLIGHTS, first, "replay-1")

    with pytest.raises(AlreadyExists):
        lake.pin(FLIGHTS, second, "replay-1")


def test_what_was_expired_cannot_be_pinned(tmp_path: Path) -> None:
    """A tag on nothing makes the table unreadable."""
    lake, _ = filled(tmp_path)

    with pytest.raises(NotFound):
        lake.pin(FLIGHTS, 42, "replay-1")
    with pytest.raises(NotFound):
        lake.pin(CollectionId("main", "nobody"), 42, "replay-1")


def test_a_pin_that_expiry_overtakes_fails(tmp_path: Path) -> None:
    """Loaded, then expired by others, then tagged: the plan must hear of it."""
    lake, _ = filled(tmp_path)
    first = snapshots(lake)[0]
    others = new_lake(tmp_path)
    between = Tampered(lake.catalog, before=lambda _: ignore(expire(others, MAIN, keep=1)))

    with pytest.raises(NotFound):
        Lake(between, lake.patience).pin(FLIGHTS, first, "replay-1")

    assert lake.pins(FLIGHTS) == {}


def test_an_expiry_that_a_pin_overtakes_leaves_the_snapshot(tmp_path: Path) -> None:
    """Loaded, then pinned by a plan, then expired: tag and snapshot went without a word."""
    lake, _ = filled(tmp_path)
    first = snapshots(lake)[0]
    between = Tampered(
        lake.catalog,
        before=lambda number: lake.pin(FLIGHTS, first, "replay-1") if number == 1 else None,
    )

    assert expire(Lake(between, lake.patience), MAIN, keep=1) == 1

    assert between.commits == 2
    assert lake.pins(FLIGHTS) == {"replay-1": first}
    assert first in snapshots(lake)


def test_a_landing_beside_a_pin_does_not_make_it_fail(tmp_path: Path) -> None:
    """A plan pins while events keep landing."""
    lake, view = filled(tmp_path, 2)
    log = log_of(*numbered(5))
    batch = batch_of(log, view)
    between = Tampered(
        lake.catalog, before=lambda number: ignore(put(lake, batch)) if number == 1 else None
    )

    Lake(between, lake.patience).pin(FLIGHTS, view.snapshot_id or 0, "replay-1")

    assert lake.pins(FLIGHTS) == {"replay-1": view.snapshot_id}
    after = lake.view(FLIGHTS)
    assert after is not None
    assert after.rows == 5


def snapshots(lake: Lake) -> list[int]:
    """Answer the ids of the main table's snapshots, the oldest first."""
    table = lake.table(MAIN)
    assert table is not None
    return [snapshot.snapshot_id for snapshot in table.metadata.snapshots]


def ignore(_: object) -> None:
    """Take an answer that does not matter."""
