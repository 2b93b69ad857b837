from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from metadata_builders import collection, destination, replay
from platform_stand_ins import (
    Caller,
    InProcess,
    StandInBuffer,
    StandInDagster,
    StandInSearcher,
    found,
    grant,
    plan,
    platform,
)

from penstock.api.platform import Platform
from penstock.client import Client
from penstock.contract.replays import PlanTold, ReplayAsked
from penstock.envelope import Extent
from penstock.errors import NotFound, WrongState
from penstock.search import SearchRequest
from replay.ledger import ATTEMPTS
from replay.plan import Plan
from replay.progress import Progress, Reached
from replay.request import Options, ReplayRequest

ASKED = {"collection": "flights", "query": "carrier:UA", "destination": "billing"}
SECOND = 1_000_000
PLAN = plan(ReplayRequest(team="main", collection="flights", destination="billing"))


@pytest.fixture
def dagster() -> StandInDagster:
    return StandInDagster()


@pytest.fixture
def here(tmp_path: Path, dagster: StandInDagster) -> Iterator[Platform]:
    made = platform(tmp_path, launch=dagster.launch)
    made.store.create_collection(collection())
    made.store.add_destination(destination())
    yield made
    made.store.close()


@pytest.fixture
def replayer(app: FastAPI, here: Platform) -> Caller:
    return Caller(app, grant(here.store, "replay"))


def test_a_replay_is_made_and_launched(
    replayer: Caller, here: Platform, dagster: StandInDagster
) -> None:
    made = replayer(
        "POST",
        "/api/v1/replays",
        {**ASKED, "since": "2025-11-24T16:00:00Z", "rate": 10, "order": "log"},
    )

    assert made.status_code == 201
    told = made.json()
    assert (told["state"], told["run_id"], told["since"]) == (
        "requested",
        "run-1",
        "2025-11-24T16:00:00.000000Z",
    )
    assert (told["options"]["rate"], told["options"]["order"]) == (10, "log")
    assert dagster.launched == [told["id"]]
    assert replayer("GET", f"/api/v1/replays/{told['id']}").json() == told
    assert replayer("GET", "/api/v1/replays").json() == [told]


def test_a_replay_waits_for_dagster(
    replayer: Caller, here: Platform, dagster: StandInDagster
) -> None:
    """What a person asked for is not lost because the engine was away for a minute."""
    dagster.away = True
    made = replayer("POST", "/api/v1/replays", ASKED)

    assert made.status_code == 201
    assert made.json()["run_id"] is None
    assert [r.state for r in here.store.open_replays()] == ["requested"]


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        ({"collection": "trains"}, 404, "no collection 'trains'"),
        ({"collection": "rivals.flights"}, 400, "own team"),
        ({"destination": "nowhere"}, 404, "no destination 'nowhere'"),
        ({"rate": 0}, 400, "rate"),
        ({"concurrency": 5000}, 400, "concurrency"),
        ({"order": "random"}, 400, "order"),
        ({"speed": -1}, 400, "speed"),
        ({"gap": 0}, 400, "gap"),
        ({"timing": "landed"}, 400, "timing"),
        ({"sped": 2}, 400, "sped: there is no such field"),
        ({"team": "rivals"}, 400, "team: there is no such field"),
        ({"since": "2025-11-24T16:00:00Z", "until": "2025-11-24T16:00:00Z"}, 400, "empty"),
        ({"since": "yesterday"}, 400, "since"),
        ({"query": "carrier:>"}, 400, "at character"),
        ({"query": "* ${LIMIT 5}"}, 400, "max_events"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    replayer: Caller, here: Platform, change: dict[str, object], status: int, why: str
) -> None:
    refused = replayer("POST", "/api/v1/replays", {**ASKED, **change})

    assert refused.status_code == status
    assert why in refused.json()["detail"]
    assert here.store.replays("main") == []


def test_a_plan_says_what_would_be_sent_and_makes_nothing(
    replayer: Caller, here: Platform, dagster: StandInDagster
) -> None:
    told = replayer("POST", "/api/v1/replays/plan", ASKED).json()

    assert told == {
        "count": 10,
        "bytes": 1000,
        "folded": 0,
        "to_send": 10,
        "first": {
            "event_id": "e1",
            "received_at": "2025-11-24T16:00:00.000000Z",
            "partition": 0,
            "offset": 3,
        },
        "last": None,
        "earliest": None,
        "latest": None,
        "spans": [{"partition": 0, "start": 3, "end": 20, "events": 10}],
        "estimated_seconds": 1.5,
        "warnings": ["nothing was sent"],
        "snapshot_id": "6000000000000000001",
    }
    assert here.store.replays("main") == []
    assert dagster.launched == []
    assert here.bus.sent == [("land", "main.flights")]
    assert replayer("POST", "/api/v1/replays/plan", {**ASKED, "confirm": 3}).status_code == 400


