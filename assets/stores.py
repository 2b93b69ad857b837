"""The stores of a home, each opened when it is first asked for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import structlog

from assets.decoders import Decoders, over_http
from assets.hurry import Hurry
from assets.landing import Landing, Lane, Limits
from assets.searchable import Indexing
from assets.stats import Books
from lakehouse import Lake, open_lake
from lakehouse.duplicates import HOUR, Duplicates
from lakehouse.optimize import Merger, open_merger
from lakehouse.sql import Sql, open_engine, open_sql
from penstock.buffer import Buffer, Keeper, Keeping, open_buffer, open_keeper
from penstock.bus import LAND, Bus, open_bus
from penstock.cache import Cache, cache_of
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Micros
from penstock.errors import BadSetting, EngineUnavailable, NotFound, Rejected, Unavailable
from penstock.guard import Guard
from penstock.metadata.records import CollectionRecord
from penstock.metadata.store import Store, store_of
from penstock.schema.convert import Rules
from penstock.search.index import Index, open_index
from penstock.settings import Settings, load_settings
from penstock.stats import Stats, open_stats

log = structlog.get_logger()

_Answer = TypeVar("_Answer")

_REST_SECONDS = 10.0
"""How long the metadata is left alone after it did not answer: it may take 20 s to say so."""

_INDEXING_MEMORY = "500MB"
"""What reading rows for the index may take beside a landing."""


def keeping_of(settings: Settings) -> Keeping:
    """Answer how the log keeps a collection that says nothing of its own."""
    return Keeping(settings.log_partitions, settings.log_retention_hours)


def retention_of(settings: Settings) -> Micros | None:
    """Answer how long the log keeps events that have not landed; None for as long as it takes."""
    if settings.log.startswith("embedded:"):
        return None
    return settings.log_retention_hours * 3_600_000_000


def duplicates_of(settings: Settings) -> Duplicates:
    """Answer what finds events that were sent twice."""
    return Duplicates(
        window=round(settings.duplicate_window_hours * HOUR),
        most_bytes=settings.duplicate_memory_mib << 20,
        seed=int.from_bytes(os.urandom(8), "little", signed=True),
    )


def merger_of(settings: Settings) -> Merger | None:
    """Answer who merges data files, None where upkeep does it itself; raise `BadSetting`."""
    return open_merger(
        settings.compact_url,
        catalog_url=settings.catalog,
        password=settings.compact_password.get_secret_value(),
        token=settings.compact_token.get_secret_value(),
    )


def sql_of(settings: Settings, embedded: Sql) -> Sql:
    """Answer what runs callers' statements: `embedded`, or what is set. Raises `BadSetting`."""
    return open_sql(
        settings.sql_url,
        embedded=embedded,
        password=settings.sql_password.get_secret_value(),
        token=settings.sql_token.get_secret_value(),
    )


