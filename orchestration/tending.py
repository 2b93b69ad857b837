"""Upkeep of a home: who does it, for how long, and what it remembers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from assets.retention import NOTHING_DROPPED, Dropped, retain
from assets.stores import Stores
from assets.upkeep import Notes, Tended, Untended, aims_of, tend_all
from orchestration.keys import UPKEEP
from orchestration.lease import held
from orchestration.memory import recall, remember
from penstock.background import giving_way
from penstock.clock import machine_clock
from penstock.envelope import Clock, CollectionId, Micros
from penstock.errors import NotFound, Unavailable, WrongState
from penstock.memory import giving_back
from penstock.metadata.states import ENDS
from replay.files import sweep


def tend_home(
    stores: Stores,
    collections: Sequence[CollectionId],
    *,
    holder: str,
    seconds: float,
    clock: Clock = machine_clock,
    chance: Callable[[int], bytes] = secrets.token_bytes,
) -> Iterator[Tended | Untended]:
    """Tend the collections, see `tend_all`, and remember what the next upkeep has to know.

    Raises `WrongState` where another upkeep is at work: nothing would be lost, but both would do
    the same.
    """
    file = stores.settings.home / "upkeep.json"
    with giving_back(), held(lambda: stores.store, UPKEEP, holder=holder, clock=clock) as lease:
        if lease is None:
            raise WrongState("another upkeep is at work here; it tends every collection")
        forget_files(stores, clock)
        notes = recall(file, Notes)
        try:
            work = tend_all(
                stores.lake,
                collections,
                notes,
                aims=aims_of(stores.settings),
                seconds=seconds,
                clock=clock,
                chance=chance,
                retention=retention_of(stores, clock),
                merger=stores.merger,
            )
            # Where the machine is busy, what has just been sent is landed first.
            for outcome in giving_way(work):
                if isinstance(outcome, Tended):
                    notes[outcome.collection] = outcome.notes
                yield outcome
                if lease.lost:
                    return
        finally:
            known = set(stores.lake.collections())
            remember(file, {one: found for one, found in notes.items() if one in known})


def forget_files(stores: Stores, clock: Clock) -> list[str]:
    """Delete what replays wrote that ended `replay_files_days` ago; answer which those were."""

    def ended_at(team: str, replay_id: str) -> Micros | None:
        try:
            record = stores.metadata.ask(lambda store: store.replay(team, replay_id))
        except NotFound:
            return 0
        except Unavailable:
            return None
        return record.finished_at if record.state in ENDS else None

    settings = stores.settings
    return sweep(settings.replay_files, ended_at, now=clock(), days=settings.replay_files_days)


def retention_of(stores: Stores, clock: Clock) -> Callable[[CollectionId], Dropped]:
    """Answer what drops the days that a collection's owner does not want to keep."""

    def unindex(collection: CollectionId, before: Micros) -> None:
        with stores.indexing() as indexing:
            if indexing is not None:
                indexing.forget_before(collection, before)

    def drop(collection: CollectionId) -> Dropped:
        try:
            record = stores.metadata.ask(lambda store: store.collection(collection))
        except NotFound:
            return NOTHING_DROPPED  # deleted since, or Penstock's own
        except Unavailable as error:
            return Dropped(postponed=str(error))
        if record.keep_days is None:
            return NOTHING_DROPPED
        return retain(
            stores.lake,
            collection,
            keep_days=record.keep_days,
            now=clock(),
            unindex=partial(unindex, collection),
            stats=lambda: stores.stats,
        )

    return drop
