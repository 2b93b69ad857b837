"""When the first record of many spans of a log on Kafka was received, asked for together.

A read of each would take a handful of requests and 10 ms or more, for hundreds of collections
seconds. One consumer that is turned to all of them fetches from all at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from penstock.buffer import Glance, Glanced
from penstock.buffer.kafka_cluster import PATIENCE_SECONDS, Cluster, Place, Topic, unavailable
from penstock.buffer.kafka_codec import Records
from penstock.buffer.kafka_consumers import WAIT_SECONDS, Consumers
from penstock.buffer.kafka_marks import (
    OUT_OF_RANGE,
    after_check,
    another_record,
    epoch_before,
    refuse_another,
)
from penstock.buffer.marks import refuse_outside
from penstock.envelope import Extent
from penstock.errors import LogUnavailable, Stopped, Unavailable

FEW_AT_ONCE: dict[str, object] = {"fetch.message.max.bytes": 16 << 10, "queued.min.messages": 1}
"""Settings of a consumer that needs a record or two of each partition. The client asks for more
of a partition by itself where a record is larger."""

_MESSAGES_AT_ONCE = 1_000

_Place = tuple[str, int]


def look(
    asked: Sequence[Glance], place: Place, cluster: Cluster, consumers: Consumers
) -> Sequence[Glanced]:
    """Answer each glance, as a read of it would; raise `LogUnavailable` if nothing answers."""
    names = {place.topic(one.collection) for one in asked}
    topics = cluster.described(names)
    extents = cluster.extents({name: range(one.partitions) for name, one in topics.items()})
    spans = [_Span(one, place.topic(one.collection)) for one in asked]
    for span in spans:
        with span.answering():
            span.begin(topics.get(span.topic), extents.get(span.topic, {}), cluster)
    ended = [span for span in spans if span.open and span.first >= span.high]
    epochs = cluster.epochs({span.place for span in ended})
    for span in ended:
        with span.answering():
            span.ends(partial(epochs.__getitem__, span.place))
    left = [span for span in spans if span.open]
    if left:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with suppress(_Nothing), consumers.lent() as consumer:
            came = 0
            while left:
                # A partition that is asked for twice has its second turn after the first.
                turn = {span.place: span for span in reversed(left)}
                came += _fetch(consumer, turn, cluster, deadline)
                left = [span for span in left if span.open]
            if not came:
                raise _Nothing("Kafka sends no record")
    # After the records: an id that holds now was theirs, for none is given twice.
    topics = cluster.described(names)
    for span in spans:
        with span.answering():
            refuse_another(span.asked.collection, span.asked.mark, topics.get(span.topic), cluster)
    return [span.answer for span in spans]


class _Nothing(LogUnavailable):
    """No span was answered, as each of them says for itself."""


class _Span:
    """One span that is looked at: open until it is answered."""

    def __init__(self, asked: Glance, topic: str) -> None:
        self.asked = asked
        self.topic = topic
        self.answer: Glanced = None
        self.open = True
        self.first = self.high = 0
        """The offset that is read from, and where the partition ends."""
        self._stop = 0
        self._epoch = -1

    @property
    def place(self) -> _Place:
        """The partition."""
        return self.topic, self.asked.mark.partition

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Let what the block raises be the answer."""
        try:
            yield
        except (Stopped, Unavailable) as error:
            self.answer, self.open = error, False

    def give_up(self) -> None:
        """Take that Kafka does not answer."""
        of, mark, _ = self.asked
        self.answer = LogUnavailable(f"Kafka sends no record of {of} that follows {mark}")
        self.open = False

    def begin(self, topic: Topic | None, extents: Mapping[int, Extent], cluster: Cluster) -> None:
        """Decide what has to be read, if anything."""
        collection, mark, end = self.asked
        refuse_another(collection, mark, topic, cluster)
        if topic is None and not mark.next:
            self.open = False
            return
        if mark.partition not in extents:
            raise LogUnavailable(f"Kafka does not tell what it holds of {collection}")
        extent = extents[mark.partition]
        refuse_outside(collection, mark, extent)
        self._epoch = epoch_before(collection, mark)
        self._stop = min(end, extent.end)
        self.high = extent.end
        # The record before the mark comes first, where there is one: see `after_check`.
        self.first = mark.next if self._epoch < 0 else max(extent.start, mark.next - 1)
        self.open = mark.next < self._stop or self._epoch >= 0

    def ends(self, newest: Callable[[], int]) -> None:
        """Take that nothing follows; `newest` answers the newest epoch of the partition."""
        self._check([], newest)
        self.open = False

    def take(self, message: Message, newest: Callable[[], int]) -> None:
        """Take the next record of the partition."""
        mark = self.asked.mark
        for one in self._check([message], newest):
            if one.offset() < self._stop:
                records = Records()
                records.add([one], max_bytes=1)
                rows = records.batch(mark.log_id, mark.partition)
                self.answer = rows["received_at"][0].value
            self.open = False
        if mark.next >= self._stop:
            self.open = False

    def _check(self, found: list[Message], newest: Callable[[], int]) -> list[Message]:
        collection, mark, _ = self.asked
        if self._epoch < 0:
            return found
        found = after_check(collection, mark, found, self._epoch, newest)
        self._epoch = -1
        return found


def _fetch(
    consumer: Consumer, turn: Mapping[_Place, _Span], cluster: Cluster, deadline: float
) -> int:
    """Read until each span is answered; what is left at the deadline has no answer.

    Answers how many have one.
    """
    consumer.assign([TopicPartition(*span.place, span.first) for span in turn.values()])
    answered: list[TopicPartition] = []
    while any(span.open for span in turn.values()) and time.monotonic() < deadline:
        done = []
        for message in consumer.consume(_MESSAGES_AT_ONCE, WAIT_SECONDS):
            span = turn.get((str(message.topic()), message.partition()))
            if span is not None and span.open and _answered(span, message, cluster):
                done.append(TopicPartition(*span.place))
        if done:
            # Nothing more is fetched of them while the others are waited for.
            consumer.pause(done)
            answered += done
    if answered:
        consumer.resume(answered)
    unanswered = [span for span in turn.values() if span.open]
    for span in unanswered:
        span.give_up()
    return len(turn) - len(unanswered)


def _answered(span: _Span, message: Message, cluster: Cluster) -> bool:
    """Let the span have what came of its partition; say whether it is answered by that."""

    def newest() -> int:
        return cluster.epochs([span.place])[span.place]

    error = message.error()
    with span.answering():
        if error is None:
            span.take(message, newest)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - public, but named so
            span.ends(newest)
        elif error.code() in OUT_OF_RANGE:
            raise another_record(span.asked.collection, span.asked.mark)
        elif not error.retriable():
            raise unavailable(error)
    return not span.open
