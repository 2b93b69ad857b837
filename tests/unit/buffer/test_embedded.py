"""What the embedded log does beyond the promises of every log."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from builders import FLIGHTS, event
from hypothesis import given, settings
from hypothesis import strategies as st
from power_disk import PowerDisk

from penstock.buffer import open_appender, open_buffer, start_of
from penstock.buffer.embedded import EmbeddedAppender, EmbeddedBuffer, uptime
from penstock.buffer.files import Disk, DiskFile, File
from penstock.buffer.index import Place, close_together
from penstock.envelope import CollectionId, Extent, Mark, Micros, Position
from penstock.errors import (
    BadSetting,
    LogChanged,
    LogDamaged,
    LogTruncated,
    LogUnavailable,
    Overloaded,
)
from penstock.faults import arm

ORDERS = CollectionId("shop", "orders")
QUARTER: Micros = 15 * 60_000_000
NEXT_BOOT = UUID(int=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "log"


@pytest.fixture
def opened() -> Iterator[Callable[..., EmbeddedAppender]]:
    """Open appenders that are closed when the test ends."""
    open_: list[EmbeddedAppender] = []

    def open_one(folder: Path, **given: object) -> EmbeddedAppender:
        open_.append(EmbeddedAppender(folder, **given))
        return open_[-1]

    yield open_one
    for appender in open_:
        appender.close()


def put(appender: EmbeddedAppender, *payloads: str, to: CollectionId = FLIGHTS) -> list[int]:
    answer = appender.append(to, [event(payload) for payload in payloads]).result(timeout=20)
    return [position.offset for position in answer if isinstance(position, Position)]


def texts(
    buffer: EmbeddedBuffer, of: CollectionId = FLIGHTS, mark: Mark | None = None
) -> list[str]:
    mark = mark or Mark(buffer.log_id(of), 0, buffer.extents(of)[0].start, "")
    rows = buffer.read(of, mark, end=1 << 60, max_bytes=1 << 30).rows
    return [payload.decode() for payload in rows.column("payload").to_pylist()]


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "segments").iterdir())


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# One writer, many lives


def test_a_second_writer_is_told_who_holds_the_log(folder: Path, opened: Callable) -> None:
    """Two writers would give one position to two events."""
    first = opened(folder)

    with pytest.raises(BadSetting, match=f"process {os.getpid()} writes the log"):
        EmbeddedAppender(folder)
    first.close()
    assert put(opened(folder), "a") == [0]


def test_a_log_is_opened_by_its_url(folder: Path) -> None:
    """The URL picks the adapter."""
    appender = open_appender(f"embedded://{folder}", max_waiting_bytes=1_000)
    appender.append(FLIGHTS, [event("a")]).result(timeout=20)
    appender.close()

    buffer = open_buffer(f"embedded://{folder}")
    assert buffer.extents(FLIGHTS) == {0: Extent(0, 1)}
    with pytest.raises(BadSetting, match="carrier-pigeon"):
        open_buffer("carrier-pigeon://")
    with pytest.raises(BadSetting, match="carrier-pigeon"):
        open_appender("carrier-pigeon://")


def test_payloads_are_readable_by_their_owner_only(folder: Path, opened: Callable) -> None:
    """They are the senders' secrets."""
    put(opened(folder), "a")

    assert folder.stat().st_mode & 0o077 == 0
    assert segments(folder)[0].stat().st_mode & 0o077 == 0


def test_offsets_go_on_after_a_restart(folder: Path, opened: Callable) -> None:
    """Each life of the writer goes on where the last one ended, under the same identity."""
    buffer = EmbeddedBuffer(folder)
    ids = set()
    marks = []
    for life in range(4):
        appender = opened(folder)
        assert put(appender, f"{life}a", f"{life}b") == [2 * life, 2 * life + 1]
        appender.close()
        ids.add(buffer.log_id(FLIGHTS))
        mark = marks[-1] if marks else start_of(buffer.log_id(FLIGHTS), 0)
        marks.append(buffer.read(FLIGHTS, mark, end=99, max_bytes=99).mark)

    assert len(ids) == 1
    assert texts(buffer) == [f"{life}{x}" for life in range(4) for x in "ab"]
    assert len({mark.fingerprint.split("-")[0] for mark in marks}) == 4
    for mark in marks:
        assert EmbeddedBuffer(folder).read(FLIGHTS, mark, end=0, max_bytes=1).mark == mark


