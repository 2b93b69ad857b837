"""Dagster's side of the search index, with a real engine and a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from builders import FLIGHTS, event
from engines.fresh import fresh_name
from indexing import index_url, wipe

from assets.stores import Stores, opened
from orchestration import indexing, jobs
from orchestration.definitions import definitions
from orchestration.keys import COLLECTIONS, SEARCHABLE
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.search.elastic import ElasticIndex
from penstock.settings import load_settings

AT_ONCE = {"ops": {"drain": {"config": {"idle_seconds": 0.0}}}}


def append(stores: Stores, *payloads: str) -> None:
    appender = open_appender(stores.settings.log)
    events = [event(payload, received_at=machine_clock()) for payload in payloads]
    appender.append(FLIGHTS, events).result(10)
    appender.close()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    url = index_url("elasticsearch", prefix=fresh_name())
    with opened(load_settings(tmp_path, {}, search_url=url)) as stores:
        yield stores
        assert isinstance(stores.index, ElasticIndex)
        wipe(stores.index)


def materialised(run: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    return [
        e.step_materialization_data.materialization
        for e in run.all_events
        if e.is_step_materialization
        and e.step_materialization_data.materialization.asset_key == SEARCHABLE
    ]


@pytest.mark.engines
def test_a_landing_run_indexes_what_it_landed(stores, instance) -> None:
    """Behind the landing, and told to Dagster beside it."""
    append(stores, '{"n": 1}', '{"n": 2}')

    run = jobs.land.execute_in_process(
        run_config=AT_ONCE, resources={"stores": stores}, instance=instance
    )

    (told,) = materialised(run)
    assert told.partition == "main.flights"
    assert told.metadata["rows"].value == 2
    assert told.metadata["refused"].value == 0
    assert told.metadata["waiting"].value == 0
    assert 0 <= told.metadata["lag seconds"].value < 300
    assert stores.index.state(FLIGHTS).state.marks == {0: 2}
    assert instance.get_dynamic_partitions(COLLECTIONS.name) == ["main.flights"]


@pytest.mark.engines
def test_what_landing_did_not_index_the_job_does(stores, instance) -> None:
    """And `reindex` makes it again."""
    append(stores, '{"n": 1}', '{"n": 2}')
    while stores.landing().land_once(FLIGHTS):
        pass
    common = {"resources": {"stores": stores}, "instance": instance}

    filled = indexing.index.execute_in_process(**common)
    again = indexing.reindex.execute_in_process(
        run_config={"ops": {"make_again": {"config": {"collection": "flights"}}}}, **common
    )

    assert [told.metadata["rows"].value for told in materialised(filled)] == [2]
    assert [told.metadata["rows"].value for told in materialised(again)] == [2]


def test_an_engine_that_is_away_does_not_disturb_landing(tmp_path: Path, instance) -> None:
    """The run says so, and lands."""
    settings = load_settings(tmp_path, {}, search_url="elasticsearch://127.0.0.1:1")
    with opened(settings) as stores:
        append(stores, '{"n": 1}')
        run = jobs.land.execute_in_process(
            run_config=AT_ONCE, resources={"stores": stores}, instance=instance
        )
        view = stores.lake.view(FLIGHTS)
        failed = indexing.index.execute_in_process(
            resources={"stores": stores}, instance=instance, raise_on_error=False
        )

    assert run.success
    assert view is not None
    assert view.rows == 1
    assert not failed.success
    assert materialised(run) == []


def test_without_an_index_dagster_shows_none_of_it(tmp_path: Path, instance, monkeypatch) -> None:
    """Jobs that do nothing would only be in the way."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    without = definitions()
    monkeypatch.setenv("PENSTOCK_SEARCH_URL", "elasticsearch://127.0.0.1:1")
    along = definitions()

    assert {job.name for job in along.jobs} - {job.name for job in without.jobs} == {
        "index",
        "reindex",
    }
    assert len(along.schedules) - len(without.schedules) == 1
