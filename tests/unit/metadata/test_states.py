from __future__ import annotations

from typing import get_args

import pytest
from builders import NOON
from metadata_builders import replay
from msgspec.structs import replace

from penstock.errors import WrongState
from penstock.metadata.states import (
    ENDS,
    MOVES,
    moved,
    next_state,
    remaining,
    wants_a_run,
)
from penstock.vocabulary import State, Wish

REFUSED = None

# state, wish -> state of a replay that has a plan
TABLE: dict[tuple[State, Wish], State | None] = {
    ("requested", "pause"): "paused",
    ("requested", "resume"): "requested",
    ("requested", "cancel"): "cancelled",
    ("planning", "pause"): "paused",
    ("planning", "resume"): "planning",
    ("planning", "cancel"): "cancelled",
    ("running", "pause"): "paused",
    ("running", "resume"): "running",
    ("running", "cancel"): "cancelled",
    ("paused", "pause"): "paused",
    ("paused", "resume"): "running",
    ("paused", "cancel"): "cancelled",
    ("finished", "pause"): REFUSED,
    ("finished", "resume"): REFUSED,
    ("finished", "cancel"): REFUSED,
    ("failed", "pause"): REFUSED,
    ("failed", "resume"): REFUSED,
    ("failed", "cancel"): REFUSED,
    ("cancelled", "pause"): REFUSED,
    ("cancelled", "resume"): REFUSED,
    ("cancelled", "cancel"): REFUSED,
}


def test_the_table_is_complete() -> None:
    """A state or wish added later has to be decided about."""
    assert set(TABLE) == {(s, w) for s in get_args(State) for w in get_args(Wish)}


@pytest.mark.parametrize(("state", "wish"), TABLE)
def test_a_wish_leads_where_the_table_says(state: State, wish: Wish) -> None:
    expected = TABLE[state, wish]
    if expected is REFUSED:
        with pytest.raises(WrongState, match=state):
            next_state(state, wish)
    else:
        assert next_state(state, wish) == expected


def test_a_replay_without_a_plan_resumes_where_it_began() -> None:
    """Else it would be running with nothing that says what to send."""
    assert next_state("paused", "resume", planned=False) == "requested"


@pytest.mark.parametrize("wish", ["pause", "resume"])
def test_nothing_follows_a_cancel_that_is_on_its_way(wish: Wish) -> None:
    """Whoever cancelled has been told so already."""
    with pytest.raises(WrongState, match="about to be cancelled"):
        next_state("running", wish, pending="cancel")
    assert next_state("running", "cancel", pending="cancel") == "cancelled"


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("to", get_args(State))
def test_a_holder_moves_along_the_drawn_ways_only(state: State, to: State) -> None:
    if to in MOVES[state] or (to == state and state not in ENDS):
        assert moved(state, to) == to
    else:
        with pytest.raises(WrongState):
            moved(state, to)


def test_ends_are_ends() -> None:
    assert [MOVES[state] for state in sorted(ENDS)] == [frozenset()] * 3
    assert all(MOVES[state] >= ENDS for state in MOVES if state not in ENDS)


@pytest.mark.parametrize(
    ("wish", "state", "left"),
    [
        ("pause", "running", "pause"),
        ("pause", "paused", None),
        ("resume", "paused", "resume"),
        ("resume", "running", None),
        ("resume", "planning", None),
        ("cancel", "paused", "cancel"),
        ("cancel", "cancelled", None),
        ("pause", "finished", None),
        (None, "running", None),
    ],
)
def test_a_wish_is_gone_once_it_is_granted(
    wish: Wish | None, state: State, left: Wish | None
) -> None:
    assert remaining(wish, state) == left


def test_a_replay_that_starts_later_wants_no_run_before() -> None:
    """And one whose time passed while nothing ran wants it then."""
    record = replace(replay(), start_at=NOON + 1)

    assert not wants_a_run(record, NOON)
    assert not wants_a_run(replace(record, state="paused"), NOON)
    assert wants_a_run(record, NOON + 1)
    assert wants_a_run(record, NOON + 86_400_000_000)
    assert wants_a_run(replace(record, state="running"), NOON), "once it runs, it goes on"


@pytest.mark.parametrize(
    ("state", "wish", "lease_until", "wanted"),
    [
        ("requested", None, None, True),
        ("running", None, None, True),
        ("running", None, NOON, True),  # the lease lapses at this very moment
        ("running", None, NOON + 1, False),
        ("planning", None, None, True),
        ("paused", None, None, False),
        ("paused", "pause", None, False),
        ("paused", "resume", None, True),
        ("paused", "cancel", None, True),
        ("finished", None, None, False),
        ("cancelled", "resume", None, False),
    ],
)
def test_a_run_is_wanted_where_work_is_left_and_nobody_is_on_it(
    state: State, wish: Wish | None, lease_until: int | None, wanted: bool
) -> None:
    record = replay(state=state, wish=wish, lease_until=lease_until)

    assert wants_a_run(record, NOON) is wanted