def test_a_start_without_events_changes_nothing(folder: Path, opened: Callable) -> None:
    """A door that is restarted over and over leaves no trail of empty segments."""
    for _ in range(5):
        opened(folder).close()
    put(first := opened(folder), "a")
    first.close()
    for _ in range(5):
        opened(folder).close()

    assert len(segments(folder)) == 1
    assert texts(EmbeddedBuffer(folder)) == ["a"]


def test_a_collection_whose_records_are_all_gone_goes_on_counting(
    folder: Path, opened: Callable
) -> None:
    """Its offsets are known from the newest segment's head alone."""
    buffer = EmbeddedBuffer(folder)
    appender = opened(folder, segment_bytes=1)
    put(appender, "x", "y", to=ORDERS)
    mark = buffer.read(ORDERS, start_of(buffer.log_id(ORDERS), 0), end=9, max_bytes=99).mark
    put(appender, "a")
    buffer.release(ORDERS, [mark])
    appender.trim(0)
    assert appender.trim(QUARTER) == 1
    appender.close()

    for reader in (buffer, EmbeddedBuffer(folder), EmbeddedBuffer(folder, boot=NEXT_BOOT)):
        assert reader.extents(ORDERS) == {0: Extent(2, 2)}
        assert list(reader.collections()) == [FLIGHTS, ORDERS]
        assert reader.read(ORDERS, mark, end=9, max_bytes=9).mark == mark
        with pytest.raises(LogChanged):
            reader.read(ORDERS, Mark(mark.log_id, 0, 2, "1-00000000"), end=9, max_bytes=9)
    appender = opened(folder)
    assert put(appender, "z", to=ORDERS) == [2]
    assert texts(buffer, ORDERS, mark) == ["z"]


def test_trimming_goes_on_after_a_restart(folder: Path, opened: Callable) -> None:
    """What was cut down to its head before is neither read nor cut again."""
    buffer = EmbeddedBuffer(folder)
    appender = opened(folder, segment_bytes=1)
    put(appender, "x", to=ORDERS)
    for payload in "abc":
        put(appender, payload)
    buffer.release(
        FLIGHTS,
        [buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=2, max_bytes=9).mark],
    )
    appender.trim(0)
    assert appender.trim(QUARTER) == 2
    appender.close()
    sizes = [file.stat().st_size for file in segments(folder)]

    appender = opened(folder, segment_bytes=1)

    assert appender.trim(0) == 0
    assert appender.trim(QUARTER) == 0
    assert [file.stat().st_size for file in segments(folder)] == sizes
    assert buffer.extents(FLIGHTS) == EmbeddedBuffer(folder).extents(FLIGHTS) == {0: Extent(2, 3)}
    assert texts(buffer, ORDERS) == ["x"]


def test_segments_are_let_go_by_a_thread(folder: Path, opened: Callable) -> None:
    """Nobody calls `trim` in production."""
    now = 0

    def clock() -> Micros:
        nonlocal now
        now += QUARTER // 3
        return now

    appender = opened(folder, segment_bytes=1, clock=clock, trim_seconds=0.001)
    buffer = EmbeddedBuffer(folder)
    put(appender, "a")
    put(appender, "b")
    buffer.release(
        FLIGHTS,
        [buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=1, max_bytes=9).mark],
    )

    wait_for(lambda: buffer.extents(FLIGHTS) == {0: Extent(1, 2)})
    assert len(segments(folder)) == 1


# What waits


class HeldFile(DiskFile):
    """Syncs only while the gate is open."""

    def __init__(self, path: Path, flags: int, gate: threading.Event) -> None:
        super().__init__(path, flags)
        self.gate = gate

    def sync(self) -> None:
        assert self.gate.wait(20)
        super().sync()


