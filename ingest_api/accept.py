"""The one way in: HTTP and gRPC ask `Door.may_ingest`, then hand their events to `Door.accept`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import TypeGuard

import structlog

from ingest_api.auth import Grant, Keyring, refuse_missing
from ingest_api.limits import Limits, Rates
from ingest_api.metrics import Metrics
from penstock.buffer import Appender
from penstock.envelope import Clock, CollectionId, Event, Micros, NewIds, Position, parse_collection
from penstock.errors import (
    BadRequest,
    CollectionPaused,
    Forbidden,
    LogUnavailable,
    NotFound,
    Overloaded,
    PenstockError,
    TooLarge,
)
from penstock.metadata.records import CollectionRecord
from penstock.vocabulary import Scope

log = structlog.get_logger()

ORIGIN = "penstock-collection"
"""The header by which a replay says which collection an event was taken from."""

Outcomes = Sequence[Position | Exception]
"""What became of each event of a call, in their order."""


class Door:
    """Decides who may send where, and hands events to the log.

    Everything but the log's answer happens in the caller's thread, which is the one of the event
    loop for HTTP and gRPC alike.
    """

    def __init__(
        self,
        appender: Appender,
        keyring: Keyring,
        limits: Limits,
        *,
        clock: Clock,
        new_ids: NewIds,
        learn: Callable[[], bool] = bool,
        metrics: Metrics | None = None,
    ) -> None:
        """Take what the door needs.

        `learn` brings the keyring up to date and says whether there was anything new. It is asked
        before every refusal, so it has to be cheap while there is not.
        """
        self.keyring = keyring
        self.limits = limits
        self.new_ids = new_ids
        self.metrics = metrics or Metrics()
        self._appender = appender
        self._learn = learn
        self._log_responds = True
        self._clock = clock
        self._latest: Micros = 0
        self._rates = Rates(limits.events_per_second)

    def received(self) -> Micros:
        """Answer the door's time, which never goes back, whatever the machine's clock does."""
        self._latest = max(self._latest, self._clock())
        return self._latest

    def may_ingest(
        self, token: str | None, collection: CollectionId | str | None
    ) -> tuple[Grant, CollectionRecord]:
        """Answer what the token grants and where its events go, or raise the refusal.

        `collection` as text is read in the token's team; None is the one the token is bound to.
        Raises `Unauthorized`, `Forbidden`, `BadName`, `NotFound` (also for whatever belongs to
        another team), `CollectionPaused`, and `EngineUnavailable` while the door knows nothing.
        A token or collection that the platform has answered for is known here from then on.
        """
        try:
            return self._granted(token, collection)
        except PenstockError:
            if not self._learn():
                raise
        return self._granted(token, collection)

    def may(self, token: str | None, scope: Scope) -> Grant:
        """Answer what a token with this scope grants; raise `Unauthorized` or `Forbidden`.

        Raises `EngineUnavailable` while the door knows nothing.
        """
        try:
            return self._with(token, scope)
        except PenstockError:
            if not self._learn():
                raise
        return self._with(token, scope)

    def _with(self, token: str | None, scope: Scope) -> Grant:
        if not token:
            raise refuse_missing()
        grant = self.keyring.grant(token, self.received())
        if scope not in grant.scopes:
            raise Forbidden(f"this token does not have the scope {scope}")
        return grant

    def _granted(
        self, token: str | None, collection: CollectionId | str | None
    ) -> tuple[Grant, CollectionRecord]:
        if not token:
            raise refuse_missing()
        grant = self.keyring.grant(token, self.received())
        if "ingest" not in grant.scopes:
            raise Forbidden("this token may not send events")
        wanted = _wanted(collection, grant)
        if wanted.team != grant.team:
            raise NotFound("collection", str(wanted))
        if grant.collection is not None and wanted != grant.collection:
            raise Forbidden("this token is bound to another collection")
        record = self.keyring.collection(wanted)
        if record.paused:
            raise CollectionPaused(str(wanted))
        return grant, record

    def check_log(self) -> None:
        """Raise `LogUnavailable` if the log took nothing the last time it was asked."""
        if not self._log_responds:
            raise LogUnavailable("the last append failed; the door's log says why")

    def accept(
        self, grant: Grant, collection: CollectionId, events: Sequence[Event]
    ) -> Future[Outcomes]:
        """Store the events; the future answers a position or a failure for each, in order.

        A position means that the event is durable. An event over `max_event_bytes` gets `TooLarge`,
        unless it asks for quarantine: then it may have any size that its transport let through.
        The future itself fails with `TooFast` when the token has sent too much, and as
        `Appender.append` says. Never raises, never blocks.
        """
        if not events:
            return _done(())
        slow_down = self._rates.take(grant.token_id, len(events), events[0].received_at)
        if slow_down is not None:
            self.metrics.refused(slow_down, len(events))
            return _failed(slow_down)
        refused = _refusals(events, self.limits.max_event_bytes)
        if not refused:
            return self._append(collection, events)
        for error in refused.values():
            self.metrics.refused(error)
        good = [event for place, event in enumerate(events) if place not in refused]
        if not good:
            return _done([refused[place] for place in range(len(events))])
        answer: Future[Outcomes] = Future()
        self._append(collection, good).add_done_callback(
            lambda stored: _settle(answer, stored, refused, len(events))
        )
        return answer

    def _append(self, collection: CollectionId, events: Sequence[Event]) -> Future[Outcomes]:
        stored = self._appender.append(collection, events)
        stored.add_done_callback(lambda done: self._count(done, events))
        return stored

    def _count(self, stored: Future[Outcomes], events: Sequence[Event]) -> None:
        """Count what became of the events; runs in whichever thread finished the append."""
        try:
            outcomes = stored.result()
        except Exception as error:  # noqa: BLE001 - it goes to the caller through the same future
            self.metrics.refused(error, len(events))
            # A log that has enough to do responds.
            self._note(error if not isinstance(error, Overloaded) else None)
            return
        self._note(None)
        good = events
        if not all_stored(outcomes):
            pairs = list(zip(events, outcomes, strict=True))
            good = [event for event, outcome in pairs if not isinstance(outcome, Exception)]
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    self.metrics.refused(outcome)
        size = sum([len(event.payload) for event in good])
        # The machine's clock may have been set back meanwhile.
        seconds = max(0, self._clock() - events[0].received_at) / 1e6
        self.metrics.accepted(events[0].source, len(good), size, seconds)

    def _note(self, error: Exception | None) -> None:
        """Remember whether the log responds, and say so in the door's log when that changes."""
        responded, self._log_responds = self._log_responds, error is None
        if error is not None and responded:
            # Only errors raised on purpose have a text that is fit for a log.
            reason = str(error) if isinstance(error, PenstockError) else None
            log.error("the log does not take events", kind=type(error).__name__, reason=reason)
        elif error is None and not responded:
            log.info("the log takes events again")


