"""A writer that is killed, a tail that is torn, bytes that are not what was written."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from balance import compare
from builders import FLIGHTS, event
from evidence.sheet import found, happened

from penstock.buffer import start_of
from penstock.buffer.embedded import EmbeddedAppender, EmbeddedBuffer
from penstock.envelope import CollectionId, Mark
from penstock.errors import LogDamaged, LogTruncated

ORDERS = CollectionId("shop", "orders")
NEXT_BOOT = UUID(int=2)

WRITER = """
import sys
from pathlib import Path
from penstock.buffer.embedded import EmbeddedAppender
from penstock.envelope import CollectionId, Event
from penstock.faults import arm

folder, fault, start = sys.argv[1:]
flights = CollectionId("main", "flights")
orders = CollectionId("shop", "orders")
appender = EmbeddedAppender(folder, segment_bytes=1_500)
arm(fault)
for number in range(int(start), int(start) + 20):
    calls = []
    for to in (flights, orders):
        events = [
            Event(id=f"{number}.{n}", received_at=number, payload=b"%d" % number, source="x")
            for n in range(3)
        ]
        calls.append((to, events, appender.append(to, events)))
    for to, events, future in calls:
        for event, position in zip(events, future.result()):
            print(f"{to} {position.offset} {event.id}", flush=True)