class HeldDisk(Disk):
    """A disk that hangs while `gate` is cleared."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def create(self, path: Path) -> HeldFile:
        return HeldFile(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, self.gate)


def test_append_does_not_block_and_its_memory_is_bounded(folder: Path, opened: Callable) -> None:
    """A slow disk must become 503 for the senders, not a full memory."""
    disk = HeldDisk()
    appender = opened(folder, files=disk, max_waiting_bytes=100_000)
    disk.gate.clear()
    futures = [appender.append(FLIGHTS, [event("x" * 1_000)]) for _ in range(200)]

    refused = [f for f in futures if f.done()]
    assert 100 < len(refused) < 150
    assert all(isinstance(f.exception(), Overloaded) for f in refused)
    disk.gate.set()
    accepted = [f.result(timeout=20) for f in futures if f not in refused]
    assert accepted == [[Position(0, n)] for n in range(200 - len(refused))]
    wait_for(lambda: appender._waiting == 0)
    assert put(appender, "again") == [200 - len(refused)]


def test_headers_count_as_waiting(folder: Path, opened: Callable) -> None:
    """A sender must not get round the bound with large headers and small payloads."""
    disk = HeldDisk()
    appender = opened(folder, files=disk, max_waiting_bytes=100_000)
    disk.gate.clear()
    appender.append(FLIGHTS, [event("a")])
    large = event(
        "b", headers=(("h", b"x" * 40_000),), metadata={"m": "x" * 40_000}, key=b"k" * 30_000
    )

    refused = appender.append(FLIGHTS, [large])
    disk.gate.set()

    assert isinstance(refused.exception(timeout=20), Overloaded)


def test_a_call_larger_than_the_bound_gets_through_alone(folder: Path, opened: Callable) -> None:
    """Trying again must be able to help."""
    appender = opened(folder, max_waiting_bytes=1_000)

    assert put(appender, "x" * 5_000) == [0]


def test_a_call_cancelled_in_time_is_not_written(folder: Path, opened: Callable) -> None:
    """A client that went away; its future must not stop the thread that answers the others."""
    disk = HeldDisk()
    appender = opened(folder, files=disk)
    put(appender, "a")
    disk.gate.clear()
    first = appender.append(FLIGHTS, [event("b")])
    wait_for(first.running)
    futures = [appender.append(FLIGHTS, [event(text)]) for text in "cd"]
    assert futures[0].cancel()
    assert not first.cancel()
    disk.gate.set()

    assert futures[1].result(timeout=20) == [Position(0, 2)]
    assert texts(EmbeddedBuffer(folder)) == ["a", "b", "d"]


def test_close_makes_durable_what_waits(folder: Path) -> None:
    """A door that ends has promised nothing yet, but drops nothing it took."""
    appender = EmbeddedAppender(folder)
    futures = [appender.append(FLIGHTS, [event(str(n))]) for n in range(500)]
    appender.close()
    appender.close()

    assert [f.result(timeout=0) for f in futures] == [[Position(0, n)] for n in range(500)]
    assert len(texts(EmbeddedBuffer(folder))) == 500


def test_an_event_loop_waits_for_positions(folder: Path, opened: Callable) -> None:
    """The door is asyncio; the log is threads."""
    appender = opened(folder)

    async def send(number: int) -> object:
        return await asyncio.wrap_future(appender.append(FLIGHTS, [event(str(number))]))

    async def send_all() -> list[object]:
        return await asyncio.gather(*(send(number) for number in range(300)))

    assert asyncio.run(send_all()) == [[Position(0, n)] for n in range(300)]


def read_until(done: threading.Event, buffer: EmbeddedBuffer) -> int:
    """Read on while others write, and answer how far it came."""
    mark = start_of(buffer.log_id(FLIGHTS), 0)
    while not done.is_set() or mark.next < buffer.extents(FLIGHTS)[0].end:
        portion = buffer.read(FLIGHTS, mark, end=1 << 60, max_bytes=3_000)
        offsets = portion.rows.column("log_offset").to_pylist()
        assert offsets == list(range(mark.next, portion.mark.next))
        mark = portion.mark
    return mark.next


def test_threads_may_append_and_read_at_once(folder: Path, opened: Callable) -> None:
    """Door workers, searches and landing share one process in `penstock up`."""
    appender = opened(folder, segment_bytes=20_000)
    buffer = EmbeddedBuffer(folder)
    done = threading.Event()

    def write(writer: int) -> None:
        for number in range(100):
            put(appender, f"{writer} {number}" + "x" * 100)

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read_until, done, buffer) for _ in range(3)]
        list(pool.map(write, range(3)))
        done.set()
        assert [reader.result(timeout=20) for reader in readers] == [300] * 3

    found = [text.rstrip("x").split() for text in texts(buffer)]
    for writer in "012":
        mine = [number for name, number in found if name == writer]
        assert mine == [str(number) for number in range(100)]


# A disk that fails


def broken(folder: Path) -> PowerDisk:
    folder.parent.mkdir(parents=True)
    return PowerDisk(folder.parent, Random(0))


def test_a_failed_sync_acknowledges_nothing(folder: Path, opened: Callable) -> None:
    """After EIO nobody knows what is on the disk: give the segment up, begin a new life."""
    disk = broken(folder)
    appender = opened(folder, files=disk)
    buffer = EmbeddedBuffer(folder)
    put(appender, "a")
    before = buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=9, max_bytes=9).mark
    # The write is one step, the sync the next.
    disk.fail_in(2, errno.EIO)
    futures = [appender.append(FLIGHTS, [event(text)]) for text in ("lost", "lost too")]

    failures = [future.exception(timeout=20) for future in futures]

    assert any(isinstance(failure, LogUnavailable) for failure in failures)
    wait_for(lambda: appender._waiting == 0)
    seen = texts(buffer)
    assert "lost" not in seen
    put(appender, "b")
    assert len(segments(folder)) == 2
    assert texts(buffer, mark=before)[-1] == "b"
    after = buffer.read(FLIGHTS, before, end=9, max_bytes=9).mark
    assert int(after.fingerprint.split("-")[0]) > int(before.fingerprint.split("-")[0])


@pytest.mark.parametrize("step", range(1, 13))
def test_a_full_disk_recovers_by_itself(folder: Path, opened: Callable, step: int) -> None:
    """F30: no acknowledgement while there is no space, and none is needed to come back."""
    disk = broken(folder)
    appender = opened(folder, files=disk)
    buffer = EmbeddedBuffer(folder)
    put(appender, "a")
    disk.fail_in(step, errno.ENOSPC, times=20)
    kept = ["a"]
    for number in range(20):
        try:
            put(appender, str(number))
            kept.append(str(number))
        except LogUnavailable as error:
            assert isinstance(error.__cause__, OSError)  # noqa: PT017 - both outcomes are right

    assert len(kept) < 21
    disk.forgive()
    put(appender, "b")
    found = texts(buffer)
    assert [text for text in found if text in {*kept, "b"}] == [*kept, "b"]
    assert len(set(found)) == len(found)
    assert len(segments(folder)) <= 4


@pytest.mark.parametrize("step", range(1, 14))
def test_a_log_that_cannot_be_opened_is_tried_again(folder: Path, step: int) -> None:
    """A door that starts on a full disk ends with a sentence, and starts well later."""
    disk = broken(folder)
    disk.fail_in(step, errno.ENOSPC)
    try:
        first = EmbeddedAppender(folder, files=disk)
    except LogUnavailable as error:
        assert "refused by the test" in str(error)  # noqa: PT017 - there are fewer steps than 13
    else:
        first.close()

    appender = EmbeddedAppender(folder, files=disk)
    assert put(appender, "a") == [0]
    appender.close()
    assert texts(EmbeddedBuffer(folder)) == ["a"]


def test_nothing_becomes_of_bytes_whose_sync_failed(folder: Path, opened: Callable) -> None:
    """They are still in memory and a next sync would succeed: a restart must not believe it."""
    disk = broken(folder)
    appender = opened(folder, files=disk)
    put(appender, "a")
    # After the write: the sync, and cutting off what it left.
    disk.fail_in(2, errno.EIO, times=2)
    lost = appender.append(FLIGHTS, [event("lost")])
    assert isinstance(lost.exception(timeout=20), LogUnavailable)
    assert "lost" in segments(folder)[0].read_bytes().decode("latin-1")
    appender.close()
    disk.forgive()

    assert texts(EmbeddedBuffer(folder)) == ["a"]
    appender = opened(folder, files=disk)
    assert put(appender, "b") == [1]
    assert texts(EmbeddedBuffer(folder)) == ["a", "b"]


def test_an_acknowledgement_that_fails_late_repeats_no_position(
    folder: Path, opened: Callable
) -> None:
    """The events are durable, but nobody was told: the sender repeats them."""
    appender = opened(folder)
    put(appender, "a")
    arm("before_ack:1:raise")
    try:
        late = appender.append(FLIGHTS, [event("b")]).exception(timeout=20)
    finally:
        arm(None)

    assert isinstance(late, LogUnavailable)
    assert put(appender, "b again") == [2]
    assert texts(EmbeddedBuffer(folder)) == ["a", "b", "b again"]


# Readers


def test_a_reader_may_start_before_the_log_exists(folder: Path, opened: Callable) -> None:
    """`penstock up` starts everything at once."""
    buffer = EmbeddedBuffer(folder)
    assert list(buffer.collections()) == []
    assert buffer.extents(FLIGHTS) == {0: Extent(0, 0)}
    with pytest.raises(LogUnavailable, match="no door has started"):
        _ = buffer.log_id(FLIGHTS)
    with pytest.raises(LogChanged):
        buffer.read(FLIGHTS, start_of("of a log that is gone", 0), end=9, max_bytes=9)

    appender = opened(folder)
    assert list(buffer.collections()) == []
    put(appender, "a")

    assert list(buffer.collections()) == [FLIGHTS]
    assert texts(buffer) == ["a"]


def test_a_reader_needs_no_writer(folder: Path, opened: Callable) -> None:
    """Landing goes on while the door is down."""
    put(first := opened(folder), "a", "b")
    first.close()

    assert texts(EmbeddedBuffer(folder)) == ["a", "b"]


READER = """
import sys
from penstock.buffer import start_of
from penstock.buffer.embedded import EmbeddedBuffer
from penstock.envelope import CollectionId

