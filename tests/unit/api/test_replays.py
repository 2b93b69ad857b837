from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import pytest
from builders import FLIGHTS, NOON, event
from fastapi import FastAPI
from metadata_builders import collection, destination, replay
from msgspec.structs import replace
from platform_stand_ins import (
    Caller,
    InProcess,
    StandInBuffer,
    StandInDagster,
    StandInPlanner,
    StandInSearcher,
    found,
    grant,
    plan,
    platform,
)

from penstock.api.app import create_app
from penstock.api.platform import Platform
from penstock.client import Client
from penstock.contract.replays import PlanTold, ReplayAsked
from penstock.envelope import CollectionId, Extent, Position
from penstock.errors import NotFound, WrongState
from penstock.lines import line_of
from penstock.metadata.keys import NO_KEYS
from penstock.schema.formats import Format
from penstock.search import SearchRequest
from penstock.vocabulary import State
from replay.files import About, Segments
from replay.ledger import ATTEMPTS
from replay.plan import Plan
from replay.progress import Progress, Reached
from replay.request import Options, ReplayRequest, rfc3339

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
    # A retry is asked for by a way of its own.
    assert set(ReplayAsked.model_fields) | {"retry_of"} == outer | set(Options.__struct_fields__)
    kept = {"digest", "now", "log_id", "ends", "marks", "table_uuid", "pin", "ledger"}
    kept |= {"leg", "before", "starts", "oldest"}
    assert set(PlanTold.model_fields) == set(Plan.__struct_fields__) - kept


def test_a_replay_that_starts_later_waits_and_can_be_cancelled(
    replayer: Caller, here: Platform, dagster: StandInDagster
) -> None:
    """Nobody launches it before: it is the sensor's once its time has come."""
    later = "2025-11-25T03:00:00.000000Z"

    made = replayer("POST", "/api/v1/replays", {**ASKED, "start_at": later}).json()

    assert (made["state"], made["start_at"], made["run_id"]) == ("requested", later, None)
    assert dagster.launched == []
    path = f"/api/v1/replays/{made['id']}"
    assert replayer("POST", f"{path}/pause").json()["state"] == "paused"
    assert replayer("POST", f"{path}/resume").json()["state"] == "requested"
    assert dagster.launched == []
    with pytest.raises(WrongState):
        here.store.claim_replay(made["id"], "run-1", NOON, 10 * SECOND)
    assert replayer("POST", f"{path}/cancel").json()["state"] == "cancelled"


def test_a_continuous_replay_begins_when_it_is_asked_for(
    replayer: Caller, here: Platform, dagster: StandInDagster
) -> None:
    """And says how far it is behind, the newest event of which came at noon."""
    assert isinstance(here.buffer, StandInBuffer)
    made = replayer("POST", "/api/v1/replays", {**ASKED, "continuous": True}).json()
    path = f"/api/v1/replays/{made['id']}"

    assert dagster.launched == [made["id"]]
    assert (made["state"], made["plan"]["count"]) == ("requested", 0)
    assert replayer("GET", path).json()["behind"] == {"events": 0, "seconds": None}
    here.buffer.held[FLIGHTS] = {0: Extent(0, 25)}
    assert replayer("GET", path).json()["behind"] == {"events": 5, "seconds": 0.0}
    [listed] = replayer("GET", "/api/v1/replays").json()
    assert listed["behind"] == {"events": 5, "seconds": None}

    replayer("POST", f"{path}/cancel")
    assert replayer("GET", path).json()["behind"] is None


def test_metrics_say_how_far_each_continuous_replay_of_the_team_is_behind(
    app: FastAPI, replayer: Caller, here: Platform
) -> None:
    """Whoever is woken by it need not ask for every replay; others, and what is over, is not told.

    What is behind ages, so it is alerted on by seconds; who is not behind has 0 of them.
    """
    assert isinstance(here.buffer, StandInBuffer)
    prometheus = Caller(app, grant(here.store, "read"))
    others = Caller(app, grant(here.store, "read", team="others"))
    one, two = (
        replayer("POST", "/api/v1/replays", {**ASKED, "continuous": True}).json()["id"]
        for _ in range(2)
    )
    replayer("POST", "/api/v1/replays", ASKED)

    assert behind(prometheus) == {
        ("events", one): 0.0,
        ("events", two): 0.0,
        ("seconds", one): 0.0,
        ("seconds", two): 0.0,
    }
    here.buffer.held[FLIGHTS] = {0: Extent(0, 25)}
    replayer("POST", f"/api/v1/replays/{two}/pause")
    later = Caller(
        create_app(dataclasses.replace(here, clock=lambda: NOON + 90 * SECOND)), prometheus.token
    )
    assert behind(later) == {
        ("events", one): 5.0,
        ("events", two): 5.0,
        ("seconds", one): 90.0,
        ("seconds", two): 90.0,
    }
    replayer("POST", f"/api/v1/replays/{two}/cancel")
    assert {replay for _, replay in behind(prometheus)} == {one}
    assert behind(others) == {}