"""


def write_until_killed(folder: Path, fault: str, start: int) -> dict[tuple[str, int], str]:
    """Answer what a writer acknowledged before it died: collection and offset to id."""
    ended = subprocess.run(
        [sys.executable, "-c", WRITER, str(folder), fault, str(start)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    happened("kills")
    acknowledged = {}
    for line in ended.stdout.splitlines():
        if line.startswith(("main.", "shop.")):
            to, offset, id_ = line.split()
            acknowledged[to, int(offset)] = id_
    return acknowledged


def everything(buffer: EmbeddedBuffer) -> dict[tuple[str, int], str]:
    """Answer what a log holds: collection and offset to id."""
    found = {}
    for collection in buffer.collections():
        mark = start_of(buffer.log_id(collection), 0)
        rows = buffer.read(collection, mark, end=1 << 60, max_bytes=1 << 30).rows
        for row in rows.select(["log_offset", "event_id"]).to_pylist():
            found[str(collection), row["log_offset"]] = row["event_id"]
    return found


@pytest.mark.crash
@pytest.mark.breaks("the log's writer, at each of its points")
@pytest.mark.parametrize("point", ["before_log", "after_log", "before_ack"])
def test_a_killed_writer_loses_no_acknowledged_event(tmp_path: Path, point: str) -> None:
    """F1 to F3: killed again and again, at the first, second and later groups."""
    folder = tmp_path / "log"
    acknowledged: dict[tuple[str, int], str] = {}
    marks: list[tuple[CollectionId, Mark]] = []
    reader = EmbeddedBuffer(folder)

    for life, nth in enumerate((1, 2, 5)):
        new = write_until_killed(folder, f"{point}:{nth}:kill", life * 1_000)
        assert not new.keys() & acknowledged.keys()
        acknowledged |= new
        for buffer in (reader, EmbeddedBuffer(folder)):
            held = everything(buffer)
            found(log=compare(acknowledged, held.items(), known=held.keys(), lane=lambda at: at[0]))
            assert len({(to, id_) for (to, _), id_ in held.items()}) == len(held)
            for collection in buffer.collections():
                offsets = [offset for to, offset in held if to == str(collection)]
                assert offsets == list(range(len(offsets)))
            for collection, mark in marks:
                buffer.read(collection, mark, end=0, max_bytes=1)
        for collection in reader.collections():
            start = start_of(reader.log_id(collection), 0)
            read = reader.read(collection, start, end=1 << 60, max_bytes=1 << 30)
            marks.append((collection, read.mark))

    assert acknowledged
    appender = EmbeddedAppender(folder)
    (position,) = appender.append(FLIGHTS, [event("after all")]).result(timeout=20)
    appender.close()
    assert everything(reader)["main.flights", position.offset] == "after all"


def make_log(folder: Path, *, groups: int, segment_bytes: int = 64 << 20) -> list[int]:
    """Write a log of small groups; answer the durable end of the file after each of them."""
    appender = EmbeddedAppender(folder, segment_bytes=segment_bytes)
    ends = []
    for number in range(groups):
        for to in (FLIGHTS, ORDERS):
            appender.append(to, [event(f"{number}"), event(f"{number}+")]).result(timeout=20)
            ends.append(sum(file.stat().st_size for file in (folder / "segments").iterdir()))
    appender.close()
    return ends


def copied(folder: Path, name: str = "copy") -> Path:
    copy = folder.parent / name
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(folder, copy))


def only_segment(folder: Path) -> Path:
    (segment,) = (folder / "segments").iterdir()
    return segment


LAST_GROUP = {("shop.orders", 2), ("shop.orders", 3)}


def torn_short(data: bytes, at: int) -> bytes:
    return data[:at]


def torn_to_zeros(data: bytes, at: int) -> bytes:
    return data[:at].ljust(len(data), b"\0")


@pytest.mark.breaks("the log's last group, at each of its bytes")
@pytest.mark.parametrize("torn", [torn_short, torn_to_zeros])
def test_a_torn_tail_costs_only_what_was_not_acknowledged(
    tmp_path: Path, torn: Callable[[bytes, int], bytes]
) -> None:
    """A power cut in the midst of the last group: at every byte of it."""
    folder = tmp_path / "log"
    ends = make_log(folder, groups=2)
    whole = everything(EmbeddedBuffer(folder))
    copy = copied(folder)
    (copy / "durable").unlink()
    segment = only_segment(copy)
    data = segment.read_bytes()

    told = {place: text for place, text in whole.items() if place not in LAST_GROUP}

    for at in range(ends[-2], ends[-1]):
        segment.write_bytes(torn(data, at))
        happened("torn tails")
        found(log=compare(told, everything(EmbeddedBuffer(copy, boot=NEXT_BOOT)).items()))

    appender = EmbeddedAppender(copy, boot=NEXT_BOOT)
    (position,) = appender.append(ORDERS, [event("new")]).result(timeout=20)
    appender.close()
    assert position.offset == 2
    again = EmbeddedBuffer(copy, boot=UUID(int=3))
    assert everything(again) == {**told, ("shop.orders", 2): "new"}


def test_a_torn_first_group_leaves_an_empty_log(tmp_path: Path) -> None:
    """The very first power cut: nothing was acknowledged yet."""
    folder = tmp_path / "log"
    ends = make_log(folder, groups=1)
    (folder / "durable").unlink()
    segment = only_segment(folder)
    data = segment.read_bytes()

    for at in range(ends[0]):
        segment.write_bytes(data[:at])
        assert everything(EmbeddedBuffer(folder, boot=NEXT_BOOT)) == {}
    appender = EmbeddedAppender(folder, boot=NEXT_BOOT)
    (position,) = appender.append(ORDERS, [event("new")]).result(timeout=20)
    appender.close()
    assert everything(EmbeddedBuffer(folder)) == {("shop.orders", position.offset): "new"}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_damage_below_the_durable_end_stops_the_writer(tmp_path: Path) -> None:
    """Every byte of the newest segment: cutting it there would drop acknowledged events."""
    folder = tmp_path / "log"
    make_log(folder, groups=2)
    segment = only_segment(folder)
    data = segment.read_bytes()

    for at in range(len(data)):
        segment.write_bytes(flipped(data, at))
        with pytest.raises(LogDamaged) as caught:
            EmbeddedAppender(folder)
        assert segment.name in str(caught.value)
    segment.write_bytes(data)
    EmbeddedAppender(folder).close()


def test_damage_is_seen_even_if_only_the_frames_tell(tmp_path: Path) -> None:
    """With nothing published, a later frame proves what was durable before it was written."""
    folder = tmp_path / "log"
    ends = make_log(folder, groups=3)
    (folder / "durable").unlink()
    segment = only_segment(folder)
    data = segment.read_bytes()
    # The last group has nobody behind it; the one before is proven by the last one's header.
    for at in range(ends[-2]):
        segment.write_bytes(flipped(data, at))
        with pytest.raises(LogDamaged):
            EmbeddedAppender(folder, boot=NEXT_BOOT)


def test_a_segment_that_lost_its_end_stops_the_writer(tmp_path: Path) -> None:
    """What was published is not there any more."""
    folder = tmp_path / "log"
    make_log(folder, groups=2)
    segment = only_segment(folder)
    segment.write_bytes(segment.read_bytes()[:-1])

    for boot in (None, NEXT_BOOT):
        with pytest.raises(LogDamaged):
            EmbeddedAppender(folder, boot=boot)
    segment.unlink()
    with pytest.raises(LogDamaged, match="no segment"):
        EmbeddedAppender(folder)


def test_an_identity_that_is_gone_stops_the_writer(tmp_path: Path) -> None:
    """A new one would make every mark wrong, or, with the old id, none."""
    folder = tmp_path / "log"
    make_log(folder, groups=1)
    (folder / "identity").write_bytes(b"{}")
    with pytest.raises(LogDamaged, match="does not say which log"):
        EmbeddedAppender(folder)
    (folder / "identity").unlink()
    with pytest.raises(LogDamaged, match="no identity"):
        EmbeddedAppender(folder)


@pytest.mark.parametrize("segment_bytes", [64 << 20, 300])
def test_damage_is_never_read_as_something_else(tmp_path: Path, segment_bytes: int) -> None:
    """Each byte of each segment, by a reader beside a writer that started before the damage."""
    folder = tmp_path / "log"
    make_log(folder, groups=3, segment_bytes=segment_bytes)
    whole = everything(EmbeddedBuffer(folder))
    loud = 0
    for segment in sorted((folder / "segments").iterdir()):
        data = segment.read_bytes()
        for at in range(len(data)):
            segment.write_bytes(flipped(data, at))
            with pytest.raises(LogDamaged):
                everything(EmbeddedBuffer(folder))
            loud += 1
        segment.write_bytes(data)

    assert loud > 800
    assert everything(EmbeddedBuffer(folder)) == whole


def test_damage_is_told_without_the_payload(tmp_path: Path) -> None:
    """Segment and address, for the operator; the payload is the sender's."""
    folder = tmp_path / "log"
    appender = EmbeddedAppender(folder)
    appender.append(FLIGHTS, [event("the secret")]).result(timeout=20)
    appender.close()
    segment = only_segment(folder)
    segment.write_bytes(segment.read_bytes().replace(b"secret", b"SECRET"))

    with pytest.raises(LogDamaged) as caught:
        everything(EmbeddedBuffer(folder))
    assert "secret" not in str(caught.value).lower()
    assert segment.name in str(caught.value)
    assert "address" in str(caught.value)


