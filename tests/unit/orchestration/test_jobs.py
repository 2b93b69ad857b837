"""Dagster's side of landing, in this process, with a home of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from builders import FLIGHTS, NOON, event
from lakes import MAIN, Unwilling
from metadata_builders import known, replay

import orchestration
from assets.landing import Lane
from assets.stores import Stores, opened
from assets.upkeep import Notes
from orchestration import jobs, sensors
from orchestration.keys import COLLECTIONS, EVENTS, LANE_TAG
from orchestration.lease import TTL
from orchestration.memory import recall
from orchestration.tending import forget_files
from penstock.buffer import open_appender
from penstock.cache import open_cache
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Event, Position
from penstock.metadata.records import CollectionRecord
from penstock.settings import load_settings
from penstock.stats import MINUTE
from replay.files import About, Segments

DAY = 86_400_000_000
AT_ONCE = {"ops": {"drain": {"config": {"idle_seconds": 0.0}}}}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(load_settings(tmp_path, {})) as stores:
        yield stores


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def append(stores: Stores, *events: Event, to: CollectionId = FLIGHTS) -> None:
    appender = open_appender(stores.settings.log)
    appender.append(to, events).result(10)
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
    assert by_asset[EVENTS].metadata["bytes"].value == len('{"n": 1}{"n": 2}{broken')
    assert 0 <= by_asset[EVENTS].metadata["lag seconds"].value < 300
    assert by_asset[EVENTS].metadata["spans"].value == {"0": "0-3"}
    assert instance.get_dynamic_partitions(COLLECTIONS.name) == ["main.flights"]


def test_a_landing_run_keeps_the_statistics_and_upkeep_makes_them_good(stores, instance) -> None:
    """What was not told, because a run was killed say, is counted within ten minutes."""

    def counted() -> int:
        return sum(one.events for one in stores.stats.steps(FLIGHTS, 0, 1 << 60, MINUTE))

    append(stores, fresh('{"n": 1}'), fresh('{"n": 2}'), fresh("{broken"))
    jobs.land.execute_in_process(
        run_config=AT_ONCE, resources={"stores": stores}, instance=instance
    )
    assert counted() == 3

    append(stores, fresh('{"n": 3}'))
    assert stores.landing().land_once(FLIGHTS) is not None  # and nobody tells
    jobs.upkeep.execute_in_process(resources={"stores": stores}, instance=instance)

    assert counted() == 4


def test_a_run_that_is_told_to_end_ends_well(stores, instance) -> None:
    """Stopping an installation is no failure, and its next start must not find one."""
    append(stores, fresh('{"n": 1}'))
    before = signal.getsignal(signal.SIGTERM)

    def end_it_once_it_landed() -> None:
        until(lambda: (view := stores.lake.view(FLIGHTS)) is not None and view.rows == 1)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end_it_once_it_landed)
    ending.start()
    run = jobs.land.execute_in_process(
        run_config={"ops": {"drain": {"config": {"idle_seconds": 600.0}}}},
        resources={"stores": stores},
        instance=instance,
    )
    ending.join()

    assert run.success
    assert any(e.is_step_materialization for e in run.all_events)
    assert stores.store.lease("lane 0").until <= machine_clock(), "and the lease was given back"
    assert signal.getsignal(signal.SIGTERM) is before


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
        ("books", True),
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


def test_each_lane_where_events_wait_gets_a_run(tmp_path, instance) -> None:
    """The lane is in the run's config; one that drains already gets no second run."""
    with opened(load_settings(tmp_path, {}, lanes=2)) as stores:
        append(stores, fresh('{"n": 1}'))
        lane = "0" if Lane(0, 2).drains(FLIGHTS, 0) else "1"
        context = dg.build_sensor_context(instance=instance, resources={"stores": stores})

        asked = sensors.landing(context)
        stores.store.take_lease(f"lane {lane}", "somebody", machine_clock(), TTL)
        again = sensors.landing(context)

        (request,) = asked.run_requests
        assert request.tags == {LANE_TAG: lane}
        assert again.run_requests == []
        for number in ("0", "1"):
            config = {"ops": {"drain": {"config": {"lane": number, "idle_seconds": 0.0}}}}
            stores.store.drop_lease(f"lane {number}", 1)
            jobs.land.execute_in_process(
                run_config=config, resources={"stores": stores}, instance=instance
            )
            assert (stores.lake.view(FLIGHTS) is not None) == (number >= lane)


