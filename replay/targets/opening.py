"""Which target a destination is opened as. Only here does a kind lead to its client."""

from __future__ import annotations

from urllib.parse import urlsplit

from penstock.envelope import Clock, CollectionId
from penstock.guard import Guard, Lookup, system_lookup
from penstock.metadata.records import Destination
from replay.request import HeaderMode
from replay.targets import Target
from replay.targets.http import TOTAL_SECONDS, HttpTarget
from replay.targets.places import (
    check_place,
    http_options,
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


def log_topics(log_url: str) -> str:
    """Answer how the topics of the log at this URL begin, or would if it were Kafka."""
    parts = urlsplit(log_url)
    prefix = parts.path.strip("/") if parts.scheme == "kafka" else ""
    return f"{prefix}." if prefix else LOG_TOPICS


def checked(record: Destination, guard: Guard, *, own_topics: str = LOG_TOPICS) -> Destination:
    """Answer a destination that can be kept, its address in normal form; connects to nothing.

    Raises `AddressRefused` or `BadRequest` for what no replay could use.
    """
    record = check_place(record, guard)
    open_target(
        record,
        guard=guard,
        replay_id="",
        collection=CollectionId(record.team, ""),
        clock=lambda: 0,
        own_topics=own_topics,
    )
    return record


def open_http(
    record: Destination,
    *,
    guard: Guard,
    replay_id: str,
    collection: CollectionId,
    clock: Clock,
    headers: HeaderMode = "add",
    timeout: float = TOTAL_SECONDS,
    lookup: Lookup = system_lookup,
) -> HttpTarget:
    """Answer an HTTP destination, as `open_target` does."""
    return HttpTarget(
        record.url,
        http_options(record.options),
        guard=guard,
        replay_id=replay_id,
        collection=collection,
        clock=clock,
        own_headers=record.headers,
        secret=record.secret,
        credentials=record.credentials,
        headers=headers,
        timeout=timeout,
        lookup=lookup,
    )


def open_target(
    record: Destination,
    *,
    guard: Guard,
    replay_id: str,
    collection: CollectionId,
    clock: Clock,
    headers: HeaderMode = "add",
    timeout: float = TOTAL_SECONDS,
    own_topics: str = LOG_TOPICS,
    lookup: Lookup = system_lookup,
) -> Target:
    """Answer the destination, ready to be sent to; nothing is opened before that.

    Raises `AddressRefused` if replays may not go there, `BadRequest` for what cannot be used, or
    where the client of its kind is not installed.
    """
    match record.kind:
        case "http":
            return open_http(
                record,
                guard=guard,
                replay_id=replay_id,
                collection=collection,
                clock=clock,
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
