"""`penstock collection resolve`, in a home of its own, with real stores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import structlog
from builders import FLIGHTS, NOON, event
from cli_home import Penstock
from lakes import MAIN

from assets.accounting import read_books
from assets.stores import Stores, opened
from penstock.buffer import open_appender
from penstock.settings import Settings, load_settings


def settings_of(home: Path) -> Settings:
    return load_settings(home, {})


def append(home: Path, *numbers: int) -> None:
    # A command has left the log of its process at a stream that is closed by now.
    structlog.reset_defaults()
    appender = open_appender(settings_of(home).log)
    events = [event(f'{{"n": {n}}}', id=f"e{n}", received_at=NOON + n) for n in numbers]
    appender.append(FLIGHTS, events).result(10)
    appender.close()


@pytest.fixture
def home(tmp_path: Path, penstock: Penstock) -> Path:
    """Answer a home in which five events have landed, in two commits."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    for numbers in ([1, 2], [3, 4, 5]):
        append(folder, *numbers)
        assert penstock("land", "--once", home=folder).code == 0
    return folder


def roll_back(stores: Stores) -> None:
    table = stores.lake.table(MAIN)
    assert table is not None
    snapshot = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().rollback_to_snapshot(snapshot).commit()


def books(home: Path) -> dict[str, int]:
    with opened(settings_of(home)) as stores:
        found = read_books(stores.buffer, stores.lake, FLIGHTS)
        return {"accepted": found.accepted, **found.parts, "difference": found.difference}


def test_a_table_that_was_rolled_back_is_resolved_by_what_landing_says(
    home: Path, penstock: Penstock
) -> None:
    """From the stop to sound books by copying one line."""
    with opened(settings_of(home)) as stores:
        roll_back(stores)
    append(home, 6)

    stopped = penstock("land", "--once", home=home)
    assert stopped.code == 1
    assert "penstock collection resolve flights --by reset-marks" in stopped.err
    doctor = penstock("doctor", home=home)
    assert "penstock collection resolve flights --by reset-marks" in doctor.out

    words = ["collection", "resolve", "flights", "--by", "reset-marks"]
    dry = penstock(*words, "--dry-run", home=home)
    assert dry.code == 0
    assert "3 events land again" in dry.out
    assert "nothing was changed" in dry.out
    assert books(home)["difference"] == 3

    done = penstock(*words, "--yes", "--json", home=home)
    assert done.code == 0, done.err
    assert done.json()["done"] is True

    assert penstock("land", "--once", home=home).code == 0
    assert books(home) == {
        "accepted": 6,
        "landed": 6,
        "duplicates": 0,
        "quarantined": 0,
        "closed": 0,
        "waiting": 0,
        "expired": 0,
        "lost": 0,
        "carried": 0,
        "difference": 0,
    }
    again = penstock(*words, "--yes", home=home)
    assert again.code == 1
    assert "has not stopped" in again.err


def test_a_log_that_was_lost_is_followed_by_a_new_one(home: Path, penstock: Penstock) -> None:
    """The door makes a log where there is none: another one."""
    shutil.rmtree(home / "log")
    append(home, 6, 7)
    stopped = penstock("land", "--once", home=home)
    assert "penstock collection resolve flights --by new-log" in stopped.err

    words = ["collection", "resolve", "flights", "--by", "new-log"]
    assert penstock(*words, "--yes", home=home).code == 0

    assert penstock("land", "--once", home=home).code == 0
    found = books(home)
    assert (found["accepted"], found["landed"], found["difference"]) == (7, 7, 0)


def test_the_right_log_lets_landing_go_on_without_any_command(
    home: Path, penstock: Penstock, tmp_path: Path
) -> None:
    """An older copy stops it; nothing of what the right one holds has to be given up for that."""
    shutil.copytree(home / "log", tmp_path / "copy")
    append(home, 6, 7)
    assert penstock("land", "--once", home=home).code == 0
    (home / "log").rename(tmp_path / "right")
    shutil.copytree(tmp_path / "copy", home / "log")

    stopped = penstock("land", "--once", home=home)
    refused = penstock("collection", "resolve", "flights", "--by", "loss", "--yes", home=home)
    shutil.rmtree(home / "log")
    (tmp_path / "right").rename(home / "log")

    assert stopped.code == 1
    assert "7 events of it have landed" in stopped.err
    assert "penstock log renew" in stopped.err
    assert refused.code == 1
    assert "not resolved by 'loss' but penstock log renew" in refused.err
    assert penstock("land", "--once", home=home).code == 0
    found = books(home)
    assert (found["accepted"], found["landed"], found["difference"]) == (7, 7, 0)


def test_it_asks_and_no_is_no(
    home: Path, penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be taken back is not done by a slip."""
    import io

    with opened(settings_of(home)) as stores:
        roll_back(stores)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    said = penstock("collection", "resolve", "flights", "--by", "reset-marks", home=home)

    assert said.code == 1
    assert "It cannot be taken back" in said.out + said.err
    assert books(home)["difference"] == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--by", "magic", "--yes"], "--by takes new-log, loss"),
        (["--by", "loss", "--json"], "add --yes or --dry-run"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    home: Path, penstock: Penstock, words: list[str], told: str
) -> None:
    """With what could be meant."""
    said = penstock("collection", "resolve", "flights", *words, home=home)

    assert said.code == 2
    assert told in said.err
