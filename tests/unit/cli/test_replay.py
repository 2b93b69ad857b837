"""Following a replay, with a client that tells a story."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from penstock.cli.replay import follow, pace_of, show
from penstock.client import Client
from penstock.contract.replays import PlanTold, ReplayProgress, ReplayTold
from penstock.errors import BadRequest

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

PLAN = PlanTold(
    count=10,
    bytes=1_000,
    folded=0,
    to_send=10,
    first=None,
    last=None,
    earliest=None,
    latest=None,
    spans=[],
    estimated_seconds=1.0,
    warnings=[],
    snapshot_id=None,
)
PROGRESS = ReplayProgress(
    delivered=3,
    failed=0,
    skipped=0,
    unknown=0,
    repeated=0,
    attempts=3,
    late=0,
    bytes=300,
    last_failure=None,
    waiting=None,
)


def replay(state: str, **given: Any) -> ReplayTold:
    values: dict[str, Any] = {
        "id": "r1",
        "collection": "flights",
        "query": "note:[a TO b]",
        "since": None,
        "until": None,
        "destination": "shop",
        "options": {},
        "state": state,
        "wish": None,
        "plan": PLAN,
        "progress": PROGRESS,
        "error": None,
        "created_at": NOON,
        "started_at": None,
        "finished_at": None,
        "run_id": None,
        "asked_by": None,
        "why": None,
    }
    return ReplayTold(**{**values, **given})


class Story:
    """Answers one state after the other; at the end somebody presses Ctrl-C."""

    def __init__(self, states: Sequence[str]) -> None:
        self._states = list(states)

    def replay(self, _replay_id: str) -> ReplayTold:
        if not self._states:
            raise KeyboardInterrupt
        return replay(self._states.pop(0))


def followed(states: Sequence[str], home: Path) -> ReplayTold:
    return follow(cast("Client", Story(states)), replay("requested"), home, quiet=False)


def test_who_stops_waiting_is_told_that_the_replay_goes_on(tmp_path: Path, capsys) -> None:
    """Ctrl-C ends the looking, not the sending; who thinks otherwise sends twice."""
    with pytest.raises(typer.Exit) as left:
        followed(["running"], tmp_path)

    assert left.value.exit_code == 1
    told = capsys.readouterr().err
    assert "goes on" in told
    assert f"penstock replay status r1 --watch --home {tmp_path}" in told
    assert f"penstock replay cancel r1 --home {tmp_path}" in told


def test_without_a_terminal_each_state_is_a_line(tmp_path: Path, capsys) -> None:
    """A log of a job should not hold a progress bar."""
    ended = followed(["planning", "running", "running", "finished"], tmp_path)

    assert ended.state == "finished"
    lines = [f"r1 is {state}" for state in ("requested", "planning", "running", "finished")]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_paused_replay_says_why_and_what_can_be_done(tmp_path: Path, capsys) -> None:
    """It stands still until somebody decides."""
    paused = replay("paused", error="64 attempts in a row failed, the last: [answered] 500")

    show(followed(["paused"], tmp_path), tmp_path)
    show(paused, tmp_path)

    told = capsys.readouterr().out
    assert "64 attempts in a row failed, the last: [answered] 500" in told
    assert "flights: note:[a TO b] → shop" in told
    assert "penstock replay resume r1" in told
    assert "penstock replay cancel r1" in told


def test_a_pace_is_what_was_said_and_nothing_else() -> None:
    """What is not said stays as it is; 0 takes a bound away."""
    said = pace_of(None, None, "10x", "200ms").model_dump(exclude_unset=True)
    assert said == {"speed": 10.0, "gap": 0.2}
    assert pace_of(0, None, "0", "0").model_dump(exclude_unset=True) == {
        "rate": None,
        "speed": 0.0,
        "gap": None,
    }
    with pytest.raises(BadRequest, match="--speed"):
        pace_of(None, None)
