"""Files that replays write: whatever happened to who wrote them, each event is in them once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
import ugly
from builders import NOON, event
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.envelope import Event, Position
from penstock.errors import NotFound
from penstock.lines import line_of
from replay.files import SCHEMA, About, Segments, batches_of, folder_of, lines_of, sweep, written
from replay.request import rfc3339

ABOUT = About("main", "orders", "ndjson")
DAY = 86_400_000_000


def line(place: Position, one: Event | None = None) -> bytes:
    one = one or event(b'{"n": %d}' % place.offset, id=f"e{place.partition}-{place.offset}")
    return line_of(
        one,
        place,
        headers=one.headers,
        received_at=rfc3339(one.received_at),
        event_time=None if one.event_time is None else rfc3339(one.event_time),
    )


def write(folder: Path, *sends: Sequence[Position]) -> None:
    """Write a segment or more, as one sender does."""
    segments = Segments(folder, ABOUT)
    for places in sends:
        segments.append({place: line(place) for place in places})
    segments.close()


def places(folder: Path) -> list[Position]:
    told = [msgspec.json.decode(each) for each in b"".join(lines_of(folder)).splitlines()]
    return [Position(one["partition"], one["offset"]) for one in told]


def at(*offsets: int, partition: int = 0) -> list[Position]:
    return [Position(partition, offset) for offset in offsets]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 15), min_size=1, max_size=3))
def test_senders_that_die_leave_each_event_once_and_in_order(data, sizes, tmp_path_factory) -> None:
    """Each begins again somewhere before what the last one wrote, and may leave half a line."""
    folder = tmp_path_factory.mktemp("f") / "r1"
    events = [Position(p, n * 3) for p, size in enumerate(sizes) for n in range(size)]
    done: set[Position] = set()
    for _ in range(data.draw(st.integers(0, 4), label="deaths")):
        left = [place for place in events if place not in done]
        if not left:
            break
        upto = data.draw(st.integers(1, len(left)))
        cut = data.draw(st.integers(0, upto))
        write(folder, *[[place] for place in left[:cut]], left[cut:upto] or left[:1])
        newest = max(folder.glob("*.segment"))
        # The books know of a part of what is there; the end of the file is what was being written.
        known = data.draw(st.integers(0, upto))
        done.update(left[:known])
        kept = sum(len(line(place)) for place in left[:known])
        size = newest.stat().st_size
        end = data.draw(st.integers(min(kept, size), size))
        if data.draw(st.booleans()):
            newest.write_bytes(newest.read_bytes()[:end] + b"\0" * data.draw(st.integers(0, 9)))
    left = [place for place in events if place not in done]
    if left:
        write(folder, left)

    assert places(folder) == events


def test_a_line_that_lacks_nothing_but_its_end_is_none(tmp_path: Path) -> None:
    """The next one would stand behind it."""
    write(tmp_path / "r1", at(1, 2))
    [cut] = (tmp_path / "r1").glob("*.segment")
    cut.write_bytes(cut.read_bytes()[:-1])
    write(tmp_path / "r1", at(2, 3))

    assert places(tmp_path / "r1") == at(1, 2, 3)


def test_what_comes_again_within_a_sender_is_sorted_too(tmp_path: Path) -> None:
    """After a failure that it saw, or several events in another order."""
    write(tmp_path / "r1", at(1, 2, 3), at(2, 4), at(9, 7, 8))

    assert places(tmp_path / "r1") == at(1, 2, 3, 4, 7, 8, 9)


def test_columns_are_the_same_events(tmp_path: Path) -> None:
    events = {Position(0, n): one for n, one in enumerate(ugly.events(2_000, largest=5_000))}
    segments = Segments(tmp_path / "r1", ABOUT)
    segments.append({place: line(place, one) for place, one in events.items()})
    segments.close()

    file = io.BytesIO()
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for batch in batches_of(tmp_path / "r1"):
            writer.write_batch(batch)
    rows = pq.read_table(file).to_pylist()

    assert [row["log_offset"] for row in rows] == list(range(2_000))
    for row, one in zip(rows, events.values(), strict=True):
        assert (row["payload"], row["key"], row["event_id"]) == (one.payload, one.key, one.id)
        headers = [(each["key"], each["value"]) for each in row["headers"] or ()]
        assert tuple(headers) == one.headers
        assert row["content_type"] == one.content_type
        assert row["event_time"].timestamp() == pytest.approx((one.event_time or 0) / 1e6)


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", "", ".", "r1\0", "R1", "a" * 65])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        folder_of(tmp_path, name)


def test_a_replay_without_a_file_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        written(tmp_path, "r1")
    write(tmp_path / "r1", at(1))
    found = written(tmp_path, "r1")
    assert (found.about, found.bytes) == (ABOUT, len(line(Position(0, 1))))
    assert found.name("r1") == "orders-r1.ndjson"
    assert [each.stat().st_mode & 0o777 for each in found.folder.glob("*.segment")] == [0o600]


def test_only_files_of_replays_that_ended_long_ago_are_deleted(tmp_path: Path) -> None:
    ends = {"running": None, "new": NOON - DAY, "old": NOON - 8 * DAY, "forgotten": 0}
    for name in ends:
        write(tmp_path / name, at(1))
    (tmp_path / "other").mkdir()

    gone = sweep(tmp_path, lambda team, one: ends[one], now=NOON, days=7)

    assert gone == ["forgotten", "old"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new", "other", "running"]
    assert sweep(tmp_path / "none", lambda team, one: None, now=NOON, days=7) == []