flights = CollectionId("main", "flights")
buffer = EmbeddedBuffer(sys.argv[1])
while not buffer.collections():
    pass
print("ready", flush=True)
mark = start_of(buffer.log_id(flights), 0)
for line in sys.stdin:
    acknowledged = int(line)
    end = buffer.extents(flights)[0].end
    assert end >= acknowledged, (end, acknowledged)
    while mark.next < end:
        portion = buffer.read(flights, mark, end=end, max_bytes=5_000)
        for row in portion.rows.select(["log_offset", "payload"]).to_pylist():
            assert row["payload"].startswith(b"%d " % row["log_offset"]), row
        mark = portion.mark
    print(mark.next, flush=True)
"""


def test_another_process_reads_while_this_one_writes(folder: Path, opened: Callable) -> None:
    """An acknowledged event is in the other process's extents, and its bytes are right."""
    appender = opened(folder, segment_bytes=100_000)
    put(appender, "0 ")
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin
        assert reader.stdout
        assert reader.stdout.readline() == "ready\n"
        sent = 1
        for _ in range(200):
            (last,) = put(appender, f"{sent} " + "x" * (sent * 31 % 3_000))
            sent += 1
            reader.stdin.write(f"{last + 1}\n")
            reader.stdin.flush()
            assert int(reader.stdout.readline()) >= last + 1
        reader.stdin.close()
        assert reader.wait(20) == 0