def test_landing_goes_on_while_the_metadata_is_away(tmp_path, instance) -> None:
    """The lease saves work, and contracts are in the doors' cache: neither must stop the log."""
    (tmp_path / "metadata.db").write_bytes(b"no database" * 1_000)
    open_cache(load_settings(tmp_path, {}).cache).publish(known)
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


def copied(stores: Stores) -> None:
    """Make the table anew from its rows, as another engine would: its marks are lost."""
    table = stores.lake.table(MAIN)
    rows = table.scan().to_arrow()
    stores.lake.catalog.drop_table(MAIN)
    stores.lake.catalog.create_table(MAIN, table.schema()).append(rows)


def test_a_stopped_collection_looks_stopped(stores, instance) -> None:
    """The run goes on with the others, and fails in the end; each place that shows it says so."""
    append(stores, fresh('{"n": 1}'))
    given = {"resources": {"stores": stores}, "instance": instance}
    jobs.land.execute_in_process(run_config=AT_ONCE, **given)
    copied(stores)
    append(stores, fresh('{"n": 2}'))
    other = CollectionId("main", "others")
    appender = open_appender(stores.settings.log)
    appender.append(other, [fresh('{"n": 3}')]).result(10)
    appender.close()
    brief = {"ops": {"drain": {"config": {"idle_seconds": 0.0, "minutes": 0.1}}}}

    run = jobs.land.execute_in_process(run_config=brief, raise_on_error=False, **given)
    results = {r.check_name: r for r in jobs.books(stores)}

    assert not run.success
    (failure,) = run.get_step_failure_events()
    assert "main.flights" in failure.step_failure_data.user_failure_data.description
    assert stores.lake.view(other).rows == 1
    observed = [
        record.asset_observation for record in instance.fetch_observations(EVENTS, limit=10).records
    ]
    assert [o.partition for o in observed] == ["main.flights"]
    assert "no marks" in observed[0].metadata["stopped"].value
    assert "resolve flights --by adopt-table" in observed[0].metadata["stopped"].value
    failed = {name for name, r in results.items() if not r.passed}
    assert failed == {"conservation", "marks", "books"}
    assert "no marks" in results["marks"].metadata["main.flights"].value
    assert "1 events landed" in results["conservation"].metadata["main.others"].value


def test_a_log_that_is_another_one_fails_the_checks_before_an_event_comes(stores, tmp_path) -> None:
    """It has no collection yet, so landing has nothing to stop for."""
    append(stores, fresh('{"n": 1}'))
    assert stores.landing().land_once(FLIGHTS)
    elsewhere = load_settings(tmp_path, {}, log_url=f"embedded://{tmp_path / 'new'}")
    open_appender(elsewhere.log).close()

    with opened(elsewhere) as others:
        results = {r.check_name: r for r in jobs.books(others)}

    assert not results["marks"].passed
    assert "another log" in results["marks"].metadata["main.flights"].value


def test_the_instance_watches_runs_and_retries_them(tmp_path) -> None:
    """A run that never starts, or was killed with its machine, would be left as it is."""
    settings = Path(orchestration.__file__).with_name("dagster.yaml")
    (tmp_path / "dagster.yaml").write_bytes(settings.read_bytes())

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_start_timeout_seconds == 60
        assert instance.run_retries_enabled


