"""Homes that earlier versions left are opened, landed, searched, released from and tended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import golden
import pytest
from balance import compare, totals
from builders import FLIGHTS
from evidence.sheet import found, happened
from golden import HOME, LANDED, ORPHAN, SECRET, WAITING, searcher_of, settings_here, shown
from lakes import stored
from metadata_builders import destination, saved_search

from assets.checks import check_books, check_conservation
from assets.stores import Stores, opened
from lakehouse.sql import Engine, open_engine
from lakehouse.upkeep import ORPHAN_AGE
from penstock.clock import machine_clock

DAY = 86_400_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answer the home, to which the process has gone: its tables are named from there."""
    home = golden.unpack(HOME, tmp_path)
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def stores(home: Path) -> Iterator[Stores]:
    del home
    with opened(settings_here()) as stores:
        yield stores


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    with closing(open_engine(home / "sql", memory="300MB", threads=1)) as engine:
        yield engine


def payload_of(event_id: str) -> bytes:
    """Answer what was sent first with the id."""
    return next(one.payload for one in (*LANDED, *WAITING) if one.id == event_id)


@pytest.mark.breaks("the version, after which log, tables and search go on with an older home")
def test_a_home_of_an_earlier_version_goes_on(stores: Stores, engine: Engine) -> None:
    """Everything acknowledged is there, byte for byte, before and after all that is done to it."""
    happened("upgraded")
    searcher = searcher_of(stores, engine)
    repaired = payload_of("released")[3:]
    rows = {n: payload_of(n) for n in ("fits", "misfit", "list", "bytes", "waits")}
    rows["released"] = repaired
    aside = {n: payload_of(n) for n in ("open", "waits broken")}
    on_log = [*(one.payload for one in LANDED), repaired, *(one.payload for one in WAITING)]

    # As it was left: two events are on the log alone.
    found(search=compare(rows, shown(searcher, "main")))
    found(search=compare(aside, shown(searcher, "quarantine")))
    found(tables=compare(dict(enumerate(on_log[:-2])), stored(stores.lake)))
    assert shown(searcher, "main", "Bern") == [("fits", payload_of("fits"))]
    steps = stores.stats.steps(FLIGHTS, 0, 40_000 * DAY, DAY)
    found(statistics=totals(len(on_log) - 2, sum(step.events for step in steps)))

    golden.land(stores)
    assert golden.release(stores, searcher, "waits broken") == 1
    golden.land(stores)
    assert golden.tend(stores, later=ORPHAN_AGE + DAY) > 0
    assert not ORPHAN.exists(), "upkeep.json says since when nobody needs it"

    rows["waits broken"] = aside.pop("waits broken")[3:]
    on_log.append(rows["waits broken"])
    found(search=compare(rows, shown(searcher, "main")))
    found(search=compare(aside, shown(searcher, "quarantine")))
    found(tables=compare(dict(enumerate(on_log)), stored(stores.lake)))
    for verdict in (
        check_conservation(stores.lake, FLIGHTS, stores.buffer.log_id(FLIGHTS)),
        check_books(stores.buffer, stores.lake, FLIGHTS, machine_clock(), None),
    ):
        assert verdict.passed, verdict.sentence


def test_what_people_decided_is_read_as_it_was(stores: Stores, home: Path) -> None:
    """Tokens that are known by a digest, credentials under a key of the home, searches."""
    store = stores.store

    assert store.collection(FLIGHTS).contract == "evolve"
    assert store.destination("main", "billing") == destination()
    assert SECRET not in (home / "metadata.db").read_bytes().decode("latin-1")
    assert store.saved_search("main", "late") == saved_search()
    assert [token.scopes for token in store.tokens("main")] == [("admin",)]
    assert (home / "admin.token").exists()


def test_filters_of_an_earlier_version_are_used(stores: Stores, home: Path, engine: Engine) -> None:
    """One that cannot be read is deleted, and made again: searches are slow meanwhile."""
    before = {one for one in (home / "filters").rglob("*") if one.is_file()}
    assert before

    assert shown(searcher_of(stores, engine), "main", "Ulm") != []

    assert {one for one in (home / "filters").rglob("*") if one.is_file()} == before
