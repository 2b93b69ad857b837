"""Whatever bytes a disk gives back, the rest of the log is found, and nothing else."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.buffer import salvage
from penstock.buffer.embedded import EmbeddedAppender
from penstock.buffer.salvage import Found, read_folder, without
from penstock.buffer.segments import list_bases, segment_path
from penstock.codec import Gathering
from penstock.envelope import CollectionId
from penstock.errors import LogDamaged, NotFound

SHOP = CollectionId("main", "shop")
FRAMES = [(FLIGHTS, 2), (SHOP, 1), (FLIGHTS, 3), (FLIGHTS, 1), (SHOP, 2), (FLIGHTS, 2)]
"""Of which collection each is, and how many events it has."""

runs = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda p: (p[0], sum(p))))


@given(runs, runs)
def test_what_is_left_of_runs_is_what_no_other_has(
    some: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    """It is what the books are the sum of."""
    left = without(some, others)

    wanted = {n for run in some for n in range(*run)} - {n for run in others for n in range(*run)}
    assert {n for run in left for n in range(*run)} == wanted


def payload(collection: CollectionId, position: int) -> bytes:
    return f"{collection} {position}".encode()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answer a log of two collections, with four frames in one segment and one in others."""
    folder = tmp_path_factory.mktemp("log")
    ends = dict.fromkeys((FLIGHTS, SHOP), 0)
    for some_frames, segment_bytes in ((FRAMES[:4], 1 << 20), (FRAMES[4:], 1)):
        appender = EmbeddedAppender(folder, segment_bytes=segment_bytes)
        for collection, count in some_frames:
            first = ends[collection]
            some = [
                event(payload(collection, n), id=f"e{n}", received_at=NOON + n)
                for n in range(first, first + count)
            ]
            appender.append(collection, some).result(10)
            ends[collection] += count
        appender.close()
    return folder


def held(folder: Path, found: Found) -> dict[tuple[CollectionId, int], bytes]:
    """Answer the payloads that were found, by collection and position."""
    answer: dict[tuple[CollectionId, int], bytes] = {}
    for collection, pieces in found.pieces.items():
        for piece, block in salvage.blocks(folder, found.log_id, pieces):
            gathering = Gathering()
            gathering.add(block, piece.frame.first, 0, piece.frame.events)
            batch = gathering.batch(found.log_id, 0)
            for row in batch.select(["log_offset", "payload"]).to_pylist():
                place = collection, row["log_offset"]
                assert place not in answer
                answer[place] = row["payload"]
    return answer


def positions() -> list[set[tuple[CollectionId, int]]]:
    """Answer what each frame holds."""
    ends = dict.fromkeys((FLIGHTS, SHOP), 0)
    frames = []
    for collection, count in FRAMES:
        first = ends[collection]
        frames.append({(collection, n) for n in range(first, first + count)})
        ends[collection] += count
    return frames


def everything() -> dict[tuple[CollectionId, int], bytes]:
    return {place: payload(*place) for frame in positions() for place in frame}


def copies(whole: Path) -> Iterator[Path]:
    with TemporaryDirectory() as place:
        yield Path(shutil.copytree(whole, Path(place) / "log"))


def test_of_a_whole_log_everything_is_found_and_nothing_is_damaged(whole: Path) -> None:
    found = read_folder(whole)

    assert held(whole, found) == everything()
    assert found.damage == ()
    held_by = Counter(piece.base for pieces in found.pieces.values() for piece in pieces)
    assert sorted(held_by.values()) == [1, 1, 4], "frames behind others, and segments"


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_byte_that_is_another_one_costs_its_frame_and_no_other(
    whole: Path, data: st.DataObject
) -> None:
    """Of the frame that it hit the positions are told, as far as anything still proves them."""
    for folder in copies(whole):
        base = data.draw(st.sampled_from(list_bases(folder)))
        path = segment_path(folder, base)
        stored = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(stored) - 1))
        stored[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(stored)

        found = read_folder(folder)

        there, all_of_it = held(folder, found), everything()
        assert there.items() <= all_of_it.items()
        assert found.damage
        lost = all_of_it.keys() - there.keys()
        assert not lost or lost in positions()
        for collection in (FLIGHTS, SHOP):
            gone = {n for c, n in lost if c == collection}
            told = {n for run in found.unreadable(collection, 0) for n in range(*run)}
            last = max(n for c, n in all_of_it if c == collection)
            # Of the last frame of a collection nothing but its own header says that it was there.
            assert told == gone or (not told and last in gone)


@given(st.binary(max_size=200), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_whatever_stands_in_a_segment_no_event_is_made_up(
    whole: Path, noise: bytes, place: int
) -> None:
    """Bytes that the disk takes for those of the log are frames of it, or nothing."""
    for folder in copies(whole):
        for base in list_bases(folder)[:1]:
            path = segment_path(folder, base)
            stored = path.read_bytes()
            at = place % len(stored)
            path.write_bytes(stored[:at] + noise + stored[at + len(noise) :])

        found = read_folder(folder)

        assert held(folder, found).items() <= everything().items()


def test_a_folder_says_which_log_it_is_or_is_refused(whole: Path, tmp_path: Path) -> None:
    """Frames of another log are no frames of this one."""
    with pytest.raises(NotFound):
        read_folder(tmp_path)
    log_id = read_folder(whole).log_id
    for folder in copies(whole):
        (folder / "identity").unlink()
        (folder / "durable").unlink()
        with pytest.raises(LogDamaged, match="nothing in"):
            read_folder(folder, known=["a topic's", "00000000-0000-0000-0000-00000000000f"])
        found = read_folder(folder, known=["00000000-0000-0000-0000-00000000000f", log_id])
        assert found.log_id == log_id
        assert held(folder, found) == everything()
