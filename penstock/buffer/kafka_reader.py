"""The reading side of a log on Kafka: exact spans, by any number of processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.buffer import Portion
from penstock.buffer.kafka_cluster import (
    NO_TOPIC,
    PATIENCE_SECONDS,
    Cluster,
    Place,
    Topic,
    made,
    unavailable,
)
from penstock.buffer.kafka_codec import Records
from penstock.envelope import CollectionId, Extent, Mark
from penstock.errors import LogChanged, LogReplaced, LogTruncated, LogUnavailable

_OUT_OF_RANGE = frozenset({
    KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE,  # noqa: SLF001 - named so
    KafkaError._LOG_TRUNCATION,  # noqa: SLF001
})  # fmt: skip

# Records that are asked for at once, and how large one is until the first are there. With 10,000
# they have left the processor's cache before they are taken apart, which costs a fifth.
_MOST_AT_ONCE = 1_000
_LIKELY_BYTES = 256
# Where only markers are left the client says so, but waits for more first.
_WAIT_SECONDS = 0.05

# A consumer takes 100 ms to make, 6 ms to turn to another span: some are kept.
_KEPT = 4


class KafkaBuffer:
    """Reads the log of a cluster. Threads may share it. See `Buffer`."""

    def __init__(self, place: Place) -> None:
        """Open nothing yet."""
        self._place = place
        self._cluster = Cluster(place)
        self._idle: list[Consumer] = []
        self._guard = threading.Lock()
        self._closed = False

    def log_id(self, collection: CollectionId) -> str:
        """Answer the id of the collection's topic, that of the cluster while there is none."""
        topic = self._cluster.topic(self._place.topic(collection))
        return topic.id if topic else self._cluster.id

    def collections(self) -> Sequence[CollectionId]:
        """Answer every collection that has a topic, sorted."""
        return self._place.collections(self._cluster.topics())

    def extents(self, collection: CollectionId) -> Mapping[int, Extent]:
        """Answer what each partition holds up to the first open transaction, if there is one."""
        name = self._place.topic(collection)
        topic = self._cluster.topic(name)
        if topic is None:
            return {0: Extent(0, 0)}
        return self._cluster.extents(name, range(topic.partitions))

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        """Answer the records from `mark` on; see `Buffer.read`."""
        records = Records()
        try:
            with self._consumer() as consumer:
                mark_after = self._read(consumer, collection, mark, end, max_bytes, records)
        except KafkaException as error:
            if self._refuse_another(collection, mark) is None and not mark.next:
                return Portion(records.batch(mark.log_id, mark.partition), mark)
            raise unavailable(error.args[0]) from error
        except (LogChanged, LogTruncated, LogUnavailable):
            self._refuse_another(collection, mark)
            raise
        # After the records: an id that holds now was theirs, for none is given twice.
        self._refuse_another(collection, mark)
        return Portion(records.batch(mark.log_id, mark.partition), mark_after)

    def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        """Tell lag tools how far landing is; Kafka keeps records by their age, released or not."""
        for mark in marks:
            self.read(collection, mark, end=mark.next, max_bytes=1)
        if marks:
            self._cluster.commit(
                self._place.topic(collection), {mark.partition: mark.next for mark in marks}
            )

    def released(self, collection: CollectionId) -> Mapping[int, int]:
        """Answer what was told; Kafka forgets it after a week in which nothing was told."""
        name = self._place.topic(collection)
        topic = self._cluster.topic(name)
        return self._cluster.committed(name, range(topic.partitions if topic else 1))

    def close(self) -> None:
        """Close the consumers that are kept."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for consumer in idle:
            consumer.close()

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        """Lend a consumer for the block."""
        with self._guard:
            consumer = self._idle.pop() if self._idle else None
        if consumer is None:
            consumer = made(Consumer, self._settings())
        try:
            yield consumer
        finally:
            consumer.unassign()
            with self._guard:
                keep = not self._closed and len(self._idle) < _KEPT
                if keep:
                    self._idle.append(consumer)
            if not keep:
                consumer.close()

    def _settings(self) -> dict[str, object]:
        return self._place.client(self._cluster.trouble) | {
            # It is never joined and holds nothing: a consumer has to name one.
            "group.id": f"{self._place.prefix}.readers",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # A reader that is out of range must not go on anywhere else.
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 10,
            "queued.max.messages.kbytes": 32 << 10,
        }

    def _read(
        self,
        consumer: Consumer,
        collection: CollectionId,
        mark: Mark,
        end: int,
        max_bytes: int,
        records: Records,
    ) -> Mark:
        """Add the records from `mark` on; answer the mark behind them."""
        place = TopicPartition(self._place.topic(collection), mark.partition)
        low, high = consumer.get_watermark_offsets(place, PATIENCE_SECONDS)
        _refuse_outside(collection, mark, Extent(low, high))
        epoch = _epoch(collection, mark)
        stop = min(end, high)
        if mark.next >= stop and epoch < 0:
            return mark
        # The record before the mark comes first, where there is one: it has to be the one absorbed.
        checked = epoch < 0
        begin = mark.next if checked else max(low, mark.next - 1)
        consumer.assign([TopicPartition(place.topic, place.partition, begin)])
        following, likely = mark.next, _LIKELY_BYTES
        while True:
            room = max_bytes - records.payload_bytes
            most = max(1, min(stop - following, room // likely, _MOST_AT_ONCE))
            good, ended = _next(consumer, collection, mark, most)
            if not checked:
                good, checked = self._checked(collection, mark, place, good, epoch), True
            inside = [one for one in good if one.offset() < stop]
            if inside:
                inside = inside[: records.add(inside, max_bytes=max_bytes)]
                following, epoch = inside[-1].offset() + 1, _epoch_of(inside[-1])
            if following >= stop or records.payload_bytes >= max_bytes:
                break
            if ended or len(good) > len(inside):
                # What lies between is no record: markers, or an aborted transaction.
                beyond = good[len(inside) :]
                following = stop
                epoch = _epoch_of(beyond[0]) if beyond else self._newest_epoch(place)
                break
            likely = max(1, records.payload_bytes // max(1, len(records)))
        if following == mark.next:
            return mark
        return Mark(mark.log_id, mark.partition, following, str(epoch))

    def _checked(
        self,
        collection: CollectionId,
        mark: Mark,
        place: TopicPartition,
        found: list[Message],
        epoch: int,
    ) -> list[Message]:
        """Answer what follows the mark; raise `LogChanged` unless what is before it is the same.

        An offset is given once in an epoch: the record of that offset and epoch is the one that
        was absorbed. Where a marker stood, or nothing is left, what follows is at least not older.
        """
        if found and found[0].offset() == mark.next - 1:
            if _epoch_of(found[0]) != epoch:
                raise _another_record(collection, mark)
            return found[1:]
        newest = _epoch_of(found[0]) if found else self._newest_epoch(place)
        if 0 <= newest < epoch:
            raise _another_record(collection, mark)
        return found

    def _newest_epoch(self, place: TopicPartition) -> int:
        return self._cluster.epoch(place.topic, place.partition)

    def _refuse_another(self, collection: CollectionId, mark: Mark) -> Topic | None:
        """Answer the topic; raise `LogChanged` unless it is the one the mark is of."""
        topic = self._cluster.topic(self._place.topic(collection))
        found = topic.id if topic else self._cluster.id
        if found != mark.log_id or (topic and mark.partition >= topic.partitions):
            raise LogReplaced(
                f"the mark {mark} of {collection} is of partition {mark.partition} of the topic "
                f"{mark.log_id}; here is {found}"
                + (f" with {topic.partitions} partitions" if topic else ", without the topic")
            )
        return topic


def _next(
    consumer: Consumer, collection: CollectionId, mark: Mark, most: int
) -> tuple[list[Message], bool]:
    """Wait for records, `most` at most; answer them, and whether the partition ends behind them."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        good, ended = _sorted(collection, mark, consumer.consume(most, _WAIT_SECONDS))
        if good or ended:
            return good, ended
    raise LogUnavailable(f"Kafka sends no record of {collection} that follows {mark}")


