"""Values of headers that are made of an event: ``{event.id}`` and its like. Pure.

What may stand in braces is a list, and nothing is evaluated. Braces around anything that does not
begin with ``event.`` are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.envelope import CollectionId
from penstock.errors import BadRequest
from replay.request import rfc3339
from replay.targets import Message

_PLACEHOLDER = re.compile(r"\{(event\.[^{}]*)\}")

_FIELDS: dict[str, Callable[[Message], str | None]] = {
    "id": lambda m: m.event.id,
    "received_at": lambda m: rfc3339(m.event.received_at),
    "event_time": lambda m: None if m.event.event_time is None else rfc3339(m.event.event_time),
    "source": lambda m: m.event.source,
    "content_type": lambda m: m.event.content_type,
    "key": lambda m: _text(m.event.key),
    "partition": lambda m: str(m.position.partition),
    "offset": lambda m: str(m.position.offset),
}
FIELDS = (*_FIELDS, "collection", "header.NAME", "metadata.NAME")
"""What may stand behind ``event.``."""

Fill = Callable[[Message], str | None]
"""Answers the value for an event; None where the event lacks something that stands in it."""


def template(text: str, collection: CollectionId) -> Fill | None:
    """Answer what fills in the value; None for one that is the same for every event.

    Raises `BadRequest` for a placeholder that there is not.
    """
    pieces = _PLACEHOLDER.split(text)
    if len(pieces) == 1:
        return None
    # Every second piece was in braces.
    made = [
        _field(piece.removeprefix("event."), collection) if number % 2 else _always(piece)
        for number, piece in enumerate(pieces)
    ]

    def fill(message: Message) -> str | None:
        values = [one(message) for one in made]
        return None if None in values else "".join(value for value in values if value is not None)

    return fill


def _field(name: str, collection: CollectionId) -> Fill:
    if name in _FIELDS:
        return _FIELDS[name]
    if name == "collection":
        return _always(str(collection))
    kind, dot, key = name.partition(".")
    if dot and key and kind == "header":
        lower = key.lower()
        return lambda m: next((_text(v) for n, v in m.event.headers if n.lower() == lower), None)
    if dot and key and kind == "metadata":
        return lambda m: m.event.metadata.get(key)
    raise BadRequest(
        "a header's value names something that an event does not have; behind event. there may "
        f"be {', '.join(FIELDS)}"
    )


def _always(text: str) -> Fill:
    return lambda _: text


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
