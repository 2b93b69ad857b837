"""Which target a destination is opened as. Only here does a kind lead to its client."""

from __future__ import annotations

from penstock.envelope import Clock, CollectionId
from penstock.guard import Guard, Lookup, system_lookup
from penstock.metadata.records import Destination
from replay.request import HeaderMode
from replay.targets import Target
from replay.targets.http import HttpTarget, agreed_url, check_own_headers
from replay.targets.places import (
    check_place,
    kafka_options,
    kafka_place,
    pair_of,
    rabbit_options,
    rabbit_place,
    sqs_options,
    sqs_place,
)

LOG_TOPICS = "penstock."
"""How the topics of Penstock's own log begin."""


def checked(record: Destination, guard: Guard) -> Destination:
    """Answer a destination that can be kept, its address in normal form; opens nothing.

    Raises `AddressRefused` or `BadRequest` for what no replay could use, and `BadSetting` where the
    client of its kind is not installed.
    """
    record = check_place(record, guard)
    if record.kind == "http":
        agreed_url(guard, record.url)
        check_own_headers(record.headers)
    elif record.kind == "kafka":
        from replay.targets.kafka import refuse_own_topic

        refuse_own_topic(kafka_place(record.url, guard).topic, LOG_TOPICS)
    return record


def open_target(
    record: Destination,
    *,
    guard: Guard,
    replay_id: str,
    collection: CollectionId,
    clock: Clock,
    headers: HeaderMode = "add",
    timeout: float = 30.0,
    own_topics: str = LOG_TOPICS,
    lookup: Lookup = system_lookup,
) -> Target:
    """Answer the destination, ready to be sent to; nothing is opened before that.

    Raises `AddressRefused` if replays may not go there, `BadRequest` for what cannot be used, and
    `BadSetting` where the client of its kind is not installed.
    """
    match record.kind:
        case "http":
            return HttpTarget(
                record.url,
                guard=guard,
                replay_id=replay_id,
                collection=collection,
                clock=clock,
                own_headers=record.headers,
                headers=headers,
                timeout=timeout,
                lookup=lookup,
            )
        case "kafka":
            from replay.targets.kafka import KafkaTarget

            return KafkaTarget(
                kafka_place(record.url, guard),
                kafka_options(record.options),
                pair_of(record.secret),
                guard=guard,
                replay_id=replay_id,
                collection=collection,
                headers=headers,
                timeout=timeout,
                own_topics=own_topics,
                lookup=lookup,
            )
        case "rabbitmq":
            from replay.targets.rabbitmq import RabbitTarget

            return RabbitTarget(
                rabbit_place(record.url, guard),
                rabbit_options(record.options),
                pair_of(record.secret),
                guard=guard,
                replay_id=replay_id,
                collection=collection,
                headers=headers,
                timeout=timeout,
                lookup=lookup,
            )
        case "sqs":
            from replay.targets.sqs import SqsTarget

            options = sqs_options(record.options)
            return SqsTarget(
                sqs_place(record.url, options, guard),
                options,
                record.secret or "",
                guard=guard,
                replay_id=replay_id,
                collection=collection,
                headers=headers,
                timeout=timeout,
                lookup=lookup,
            )
