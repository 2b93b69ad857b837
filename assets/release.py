"""What people do about quarantined events: look why, try a repair, release, discard.

Only landed events are worked on: an event that is still on its way could become a row yet, if its
collection's contract changes meanwhile. A release sends new events to a door; landing closes what
they come from and makes one row of all copies (`lakehouse.closings`). So everything here may be
killed at any point, repeated, and done by two people at once.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import msgspec

from lakehouse import Lake
from lakehouse.closings import (
    Closing,
    State,
    Worked,
    close,
    closed_positions,
    closings_of,
    quarantined,
    state_of,
    works,
)
from penstock.buffer import Buffer
from penstock.codec import Gathering, encode
from penstock.envelope import Clock, CollectionId, Event, Micros
from penstock.errors import BadRequest, NotFound
from penstock.faults import fault
from penstock.quarantine.causes import Causes, count_causes
from penstock.quarantine.place import PlaceIn, place_of
from penstock.quarantine.release import Origin, Release, marked
from penstock.quarantine.repair import Repair
from penstock.query import parse
from penstock.schema.convert import Converted, Rules, convert
from penstock.schema.leaves import json_text, leaves
from penstock.schema.shape import EMPTY
from penstock.search import Found, Searcher, SearchRequest

_A = TypeVar("_A")

_CHUNK_BYTES = 4 << 20
_MOST_REMEMBERED = 500
_MOST_OF_ONE_ID = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which quarantined events are meant: a search in the quarantine view."""

    collection: CollectionId
    query: str = ""
    since: Micros | None = None
    until: Micros | None = None


class ReleaseDoor(Protocol):
    """The way of released events to the log."""

    def send(self, collection: CollectionId, events: Sequence[Event]) -> Sequence[str | None]:
        """Send the events; answer None for each that is durable, else why it was refused.

        Raises `Rejected` where none of them may come in, `Unavailable` if it is not known whether
        they are durable: they may be sent again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A quarantined event, where its payload is wrong, and how it was closed, if it was."""

    found: Found
    place: PlaceIn
    closing: Closing | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What an event would become after a repair, by landing's own conversion.

    `stage` is None where it would be a row: then `columns` holds its leaves (path, JSON text) and
    `misfits` those that no column holds.
    """

    found: Found
    payload: bytes
    content_type: str | None
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    misfits: tuple[tuple[str, str], ...] = ()
    new_columns: tuple[str, ...] = ()

    @property
    def row(self) -> bool:
        """Whether it would be a row."""
        return self.stage is None


@dataclass(frozen=True, slots=True)
class Held:
    """An event that was not released, and why."""

    event_id: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """Some events of a quarantine after a repair; `cursor` asks for the next ones."""

    trials: tuple[Trial, ...]
    closed: int
    waiting: int
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one page of a release or discard did.

    `done` events were sent or discarded, `held` were not. `closed` had been closed before, by
    whomever; `waiting` had not landed yet. `cursor` asks for the next page, None after the last.
    """

    done: int
    held: tuple[Held, ...]
    closed: int
    waiting: int
    cursor: str | None


@dataclass(frozen=True, slots=True)
class _Open:
    """The open events of one page."""

    events: tuple[tuple[Origin, Found], ...]
    closed: int
    waiting: int
    cursor: str | None


