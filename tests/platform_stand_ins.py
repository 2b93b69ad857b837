"""A platform for tests: real store and cache, stand-ins for the rest, and a way to call it."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from builders import NOON, event
from fastapi import FastAPI
from log_batches import log_batch
from metadata_builders import KEYS
from msgspec import structs
from starlette.types import Message, Receive, Send
from starlette.types import Scope as Asked

from assets.contract import Past, Tallying, Trial
from lakehouse.sql import Answer, Limits, Tables
from lakehouse.tables import Seen, TableView
from penstock.api.platform import Platform
from penstock.buffer import Glance, Glanced, Kept, Portion, glanced
from penstock.buffer.keeping import EmbeddedKeeper
from penstock.cache import open_cache
from penstock.codec import Gathering, encode
from penstock.envelope import CollectionId, Event, Extent, Mark, Position
from penstock.errors import EngineUnavailable, NotFound, TableChanged, Unavailable
from penstock.guard import Guard
from penstock.metadata.store import Store, open_store
from penstock.metadata.tokens import issue
from penstock.query import parse
from penstock.query.dialects import DUCKDB
from penstock.query.tree import Field, Payload
from penstock.schema.convert import Rules
from penstock.schema.formats import open_decoder
from penstock.schema.shape import EMPTY, Leaf, Struct
from penstock.search import (
    Bar,
    Facet,
    FacetValue,
    Found,
    Histogram,
    Known,
    KnownField,
    Page,
    SearchRequest,
    View,
)
from penstock.search.around import Around, Beside, Cell
from penstock.search.cut import Cuts
from penstock.search.live import Live
from penstock.search.tail import Tails
from penstock.stats import open_stats
from penstock.vocabulary import Contract, Scope
from replay.events import Original
from replay.plan import Happened, Plan, Reach, Wake
from replay.request import ReplayRequest

LOG_ID = "log-1"


@dataclass
class StandInBuffer:
    """A log that holds what a test says."""

    held: dict[CollectionId, Mapping[int, Extent]] = field(default_factory=dict)
    let_go: dict[CollectionId, Mapping[int, int]] = field(default_factory=dict)

    def log_id(self, collection: CollectionId) -> str:
        return LOG_ID

    def released(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        return {collection: self.let_go.get(collection, {}) for collection in collections}

    def collections(self) -> Sequence[CollectionId]:
        return sorted(self.held)

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        """Answer the first of the records that are there, received at noon."""
        rows = [event(b"{}", received_at=NOON)] if mark.next < end else []
        gathering = Gathering()
        if rows:
            gathering.add(encode(rows), mark.next, 0, 1, max_bytes=max_bytes)
        after = Mark(mark.log_id, mark.partition, mark.next + len(rows), "")
        return Portion(gathering.batch(mark.log_id, mark.partition), after)

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        return self.held.get(collection, {0: Extent(0, 0)})

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        return {c: {p: e.end for p, e in self.extents(c).items()} for c in collections}

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        return {c: Kept(LOG_ID, self.extents(c)) for c in collections}

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        return [glanced(self.read, one) for one in asked]


@dataclass
class StandInBus:
    """Remembers what was sent."""

    sent: list[tuple[str, str]] = field(default_factory=list)

    def publish(self, topic: str, text: str) -> None:
        self.sent.append((topic, text))

    def subscribe(self, topic: str, told: Callable[[str], None]) -> StandInBus:
        return self

    def close(self) -> None:
        pass


@dataclass
class StandInLake:
    """Tables that say what a test says."""

    views: dict[CollectionId, TableView] = field(default_factory=dict)
    quarantined: dict[CollectionId, TableView] = field(default_factory=dict)
    closed: dict[CollectionId, int] = field(default_factory=dict)

    def view(self, collection: CollectionId) -> TableView | None:
        return self.views.get(collection)

    def quarantine_view(self, collection: CollectionId) -> TableView | None:
        return self.quarantined.get(collection)

    def seen(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Seen | Unavailable]:
        return {one: self._seen(one) for one in collections}

    def _seen(self, one: CollectionId) -> Seen | Unavailable:
        try:
            return Seen(self.view(one), self.quarantined.get(one), 0, self.closed.get(one, 0))
        except Unavailable as error:
            return error

    def collections(self) -> list[CollectionId]:
        return sorted(self.views)

    def table(self, name: Sequence[str]) -> None:
        """No table is there to be read."""


class StandInSql:
    """Answers the rows that a test says, and remembers what it was asked."""

    dialect = DUCKDB

    def __init__(self, rows: pa.Table | None = None) -> None:
        self.rows = pa.table({"n": [1, 2]}) if rows is None else rows
        self.truncated = False
        self.error: Exception | None = None
        self.breaks_off: Exception | None = None
        self.asked: list[tuple[str, str, list[str]]] = []
        self.open = 0

    def query(self, statement: str, tables: Tables, limits: Limits) -> Answer:
        self._ask(statement, tables)
        return Answer(self.rows, self.truncated)

    @contextmanager
    def stream(
        self, statement: str, tables: Tables, *, seconds: float
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        self._ask(statement, tables)
        self.open += 1
        try:
            yield self.rows.schema, self._batches()
        finally:
            self.open -= 1

    def close(self) -> None:
        pass

    def _ask(self, statement: str, tables: Tables) -> None:
        self.asked.append((statement, tables.home, sorted(map(str, tables.names()))))
        if self.error is not None:
            raise self.error

    def _batches(self) -> Iterator[pa.RecordBatch]:
        yield from self.rows.to_batches(max_chunksize=1)
        if self.breaks_off is not None:
            raise self.breaks_off


class StandInDagster:
    """Launches what it is asked to, or does not answer."""

    def __init__(self) -> None:
        self.away = False
        self.launched: list[str] = []

    def launch(self, replay_id: str) -> str:
        if self.away:
            raise EngineUnavailable("Dagster does not answer")
        self.launched.append(replay_id)
        return f"run-{len(self.launched)}"


class StandInDoor:
    """Takes every released event."""

    def send(self, collection: CollectionId, events: Sequence[Event]) -> Sequence[str | None]:
        return [None] * len(events)


def plan(request: ReplayRequest, *, count: int = 10) -> Plan:
    """Answer a plan with this many events."""
    return Plan(
        count=count,
        bytes=count * 100,
        to_send=count,
        first=Happened(
            event_id="e1", received_at="2025-11-24T16:00:00.000000Z", partition=0, offset=3
        ),
        last=None,
        earliest=None,
        latest=None,
        spans=(Reach(partition=0, start=3, end=20, events=count),),
        estimated_seconds=1.5,
        warnings=("nothing was sent",),
        digest=request.digest(),
        now=NOON,
        log_id=LOG_ID,
        ends=((0, 20),),
        marks=((0, 20),),
        table_uuid="table-1",
        snapshot_id="6000000000000000001",
        pin="penstock-replay-r1",
    )


@dataclass
class StandInSearcher:
    """Answers what a test says, and remembers what it was asked."""

    events: Sequence[Found] = ()
    cursor: str | None = None
    number: int = 0
    unsearched: int = 0
    asked: list[SearchRequest] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    """The ids that events were looked up by."""

    def search(self, asked: SearchRequest) -> Page:
        self.asked.append(asked)
        parse(asked.query, now=NOON)
        cursor = self.cursor if asked.cursor is None else None
        return Page(self.events, cursor, unsearched=self.unsearched)

    def count(self, asked: SearchRequest) -> int:
        self.asked.append(asked)
        return self.number

    def histogram(self, asked: SearchRequest, *, bars: int) -> Histogram:
        self.asked.append(asked)
        return Histogram([Bar(NOON, 3), Bar(NOON + 1_500_000, bars)], 1_500_000)

    def facets(self, asked: SearchRequest, fields: Sequence[Field], *, most: int) -> list[Facet]:
        self.asked.append(asked)
        values = [FacetValue("UA", False, 3), FacetValue("-5", True, 1)][:most]
        return [Facet(values, found=5, missing=1, others=2) for _ in fields]

    def known(self, collection: CollectionId, view: View, *, newest: int) -> Known:
        return Known((KnownField(Payload(("carrier",)), "string"),), NOON)

    def event(self, collection: CollectionId, event_id: str) -> Found:
        self.looked.append(event_id)
        for found in self.events:
            if found.event_id == event_id:
                return found
        raise NotFound("event", event_id)

    def around(self, collection: CollectionId, event: Found, *, most: int) -> Around:
        beside = Beside(
            event_id="e0",
            received_at=NOON,
            log_id=LOG_ID,
            log_partition=0,
            log_offset=event.log_offset - 1,
            size=2,
            view="main",
            duplicate_of=None,
        )
        return Around(
            log_id=LOG_ID,
            landed=True,
            cells=(Cell(path="carrier", kind="string", value="UA"),),
            shape=Struct((("carrier", Leaf("string")),)),
            before=(beside,),
            after=(),
            repeated_by=(),
        )


def found(payload: bytes = b"{}", **given: Any) -> Found:
    """Answer an event that was found."""
    values: dict[str, Any] = {
        "event_id": "e1",
        "received_at": NOON,
        "event_time": None,
        "source": "http",
        "content_type": "application/json",
        "key": None,
        "headers": (),
        "metadata": {},
        "payload": payload,
        "log_partition": 0,
        "log_offset": 7,
    }
    return Found(**{**values, **given})


class StandInPlanner:
    """Plans ten events for everybody, after it woke landing."""

    gone = False

    def plan(
        self,
        request: ReplayRequest,
        *,
        wake: Wake,
        patience: float,
        to: str = "",
        bound: float | None = None,
        warned: Callable[[int, int], Sequence[str]] = lambda _events, _bytes: (),
        replay_id: str | None = None,
        kept_as: str | None = None,
    ) -> Plan:
        wake(request.id)
        made = plan(request)
        return made if kept_as is None else structs.replace(made, pin=kept_as)

    def begin(self, request: ReplayRequest) -> Plan:
        return structs.replace(plan(request, count=0), ends=((0, 20),), pin=None, snapshot_id=None)

    def verify(self, request: ReplayRequest, plan: Plan) -> None:
        if self.gone:
            raise TableChanged("the snapshot of the plan is no longer pinned in the table")

    def taken_over(self, request: ReplayRequest, plan: Plan, replay_id: str) -> Plan:
        return structs.replace(plan, pin=f"penstock-replay-{replay_id}")

    def first(self, request: ReplayRequest, plan: Plan, most: int) -> list[Original]:
        one = Event(id="e1", received_at=NOON, payload=b"{}", source="http")
        return [Original(Position(0, 3), one)][:most]


class StandInTrials:
    """Tries every contract on two events, of which one has a new field."""

    def __init__(self) -> None:
        self.asked: list[tuple[CollectionId, Contract, Past]] = []
        self.error: Exception | None = None

    def run(
        self,
        collection: CollectionId,
        contract: Contract,
        past: Past,
        *,
        rules: Rules | None = None,
    ) -> Generator[Trial, None, None]:
        self.asked.append((collection, contract, past))
        tallying = Tallying(contract, rules or Rules(), EMPTY)
        yield tallying.trial(2, done=False)
        if self.error:
            raise self.error
        tallying.take(log_batch(event("{}", id="e1"), event('{"a": 1}', id="e2")))
        yield tallying.trial(2, done=True)


def table(
    collection: CollectionId,
    *,
    rows: int = 0,
    mark: int = 0,
    shape: Struct = EMPTY,
    snapshot_id: int | None = 6_000_000_000_000_000_001,
) -> TableView:
    """Answer what one load of a table says."""
    return TableView(
        collection=collection,
        uuid="table-1",
        metadata_location="file:///lake/metadata.json",
        snapshot_id=snapshot_id,
        schema_id=0,
        shape=shape,
        marks=(Mark(LOG_ID, 0, mark, "f"),),
        landed_sequence=1,
        rolled_back=False,
        rows=rows,
        bytes=rows * 100,
        files=1,
    )


def chances() -> Callable[[int], bytes]:
    """Answer chance that repeats in every test, and never within one."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size)


