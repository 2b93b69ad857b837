"""Whether a log on Kafka is still the one that a mark was taken of.

A mark names the topic by its id, and the record before it by the leader epoch of that.
"""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import KafkaError, Message

from penstock.buffer.kafka_cluster import Cluster, Topic
from penstock.envelope import CollectionId, Mark
from penstock.errors import LogChanged, LogReplaced

OUT_OF_RANGE = frozenset({
    KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE,  # noqa: SLF001 - named so
    KafkaError._LOG_TRUNCATION,  # noqa: SLF001
})  # fmt: skip
"""What the client says of an offset that the partition does not have."""


def refuse_another(
    collection: CollectionId, mark: Mark, topic: Topic | None, cluster: Cluster
) -> None:
    """Raise `LogReplaced` unless the topic, or none, is the one the mark is of."""
    found = topic.id if topic else cluster.id
    if found != mark.log_id or (topic and mark.partition >= topic.partitions):
        raise LogReplaced(
            f"the mark {mark} of {collection} is of partition {mark.partition} of the topic "
            f"{mark.log_id}; here is {found}"
            + (f" with {topic.partitions} partitions" if topic else ", without the topic")
        )


def epoch_before(collection: CollectionId, mark: Mark) -> int:
    """Answer the leader epoch of the record before the mark, -1 where the mark says nothing."""
    if not mark.next or not mark.fingerprint:
        return -1
    if not mark.fingerprint.isdigit():
        raise LogChanged(f"the mark {mark} of {collection} was not given by Kafka")
    return int(mark.fingerprint)


def epoch_of(message: Message) -> int:
    """Answer the leader epoch of a record."""
    epoch = message.leader_epoch()
    return 0 if epoch is None else epoch


def after_check(
    collection: CollectionId,
    mark: Mark,
    found: list[Message],
    epoch: int,
    newest: Callable[[], int],
) -> list[Message]:
    """Answer what follows the mark; raise `LogChanged` unless what is before it is the same.

    An offset is given once in an epoch: the record of that offset and epoch is the one that
    was absorbed. Where a marker stood, or nothing is left, what follows is at least not older:
    `newest` answers the newest leader epoch of the partition.
    """
    if found and found[0].offset() == mark.next - 1:
        if epoch_of(found[0]) != epoch:
            raise another_record(collection, mark)
        return found[1:]
    following = epoch_of(found[0]) if found else newest()
    if 0 <= following < epoch:
        raise another_record(collection, mark)
    return found


def another_record(collection: CollectionId, mark: Mark) -> LogChanged:
    """Say that the record before the mark is not the one that was absorbed."""
    return LogChanged(
        f"the log of {collection} holds another record before {mark.next} than the one that was "
        f"absorbed, which was of leader epoch {mark.fingerprint}: a replica has lost its end"
    )
