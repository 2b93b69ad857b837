"""Dagster's side of columns made anew, in this process, with a home of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from builders import FLIGHTS, event
from lakes import MAIN
from metadata_builders import collection

from assets.stores import Stores, opened
from orchestration import jobs, rewriting
from orchestration.fitting import Fitted, fit_home
from orchestration.keys import EVENTS
from orchestration.lease import TTL
from orchestration.memory import recall, remember
from penstock.buffer import open_appender
from penstock.clock import machine_clock
from penstock.envelope import CollectionId
from penstock.errors import WrongState
from penstock.schema.shape import columns
from penstock.settings import load_settings


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(load_settings(tmp_path, {})) as stores:
        stores.store.create_collection(collection())
        yield stores


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def land(stores: Stores, *payloads: str) -> None:
    """Land each payload for itself."""
    work = stores.landing()
    for payload in payloads:
        appender = open_appender(stores.settings.log)
        appender.append(FLIGHTS, [event(payload, received_at=machine_clock())]).result(10)
        appender.close()
        assert work.land_once(FLIGHTS)


def kinds(stores: Stores) -> list[tuple[str, str]]:
    view = stores.lake.view(FLIGHTS)
    assert view is not None
    return columns(view.shape)


def observed(run: dg.ExecuteInProcessResult) -> list[dict[str, object]]:
    """Answer what was told about columns made anew."""
    events = [e.event_specific_data for e in run.all_events if e.is_asset_observation]
    found = [one.asset_observation for one in events]
    assert {one.asset_key for one in found} <= {EVENTS}
    return [
        {name: value.value for name, value in one.metadata.items()}
        for one in found
        if "columns changed" in one.metadata
    ]


def versions(stores: Stores) -> list[str]:
    """Answer what each version of the columns says of its last change."""
    found = stores.store.schema_versions(FLIGHTS)
    return [str(version.changes[-1]["what"]) for version in found]


@dg.job(executor_def=dg.in_process_executor)
def fit_alone() -> None:
    """Only the part of upkeep that is tested here."""
    rewriting.fit_types()


def test_upkeep_retypes_what_is_due_and_looks_again_only_when_something_landed(
    stores, instance
) -> None:
    """Every ten minutes and in hundreds of collections: who got nothing is not read."""

    def upkeep() -> list[dict[str, object]]:
        run = jobs.upkeep.execute_in_process(resources={"stores": stores}, instance=instance)
        assert run.success
        return observed(run)

    land(stores, '{"n": 5}', '{"n": 5.99}')
    (told,) = upkeep()
    assert told["columns changed"] == [
        {"path": "n", "what": "retyped", "before": "long", "after": "double"}
    ]
    assert (told["misfits before"], told["misfits after"], told["rows"]) == (1, 0, 2)
    assert kinds(stores) == [("n", "double")]
    assert versions(stores) == ["added", "retyped"]

    land(stores, '{"m": 1}')
    assert upkeep() == []
    table = stores.lake.table(MAIN)
    assert table is not None
    for task in table.scan().plan_files():
        Path(task.file.file_path.removeprefix("file://")).unlink()
    again = fit_alone.execute_in_process(resources={"stores": stores}, instance=instance)
    assert again.success, "nothing is read: the files are not even there"


def test_two_upkeeps_at_once_do_not_forget_what_the_other_has_looked_at(stores, instance) -> None:
    """Both read the notes and wrote all of them again: the later one's were the only ones."""
    land(stores, '{"n": 5}')
    file = stores.settings.home / "retype.json"
    other = CollectionId("main", "others")
    epoch = stores.store.take_lease("retype", "somebody", machine_clock(), TTL)

    beside = fit_alone.execute_in_process(resources={"stores": stores}, instance=instance)
    assert beside.success
    assert recall(file, int) == {}, "somebody else is at it"
    with pytest.raises(WrongState, match="another upkeep"):
        next(fit_home(stores, [FLIGHTS], holder="me"))

    stores.store.drop_lease("retype", epoch)
    stores.lake.create(other)
    remember(file, {other: 7})
    assert list(fit_home(stores, [FLIGHTS], holder="me")) == []
    view = stores.lake.view(FLIGHTS)
    assert recall(file, int) == {other: 7, FLIGHTS: view.landed_sequence}


def test_who_has_lost_the_lease_looks_no_further_and_writes_no_notes(stores) -> None:
    """Somebody else is at it by then, and remembers."""
    land(stores, '{"n": 5}', '{"n": 5.99}')
    later = CollectionId("main", "later")
    stores.lake.create(later)
    work = fit_home(stores, [FLIGHTS, later], holder="me", beat_seconds=0.01)

    assert isinstance(next(work), Fitted)
    stores.store.drop_lease("retype", stores.store.lease("retype").epoch)
    deadline = time.monotonic() + 20
    while any(one.name == "lease retype" for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert list(work) == []
    assert recall(stores.settings.home / "retype.json", int) == {}


def test_a_job_retypes_the_columns_that_were_asked_for(stores, instance) -> None:
    """From the launchpad, first dry."""
    land(stores, '{"n": 5, "m": 1}')

    def run(*, dry_run: bool) -> list[dict[str, object]]:
        config = {"collection": "main.flights", "columns": ["n"], "dry_run": dry_run}
        ran = rewriting.retype.execute_in_process(
            run_config={"ops": {"make_doubles": {"config": config}}},
            resources={"stores": stores},
            instance=instance,
        )
        return observed(ran)

    (dry,) = run(dry_run=True)
    assert dry["snapshot"] == "None"
    assert kinds(stores) == [("n", "long"), ("m", "long")]
    assert run(dry_run=False) != []
    assert kinds(stores) == [("n", "double"), ("m", "long")]


def test_a_job_rebuilds_a_collection(stores, instance) -> None:
    """What a first batch decided is forgotten."""
    land(stores, '{"n": 5, "s": 1}', '{"n": 6, "s": "x"}', '{"n": 7.5, "s": "y"}')

    run = rewriting.rebuild.execute_in_process(
        run_config={"ops": {"make_columns": {"config": {"collection": "main.flights"}}}},
        resources={"stores": stores},
        instance=instance,
    )

    (told,) = observed(run)
    assert kinds(stores) == [("n", "double"), ("s", "string")]
    assert (told["misfits before"], told["misfits after"]) == (3, 1)
    assert versions(stores)[-1] == "retyped"