def test_an_upkeep_tells_dagster_what_it_did_and_one_at_a_time_does(stores, instance) -> None:
    """Two at once would do the same work; what was done is where operators look for it."""
    for number in range(6):
        append(stores, fresh(f'{{"n": {number}}}'))
        assert stores.landing().land_once(FLIGHTS)
    given = {"resources": {"stores": stores}, "instance": instance}

    epoch = stores.store.take_lease("upkeep", "somebody", machine_clock(), TTL)
    jobs.upkeep.execute_in_process(**given)
    assert not instance.fetch_observations(EVENTS, limit=10).records
    stores.store.drop_lease("upkeep", epoch)
    run = jobs.upkeep.execute_in_process(**given)

    assert run.success
    (record,) = instance.fetch_observations(EVENTS, limit=10).records
    told = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert record.asset_observation.partition == "main.flights"
    assert (told["files before"], told["files"], told["files merged"]) == (6, 1, 6)
    assert told["bytes rewritten"] > 0
    assert recall(stores.settings.home / "upkeep.json", Notes)[FLIGHTS].tended > 0
    assert jobs.kept_up(stores).passed


def test_an_upkeep_deletes_what_replays_wrote_long_ago(stores) -> None:
    """Never that of one which goes on, however long it stands still."""
    for name, state in (("old", "cancelled"), ("new", "cancelled"), ("paused", "paused")):
        stores.store.create_replay(replay(name, state="requested"))
        Segments(stores.settings.replay_files / name, About("main", "x", "ndjson")).append(
            {Position(0, 1): b"{}\n"}
        )
        if state == "cancelled":
            ended_at = NOON + (0 if name == "old" else 3 * DAY)
            stores.store.wish("main", name, "cancel", ended_at)
            assert stores.store.replay("main", name).state == "cancelled"

    assert forget_files(stores, lambda: NOON + 7 * DAY) == ["old"]
    assert forget_files(stores, lambda: NOON + 10 * DAY) == ["new"]
    assert [each.name for each in stores.settings.replay_files.iterdir()] == ["paused"]


def test_a_table_that_upkeep_is_behind_with_fails_the_check(stores, tmp_path) -> None:
    """Nobody sees tables become slow, commit by commit."""
    for number in range(6):
        append(stores, event(f'{{"n": {number}}}', received_at=machine_clock() - 86_400_000_000))
        assert stores.landing().land_once(FLIGHTS)

    behind = jobs.kept_up(stores)

    assert not behind.passed
    assert "penstock upkeep main.flights" in behind.metadata["main.flights"].value


def test_files_that_another_engine_did_not_merge_fail_the_run(stores, instance) -> None:
    """Tables become slow without it; whatever else upkeep does is done, and it is asked once."""
    orders = CollectionId("main", "orders")
    for number in range(6):
        received = machine_clock() - 86_400_000_000
        append(stores, event(f'{{"n": {number}}}', received_at=received))
        append(stores, event(f'{{"n": {number}}}', received_at=received), to=orders)
        assert stores.landing().land_once(FLIGHTS)
        assert stores.landing().land_once(orders)
    stores.merger = merger = Unwilling()

    run = jobs.upkeep.execute_in_process(
        resources={"stores": stores}, instance=instance, raise_on_error=False
    )

    assert not run.success
    logged = [record.user_message for record in instance.all_logs(run.run_id)]
    assert "files of main.flights were not merged: Trino cannot be reached now" in logged
    assert merger.asked == 1
    records = instance.fetch_observations(EVENTS, limit=10).records
    partitions = {record.asset_observation.partition for record in records}
    assert partitions == {"main.flights", "main.orders"}
    behind = jobs.kept_up(stores)
    assert not behind.passed
    assert "6 small files" in behind.metadata["main.orders"].value


def test_an_upkeep_drops_the_days_that_are_not_kept(stores, instance) -> None:
    """What the owner said is in the metadata, and the run tells what went."""
    stores.store.create_collection(CollectionRecord(id=FLIGHTS, created_at=0, keep_days=3))
    for days in (9, 8, 0):
        received = machine_clock() - days * 86_400_000_000
        append(stores, event('{"n": 1}', received_at=received))
        assert stores.landing().land_once(FLIGHTS)

    run = jobs.upkeep.execute_in_process(resources={"stores": stores}, instance=instance)

    assert run.success
    (record,) = instance.fetch_observations(EVENTS, limit=10).records
    told = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert (told["days dropped"], told["rows dropped"]) == (2, 2)
    assert stores.lake.view(FLIGHTS).rows == 1
    assert all(result.passed for result in jobs.books(stores))