def test_a_segment_of_another_log_is_damage(tmp_path: Path) -> None:
    """Files of two homes in one folder, after a restore by hand."""
    make_log(tmp_path / "log", groups=1)
    make_log(tmp_path / "other", groups=1)
    shutil.copy(only_segment(tmp_path / "other"), only_segment(tmp_path / "log"))

    with pytest.raises(LogDamaged):
        EmbeddedAppender(tmp_path / "log")
    with pytest.raises(LogDamaged):
        everything(EmbeddedBuffer(tmp_path / "log"))


def test_a_segment_given_up_ends_where_the_next_begins(tmp_path: Path) -> None:
    """Whole frames stand behind that place, on the disk too: they were never acknowledged."""
    folder = tmp_path / "log"
    make_log(folder, groups=1)
    segment = only_segment(folder)
    end = segment.stat().st_size
    copy = copied(folder)
    appender = EmbeddedAppender(copy)
    appender.append(FLIGHTS, [event("never acknowledged")]).result(timeout=20)
    appender.close()
    behind = max((copy / "segments").iterdir()).read_bytes()

    appender = EmbeddedAppender(folder)
    appender.append(FLIGHTS, [event("acknowledged")]).result(timeout=20)
    with segment.open("ab") as file:
        file.write(behind)
    appender.append(FLIGHTS, [event("too")]).result(timeout=20)
    appender.close()

    assert segment.stat().st_size > end
    for boot in (None, NEXT_BOOT):
        found = everything(EmbeddedBuffer(folder, boot=boot))
        assert [found["main.flights", n] for n in range(4)] == ["0", "0+", "acknowledged", "too"]


def test_records_that_are_gone_are_not_skipped(tmp_path: Path) -> None:
    """I13: a mark whose records were deleted by hand stops the reader."""
    folder = tmp_path / "log"
    make_log(folder, groups=3, segment_bytes=1)
    buffer = EmbeddedBuffer(folder)
    mark = start_of(buffer.log_id(FLIGHTS), 0)
    min((folder / "segments").iterdir()).unlink()

    with pytest.raises(LogTruncated):
        buffer.read(FLIGHTS, mark, end=9, max_bytes=99)