def behind(caller: Caller) -> dict[tuple[str, str], float]:
    """Answer what metrics say of continuous replays, by figure and replay."""
    text = caller("GET", "/api/v1/metrics").text
    pattern = r'^penstock_replay_behind_(\w+)\{collection="flights",replay="(\w+)"\} (.+)$'
    return {
        (figure, replay): float(value)
        for figure, replay, value in re.findall(pattern, text, re.MULTILINE)
    }


@pytest.mark.parametrize(
    ("path", "given", "says"),
    [
        ("", {"until": "2026-01-01T00:00:00Z"}, "leave out until"),
        ("", {"max_events": 3}, "leave out max_events"),
        ("/plan", {"missing": True}, "leave out missing"),
        ("/plans", {}, "no plan to be kept"),
    ],
)
def test_a_continuous_replay_has_no_end(replayer: Caller, path: str, given, says: str) -> None:
    """What speaks of one is refused where it is asked for."""
    answer = replayer("POST", f"/api/v1/replays{path}", {**ASKED, "continuous": True, **given})

    assert (answer.status_code, says in answer.text) == (400, True)


def test_from_now_on_nothing_has_to_be_confirmed(replayer: Caller, here: Platform) -> None:
    """What is there already is not sent, however much it is."""
    assert isinstance(here.buffer, StandInBuffer)
    assert isinstance(here.searcher, StandInSearcher)
    here.buffer.held[FLIGHTS] = {0: Extent(0, 1_000_000)}
    here.searcher.number = 1_000_000
    asked = {**ASKED, "continuous": True}

    assert replayer("POST", "/api/v1/replays", asked).status_code == 201
    refused = replayer("POST", "/api/v1/replays", {**asked, "since": "2020-01-01T00:00:00Z"})
    assert "confirm=1000000" in refused.text


def test_what_failed_in_a_continuous_replay_is_retried_while_it_goes_on(
    replayer: Caller, here: Platform
) -> None:
    """Its end may never come; what an earlier retry delivered is left out."""
    made = replayer("POST", "/api/v1/replays", {**ASKED, "continuous": True}).json()
    path = f"/api/v1/replays/{made['id']}/retry"
    assert replayer("POST", path, {}).status_code == 409, "nothing has failed"
    claimed = here.store.claim_replay(made["id"], "run-1", NOON, 10 * SECOND)
    assert claimed is not None
    here.store.checkpoint_replay(
        made["id"],
        claimed.epoch,
        progress=Progress(failed=2).as_dict(),
        state="running",
        now=NOON,
        ttl=SECOND,
    )

    again = replayer("POST", path, {}).json()

    options = again["options"]
    assert (options["continuous"], options["missing"]) == (False, True)
    assert options["retry_of"] == made["id"]


def test_a_replay_whose_time_has_passed_starts_at_once(
    replayer: Caller, dagster: StandInDagster
) -> None:
    made = replayer("POST", "/api/v1/replays", {**ASKED, "start_at": "2025-11-24T15:00:00Z"}).json()

    assert dagster.launched == [made["id"]]


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
    saved = client.save_plan("flights", destination="billing", keep_days=3, rate=5.0)
    assert client.start_plan(saved, why="agreed").why == "agreed"
    with pytest.raises(WrongState, match="dry run"):
        client.retry_replay(made.id, destination="billing", rate=1.0)
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


def ended(here: Platform, replay_id: str, **progress: int) -> None:
    mine = here.store.claim_replay(replay_id, "run-1", NOON, 10 * SECOND)
    assert mine is not None
    here.store.checkpoint_replay(
        replay_id,
        mine.epoch,
        progress=Progress(**progress).as_dict(),
        plan=PLAN.as_dict(),
        state="finished",
        now=NOON,
        ttl=10 * SECOND,
    )