def _sorted(
    collection: CollectionId, mark: Mark, messages: Sequence[Message]
) -> tuple[list[Message], bool]:
    """Answer the records, and whether the partition ends behind them for now."""
    errors = [error for one in messages if (error := one.error()) is not None]
    if not errors:
        return list(messages), False
    ended = False
    for error in errors:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - public, but named so
            ended = True
        elif code in _OUT_OF_RANGE:
            raise _another_record(collection, mark)
        elif error.fatal() or code in NO_TOPIC or not error.retriable():
            raise KafkaException(error)
    return [one for one in messages if one.error() is None], ended


def _another_record(collection: CollectionId, mark: Mark) -> LogChanged:
    return LogChanged(
        f"the log of {collection} holds another record before {mark.next} than the one that was "
        f"absorbed, which was of leader epoch {mark.fingerprint}: a replica has lost its end"
    )


def _epoch(collection: CollectionId, mark: Mark) -> int:
    """Answer the leader epoch of the record before the mark, -1 where the mark says nothing."""
    if not mark.next or not mark.fingerprint:
        return -1
    if not mark.fingerprint.isdigit():
        raise LogChanged(f"the mark {mark} of {collection} was not given by Kafka")
    return int(mark.fingerprint)


def _epoch_of(message: Message) -> int:
    epoch = message.leader_epoch()
    return 0 if epoch is None else epoch


def _refuse_outside(collection: CollectionId, mark: Mark, extent: Extent) -> None:
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
