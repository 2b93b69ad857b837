"""`penstock upkeep` on a home where nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import FLIGHTS, event
from cli_home import Penstock
from lakes import Unwilling

from assets import stores
from assets.stores import opened
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.settings import load_settings

_DAY = 86_400_000_000


def filled(home: Path, commits: int) -> None:
    """Let so many events of two days ago land, each for itself."""
    with opened(load_settings(home, {})) as here:
        appender = open_appender(here.settings.log)
        for number in range(commits):
            one = event(f'{{"n": {number}}}', received_at=machine_clock() - 2 * _DAY)
            appender.append(FLIGHTS, [one]).result(10)
            assert here.landing().land_once(FLIGHTS)
        appender.close()


def test_upkeep_by_hand_does_what_the_job_does(tmp_path: Path, penstock: Penstock) -> None:
    """Who lands without Dagster has tables that get slower, and nobody to tell."""
    filled(tmp_path, 6)

    before = penstock("upkeep", "--check", home=tmp_path)
    done = penstock("upkeep", "flights", "--json", home=tmp_path)
    after = penstock("upkeep", "--check", "--json", home=tmp_path)

    assert before.code == 1
    assert "run 'penstock upkeep main.flights'" in before.out
    assert done.code == 0
    figures = done.json()
    assert figures["collection"] == "main.flights"
    assert (figures["files before"], figures["files"], figures["files merged"]) == (6, 1, 6)
    assert after.code == 0
    assert after.json()["late files"] == 0


def test_files_that_another_engine_does_not_merge_are_told(
    tmp_path: Path, penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its reason, while everything else is done; and they stay behind until it does."""
    filled(tmp_path, 6)
    monkeypatch.setattr(stores, "merger_of", lambda _settings: Unwilling("PERMISSION_DENIED"))

    done = penstock("upkeep", "flights", home=tmp_path)
    after = penstock("upkeep", "--check", home=tmp_path)

    assert done.code == after.code == 1
    (told,) = (line for line in done.err.splitlines() if not line.startswith("{"))
    assert told == "main.flights: files not merged: main.flights: PERMISSION_DENIED"
    assert done.out.startswith("main.flights: 6 files, now 6 (0.0 MB rewritten); 0 snapshots")
    assert "6 small files that should be merged by now" in after.out


def test_trino_cannot_merge_the_files_of_a_catalog_that_is_a_file(
    tmp_path: Path, penstock: Penstock
) -> None:
    """Nothing would be merged from then on, by nobody."""
    filled(tmp_path, 1)
    (tmp_path / "penstock.toml").write_text('compact_url = "trino://me@localhost:8080/penstock"')

    said = penstock("upkeep", "flights", "--json", home=tmp_path)
    checks = penstock("doctor", "--json", home=tmp_path).json()["checks"]

    assert said.code != 0
    assert "compact_url asks for Trino, which does not see" in said.problem()["detail"]
    (merging,) = (one for one in checks if one["name"] == "merging")
    assert not merging["ok"]
    assert "docs/howto/trino.md" in merging["detail"]
    assert "compact_url" in merging["do"]


def test_upkeep_by_hand_retypes_columns_too(tmp_path: Path, penstock: Penstock) -> None:
    """Without Dagster nobody else would, and each fraction would be a misfit for ever."""
    with opened(load_settings(tmp_path, {})) as here:
        appender = open_appender(here.settings.log)
        for payload in ('{"price": 5}', '{"price": 5.99}'):
            appender.append(FLIGHTS, [event(payload, received_at=machine_clock())]).result(10)
            assert here.landing().land_once(FLIGHTS)
        appender.close()

    told = penstock("upkeep", home=tmp_path)
    again = penstock("upkeep", home=tmp_path)

    assert told.code == again.code == 0
    assert (
        "main.flights: doubles instead of longs: price; 2 rows written anew, "
        "1 misfits before, 0 after" in told.out
    )
    assert "doubles" not in again.out


def test_a_collection_without_a_table_cannot_be_tended(tmp_path: Path, penstock: Penstock) -> None:
    """A name that is misspelt must not look as if it had been tended."""
    said = penstock("upkeep", "flihgts", "--json", home=tmp_path)

    assert said.code != 0
    assert "flihgts" in said.problem()["detail"]
