"""From one HTTP body to its events: what frames them is read, what is in them is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ingest_api import cloudevents
from ingest_api.cloudevents import Described
from ingest_api.enveloped import enveloped, senders_metadata
from ingest_api.headers import (
    EVENT_ID,
    EVENT_TIME,
    IDEMPOTENCY_KEY,
    Headers,
    key_of,
    stored,
    text_of,
)
from ingest_api.ids import sender_id
from ingest_api.records import replayed_from
from ingest_api.times import micros_of_text, shown
from penstock.envelope import ENVELOPES, Enveloped, Event, Micros, NewIds
from penstock.errors import Loop, Rejected, TooLarge, TooMany

MOST_EVENTS = 50_000
"""Events in one body: a body of 16 MB of tiny lines would otherwise become gigabytes of objects."""

_NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_LINE_TYPE = "application/json"
_SOURCE = "http"
_BLANKS = b" \t\r"


class Sent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One request, its body with the content coding undone."""

    headers: Headers
    given: Mapping[bytes, bytes]
    content_type: str | None
    body: bytes
    coding: str | None
    received_at: Micros


class Framed(msgspec.Struct, frozen=True, gc=False):
    """The events of a body. `broken` says, by place in the body, which parts are none, and why.

    `lines` are the numbers of the lines that the parts stand on, where the body has lines.
    `batch` says whether the sender reads an outcome for each part.
    """

    events: Sequence[Event]
    batch: bool = False
    broken: Mapping[int, Rejected] = {}
    lines: Sequence[int] | None = None


def frame(
    sent: Sent, new_ids: NewIds, max_event_bytes: int, *, not_from: str | None = None
) -> Framed:
    """Take a body apart as its content type says; raise `Rejected` if that cannot be done at all.

    NDJSON is an event a line, CloudEvents are what that standard says, events with envelopes are
    what those say, everything else (also an empty body, and any content type or none) is one event
    whose payload is the body. A CloudEvent over `max_event_bytes` is not even read; whether other
    events are too large is not asked here. `not_from` is the collection from which no event of a
    batch may have been replayed; None if any may.
    """
    media_type = (sent.content_type or "").partition(";")[0].strip().lower()
    if media_type in _NDJSON:
        return _lines(sent, new_ids)
    if media_type == cloudevents.BATCH:
        return _batch(sent, max_event_bytes)
    if media_type == ENVELOPES:
        return _enveloped(sent, new_ids, max_event_bytes, not_from)
    if media_type == cloudevents.STRUCTURED:
        return Framed([_described(sent, _read(sent.body, max_event_bytes))])
    if cloudevents.BINARY_MARK in sent.given:
        return Framed([_described(sent, cloudevents.described_by_headers(sent.headers))])
    return one_event(sent, new_ids)


def one_event(sent: Sent, new_ids: NewIds) -> Framed:
    """Answer the body as the payload of one event, whatever it is."""
    given = _given_id(sent)
    event = Event(
        id=given or new_ids(1)[0],
        named=bool(given),
        received_at=sent.received_at,
        payload=sent.body,
        source=_SOURCE,
        content_type=sent.content_type,
        key=key_of(sent.given),
        headers=stored(sent.headers, sent.given),
        metadata=_metadata(sent),
        event_time=_event_time(sent),
    )
    return Framed([event])


def split_lines(body: bytes) -> tuple[Sequence[bytes], Sequence[int]]:
    r"""Answer the lines that are not blank, without their ``\n`` or ``\r\n``, and their numbers."""
    if body.count(b"\n") > MOST_EVENTS:
        raise TooMany("body", body.count(b"\n"), MOST_EVENTS)
    lines = body.split(b"\n")
    if b"\r" in body:
        lines = [line.removesuffix(b"\r") for line in lines]
    full = [line for line in lines if line.strip(_BLANKS)]
    # Most bodies have no blank line but the empty end after the last line.
    if full == lines[: len(full)]:
        return full, range(1, len(full) + 1)
    return full, [number for number, line in enumerate(lines, 1) if line.strip(_BLANKS)]


