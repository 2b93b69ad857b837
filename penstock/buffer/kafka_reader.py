"""The reading side of a log on Kafka: exact spans, by any number of processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.buffer import Glance, Glanced, Kept, Portion
from penstock.buffer.kafka_cluster import (
    NO_TOPIC,
    PATIENCE_SECONDS,
    Cluster,
    Place,
    Topic,
    unavailable,
)
from penstock.buffer.kafka_codec import Records
from penstock.buffer.kafka_consumers import WAIT_SECONDS, Consumers
from penstock.buffer.kafka_glance import FEW_AT_ONCE, look
from penstock.buffer.kafka_marks import (
    OUT_OF_RANGE,
    after_check,
    another_record,
    epoch_before,
    epoch_of,
    refuse_another,
)
from penstock.buffer.marks import refuse_outside
from penstock.envelope import CollectionId, Extent, Mark
from penstock.errors import LogChanged, LogTruncated, LogUnavailable, PenstockError

# Records that are asked for at once, and how large one is until the first are there. With 10,000
# they have left the processor's cache before they are taken apart, which costs a fifth.
_MOST_AT_ONCE = 1_000
_LIKELY_BYTES = 256


class KafkaBuffer:
    """Reads the log of a cluster. Threads may share it. See `Buffer`."""

    def __init__(self, place: Place) -> None:
        """Open nothing yet."""
        self._place = place
        self._cluster = Cluster(place)
        self._reading = Consumers(lambda: _settings(place, self._cluster))
        self._glancing = Consumers(lambda: _settings(place, self._cluster) | FEW_AT_ONCE)
        self._reached: dict[tuple[CollectionId, int], Mark] = {}
        """Where the last read of each partition ended: what is known of that need not be read."""

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
        return self._cluster.extents({name: range(topic.partitions)})[name]

    def ends(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer where each ends for readers: three requests, however many they are."""
        partitions = self._partitions(collections)
        found = self._cluster.ends(partitions)
        return {
            one: found[topic] if topic in partitions else {0: 0}
            for one, topic in self._topics(collections)
            if topic in found or topic not in partitions
        }

    def kept(self, collections: Sequence[CollectionId]) -> Mapping[CollectionId, Kept]:
        """Answer what is kept of each: four requests, however many they are."""
        partitions = self._partitions(collections)
        extents = self._cluster.extents(partitions)
        topics = self._cluster.described(partitions.keys())
        return {
            one: Kept(
                topics[name].id if name in topics else self._cluster.id,
                extents[name] if name in partitions else {0: Extent(0, 0)},
            )
            for one, name in self._topics(collections)
            if name in extents or name not in partitions
        }

    def glance(self, asked: Sequence[Glance]) -> Sequence[Glanced]:
        """Answer when the first record of each span was received; see `kafka_glance`."""
        return look(asked, self._place, self._cluster, self._glancing)

    def read(self, collection: CollectionId, mark: Mark, *, end: int, max_bytes: int) -> Portion:
        """Answer the records from `mark` on; see `Buffer.read`."""
        records = Records()
        # One that finds the log changed has not reached anything.
        self._reached.pop((collection, mark.partition), None)
        reason: KafkaError | None = None
        failure: PenstockError | None = None
        mark_after = mark
        try:
            with self._reading.lent() as consumer:
                mark_after = self._read(consumer, collection, mark, end, max_bytes, records)
        except KafkaException as error:
            reason = error.args[0]
        except (LogChanged, LogTruncated, LogUnavailable) as error:
            failure = error
        # Where nothing is handled any more: see `Cluster._asked`. And after the records: an id that
        # holds now was theirs, for none is given twice.
        try:
            topic = self._refuse_another(collection, mark)
            if failure is not None:
                raise failure
        finally:
            del failure  # it holds this frame
        if reason is not None:
            if topic is None and not mark.next:
                return Portion(records.batch(mark.log_id, mark.partition), mark)
            raise unavailable(reason)
        self._reached[collection, mark.partition] = mark_after
        return Portion(records.batch(mark.log_id, mark.partition), mark_after)

    def release(self, collection: CollectionId, marks: Sequence[Mark]) -> None:
        """Tell lag tools how far landing is; Kafka keeps records by their age, released or not.

        Where the last read ended a mark is known to be good, and nothing is read for it.
        """
        for mark in marks:
            if self._reached.get((collection, mark.partition)) == mark:
                self._refuse_another(collection, mark)
            else:
                self.read(collection, mark, end=mark.next, max_bytes=1)
        if marks:
            self._cluster.commit(
                self._place.topic(collection), {mark.partition: mark.next for mark in marks}
            )

    def released(
        self, collections: Sequence[CollectionId]
    ) -> Mapping[CollectionId, Mapping[int, int]]:
        """Answer what was told; Kafka forgets it after a week in which nothing was told."""
        found = self._cluster.committed(self._partitions(collections))
        return {one: found.get(topic, {0: 0}) for one, topic in self._topics(collections)}

    def _topics(self, collections: Iterable[CollectionId]) -> Iterator[tuple[CollectionId, str]]:
        return ((one, self._place.topic(one)) for one in collections)

    def _partitions(self, collections: Iterable[CollectionId]) -> Mapping[str, range]:
        """Answer the partitions of those that have a topic."""
        known = self._cluster.topics()
        return {
            topic: range(known[topic]) for _, topic in self._topics(collections) if topic in known
        }

    def close(self) -> None:
        """Close the consumers that are kept."""
        self._reading.close()
        self._glancing.close()

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
        refuse_outside(collection, mark, Extent(low, high))
        epoch = epoch_before(collection, mark)
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
                good = after_check(collection, mark, good, epoch, partial(self._newest, place))
                checked = True
            inside = [one for one in good if one.offset() < stop]
            if inside:
                inside = inside[: records.add(inside, max_bytes=max_bytes)]
                following, epoch = inside[-1].offset() + 1, epoch_of(inside[-1])
            if following >= stop or records.payload_bytes >= max_bytes:
                break
            if ended or len(good) > len(inside):
                # What lies between is no record: markers, or an aborted transaction.
                beyond = good[len(inside) :]
                following = stop
                epoch = epoch_of(beyond[0]) if beyond else self._newest(place)
                break
            likely = max(1, records.payload_bytes // max(1, len(records)))
        if following == mark.next:
            return mark
        return Mark(mark.log_id, mark.partition, following, str(epoch))

    def _newest(self, place: TopicPartition) -> int:
        return self._cluster.epochs([(place.topic, place.partition)])[place.topic, place.partition]

    def _refuse_another(self, collection: CollectionId, mark: Mark) -> Topic | None:
        """Answer the topic; raise `LogReplaced` unless it is the one the mark is of."""
        topic = self._cluster.topic(self._place.topic(collection))
        refuse_another(collection, mark, topic, self._cluster)
        return topic


def _settings(place: Place, cluster: Cluster) -> dict[str, object]:
    return place.client(cluster.trouble) | {
        # It is never joined and holds nothing: a consumer has to name one.
        "group.id": f"{place.prefix}.readers",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        # A reader that is out of range must not go on anywhere else.
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 10,
        "queued.max.messages.kbytes": 32 << 10,
    }


def _next(
    consumer: Consumer, collection: CollectionId, mark: Mark, most: int
) -> tuple[list[Message], bool]:
    """Wait for records, `most` at most; answer them, and whether the partition ends behind them."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        good, ended = _sorted(collection, mark, consumer.consume(most, WAIT_SECONDS))
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
        elif code in OUT_OF_RANGE:
            raise another_record(collection, mark)
        elif error.fatal() or code in NO_TOPIC or not error.retriable():
            raise KafkaException(error)
    return [one for one in messages if one.error() is None], ended
