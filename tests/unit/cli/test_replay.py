"""Following a replay, with a client that tells a story."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from penstock.cli.replay import (
    app,
    follow,
    kept_days,
    pace_of,
    plan_in,
    plan_started,
    show,
    show_change,
    steps_of,
)
from penstock.client import Client
from penstock.contract.replays import (
    BehindTold,
    MessageTold,
    PlanTold,
    ReplayProgress,
    ReplayTold,
    SavedPlan,
)
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
    differing=0,
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
        "start_at": None,
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
    paused = replay(
        "paused",
        options={"transform": ["mask [a]"]},
        error="64 attempts in a row failed, the last: [answered] 500",
    )

    show(followed(["paused"], tmp_path), tmp_path)
    show(paused, tmp_path)

    told = capsys.readouterr().out
    assert "64 attempts in a row failed, the last: [answered] 500" in told
    assert "flights: note:[a TO b] → shop" in told
    assert "changed by mask [a]" in told
    assert "penstock replay resume r1" in told
    assert "penstock replay cancel r1" in told


def test_a_replay_that_starts_later_says_when(tmp_path: Path, capsys) -> None:
    """Until then it is requested, which would look as if nobody took it up."""
    show(replay("requested", start_at=datetime(2026, 12, 1, 3, tzinfo=UTC)), tmp_path)

    told = capsys.readouterr().out
    assert "requested for 2026-12-01 03:00:00" in told
    assert "penstock replay cancel r1" in told


@pytest.mark.parametrize(
    ("behind", "says"),
    [
        (BehindTold(events=0, seconds=None), "everything that was received has been sent"),
        (BehindTold(events=1_200, seconds=75.2), "1,200 events behind, the first of them received"),
        (BehindTold(events=1_200, seconds=None), "1,200 events behind"),
    ],
)
def test_a_continuous_replay_says_how_far_it_is_behind(
    tmp_path: Path, capsys, behind: BehindTold, says: str
) -> None:
    """It has no end to wait for: this is what somebody looks for."""
    show(replay("running", behind=behind), tmp_path)

    said = " ".join(capsys.readouterr().out.split())
    assert "running, continuous" in said
    assert says in said


def test_what_failed_in_a_continuous_replay_can_be_tried_again(tmp_path: Path, capsys) -> None:
    """Nobody has to cancel it for that."""
    far = PROGRESS.model_copy(update={"failed": 2})
    show(
        replay("running", behind=BehindTold(events=0, seconds=None), progress=far),
        tmp_path,
    )

    assert "replay retry r1" in " ".join(capsys.readouterr().out.split())


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


def test_a_replay_in_which_events_failed_says_how_to_retry_them(tmp_path: Path, capsys) -> None:
    """The next step stands where somebody sees the failure."""
    failed = PROGRESS.model_copy(update={"failed": 1})

    show(replay("finished"), tmp_path)
    assert "replay retry" not in capsys.readouterr().out
    show(replay("finished", progress=failed), tmp_path)
    assert "penstock replay retry r1" in capsys.readouterr().out


SAVED = SavedPlan(
    format="penstock-plan-1",
    id="p1",
    planned_at="2026-11-23T12:00:00.000000Z",
    planned_by=None,
    kept_until="2026-11-30T12:00:00.000000Z",
    request={},
    plan={},
    digest="d",
)


class Planned:
    """Starts what it is given."""

    def __init__(self) -> None:
        self.plans: list[SavedPlan] = []

    def start_plan(self, plan: SavedPlan, *, confirm: int | None, why: str | None) -> ReplayTold:
        self.plans.append(plan)
        return replay("requested", why=why)


def started(client: Planned, *words: str) -> ReplayTold | None:
    start = typer.main.get_command(app).commands["start"]  # type: ignore[attr-defined]
    with start.make_context("start", list(words)) as ctx:
        given = ctx.params
        return plan_started(
            ctx, cast("Client", client), given["collection"], given["confirm"], given["why"]
        )


def test_a_plan_in_a_file_is_started_as_it_is(tmp_path: Path) -> None:
    """What was agreed on has no options left; a collection has a destination."""
    file = tmp_path / "plan.json"
    file.write_text(SAVED.model_dump_json(indent=2))
    client = Planned()

    made = started(client, str(file), "--why", "agreed", "--wait")

    assert made is not None
    assert (made.why, client.plans) == ("agreed", [SAVED])
    assert started(client, "flights", "--to", "shop") is None
    for words, says in (
        ((str(file), "--rate", "5"), "as it is: leave out rate"),
        ((str(file), "note:x"), "as it is: leave out query"),
        (("flights",), "say where to, with --to"),
        ((str(tmp_path / "no.json"),), "cannot be read"),
    ):
        with pytest.raises(BadRequest, match=says):
            started(client, *words)
    assert len(client.plans) == 1


def test_the_file_of_a_plan_is_new_and_is_json(tmp_path: Path) -> None:
    """A plan that was agreed on is not written over by the next one."""
    there = tmp_path / "plan.json"
    there.write_text("{}")

    assert kept_days(tmp_path / "new.json", "30d") == 30
    assert kept_days(tmp_path / "new.json", None) is None
    assert kept_days(None, None) is None
    for file, keep, says in (
        (there, None, "there already"),
        (tmp_path / "plan.yaml", None, "name the file plan.json"),
        (None, "7d", "--save"),
    ):
        with pytest.raises(BadRequest, match=says):
            kept_days(file, keep)
    with pytest.raises(BadRequest, match="is no plan"):
        plan_in(there)


def test_masks_come_before_all_other_steps_those_of_a_file_too(tmp_path: Path) -> None:
    """Nothing that comes behind a mask can copy what it masks."""
    file = tmp_path / "steps"
    file.write_text("# of the shop\n\nremove debug\n  rename a to b\n")

    assert steps_of(file, ["card", "mail as hash"], ["env = 'x=y'", "n=a"], ["c"], ["d=e"]) == [
        *(
            "mask card",
            "mask mail as hash",
            "remove debug",
            "rename a to b",
            "set env = 'x=y'",
            "set n = a",
        ),
        *("remove c", "rename d to e"),
    ]
    assert steps_of(None) is None
    for wrong in ({"sets": ["a"]}, {"renames": ["a"]}):
        with pytest.raises(BadRequest, match="PLACE=VALUE"):
            steps_of(None, **wrong)


def message(**given: Any) -> MessageTold:
    values: dict[str, Any] = {
        "event_id": "e1",
        "received_at": NOON,
        "key": None,
        "key_base64": None,
        "headers": [("penstock-transform", "abc"), ("authorization", None)],
        "payload": '{"card":"***","n":1}',
        "payload_base64": None,
        "bytes": 20,
        "before": '{"card":"4111","n":1}',
    }
    return MessageTold(**{**values, **given})


def test_what_a_transform_changes_is_seen_without_colours(capsys) -> None:
    """A log of a job has none, and [brackets] of a payload are no markup."""
    show_change(message(before='{"card":"4111","n":1}'))
    show_change(message(before=None, payload='["[bold]"]'))
    show_change(message(wrong="the transform: the payload is no JSON"))

    told = capsys.readouterr().out
    assert '{"card":"[-4111-]{+***+}","n":1}' in told
    assert 'the payload stays: ["[bold]"]' in told
    assert "is not sent: the transform: the payload is no JSON" in told
    assert "authorization: (of the destination)" in told
