"""What a destination would be sent of an event, to be looked at. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.envelope import Clock, CollectionId, Event, Position
from penstock.guard import Guard
from penstock.metadata.records import Destination
from replay.request import HeaderMode
from replay.targets import Message
from replay.targets.added import CONTENT_TYPE, Added, has_type
from replay.targets.opening import open_http

REPLAY_ID = "(given when it starts)"


class Preview(NamedTuple):
    """What goes with the payload. A header of the destination's own has no value here."""

    event: Event
    headers: Sequence[tuple[str, bytes | None]]


def previews(
    events: Sequence[tuple[Position, Event]],
    destination: Destination,
    *,
    guard: Guard,
    collection: CollectionId,
    clock: Clock,
    mode: HeaderMode,
) -> list[Preview]:
    """Answer what the first attempt for each event would be.

    Over HTTP that is the request itself. To a bus it is the event's headers with those that the
    replay adds, which each kind carries as it can. Raises `AddressRefused` or `BadRequest` for a
    destination that cannot be used any more.
    """
    messages = [Message(event, position, 1) for position, event in events]
    if destination.kind != "http":
        added = Added(REPLAY_ID, collection, mode)
        return [Preview(message.event, _to_bus(message, added)) for message in messages]
    target = open_http(
        destination,
        guard=guard,
        replay_id=REPLAY_ID,
        collection=collection,
        clock=clock,
        headers=mode,
    )
    found = []
    for message in messages:
        hidden = [(name, None) for name, _ in target.own(message)]
        # Tokens and signatures are those of the moment in which it is sent.
        hidden += [(name, None) for name in target.added]
        told = [(name, value.encode()) for name, value in target.passed_on(message)]
        found.append(Preview(message.event, [*told, *hidden]))
    return found


def _to_bus(message: Message, added: Added) -> list[tuple[str, bytes | None]]:
    event = message.event
    pairs = [*added.kept(event.headers)]
    if event.content_type is not None and not has_type(pairs):
        pairs.append((CONTENT_TYPE, event.content_type.encode()))
    return [*pairs, *((name, value.encode()) for name, value in added.pairs(message))]