def test_a_log_put_in_the_place_of_another_is_noticed(
    folder: Path, tmp_path: Path, opened: Callable
) -> None:
    """A reader that lives on while the folder is replaced must not mix the two."""
    put(first := opened(folder), "a", "b")
    first.close()
    buffer = EmbeddedBuffer(folder)
    mark = buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=1, max_bytes=9).mark
    shutil.rmtree(folder)
    put(opened(folder), "c", "d", "e")

    with pytest.raises(LogChanged):
        buffer.read(FLIGHTS, mark, end=9, max_bytes=9)
    assert texts(buffer) == ["c", "d", "e"]


@pytest.mark.parametrize("looks", [True, False])
def test_a_restored_backup_is_noticed(folder: Path, opened: Callable, looks: bool) -> None:
    """The same id and the same offsets, other records: only the fingerprint can tell.

    A reader that lives on may look between the restore and the next event, or not.
    """
    put(first := opened(folder), "a")
    first.close()
    backup = folder.parent / "backup"
    shutil.copytree(folder, backup)
    put(second := opened(folder), "b", "c")
    second.close()
    buffer = EmbeddedBuffer(folder)
    marks = [
        buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=end, max_bytes=9).mark
        for end in (1, 2, 3)
    ]
    shutil.rmtree(folder)
    backup.rename(folder)

    if looks:
        with pytest.raises(LogChanged, match="ahead of the log"):
            buffer.read(FLIGHTS, marks[1], end=9, max_bytes=9)
    put(opened(folder), "x", "y", "z")

    for reader in (buffer, EmbeddedBuffer(folder)):
        for mark in marks[1:]:
            with pytest.raises(LogChanged, match="another record"):
                reader.read(FLIGHTS, mark, end=9, max_bytes=9)
        assert texts(reader, mark=marks[0]) == ["x", "y", "z"]


def test_a_copy_on_another_machine_is_whole(folder: Path, opened: Callable) -> None:
    """There, what was published here is a minimum only."""
    appender = opened(folder, segment_bytes=2_000)
    for number in range(20):
        put(appender, f"{number:03}" + "x" * 200)
        shutil.rmtree(copy := folder.parent / "copy", ignore_errors=True)
        shutil.copytree(folder, copy)
        if number % 3 == 0:
            (copy / "durable").unlink()
        reader = EmbeddedBuffer(copy, boot=NEXT_BOOT)
        assert len(texts(reader)) == number + 1
        restarted = EmbeddedAppender(copy, boot=NEXT_BOOT)
        assert put(restarted, "next") == [number + 1]
        restarted.close()
        assert len(texts(reader)) == number + 2


