"""What a replay may do next. Pure: the store and the tests ask the same functions.

requested -> planning -> running <-> paused
    any of these -> finished | failed | cancelled, which are ends
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.envelope import Micros
from penstock.errors import WrongState
from penstock.metadata.records import ReplayRecord
from penstock.vocabulary import State, Wish

ENDS: frozenset[State] = frozenset(("finished", "failed", "cancelled"))

MOVES: Mapping[State, frozenset[State]] = {
    "requested": frozenset(("planning", "running", "paused", *ENDS)),
    "planning": frozenset(("running", "paused", *ENDS)),
    "running": frozenset(("paused", *ENDS)),
    "paused": frozenset(("planning", "running", *ENDS)),
    "finished": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""Where the holder of a replay may take it; staying where it is, an end aside, is no move."""


def next_state(
    state: State, wish: Wish, *, planned: bool = True, pending: Wish | None = None
) -> State:
    """Answer the state that the wish leads to; raise `WrongState` if it cannot be granted.

    Asking for what is already so is granted. A replay without a plan resumes where it began.
    Nothing follows a cancel that is `pending`, except that cancel again.
    """
    if state in ENDS:
        raise WrongState(f"the replay is {state}; it cannot {wish} any more")
    if pending == "cancel" and wish != "cancel":
        raise WrongState(f"the replay is about to be cancelled; it cannot {wish} any more")

    match wish:
        case "cancel":
            return "cancelled"
        case "pause":
            return "paused"
        case "resume" if state == "paused":
            return "running" if planned else "requested"
        case "resume":
            return state


def moved(state: State, to: State) -> State:
    """Answer `to`; raise `WrongState` unless the holder of a replay may take it there."""
    if state in ENDS or (to != state and to not in MOVES[state]):
        raise WrongState(f"the replay is {state}; it cannot become {to}")
    return to


def remaining(wish: Wish | None, state: State) -> Wish | None:
    """Answer what is still to be granted of a wish when the replay is in this state."""
    granted: Mapping[State, Wish] = {"paused": "pause", "running": "resume", "planning": "resume"}
    return None if state in ENDS or granted.get(state) == wish else wish


def wants_a_run(replay: ReplayRecord, now: Micros) -> bool:
    """Say whether a run should be started for the replay: work is left and nobody is on it.

    One that is to start later wants none before that, whatever else is wished of it.
    """
    if replay.state in ENDS or replay.held(now):
        return False
    if replay.state == "requested" and replay.start_at is not None and now < replay.start_at:
        return False
    return replay.state != "paused" or replay.wish in ("resume", "cancel")
