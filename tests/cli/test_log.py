"""`penstock log renew`, in a home of its own, with real stores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import structlog
from builders import FLIGHTS, NOON, event
from cli_home import Penstock

from assets.accounting import read_books
from assets.checks import check_books, check_conservation
from assets.stores import opened
from penstock.buffer import open_appender
from penstock.buffer.embedded import EmbeddedAppender
from penstock.buffer.segments import list_bases, segment_path
from penstock.envelope import CollectionId, Event
from penstock.settings import Settings, load_settings

SHOP = CollectionId("main", "shop")


def settings_of(home: Path) -> Settings:
    return load_settings(home, {})


def made(number: int, payload: str | bytes | None = None) -> Event:
    return event(payload or f'{{"n": {number}}}', id=f"e{number}", received_at=NOON + number)


def append(home: Path, *numbers: int, collection: CollectionId = FLIGHTS) -> None:
    """Let a door take these, each in a frame of its own."""
    # A command has left the log of its process at a stream that is closed by now.
    structlog.reset_defaults()
    appender = open_appender(settings_of(home).log)
    for number in numbers:
        appender.append(collection, [made(number)]).result(10)
    appender.close()


@pytest.fixture
def home(tmp_path: Path, penstock: Penstock) -> Path:
    """Answer a home in which five events of each of two collections have landed."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    append(folder, 1, 2, 3, 4, 5)
    append(folder, 1, 2, 3, 4, 5, collection=SHOP)
    assert penstock("land", "--once", home=folder).code == 0
    return folder


def books(home: Path, collection: CollectionId = FLIGHTS) -> dict[str, int]:
    with opened(settings_of(home)) as stores:
        found = read_books(stores.buffer, stores.lake, collection)
        parts = {name: count for name, count in found.parts.items() if count}
        return {"accepted": found.accepted, **parts, "difference": found.difference}


def ids(home: Path, collection: CollectionId = FLIGHTS) -> list[str]:
    with opened(settings_of(home)) as stores:
        table = stores.lake.table((collection.team, collection.name))
        assert table is not None
        rows = table.scan(selected_fields=("event_id", "received_at", "payload")).to_arrow()
        for row in rows.to_pylist():
            number = int(row["event_id"][1:])
            assert row["payload"] == made(number).payload, "the same to the byte"
        return sorted(rows["event_id"].to_pylist())


def sound(home: Path) -> None:
    with opened(settings_of(home)) as stores:
        for collection in (FLIGHTS, SHOP):
            log_id = stores.buffer.log_id(collection)
            for verdict in (
                check_books(stores.buffer, stores.lake, collection, NOON, None),
                check_conservation(stores.lake, collection, log_id),
            ):
                assert verdict.passed, verdict.sentence


def put_back_an_older_copy(home: Path, copy: Path) -> None:
    shutil.rmtree(home / "log")
    shutil.copytree(copy, home / "log")


def break_frame(home: Path, number: int) -> None:
    """Turn a byte of the payload of an event."""
    for base in list_bases(home / "log"):
        path = segment_path(home / "log", base)
        data = path.read_bytes()
        at = data.find(made(number).payload)
        if at >= 0:
            path.write_bytes(data[:at] + b"X" + data[at + 1 :])
            return
    raise AssertionError("no such event")


def test_an_older_copy_of_the_log_is_followed_by_a_new_one_that_has_what_came_since(
    home: Path, penstock: Penstock, tmp_path: Path
) -> None:
    """It gives positions out again: what the copy took since is neither lost nor another row."""
    shutil.copytree(home / "log", tmp_path / "copy")
    append(home, 6, 7)
    assert penstock("land", "--once", home=home).code == 0
    put_back_an_older_copy(home, tmp_path / "copy")
    append(home, 8)
    append(home, 6, collection=SHOP)

    stopped = penstock("land", "--once", home=home)
    assert stopped.code == 1
    assert "penstock log renew" in stopped.err
    refused = penstock("collection", "resolve", "flights", "--by", "loss", "--yes", home=home)
    assert "penstock log renew" in refused.err

    dry = penstock("log", "renew", "--dry-run", home=home)
    assert dry.code == 0, dry.err
    assert "main.flights: 1 events that no table has are carried over" in dry.out
    assert "nothing was changed" in dry.out

    assert "never renewed" in penstock("log", "list", home=home).out
    done = penstock("log", "renew", "--yes", "--why", "restored by mistake", "--json", home=home)
    assert done.code == 0, done.err
    assert done.json()["collections"]["main.flights"] == {
        "carried": 1,
        "lost": 0,
        "lost_positions": [],
        "forked": True,
    }
    aside = Path(done.json()["aside"])
    assert (aside / "segments").exists()
    assert penstock("land", "--once", home=home).code == 0

    assert ids(home) == [f"e{n}" for n in range(1, 9)]
    assert ids(home, SHOP) == [f"e{n}" for n in range(1, 7)]
    assert books(home) == {"accepted": 8, "landed": 8, "difference": 0}
    sound(home)
    append(home, 9)
    assert penstock("land", "--once", home=home).code == 0
    assert books(home) == {"accepted": 9, "landed": 9, "difference": 0}

    again = penstock("log", "renew", "--yes", home=home)
    assert again.code == 1
    assert "nothing to renew" in again.err
    assert "restored by mistake" in penstock("log", "list", home=home).out
    listed = penstock("log", "list", "--json", home=home).json()
    assert [(one["why"], one["collections"]["main.flights"]["carried"]) for one in listed] == [
        ("restored by mistake", 1)
    ]


def test_what_a_damaged_log_still_gives_lands_and_the_rest_is_lost_by_its_positions(
    home: Path, penstock: Penstock
) -> None:
    """One broken frame must not cost those around it, nor other collections."""
    append(home, 6, 7, 8)
    append(home, 6, 7, collection=SHOP)
    break_frame(home, 7)
    stopped = penstock("land", "--once", home=home)
    assert stopped.code == 1
    assert "penstock log renew" in stopped.err

    done = penstock("log", "renew", "--yes", "--json", home=home)

    assert done.code == 0, done.err
    assert done.json()["collections"]["main.flights"]["lost_positions"] == [{"start": 6, "end": 7}]
    assert penstock("land", "--once", home=home).code == 0
    assert ids(home) == ["e1", "e2", "e3", "e4", "e5", "e6", "e8"]
    # Six and eight have two positions: that of the old log, and that of the new one.
    assert books(home) == {
        "accepted": 10, "landed": 7, "lost": 1, "carried": 2, "difference": 0,
    }  # fmt: skip
    assert ids(home, SHOP) == [f"e{n}" for n in range(1, 8)]
    sound(home)


def test_a_log_that_is_right_is_left_alone(home: Path, penstock: Penstock) -> None:
    """It would cost replays for nothing."""
    append(home, 6)
    said = penstock("log", "renew", "--yes", home=home)
    assert said.code == 1
    assert "nothing to renew" in said.err


def test_while_a_door_writes_nothing_is_renewed(home: Path, penstock: Penstock) -> None:
    """What it takes meanwhile would stay behind."""
    break_frame(home, 1)
    structlog.reset_defaults()
    appender = EmbeddedAppender(home / "log")
    try:
        said = penstock("log", "renew", "--yes", home=home)
    finally:
        appender.close()
    assert said.code == 2
    assert "writes the log" in said.err
