"""Which replays the sensor launches, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import dagster as dg
import pytest
from builders import FLIGHTS, NOON, event
from lakes import landing, new_lake
from metadata_builders import replay
from msgspec.structs import replace
from platform_stand_ins import plan
from ready_store import ready_store

from assets.stores import Stores
from lakehouse import Lake
from orchestration.sensors import TICK_SECONDS, has_work, launchable, replays
from penstock.buffer.memory import MemoryLog
from penstock.envelope import CollectionId, Extent
from penstock.errors import LogReplaced, LogUnavailable
from penstock.metadata.records import ReplayRecord
from penstock.metadata.store import Store
from replay.job import REPLAY_TAG
from replay.request import ReplayRequest, read_request, record_of


def test_a_fresh_request_is_left_to_the_api_unless_it_was_to_start_later() -> None:
    """Two runs of one replay would be launched; nobody else launches one that starts later."""
    soon, later = NOON + 1, NOON + 2 * TICK_SECONDS * 1_000_000

    assert not launchable(replay(), soon)
    assert launchable(replay(), later)
    assert launchable(replace(replay(), start_at=soon), soon)


CONTINUOUS = read_request(
    {"collection": "flights", "destination": "d1", "continuous": True}, team="main"
)


def at_rest(request: ReplayRequest, *, end: int) -> ReplayRecord:
    """Answer a replay that has sent everything up to an offset, and that nobody holds."""
    found = replace(plan(request, count=0), log_id=MemoryLog().log_id(FLIGHTS), pin=None)
    return replace(
        record_of(request, id="r1", now=NOON),
        state="running",
        plan=replace(found, ends=((0, end),)).as_dict(),
    )


@dataclass
class Home:
    """Stands where the stores of a home stand."""

    store: Store
    buffer: MemoryLog
    lake: Lake


def test_a_continuous_replay_is_launched_when_something_has_landed(tmp_path: Path) -> None:
    """Its run ends when there is nothing to do: without this, so would the replay."""
    home = Home(ready_store(tmp_path), MemoryLog(), new_lake(tmp_path))
    home.store.create_replay(at_rest(CONTINUOUS, end=1))

    def launched() -> list[str]:
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(instance, resources={"stores": home})
            result = replays(context)
        assert isinstance(result, dg.SensorResult)
        return [each.tags[REPLAY_TAG] for each in result.run_requests or ()]

    home.buffer.append(FLIGHTS, [event(b'{"n": 1}')])
    landing(home.buffer, home.lake).land_once(FLIGHTS)
    assert launched() == [], "it has sent that"
    home.buffer.append(FLIGHTS, [event(b'{"n": 2}')])
    assert launched() == [], "it has not landed"
    landing(home.buffer, home.lake).land_once(FLIGHTS)
    assert launched() == ["r1"]
    home.store.close()


class Broken:
    """Stands where log and lake stand, and answers everything with an error."""

    def __init__(self, error: Exception) -> None:
        self.lake = self.buffer = self
        self._error = error

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        raise self._error


@pytest.mark.parametrize(
    ("error", "launched"),
    [(LogUnavailable("away"), False), (LogReplaced("another one"), True)],
    ids=["away", "replaced"],
)
def test_a_replay_that_rests_holds_up_no_other(error: Exception, launched: bool) -> None:
    """What is wrong with one collection is for its own run to say, or passes."""
    asked = CONTINUOUS
    resting = at_rest(asked, end=20)
    with dg.build_sensor_context() as context:
        assert has_work(context, resting, cast("Stores", Broken(error))) is launched
        assert has_work(context, replay(), cast("Stores", Broken(error))), "no other rests"
