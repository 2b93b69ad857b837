"""Replays and destinations as pages, without a browser."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from builders import FLIGHTS, NOON
from fastapi import FastAPI
from forms import Browser, browser
from metadata_builders import collection, destination, replay, saved_search
from msgspec.structs import replace
from platform_stand_ins import StandInBuffer, StandInSearcher, found, grant, plan

from penstock.api.platform import Platform
from penstock.api.replays import told as replay_told
from penstock.contract.replays import ReachedTold
from penstock.dashboard import destinations, replays
from penstock.dashboard.forms import Form, Wrong
from penstock.envelope import Extent, Position
from penstock.metadata.records import ReplayRecord
from replay.files import About, Segments
from replay.progress import Progress, Reached
from replay.request import Options, ReplayRequest

HOSTILE = "<img src=x onerror=alert(1)>"
SECOND = 1_000_000


def posted(
    visitor: Browser, path: str, fields: Mapping[str, str] | None = None, *, htmx: str = ""
) -> str:
    """Send a form that is taken, and answer the page."""
    answer = visitor.send(path, fields, htmx=htmx)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.fixture
def visitor(app: FastAPI, here: Platform) -> Browser:
    return browser(app, grant(here.store, "admin"))


@pytest.fixture
def stocked(here: Platform) -> Platform:
    here.store.create_collection(collection())
    here.store.add_destination(destination())
    return here


TWO_SECONDS = (Reached(NOON, 0, 0), Reached(NOON + 2 * SECOND, 4, 1))


def running(
    here: Platform, *, course: tuple[Reached, ...] = TWO_SECONDS, **given: object
) -> ReplayRecord:
    """Keep a replay that has sent half of its ten events."""
    request = ReplayRequest(
        team="main", collection="flights", query=HOSTILE, destination="billing", options=Options()
    )
    record = replace(
        replay("r1", state="running", plan=plan(request).as_dict()),
        options=replay().options | {"order": "key", "headers": "add", "view": "main"},
        query=HOSTILE,
        why=HOSTILE,
        asked_by="ops (t1)",
        started_at=NOON,
        run_id="run-1",
        progress=Progress(
            delivered=4,
            failed=1,
            attempts=7,
            last_failure="answered 410",
            course=course,
        ).as_dict(),
        **given,
    )
    here.store.create_replay(record)
    return record


def searcher_of(here: Platform) -> StandInSearcher:
    assert isinstance(here.searcher, StandInSearcher)
    return here.searcher


# Who may


def test_who_may_not_replay_sees_none_of_it(app: FastAPI, stocked: Platform) -> None:
    running(stocked)
    reader = browser(app, grant(stocked.store, "read"))

    for path in ("/replays", "/replays/new", "/replays/r1", "/destinations", "/destinations/new"):
        assert reader.get(path).status_code == 403, path
    for path in ("/replays", "/replays/r1/pause", "/replays/r1/pace", "/destinations"):
        assert reader.send(path).status_code == 403, path
    assert 'href="/replays"' not in reader.get("/").text
    assert stocked.store.replay("main", "r1").wish is None


def test_who_replays_makes_and_deletes_no_destination(app: FastAPI, stocked: Platform) -> None:
    replayer = browser(app, grant(stocked.store, "read", "replay"))

    page = replayer.get("/destinations").text
    assert "New destination" not in page
    assert "Delete" not in page
    assert replayer.get("/destinations/new").status_code == 403
    assert replayer.send("/destinations/billing/delete").status_code == 403
    assert [one.name for one in stocked.store.destinations("main")] == ["billing"]


def test_of_another_team_nothing_is_there(app: FastAPI, stocked: Platform) -> None:
    running(stocked)
    rival = browser(app, grant(stocked.store, "admin", team="rivals"))

    assert rival.get("/replays/r1").status_code == 404
    assert "No replays yet" in rival.get("/replays").text
    assert rival.send("/replays/r1/cancel").status_code == 404


# The list


def test_an_empty_list_teaches_the_step_that_is_next(visitor: Browser, here: Platform) -> None:
    assert "penstock destination create" in visitor.get("/replays").text
    here.store.add_destination(destination())
    assert "penstock replay plan" in visitor.get("/replays").text


def test_the_list_says_how_far_who_and_why_and_escapes_it(
    visitor: Browser, stocked: Platform
) -> None:
    running(stocked)
    page = visitor.get("/replays").text

    assert HOSTILE not in page
    assert page.count("&lt;img src=x") >= 2
    for said in ("running", "4 of 10", "1 failed", "ops (t1)", "billing"):
        assert said in page
    assert 'hx-trigger="every 3s"' in page
    assert "None of the replays is over" in visitor.get("/replays?state=ended").text


def test_a_long_list_has_pages(visitor: Browser, stocked: Platform) -> None:
    for number in range(60):
        stocked.store.create_replay(replay(f"r{number:02}", created_at=NOON + number))

    page = visitor.get("/replays").text
    assert "1 to 50 of 60" in page
    [older] = re.findall(r'href="([^"]+)" rel="next"', page)
    assert "51 to 60 of 60" in visitor.get(older.replace("&amp;", "&")).text


# Plan and start

FIELDS = {"collection": "flights", "query": "carrier:UA", "destination": "billing"}


def test_a_list_has_no_page_before_its_first(visitor: Browser) -> None:
    assert visitor.get("/replays?older=-1").status_code == 400


def test_the_form_is_filled_from_the_address_or_a_saved_search(
    visitor: Browser, stocked: Platform
) -> None:
    stocked.store.add_saved_search(saved_search())

    linked = visitor.get("/replays/new?collection=flights&query=a%3A%3C1&since=now-1h&order=log")
    assert ">a:&lt;1</textarea>" in linked.text
    assert 'value="now-1h"' in linked.text
    assert '<option value="log" selected>' in linked.text
    assert 'id="more" open' in linked.text
    saved = visitor.get("/replays/new?saved=late").text
    assert ">dep_delay:&gt;120</textarea>" in saved
    assert 'value="now/d"' in saved
    assert visitor.get("/replays/new?saved=none").status_code == 404


def test_the_plan_shows_what_would_be_sent_and_makes_nothing(
    visitor: Browser, stocked: Platform
) -> None:
    searcher_of(stocked).events = [
        found(
            f"<script>{HOSTILE}</script>".encode(),
            event_id="e&1",
            headers=(("X-Trace", b"<b>"), ("Authorization", b"Bearer of-the-sender")),
        ),
        found(b"\xff\x00" * 4_000, event_id="e2"),
    ]

    page = posted(visitor, "/replays/new", {**FIELDS, "since": "now-1h"})

    assert stocked.store.replays("main") == []
    for said in ("exactly <strong>10 events</strong>", "1.0\u00a0kB", "penstock-replay-id:"):
        assert said in page
    assert "X-Trace: &lt;b&gt;" in page
    assert HOSTILE not in page
    assert "hidden" in page.replace('type="hidden"', "")  # other words of the page
    assert "Bearer" not in page
    assert "authorization: •••" in page
    assert "The first 4 kB of 8.0\u00a0kB" in page
    # What is started is what was planned: the range is closed, and its times are absolute.
    assert 'name="until" value="2025-11-24T16:00:00.000000Z"' in page
    assert 'name="since" value="2025-11-24T15:00:00.000000Z"' in page


def test_what_was_planned_is_started_with_who_and_why(visitor: Browser, stocked: Platform) -> None:
    page = posted(visitor, "/replays/new", FIELDS)
    form = page[page.index('action="/replays"') :]
    kept = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
    kept.pop("csrf")

    assert "start_at" not in kept
    refused = visitor.send("/replays", {**kept, "start_at": "soon"})
    assert 'id="start_at-error"' in refused.text
    answer = visitor.send("/replays", {**kept, "why": "billing was down", "start_at": "now+2h"})

    [record] = stocked.store.replays("main")
    assert answer.headers["location"] == f"/replays/{record.id}"
    assert (record.until, record.query, record.why) == (NOON, "carrier:UA", "billing was down")
    assert (record.asked_by or "").startswith("test (")
    assert record.start_at == NOON + 7_200_000_000
    for path in (f"/replays/{record.id}", "/replays"):
        assert re.search(r"(it starts|for) (<time[^>]*>)?2025-11-24 18:00", visitor.get(path).text)


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"query": "carrier:>"}, "query", "at character"),
        ({"query": "a ${LIMIT 5}"}, "query", "max_events"),
        ({"collection": ""}, "collection", "is needed"),
        ({"collection": "trains"}, "collection", "no collection"),
        ({"destination": "nowhere"}, "destination", "no destination"),
        ({"since": "soon"}, "since", "expected a time"),
        ({"since": "2025-11-25", "until": "2025-11-24"}, "until", "empty"),
        ({"rate": "fast"}, "rate", "number"),
        ({"rate": "-1"}, "rate", "> 0"),
        ({"concurrency": "5000"}, "concurrency", "&lt;= 1000"),
        ({"transform": "mask a\ndrop b"}, "transform", "step 2 of the transform, character 1"),
        ({"destination": "filed", "missing": "on"}, "missing", "leave out missing"),
        ({"destination": "back"}, "destination", "itself, which the events are taken from"),
    ],
)
def test_what_cannot_be_planned_is_told_at_its_field_and_kept(
    visitor: Browser, stocked: Platform, change: dict[str, str], field: str, told: str
) -> None:
    for name, kind, url in (
        ("filed", "file", "file://x"),
        ("back", "collection", "collection://flights"),
    ):
        stocked.store.add_destination(replace(destination(name), kind=kind, url=url))

    answer = visitor.send("/replays/new", {**FIELDS, **change})

    assert answer.status_code == 422
    at = re.search(rf'id="{field}-error">([^<]*)<', answer.text)
    assert at is not None
    assert told.replace("> 0", "&gt; 0") in at[1].replace("&#39;", "'")
    assert "carrier:UA" in answer.text or "query" in change


def test_the_plan_shows_what_a_transform_changes_and_starts_that(
    visitor: Browser, stocked: Platform
) -> None:
    """The difference is shown as that of a repair is, and the steps go on into the replay."""
    searcher_of(stocked).events = [
        found(b'{"card":"4111<b>","n":1}'),
        found(b'{"n":2}', event_id="e2"),
        found(b"plain", event_id="e3"),
    ]
    steps = "mask card\n\n# of the shop\nset env = 'a<b'"

    page = posted(visitor, "/replays/new", {**FIELDS, "transform": steps})

    assert re.search(r"<del>4111&lt;b&gt;</del><ins>\*\*\*</ins>", page)
    assert "It will fail, and nothing of it is sent: the transform: the payload is no JSON." in page
    assert 'id="change" open' in page
    kept, in_a_file = re.findall(r'type="hidden" name="transform" value="([^"]*)"', page)
    assert in_a_file == kept
    answer = visitor.send("/replays", {**FIELDS, "transform": html.unescape(kept)})
    assert answer.status_code == 303
    [made] = stocked.store.replays("main")
    assert list(made.options["transform"]) == ["mask card", "set env = 'a<b'"]
    page = visitor.get(f"/replays/{made.id}").text
    assert "<code>mask card</code>" in page
    again = dict(parse_qsl(replays.again(replay_told(made))))
    assert again["transform"] == "mask card\nset env = 'a<b'"
    assert "mask card\n" in visitor.get(f"/replays/new?{replays.again(replay_told(made))}").text


def test_very_many_events_have_to_be_meant(visitor: Browser, stocked: Platform) -> None:
    object.__setattr__(stocked, "confirm_above", 5)
    object.__setattr__(stocked.buffer, "held", {FLIGHTS: {0: Extent(0, 100)}})
    searcher_of(stocked).number = 10

    page = posted(visitor, "/replays/new", FIELDS)
    assert "Type 10 to confirm" in page
    for typed in ("", "9", "ten"):
        refused = visitor.send("/replays", {**FIELDS, "confirm": typed})
        assert refused.status_code == 422
        assert 'id="confirm-error"' in refused.text
    assert stocked.store.replays("main") == []

    assert visitor.send("/replays", {**FIELDS, "confirm": "10"}).status_code == 303
    assert len(stocked.store.replays("main")) == 1


# One replay


def test_a_replay_shows_its_books_and_is_renewed_until_it_ends(
    visitor: Browser, stocked: Platform
) -> None:
    running(stocked)
    stocked.store.create_collection(collection(replays.replays.ATTEMPTS))
    searcher_of(stocked).events = [
        found(
            b'{"event_id": "e<9>", "partition": 0, "offset": 9, "attempt": 3, "reason": '
            b'"answered 410", "status": 410, "at": "2025-11-24T16:00:01Z"}'
        )
    ]

    page = visitor.get("/replays/r1").text
    assert 'hx-trigger="every 1s"' in page
    for said in ("answered 410", "e&lt;9&gt;", "/runs/run-1", "ops (t1)", "Pause"):
        assert said in page
    assert "Resume" not in page
    assert HOSTILE not in page
    books = re.findall(r"(matched|delivered|failed|skipped|waiting)</dt><dd>(\d+)<", page)
    assert dict(books) == {
        "matched": "10",
        "delivered": "4",
        "failed": "1",
        "skipped": "0",
        "waiting": "5",
    }
    part = visitor.get("/replays/r1", **{"HX-Request": "true", "HX-Target": "live"})
    assert "<html" not in part.text
    assert "HX-Refresh" not in part.headers
    reasons = visitor.get("/replays/r1", **{"HX-Request": "true", "HX-Target": "reasons"}).text
    assert "e&lt;9&gt;" in reasons
    assert "matched" not in reasons
    asked = len(searcher_of(stocked).asked)
    visitor.get("/replays/r1", **{"HX-Request": "true", "HX-Target": "live"})
    assert len(searcher_of(stocked).asked) == asked, "the ledger is searched every second"


def test_a_replay_is_paused_resumed_and_cancelled(visitor: Browser, stocked: Platform) -> None:
    stocked.store.create_replay(replay("r1", state="running"))

    paused = posted(visitor, "/replays/r1/pause", htmx="live")
    assert "paused" in paused
    assert "Resume" in paused
    assert visitor.send("/replays/r1/resume").headers["location"] == "/replays/r1"
    asked = posted(visitor, "/replays/r1/cancel", htmx="question")
    assert "Cancel this replay?" in asked
    assert "<html" not in asked
    assert stocked.store.replay("main", "r1").state != "cancelled"
    ended = visitor.send("/replays/r1/cancel", {"sure": "yes"}, htmx="live")

    assert stocked.store.replay("main", "r1").state == "cancelled"
    assert ended.headers["hx-refresh"] == "true"
    assert "hx-trigger" not in visitor.get("/replays/r1").text
    assert visitor.send("/replays/r1/pause").status_code == 409


def test_what_failed_is_retried_by_a_button(visitor: Browser, stocked: Platform) -> None:
    """Only where something failed, and only once it has ended."""
    running(stocked)
    assert "Retry what failed" not in visitor.get("/replays/r1").text
    early = visitor.send("/replays/r1/retry", {})
    assert early.status_code == 422
    assert "it has ended" in early.text
    mine = stocked.store.claim_replay("r1", "run-1", NOON, SECOND)
    assert mine is not None
    stocked.store.checkpoint_replay(
        "r1", mine.epoch, progress=mine.progress, state="finished", now=NOON, ttl=SECOND
    )

    assert "Retry what failed" in visitor.get("/replays/r1").text
    asked = visitor.send("/replays/r1/retry", {}, htmx="question")
    assert "exactly the 1 event of" in asked.text
    assert "hx-refresh" not in asked.headers, "the question would be gone at once"
    answer = visitor.send("/replays/r1/retry", {"sure": "yes"})
    assert answer.status_code == 303, answer.text
    [again] = [one for one in stocked.store.replays("main") if one.id != "r1"]
    assert again.options["retry_of"] == "r1"
    assert answer.headers["location"] == f"/replays/{again.id}"
    shown = visitor.get(f"/replays/{again.id}").text
    assert "/replays/r1" in shown
    assert "Plan it again" not in shown


def test_a_file_says_what_is_not_in_it(visitor: Browser, stocked: Platform, tmp_path: Path) -> None:
    """Whoever takes it away would believe that it is whole."""
    object.__setattr__(stocked, "files", tmp_path)
    Segments(tmp_path / "f1", About("main", "orders", "ndjson")).append({Position(0, 1): b"{}\n"})
    for name, failed in (("f1", 1), ("f2", 0)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "about.json").write_bytes((tmp_path / "f1/about.json").read_bytes())
        progress = Progress(delivered=1, failed=failed).as_dict()
        stocked.store.create_replay(replace(replay(name, state="finished"), progress=progress))

    assert "without the 1 event that failed" in visitor.get("/replays/f1").text
    page = visitor.get("/replays/f2").text
    assert "Take the file away" in page
    assert "The file is without" not in page


def test_very_many_that_failed_have_to_be_meant(visitor: Browser, stocked: Platform) -> None:
    """A button is pressed faster than a number is typed."""
    record = running(stocked)
    assert isinstance(stocked.buffer, StandInBuffer)
    stocked.buffer.held[FLIGHTS] = {0: Extent(0, 10_000)}
    mine = stocked.store.claim_replay("r1", "run-1", NOON, SECOND)
    assert mine is not None
    stocked.store.checkpoint_replay(
        record.id,
        mine.epoch,
        progress=Progress(failed=5_000).as_dict(),
        state="finished",
        now=NOON,
        ttl=SECOND,
    )

    assert "Type 5,000 to confirm" in visitor.send("/replays/r1/retry", {}).text
    refused = visitor.send("/replays/r1/retry", {"sure": "yes", "confirm": "500"})
    assert refused.status_code == 422
    assert "Type the number of events that failed" in refused.text
    assert "Type 5,000 to confirm" in refused.text
    right = {"sure": "yes", "confirm": "5,000"}
    assert visitor.send("/replays/r1/retry", right).status_code == 303


def test_only_what_is_missing_can_be_planned(visitor: Browser, stocked: Platform) -> None:
    """The box is kept from the plan to the start."""
    fields = {"collection": "flights", "destination": "billing", "missing": "on"}

    page = posted(visitor, "/replays/new", fields)

    assert 'name="missing" value="on"' in page
    assert "not counted for what is missing" in page
    assert "without what billing has acknowledged" in page
    assert visitor.send("/replays", fields).status_code == 303
    [made] = stocked.store.replays("main")
    assert made.options["missing"] is True


def test_a_continuous_replay_is_planned_without_an_end(visitor: Browser, stocked: Platform) -> None:
    """The plan of any other is closed at its end; this one would then send nothing more."""
    fields = {"collection": "flights", "destination": "billing", "continuous": "on"}

    page = posted(visitor, "/replays/new", fields)

    assert 'name="continuous" value="on"' in page
    assert "until it is cancelled" in page
    assert "Send every match to billing" in page
    assert "Keep the plan as a file" not in page
    assert visitor.send("/replays", fields).status_code == 303
    [made] = stocked.store.replays("main")
    assert (made.options["continuous"], made.since, made.until) == (True, None, None)

    wrong = visitor.send("/replays/new", {**fields, "max_events": "5"})
    assert wrong.status_code == 422
    assert "leave out max_events" in wrong.text


def test_a_continuous_replay_shows_how_far_it_is_behind(
    visitor: Browser, stocked: Platform
) -> None:
    """Its books are balanced most of the time, whatever waits on the log."""
    record = running(stocked)
    options = {**record.options, "continuous": True}
    stocked.store.change_options("main", record.id, options)
    assert isinstance(stocked.buffer, StandInBuffer)
    stocked.buffer.held[FLIGHTS] = {0: Extent(0, 25)}

    page = visitor.get("/replays/r1").text
    listed = visitor.get("/replays").text

    assert "Behind" in page
    assert "from when it was asked for on" in page
    assert "Retry what failed" in page, "it has no end to wait for"
    asked = visitor.send("/replays/r1/retry", {}).text
    assert "so far, without what an earlier retry delivered" in asked
    assert 'name="rate"' in page
    assert 'name="speed"' not in page, "a continuous replay is refused one"
    assert "10 behind" in listed


@pytest.mark.parametrize(
    ("course", "shown"),
    [(TWO_SECONDS, False), ((*TWO_SECONDS, Reached(NOON + 4 * SECOND, 9, 1)), True)],
)
def test_a_plot_is_shown_once_there_is_a_line_to_draw(
    visitor: Browser, stocked: Platform, course: tuple[Reached, ...], *, shown: bool
) -> None:
    """Of one moment the plot has an axis of years, and nothing on it."""
    running(stocked, course=course)

    assert ("Events a second" in visitor.get("/replays/r1").text) is shown


def test_a_plan_is_kept_as_a_file_and_started_from_it(visitor: Browser, stocked: Platform) -> None:
    """Somebody else reads it before."""
    fields = {"collection": "flights", "destination": "billing", "rate": "50"}
    assert "Keep the plan as a file" in posted(visitor, "/replays/new", fields)

    answer = visitor.send("/replays/plans", fields)
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.json()["request"]["options"]["rate"] == 50
    edited = answer.text.replace('"rate": 50', '"rate": 500')
    for text, said in ((edited, "was changed after"), ("{", "This is no plan")):
        refused = visitor.send("/replays/planned", {"plan": text})
        assert refused.status_code == 422
        assert said in refused.text
    assert stocked.store.replays("main") == []

    started = visitor.send("/replays/planned", {"plan": answer.text, "plan_why": "agreed"})
    assert started.status_code == 303, started.text
    [made] = stocked.store.replays("main")
    assert (made.options["rate"], made.why) == (50, "agreed")
    assert made.plan is not None


def test_the_pace_is_changed_while_it_sends(visitor: Browser, stocked: Platform) -> None:
    running(stocked)

    told = posted(visitor, "/replays/r1/pace", {"rate": "2.5", "concurrency": "4"}, htmx="pace")
    assert "goes on at this pace" in told
    options = stocked.store.replay("main", "r1").options
    assert (options["rate"], options["concurrency"], options["order"]) == (2.5, 4, "key")
    posted(visitor, "/replays/r1/pace", {"rate": "", "concurrency": ""}, htmx="pace")
    assert stocked.store.replay("main", "r1").options["rate"] is None
    posted(visitor, "/replays/r1/pace", {"speed": "10x", "gap": "200ms"}, htmx="pace")
    options = stocked.store.replay("main", "r1").options
    assert (options["speed"], options["gap"], options["rate"]) == (10.0, 0.2, None)
    shown = visitor.get("/replays/r1").text
    assert 'name="speed" type="text" value="10x"' in shown
    assert "at 10x the time they came in, no silence longer than 0.2 s" in shown
    refused = visitor.send("/replays/r1/pace", {"speed": "fast"}, htmx="pace")
    assert refused.status_code == 422
    assert "no speed: write 1x" in refused.text
    posted(visitor, "/replays/r1/pace", {"speed": "", "gap": ""}, htmx="pace")
    options = stocked.store.replay("main", "r1").options
    assert (options["speed"], options["gap"]) == (0.0, None)

    posted(visitor, "/replays/r1/pace", {"rate": "1500", "concurrency": "4"}, htmx="pace")
    assert 'name="rate" type="text" value="1500"' in visitor.get("/replays/r1").text

    refused = visitor.send("/replays/r1/pace", {"rate": "0", "concurrency": "4"}, htmx="pace")
    assert refused.status_code == 422
    assert 'id="rate-error"' in refused.text


# Pure


def test_the_same_once_more_is_asked_for_with_all_of_its_options() -> None:
    """The first ten of a million, planned again, must not become the million."""
    sent = replay_told(
        replace(
            replay("r1"),
            options={"max_events": 10, "duplicates": "include", "concurrency": 2, "dry_run": True},
        )
    )

    fields = dict(parse_qsl(replays.again(sent)))

    assert fields["max_events"] == "10"
    assert fields["duplicates"] == "include"
    assert fields["concurrency"] == "2"
    assert fields["dry_run"] == "True"


def reached(seconds: float, delivered: int, failed: int = 0) -> ReachedTold:
    at = datetime(2025, 11, 24, 16, tzinfo=UTC) + timedelta(seconds=seconds)
    return ReachedTold(at=at, delivered=delivered, failed=failed)


def test_the_speed_is_that_of_the_last_seconds() -> None:
    course = [reached(0, 0), reached(100, 1_000), reached(110, 1_050, 50)]

    told = replays.speed(course, 200)
    assert (told.per_second, told.left_seconds) == (10.0, 20.0)
    assert replays.speed(course[:1], 200).per_second is None
    assert replays.rates(course) == ([1764000100.0, 1764000110.0], [10.0, 5.0], [0.0, 5.0])


def test_one_failure_in_a_million_is_seen() -> None:
    from penstock.api.replays import told

    request = ReplayRequest(team="main", collection="flights", destination="billing")
    record = replace(
        replay(plan=plan(request, count=1_000_000).as_dict()),
        progress=Progress(delivered=999_999, failed=1).as_dict(),
    )

    parts = {part.name: part for part in replays.bar(told(record))}
    assert parts["failed"].width > 0
    assert parts["failed"].start + parts["failed"].width <= 100


def test_times_may_be_relative_and_wrong_ones_are_named() -> None:
    given = dict.fromkeys(replays.FIELDS, "") | {"since": "now-1h"}

    assert replays.values_of(given, NOON)["since"].isoformat() == "2025-11-24T15:00:00+00:00"
    with pytest.raises(Wrong) as error:
        replays.values_of({**given, "since": "x", "until": "y"}, NOON)
    assert set(error.value.fields) == {"since", "until"}


# Destinations


def test_no_destination_teaches_and_each_kind_has_its_own_form(visitor: Browser) -> None:
    assert "penstock destination create staging" in visitor.get("/destinations").text
    forms = {
        kind: set(re.findall(r' name="(\w+)"', visitor.get(f"/destinations/new?kind={kind}").text))
        for kind in ("http", "kafka", "rabbitmq", "sqs", "collection", "file", "tunnel")
    }
    assert {"header0", "value0"} <= forms["http"]
    assert {"partition", "timestamps", "tls", "sasl", "ca", "password"} <= forms["kafka"]
    assert {"exchange", "routing_key", "ca", "user"} <= forms["rabbitmq"]
    assert {"region", "group", "key_id", "secret_key"} <= forms["sqs"]
    assert not forms["collection"] & {"password", "header0", "region", "ca", "secret_key"}
    assert "format" in forms["file"]
    assert not forms["file"] & {"password", "header0", "region", "ca", "secret_key"}
    assert not forms["tunnel"] & {"password", "header0", "region", "ca", "secret_key"}
    assert not forms["http"] & {"password", "region", "exchange", "tls"}
    assert not forms["kafka"] & {"header0", "region", "exchange"}
    assert visitor.get("/destinations/new?kind=fax").status_code == 400


def test_a_destination_is_made_and_its_credentials_never_shown(
    visitor: Browser, here: Platform
) -> None:
    fields = {"kind": "http", "name": "billing", "url": "https://billing.example/events"}
    made = visitor.send(
        "/destinations", {**fields, "header0": "Authorization", "value0": "Bearer s3cret"}
    )

    assert made.headers["location"] == "/destinations?made=billing"
    record = here.store.destination("main", "billing")
    assert record.headers == (("Authorization", "Bearer s3cret"),)
    page = visitor.get("/destinations?made=billing").text
    assert "s3cret" not in page
    assert "Authorization" in page
    assert "not tested" in page
    again = visitor.send("/destinations", {**fields, "header0": "A", "value0": "s3cret"})
    assert again.status_code == 422
    assert "s3cret" not in again.text
    assert 'id="name-error"' in again.text


def test_a_destination_is_made_with_a_rate(visitor: Browser, here: Platform) -> None:
    fields = {"kind": "http", "name": "billing", "url": "https://billing.example/events"}
    refused = visitor.send("/destinations", {**fields, "rate": "0"})
    assert 'id="rate-error"' in refused.text

    visitor.send("/destinations", {**fields, "rate": "2.5"})

    assert here.store.listed_destination("main", "billing").rate == 2.5
    assert "2.5 a second at most" in visitor.get("/destinations").text


def test_a_destination_is_changed_and_its_form_shows_no_credential(
    visitor: Browser, here: Platform
) -> None:
    """What is empty is taken away where it was shown, and stays where it was not."""
    made = {"kind": "http", "name": "billing", "url": "https://billing.example/events"}
    given = {"header0": "Authorization", "value0": "Bearer s3cret", "method": "PUT", "rate": "5"}
    visitor.send("/destinations", {**made, **given})

    page = visitor.get("/destinations/billing/change").text
    assert "s3cret" not in page
    assert 'value="5"' in page
    assert '<option value="PUT" selected>' in page
    refused = visitor.send("/destinations/billing/change", {"rate": "x"})
    assert 'id="rate-error"' in refused.text
    answer = visitor.send("/destinations/billing/change", {"header0": "X", "value0": "s3cret"})

    assert answer.headers["location"] == "/destinations?changed=billing"
    assert "billing</strong> is changed" in visitor.get("/destinations?changed=billing").text
    record = here.store.destination("main", "billing")
    assert record.headers == (("Authorization", "Bearer s3cret"), ("X", "s3cret"))
    assert (record.options, record.rate) == ({}, None)
    visitor.send("/destinations/billing/change", {"without": "Authorization"})
    assert here.store.destination("main", "billing").headers == (("X", "s3cret"),)


def test_an_address_inside_is_refused_with_what_was_typed_kept(
    visitor: Browser, here: Platform
) -> None:
    answer = visitor.send(
        "/destinations", {"kind": "http", "name": "meta", "url": "http://169.254.169.254/x"}
    )

    assert answer.status_code == 422
    assert 'value="http://169.254.169.254/x"' in answer.text
    assert here.store.destinations("main") == []


def test_what_is_wrong_with_a_destination_is_told_at_its_field(
    visitor: Browser, here: Platform
) -> None:
    typed = ("value0", "signing_secret", "client_certificate", "secret_key")
    cases: list[tuple[str, dict[str, str], str]] = [
        ("http", {"url": "http://169.254.169.254/x"}, "url"),
        ("http", {"name": "X"}, "name"),
        ("http", {"header0": "Host", "value0": "x"}, "headers"),
        ("http", {"signing": "stripe"}, "signing_secret"),
        ("http", {"signing_secret": "whsec_s3cret"}, "signing"),
        ("http", {"token_url": "https://a.example/"}, "token_url"),
        ("http", {"client_certificate": "s3cret"}, "client_key"),
        ("http", {"ca": "s3cret"}, "ca"),
        ("kafka", {"url": "kafka://a.example/penstock.x"}, "url"),
        ("rabbitmq", {"url": "amqp://a.example/", "exchange": "x" * 300}, "exchange"),
        ("sqs", {"url": "sqs://a.example/1/q", "key_id": "k", "secret_key": "s3cret"}, "region"),
        ("collection", {"url": "collection://trains"}, "url"),
        ("file", {"url": "file://../x"}, "url"),
    ]
    for kind, given, field in cases:
        fields = {"kind": kind, "name": "billing", "url": "https://billing.example/", **given}

        answer = visitor.send("/destinations", fields)

        assert answer.status_code == 422, given
        assert re.findall(r'id="(\w+)-error">[^<]', answer.text) == [field]
        assert "s3cret" not in answer.text or field == "ca"
        again = "type them once more" in answer.text
        assert again is any(name in given for name in typed), given
    assert here.store.destinations("main") == []


def test_what_a_form_asks_is_what_the_kind_has() -> None:
    form = Form(
        {
            "name": ["k"],
            "url": ["kafka://k.example:9092/t"],
            "tls": ["on"],
            "sasl": ["PLAIN"],
            "user": ["u"],
            "password": ["p:q"],
            "header0": ["X"],
            "region": ["r"],
        }
    )

    kafka = destinations.asked_for("kafka", form)
    assert kafka["options"] == {"tls": True, "sasl": "PLAIN"}
    assert (kafka["secret"], kafka["headers"]) == ("u:p:q", [])
    assert destinations.asked_for("http", form)["headers"] == [("X", "")]
    assert destinations.asked_for("sqs", form)["secret"] is None
    assert destinations.asked_for("http", form)["secret"] is None


def test_what_signs_is_given_in_two_fields_and_kept_a_line_each() -> None:
    fields = {"signing": ["stripe"], "signing_secret": ["new"], "signing_before": ["old"]}

    asked = destinations.asked_for("http", Form(fields))
    assert (asked["options"], asked["secret"]) == ({"signing": "stripe"}, "new\nold")
    access = {"client_secret": [" s "], "client_key": ["\n"], "token_url": ["https://i.example/t"]}
    asked = destinations.asked_for("http", Form(access))
    assert asked["options"] == {"token_url": "https://i.example/t"}
    assert asked["credentials"] == {"client_secret": "s"}
    assert destinations.asked_for("sqs", Form(access))["credentials"] == {}
    one = destinations.asked_for("http", Form({**fields, "signing_before": [""], "signing": [""]}))
    assert (one["options"], one["secret"]) == ({}, "new")


def test_a_destination_is_tested_and_what_it_said_is_kept(
    visitor: Browser, stocked: Platform
) -> None:
    """Nothing answers at an example's address; the guard finds no host there either."""
    page = posted(visitor, "/destinations/billing/test", htmx="destinations")

    assert "did not take the event" in page
    [record] = stocked.store.destinations("main")
    assert record.tried_at == NOON
    assert record.tried is not None
    assert record.tried["delivered"] is False
    assert "failed" in visitor.get("/destinations").text


def test_a_destination_is_deleted_unless_a_replay_needs_it(
    visitor: Browser, stocked: Platform
) -> None:
    running(stocked)
    delete = "/destinations/billing/delete"
    assert "A replay still sends to it" in posted(visitor, delete, htmx="destinations")
    assert visitor.send(delete, {"sure": "yes"}).status_code == 409
    stocked.store.wish("main", "r1", "cancel", NOON)

    asked = posted(visitor, delete, htmx="destinations")
    assert "Delete billing?" in asked
    assert "still sends to it" not in asked
    assert len(stocked.store.destinations("main")) == 1
    gone = posted(visitor, delete, {"sure": "yes"}, htmx="destinations")
    assert "is forgotten" in gone
    assert stocked.store.destinations("main") == []