def _lines(sent: Sent, new_ids: NewIds) -> Framed:
    """NDJSON: every line is a payload as it stands. What the request says holds for all of them."""
    lines, numbers = split_lines(sent.body)
    prefix = _given_id(sent)
    ids = new_ids(len(lines)) if prefix is None else [f"{prefix}:{number}" for number in numbers]
    received_at = sent.received_at
    key = key_of(sent.given)
    event_time = _event_time(sent)
    metadata = _metadata(sent)
    events = [
        Event(
            id=id_,
            named=prefix is not None,
            received_at=received_at,
            payload=line,
            source=_SOURCE,
            content_type=_LINE_TYPE,
            key=key,
            metadata=metadata,
            event_time=event_time,
        )
        for id_, line in zip(ids, lines, strict=True)
    ]
    return Framed(events, batch=True, lines=numbers)


def _batch(sent: Sent, max_event_bytes: int) -> Framed:
    """CloudEvents in an array: each element is a structured event of its own."""
    events: list[Event] = []
    broken: dict[int, Rejected] = {}
    key = key_of(sent.given)
    metadata = _metadata(sent)
    for place, document in enumerate(cloudevents.elements(sent.body, most=MOST_EVENTS)):
        try:
            described = _read(document, max_event_bytes)
        except Rejected as error:
            broken[place] = error
            continue
        events.append(
            Event(
                id=described.id,
                named=True,
                received_at=sent.received_at,
                payload=document,
                source=_SOURCE,
                content_type=cloudevents.STRUCTURED,
                key=key,
                metadata={**metadata, **described.metadata},
                event_time=described.event_time,
            )
        )
    return Framed(events, batch=True, broken=broken)


def _enveloped(sent: Sent, new_ids: NewIds, max_event_bytes: int, not_from: str | None) -> Framed:
    """Events that say themselves what they are; a door gives them time, source, and missing ids."""
    events: list[Event] = []
    broken: dict[int, Rejected] = {}
    prefix = _given_id(sent)
    parts = enveloped(sent.body, most=MOST_EVENTS, max_event_bytes=max_event_bytes)
    for place, told in enumerate(parts):
        if not isinstance(told, Enveloped):
            broken[place] = told
            continue
        if not_from is not None and replayed_from(not_from, told.headers, told.metadata):
            broken[place] = Loop(not_from)
            continue
        try:
            given = sender_id(told.id) or (prefix and f"{prefix}:{place + 1}")
        except Rejected as error:
            broken[place] = error
            continue
        events.append(
            Event(
                id=given or new_ids(1)[0],
                named=bool(given),
                received_at=sent.received_at,
                payload=told.payload,
                source=_SOURCE,
                content_type=told.content_type or None,
                key=told.key,
                headers=told.headers,
                metadata=senders_metadata(told.metadata),
                event_time=None if told.event_time is None else shown(told.event_time),
            )
        )
    return Framed(events, batch=True, broken=broken)


def _read(document: bytes, limit: int) -> Described:
    # Taken apart, 16 MB of tiny attributes would be half a gigabyte.
    if len(document) > limit:
        raise TooLarge("event", len(document), limit)
    return cloudevents.described(document)


def _described(sent: Sent, described: Described) -> Event:
    """Answer the body as one event that says about itself what `described` holds."""
    return Event(
        id=described.id,
        named=True,
        received_at=sent.received_at,
        payload=sent.body,
        source=_SOURCE,
        content_type=sent.content_type,
        key=key_of(sent.given),
        headers=stored(sent.headers, sent.given),
        metadata={**_metadata(sent), **described.metadata},
        event_time=described.event_time,
    )


def _given_id(sent: Sent) -> str | None:
    given = text_of(sent.given.get(IDEMPOTENCY_KEY)) or text_of(sent.given.get(EVENT_ID))
    return given and sender_id(given)


def _event_time(sent: Sent) -> Micros | None:
    """Read the time the sender gave; one that cannot be read is no reason to refuse an event."""
    text = text_of(sent.given.get(EVENT_TIME))
    return None if text is None else micros_of_text(text)


def _metadata(sent: Sent) -> dict[str, str]:
    return {} if sent.coding is None else {"content_encoding": sent.coding}
