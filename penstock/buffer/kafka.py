"""The log on Apache Kafka: a topic for each collection, a record for each event.

`kafka_codec` has the format of a record, `kafka_cluster` what the cluster is asked and told,
`kafka_appender` the door's side, `kafka_reader` everybody else's.
"""

from __future__ import annotations

from penstock.buffer.kafka_appender import KafkaAppender
from penstock.buffer.kafka_cluster import KafkaKeeper, read_place
from penstock.buffer.kafka_reader import KafkaBuffer

__all__ = ["KafkaAppender", "KafkaBuffer", "KafkaKeeper", "read_place"]
