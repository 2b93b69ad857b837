"""Room for collections: that of those already known, and the embedded log's."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from penstock.buffer import Keeper
from penstock.envelope import CollectionId
from penstock.errors import BadRequest, LogUnavailable

log = structlog.get_logger()


def make_places(keeper: Keeper, collections: Iterable[CollectionId]) -> None:
    """Let the log have collections that are known already.

    While the log is away nothing is made: doors then do it with the first event.
    """
    try:
        for collection in collections:
            keeper.ensure(collection)
    except LogUnavailable as error:
        log.warning("the log was not asked to have every collection", reason=str(error))


class EmbeddedKeeper:
    """Has nothing to make: the first record of a collection makes its place. See `Keeper`."""

    def ensure(self, collection: CollectionId, *, partitions: int | None = None) -> int:
        """Answer 1; refuse more."""
        if partitions not in (None, 1):
            raise BadRequest(
                f"{collection} can have one partition: the embedded log has no more, Kafka has"
            )
        return 1

    def warning(self) -> str | None:
        """Answer None: a position is on the disk."""
        return None

    def close(self) -> None:
        """Hold nothing."""
