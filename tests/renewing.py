"""A lake and an embedded log that is broken, renewed and looked at, for the tests of renewals."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import UUID

from balance import compare
from builders import FLIGHTS, NOON, event
from evidence.sheet import found
from lakes import MAIN, QUARANTINE, begin_process, landing, new_lake

from assets.accounting import read_books
from assets.checks import check_books, check_conservation, check_marks
from assets.renew import prepare, renew
from assets.resolve import find_stop
from lakehouse import Lake
from penstock.buffer.embedded import EmbeddedAppender
from penstock.buffer.files import Disk, Files
from penstock.buffer.reader import EmbeddedBuffer
from penstock.buffer.renewal import Intent, held
from penstock.buffer.segments import list_bases, segment_path
from penstock.envelope import CollectionId, Event

QUARANTINED = {3, 7, 11}
"""Of these the payload cannot be read."""


def made(number: int) -> Event:
    """Answer the event of a number; no two are alike."""
    payload = f'{{"n": {number}' + ("" if number in QUARANTINED else "}")
    return event(payload, id=f"e{number}", received_at=NOON + number * 1_000)


def accept(
    folder: Path,
    numbers: Iterable[int],
    *,
    together: int = 2,
    segment_bytes: int = 64 << 20,
    collection: CollectionId = FLIGHTS,
) -> None:
    """Let a door take the events, so many in a frame, and end."""
    appender = EmbeddedAppender(folder / "log", segment_bytes=segment_bytes)
    left = list(numbers)
    while left:
        appender.append(collection, [made(number) for number in left[:together]]).result(10)
        left = left[together:]
    appender.close()


def land(folder: Path, lake: Lake, collection: CollectionId = FLIGHTS) -> None:
    """Land all that waits."""
    work = landing(EmbeddedBuffer(folder / "log"), lake)
    while work.land_once(collection):
        pass


def turn_byte(folder: Path, number: int) -> None:
    """Let the disk give back another byte in the payload of an event."""
    wanted = made(number).payload
    for base in list_bases(folder / "log"):
        path = segment_path(folder / "log", base)
        data = path.read_bytes()
        if (at := data.find(wanted)) >= 0:
            path.write_bytes(data[:at] + b"X" + data[at + 1 :])
            return
    raise AssertionError("the log has no such event")


def put_back(folder: Path, copy: Path) -> None:
    """Put a copy of the log in its place."""
    shutil.rmtree(folder / "log")
    shutil.copytree(copy, folder / "log")


def renewed(folder: Path, lake: Lake, *, files: Files | None = None, new: int = 7) -> Intent:
    """Renew the log, as the command does."""
    with held(folder / "log"):
        return renew(
            files or Disk(),
            lake,
            prepare(folder / "log", lake),
            by="somebody",
            why="a test",
            new_id=UUID(int=new),
            now=NOON + new,
            done=lambda _: None,
        )


def renew_in_process(folder: Path, fault: str | None) -> None:
    """Renew the log in a process of its own; `fault` may break it."""
    begin_process(fault)
    renewed(folder, new_lake(folder))


def each_once(lake: Lake, numbers: Iterable[int]) -> None:
    """Assert that these events are in the tables, each once, with its payload and time."""
    held = []
    for name in (MAIN, QUARANTINE):
        table = lake.table(name)
        rows = table.scan(selected_fields=("event_id", "payload", "received_at")) if table else None
        for row in rows.to_arrow().to_pylist() if rows else ():
            at = round(row["received_at"].timestamp() * 1_000_000)
            held.append((row["event_id"], (row["payload"], at)))
    wanted = {one.id: (one.payload, one.received_at) for one in map(made, numbers)}
    found(tables=compare(wanted, held))


def sound(folder: Path, lake: Lake, *, lost: int = 0) -> None:
    """Assert that landing goes on and that the books add up, with so many lost."""
    log = EmbeddedBuffer(folder / "log")
    assert find_stop(log, lake, FLIGHTS) is None
    for verdict in (
        check_books(log, lake, FLIGHTS, NOON, None),
        check_conservation(lake, FLIGHTS, log.log_id(FLIGHTS)),
        check_marks(log, lake, FLIGHTS),
    ):
        assert verdict.passed, verdict.sentence
    books = read_books(log, lake, FLIGHTS)
    assert books.parts["lost"] == lost


def settled(folder: Path, lake: Lake, numbers: Sequence[int], *, lost: int = 0) -> None:
    """Assert that after a landing, and one of an event more, everything is as it should be."""
    land(folder, lake)
    each_once(lake, numbers)
    sound(folder, lake, lost=lost)
    accept(folder, [99])
    land(folder, lake)
    each_once(lake, [*numbers, 99])
    sound(folder, lake, lost=lost)