def all_stored(outcomes: Outcomes) -> TypeGuard[Sequence[Position]]:
    """Say whether every outcome is a position."""
    return set(map(type, outcomes)) <= {Position}


def _wanted(collection: CollectionId | str | None, grant: Grant) -> CollectionId:
    if isinstance(collection, CollectionId):
        return collection
    if collection is not None:
        return _parsed(collection, grant.team)
    if grant.collection is None:
        raise BadRequest("this token is bound to no collection, so the address has to name one")
    return grant.collection


@lru_cache(maxsize=1024)
def _parsed(text: str, team: str) -> CollectionId:
    return parse_collection(text, team=team)


def _refusals(events: Sequence[Event], limit: int) -> dict[int, Exception]:
    """Answer why events cannot be taken, by their place; most often there is none."""
    return {
        place: TooLarge("event", len(event.payload), limit)
        for place, event in enumerate(events)
        if len(event.payload) > limit and not event.quarantine
    }


def _settle(
    answer: Future[Outcomes],
    stored: Future[Outcomes],
    refused: dict[int, Exception],
    count: int,
) -> None:
    """Put the refusals back between the outcomes of the events that went to the log."""
    try:
        rest = iter(stored.result())
    except Exception as error:  # noqa: BLE001 - it goes to the caller
        answer.set_exception(error)
        return
    answer.set_result([refused.get(place) or next(rest) for place in range(count)])


def _done(outcomes: Outcomes) -> Future[Outcomes]:
    future: Future[Outcomes] = Future()
    future.set_result(outcomes)
    return future


def _failed(error: Exception) -> Future[Outcomes]:
    future: Future[Outcomes] = Future()
    future.set_exception(error)
    return future
