"""The log: where an accepted event is safe before it lands.

Three promises. A door holds the `Appender` of a log; everybody else holds a `Buffer` and only
reads; whoever makes collections holds a `Keeper`. `memory` keeps the first two for tests,
`embedded` all of them on local disk, `kafka` on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import pyarrow as pa

from penstock.envelope import CollectionId, Event, Extent, Mark, Micros, Position
from penstock.errors import BadSetting, Stopped, Unavailable


@dataclass(frozen=True, slots=True)
class Portion:
    """What one read answered: rows of `penstock.codec.LOG_SCHEMA`, and the mark just after them.

    `mark.next` may lie past the last row's offset (Kafka markers and aborted records take
    offsets), so a span ends by `mark`, never by the last row seen.
    """

    rows: pa.RecordBatch
    mark: Mark


class Kept(NamedTuple):
    """What a log keeps of a collection: which log it is, and what each partition holds."""

    log_id: str
    extents: Mapping[int, Extent]


class Glance(NamedTuple):
    """What is to be looked at: the first record of a collection from `mark` up to offset `end`."""

    collection: CollectionId
    mark: Mark
    end: int


Glanced = Micros | None | Stopped | Unavailable
"""When the record was received, None where there is none, or what `Buffer.read` would raise."""


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

    def log_id(self, collection: CollectionId) -> str:
        """Answer the identity of what holds the collection's records.

        It is the same as long as no record was lost or replaced by design. Collections may share
        it (embedded: the log's id) or have their own (Kafka: the topic's id); before a collection
        has a record it may be another one than after.
        Raises `LogUnavailable` while no writer has made the log yet.
        """
        ...

    def collections(self) -> Sequence[CollectionId]:
        """Answer the collections of the log, sorted: all that have, or once had, a record.

        One that was made and never had a record may be among them.
        """
        ...

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        """Answer what each partition holds now; `end` covers all that was acknowledged before.

        Partitions count from 0 and may become more, never less. Those of a collection without a
        record are from 0 to 0; there is one at least.
        """
        ...

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer the end of each partition of many collections, asked for together.

        Each is as in `extents`. A collection of which the log cannot tell now is left out; raises
        `LogUnavailable` where it tells of none.
        """
        ...

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        """Answer what is kept of many collections, asked for together.

        Each is as `extents` and then `log_id` answer. Whom the log cannot tell of now is left out;
        raises `LogUnavailable` where it tells of none.
        """
        ...

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        """Answer when the first record of each span was received, asked for together.

        The marks are checked as `read` does, also where a span is empty.
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

        The log may forget those records, but not before 15 minutes have passed. (Kafka forgets
        by age alone, released or not, after an hour at the earliest.) What was said last holds,
        also if it is less than before. Raises like `read`.
        """
        ...

    def released(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer the released offset of each partition; what was never released is at 0."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a log keeps a collection that says nothing of its own; the embedded log needs no word."""

    partitions: int = 1
    hours: int = 168
    """How long records are kept, landed or not."""


PartitionsOf = Callable[[CollectionId], int | None]
"""Answers how many partitions a collection was given, None if that is not known."""


class Keeper(Protocol):
    """Makes room for collections on a log."""

    def ensure(self, collection: CollectionId, *, partitions: int | None = None) -> int:
        """Let the log have the collection, with so many partitions; answer how many it has.

        Without a number a new one gets what the log gives by default, and one that is there stays
        as it is. To be called before doors hear of the collection; a second call changes nothing.
        Raises `BadRequest` for a number the log cannot have (embedded: more than one; Kafka:
        fewer than there are), `LogUnavailable` when the log does not answer.
        """
        ...

    def restore(self, collection: CollectionId, partitions: int) -> int:
        """Let the log have a collection that is known already, with so many partitions or more.

        Answers how many it has. One that is gone is made anew: another log, from which nothing
        lands into a table that was filled from the one before (`LogChanged`).
        Raises `LogUnavailable` when the log does not answer.
        """
        ...

    def warning(self) -> str | None:
        """Answer why a position may not survive what it should, None if it does."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def glanced(read: Callable[..., Portion], one: Glance) -> Glanced:
    """Answer a glance by a read, for logs in which each costs next to nothing."""
    try:
        portion = read(one.collection, one.mark, end=one.end, max_bytes=1)
    except (Stopped, Unavailable) as error:
        return error
    received: Micros | None = None
    if portion.rows.num_rows:
        received = portion.rows["received_at"][0].value
    return received


def start_of(log_id: str, partition: int) -> Mark:
    """Answer the mark of a store that has absorbed nothing."""
    return Mark(log_id, partition, 0, "")


_KNOWN = "use embedded:///folder or kafka://host:port/prefix"


def open_buffer(url: str) -> Buffer:
    """Open the reading side of the log at `url`.

    ``embedded:///folder`` or ``kafka://host:port,host:port/prefix``.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "embedded":
            from penstock.buffer.embedded import EmbeddedBuffer

            return EmbeddedBuffer(parts.path)
        case "kafka":
            kafka = _kafka()
            buffer: Buffer = kafka.KafkaBuffer(kafka.read_place(url))
            return buffer
        case other:
            raise BadSetting(f"log_url starts with {other!r}; {_KNOWN}")


def open_appender(
    url: str,
    *,
    max_waiting_bytes: int = 64 << 20,
    keeping: Keeping | None = None,
    partitions_of: PartitionsOf = lambda _: None,
) -> Appender:
    """Open the writing side of the log at `url`; one process may hold an embedded one at a time.

    Appends that would make more than `max_waiting_bytes` wait for the log fail as `Overloaded`.
    `keeping` is for a collection whose place nobody has made, unless `partitions_of` knows better.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "embedded":
            from penstock.buffer.embedded import EmbeddedAppender

            return EmbeddedAppender(parts.path, max_waiting_bytes=max_waiting_bytes)
        case "kafka":
            kafka = _kafka()
            appender: Appender = kafka.KafkaAppender(
                kafka.read_place(url),
                max_waiting_bytes=max_waiting_bytes,
                keeping=keeping or Keeping(),
                partitions_of=partitions_of,
            )
            return appender
        case other:
            raise BadSetting(f"log_url starts with {other!r}; {_KNOWN}")


def open_keeper(url: str, keeping: Keeping | None = None) -> Keeper:
    """Open what makes room for collections on the log at `url`; `keeping` is the default."""
    match urlsplit(url).scheme:
        case "embedded":
            from penstock.buffer.keeping import EmbeddedKeeper

            return EmbeddedKeeper()
        case "kafka":
            kafka = _kafka()
            keeper: Keeper = kafka.KafkaKeeper(kafka.read_place(url), keeping or Keeping())
            return keeper
        case other:
            raise BadSetting(f"log_url starts with {other!r}; {_KNOWN}")


def _kafka() -> ModuleType:
    """Answer the adapter, or say what to install."""
    try:
        from penstock.buffer import kafka
    except ImportError as missing:
        raise BadSetting(
            "a log on Kafka needs its client: pip install 'penstock[kafka]'"
        ) from missing
    return kafka
