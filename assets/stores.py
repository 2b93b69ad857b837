"""The stores of a home, each opened when it is first asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from assets.landing import Landing, Limits
from lakehouse import Lake, open_lake
from penstock.buffer import Buffer, open_buffer
from penstock.clock import machine_clock
from penstock.envelope import CollectionId, Micros
from penstock.errors import BadSetting, NotFound
from penstock.metadata.store import Store, open_store
from penstock.schema.convert import Rules
from penstock.settings import Settings, load_settings


@dataclass
class Stores:
    """Log, lake and metadata of one home. Threads may share them."""

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

    def rules(self, collection: CollectionId) -> Rules:
        """Answer how the payloads of a collection become columns."""
        try:
            contract = self.store.collection(collection).contract
        except NotFound:
            # Its events were accepted before it was deleted, and they land.
            contract = "evolve"
        return Rules(contract=contract, max_columns=self.settings.max_columns)

    def landing(self) -> Landing:
        """Answer what lands the collections of this home."""
        limits = Limits(
            batch_bytes=self.settings.landing_batch_bytes,
            patience=Micros(self.settings.landing_patience_seconds * 1_000_000),
        )
        return Landing(
            self.buffer,
            self.lake,
            self.store,
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
