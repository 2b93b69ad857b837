"""Commands that open the stores themselves find those that `penstock up` was started with."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON, event
from cli_home import Penstock, every_command
from metadata_builders import collection
from rich.console import Console

from penstock.buffer import open_appender
from penstock.cli.home import note_started, settings_of
from penstock.cli.up import _note_started
from penstock.metadata.store import open_store
from penstock.settings import Settings, load_settings

NEEDED = {
    "forget": ("k",),
    "rebuild": ("c",),
    "retype": ("c",),
    "reindex": ("c",),
    "resolve": ("c", "--by", "loss"),
}
"""What some commands have to be given."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Answer a settings file that names a log with an event, and tables, outside the home."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    file = tmp_path / "other.toml"
    file.write_text(
        f'log_url = "embedded://{other}/log"\n'
        f'warehouse_url = "file://{other}/lake"\n'
        f'catalog_url = "sqlite:///{other}/catalog.db"\n'
        f'metadata_url = "sqlite:///{other}/metadata.db"\n'
    )
    settings = load_settings(other, {}, file=file)
    store = open_store(settings.metadata)
    store.create_collection(collection())
    store.close()
    append(settings)
    return file


def append(settings: Settings) -> None:
    appender = open_appender(settings.log)
    appender.append(FLIGHTS, [event('{"n": 1}', received_at=NOON)]).result(10)
    appender.close()


def test_what_it_was_started_with_need_not_be_said_again(
    home: Path, elsewhere: Path, penstock: Penstock
) -> None:
    """In the home's own stores there is no such table, which helps nobody."""
    note_started(home, elsewhere)

    landed = penstock("land", home=home)
    rebuilt = penstock("collection", "rebuild", "flights", "--json", home=home)
    retyped = penstock("collection", "retype", "flights", "--json", home=home)
    tended = penstock("upkeep", "flights", "--json", home=home)
    checked = penstock("doctor", home=home)

    assert (landed.code, landed.out.split(",")[0]) == (0, "main.flights: 1 rows")
    assert rebuilt.json()["rows"] == 1
    assert retyped.json()["newest_rows"] == 1
    assert tended.code == 0
    assert f"{home}, by {elsewhere}" in checked.out.replace("\n", "")
    assert not (home / "log").exists()


def test_every_command_that_takes_a_settings_file_goes_by_it(
    home: Path, tmp_path: Path, penstock: Penstock
) -> None:
    """One that does not would look at an installation that nobody meant."""
    note_started(home, tmp_path / "gone.toml")
    taking = [words for words in every_command() if "--settings" in penstock(*words, "--help").out]
    asked = [words for words in taking if words not in (["up"], ["demo"])]

    for words in asked:
        said = penstock(*words, *NEEDED.get(words[-1], ()), home=home)
        assert said.code != 0, words
        told = " ".join((said.out + said.err).split())
        assert f"was last started with the settings file {tmp_path}/gone.toml" in told, words

    assert len(asked) == 14


def test_a_file_that_is_named_counts_more(home: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Also where the one that was noted is not there any more."""
    named = tmp_path / "named.toml"
    named.write_text("sql_rows = 7\n")
    note_started(home, tmp_path / "gone.toml")

    assert settings_of(home, named).sql_rows == 7
    note_started(home, elsewhere)
    assert settings_of(home, None).log_url.endswith("/elsewhere/log")


def test_a_start_without_a_file_goes_back_to_the_homes_own_and_says_so(
    home: Path, elsewhere: Path
) -> None:
    """Somebody who forgot the flag sees an installation that is empty."""
    shown = io.StringIO()
    console = Console(file=shown, width=20)

    _note_started(home, elsewhere, console)
    _note_started(home, elsewhere, console)
    assert shown.getvalue() == ""
    _note_started(home, None, console)

    assert f"penstock up --settings {elsewhere} --home {home}" in shown.getvalue()
    assert settings_of(home, None) == load_settings(home)
    assert (home / "started.json").stat().st_mode & 0o777 == 0o600
