"""How a released event is marked on the log, and what has become of a quarantined one.

A released event is a new record of the log, with the id of the quarantined one. Its metadata say
which position it is released from. Doors keep senders from writing such metadata: names that
begin with ``penstock_`` are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penstock.envelope import Micros

RELEASE = "penstock_release"
RELEASED_FROM = "penstock_released_from"
RELEASED_BY = "penstock_released_by"
RECEIVED_AT = "penstock_received_at"
ATTEMPT = "penstock_attempt"

MARKS = (RELEASE, RELEASED_FROM, RELEASED_BY, RECEIVED_AT, ATTEMPT)
"""The metadata of a released event, all of them or none."""

STAGE, COPY = "release", "copy"
"""Where a second copy of a released event ends, and why."""


class Origin(NamedTuple):
    """The position of an event on its log. Its text is ``log id/partition/offset``."""

    log_id: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.log_id}/{self.partition}/{self.offset}"


class Release(NamedTuple):
    """What a released event says of itself."""

    release: str
    origin: Origin
    by: str
    received_at: Micros
    """When the door received the quarantined event."""
    attempt: int
    """How often landing has been asked to make a row of it, this time included."""


def read_origin(text: str) -> Origin | None:
    """Read what `Origin` writes; None for any other text."""
    rest, _, offset = text.rpartition("/")
    log_id, _, partition = rest.rpartition("/")
    if not log_id or not _is_number(partition) or not _is_number(offset):
        return None
    return Origin(log_id, int(partition), int(offset))


def marked(metadata: Mapping[str, str], release: Release) -> dict[str, str]:
    """Answer the metadata with the marks of a release, in place of those of an earlier one."""
    return {
        **{name: value for name, value in metadata.items() if name not in MARKS},
        RELEASE: release.release,
        RELEASED_FROM: str(release.origin),
        RELEASED_BY: release.by,
        RECEIVED_AT: str(release.received_at),
        ATTEMPT: str(release.attempt),
    }


def read_release(metadata: Mapping[str, str]) -> Release | None:
    """Answer what the metadata say of a release; None unless they say all of it."""
    origin = read_origin(metadata.get(RELEASED_FROM, ""))
    received_at, attempt = metadata.get(RECEIVED_AT, ""), metadata.get(ATTEMPT, "")
    if origin is None or not metadata.get(RELEASE):
        return None
    if not _is_number(received_at.removeprefix("-")) or not _is_number(attempt):
        return None
    return Release(
        metadata[RELEASE], origin, metadata.get(RELEASED_BY, ""), int(received_at), int(attempt)
    )


# More digits than a position or a time has; `int` takes its time with thousands of them.
_DIGITS = 19


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS
