"""Room for collections: that of those already known, and the embedded log's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from penstock.buffer import Keeper
from penstock.envelope import CollectionId
from penstock.errors import BadRequest, LogUnavailable

if TYPE_CHECKING:  # whoever opens a keeper may do without a database
    from penstock.metadata.store import Store

log = structlog.get_logger()


def make_places(keeper: Keeper, store: Store) -> None:
    """Let the log have every collection, with its own partitions or more, and note how many.

    While the log is away nothing is made: doors then do it with the first event.
    """
    try:
        for record in store.collections():
            partitions = keeper.restore(record.id, record.partitions)
            if partitions != record.partitions:
                store.set_partitions(record.id, partitions)
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

    def restore(self, collection: CollectionId, partitions: int) -> int:  # noqa: ARG002 - see above
        """Answer 1, whatever another log had."""
        return 1

    def warning(self) -> str | None:
        """Answer None: a position is on the disk."""
        return None

    def close(self) -> None:
        """Hold nothing."""