def test_the_api_takes_and_tells_all_that_a_replay_has(replayer: Caller) -> None:
    """An option that only the engine knows is refused by the API, whatever the page says."""
    outer = {"collection", "query", "destination", "since", "until"}

    made = replayer("POST", "/api/v1/replays", {**ASKED, "duplicates": "include"}).json()

    assert made["options"]["duplicates"] == "include"
    assert set(ReplayAsked.model_fields) == outer | set(Options.__struct_fields__)
    kept = {"digest", "now", "log_id", "ends", "marks", "table_uuid", "pin"}
    assert set(PlanTold.model_fields) == set(Plan.__struct_fields__) - kept


def test_wishes_reach_whoever_sends(replayer: Caller, here: Platform) -> None:
    replay_id = replayer("POST", "/api/v1/replays", ASKED).json()["id"]
    mine = here.store.claim_replay(replay_id, "run-1", NOON, 10 * SECOND)
    assert mine is not None
    here.store.checkpoint_replay(
        replay_id, mine.epoch, progress={}, state="running", now=NOON, ttl=10 * SECOND
    )

    asked = replayer("POST", f"/api/v1/replays/{replay_id}/pause").json()

    assert (asked["state"], asked["wish"]) == ("running", "pause")


def test_a_resumed_replay_gets_a_run_of_its_own(replayer: Caller, dagster: StandInDagster) -> None:
    replay_id = replayer("POST", "/api/v1/replays", ASKED).json()["id"]
    path = f"/api/v1/replays/{replay_id}"

    assert replayer("POST", f"{path}/pause").json()["state"] == "paused"
    assert dagster.launched == [replay_id]
    resumed = replayer("POST", f"{path}/resume").json()
    assert (resumed["state"], resumed["run_id"]) == ("requested", "run-2")
    assert dagster.launched == [replay_id, replay_id]
    assert replayer("POST", f"{path}/cancel").json()["state"] == "cancelled"
    assert replayer("POST", f"{path}/resume").status_code == 409
    assert dagster.launched == [replay_id, replay_id]


def test_a_replay_of_very_many_events_has_to_be_confirmed(replayer: Caller, here: Platform) -> None:
    """One word left out of a query must not send a million events to somebody's endpoint."""
    buffer, searcher = here.buffer, here.searcher
    assert isinstance(buffer, StandInBuffer)
    assert isinstance(searcher, StandInSearcher)
    searcher.number = 5_000
    assert replayer("POST", "/api/v1/replays", ASKED).status_code == 201, "so many never arrived"
    buffer.held[FLIGHTS] = {0: Extent(9_000, 10_000)}

    refused = replayer("POST", "/api/v1/replays", ASKED)
    assert refused.status_code == 400
    assert "5,000 events to 'billing'" in refused.json()["detail"]
    for change, status in (
        ({"confirm": 4_999}, 400),
        ({"confirm": 5_000}, 201),
        ({"max_events": 1_000}, 201),
        ({"max_events": 1_001}, 400),
        ({"dry_run": True}, 201),
    ):
        answer = replayer("POST", "/api/v1/replays", {**ASKED, **change})
        assert answer.status_code == status, change
    assert searcher.asked[-1] == SearchRequest(
        collection=FLIGHTS, query="carrier:UA", since=None, until=None, view="main", closed=True
    )
    searcher.number = 1_000
    assert replayer("POST", "/api/v1/replays", ASKED).status_code == 201


def test_the_books_account_for_every_event(replayer: Caller, here: Platform) -> None:
    replay_id = replayer("POST", "/api/v1/replays", ASKED).json()["id"]
    path = f"/api/v1/replays/{replay_id}/report"
    assert replayer("GET", path).status_code == 409, "there is no plan to account for"
    mine = here.store.claim_replay(replay_id, "run-1", NOON, SECOND)
    assert mine is not None

    def checkpoint(**values: object) -> dict[str, int]:
        here.store.checkpoint_replay(
            replay_id,
            mine.epoch,
            progress={"delivered": 5, "failed": 2, "attempts": 9},
            plan=PLAN.as_dict(),
            now=NOON,
            ttl=SECOND,
            **values,
        )
        books: dict[str, int] = replayer("GET", path).json()
        return books

    running = checkpoint(state="running")
    assert (running["matched"], running["delivered"], running["waiting"]) == (10, 5, 3)
    ended = checkpoint(state="cancelled")
    assert (ended["failed"], ended["skipped"], ended["waiting"], ended["attempts"]) == (2, 3, 0, 9)
    told = replayer("GET", f"/api/v1/replays/{replay_id}").json()
    assert (told["progress"]["delivered"], told["progress"]["failed"]) == (5, 2)
    assert told["plan"]["count"] == 10


def test_the_client_speaks_of_replays(app: FastAPI, here: Platform) -> None:
    client = Client("http://penstock", grant(here.store, "replay"), InProcess(app))

    made = client.create_replay(
        "flights", "carrier:UA", destination="billing", rate=5.0, dry_run=True
    )

    assert made.options["dry_run"] is True
    assert client.plan_replay("flights", destination="billing").count == 10
    assert client.replay(made.id) == made
    assert client.replays() == [made]
    assert client.pause_replay(made.id).state == "paused"
    assert client.resume_replay(made.id).state == "requested"
    with pytest.raises(WrongState, match="no plan"):
        client.replay_report(made.id)
    assert client.cancel_replay(made.id).state == "cancelled"
    with pytest.raises(NotFound):
        client.replay("r9")


