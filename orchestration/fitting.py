"""Types fitted to what is sent, as a part of upkeep: who does it, and what it remembers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from assets.retype import Tell, silent
from assets.rewriting import Rewriting
from assets.stores import Stores
from lakehouse.rewrite import Rewritten
from orchestration.keys import RETYPE
from orchestration.lease import BEAT_SECONDS, held
from orchestration.memory import recall, remember
from penstock.clock import machine_clock
from penstock.envelope import Clock, CollectionId
from penstock.errors import WrongState

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fitted:
    """A collection of which columns of longs have become columns of doubles."""

    collection: CollectionId
    rewritten: Rewritten


@dataclass(frozen=True, slots=True)
class Unfitted:
    """A collection that could not be looked at or retyped, and why."""

    collection: CollectionId
    error: Exception


def fit_home(
    stores: Stores,
    collections: Sequence[CollectionId],
    *,
    holder: str,
    tell: Tell = silent,
    clock: Clock = machine_clock,
    chance: Callable[[int], bytes] = secrets.token_bytes,
    beat_seconds: float = BEAT_SECONDS,
) -> Iterator[Fitted | Unfitted]:
    """Retype columns that are due, where something has landed since this was done before.

    Answers those that were retyped, and those that could not be: they are looked at again the
    next time. The others are remembered as looked at, also where this ends early.

    The lease is not that of merging and expiring: to write a large table anew may take hours.
    Raises `WrongState` where another one is at work: both would write the same files, and each
    forget what the other has looked at.
    """
    file = stores.settings.home / "retype.json"
    with held(
        lambda: stores.store, RETYPE, holder=holder, clock=clock, beat_seconds=beat_seconds
    ) as lease:
        if lease is None:
            raise WrongState("columns are being retyped here by another upkeep")
        looked = recall(file, int)
        try:
            for collection in collections:
                if lease.lost:
                    return
                work = Rewriting(
                    stores=stores, collection=collection, tell=tell, clock=clock, chance=chance
                )
                try:
                    view = stores.lake.view(collection)
                    if view is None or looked.get(collection) == view.landed_sequence:
                        continue
                    done = _retyped(work)
                except Exception as error:  # noqa: BLE001 - one table must not keep the others waiting
                    looked.pop(collection, None)
                    yield Unfitted(collection, error)
                    continue
                looked[collection] = view.landed_sequence
                if done is not None:
                    yield Fitted(collection, done)
        finally:
            if not lease.lost:
                known = set(stores.lake.collections())
                remember(file, {one: at for one, at in looked.items() if one in known})


def _retyped(work: Rewriting) -> Rewritten | None:
    """Retype what is due; None where nothing is, or rows of an earlier format would be emptied."""
    try:
        return work.retype().rewritten
    except WrongState as error:
        log.warning("columns stay longs", collection=str(work.collection), why=str(error))
        return None