class _Remembered(Generic[_A]):
    """What was read of quarantines, for as long as they hold the same."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[State, _A]] = OrderedDict()

    def answer(self, asked: Hashable, state: State, read: Callable[[], _A]) -> _A:
        """Answer what was read in this state of the quarantine, or read it."""
        with self._guard:
            known = self._known.get(asked)
        if known is not None and known[0] == state:
            return known[1]
        answer = read()
        with self._guard:
            self._known[asked] = (state, answer)
            self._known.move_to_end(asked)
            if len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        return answer


class Workplace:
    """The quarantines of all collections. Threads may share it.

    Causes and works are read again only when the tables have changed: pages ask every few seconds.
    """

    def __init__(
        self,
        lake: Lake,
        buffer: Buffer,
        searcher: Searcher,
        *,
        rules: Callable[[CollectionId], Rules],
        clock: Clock,
        chance: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._lake = lake
        self._buffer = buffer
        self._searcher = searcher
        self._rules = rules
        self._clock = clock
        self._chance = chance
        self._causes = _Remembered[Causes]()
        self._works = _Remembered[list[Worked]]()

    def causes(
        self,
        collection: CollectionId,
        *,
        since: Micros | None = None,
        until: Micros | None = None,
        bars: int = 60,
    ) -> Causes:
        """Answer why the events that have landed in quarantine, and are open, are there."""

        def read() -> Causes:
            closed = closed_positions(self._lake, collection, since=since, until=until)
            rows = quarantined(self._lake, collection, since=since, until=until)
            return count_causes(rows, closed, bars=bars)

        asked = (collection, since, until, bars)
        return self._causes.answer(asked, state_of(self._lake, collection), read)

    def show(self, collection: CollectionId, event_id: str) -> Shown:
        """Answer the newest quarantined event with this id, an open one before closed ones.

        Raises `NotFound`.
        """
        escaped = event_id.replace("\\", "\\\\").replace('"', '\\"')
        request = SearchRequest(
            collection=collection,
            query=f'event_id:"{escaped}"',
            view="quarantine",
            closed=True,
            limit=_MOST_OF_ONE_ID,
        )
        # The language ignores case, ids do not.
        events = [e for e in self._searcher.search(request).events if e.event_id == event_id]
        if not events:
            raise NotFound("quarantined event", event_id)
        known = closings_of(self._lake, collection, [self._origin(collection, e) for e in events])
        ends = [(known.get(self._origin(collection, event)), event) for event in events]
        closing, found = next((pair for pair in ends if pair[0] is None), ends[0])
        rules = self._rules(collection)
        place = place_of(
            found.payload,
            found.reason or "",
            found.detail,
            max_depth=rules.max_depth,
            max_keys=rules.max_keys,
        )
        return Shown(found, place, closing)

    def works(self, collection: CollectionId) -> list[Worked]:
        """Answer who released or discarded how many events, the latest work first."""
        state = state_of(self._lake, collection)
        return self._works.answer(collection, state, lambda: works(self._lake, collection))

    def attempt(
        self, asked: Asked, repair: Repair, *, limit: int, cursor: str | None = None
    ) -> Tried:
        """Answer what the first open events would become after the repair. Changes nothing."""
        page = self._page(asked, repair, limit=limit, cursor=cursor)
        trials = tuple(self._trials(asked.collection, page, repair))
        return Tried(trials=trials, closed=page.closed, waiting=page.waiting, cursor=page.cursor)

    def release(
        self,
        asked: Asked,
        repair: Repair,
        *,
        release: str,
        by: str,
        door: ReleaseDoor,
        limit: int,
        cursor: str | None = None,
    ) -> Done:
        """Send the next open events to the door, repaired; answer what was sent.

        What would go to quarantine again is held back. What is sent becomes a row once, however
        often and by whomever it is sent: until it lands it is open, and may be sent again.
        """
        page = self._page(asked, repair, limit=limit, cursor=cursor)
        fault("release_read")
        held: list[Held] = []
        ready: list[Event] = []
        origins = {id(found): origin for origin, found in page.events}
        for trial in self._trials(asked.collection, page, repair):
            if trial.row:
                origin = origins[id(trial.found)]
                ready.append(_released(trial, origin, release=release, by=by))
            else:
                held.append(Held(trial.found.event_id, _why(trial)))
        sent = 0
        for chunk in _chunks(ready):
            fault("release_before_send")
            outcomes = door.send(asked.collection, chunk)
            fault("release_sent")
            pairs = list(zip(chunk, outcomes, strict=True))
            held += [Held(event.id, why) for event, why in pairs if why is not None]
            sent += sum(why is None for _, why in pairs)
        return Done(
            done=sent,
            held=tuple(held),
            closed=page.closed,
            waiting=page.waiting,
            cursor=page.cursor,
        )

    def discard(
        self, asked: Asked, *, why: str, by: str, limit: int, cursor: str | None = None
    ) -> Done:
        """Close the next open events as discarded; their rows and bytes stay where they are."""
        if not why.strip():
            raise BadRequest("say why the events are discarded: it is kept with them")
        page = self._page(asked, Repair(), limit=limit, cursor=cursor)
        now = self._clock()
        wanted = [
            Closing(
                origin=origin,
                event_id=found.event_id,
                received_at=found.received_at,
                state="discarded",
                closed_at=now,
                closed_by=by,
                why=why,
            )
            for origin, found in page.events
        ]
        known = close(self._lake, asked.collection, wanted, chance=self._chance) if wanted else {}
        done = sum(known[closing.origin] == closing for closing in wanted)
        return Done(
            done=done,
            held=(),
            closed=page.closed + len(wanted) - done,
            waiting=page.waiting,
            cursor=page.cursor,
        )

    def _page(self, asked: Asked, repair: Repair, *, limit: int, cursor: str | None) -> _Open:
        """Answer the open ones of the next events found.

        Raises `BadRequest` if several are found for a repair that gives a whole payload.
        """
        _refuse_modifiers(asked.query, self._clock())
        # The table before the search: what it has by now is in quarantine for good.
        view = self._lake.quarantine_view(asked.collection)
        page = self._searcher.search(
            SearchRequest(
                collection=asked.collection,
                query=asked.query,
                since=asked.since,
                until=asked.until,
                view="quarantine",
                # How many of them are closed by now is told.
                closed=True,
                newest_first=False,
                limit=limit,
                cursor=cursor,
            )
        )
        found = [(self._origin(asked.collection, event), event) for event in page.events]
        landed = [
            (origin, event)
            for origin, event in found
            if view and origin.offset < view.mark(origin.log_id, origin.partition).next
        ]
        known = closings_of(self._lake, asked.collection, [origin for origin, _ in landed])
        still = tuple((origin, event) for origin, event in landed if origin not in known)
        if repair.single and (len(still) > 1 or page.cursor or cursor):
            raise BadRequest(
                "a whole payload replaces that of one event, and more are found: "
                'name one, as in event_id:"…"'
            )
        return _Open(still, len(landed) - len(still), len(found) - len(landed), page.cursor)

    def _origin(self, collection: CollectionId, found: Found) -> Origin:
        return Origin(self._buffer.log_id(collection), found.log_partition, found.log_offset)

    def _trials(self, collection: CollectionId, page: _Open, repair: Repair) -> Iterator[Trial]:
        """Answer what each event would become, in their order."""
        trials = [_repaired(found, repair) for _, found in page.events]
        places = [place for place, trial in enumerate(trials) if trial.row]
        if places:
            view = self._lake.view(collection)
            events = [_as_sent(trials[place]) for place in places]
            gathering = Gathering()
            gathering.add(encode(events), 0, 0, len(events))
            batch = gathering.batch(self._buffer.log_id(collection), 0)
            shape = view.shape if view else EMPTY
            converted = convert(batch, shape, self._rules(collection))
            for number, told in _told(converted):
                trials[places[number]] = _with(trials[places[number]], told)
        yield from trials


def _refuse_modifiers(query: str, now: Micros) -> None:
    read = parse(query, now=now)
    if read.order_by is not None or read.limit is not None or read.unique is not None:
        raise BadRequest(
            "every event that is found is meant, in the order of receipt: leave ORDER_BY, LIMIT "
            "and UNIQUE out of the query"
        )


def _repaired(found: Found, repair: Repair) -> Trial:
    content_type = repair.content_type or found.content_type
    try:
        payload = repair.payload(found.payload)
    except BadRequest as error:
        return Trial(
            found=found,
            payload=found.payload,
            content_type=content_type,
            stage="repair",
            reason="refused",
            detail=str(error),
        )
    return Trial(found=found, payload=payload, content_type=content_type)


def _as_sent(trial: Trial) -> Event:
    found = trial.found
    return Event(
        id=found.event_id,
        named=True,
        received_at=found.received_at,
        payload=trial.payload,
        source=found.source,
        content_type=trial.content_type,
        key=found.key,
        headers=found.headers,
        metadata=dict(found.metadata),
        event_time=found.event_time,
    )


def _released(trial: Trial, origin: Origin, *, release: str, by: str) -> Event:
    found = trial.found
    mark = Release(release, origin, by, found.received_at, (found.attempts or 1) + 1)
    event = _as_sent(trial)
    return msgspec.structs.replace(event, metadata=marked(event.metadata, mark))


@dataclass(frozen=True, slots=True)
class _Became:
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    misfits: tuple[tuple[str, str], ...] = ()
    new_columns: tuple[str, ...] = ()


def _told(converted: Converted) -> Iterator[tuple[int, _Became]]:
    """Answer by the number of each event what it became."""
    brought: dict[str, list[str]] = {}
    for change in converted.changes:
        brought.setdefault(change.event_id, []).append(change.path)
    rows = converted.rows
    shown = [
        name for name in ("log_offset", "event_id", "data", "misfits") if name in rows.schema.names
    ]
    for row in rows.select(shown).to_pylist():
        yield (
            row["log_offset"],
            _Became(
                columns=tuple((p, json_text(v)) for p, v in leaves(row.get("data") or {})),
                misfits=tuple((m["path"], m["value"]) for m in row["misfits"] or ()),
                new_columns=tuple(brought.get(row["event_id"], ())),
            ),
        )
    wanted = ["log_offset", "stage", "reason", "detail"]
    for row in converted.quarantined.select(wanted).to_pylist():
        yield row["log_offset"], _Became(row["stage"], row["reason"], row["detail"])


def _with(trial: Trial, became: _Became) -> Trial:
    return replace(
        trial,
        stage=became.stage,
        reason=became.reason,
        detail=became.detail,
        columns=became.columns,
        misfits=became.misfits,
        new_columns=became.new_columns,
    )


def _why(trial: Trial) -> str:
    return f"{trial.stage}: {trial.reason}" + (f", {trial.detail}" if trial.detail else "")


def _chunks(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Part the events so that the payloads of each part have some 4 MB, or are one."""
    chunk: list[Event] = []
    size = 0
    for event in events:
        if chunk and size + len(event.payload) > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += len(event.payload)
    if chunk:
        yield chunk
