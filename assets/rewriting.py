"""What an operator, a job or upkeep asks for: the columns of one collection of a home made anew."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assets.rebuild import rebuild
from assets.retype import Retyped, Tell, retype, silent
from assets.stores import Stores
from lakehouse.rewrite import Rewritten
from penstock.clock import machine_clock
from penstock.envelope import Clock, CollectionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """A collection whose columns are to be made anew, by its contract and bounds of now."""

    stores: Stores
    collection: CollectionId
    dry_run: bool = False
    tell: Tell = silent
    clock: Clock = machine_clock
    chance: Callable[[int], bytes] = secrets.token_bytes

    def retype(self, columns: Sequence[str] = ()) -> Retyped:
        """Make doubles of columns of longs: see `assets.retype.retype`."""
        return retype(
            self.stores.lake,
            self.collection,
            self.stores,
            rules=self.stores.rules(self.collection),
            clock=self.clock,
            chance=self.chance,
            columns=columns,
            dry_run=self.dry_run,
            tell=self.tell,
        )

    def rebuild(self) -> Rewritten | None:
        """Make the columns again from all payloads: see `assets.rebuild.rebuild`."""
        return rebuild(
            self.stores.lake,
            self.collection,
            self.stores,
            rules=self.stores.rules(self.collection),
            clock=self.clock,
            chance=self.chance,
            dry_run=self.dry_run,
            tell=self.tell,
        )