def test_a_replay_says_who_asked_and_why(replayer: Caller) -> None:
    """Weeks later nobody remembers why a thousand events came twice."""
    told = replayer("POST", "/api/v1/replays", {**ASKED, "why": "billing was down"}).json()

    assert told["why"] == "billing was down"
    assert told["asked_by"].startswith("test (")
    assert replayer("POST", "/api/v1/replays", {**ASKED, "why": "x" * 201}).status_code == 400


def test_the_pace_changes_and_nothing_else(replayer: Caller, here: Platform) -> None:
    made = replayer("POST", "/api/v1/replays", {**ASKED, "rate": 10, "order": "log"}).json()
    path = f"/api/v1/replays/{made['id']}"

    told = replayer("PATCH", path, {"rate": None}).json()
    assert told["options"] == {**made["options"], "rate": None}
    assert replayer("PATCH", path, {"concurrency": 4}).json()["options"]["concurrency"] == 4
    told = replayer("PATCH", path, {"speed": 10, "gap": 5}).json()
    assert (told["options"]["speed"], told["options"]["gap"]) == (10, 5)
    assert replayer("PATCH", path, {"gap": None}).json()["options"]["gap"] is None
    for change in (
        *({"rate": 0}, {"concurrency": 0}, {"order": "key"}, {"rate": "fast"}),
        *({"speed": -1}, {"speed": "1x"}, {"gap": 0}, {"timing": "event"}),
    ):
        assert replayer("PATCH", path, change).status_code == 400, change
    assert here.store.replay("main", made["id"]).options["order"] == "log"

    replayer("POST", f"{path}/cancel")
    assert replayer("PATCH", path, {"rate": 5}).status_code == 409


def test_a_preview_is_what_would_be_sent_first(replayer: Caller, here: Platform) -> None:
    searcher = here.searcher
    assert isinstance(searcher, StandInSearcher)
    searcher.events = [
        found("ä{".encode() * 3_000, headers=(("X-Trace", b"\xff"),), key=b"\xff"),
        found(b"\xff\x00", event_id="e2"),
    ]

    first, second = replayer("POST", "/api/v1/replays/preview", ASKED).json()

    assert searcher.asked[-1].newest_first is False
    assert searcher.asked[-1].query == ASKED["query"]
    assert (first["bytes"], len(first["payload"].encode())) == (9_000, 4_095)
    assert (first["key"], first["key_base64"]) == (None, "/w==")
    assert (second["payload"], second["payload_base64"]) == (None, "/wA=")
    assert ["authorization", None] in first["headers"]
    assert "hidden" not in str(first)
    assert here.store.replays("main") == []


def test_failures_are_those_of_the_ledger(replayer: Caller, here: Platform) -> None:
    made = replayer("POST", "/api/v1/replays", ASKED).json()
    path = f"/api/v1/replays/{made['id']}"
    assert replayer("GET", f"{path}/failures").json() == {"failures": [], "complete": True}
    assert replayer("GET", f"{path}/course").json() == []

    run = here.store.claim_replay(made["id"], "run", NOON, 60 * SECOND)
    assert run is not None
    progress = Progress(failed=1, at=NOON, course=(Reached(NOON, 2, 1),))
    here.store.checkpoint_replay(
        run.id, run.epoch, progress=progress.as_dict(), now=NOON, ttl=60 * SECOND
    )
    here.store.create_collection(collection(ATTEMPTS))
    searcher = here.searcher
    assert isinstance(searcher, StandInSearcher)
    searcher.events = [
        found(
            b'{"event_id": "e9", "partition": 0, "offset": 9, "attempt": 3, "status": 410,'
            b' "reason": "answered 410", "at": "2025-11-24T16:00:00.000000Z"}'
        )
    ]

    [failure] = replayer("GET", f"{path}/failures").json()["failures"]
    assert (failure["reason"], failure["events"]) == ("answered 410", 1)
    assert failure["examples"][0]["event_id"] == "e9"
    assert searcher.asked[-1].collection == ATTEMPTS
    assert made["id"] in searcher.asked[-1].query
    assert replayer("GET", f"{path}/course").json() == [
        {"at": "2025-11-24T16:00:00.000000Z", "delivered": 2, "failed": 1}
    ]


def test_of_another_teams_replay_nothing_is_told(app: FastAPI, here: Platform) -> None:
    here.store.create_replay(replay("r1"))
    rival = Caller(app, grant(here.store, "admin", team="rivals"))

    for path in ("/api/v1/replays/r1/failures", "/api/v1/replays/r1/course"):
        assert rival("GET", path).status_code == 404
    assert rival("PATCH", "/api/v1/replays/r1", {"rate": 1}).status_code == 404
