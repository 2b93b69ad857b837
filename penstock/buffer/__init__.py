"""The log: where an accepted event is safe before it lands.

Two promises. A door holds the one `Appender` of a log; everybody else holds a `Buffer` and only
reads. `memory` keeps both for tests, `embedded` on local disk, `kafka` on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from penstock.envelope import CollectionId, Event, Extent, Mark, Position
from penstock.errors import BadSetting


@dataclass(frozen=True, slots=True)
class Portion:
    """What one read answered: rows of `penstock.codec.LOG_SCHEMA`, and the mark just after them.

    `mark.next` may lie past the last row's offset (Kafka markers and aborted records take
    offsets), so a span ends by `mark`, never by the last row seen.
    """

    rows: pa.RecordBatch
    mark: Mark


class Appender(Protocol):
    """The writing side of a log, held by a door."""

    def append(
        self, collection: CollectionId, events: Sequence[Event]
    ) -> Future[Sequence[Position | Exception]]:
        """Store the events (at least one); answer a position or a failure for each, in order.

        A position means that the event survives a restart and a power cut. A failure means that
        nothing is promised about that event: it may or may not appear. The future itself fails
        with `LogUnavailable` when no event of the call was made durable, and with `Overloaded`,
        at once, when the log's memory bound is reached.
        Does not block; safe to call from any thread.
        """
        ...

    def close(self) -> None:
        """Make durable what was appended, then let go of the log. Later appends fail."""
        ...


class Buffer(Protocol):
    """The reading side of a log."""

    @property
    def log_id(self) -> str:
        """The identity of the log: the same as long as no record was lost or replaced by design.

        Raises `LogUnavailable` while no writer has made the log yet.
        """
        ...

    def collections(self) -> Sequence[CollectionId]:
        """Answer every collection that has, or once had, a record on the log, sorted."""
        ...

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        """Answer what each partition holds now; `end` covers all that was acknowledged before.

        A collection without a record has one partition, 0, from 0 to 0.
        """
        ...

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        """Answer the durable records from `mark` up to offset `end`, or fewer.

        Stops after the first record that brings the payloads to `max_bytes` or more; answers no
        row only where nothing durable lies between. Raises `LogChanged` if the log is not the one
        the mark came from, ends before the mark or holds another record before it, `LogTruncated`
        if records from the mark on are gone, `LogDamaged` if they cannot be decoded.
        A mark without a fingerprint says nothing of the record before it, and that is not checked.
        """
        ...

    def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        """Say that every store has absorbed what lies before these marks.

        The log may forget those records, but not before 15 minutes have passed. What was said
        last holds, also if it is less than before. Raises like `read`.
        """
        ...

    def released(self, collection: CollectionId) -> Mapping[int, int]:
        """Answer the released offset of each partition; what was never released is at 0."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def start_of(log_id: str, partition: int) -> Mark:
    """Answer the mark of a store that has absorbed nothing."""
    return Mark(log_id, partition, 0, "")


def open_buffer(url: str) -> Buffer:
    """Open the reading side of the log at `url` (``embedded:///folder``)."""
    parts = urlsplit(url)
    match parts.scheme:
        case "embedded":
            from penstock.buffer.embedded import EmbeddedBuffer

            return EmbeddedBuffer(parts.path)
        case other:
            raise BadSetting(f"log_url starts with {other!r}; use embedded:///folder")


def open_appender(url: str, *, max_waiting_bytes: int = 64 << 20) -> Appender:
    """Open the writing side of the log at `url`; one process may hold it at a time.

    Appends that would make more than `max_waiting_bytes` wait for the disk fail as `Overloaded`.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "embedded":
            from penstock.buffer.embedded import EmbeddedAppender

            return EmbeddedAppender(parts.path, max_waiting_bytes=max_waiting_bytes)
        case other:
            raise BadSetting(f"log_url starts with {other!r}; use embedded:///folder")
