"""What is sent twice is seen once: landing's marks, whatever else happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
import structlog
from builders import FLIGHTS, NOON, event
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import BROKEN, MAIN, Tampered, landing, new_lake
from partitioned import PartitionedLog
from pyiceberg.table import Table

from assets.checks import check_conservation
from assets.landing import Landing, Lane, Limits
from lakehouse import Lake
from lakehouse.duplicates import BYTES_PER_ID, HOUR, Duplicates
from lakehouse.upkeep import compact
from penstock import faults
from penstock.buffer.memory import MemoryLog
from penstock.envelope import Event, Micros
from penstock.errors import EngineUnavailable
from penstock.schema.repeats import Marked

DAY = 24 * HOUR

Found = tuple[str, bytes, bool, bool]
"""Id, payload, whether it is a duplicate, and whether its id was used before."""


def named(payload: bytes | str, id_: str, at: Micros = 0, **more: Any) -> Event:
    """Answer an event whose sender gave its id, received so long after noon."""
    return event(payload, id=id_, received_at=NOON + at, named=True, **more)


def rows_of(lake: Lake) -> pa.Table:
    table = lake.table(MAIN)
    assert table is not None
    return (
        table.scan()
        .to_arrow()
        .sort_by([("log_partition", "ascending"), ("log_offset", "ascending")])
    )


def found_in(lake: Lake) -> list[Found]:
    """Answer the rows in the order of the log."""
    return [
        (
            row["event_id"],
            row["payload"],
            row["duplicate_of"] == row["event_id"],
            ("penstock_id", "reused") in (row["metadata"] or ()),
        )
        for row in rows_of(lake).to_pylist()
    ]


def land_all(work: Landing) -> int:
    """Land what waits; answer how many duplicates that were."""
    count = 0
    while landed := work.land_once(FLIGHTS):
        count += landed.duplicates
    return count


def visible(lake: Lake) -> list[tuple[str, bytes]]:
    return [(id_, payload) for id_, payload, repeats, _ in found_in(lake) if not repeats]


def test_an_event_sent_again_is_a_row_that_says_what_it_repeats(tmp_path: Path) -> None:
    """In one batch, in a later one, and for a landing that has just begun."""
    lake, log = new_lake(tmp_path), MemoryLog()
    log.append(FLIGHTS, [named("1", "a"), named("1", "a"), named("2", "b")])
    work = landing(log, lake)
    assert land_all(work) == 1
    log.append(FLIGHTS, [named("2", "b", 5)])
    assert land_all(work) == 1
    log.append(FLIGHTS, [named("1", "a", 6), named("3", "c", 7)])

    assert land_all(landing(log, lake)) == 1

    assert [row[2] for row in found_in(lake)] == [False, True, False, True, True, False]
    assert visible(lake) == [("a", b"1"), ("b", b"2"), ("c", b"3")]
    view = lake.view(FLIGHTS)
    assert view is not None
    assert (view.rows, view.duplicates) == (6, 3)


def test_an_id_with_other_bytes_is_shown_and_noted(tmp_path: Path) -> None:
    """Folding it would lose an event; saying nothing would hide a sender's mistake."""
    lake, log = new_lake(tmp_path), MemoryLog()
    work = landing(log, lake)
    log.append(FLIGHTS, [named("1", "a")])
    land_all(work)
    log.append(FLIGHTS, [named("2", "a", 1), named("1", "a", 2), named("2", "a", 3)])
    land_all(work)

    assert found_in(lake) == [
        ("a", b"1", False, False),
        ("a", b"2", False, True),
        ("a", b"1", True, False),
        ("a", b"2", True, False),
    ]


def test_ids_that_the_door_made_repeat_nothing_but_may_be_repeated(tmp_path: Path) -> None:
    """A replay sends what it took with the id that the door had given to it."""
    lake, log = new_lake(tmp_path), MemoryLog()
    log.append(FLIGHTS, [event("1", id="a"), event("1", id="a")])
    assert land_all(landing(log, lake)) == 0
    log.append(FLIGHTS, [named("1", "a")])

    assert land_all(landing(log, lake)) == 1


def test_cloud_events_of_two_sources_may_have_one_id(tmp_path: Path) -> None:
    """Their standard says that source and id together are what is unique."""
    lake, log = new_lake(tmp_path), MemoryLog()
    sent = [named("1", "a", metadata={"ce_source": source}) for source in ("x", "y", "x")]
    log.append(FLIGHTS, sent)
    land_all(landing(log, lake))

    assert [row[2:] for row in found_in(lake)] == [(False, False), (False, False), (True, False)]


