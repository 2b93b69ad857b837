"""The platform over the real embedded stores: what a sender was told is there can be found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from builders import FLIGHTS, event, numbered, ticking
from platform_stand_ins import InProcess, grant

from assets.stores import Stores
from penstock.api.app import create_app
from penstock.api.dagster import Dagster
from penstock.api.platform import Platform
from penstock.api.serve import opened
from penstock.buffer import open_appender
from penstock.client import Client
from penstock.errors import BadSql, NotFound
from penstock.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(tmp_path / "home", {})


@pytest.fixture
def here(settings: Settings) -> Iterator[Platform]:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nothing there")

    dagster = Dagster("http://dagster.test", transport=httpx.MockTransport(refuse))
    with opened(settings, dagster) as platform:
        yield platform


@pytest.fixture
def client(here: Platform) -> Client:
    return Client("http://penstock", grant(here.store, "admin"), InProcess(create_app(here)))


def send(settings: Settings, *payloads: str) -> None:
    clock, ids = ticking(), numbered()
    events = [event(p, id=i, received_at=clock()) for p, i in zip(payloads, ids(9), strict=False)]
    appender = open_appender(settings.log)
    appender.append(FLIGHTS, events).result(10)
    appender.close()


def test_an_event_is_found_counted_asked_for_and_planned_before_and_after_it_lands(
    settings: Settings, client: Client
) -> None:
    client.create_collection("flights")
    client.create_destination("billing", "https://billing.example/")
    send(settings, '{"carrier": "UA"}', '{"carrier": "AA"}', '{"carrier": "UA", "delay": 40}')

    def ask() -> tuple[object, ...]:
        return (
            [e.event_id for e in client.search("flights", "carrier:UA").events],
            [e.event_id for e in client.search_all("flights", order="oldest", page=2)],
            client.count("flights", "delay:>30").count,
            sum(bar.count for bar in client.histogram("flights").bars),
            client.event("flights", "id-2").payload,
        )

    before = ask()
    assert client.collection_status("flights").waiting == 3
    stores = Stores(settings)
    stores.landing().land_once(FLIGHTS)
    stores.store.close()
    stores.buffer.close()

    assert before == (["id-3", "id-1"], ["id-1", "id-2", "id-3"], 1, 3, '{"carrier": "AA"}')
    assert ask() == before
    status = client.collection_status("flights")
    assert (status.waiting, status.rows, status.columns) == (0, 3, 2)
    assert [c.path for c in client.schema("flights").columns] == ["carrier", "delay"]
    answer = client.sql("select data.carrier, count(*) from flights group by 1 order by 1")
    assert answer.rows == [["AA", 1], ["UA", 2]]
    assert b"".join(client.sql_csv("select event_id from flights order by 1")).split() == [
        b"event_id",
        b"id-1",
        b"id-2",
        b"id-3",
    ]
    planned = client.plan_replay("flights", "carrier:UA", destination="billing")
    assert planned.count == 2
    assert planned.first is not None
    assert planned.first.event_id == "id-1"


def test_a_home_without_events_answers_everything(settings: Settings, client: Client) -> None:
    open_appender(settings.log).close()
    client.create_collection("flights")

    assert client.health().status == "ok"
    assert client.search("flights").events == []
    assert client.count("flights").count == 0
    assert client.histogram("flights").bars == []
    with pytest.raises(NotFound):
        client.event("flights", "e1")
    with pytest.raises(BadSql, match="no tables yet"):
        client.sql("select * from flights")
    assert client.status().collections[0].rows == 0
    assert client.collection("penstock_system.replay_attempts").paused is False


def test_another_team_finds_nothing_of_it(settings: Settings, here: Platform) -> None:
    app = create_app(here)
    mine = Client("http://penstock", grant(here.store, "admin"), InProcess(app))
    theirs = Client("http://penstock", grant(here.store, "admin", team="rivals"), InProcess(app))
    mine.create_collection("flights")
    theirs.create_collection("flights")
    send(settings, '{"secret": "treasure"}')
    stores = Stores(settings)
    stores.landing().land_once(FLIGHTS)
    stores.store.close()
    stores.buffer.close()

    assert mine.count("flights", "treasure").count == 1
    assert theirs.count("flights", "treasure").count == 0
    for statement in (
        "select * from flights",
        "select * from main.flights",
        "select * from main__quarantine.flights",
    ):
        with pytest.raises(BadSql, match="there is no table"):
            theirs.sql(statement)
