"""What is asked of a cluster whose brokers are not the ones that the client knows any more."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

from confluent_kafka import KafkaError, KafkaException, Uuid

from penstock.buffer.kafka_cluster import Cluster, Topic, read_place
from penstock.envelope import Extent


class StaleAdmin:
    """Goes by brokers that are gone until it lists topics, as the client does for minutes."""

    def __init__(self) -> None:
        self.looked = 0

    def list_topics(self, *, timeout: float) -> None:
        self.looked += 1

    def describe_topics(self, topics: object, *, request_timeout: float) -> object:
        answer: Future[object] = Future()
        if self.looked:
            answer.set_result(SimpleNamespace(topic_id=Uuid(1, 2), partitions=[0, 1]))
        else:
            answer.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
        return {"penstock.main.flights": answer}

    def list_offsets(self, places: dict, **_: object) -> object:
        answers = {}
        for place in places:
            answers[place] = Future()
            # For a leader that is gone it tells this, and no error.
            answers[place].set_result(SimpleNamespace(offset=7 if self.looked else -1001))
        return answers


def stale() -> tuple[Cluster, StaleAdmin]:
    admin = StaleAdmin()
    return Cluster(read_place("kafka://one:9092"), lambda: admin), admin


def test_a_question_to_a_broker_that_is_gone_is_asked_again_elsewhere() -> None:
    """Landing and search would stand still although the other brokers have every event."""
    cluster, admin = stale()

    found = cluster.topic("penstock.main.flights")

    assert isinstance(found, Topic)
    assert found.partitions == 2
    assert admin.looked == 1


def test_an_end_that_nobody_has_told_is_not_taken_for_one() -> None:
    """The log would seem to have lost its end, and the collection would stop."""
    cluster, admin = stale()

    assert cluster.extents({"a": [0]}) == {"a": {0: Extent(7, 7)}}
    assert admin.looked == 1


def test_ends_of_many_topics_are_asked_for_at_once_and_again_elsewhere() -> None:
    """Hundreds of collections are looked at every few seconds."""
    cluster, admin = stale()

    assert cluster.ends({"a": [0, 1], "b": [0]}) == {"a": {0: 7, 1: 7}, "b": {0: 7}}
    assert admin.looked == 1
    assert cluster.ends({}) == {}


def test_a_topic_without_a_leader_holds_up_no_other() -> None:
    """And is not taken for one that has ended where its other partitions do."""

    class HalfAway(StaleAdmin):
        def list_offsets(self, places: dict, **_: object) -> object:
            answers = {}
            for place in places:
                answers[place] = Future()
                told = -1001 if (place.topic, place.partition) == ("a", 0) else 7
                answers[place].set_result(SimpleNamespace(offset=told))
            return answers

    admin = HalfAway()
    cluster = Cluster(read_place("kafka://one:9092"), lambda: admin)

    assert cluster.ends({"a": [0, 1], "b": [0]}) == {"b": {0: 7}}
    assert admin.looked == 0