@pytest.mark.parametrize(("later", "repeats"), [(DAY, 1), (DAY + 1, 0)])
def test_a_repetition_counts_within_the_window(tmp_path: Path, later: Micros, repeats: int) -> None:
    """Also over midnight, where another data file and another partition of the table begin."""
    lake, log = new_lake(tmp_path), MemoryLog()
    work = landing(log, lake)
    log.append(FLIGHTS, [named("1", "a")])
    land_all(work)
    log.append(FLIGHTS, [named("1", "a", later)])

    assert land_all(work) == repeats
    assert land_all(landing(log, lake, duplicates=Duplicates(window=0))) == 0


def test_events_in_quarantine_hide_nothing_and_are_counted_along(tmp_path: Path) -> None:
    """Rows are fewer than the records of a batch then; one is marked by where it was."""
    lake, log = new_lake(tmp_path), MemoryLog()
    log.append(FLIGHTS, [named("1", "a"), named(BROKEN, "x"), named(BROKEN, "x"), named("1", "a")])

    assert land_all(landing(log, lake)) == 1
    assert [row[2] for row in found_in(lake)] == [False, True]
    assert check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_what_compaction_joined_is_still_known(tmp_path: Path) -> None:
    """Its ids are in another file then, which nobody has looked at."""
    lake, log = new_lake(tmp_path), MemoryLog()
    work = landing(log, lake)
    for number in range(6):
        log.append(FLIGHTS, [named(f"{number}", f"e{number}", number)])
        land_all(work)
    compact(lake, MAIN, below=1 << 30, new_name=lambda: "joined")
    log.append(FLIGHTS, [named(f"{number}", f"e{number}", 10 + number) for number in range(6)])

    assert land_all(work) == 6


def test_without_room_for_the_window_it_is_shorter_and_that_is_told(tmp_path: Path) -> None:
    """What is not found is shown twice; nothing may be folded by a guess."""
    lake, log = new_lake(tmp_path), MemoryLog()
    work = landing(log, lake, duplicates=Duplicates(most_bytes=40 * BYTES_PER_ID))
    for hour in range(8):
        log.append(FLIGHTS, [named(f"{n}", f"{hour}-{n}", hour * HOUR) for n in range(10)])
        land_all(work)
    sent = [named("3", f"{hour}-3", 8 * HOUR) for hour in range(8)]
    log.append(FLIGHTS, sent)

    with structlog.testing.capture_logs() as logs:
        landed = landing(log, lake, duplicates=Duplicates(most_bytes=40 * BYTES_PER_ID)).land_once(
            FLIGHTS
        )

    assert landed is not None
    assert 0 < landed.duplicates < 8
    assert landed.duplicate_window is not None
    assert landed.duplicate_window < 8 * HOUR
    repeats = [row[2] for row in found_in(lake)[-8:]]
    assert repeats == sorted(repeats)
    assert any("no room for the ids" in entry["event"] for entry in logs)


def test_a_file_that_there_is_no_room_for_is_not_read(tmp_path: Path) -> None:
    """One that was merged may have more rows than memory has room for."""
    lake, log = new_lake(tmp_path), MemoryLog()
    for number in range(6):
        log.append(FLIGHTS, [named(f"{n}", f"{number}-{n}", number) for n in range(10)])
        land_all(landing(log, lake))
    compact(lake, MAIN, below=1 << 30, new_name=lambda: "joined")
    (joined,) = tmp_path.rglob("*joined*.parquet")
    joined.unlink()
    log.append(FLIGHTS, [named("1", "new", HOUR), named("1", "new", HOUR)])

    assert land_all(landing(log, lake, duplicates=Duplicates(most_bytes=40 * BYTES_PER_ID))) == 1
    log.append(FLIGHTS, [named("1", "new", HOUR)])
    with pytest.raises(EngineUnavailable):
        land_all(landing(log, lake, duplicates=Duplicates(most_bytes=80 * BYTES_PER_ID)))


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["1", "2"]), st.integers(0, 30), st.booleans()
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=8, deadline=None)
@given(EVENTS, st.lists(st.integers(1, 4), min_size=1, max_size=10))
def test_marks_are_the_same_wherever_batches_end(
    sent: list[tuple[str, str, int, bool]], sizes: list[int]
) -> None:
    """A landing killed anywhere, and begun again, must not decide otherwise than an idle one."""
    events = [
        event(payload, id=id_, received_at=NOON + at * HOUR, named=named_)
        for id_, payload, at, named_ in sent
    ]
    whole = _landed_in(events, [len(events)])

    assert _landed_in(events, sizes) == whole
    for place, (id_, payload, at, named_) in enumerate(sent):
        earlier = [p for i, p, t, _ in sent[:place] if i == id_ and t >= at - 24]
        assert whole[place][2] is (named_ and payload in earlier)
        assert whole[place][3] is (named_ and bool(earlier) and payload not in earlier)