def copy_files(folder: Path, copy: Path, *, durable: int) -> None:
    """Copy a folder as a backup tool does: one file after the other, `durable` as that one.

    As the first it is copied before the segments are listed: whoever lists them and then copies
    it may hold a mark past the last segment in the list, and gets a loud copy.
    """
    (copy / "segments").mkdir(parents=True)

    def copy_file(file: Path) -> None:
        shutil.copy(file, copy / file.relative_to(folder))

    if durable == 0:
        copy_file(folder / "durable")
    files = [folder / "identity", *segments(folder)]
    if durable != 0:
        files.insert(durable % (len(files) + 1), folder / "durable")
    for file in files:
        copy_file(file)


@pytest.mark.parametrize("boot", [None, NEXT_BOOT])
@pytest.mark.parametrize("durable", [0, 1, -1])
def test_a_copy_made_while_the_writer_runs_is_whole_or_loud(
    folder: Path, opened: Callable, durable: int, boot: UUID | None
) -> None:
    """Whoever copies a home need not stop it, but must never get one with a hole."""
    appender = opened(folder, segment_bytes=20_000)
    stop = threading.Event()
    acknowledged = put(appender, "0")

    def append() -> None:
        while not stop.is_set():
            acknowledged.extend(put(appender, str(len(acknowledged)) + " " * 1_000))

    with ThreadPoolExecutor(1) as pool:
        appending = pool.submit(append)
        whole = 0
        for turn in range(20):
            wait_for(lambda: len(acknowledged) > turn * 10)  # noqa: B023 - waited for at once
            before = len(acknowledged)
            copy_files(folder, copy := folder.parent / f"copy{turn}", durable=durable)
            try:
                EmbeddedAppender(copy, boot=boot).close()
            except LogDamaged:
                continue
            found = [int(text) for text in texts(EmbeddedBuffer(copy, boot=boot))]
            assert found == list(range(len(found)))
            assert len(found) >= before
            whole += 1
        stop.set()
        appending.result()

    assert whole == 20 or durable != 0


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda file: file.unlink(), id="lost"),
        pytest.param(lambda file: file.write_bytes(b""), id="empty"),
        pytest.param(lambda file: file.write_bytes(b"\xff" * 1024), id="rubbish"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:512] * 2), id="one slot"),
    ],
)
def test_the_published_end_is_right_in_any_state(
    folder: Path, opened: Callable, spoil: Callable[[Path], None]
) -> None:
    """It is not synced, so a power cut leaves of it what it likes."""
    for life in range(2):
        put(appender := opened(folder), f"{life}a")
        put(appender, f"{life}b")
        appender.close()
    spoil(folder / "durable")

    reader = EmbeddedBuffer(folder, boot=NEXT_BOOT)
    assert texts(reader) == ["0a", "0b", "1a", "1b"]
    put(opened(folder, boot=NEXT_BOOT), "2a")
    assert texts(reader) == ["0a", "0b", "1a", "1b", "2a"]


class Interrupted(EmbeddedBuffer):
    """A reader to whom something happens just after its first look at what is published."""

    def __init__(self, folder: Path, meanwhile: Callable[[], object], *, boot: UUID) -> None:
        super().__init__(folder, boot=boot)
        self.meanwhile: Callable[[], object] | None = meanwhile

    def _look(self) -> tuple[bytes, tuple[int, int]]:
        seen = super()._look()
        if self.meanwhile:
            act, self.meanwhile = self.meanwhile, None
            act()
        return seen


def test_a_reader_that_looks_while_a_writer_starts_sees_nothing_unsynced(
    folder: Path, opened: Callable
) -> None:
    """After a power cut it reads the disk itself, but not what is being written just then."""
    put(first := opened(folder), "a")
    first.close()
    disk = HeldDisk()

    def start_and_write() -> None:
        second = opened(folder, files=disk, boot=NEXT_BOOT)
        disk.gate.clear()
        second.append(FLIGHTS, [event("not durable")])
        wait_for(lambda: any(b"not durable" in file.read_bytes() for file in segments(folder)))

    reader = Interrupted(folder, start_and_write, boot=NEXT_BOOT)
    try:
        assert reader.extents(FLIGHTS) == {0: Extent(0, 1)}
    finally:
        disk.gate.set()
    wait_for(lambda: texts(reader) == ["a", "not durable"])


