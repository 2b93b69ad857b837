"""What a destination would be sent of an event, to be looked at. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from penstock.envelope import Clock, CollectionId, Event, Position
from penstock.guard import Guard
from penstock.metadata.records import Destination
from replay.request import HeaderMode
from replay.targets import Message
from replay.targets.added import CONTENT_TYPE, Added, has_type
from replay.targets.posted import open_http
from replay.transform import Transform
from replay.transform.document import Unchangeable

REPLAY_ID = "(given when it starts)"


class Preview(NamedTuple):
    """What goes with the payload. A header of the destination's own has no value here."""

    event: Event
    headers: Sequence[tuple[str, bytes | None]]
    original: Event | None = None
    """The event as it was received, if there is a transform."""
    wrong: str | None = None
    """Why nothing of it would be sent."""


def previews(
    events: Sequence[tuple[Position, Event]],
    destination: Destination,
    *,
    guard: Guard,
    collection: CollectionId,
    clock: Clock,
    mode: HeaderMode,
    transform: Transform | None = None,
) -> list[Preview]:
    """Answer what the first attempt for each event would be.

    Over HTTP that is the request itself. To a bus it is the event's headers with those that the
    replay adds, which each kind carries as it can. Raises `AddressRefused` or `BadRequest` for a
    destination that cannot be used any more.
    """
    told = _headers_of(destination, guard, collection, clock, mode, marked=transform is not None)
    if transform is None:
        return [Preview(event, told(Message(event, at, 1))) for at, event in events]
    found = []
    for at, event in events:
        try:
            made = transform.changed(event, at)
        except Unchangeable as error:
            found.append(Preview(event, (), event, str(error)))
        else:
            found.append(Preview(made, told(Message(made, at, 1)), event))
    return found


def _headers_of(
    destination: Destination,
    guard: Guard,
    collection: CollectionId,
    clock: Clock,
    mode: HeaderMode,
    *,
    marked: bool,
) -> Callable[[Message], Sequence[tuple[str, bytes | None]]]:
    """Answer what makes the headers of a message to this destination."""
    if destination.kind != "http":
        added = Added(REPLAY_ID, collection, mode, marked=marked)
        return lambda message: _to_bus(message, added)
    target = open_http(
        destination,
        guard=guard,
        replay_id=REPLAY_ID,
        collection=collection,
        clock=clock,
        headers=mode,
        marked=marked,
    )

    def over_http(message: Message) -> list[tuple[str, bytes | None]]:
        hidden = [(name, None) for name, _ in target.own(message)]
        # Tokens and signatures are those of the moment in which it is sent.
        hidden += [(name, None) for name in target.added]
        return [*((name, value.encode()) for name, value in target.passed_on(message)), *hidden]

    return over_http


def _to_bus(message: Message, added: Added) -> list[tuple[str, bytes | None]]:
    event = message.event
    pairs = [*added.kept(event.headers)]
    if event.content_type is not None and not has_type(pairs):
        pairs.append((CONTENT_TYPE, event.content_type.encode()))
    return [*pairs, *((name, value.encode()) for name, value in added.pairs(message))]
