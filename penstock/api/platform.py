"""What the routes work with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from assets.accounting import Standing, Watch, stand_all
from assets.contract import Trials
from assets.release import ReleaseDoor, Workplace
from lakehouse import Lake
from lakehouse.sql import Limits, Sql
from penstock.api.publishing import Publisher
from penstock.api.turnstile import Rooms, Seats
from penstock.buffer import Buffer, Keeper
from penstock.bus import Bus
from penstock.cache import Cache
from penstock.envelope import Clock, CollectionId, Micros
from penstock.errors import Unavailable
from penstock.guard import Guard
from penstock.metadata.store import Store
from penstock.metadata.tokens import Chance
from penstock.schema.convert import Rules
from penstock.schema.formats import Decoder, Format
from penstock.search import Searcher
from penstock.search.index import Index
from penstock.search.live import Live
from penstock.search.suggest import Suggesting
from penstock.stats import Stats
from replay.doorway import Doorway
from replay.plan import Planner
from replay.targets.opening import LOG_TOPICS

API = "/api/v1"


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The opened stores and engines of one installation, and where time and chance come from."""

    store: Store
    cache: Cache
    bus: Bus
    buffer: Buffer
    keeper: Keeper
    lake: Lake
    searcher: Searcher
    live: Live
    sql: Sql
    guard: Guard
    clock: Clock
    chance: Chance
    sql_limits: Limits
    planner: Planner
    trials: Trials
    launch: Callable[[str], str]
    """Starts the run of a replay and answers its id; raises `EngineUnavailable`."""
    confirm_above: int
    """Events above which a replay has to be confirmed by its count."""
    stats: Callable[[], Stats]
    """Answers the statistics, opened when they are first asked for."""
    rules: Callable[[CollectionId], Rules]
    """Answers how the payloads of a collection become columns."""
    open_decoder: Callable[[CollectionId, Format, bytes | None, str | None], Decoder | None]
    """Answers what reads payloads of a format that a collection need not have, of its schema and
    of what its registry asks for, where the metadata do not know that yet."""
    release_door: Callable[[str], ReleaseDoor]
    """Answers the way of released events to a door, with the token of who releases them."""
    doorway: Doorway | None = None
    """The way of replays to this installation's own collections."""
    files: Path | None = None
    """The folder of files that replays write."""
    own_topics: str = LOG_TOPICS
    """How the topics of this installation's own log begin: no destination may be one of them."""
    index: Index | None = None
    """The search index, None where there is none."""
    retention: Micros | None = None
    """How long the log keeps what has not landed; None for as long as it takes."""
    rooms: Rooms = field(default_factory=Rooms)
    seats: Seats = field(default_factory=lambda: Seats("live tails", each=20))
    leaving: threading.Event = field(default_factory=threading.Event)
    """Set when the platform is to end, so that what would go on for ever ends by itself."""

    @cached_property
    def suggesting(self) -> Suggesting:
        """What may stand in a search that is being written; what it knows is kept for a while."""
        return Suggesting(self.searcher, clock=self.clock)

    @cached_property
    def workplace(self) -> Workplace:
        """The quarantines; what was read of them is kept until they change."""
        return Workplace(
            self.lake,
            self.buffer,
            self.searcher,
            rules=self.rules,
            clock=self.clock,
            chance=self.chance,
        )

    @cached_property
    def watch(self) -> Watch:
        """How collections stand, remembered for who asks every few seconds."""
        return Watch(self.look, self.buffer.ends, clock=self.clock)

    def look(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Standing | Unavailable]:
        """Look at collections together; where one does not answer, the error is in its place."""
        return stand_all(self.buffer, self.lake, self.index, collections, now=self.clock())


async def _platform(connection: HTTPConnection) -> Platform:
    platform: Platform = connection.app.state.platform
    return platform


async def _publisher(connection: HTTPConnection) -> Publisher:
    publisher: Publisher = connection.app.state.publisher
    return publisher


async def _version(connection: HTTPConnection) -> str:
    version: str = connection.app.version
    return version


Here = Annotated[Platform, Depends(_platform)]
Doors = Annotated[Publisher, Depends(_publisher)]
Version = Annotated[str, Depends(_version)]
