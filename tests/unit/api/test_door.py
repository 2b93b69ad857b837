"""The platform's way to a door, against a real one."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from builders import FLIGHTS, NOON, event
from door_builders import ADMIN, READER, FailingLog, client_on, door_on
from served import served

from penstock.api.door import DoorRoute
from penstock.envelope import CollectionId, Event
from penstock.errors import CollectionPaused, EngineUnavailable, Forbidden, LogUnavailable
from penstock.quarantine.release import Origin, Release, marked


def released(payload: bytes = b"{}", name: str = "e1") -> Event:
    mark = Release("r1", Origin("log", 0, 7), "ann", NOON, 2)
    return event(payload, id=name, metadata=marked({}, mark))


@pytest.fixture
def log() -> FailingLog:
    return FailingLog()


@pytest.fixture
def route(log: FailingLog) -> Iterator[DoorRoute]:
    with served(client_on(door_on(log)).app, lifespan="off") as url:
        route = DoorRoute(url)
        yield route
        route.close()


def test_what_is_durable_and_what_is_refused_is_told_by_event(
    route: DoorRoute, log: FailingLog
) -> None:
    door = route.with_token(ADMIN)

    assert door.send(FLIGHTS, [released(), released(name="e2")]) == [None, None]
    [large, small] = door.send(FLIGHTS, [released(b"x" * 2_000), released(name="e4")])
    [alone] = door.send(FLIGHTS, [released(b"x" * 2_000)])

    assert small is None
    assert large is not None
    assert "2,000 bytes" in large
    assert alone == large
    assert [one.id for one in log.events] == ["e1", "e2", "e4"]


def test_what_is_not_known_to_be_durable_is_an_error(route: DoorRoute, log: FailingLog) -> None:
    """It is sent again: landing folds what came twice."""
    door = route.with_token(ADMIN)
    log.broken = {b"bad": LogUnavailable("full")}
    with pytest.raises(EngineUnavailable):
        door.send(FLIGHTS, [released(), released(b"bad")])
    log.error = LogUnavailable("full")
    with pytest.raises((EngineUnavailable, LogUnavailable)):
        door.send(FLIGHTS, [released()])


def test_the_door_decides_about_the_callers_token(route: DoorRoute) -> None:
    with pytest.raises(Forbidden):
        route.with_token(READER).send(FLIGHTS, [released()])
    with pytest.raises(CollectionPaused):
        route.with_token(ADMIN).send(CollectionId("main", "paused"), [released()])


def test_a_door_that_is_away_is_told_with_what_to_do() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    route = DoorRoute("http://door", transport=httpx.MockTransport(refuse))
    with pytest.raises(EngineUnavailable, match="release the same again"):
        route.with_token(ADMIN).send(FLIGHTS, [released()])
    route.close()