def test_what_failed_is_retried_as_it_was_sent(
    replayer: Caller, here: Platform, dagster: StandInDagster
) -> None:
    """A new replay, with a run of its own, for exactly those events."""
    made = replayer("POST", "/api/v1/replays", {**ASKED, "rate": 10, "order": "log"}).json()
    path = f"/api/v1/replays/{made['id']}/retry"
    assert replayer("POST", path, {}).status_code == 409, "it has not ended"
    ended(here, made["id"], delivered=7, failed=2, unknown=1)

    again = replayer("POST", path, {"options": {"rate": 5}, "why": "billing is back"}).json()

    assert again["id"] != made["id"]
    assert (again["query"], again["destination"]) == (ASKED["query"], "billing")
    assert again["options"] == {**made["options"], "rate": 5, "retry_of": made["id"]}
    assert (again["state"], again["why"]) == ("requested", "billing is back")
    assert dagster.launched == [made["id"], again["id"]]
    for change, status in (
        ({"destination": "nowhere"}, 404),
        ({"options": {"query": "x"}}, 400),
        ({"options": {"rate": 0}}, 400),
        ({"query": "x"}, 400),
    ):
        assert replayer("POST", path, change).status_code == status, change
    assert replayer("POST", "/api/v1/replays/r9/retry", {}).status_code == 404
    assert replayer("POST", "/api/v1/replays", {**ASKED, "retry_of": made["id"]}).status_code == 400


def test_a_retry_or_a_kept_plan_that_cannot_be_done_is_refused_when_it_is_asked_for(
    replayer: Caller, here: Platform
) -> None:
    """As a new replay is: nobody wants a run that fails."""
    made = replayer("POST", "/api/v1/replays", ASKED).json()
    ended(here, made["id"], failed=2)
    saved = replayer("POST", "/api/v1/replays/plans", {**ASKED, "transform": ["mask a"]}).json()
    path = f"/api/v1/replays/{made['id']}/retry"
    unread = replayer("POST", path, {"options": {"transform": ["mask"]}})
    assert (unread.status_code, unread.json()["field"]) == (400, "options.transform")

    here.store.set_format(FLIGHTS, Format(name="avro"))

    for where, asked, field in (
        (path, {"options": {"transform": ["mask a"]}}, "options.transform"),
        ("/api/v1/replays/planned", {"plan": saved}, "plan.request.options.transform"),
    ):
        refused = replayer("POST", where, asked)
        assert (refused.status_code, "only JSON" in refused.text) == (400, True), refused.text
        assert refused.json()["field"] == field
    assert [one.id for one in here.store.replays("main")] == [made["id"]]


def test_very_many_retries_have_to_be_confirmed(replayer: Caller, here: Platform) -> None:
    """A million failures sent again are a million requests."""
    buffer = here.buffer
    assert isinstance(buffer, StandInBuffer)
    buffer.held[FLIGHTS] = {0: Extent(0, 10_000)}
    made = replayer("POST", "/api/v1/replays", ASKED).json()
    path = f"/api/v1/replays/{made['id']}/retry"
    ended(here, made["id"], failed=5_000)

    refused = replayer("POST", path, {})

    assert refused.status_code == 400
    assert "5,000 events to 'billing'" in refused.json()["detail"]
    assert replayer("POST", path, {"confirm": 5_000}).status_code == 201


def test_what_is_missing_is_counted_and_shown_by_a_plan(replayer: Caller, here: Platform) -> None:
    """A search does not know what arrived where."""
    buffer, searcher = here.buffer, here.searcher
    assert isinstance(buffer, StandInBuffer)
    assert isinstance(searcher, StandInSearcher)
    buffer.held[FLIGHTS] = {0: Extent(0, 10_000)}
    searcher.number = 5_000

    made = replayer("POST", "/api/v1/replays", {**ASKED, "missing": True})
    [shown] = replayer("POST", "/api/v1/replays/preview", {**ASKED, "missing": True}).json()

    assert made.status_code == 201, "a plan counts ten, a search 5,000"
    assert made.json()["options"]["missing"] is True
    assert (shown["event_id"], shown["payload"]) == ("e1", "{}")
    assert searcher.asked == []


