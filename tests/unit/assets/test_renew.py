"""A log that cannot go on is followed by a new one, and nothing that can be read is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from builders import FLIGHTS, NOON, ticking
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import MAIN, Tampered, landing, new_lake
from renewing import (
    accept,
    each_once,
    land,
    made,
    put_back,
    renewed,
    settled,
    sound,
    turn_byte,
)

from assets import renew as subject
from assets import resolve
from assets.accounting import read_books
from assets.checks import check_conservation
from assets.landing import Trouble
from assets.remedies import command_for
from assets.renew import apart, divide, folder_of, prepare
from assets.resolve import find_stop
from lakehouse.statements import IDENTITY
from penstock.buffer.files import Disk
from penstock.buffer.reader import EmbeddedBuffer
from penstock.buffer.renewal import renewals
from penstock.buffer.segments import list_bases, segment_path
from penstock.envelope import CollectionId
from penstock.errors import (
    BadRequest,
    LogChanged,
    LogDamaged,
    LogReplaced,
    Stopped,
    TableRolledBack,
    WrongState,
)

SHOP = CollectionId("main", "shop")

# Deciding

runs = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda p: (p[0], sum(p))))


def numbers_of(some: Sequence[tuple[int, int]]) -> list[int]:
    return [n for start, end in some for n in range(start, end)]


@given(runs, runs, st.integers(0, 10), st.integers(0, 20))
def test_every_position_is_carried_over_or_lost_or_was_decided(
    readable: list[tuple[int, int]], decided: list[tuple[int, int]], mark: int, more: int
) -> None:
    """The three are what the books are the sum of: none may overlap, none may be left out."""
    carried, lost = map(numbers_of, divide(readable, decided, mark=mark, end=mark + more))

    has, before = set(numbers_of(readable)), set(numbers_of(decided))
    wanted = set(range(mark, mark + more))
    assert sorted(carried) == sorted((wanted & has) - before)
    assert sorted(lost) == sorted(wanted - has - before)


def identities(events: Sequence[tuple[int, int, str]]) -> pa.Table:
    """Answer events by position, time and log."""
    rows = [
        {
            "event_id": f"e{at}",
            "received_at": NOON + at,
            "log_id": log_id,
            "log_partition": 0,
            "log_offset": offset,
        }
        for offset, at, log_id in events
    ]
    plain = IDENTITY.set(1, pa.field("received_at", pa.int64(), nullable=False))
    return pa.Table.from_pylist(rows, schema=plain).cast(IDENTITY)


@given(
    shared=st.integers(0, 6),
    ours=st.integers(0, 4),
    theirs=st.integers(0, 4),
    gone=st.sets(st.integers(0, 9)),
    elsewhere=st.sets(st.integers(0, 3)),
)
@settings(max_examples=50, deadline=None)
def test_of_two_histories_that_part_what_no_table_has_is_told(
    shared: int, ours: int, theirs: int, gone: set[int], elsewhere: set[int]
) -> None:
    """Some rows may be gone since, and some events of the copy may be rows of another log."""
    log = identities(
        [(n, n, "log") for n in range(shared)] + [(shared + n, 100 + n, "log") for n in range(ours)]
    )
    rows = [(n, n, "log") for n in range(shared) if n not in gone]
    rows += [(shared + n, 200 + n, "log") for n in range(theirs)]
    rows += [(50 + n, 100 + n, "other") for n in elsewhere]

    fresh, reached, differs = apart(log, identities(rows), log_id="log")

    last = max((n + 1 for n in range(shared) if n not in gone), default=0)
    wanted = [*range(last, shared)]
    wanted += [shared + n for n in range(ours) if n not in elsewhere]
    assert (numbers_of(fresh), reached) == (wanted, last)
    assert differs == (min(ours, theirs) > 0)


# Doing


def forked(folder: Path, lake: Any) -> None:
    """Land eight events, put a copy of after six in place, and let a door take three more."""
    accept(folder, range(1, 7))
    land(folder, lake)
    shutil.copytree(folder / "log", folder / "copy")
    accept(folder, [7, 8])
    land(folder, lake)
    put_back(folder, folder / "copy")
    accept(folder, [9, 10, 11])


def damaged(folder: Path, lake: Any) -> None:
    """Land six events, and break the frame of 7 and 8 of the six that wait."""
    accept(folder, range(1, 7))
    land(folder, lake)
    accept(folder, range(7, 13))
    turn_byte(folder, 8)


def test_an_older_copy_is_followed_by_a_log_with_what_came_since(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    forked(tmp_path, lake)
    stop = find_stop(EmbeddedBuffer(tmp_path / "log"), lake, FLIGHTS)
    assert isinstance(stop, LogChanged)
    assert command_for(FLIGHTS, stop) == "penstock log renew"

    done = renewed(tmp_path, lake)

    share = done.share(FLIGHTS)
    assert share is not None
    assert (share.forked, share.events, share.gone) == (True, 3, 0)
    settled(tmp_path, lake, range(1, 12))
    assert renewals(tmp_path / "log") == [done]
    aside = tmp_path / "log" / "aside" / done.name
    assert sorted(file.name for file in (aside / "segments").iterdir()) == [
        segment_path(tmp_path, base).name for base in (0, 512)
    ]
    assert (aside / "identity").exists()


def test_a_damaged_log_is_followed_by_one_with_all_that_can_be_read(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    damaged(tmp_path, lake)
    stop = find_stop(EmbeddedBuffer(tmp_path / "log"), lake, FLIGHTS)
    assert isinstance(stop, LogDamaged)
    assert command_for(FLIGHTS, stop) == "penstock log renew"

    done = renewed(tmp_path, lake)

    share = done.share(FLIGHTS)
    assert share is not None
    assert (share.lost, share.carried) == (((6, 8),), ((8, 12),))
    view = lake.view(FLIGHTS)
    assert view is not None
    assert [(gap.log_id, gap.start, gap.end) for gap in view.lost] == [(str(done.old), 6, 8)]
    settled(tmp_path, lake, [*range(1, 7), *range(9, 13)], lost=2)


def test_a_copy_that_is_damaged_as_well_loses_what_cannot_be_read_of_it(tmp_path: Path) -> None:
    """Its positions are those of rows: the loss is told by its count."""
    lake = new_lake(tmp_path)
    forked(tmp_path, lake)
    turn_byte(tmp_path, 9)

    renewed(tmp_path, lake)

    settled(tmp_path, lake, [*range(1, 9), 11], lost=2)


@pytest.mark.parametrize("what", ["identity", "durable", "segment", "tail", "head"])
def test_whatever_is_gone_of_the_folder_the_rest_is_carried_over(tmp_path: Path, what: str) -> None:
    """A disk does not choose what it loses."""
    lake, folder = new_lake(tmp_path), tmp_path / "log"
    accept(tmp_path, [1, 2])
    land(tmp_path, lake)
    accept(tmp_path, range(3, 13), segment_bytes=1)
    files = [segment_path(folder, base) for base in list_bases(folder)]
    lost: set[int] = set()
    match what:
        case "identity":
            (folder / "identity").write_bytes(b"{")
        case "durable":
            (folder / "identity").unlink()
            (folder / "durable").unlink()
        case "segment":
            files[2].unlink()
            lost = {5, 6}
        case "tail":
            with files[-1].open("r+b") as file:
                file.truncate(files[-1].stat().st_size - 3)
            lost = {11, 12}
        case "head":
            with files[1].open("r+b") as file:
                file.write(b"XXXX")

    renewed(tmp_path, lake)

    settled(tmp_path, lake, [n for n in range(1, 13) if n not in lost], lost=len(lost))


def test_a_collection_that_never_landed_gets_a_table_that_says_what_is_lost(
    tmp_path: Path,
) -> None:
    lake = new_lake(tmp_path)
    accept(tmp_path, range(1, 7))
    accept(tmp_path, [1, 2], collection=SHOP)
    turn_byte(tmp_path, 4)

    done = renewed(tmp_path, lake)

    assert lake.view(SHOP) is None, "nothing is to be said of it"
    settled(tmp_path, lake, [1, 2, 5, 6], lost=2)
    assert done.shares[str(SHOP)].events == 2
    assert EmbeddedBuffer(tmp_path / "log").extents(SHOP)[0].end == 2


@pytest.mark.parametrize("broken_off", [1, 2, 3, 4])
def test_what_a_landing_that_broke_off_put_into_quarantine_does_not_come_again(
    tmp_path: Path, broken_off: int
) -> None:
    """Quarantine is ahead of the marks then; its rows count once the mark has passed them."""

    def before(number: int) -> None:
        if number == broken_off:
            raise OSError("away")

    accept(tmp_path, range(1, 7))
    lake = new_lake(tmp_path, lambda real: Tampered(real, before=before))
    try:
        land(tmp_path, lake)
    except Exception:  # noqa: BLE001 - what it was does not matter here
        accept(tmp_path, range(7, 13))
    else:
        accept(tmp_path, range(7, 13))
    turn_byte(tmp_path, 8)
    lake = new_lake(tmp_path)

    renewed(tmp_path, lake)

    settled(tmp_path, lake, [*range(1, 7), *range(9, 13)], lost=2)


class Meanwhile(Disk):
    """A disk on which something happens when a file is put in its place for the `nth` time."""

    def __init__(self, nth: int, happens: Callable[[], None]) -> None:
        self.left = nth
        self._happens = happens

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.left -= 1
        if self.left == 0:
            self._happens()


@pytest.mark.parametrize("nth", [1, 2])
def test_a_landing_beside_it_lands_nothing_twice(tmp_path: Path, nth: int) -> None:
    """It may have looked before, and commit behind: the table is looked at again then."""
    lake = new_lake(tmp_path)
    accept(tmp_path, range(1, 7))
    land(tmp_path, lake)
    accept(tmp_path, range(7, 13))
    accept(tmp_path, [1, 2], collection=SHOP)
    turn_byte(tmp_path, 2)
    beside = new_lake(tmp_path)

    renewed(tmp_path, lake, files=Meanwhile(nth, lambda: land(tmp_path, beside)))

    settled(tmp_path, lake, range(1, 13))


def test_what_was_agreed_to_is_done_or_nothing(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    accept(tmp_path, range(1, 7))
    accept(tmp_path, [1], collection=SHOP)
    turn_byte(tmp_path, 2)
    agreed = prepare(tmp_path / "log", lake)
    land(tmp_path, lake, SHOP)

    with pytest.raises(WrongState, match="changed meanwhile"):
        subject.renew(
            Disk(), lake, agreed, by="", why="", new_id=UUID(int=1), now=0, done=lambda _: None
        )

    assert not (tmp_path / "log" / "renewal").exists()


def test_a_log_is_renewed_twice(tmp_path: Path) -> None:
    """Positions of three logs are in the marks then, and the books count each once."""
    lake = new_lake(tmp_path)
    damaged(tmp_path, lake)
    renewed(tmp_path, lake)
    land(tmp_path, lake)
    accept(tmp_path, range(13, 19))
    turn_byte(tmp_path, 14)

    renewed(tmp_path, lake, new=8)

    numbers = [*range(1, 7), *range(9, 13), *range(15, 19)]
    settled(tmp_path, lake, numbers, lost=4)
    assert [one.at - NOON for one in renewals(tmp_path / "log")] == [7, 8]


def test_a_copy_from_before_a_renewal_brings_nothing_again(tmp_path: Path) -> None:
    """What was carried over has other positions in the tables, and is known by id and time."""
    lake = new_lake(tmp_path)
    damaged(tmp_path, lake)
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    renewed(tmp_path, lake)
    land(tmp_path, lake)
    put_back(tmp_path, tmp_path / "copy")

    renewed(tmp_path, lake, new=8)

    settled(tmp_path, lake, [*range(1, 7), *range(9, 13)], lost=2)


def test_a_table_that_was_rolled_back_is_resolved_before(tmp_path: Path) -> None:
    """What its marks promise is not in it."""
    lake = new_lake(tmp_path)
    damaged(tmp_path, lake)
    roll_back(lake)

    with pytest.raises(WrongState, match="resolve flights --by"):
        prepare(tmp_path / "log", lake)
    assert isinstance(find_stop(EmbeddedBuffer(tmp_path / "log"), lake, FLIGHTS), TableRolledBack)


@pytest.mark.parametrize("broken", ["identity", "frame", "head"])
def test_the_marks_are_reset_though_the_log_cannot_be_read(tmp_path: Path, broken: str) -> None:
    """Each command would send to the other one for ever."""
    lake, folder = new_lake(tmp_path), tmp_path / "log"
    twice(tmp_path, lake)
    match broken:
        case "identity":
            (folder / "identity").write_bytes(b"{")
        case "frame":
            turn_byte(tmp_path, 8)
        case "head":
            with segment_path(folder, list_bases(folder)[1]).open("r+b") as file:
                file.write(b"XXXX")
    roll_back(lake)

    reset(EmbeddedBuffer(folder), lake)
    done = renewed(tmp_path, lake)

    share = done.share(FLIGHTS)
    assert share is not None
    assert share.mark == 2
    lost = {7, 8} if broken == "frame" else set()
    settled(tmp_path, lake, [n for n in range(1, 13) if n not in lost], lost=len(lost))


def test_a_table_that_is_rolled_back_to_before_a_renewal_says_what_does_not_come_again(
    tmp_path: Path,
) -> None:
    """The log that it has landed from then is put aside: its mark does not go back."""
    lake = new_lake(tmp_path)
    twice(tmp_path, lake)
    turn_byte(tmp_path, 8)
    done = renewed(tmp_path, lake)
    land(tmp_path, lake)
    roll_back(lake)

    says = reset(EmbeddedBuffer(tmp_path / "log"), lake)

    # Four had landed after the first two, one of them into quarantine; that one is there.
    (of_the_old,) = (said for said in says if str(done.old) in said)
    assert of_the_old.startswith(f"3 events of {done.old} that the table no longer has are lost")
    settled(tmp_path, lake, [1, 2, 3, *range(9, 13)], lost=5)
    assert check_conservation(lake, FLIGHTS, str(done.old)).passed


def twice(folder: Path, lake: Any) -> None:
    """Land two events, and then four, of twelve that are in five segments."""
    accept(folder, [1, 2])
    land(folder, lake)
    accept(folder, range(3, 7), segment_bytes=1)
    land(folder, lake)
    accept(folder, range(7, 13), segment_bytes=1)


def roll_back(lake: Any) -> None:
    """Set the table back to its first snapshot, as an engine would."""
    table = lake.table(MAIN)
    assert table is not None
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[0].snapshot_id).commit()


def reset(log: EmbeddedBuffer, lake: Any) -> tuple[str, ...]:
    """Reset the marks of the table, as the command does; answer what it says."""
    agreed = resolve.prepare(log, lake, FLIGHTS, "reset-marks")
    resolve.resolve(log, lake, agreed, done=lambda _: None)
    return agreed.says


def test_a_log_that_goes_on_is_not_renewed_nor_one_elsewhere(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    accept(tmp_path, range(1, 7))
    land(tmp_path, lake)
    accept(tmp_path, [7])
    with pytest.raises(WrongState, match="nothing to renew"):
        prepare(tmp_path / "log", lake)
    with pytest.raises(BadRequest, match="Kafka"):
        folder_of("kafka://host:9092/penstock")


def test_a_door_does_not_write_to_a_log_that_is_being_renewed(tmp_path: Path) -> None:
    """What it took would be put aside with the old log."""

    class Dead(Exception):
        pass

    def dies() -> None:
        raise Dead

    lake = new_lake(tmp_path)
    damaged(tmp_path, lake)
    with pytest.raises(Dead):
        renewed(tmp_path, lake, files=Meanwhile(1, dies))

    with pytest.raises(LogDamaged, match="'penstock log renew' goes on"):
        accept(tmp_path, [13])


def test_landing_of_others_goes_on_beside_a_collection_whose_log_has_changed(
    tmp_path: Path,
) -> None:
    """The log of one may be an older copy in what concerns it, and be right for another."""
    lake = new_lake(tmp_path)
    forked(tmp_path, lake)
    put_back(tmp_path, tmp_path / "copy")
    accept(tmp_path, [1, 2], collection=SHOP)

    log = EmbeddedBuffer(tmp_path / "log")
    work = landing(log, lake, clock=ticking(step=60_000_000))
    outcomes = list(work.drain(log.collections, until=lambda: False, idle=0))

    troubles = [one for one in outcomes if isinstance(one, Trouble)]
    assert {type(one.error) for one in troubles} == {LogChanged}
    assert "penstock log renew" in troubles[0].reason
    shop = lake.view(SHOP)
    assert shop is not None
    assert shop.rows == 2


# The checks of these tests, on renewals that are wrong


def _everything(readable: pa.Table, rows: pa.Table, *, log_id: str) -> Any:
    fresh, reached, differs = apart(readable, rows, log_id=log_id)
    return [(0, 1), *fresh], reached, differs


def _nothing(readable: pa.Table, rows: pa.Table, *, log_id: str) -> Any:
    _, reached, differs = apart(readable, rows, log_id=log_id)
    return [], reached, differs


@pytest.mark.parametrize("wrong", [_everything, _nothing])
def test_a_comparison_that_is_wrong_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    """One event twice, or three that nobody sees again."""
    lake = new_lake(tmp_path)
    forked(tmp_path, lake)
    monkeypatch.setattr(subject, "apart", wrong)
    renewed(tmp_path, lake)
    land(tmp_path, lake)

    with pytest.raises(AssertionError):
        each_once(lake, range(1, 12))


def test_a_loss_that_is_not_stated_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books would never add up again."""
    lake = new_lake(tmp_path)
    damaged(tmp_path, lake)
    properties = subject._properties

    def without_gaps(*arguments: Any) -> dict[str, str]:
        found = properties(*arguments)
        return {name: said for name, said in found.items() if ".lost." not in name}

    monkeypatch.setattr(subject, "_properties", without_gaps)
    renewed(tmp_path, lake)
    land(tmp_path, lake)

    books = read_books(EmbeddedBuffer(tmp_path / "log"), lake, FLIGHTS)
    assert books.difference == 2
    with pytest.raises(AssertionError):
        sound(tmp_path, lake, lost=2)


def test_tables_that_are_told_too_late_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A landing beside it would land what is carried over: each of them twice."""
    lake = new_lake(tmp_path)
    accept(tmp_path, range(1, 7))
    land(tmp_path, lake)
    accept(tmp_path, range(7, 13))
    turn_byte(tmp_path, 2)
    beside = new_lake(tmp_path)
    share = subject._share
    known: list[Any] = []

    def as_first_seen(*arguments: Any) -> Any:
        known.append(share(*arguments))
        return known[0]

    monkeypatch.setattr(subject, "_share", as_first_seen)
    renewed(tmp_path, lake, files=Meanwhile(2, lambda: land(tmp_path, beside)))
    land(tmp_path, lake)

    with pytest.raises(AssertionError):
        each_once(lake, range(1, 13))


def test_stops_that_have_no_choice_have_a_command() -> None:
    """Another log has a choice of its own."""
    assert command_for(FLIGHTS, LogChanged("older")) == "penstock log renew"
    assert command_for(FLIGHTS, LogReplaced("another")) != "penstock log renew"
    assert command_for(FLIGHTS, Stopped("odd")) is None
    assert made(3).payload != made(4).payload