@functools.cache
def empty_database() -> bytes:
    """Answer a database with its tables made: making them anew takes 0.1 s a test."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "metadata.db"
        open_store(f"sqlite:///{file}").close()
        return file.read_bytes()


def platform(folder: Path, **given: Any) -> Platform:
    """Answer a platform over an empty store; `given` replaces stand-ins."""
    file = folder / "metadata.db"
    file.write_bytes(empty_database())
    buffer, lake = given.get("buffer", StandInBuffer()), given.get("lake", StandInLake())
    cuts = Cuts(lake, buffer, Tails(buffer, lambda _: Rules()))
    parts: dict[str, Any] = {
        "store": open_store(f"sqlite:///{file}", KEYS),
        "cache": open_cache(f"embedded://{folder / 'cache'}"),
        "bus": StandInBus(),
        "buffer": buffer,
        "keeper": EmbeddedKeeper(),
        "lake": lake,
        "searcher": StandInSearcher(),
        "live": Live(buffer, cuts, given.pop("engine", None), clock=lambda: NOON),
        "sql": StandInSql(),
        "sql_limits": Limits(seconds=5.0, rows=100),
        "planner": StandInPlanner(),
        "trials": StandInTrials(),
        "launch": StandInDagster().launch,
        "confirm_above": 1_000,
        "guard": Guard(),
        "clock": lambda: NOON,
        "chance": chances(),
        "rules": lambda _: Rules(),
        "open_decoder": lambda _, format_, schema, _secret: open_decoder(format_, schema),
        "release_door": lambda _: StandInDoor(),
        "stats": functools.cache(lambda: open_stats(f"sqlite:///{file}")),
    }
    return Platform(**{**parts, **given})


def grant(
    store: Store,
    *scopes: Scope,
    team: str = "main",
    collection: str | None = None,
    expires_at: int | None = None,
) -> str:
    """Add a token with these scopes and answer its text."""
    what = repr((scopes, team, collection, expires_at)).encode()
    text, record = issue(
        lambda size: hashlib.sha256(what).digest()[:size],
        team=team,
        name="test",
        scopes=scopes,
        collection=collection,
        created_at=NOON,
        expires_at=expires_at,
    )
    store.add_token(record)
    return text


class InProcess(httpx.BaseTransport):
    """Calls an app without a server; one event loop per call, so that nothing stays open."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._call(request))

    async def _call(self, request: httpx.Request) -> httpx.Response:
        complete = False

        async def watched(scope: Asked, receive: Receive, send: Send) -> None:
            async def noted(message: Message) -> None:
                nonlocal complete
                complete = message["type"] == "http.response.body" and not message.get("more_body")
                await send(message)

            await self._app(scope, receive, noted)

        transport = httpx.ASGITransport(watched, raise_app_exceptions=False)
        asked = httpx.Request(
            request.method, request.url, headers=request.headers, content=request.read()
        )
        answer = await transport.handle_async_request(asked)
        content = await answer.aread()
        if not complete:
            raise httpx.RemoteProtocolError("the answer broke off", request=request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


@dataclass
class Caller:
    """Somebody with a token who talks JSON."""

    app: FastAPI
    token: str | None

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        auth = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(transport=InProcess(self.app), base_url="http://penstock") as http:
            return http.request(method, path, json=body, headers={**auth, **(headers or {})})