def test_a_reader_crosses_many_segments(folder: Path, opened: Callable) -> None:
    """More than it keeps in mind, with frames of others in between, from any mark."""
    appender = opened(folder, segment_bytes=600)
    sent: list[str] = []
    for number in range(60):
        put(appender, f"{number}", f"{number}+")
        sent += [f"{number}", f"{number}+"]
        if number % 3 == 0:
            put(appender, "x" * 70_000, to=ORDERS)
    assert len(segments(folder)) > 20
    buffer = EmbeddedBuffer(folder)
    whole = texts(buffer)
    marks = [
        buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=end, max_bytes=1 << 30).mark
        for end in range(121)
    ]

    assert whole == sent
    for reader in (buffer, EmbeddedBuffer(folder)):
        for end in (120, 0, 77, 3, 119, 40, 1):
            assert texts(reader, mark=marks[end]) == sent[end:]
    assert buffer.extents(ORDERS) == {0: Extent(0, 20)}


def test_frames_among_many_others_are_read_in_bounded_pieces(
    folder: Path, opened: Callable
) -> None:
    """Hundreds of collections share the segments; reading one must not hold all the others."""
    appender = opened(folder)
    others = [CollectionId("other", f"c{number}") for number in range(8)]
    futures = []
    for number in range(400):
        futures.append(appender.append(FLIGHTS, [event(f"{number}")]))
        futures += [appender.append(other, [event("x" * 900)]) for other in others]
        futures[-1].result(timeout=20)
    for future in futures:
        future.result(timeout=20)
    buffer = EmbeddedBuffer(folder)

    assert texts(buffer) == [str(number) for number in range(400)]
    for other in others:
        assert texts(buffer, other) == ["x" * 900] * 400


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 400_000)), min_size=1))
def test_reads_cover_all_frames_once(gaps_and_sizes: list[tuple[int, int]]) -> None:
    """Whatever lies between, and however large they are."""
    places, at = [], 0
    for gap, size in gaps_and_sizes:
        places.append(Place(at + gap, size))
        at += gap + size

    rows = list(close_together(places))

    assert [place for row in rows for place in row] == places
    for row in rows:
        assert len(row) == 1 or row[-1].address + row[-1].size - row[0].address <= 1 << 20
        for before, place in pairwise(row):
            assert place.address - before.address - before.size <= 16 << 10


def test_large_portions_take_many_reads(folder: Path, opened: Callable) -> None:
    """Frames of several megabytes in all, with a bound in the midst."""
    appender = opened(folder, segment_bytes=3 << 20)
    for number in range(12):
        put(appender, *(f"{number} {n} " + "x" * 100_000 for n in range(10)))
    buffer = EmbeddedBuffer(folder)

    first = buffer.read(FLIGHTS, start_of(buffer.log_id(FLIGHTS), 0), end=115, max_bytes=9_000_000)
    rest = buffer.read(FLIGHTS, first.mark, end=115, max_bytes=1 << 30)

    assert first.mark.next == 90
    assert rest.rows.column("log_offset").to_pylist() == list(range(90, 115))


def test_retention_follows_no_clock_that_can_be_set() -> None:
    """Set forward by an hour, it would let go of what a search still needs."""
    before = time.monotonic_ns() // 1_000

    assert before <= uptime() <= time.monotonic_ns() // 1_000


class SlowDisk(Disk):
    """A disk on which letting go of a file takes its time, as it does when it is busy."""

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        time.sleep(0.0005)


def test_readers_go_on_while_segments_are_let_go(folder: Path, opened: Callable) -> None:
    """Landing would stop for a person, and nothing is wrong."""
    appender = opened(folder, segment_bytes=1, files=SlowDisk())
    for number in range(400):
        put(appender, str(number))
    whole = EmbeddedBuffer(folder)
    mark = whole.read(FLIGHTS, start_of(whole.log_id(FLIGHTS), 0), end=390, max_bytes=1 << 20).mark
    whole.release(FLIGHTS, [mark])
    appender.trim(0)

    def read_until_the_end() -> int:
        """Read as a process that has just started does."""
        looks = 0
        while not trimming.done():
            found = [int(text) for text in texts_or_none(folder)]
            assert found == list(range(400 - len(found), 400))
            looks += 1
        return looks

    with ThreadPoolExecutor(3) as pool:
        trimming = pool.submit(appender.trim, QUARTER)
        readers = [pool.submit(read_until_the_end) for _ in range(2)]
        assert trimming.result() >= 380
        assert sum(reader.result() for reader in readers) > 0