def _landed_in(events: Sequence[Event], sizes: Sequence[int]) -> list[Found]:
    log, left = MemoryLog(), list(events)
    with TemporaryDirectory() as folder:
        lake = new_lake(Path(folder))
        work = landing(log, lake)
        for size in [*sizes, len(events)]:
            part, left = left[:size], left[size:]
            if part:
                log.append(FLIGHTS, part)
                land_all(work)
        return found_in(lake)


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "after_parquet"])
def test_a_batch_that_is_landed_again_after_a_crash_is_marked_as_before(
    tmp_path: Path, point: str
) -> None:
    """Its own rows, if they came to the table after all, are nothing that it repeats."""
    lake, log = new_lake(tmp_path), MemoryLog()
    log.append(FLIGHTS, [named("0", "z")])
    land_all(landing(log, lake))
    log.append(FLIGHTS, [named("1", "a"), named("0", "z", 1), named("1", "a", 2)])
    faults.arm(f"{point}:raise")
    try:
        with pytest.raises(faults.Injected):
            landing(log, lake).land_once(FLIGHTS)
    finally:
        faults.arm(None)

    land_all(landing(log, lake))

    assert [row[2] for row in found_in(lake)] == [False, False, True, True]


# Two lanes, and mutants


class Blind(Duplicates):
    """A mutant: looks at its batch alone."""

    def marked(self, table: Table, rows: pa.Table, named: pa.Array | None) -> Marked:
        return Duplicates().marked(_without_rows(table), rows, named)


class Hasty(Duplicates):
    """A mutant: looks once at a batch, however often it is committed."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[int, int, int], Marked] = {}

    def marked(self, table: Table, rows: pa.Table, named: pa.Array | None) -> Marked:
        first = (rows["log_partition"][0].as_py(), rows["log_offset"][0].as_py(), rows.num_rows)
        if first not in self._known:
            self._known[first] = super().marked(table, rows, named)
        return self._known[first]


def _without_rows(table: Table) -> Table:
    metadata = table.metadata.model_copy(update={"current_snapshot_id": None, "refs": {}})
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog)


@contextmanager
def racing(folder: Path, make: Callable[[], Duplicates]) -> Iterator[list[tuple[str, bytes]]]:
    """Let lane 1 land the events of lane 0 between its look and its commit."""
    log = PartitionedLog()
    partitions: set[int] = set()
    for key in (b"a", b"b", b"c", b"d"):
        (position,) = log.append(FLIGHTS, [named("1", "x", key=key)]).result()
        assert not isinstance(position, Exception)
        partitions.add(position.partition)
    assert partitions == {0, 1}
    lanes = [Lane(number, 2) for number in range(2)]
    plain = new_lake(folder)
    plain.create(FLIGHTS)

    def overtake(number: int) -> None:
        if number == 1:
            land_all(landing(log, plain, lane=lanes[1], duplicates=make()))

    slow = new_lake(folder, lambda real: Tampered(real, before=overtake))
    land_all(landing(log, slow, lane=lanes[0], duplicates=make()))
    yield visible(plain)
    assert check_conservation(plain, FLIGHTS, log.log_id(FLIGHTS)).passed


def test_after_a_lost_race_a_lane_looks_again(tmp_path: Path) -> None:
    """A sender may give an id to events of two keys, which two lanes land."""
    with racing(tmp_path, Duplicates) as shown:
        assert shown == [("x", b"1")]


def test_the_race_finds_a_lane_that_looks_once(tmp_path: Path) -> None:
    """The mutant: if this were no difference, the test above would prove nothing."""
    with racing(tmp_path, Hasty) as shown:
        assert len(shown) == 2


def test_the_first_test_finds_a_landing_that_does_not_look_at_the_lake(tmp_path: Path) -> None:
    """The other mutant."""
    lake, log = new_lake(tmp_path), MemoryLog()
    work = landing(log, lake, duplicates=Blind())
    log.append(FLIGHTS, [named("1", "a"), named("1", "a")])
    assert land_all(work) == 1
    log.append(FLIGHTS, [named("1", "a")])

    assert land_all(work) == 0


def test_batches_without_ids_of_senders_open_no_file(tmp_path: Path) -> None:
    """Most collections have none, and shall not pay for those that do."""

    class Refusing(Duplicates):
        def marked(self, table: Table, rows: pa.Table, named: pa.Array | None) -> Marked:
            raise AssertionError("was asked")

    lake, log = new_lake(tmp_path), MemoryLog()
    log.append(FLIGHTS, [event("1"), event("1")])

    assert land_all(landing(log, lake, duplicates=Refusing(), limits=Limits())) == 0
