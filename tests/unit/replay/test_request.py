"""What a replay can be asked, and what is refused before anything happens."""

from __future__ import annotations

import msgspec
import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.envelope import CollectionId
from penstock.errors import BadName, BadRequest, WrongState
from replay.plan import read_plan
from replay.progress import Progress, Tried, read_progress
from replay.request import (
    Options,
    ReplayRequest,
    moment_of,
    read_options,
    read_request,
    read_time,
    record_of,
    request_of,
    rfc3339,
)

LEAST = {"collection": "flights", "destination": "d1"}


def read(**more) -> ReplayRequest:
    return read_request({**LEAST, **more}, team="main")


def test_a_request_goes_through_its_row_unchanged() -> None:
    """What runs is what was asked, also after a restart of everything."""
    asked = read(
        query="origin:JFK",
        since="2026-11-22T10:00:00+02:00",
        until=NOON * 2,
        rate=5,
        order="log",
        view="quarantine",
        headers="verbatim",
        retries=0,
        timeout=1,
        pause_after=3,
        max_events=7,
        transform=["mask a", "set b = `1.10`"],
        dry_run=True,
    )

    row = record_of(asked, id="r1", now=NOON)
    stored = msgspec.json.decode(msgspec.json.encode(row.options))

    assert request_of(msgspec.structs.replace(row, options=stored)) == asked
    assert (row.state, row.created_at) == ("requested", NOON)
    assert asked.id == CollectionId("main", "flights")
    assert asked.options.at_once() == 1


def test_what_is_left_out_has_its_default() -> None:
    """Most replays are asked with two words."""
    assert read() == ReplayRequest(team="main", collection="flights", destination="d1")
    assert read().options == Options()


@pytest.mark.parametrize(
    "wrong",
    [
        {"collection": None},
        {"collection": 7},
        {"destination": None},
        {"destination": ""},
        {"destination": "x" * 101},
        {"query": 7},
        {"query": "x" * 10_001},
        {"since": "yesterday"},
        {"since": True},
        {"since": 1.5},
        {"since": "2026-11-22", "until": "2026-11-22"},
        {"since": "2026-11-23", "until": "2026-11-22"},
        {"rate": 0},
        {"rate": -1},
        {"rate": "5"},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"speed": -1},
        {"speed": "1x"},
        {"speed": float("nan")},
        {"speed": float("inf")},
        {"gap": 0},
        {"gap": -1},
        {"timing": "landed"},
        {"concurrency": 0},
        {"concurrency": 1_001},
        {"concurrency": 2.5},
        {"order": "random"},
        {"view": "both"},
        {"headers": "none"},
        {"max_events": 0},
        {"retries": -1},
        {"retries": 101},
        {"timeout": 0},
        {"timeout": 301},
        {"pause_after": 0},
        {"dry_run": "yes"},
        {"dry_run": 1},
        {"ratee": 5},
        {"transform": "mask a"},
        {"transform": ["drop a"]},
        {"transform": [7]},
        {"transform": ["mask a"] * 51},
        {"transform": ["mask " + "a" * 2_000]},
        {"options": {"rate": 5}},
        {"team": "other"},
        {"collection": "other.flights"},
    ],
)
def test_a_request_that_cannot_be_done_is_refused(wrong: dict[str, object]) -> None:
    """Better now, with a sentence, than in a run that nobody looks at."""
    with pytest.raises(BadRequest):
        read(**wrong)


@pytest.mark.parametrize("name", ["Flights", "a b", "", "penstock_x", "a__b", "../x"])
def test_names_are_names(name: str) -> None:
    """They become table names and URL parts."""
    with pytest.raises(BadName):
        read(collection=name)


def test_the_digest_is_about_what_is_sent_and_not_how_fast() -> None:
    """Rate and concurrency change while a replay runs; which events, never."""
    asked = read(query="a", since=5, until=9)
    same = [{"speed": 10.0}, {"gap": 5.0}, {"timing": "event"}]
    same += [{"rate": 9.0}, {"concurrency": 3}, {"retries": 0}, {"timeout": 2}, {"pause_after": 1}]
    other = [
        *[{"query": "b"}, {"since": 6}, {"until": 8}, {"destination": "d2"}],
        *[{"order": "log"}, {"view": "quarantine"}, {"headers": "verbatim"}],
        *[{"max_events": 1}, {"dry_run": True}, {"collection": "ships"}],
        *[{"transform": ["mask a"]}, {"transform": ["mask b"]}, {"duplicates": "include"}],
    ]
    base = {"query": "a", "since": 5, "until": 9}

    assert {read(**{**base, **each}).digest() for each in same} == {asked.digest()}
    digests = {read(**{**base, **each}).digest() for each in other}
    assert len(digests) == len(other)
    assert asked.digest() not in digests
    assert replace(asked, team="other").digest() != asked.digest()


def test_a_replay_without_a_transform_has_the_digest_that_it_always_had() -> None:
    """Plans that were made before there was one are resumed under it."""
    always = "42ad89548ec18b7fbc8795328aec7c35562205a1c3a257c1a2d3caee5cb9d5f9"
    assert read(query="a", since=5, until=9).digest() == always
    assert read(transform=[]).digest() == read().digest()


def test_patience_with_failures_grows_with_what_is_under_way() -> None:
    """Thirty-two sends that fail together are one bad moment of a destination, not thirty-two."""
    assert Options(order="log").patience() == 10
    assert Options(concurrency=32).patience() == 64
    assert Options(concurrency=32, pause_after=3).patience() == 3


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000001", 1),
        (17, 17),
    ],
)
def test_times_are_read_in_utc(text: object, micros: int) -> None:
    """A time without a zone must not mean the server's."""
    assert read_time(text, what="since") == micros


@given(st.integers(-60_000_000_000_000_000, 200_000_000_000_000_000))
def test_times_are_written_as_they_are_read(micros: int) -> None:
    """Receivers and the ledger compare these texts, and they sort as times do."""
    text = rfc3339(micros)

    assert len(text) == 27
    assert read_time(text, what="time") == micros
    assert moment_of(micros).isoformat(timespec="microseconds") == text.replace("Z", "+00:00")


def test_options_are_read_as_strictly_as_requests() -> None:
    """The row's options are looked at again at every checkpoint."""
    assert read_options({"rate": 5}) == Options(rate=5.0)
    with pytest.raises(BadRequest):
        read_options({"rate": "fast"})
    with pytest.raises(BadRequest):
        read_options({"sped": 5})


def test_a_row_that_was_written_by_something_else_is_refused() -> None:
    """Guessing what a foreign checkpoint meant would skip events, or double them."""
    with pytest.raises(WrongState):
        read_progress({"through": "somewhere"})
    with pytest.raises(WrongState):
        read_plan({"count": 5})
    assert read_progress({}) == Progress()


def test_progress_goes_through_its_row_unchanged() -> None:
    """A successor knows nothing but this."""
    progress = Progress(
        epoch=3,
        through=(0, 7),
        passed=8,
        done=((0, 9), (1, 2)),
        intended=(1, 5),
        tried=(((0, 8), Tried(4, open=True)),),
        delivered=5,
    )
    stored = msgspec.json.decode(msgspec.json.encode(progress.as_dict()))

    again = read_progress(stored)

    assert again == progress
    assert again.history((1, 4)) == Tried(1, open=True)
    assert again.history((1, 6)) == Tried(0, open=False)
