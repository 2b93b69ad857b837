from __future__ import annotations

import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from metadata_builders import collection
from platform_stand_ins import LOG_ID, Caller, InProcess, StandInLake, grant, table

from penstock.api.platform import Platform
from penstock.api.stats import step_for
from penstock.client import Client
from penstock.envelope import Span
from penstock.stats import MINUTE, Batch, Minute

STATS = "/api/v1/collections/flights/stats"
HOUR = 60 * MINUTE


@pytest.fixture
def reader(app: FastAPI, here: Platform) -> Caller:
    here.store.create_collection(collection())
    return Caller(app, grant(here.store, "read"))


def tell(here: Platform, start: int, count: int, received: int) -> None:
    minute = Minute(
        partition=0,
        start=received // MINUTE * MINUTE,
        events=count,
        bytes=100,
        quarantined=1,
        duplicates=2,
    )
    assert here.stats().add(
        Batch(
            collection=FLIGHTS,
            log_id=LOG_ID,
            spans=(Span(FLIGHTS, 0, start, start + count),),
            minutes=(minute,),
            landed_at=received,
            lag=1_500_000,
        )
    )


def test_the_last_day_is_told_in_steps(app: FastAPI, reader: Caller, here: Platform) -> None:
    tell(here, 0, 5, NOON - 26 * HOUR)
    tell(here, 5, 7, NOON - 2 * HOUR)
    tell(here, 12, 3, NOON - MINUTE)

    told = reader("GET", STATS).json()

    assert told["step_seconds"] == 3600
    assert len(told["steps"]) in (24, 25)
    assert sum(one["events"] for one in told["steps"]) == 10
    busy = [one for one in told["steps"] if one["events"]]
    assert [one["events"] for one in busy] == [7, 3]
    assert busy[0] | {"start": ""} == {
        "start": "",
        "events": 7,
        "bytes": 100,
        "quarantined": 1,
        "duplicates": 2,
        "lag_seconds": 1.5,
    }


def test_time_and_step_are_asked_for(app: FastAPI, reader: Caller, here: Platform) -> None:
    tell(here, 0, 5, NOON)
    client = Client("http://penstock", grant(here.store, "admin"), InProcess(app))
    told = reader(
        "GET", f"{STATS}?since=2025-11-24T15:00:00Z&until=2025-11-24T17:00:00Z&step=1800"
    ).json()

    assert [one["events"] for one in told["steps"]] == [0, 0, 5, 0]
    assert client.collection_stats("flights", step_seconds=3600).step_seconds == 3600


def test_what_has_landed_and_is_not_counted_yet_is_told(reader: Caller, here: Platform) -> None:
    """Who compares with the rows of the table must not take it for a loss."""
    lake = here.lake
    assert isinstance(lake, StandInLake)
    tell(here, 0, 5, NOON - HOUR)
    lake.views[FLIGHTS] = table(FLIGHTS, mark=9)

    assert reader("GET", STATS).json()["uncounted"] == 4


@pytest.mark.parametrize(
    "asked",
    [
        "since=2025-11-24T17:00:00Z&until=2025-11-24T16:00:00Z",
        "step=90",
        "step=30",
        "step=60&since=2020-01-01T00:00:00Z",
        "since=yesterday",
    ],
)
def test_what_cannot_be_asked_is_refused(reader: Caller, asked: str) -> None:
    assert reader("GET", f"{STATS}?{asked}").status_code in (400, 422)


def test_another_team_and_another_scope_learn_nothing(
    app: FastAPI, here: Platform, rival: Caller, reader: Caller
) -> None:
    assert rival("GET", STATS).status_code == 404
    assert Caller(app, grant(here.store, "ingest"))("GET", STATS).status_code == 403


@pytest.mark.parametrize(
    ("minutes", "step"),
    [(1, 1), (60, 1), (61, 5), (24 * 60, 60), (7 * 24 * 60, 180), (10**9, 40_320)],
)
def test_about_sixty_steps_fill_a_screen(minutes: int, step: int) -> None:
    assert step_for(minutes * MINUTE) == step * MINUTE