def test_a_saved_plan_is_started_as_it_is(
    replayer: Caller, here: Platform, dagster: StandInDagster
) -> None:
    """Others have read it: what is sent is what they read."""
    kept = replayer(
        "POST", "/api/v1/replays/plans", {**ASKED, "since": "2025-11-24T16:00:00Z", "rate": 50}
    )
    assert kept.status_code == 201
    saved = kept.json()
    assert saved["request"]["since"] == "2025-11-24T16:00:00.000000Z"
    assert saved["request"]["options"]["rate"] == 50
    assert (saved["plan"]["count"], saved["plan"]["warnings"]) == (10, ["nothing was sent"])
    assert saved["planned_by"].startswith("test (")
    assert here.store.replays("main") == []

    made = replayer("POST", "/api/v1/replays/planned", {"plan": saved, "why": "agreed"})

    assert made.status_code == 201, made.text
    told = made.json()
    assert (told["state"], told["why"], told["plan"]["count"]) == ("requested", "agreed", 10)
    assert dagster.launched == [told["id"]]
    [record] = here.store.replays("main")
    assert record.plan is not None
    assert record.plan["pin"] == f"penstock-replay-{told['id']}"


def test_a_saved_plan_that_cannot_be_kept_is_refused(
    replayer: Caller, rival: Caller, here: Platform
) -> None:
    """With a sentence, and before anything is written down."""
    assert isinstance(here.planner, StandInPlanner)
    saved = replayer("POST", "/api/v1/replays/plans", ASKED).json()
    path = "/api/v1/replays/planned"
    request = saved["request"]
    for edited in (
        {**saved, "request": {**request, "query": "*"}},
        {**saved, "request": {**request, "options": {**request["options"], "rate": 9}}},
        {**saved, "plan": {**saved["plan"], "count": 9}},
        {**saved, "kept_until": "2099-01-01T00:00:00Z"},
    ):
        refused = replayer("POST", path, {"plan": edited})
        assert refused.status_code == 400
        assert "was changed after it was made" in refused.json()["detail"]
    laid_out = json.loads(json.dumps(saved, sort_keys=True).replace("30.0", "30"))
    assert laid_out["request"]["options"]["timeout"] == 30
    stranger = rival("POST", path, {"plan": saved})
    assert (stranger.status_code, "another team" in stranger.text) == (400, True)
    here.planner.gone = True
    gone = replayer("POST", path, {"plan": saved})
    assert (gone.status_code, "plan it again" in gone.json()["detail"]) == (409, True)
    here.planner.gone = False
    billing = here.store.destination("main", "billing")
    here.store.delete_destination("main", "billing")
    here.store.add_destination(replace(billing, url="https://elsewhere.example/in"))
    elsewhere = replayer("POST", path, {"plan": saved})
    assert (elsewhere.status_code, elsewhere.json()["field"]) == (409, "plan.to")
    assert "'billing' was another when this was planned" in elsewhere.json()["detail"]
    here.store.delete_destination("main", "billing")
    here.store.add_destination(billing)
    assert here.store.replays("main") == []
    assert replayer("POST", path, {"plan": laid_out}).status_code == 201
    for days in (0, 91):
        asked = {**ASKED, "keep_days": days}
        assert replayer("POST", "/api/v1/replays/plans", asked).status_code == 400


def test_a_preview_shows_what_a_transform_changes(replayer: Caller, here: Platform) -> None:
    """Nobody has to send an event to learn whether its card is masked."""
    searcher = here.searcher
    assert isinstance(searcher, StandInSearcher)
    searcher.events = [
        found(b'{"card":"4111","n":1.10}', key=b"4111"),
        found(b'{"n":2}', event_id="e2"),
        found(b"4111", event_id="e3", content_type="text/plain"),
        found(b"no json", event_id="e4"),
    ]
    asked = {**ASKED, "transform": ["mask card", "mask key"]}

    first, second, third, last = replayer("POST", "/api/v1/replays/preview", asked).json()

    assert first["payload"] == '{"card":"***","n":1.10}'
    assert first["before"] == '{"card":"4111","n":1.10}'
    assert first["key"] == "***"
    assert "penstock-transform" in dict(first["headers"])
    assert (second["payload"], second["before"]) == ('{"n":2}', None)
    assert (third["payload"], third["wrong"]) == ("4111", None), "a number has no card"
    assert (last["payload"], last["headers"]) == ("no json", [])
    assert last["wrong"] == "the transform: the payload is no JSON"