def texts_or_none(folder: Path) -> list[str]:
    """Read all; none where the oldest records went between the look at them and the read."""
    try:
        return texts(EmbeddedBuffer(folder))
    except LogTruncated:
        return []


def test_a_missing_segment_is_loud(folder: Path, opened: Callable) -> None:
    """Somebody tidied up by hand."""
    appender = opened(folder, segment_bytes=1)
    for payload in "abcd":
        put(appender, payload)
    buffer = EmbeddedBuffer(folder)
    mark = start_of(buffer.log_id(FLIGHTS), 0)
    segments(folder)[1].unlink()

    for reader in (buffer, EmbeddedBuffer(folder)):
        with pytest.raises(LogDamaged):
            reader.read(FLIGHTS, mark, end=9, max_bytes=99)
    segments(folder)[0].unlink()
    with pytest.raises(LogTruncated):
        EmbeddedBuffer(folder).read(FLIGHTS, mark, end=9, max_bytes=99)


def test_an_identity_that_names_no_log_is_damage(folder: Path, opened: Callable) -> None:
    """Better no log than one whose name nobody can compare."""
    opened(folder).close()
    (folder / "identity").write_text('{"log_id":"a","incarnation":1}')

    with pytest.raises(LogDamaged, match="does not say which log"):
        EmbeddedBuffer(folder).collections()


def test_no_file_stays_open(folder: Path) -> None:
    """A platform process opens and closes logs for as long as it lives."""
    fds = Path("/proc/self/fd")

    def live() -> None:
        appender = EmbeddedAppender(folder, segment_bytes=1)
        for payload in "abc":
            put(appender, payload)
        buffer = EmbeddedBuffer(folder)
        texts(buffer)
        buffer.close()
        with pytest.raises(BadSetting):
            EmbeddedAppender(folder)
        appender.close()

    live()
    before = len(list(fds.iterdir()))
    live()
    assert len(list(fds.iterdir())) == before


def test_files_are_a_file_layer(folder: Path) -> None:
    """The disk of the operating system keeps what the writer's steps say."""
    folder.mkdir(parents=True)
    disk = Disk()
    file: File = disk.create(folder / "a")
    file.append([b"x" * 3, b"", b"y" * 5, *([b"z"] * 3_000)])
    file.write_at(b"AB", 1)
    file.truncate(10)
    file.sync()
    file.close()
    disk.rename(folder / "a", folder / "b")
    disk.sync_folder(folder)

    assert (folder / "b").read_bytes() == b"xAByyyyyzz"
    with pytest.raises(FileExistsError):
        disk.create(folder / "b")
    disk.unlink(folder / "b")
    assert list(folder.iterdir()) == []


FIRST_LOG = {
    "identity": b'{"log_id":"00000000-0000-0000-0000-000000000007","incarnation":1}',
    "segments/00000000000000000000.log": bytes.fromhex(
        "507346310e5ae0d801000000ad6cba3f000000000000000000000000000000000000000000000000010000000000"
        "000000008050734631e3ed3ad5410000009c0ab57133000000000000000000000000000000000000000000000001"
        "00000002000000010c6d61696e2e666c696768747301020000002a0000009992a161a162cf0006445941624000a4"
        "68747470b06170706c69636174696f6e2f6a736f6ec0c0c0c0c00000000001000000020000006162"
    ),
    "segments/00000000000000000178.log": bytes.fromhex(
        "507346319b628aac160000007f7884d3b200000000000000b2000000000000000000000000000000010000000000"
        "0000000081ac6d61696e2e666c6967687473930201ced53aede3507346313ebaadab3a000000b529ecc2fa000000"
        "00000000b20000000000000002000000000000000100000001000000010c6d61696e2e666c696768747301010000"
        "00280000009991a163cf0006445941624000a468747470b06170706c69636174696f6e2f6a736f6ec0c0c0c0c000"
        "0000000100000063"
    ),
}


def test_a_log_of_the_first_release_is_readable(folder: Path, opened: Callable) -> None:
    """What is on disk outlives the release that wrote it; these bytes must never change."""
    (folder / "segments").mkdir(parents=True)
    for name, content in FIRST_LOG.items():
        (folder / name).write_bytes(content)
    buffer = EmbeddedBuffer(folder)

    assert texts(buffer) == ["a", "b", "c"]
    mark = Mark(buffer.log_id(FLIGHTS), 0, 3, "1-abadba3e")
    assert buffer.read(FLIGHTS, mark, end=9, max_bytes=9).mark == mark
    assert put(opened(folder), "d") == [3]
    assert texts(buffer, mark=mark) == ["d"]
