"""Whether a log goes on where a mark says; what every log says of a mark in the same words."""

from __future__ import annotations

from penstock.envelope import CollectionId, Extent, Mark
from penstock.errors import LogChanged, LogTruncated


def refuse_outside(collection: CollectionId, mark: Mark, extent: Extent) -> None:
    """Raise unless the log holds what follows the mark, and ends no earlier.

    Raises `LogChanged` where it ends before the mark, `LogTruncated` where it begins after it.
    """
    if mark.next > extent.end:
        raise LogChanged(
            f"the mark {mark} of {collection} is ahead of the log, which ends at {extent.end}: "
            "it is an older copy, or has lost its end"
        )
    if mark.next < extent.start:
        raise LogTruncated(
            f"the log of {collection} begins at {extent.start}; what lies between the mark "
            f"{mark} and that is gone"
        )
