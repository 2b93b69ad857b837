"""The stores of a home, each opened when it is first asked for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import structlog

from assets.landing import Landing, Limits
from lakehouse import Lake, open_lake
from penstock.buffer import Buffer, open_buffer
from penstock.cache import Cache, open_cache
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Micros
from penstock.errors import BadSetting, EngineUnavailable, NotFound, Unavailable
from penstock.metadata.records import Contract
from penstock.metadata.store import Store, open_store
from penstock.schema.convert import Rules
from penstock.settings import Settings, load_settings

log = structlog.get_logger()

_REST_SECONDS = 10.0
"""How long the metadata is left alone after it did not answer: it may take 20 s to say so."""


class Contracts:
    """The contracts of collections, from the metadata, or what the doors know while it is away.

    Every change is published to the doors, so theirs is the newest that can be had then.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        cache: Callable[[], Cache],
        *,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cache = cache
        self._steady = steady
        self._away = False
        self._ask_at = steady()

    def of(self, collection: CollectionId) -> Contract:
        """Answer the collection's contract; `evolve` if it was deleted after its events came.

        Raises `EngineUnavailable` where neither the metadata nor the doors' cache can be read.
        """
        if self._steady() >= self._ask_at:
            try:
                contract = self._asked(collection)
            except Unavailable as error:
                self._rest(error)
            else:
                if self._away:
                    log.info("metadata answers again")
                self._away = False
                return contract
        known = self._cache().read()
        if known is None:
            raise EngineUnavailable(f"nobody knows the contract of {collection}")
        contracts = {record.id: record.contract for record in known.collections}
        return contracts.get(collection, "evolve")

    def _asked(self, collection: CollectionId) -> Contract:
        try:
            return self._store().collection(collection).contract
        except NotFound:
            return "evolve"

    def _rest(self, error: Unavailable) -> None:
        self._ask_at = self._steady() + _REST_SECONDS
        if not self._away:
            log.warning("metadata is away, contracts are what the doors know", reason=str(error))
        self._away = True


@dataclass
class Stores:
    """Log, lake and metadata of one home. Threads may share them.

    Each is opened when it is first needed: landing goes on while the metadata is away.
    """

    settings: Settings

    def __post_init__(self) -> None:
        self._opening = threading.RLock()

    @cached_property
    def buffer(self) -> Buffer:
        """The reading side of the log."""
        with self._opening:
            return open_buffer(self.settings.log)

    @cached_property
    def lake(self) -> Lake:
        """The Iceberg tables."""
        with self._opening:
            return open_lake(self.settings.catalog, self.settings.warehouse)

    @cached_property
    def store(self) -> Store:
        """The metadata."""
        with self._opening:
            return open_store(self.settings.metadata)

    @cached_property
    def cache(self) -> Cache:
        """What the doors know."""
        with self._opening:
            return open_cache(self.settings.cache)

    @cached_property
    def contracts(self) -> Contracts:
        """The contracts of collections."""
        return Contracts(lambda: self.store, lambda: self.cache)

    def rules(self, collection: CollectionId) -> Rules:
        """Answer how the payloads of a collection become columns."""
        contract = self.contracts.of(collection)
        return Rules(contract=contract, max_columns=self.settings.max_columns)

    def add_schema_version(
        self, collection: CollectionId, at: Micros, changes: Sequence[Mapping[str, object]]
    ) -> int:
        """Enter changes of a collection's columns in its history; see `Store`."""
        return self.store.add_schema_version(collection, at, changes)

    def landing(self) -> Landing:
        """Answer what lands the collections of this home."""
        limits = Limits(
            batch_bytes=self.settings.landing_batch_bytes,
            patience=Micros(self.settings.landing_patience_seconds * 1_000_000),
        )
        return Landing(
            self.buffer,
            self.lake,
            self,
            rules=self.rules,
            clock=machine_clock,
            limits=limits,
        )


@contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """Answer the stores for the block; what was opened of them is closed afterwards."""
    stores = Stores(settings)
    try:
        yield stores
    finally:
        for name in ("buffer", "store"):
            if name in stores.__dict__:
                getattr(stores, name).close()


def stores_of_environment() -> Stores:
    """Answer the stores of the home that ``PENSTOCK_HOME`` names; raise `BadSetting`."""
    home = os.environ.get("PENSTOCK_HOME")
    if not home:
        raise BadSetting("PENSTOCK_HOME is not set; 'penstock up' sets it for what it starts")
    return Stores(load_settings(Path(home)))
