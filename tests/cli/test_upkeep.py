"""`penstock upkeep` on a home where nothing runs."""

from __future__ import annotations

from pathlib import Path

from builders import FLIGHTS, event
from cli_home import Penstock

from assets.stores import opened
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.settings import load_settings

_DAY = 86_400_000_000


def filled(home: Path, commits: int) -> None:
    """Let so many events of two days ago land, each for itself."""
    with opened(load_settings(home, {})) as stores:
        appender = open_appender(stores.settings.log)
        for number in range(commits):
            one = event(f'{{"n": {number}}}', received_at=machine_clock() - 2 * _DAY)
            appender.append(FLIGHTS, [one]).result(10)
            assert stores.landing().land_once(FLIGHTS)
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


def test_upkeep_by_hand_retypes_columns_too(tmp_path: Path, penstock: Penstock) -> None:
    """Without Dagster nobody else would, and each fraction would be a misfit for ever."""
    with opened(load_settings(tmp_path, {})) as stores:
        appender = open_appender(stores.settings.log)
        for payload in ('{"price": 5}', '{"price": 5.99}'):
            appender.append(FLIGHTS, [event(payload, received_at=machine_clock())]).result(10)
            assert stores.landing().land_once(FLIGHTS)
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