@pytest.mark.parametrize("path", ["", "/plan", "/preview"])
def test_a_transform_that_cannot_be_done_is_refused_when_it_is_asked_for(
    replayer: Caller, here: Platform, path: str
) -> None:
    """And the sentence names the step and the character."""

    def refused(**change: object) -> str:
        answer = replayer("POST", f"/api/v1/replays{path}", {**ASKED, **change})
        assert answer.status_code == 400
        return str(answer.json()["detail"])

    assert "step 2 of the transform, character 8" in refused(transform=["mask a", "set a ="])
    assert "transform" in refused(transform=["mask a"] * 51)
    assert "transform" in refused(transform="mask a")
    here.store.create_collection(
        replace(collection(CollectionId("main", "wire")), format=Format(name="avro"))
    )
    said = refused(collection="wire", transform=["mask a"])
    assert "those of wire are avro: only JSON" in said
    assert "wire are avro" in refused(collection="wire", transform=["mask key where a"])
    if not path:
        taken = {**ASKED, "collection": "wire", "transform": ["mask key", "remove headers.a"]}
        assert replayer("POST", "/api/v1/replays", taken).status_code == 201


def test_without_a_key_there_are_no_pseudonyms(replayer: Caller, here: Platform) -> None:
    """A hash that anybody can make is none: of card numbers all can be tried."""
    here.store._keys = NO_KEYS

    answer = replayer("POST", "/api/v1/replays", {**ASKED, "transform": ["mask a as hash"]})
    assert answer.status_code == 503
    assert "penstock key rotate" in answer.json()["detail"]
    taken = {**ASKED, "transform": ["mask a"]}
    assert replayer("POST", "/api/v1/replays", taken).status_code == 201


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


def with_file(
    here: Platform, *, state: State, form: Literal["ndjson", "parquet"] = "ndjson"
) -> str:
    """Make a replay of two events to a file, of which a sender that died wrote one twice."""
    assert here.files is not None
    record = replace(replay("f1", state=state), progress=Progress(delivered=2, failed=3).as_dict())
    here.store.create_replay(record)
    for numbers in ((1,), (1, 2)):
        segments = Segments(here.files / record.id, About("main", "orders", form))
        segments.append({Position(0, n): file_line(n) for n in numbers})
        segments.close()
    return f"/api/v1/replays/{record.id}/file"


def file_line(number: int) -> bytes:
    return line_of(
        event(b'{"n":%d}' % number),
        Position(0, number),
        headers=(),
        received_at=rfc3339(NOON),
        event_time=None,
    )


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Platform]:
    made = platform(tmp_path, files=tmp_path / "replay-files")
    yield made
    made.store.close()


def test_a_finished_file_is_sent_with_each_event_once(keeping: Platform) -> None:
    path = with_file(keeping, state="finished")
    app, token = create_app(keeping), grant(keeping.store, "replay")
    answer = Caller(app, token)("GET", path)

    assert answer.content == file_line(1) + file_line(2)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="orders-f1.ndjson"'
    assert answer.headers["Penstock-Failed"] == "3", "what is not in it"
    client = Client("http://p", token, InProcess(app))
    assert b"".join(client.replay_file("f1")) == answer.content


def test_a_file_may_be_parquet(keeping: Platform) -> None:
    path = with_file(keeping, state="finished", form="parquet")
    answer = Caller(create_app(keeping), grant(keeping.store, "replay"))("GET", path)

    rows = pq.read_table(io.BytesIO(answer.content)).to_pylist()
    assert [(row["log_offset"], row["payload"]) for row in rows] == [
        (1, b'{"n":1}'),
        (2, b'{"n":2}'),
    ]
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"


@pytest.mark.parametrize("state", ["running", "paused", "cancelled", "failed"])
def test_a_file_that_is_not_whole_is_not_sent(keeping: Platform, state: State) -> None:
    """Whoever takes it away would believe that it is."""
    path = with_file(keeping, state=state)
    answer = Caller(create_app(keeping), grant(keeping.store, "replay"))("GET", path)

    assert (answer.status_code, state in answer.json()["detail"]) == (409, True)


def test_a_file_belongs_to_the_team_of_its_replay(keeping: Platform) -> None:
    path = with_file(keeping, state="finished")
    app = create_app(keeping)

    assert Caller(app, grant(keeping.store, "admin", team="other"))("GET", path).status_code == 404
    assert Caller(app, grant(keeping.store, "read"))("GET", path).status_code == 403
    gone = Caller(app, grant(keeping.store, "replay"))("GET", "/api/v1/replays/..%2Ff1/file")
    assert gone.status_code == 404
