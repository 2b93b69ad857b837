"""Which target a destination is opened as. Only here does a kind lead to its client."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from penstock.envelope import Clock, CollectionId
from penstock.errors import BadRequest
from penstock.guard import Guard, Lookup, system_lookup
from penstock.metadata.records import Destination
from replay.doorway import Doorway
from replay.request import HeaderMode
from replay.targets import Target
from replay.targets.collection import CollectionTarget
from replay.targets.file import FileTarget
from replay.targets.http import TOTAL_SECONDS
from replay.targets.places import (
    check_place,
    collection_place,
    file_options,
    file_place,
    kafka_options,
    kafka_place,
    pair_of,
    rabbit_options,
    rabbit_place,
    sqs_options,
    sqs_place,
    tunnel_name,
)
from replay.targets.posted import open_posted
from replay.targets.tunnel import TunnelTarget

_WITHIN = frozenset({"collection", "file", "tunnel"})
"""Kinds to which nothing is connected from here; where they lead is not known before a replay is.
"""

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
    if record.kind in _WITHIN:
        return record
    open_target(
        record,
        guard=guard,
        replay_id="",
        collection=CollectionId(record.team, ""),
        clock=lambda: 0,
        own_topics=own_topics,
    )
    return record


def open_target(
    record: Destination,
    *,
    guard: Guard,
    replay_id: str,
    collection: CollectionId,
    clock: Clock,
    headers: HeaderMode = "add",
    marked: bool = True,
    timeout: float = TOTAL_SECONDS,
    own_topics: str = LOG_TOPICS,
    doorway: Doorway | None = None,
    files: Path | None = None,
    lookup: Lookup = system_lookup,
) -> Target:
    """Answer the destination, ready to be sent to; nothing is opened before that.

    Events are `marked` where a transform of the replay has said so in a header: without it one that
    is there is an earlier replay's, and left out.
    `doorway` leads to the collections of this installation and to its tunnels, and `files` is the
    folder that it keeps files in. Raises `AddressRefused` if replays may not go there, `BadRequest`
    for what cannot be used, or where the client of its kind is not installed.
    """
    match record.kind:
        case "http":
            return open_posted(
                record,
                guard=guard,
                replay_id=replay_id,
                collection=collection,
                clock=clock,
                headers=headers,
                marked=marked,
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
                marked=marked,
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
                marked=marked,
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
                marked=marked,
                timeout=timeout,
                lookup=lookup,
            )
        case "collection" | "file" | "tunnel":
            return _open_within(
                record,
                doorway,
                files,
                replay_id=replay_id,
                collection=collection,
                headers=headers,
                marked=marked,
                timeout=timeout,
            )


def _open_within(
    record: Destination,
    doorway: Doorway | None,
    files: Path | None,
    *,
    replay_id: str,
    collection: CollectionId,
    headers: HeaderMode,
    marked: bool,
    timeout: float,
) -> Target:
    """Answer a destination that is reached by no address."""
    if record.kind == "file":
        if files is None:
            raise BadRequest("no folder is known here that files are kept in")
        return FileTarget(
            file_place(record.url),
            file_options(record.options),
            files,
            team=record.team,
            replay_id=replay_id,
            collection=collection,
            headers=headers,
            marked=marked,
        )
    if doorway is None:
        raise BadRequest("no door is known here that leads to collections and tunnels")
    if record.kind == "tunnel":
        return TunnelTarget(
            tunnel_name(record.url),
            doorway,
            team=record.team,
            replay_id=replay_id,
            collection=collection,
            headers=headers,
            marked=marked,
            timeout=timeout,
        )
    return CollectionTarget(
        collection_place(record.url, record.team),
        doorway,
        replay_id=replay_id,
        collection=collection,
        headers=headers,
        marked=marked,
        timeout=timeout,
    )
