"""Room for collections on the embedded log: there is always one partition of each."""

from __future__ import annotations

from penstock.envelope import CollectionId
from penstock.errors import BadRequest


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
