"""A retry: a new replay of exactly what did not arrive in one that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from penstock.errors import BadRequest, WrongState, about
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import ENDS
from penstock.metadata.store import Store
from replay.progress import read_progress
from replay.request import ReplayRequest, read_options, request_of

_OF_THE_EVENTS = frozenset(
    ("collection", "query", "since", "until", "view", "duplicates", "retry_of", "continuous")
)
# What bounded the replay before says nothing about what failed in it.
_AS_NEW: Mapping[str, object] = {"max_events": None, "missing": False, "continuous": False}


def left_in(record: ReplayRecord) -> int:
    """Answer how many events failed, or were cut off, by the books of a replay."""
    progress = read_progress(record.progress)
    return progress.failed + progress.unknown


def retry_of(
    record: ReplayRecord,
    *,
    destination: str | None = None,
    changes: Mapping[str, Any],
) -> ReplayRequest:
    """Answer the request that sends again what failed in a replay, or was cut off.

    How it is sent is as it was, with the `changes`. Of a continuous replay that goes on it is what
    has failed so far, without what a retry before has brought there. Raises `WrongState` while any
    other replay has not ended, and where nothing is left of it; `BadRequest` for changes that
    cannot be.
    """
    before = request_of(record)
    goes_on = record.state not in ENDS
    if goes_on and not before.options.continuous:
        raise WrongState(f"the replay is {record.state}; what failed is retried when it has ended")
    if before.options.dry_run:
        raise WrongState("the replay was a dry run: nothing was sent, so nothing failed")
    if not left_in(record):
        raise WrongState("nothing failed in the replay, so there is nothing to retry")
    fixed = sorted(_OF_THE_EVENTS & changes.keys())
    as_new = {**_AS_NEW, "missing": goes_on and destination in (None, before.destination)}
    with about("options"):
        if fixed:
            said = f"a retry takes the events that failed: {fixed[0]} cannot be given"
            raise BadRequest(said).at(fixed[0])
        options = read_options({**record.options, **as_new, **changes, "retry_of": record.id})
    return replace(before, destination=destination or before.destination, options=options)


def expected(store: Store, request: ReplayRequest) -> int | None:
    """Answer how many events a retry should find, by the books of what it repeats."""
    replay_id = request.options.retry_of
    return None if replay_id is None else left_in(store.replay(request.team, replay_id))