class Metadata:
    """The metadata, left alone for a while after it did not answer."""

    def __init__(
        self, store: Callable[[], Store], steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._steady = steady
        self._away = False
        self._ask_at = steady()

    def ask(self, question: Callable[[Store], _Answer]) -> _Answer:
        """Answer what the store answers; raise `EngineUnavailable` while it is away."""
        if self._steady() < self._ask_at:
            raise EngineUnavailable("the metadata did not answer a moment ago")
        try:
            answer = question(self._store())
        except Unavailable as error:
            self._ask_at = self._steady() + _REST_SECONDS
            if not self._away:
                log.warning("metadata is away, landing goes on without it", reason=str(error))
            self._away = True
            raise
        except Rejected:
            self._answered()
            raise
        self._answered()
        return answer

    def _answered(self) -> None:
        if self._away:
            log.info("metadata answers again")
        self._away = False


class KeptSchemas:
    """The schemas that formats need, in the metadata."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def format_schema(self, id: CollectionId, digest: str) -> bytes:  # noqa: A002
        """Answer what is kept by a digest or key; raise `NotFound`, `Unavailable`."""
        return self._metadata.ask(lambda store: store.format_schema(id, digest))

    def keep_format_schema(self, id: CollectionId, key: str, body: bytes) -> None:  # noqa: A002
        """Keep what formats know by this key; raise `NotFound`, `Unavailable`."""
        self._metadata.ask(lambda store: store.keep_format_schema(id, key, body))

    def registry_secret(self, id: CollectionId, secret_id: str) -> str:  # noqa: A002
        """Answer what a registry asks for; raise `NotFound`, `Unavailable`, `KeyMissing`."""
        return self._metadata.ask(lambda store: store.registry_secret(id, secret_id))


class Contracts:
    """What was decided about collections, from the metadata, or the doors while it is away.

    Every change is published to the doors, so theirs is the newest that can be had then.
    """

    def __init__(self, metadata: Metadata, cache: Callable[[], Cache]) -> None:
        self._metadata = metadata
        self._cache = cache

    def of(self, collection: CollectionId) -> CollectionRecord:
        """Answer the collection, as one that nothing was decided about if it was deleted.

        Raises `EngineUnavailable` where neither the metadata nor the doors' cache can be read.
        """
        undecided = CollectionRecord(id=collection, created_at=0)
        try:
            return self._metadata.ask(lambda store: store.collection(collection))
        except NotFound:
            return undecided
        except Unavailable:
            known = self._cache().read()
        if known is None:
            raise EngineUnavailable(f"nobody knows contract and format of {collection}")
        records = {record.id: record for record in known.collections}
        return records.get(collection, undecided)


@dataclass
class Stores:
    """Log, lake and metadata of one home. Threads may share them.

    Each is opened when it is first needed: landing goes on while the metadata is away.
    """

    settings: Settings

    def __post_init__(self) -> None:
        self._opening = threading.RLock()
        self._hurry = Hurry()
        # Its own: nobody waits for statistics that are away.
        self._opening_stats = threading.Lock()

    @cached_property
    def buffer(self) -> Buffer:
        """The reading side of the log."""
        with self._opening:
            return open_buffer(self.settings.log)

    @cached_property
    def keeper(self) -> Keeper:
        """What makes room for collections on the log."""
        with self._opening:
            return open_keeper(self.settings.log, keeping_of(self.settings))

    @cached_property
    def lake(self) -> Lake:
        """The Iceberg tables."""
        with self._opening:
            return open_lake(self.settings.catalog, self.settings.warehouse, self.settings.s3)

    @cached_property
    def merger(self) -> Merger | None:
        """Who merges data files, None where upkeep does it itself."""
        return merger_of(self.settings)

    @cached_property
    def store(self) -> Store:
        """The metadata."""
        with self._opening:
            return store_of(self.settings)

    @cached_property
    def stats(self) -> Stats:
        """The statistics."""
        with self._opening_stats:
            return open_stats(self.settings.stats)

    @cached_property
    def cache(self) -> Cache:
        """What the doors know."""
        with self._opening:
            return cache_of(self.settings)

    @cached_property
    def bus(self) -> Bus:
        """The messages between processes."""
        with self._opening:
            return open_bus(self.settings.bus_url, lambda: self.store)

    @cached_property
    def _listening(self) -> Hurry:
        with self._opening:
            self.bus.subscribe(LAND, self._hurry.hear)
            return self._hurry

    @cached_property
    def index(self) -> Index | None:
        """The search index, None where the settings name none."""
        with self._opening:
            return open_index(self.settings)

    @cached_property
    def metadata(self) -> Metadata:
        """The store, for who can do without."""
        return Metadata(lambda: self.store)

    @cached_property
    def contracts(self) -> Contracts:
        """What was decided about collections."""
        return Contracts(self.metadata, lambda: self.cache)

    @cached_property
    def decoders(self) -> Decoders:
        """What reads the payloads of collections."""
        guard = Guard(self.settings.allow_networks, self.settings.allow_ports)
        return Decoders(KeptSchemas(self.metadata), over_http(guard))

    def rules(self, collection: CollectionId) -> Rules:
        """Answer how the payloads of a collection become columns.

        While a schema registry is away, what needs it raises `EngineUnavailable`.
        """
        return self._rules(collection, patience=None)

    def rules_of_landing(self, collection: CollectionId) -> Rules:
        """Answer the same; what has waited long enough for a registry goes to quarantine."""
        return self._rules(collection, patience=self.settings.registry_patience_seconds)

    def rules_of_searches(self, collection: CollectionId) -> Rules:
        """Answer the same; a search waits for no registry."""
        return self._rules(collection, patience=0.0)

    def _rules(self, collection: CollectionId, *, patience: float | None) -> Rules:
        record = self.contracts.of(collection)
        waits = record.format.registry is not None
        return Rules(
            contract=record.contract,
            decoder=self.decoders.of(
                collection, record.format, patience=patience if waits else None
            ),
            max_columns=self.settings.max_columns,
        )

    def add_schema_version(
        self, collection: CollectionId, at: Micros, changes: Sequence[Mapping[str, object]]
    ) -> int:
        """Enter changes of a collection's columns in its history; see `Store`."""
        return self.metadata.ask(lambda store: store.add_schema_version(collection, at, changes))

    def hurried(self) -> frozenset[CollectionId]:
        """Answer the collections that somebody asked for since this was asked first."""
        return self._listening.collections()

    def books(self) -> Books:
        """Answer what tells the statistics what lands, for a block."""
        return Books(lambda: self.stats, lambda: self.lake, clock=machine_clock)

    def landing(self, lane: int | None = None) -> Landing:
        """Answer what lands the collections of this home, or the lane's share of them."""
        limits = Limits(
            batch_bytes=self.settings.landing_batch_bytes,
            patience=Micros(self.settings.landing_patience_seconds * 1_000_000),
            at_once=self.settings.landing_at_once,
        )
        return Landing(
            self.buffer,
            self.lake,
            self,
            rules=self.rules_of_landing,
            clock=machine_clock,
            limits=limits,
            wait=self._hurry.wait,
            lane=Lane() if lane is None else Lane(lane, self.settings.lanes),
            duplicates=duplicates_of(self.settings),
        )

    @contextmanager
    def indexing(self) -> Iterator[Indexing | None]:
        """Answer for the block what fills the search index, None where there is none."""
        if self.index is None:
            yield None
            return
        folder = self.settings.home / "sql"
        engine = open_engine(folder, memory=_INDEXING_MEMORY, threads=1, s3=self.settings.s3)
        with closing(engine):
            yield Indexing(
                self.index,
                self.lake,
                engine,
                log_id=self.buffer.log_id,
                clock=machine_clock,
                days=self.settings.search_days,
                always_json=lambda collection: self.contracts.of(collection).format.always_json,
            )


@contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """Answer the stores for the block; what was opened of them is closed afterwards."""
    stores = Stores(settings)
    try:
        yield stores
    finally:
        for name in ("bus", "cache", "buffer", "keeper", "store", "stats", "index"):
            if stores.__dict__.get(name) is not None:
                getattr(stores, name).close()


def stores_of_environment() -> Stores:
    """Answer the stores of the home that ``PENSTOCK_HOME`` names; raise `BadSetting`."""
    home = os.environ.get("PENSTOCK_HOME")
    if not home:
        raise BadSetting("PENSTOCK_HOME is not set; 'penstock up' sets it for what it starts")
    return Stores(load_settings(Path(home)))
