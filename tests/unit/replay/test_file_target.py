"""What the target of a file keeps beyond the promise of every target."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from builders import FLIGHTS, event

from penstock.envelope import Position
from replay.files import lines_of, written
from replay.targets import ADDED, Delivered, Failed, Message, Outcome, Retry
from replay.targets.file import FileTarget, free_bytes
from replay.targets.places import FileOptions, FilePlace


def target(files: Path, *, free=lambda _: 1 << 40, headers="add") -> FileTarget:
    return FileTarget(
        FilePlace("orders"),
        FileOptions(),
        files,
        team="main",
        replay_id="r1",
        collection=FLIGHTS,
        headers=headers,
        free=free,
    )


def messages(*offsets: int) -> list[Message]:
    return [Message(event(b"%d" % n, id=f"e{n}"), Position(0, n), 1) for n in offsets]


def send(one: FileTarget, *sends: Sequence[Message]) -> list[Sequence[Outcome]]:
    async def main() -> list[Sequence[Outcome]]:
        try:
            return list(await asyncio.gather(*(one.send(each) for each in sends)))
        finally:
            await one.close()

    return asyncio.run(main())


def payloads(files: Path) -> list[int]:
    return [msgspec.json.decode(line)["payload"] for line in lines_of(files / "r1")]


def test_a_full_disk_is_a_retry_that_says_so(tmp_path: Path) -> None:
    """So the replay pauses with that as its reason, and goes on when there is space."""
    room = [0]
    one = target(tmp_path, free=lambda _: room[0])

    said = "there is no space left for the file"
    assert send(one, messages(1, 2)) == [[Retry(said), Retry(said)]]
    assert not (tmp_path / "r1").exists()
    room[0] = 1 << 30
    assert send(one, messages(1, 2)) == [[Delivered(None)] * 2]
    assert payloads(tmp_path) == [1, 2]


def test_a_write_that_broke_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line in the middle of a segment would hide what is behind it."""
    one = target(tmp_path)
    write, halves = os.write, iter([True, False])

    def breaking(file: int, content) -> int:
        if next(halves, False):
            return write(file, bytes(content)[:10])
        raise OSError(errno.ENOSPC, "full")

    async def main() -> list[Sequence[Outcome]]:
        found = [await one.send(messages(1))]
        monkeypatch.setattr("replay.files.os.write", breaking)
        found += [await one.send(messages(2, 3)) for _ in range(2)]
        monkeypatch.undo()
        found += [await one.send(messages(2, 3))]
        await one.close()
        return found

    outcomes = asyncio.run(main())

    assert [type(those[0]) for those in outcomes] == [Delivered, Retry, Retry, Delivered]
    assert payloads(tmp_path) == [1, 2, 3]


def test_nothing_overtakes_what_has_to_be_written_again(tmp_path: Path) -> None:
    room = iter([0, 1 << 30, 1 << 30])
    one = target(tmp_path, free=lambda _: next(room))

    first, second = send(one, messages(1), messages(2))

    assert [type(first[0]), type(second[0])] == [Retry, Retry]
    assert second[0].reason == "the events before it were not written"


def test_headers_are_those_of_the_event_and_the_replay(tmp_path: Path) -> None:
    one = Message(event(b"1", headers=(("x", b"\xff"), ("x", b"y"))), Position(0, 1), 2)
    send(target(tmp_path / "add"), [one])
    send(target(tmp_path / "as", headers="verbatim"), [one])

    def told(files: Path) -> list:
        return [msgspec.json.decode(line)["headers"] for line in lines_of(files / "r1")]

    own = [["x", {"base64": "/w=="}], ["x", "y"]]
    [added] = told(tmp_path / "add")
    assert (added[:2], [name for name, _ in added[2:]]) == (own, list(ADDED))
    assert told(tmp_path / "as") == [own]


def test_an_event_that_no_text_can_hold_fails_alone(tmp_path: Path) -> None:
    odd = Message(event(b"1", headers=(("\ud800", b""),)), Position(0, 1), 1)

    [outcomes] = send(target(tmp_path), [odd, *messages(2)])

    assert [type(each) for each in outcomes] == [Failed, Delivered]
    assert payloads(tmp_path) == [2]
    assert isinstance(target(tmp_path).check(odd), Failed)


def test_a_look_makes_nothing_and_says_whether_there_is_space(tmp_path: Path) -> None:
    async def look(one: FileTarget) -> str | None:
        return await one.examine()

    files = tmp_path / "files"
    assert asyncio.run(look(target(files))) is None
    assert asyncio.run(look(target(files, free=lambda _: 0))) == (
        "there is no space left for the file"
    )
    assert not files.exists()
    assert 0 < free_bytes(files / "r1") < 1 << 60


def test_a_later_sender_begins_a_segment_of_its_own(tmp_path: Path) -> None:
    send(target(tmp_path), messages(1, 2))
    send(target(tmp_path), messages(2, 3))

    assert payloads(tmp_path) == [1, 2, 3]
    assert len(list(written(tmp_path, "r1").folder.glob("*.segment"))) == 2
