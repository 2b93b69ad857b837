"""Dagster's side of landing, in this process, with a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from builders import FLIGHTS, event
from metadata_builders import known

from assets.stores import Stores, opened
from orchestration import jobs, sensors
from orchestration.keys import COLLECTIONS, EVENTS, LANE_TAG
from orchestration.lease import TTL
from penstock.buffer import open_appender
from penstock.cache import open_cache
from penstock.clock import machine_clock
from penstock.envelope import Event
from penstock.settings import load_settings

AT_ONCE = {"ops": {"drain": {"config": {"idle_seconds": 0.0}}}}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(load_settings(tmp_path, {})) as stores:
        yield stores


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def append(stores: Stores, *events: Event) -> None:
    appender = open_appender(stores.settings.log)
    appender.append(FLIGHTS, events).result(10)
    appender.close()


def fresh(payload: str) -> Event:
    return event(payload, received_at=machine_clock())


def test_a_landing_run_tells_dagster_what_it_landed(stores, instance) -> None:
    """Operators see rows, bytes and lag of every collection where they look for runs."""
    append(stores, fresh('{"n": 1}'), fresh('{"n": 2}'), fresh("{broken"))

    run = jobs.land.execute_in_process(
        run_config=AT_ONCE, resources={"stores": stores}, instance=instance
    )

    assert run.success
    told = [
        e.step_materialization_data.materialization
        for e in run.all_events
        if e.is_step_materialization
    ]
    by_asset = {m.asset_key: m for m in told}
    assert by_asset[EVENTS].partition == "main.flights"
    assert by_asset[EVENTS].metadata["rows"].value == 2
    assert by_asset[EVENTS].metadata["quarantined"].value == 1
    assert by_asset[EVENTS].metadata["spans"].value == {"0": "0-3"}
    assert instance.get_dynamic_partitions(COLLECTIONS.name) == ["main.flights"]


def test_a_second_run_leaves_a_held_lane_alone(stores, instance) -> None:
    """Two runs on one lane would only race for the same commits."""
    append(stores, fresh('{"n": 1}'))
    stores.store.take_lease("lane 0", "somebody", machine_clock(), TTL)

    run = jobs.land.execute_in_process(
        run_config=AT_ONCE, resources={"stores": stores}, instance=instance
    )

    assert run.success
    assert stores.lake.view(FLIGHTS) is None


def test_upkeep_and_checks_pass_on_what_was_landed(stores, instance) -> None:
    """The checks would be worthless if they failed on a healthy home, or looked at nothing."""
    append(stores, fresh('{"n": 1}'), fresh("{broken"))
    given = {"resources": {"stores": stores}, "instance": instance}
    jobs.land.execute_in_process(run_config=AT_ONCE, **given)

    assert jobs.upkeep.execute_in_process(**given).success
    results = list(jobs.books(stores))

    assert [(r.check_name, r.passed) for r in results] == [
        ("conservation", True),
        ("freshness", True),
        ("marks", True),
    ]
    assert "2 events landed, each once" in results[0].metadata["main.flights"].value


def test_the_landing_sensor_launches_a_run_only_while_events_wait(stores, instance) -> None:
    """A run costs seconds of CPU, and a sensor that never launches lands nothing."""
    append(stores, fresh('{"n": 1}'))
    context = dg.build_sensor_context(instance=instance, resources={"stores": stores})

    before = sensors.landing(context)
    jobs.land.execute_in_process(
        run_config=AT_ONCE, resources={"stores": stores}, instance=instance
    )
    after = sensors.landing(context)

    assert [request.tags for request in before.run_requests] == [{LANE_TAG: "0"}]
    assert after.run_requests == []
    assert after.skip_reason.skip_message == "nothing waits to be landed"


def test_landing_goes_on_while_the_metadata_is_away(tmp_path, instance) -> None:
    """The lease saves work, and contracts are in the doors' cache: neither must stop the log."""
    (tmp_path / "metadata.db").write_bytes(b"no database" * 1_000)
    open_cache(load_settings(tmp_path, {}).cache).publish(known())
    with opened(load_settings(tmp_path, {})) as stores:
        append(stores, fresh('{"n": 1}'))
        context = dg.build_sensor_context(instance=instance, resources={"stores": stores})

        asked = sensors.landing(context)
        run = jobs.land.execute_in_process(
            run_config=AT_ONCE, resources={"stores": stores}, instance=instance
        )

        assert len(asked.run_requests) == 1
        assert run.success
        assert stores.lake.view(FLIGHTS).rows == 1
