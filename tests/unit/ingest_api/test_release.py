"""The platform's own way in: released events keep their envelope, and nobody else has that way."""

from __future__ import annotations

import msgspec
import pytest
from builders import NOON, event
from door_builders import ADMIN, OTHER_TEAM, READER, TOKEN, FailingLog, Reply, client_on, door_on

from penstock.envelope import Event
from penstock.quarantine.release import Origin, Release, marked

RELEASE = "/v1/release/flights"
MARKS = marked({"topic": "t"}, Release("r1", Origin("log", 0, 7), "ann", NOON, 2))


def post(log: FailingLog, *events: Event, token: str = ADMIN, path: str = RELEASE) -> Reply:
    body = msgspec.msgpack.encode(events)
    return client_on(door_on(log)).post(body, path, token=token)


def test_a_released_event_keeps_everything_but_the_time_of_receipt() -> None:
    log = FailingLog()
    sent = event(
        b"\xff",
        id="e1",
        received_at=1,
        key=b"k",
        headers=(("x", b"\xfe"),),
        metadata=MARKS,
        event_time=5,
        source="kafka",
        quarantine=True,
    )

    reply = post(log, sent)

    assert (reply.status, reply.json()["accepted"]) == (202, 1)
    [stored] = log.events
    assert stored.received_at >= NOON
    assert stored == msgspec.structs.replace(
        sent, received_at=stored.received_at, quarantine=False, named=True
    )


@pytest.mark.parametrize(
    ("token", "status"), [(TOKEN, 403), (READER, 403), (OTHER_TEAM, 404), ("pst_x", 401)]
)
def test_only_an_admin_of_the_team_may_release(token: str, status: int) -> None:
    """A sender could close other people's quarantined events otherwise."""
    log = FailingLog()

    assert post(log, event(metadata=MARKS), token=token).status == status
    assert log.events == []


@pytest.mark.parametrize("metadata", [{}, {**MARKS, "penstock_released_from": "log"}])
def test_an_event_without_the_marks_of_a_release_is_refused(metadata: dict[str, str]) -> None:
    log = FailingLog()

    reply = post(log, event(metadata=MARKS), event(metadata=metadata))

    assert (reply.status, log.events) == (400, [])


def test_what_is_no_list_of_events_is_refused() -> None:
    client = client_on(door_on(FailingLog()))

    assert client.post(b"\xc1", RELEASE, token=ADMIN).status == 400
    assert client.post(msgspec.msgpack.encode([{"id": 1}]), RELEASE, token=ADMIN).status == 400


def test_a_paused_collection_takes_no_released_events_either() -> None:
    assert post(FailingLog(), event(metadata=MARKS), path="/v1/release/paused").status == 409


def test_each_event_has_its_outcome() -> None:
    log = FailingLog()

    reply = post(log, event(b"x" * 2_000, id="e1", metadata=MARKS), event(id="e2", metadata=MARKS))

    assert [part["status"] for part in reply.json()["outcomes"]] == [413, 202]
