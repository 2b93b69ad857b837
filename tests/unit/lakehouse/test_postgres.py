"""The catalog in PostgreSQL: many processes, a server that goes away and comes back, no secret."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from balance import compare
from builders import FLIGHTS
from engines.fresh import fresh_database, fresh_name
from engines.places import BUCKET, PASSWORD, POSTGRES_PORT, S3_PORT, S3_SECRET
from evidence.sheet import found, happened
from lakes import (
    HASTY,
    MAIN,
    STORE,
    batch_of,
    child,
    create_in_process,
    everywhere,
    finished,
    log_of,
    numbered,
    put,
    store_at,
    stored,
    tell_elsewhere,
)
from ports import free_port
from proxy import Proxy

from lakehouse import Lake, open_lake
from lakehouse.catalog import CATALOG_NAME, open_catalog
from lakehouse.commit import Committed
from lakehouse.upkeep import expire
from penstock.errors import BadSetting, EngineUnavailable
from penstock.metadata import postgresql

engines = pytest.mark.engines


@pytest.fixture
def catalog_url() -> Iterator[str]:
    with fresh_database() as url:
        yield url


@pytest.fixture
def warehouse_url() -> str:
    return f"s3://{BUCKET}/{fresh_name('lake')}"


def told(error: BaseException | None) -> str:
    """Answer what a log would show of the error and of those behind it."""
    if error is None:
        return ""
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{error!r} {error} {told(behind)}"


@engines
def test_tables_belong_to_the_name_that_trino_is_told(catalog_url: str, warehouse_url: str) -> None:
    """Under another name, or in the older schema, Trino would see none of them."""
    open_lake(catalog_url, warehouse_url, STORE).create(FLIGHTS)

    with psycopg.connect(catalog_url) as connection:
        rows = connection.execute(
            "select distinct catalog_name, iceberg_type from iceberg_tables"
        ).fetchall()
    assert rows == [(CATALOG_NAME, "TABLE")]


@engines
def test_many_processes_open_an_empty_database_and_make_the_same_tables(
    tmp_path: Path, catalog_url: str, warehouse_url: str
) -> None:
    """`up` starts platform and runs together; the database's own errors must not end one."""
    tell_elsewhere(tmp_path, catalog_url, warehouse_url)
    processes = [child(create_in_process, tmp_path) for _ in range(4)]
    for process in processes:
        process.start()

    assert [finished(process, 120) for process in processes] == [0] * 4
    assert len({file.read_text() for file in tmp_path.glob("made-*")}) == 1


@engines
def test_a_catalog_that_went_away_is_used_again_when_it_is_back(
    catalog_url: str, warehouse_url: str
) -> None:
    """Without a restart, and every question meanwhile is answered with 'later'."""
    with Proxy(POSTGRES_PORT) as proxy:
        lake = open_lake(proxy.leads(catalog_url), warehouse_url, STORE)
        before = lake.create(FLIGHTS)

        proxy.refuse()
        for ask in (lambda: lake.view(FLIGHTS), lake.collections, lambda: lake.create(FLIGHTS)):
            with pytest.raises(EngineUnavailable):
                ask()
        with pytest.raises(EngineUnavailable):
            lake.pin(FLIGHTS, 1, "replay")

        proxy.accept()
        assert lake.view(FLIGHTS) == before
        assert lake.collections() == [FLIGHTS]


@engines
def test_a_server_that_stops_in_the_middle_holds_nobody_for_ever(
    catalog_url: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays open and silent, and no limit of TCP would end the wait."""
    monkeypatch.setattr(postgresql._Patient, "seconds", 1.0)
    with Proxy(POSTGRES_PORT) as proxy:
        lake = open_lake(proxy.leads(catalog_url), warehouse_url, STORE)
        lake.create(FLIGHTS)
        proxy.stall()
        begun = time.monotonic()

        with pytest.raises(EngineUnavailable):
            lake.view(FLIGHTS)
        assert time.monotonic() - begun < 20


@engines
@pytest.mark.breaks("the catalog's answer to a commit, after it was made")
def test_a_commit_whose_answer_is_lost_is_made_once(catalog_url: str, warehouse_url: str) -> None:
    """The connection is cut between the database's COMMIT and its answer; the table tells."""
    log = log_of(*numbered(4))
    with Proxy(POSTGRES_PORT) as proxy:
        lake = open_lake(proxy.leads(catalog_url), warehouse_url, STORE)
        lake.patience = HASTY
        view = lake.create(FLIGHTS)

        proxy.cut_answer_to(b"COMMIT\x00")  # not that of BEGIN ISOLATION LEVEL READ COMMITTED
        answer = put(lake, batch_of(log, view))

        assert proxy.cuts == 1
        happened("cut connections")
    assert isinstance(answer, Committed)
    assert (answer.rows, answer.here) == (4, True)
    fresh = open_lake(catalog_url, warehouse_url, STORE)
    told = {n: payload.encode() for n, payload in enumerate(numbered(4))}
    found(tables=compare(told, stored(fresh)))


@engines
@pytest.mark.breaks("the way to the object store")
def test_a_store_that_went_away_is_used_again_when_it_is_back(
    catalog_url: str, warehouse_url: str
) -> None:
    """Nothing of the batch that met it is in the table, and all of it lands afterwards."""
    log = log_of(*numbered(3))
    with Proxy(S3_PORT) as proxy:
        store = store_at(f"http://127.0.0.1:{proxy.port}")
        lake = Lake(open_catalog(catalog_url, warehouse_url, store), HASTY)
        view = lake.create(FLIGHTS)

        proxy.refuse()
        happened("cut connections")
        with pytest.raises(EngineUnavailable):
            put(lake, batch_of(log, view))
        assert everywhere(open_lake(catalog_url, warehouse_url, STORE)) == Counter()

        proxy.accept()
        put(lake, batch_of(log, view))
    told = {n: payload.encode() for n, payload in enumerate(numbered(3))}
    found(tables=compare(told, stored(open_lake(catalog_url, warehouse_url, STORE))))


@engines
def test_no_secret_is_in_what_is_kept_or_said(
    catalog_url: str, warehouse_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Tables are read by others, logs and errors by everybody."""
    caplog.set_level(logging.DEBUG)
    with Proxy(POSTGRES_PORT) as proxy:
        lake = open_lake(proxy.leads(catalog_url), warehouse_url, STORE)
        put(lake, batch_of(log_of(*numbered(2)), lake.create(FLIGHTS)))
        expire(lake, MAIN, keep=1)
        table = lake.table(MAIN)
        assert table is not None
        said = [repr(lake.catalog), repr(table), str(lake.catalog.properties)]
        said += [repr(table.io), str(table.io.properties), table.metadata.model_dump_json()]
        proxy.refuse()
        with pytest.raises(EngineUnavailable) as refusal:
            lake.table(MAIN)
    said += [told(refusal.value), caplog.text]

    assert S3_SECRET not in "".join(said)
    assert f":{PASSWORD}@" not in "".join(said)


def test_an_address_that_cannot_be_read_is_not_repeated() -> None:
    """The password is part of it."""
    with pytest.raises(BadSetting) as refusal:
        open_lake("postgresql://u:hush@h/x?nonsense=1", "file:///tmp/x")

    assert "hush" not in told(refusal.value)


def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Landing waits for it; it does not take it for an empty lake."""
    address = f"postgresql://u:hush@127.0.0.1:{free_port()}/x"

    with pytest.raises(EngineUnavailable) as refusal:
        open_lake(address, f"file://{tmp_path}")

    assert "hush" not in told(refusal.value)
