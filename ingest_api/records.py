"""What becomes of each record type of the gRPC contract: records in, events out.

`MAPPINGS` is the whole of it. The rules that hold for every type:

- The payload is the record's body, byte for byte; text is its UTF-8 bytes.
- A string that is empty, a number that is 0 and a flag that is false are the same as an absent one
  on this wire, so they are left out. The one exception is a position (Kafka's partition and
  offset), where 0 is a value like any other.
- A null Kafka key or value cannot be told from an empty one: an empty key is read as none, an empty
  value as an empty payload.
- The sender's time becomes `event_time`. Its number is also kept in the metadata, under the
  field's own name, where microseconds since 1970 cannot say it all (fractions of a microsecond,
  times out of range).
- A map of the sender's own goes to the metadata entry by entry. The names listed in `MAPPINGS` mean
  the record's fields and nothing else: an entry with such a name, with a name that begins with
  ``penstock_``, or with one that begins with the name of a map and a dot, is kept as
  ``<map>.<name>``.
- A record over the size limit, and one that a replay brings back to the collection it was taken
  from, is accepted with the wish for quarantine, and the metadata says ``penstock_reason:
  too_large`` or ``loop``: an error would make relays drop the whole batch. It is no loop any more:
  what is in quarantine is not replayed.
- The event's id is the ``penstock-event-id`` among the record's headers (of a generic record: its
  metadata); else it is made of the coordinates that `MAPPINGS` names, so that a record which a
  relay sends again is known again. Where one of them is missing, the door gives the id. A topic
  that was created anew counts from 0 again: the time of the record is part of such an id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from ingest_api.accept import ORIGIN
from ingest_api.headers import EVENT_ID
from ingest_api.ids import LONGEST_ID
from ingest_api.times import micros_of
from penstock.envelope import Event, Micros

REASON = "penstock_reason"
TOO_LARGE = "too_large"
LOOP = "loop"

Headers = tuple[tuple[str, bytes], ...]

_EVENT_ID = EVENT_ID.decode()


def _in_order(headers: Any) -> Headers:
    """Kafka and AMQP: a list, in which a name may occur twice."""
    return tuple((header.key, header.value.encode()) for header in headers)


def _by_name(headers: Mapping[str, str]) -> Headers:
    """Azure and Pub/Sub: a map, which has no order; by name, equal maps are equal rows."""
    return tuple((name, headers[name].encode()) for name in sorted(headers))


def _attributes(attributes: Mapping[str, Any]) -> Headers:
    """SQS: text or bytes; where a sender set both, the name stands twice, text first."""
    found: list[tuple[str, bytes]] = []
    for name in sorted(attributes):
        text, data = attributes[name].stringvalue, attributes[name].binaryvalue
        if text or not data:
            found.append((name, text.encode()))
        if data:
            found.append((name, data))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordMapping:
    """Where the fields of a record type go; a field of a nested message is written with a dot."""

    source: str
    """What the event's `source` says."""
    payload: str
    time: str = "timestamp"
    key: str | None = None
    content_type: str | None = None
    headers: tuple[str, Callable[[Any], Headers]] | None = None
    """The field, and how its type of header is read."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Name in the metadata -> field."""
    positions: frozenset[str] = frozenset()
    """Names that are in the metadata also when they are 0."""
    maps: tuple[str, ...] = ()
    """Maps of which every entry goes to the metadata under its own name; of typed attributes the
    types do, as ``<map>.<name>``."""
    identity: tuple[str, ...] = ()
    """Names in the metadata that together say which record it is, sent once or again."""
    dated: bool = False
    """Whether the record's time has to be known for that, too."""


MAPPINGS: Mapping[str, RecordMapping] = {
    "GenericRecord": RecordMapping(
        source="grpc",
        payload="body",
        metadata={"source": "source"},
        maps=("metadata",),
    ),
    "KafkaSinkRecord": RecordMapping(
        source="kafka",
        payload="value",
        key="key",
        headers=("headers", _in_order),
        metadata={"topic": "topic", "partition": "partition", "offset": "offset"},
        positions=frozenset({"partition", "offset"}),
        identity=("topic", "partition", "offset"),
        dated=True,
    ),
    "AMQPSinkRecord": RecordMapping(
        source="rabbitmq",
        payload="body",
        content_type="content_type",
        headers=("headers", _in_order),
        metadata={
            "exchange": "exchange",
            "routing_key": "routing_key",
            "message_id": "message_id",
            "correlation_id": "correlation_id",
            "reply_to": "reply_to",
            "type": "type",
            "content_encoding": "content_encoding",
            "priority": "priority",
            "expiration": "expiration",
            "user_id": "user_id",
            "app_id": "app_id",
        },
        # Queues are not told of. Who sets a message id sets it for the place it publishes to.
        identity=("exchange", "routing_key", "message_id"),
    ),
    "SQSRecord": RecordMapping(
        source="sqs",
        payload="body",
        headers=("messageattributes", _attributes),
        metadata={"message_id": "messageid", "receipt_handle": "receipt"},
        maps=("attributes", "messageattributes"),
        identity=("message_id",),
    ),
    "AzureSinkRecord": RecordMapping(
        source="azure",
        payload="data",
        time="system_properties.enqueued_time",
        key="system_properties.partition_key",
        content_type="content_type",
        headers=("user_properties", _by_name),
        metadata={
            "message_id": "id",
            "correlation_id": "correlation_id",
            "session_id": "session_id",
            "group_sequence": "group_sequence",
            "label": "label",
            "to": "to",
            "reply_to": "reply_to",
            "reply_to_group_id": "reply_to_group_id",
            "delivery_count": "delivery_count",
            "ttl": "ttl",
            "lock_token": "lock_token",
            "format": "format",
            "sequence_number": "system_properties.sequence_number",
            "partition_id": "system_properties.partition_id",
            "via_partition_key": "system_properties.via_partition_key",
            "locked_until": "system_properties.locked_until",
            "scheduled_enqueue_time": "system_properties.scheduled_enqueue_time",
            "enqueued_sequence_number": "system_properties.enqueued_sequence_number",
            "dead_letter_source": "system_properties.dead_letter_source",
        },
        maps=("system_properties.annotations",),
        identity=("message_id",),
    ),
    # Pub/Sub promises order among messages of one ordering key, which is what a key is for.
    "GCPRecord": RecordMapping(
        source="gcp",
        payload="data",
        time="publish_time",
        key="ordering_key",
        headers=("attributes", _by_name),
        metadata={"message_id": "id", "delivery_attempt": "delivery_attempt"},
        identity=("message_id",),
    ),
    "RedisRecord": RecordMapping(
        source="redis",
        payload="payload",
        metadata={"channel": "channel"},
    ),
    # `key` names a field of the stream's entry. As the event's key it would send a stream whose
    # entries all have the same field to one partition.
    "RedisStreamsRecord": RecordMapping(
        source="redis_streams",
        payload="value",
        metadata={"stream": "stream", "message_id": "id", "key": "key"},
        identity=("stream", "message_id", "key"),
    ),
    "MQTTRecord": RecordMapping(
        source="mqtt",
        payload="value",
        metadata={
            "topic": "topic",
            "packet_id": "id",
            "qos": "qos",
            "duplicate": "duplicate",
            "retained": "retained",
        },
    ),
    "NSQRecord": RecordMapping(
        source="nsq",
        payload="value",
        metadata={
            "topic": "topic",
            "channel": "channel",
            "message_id": "id",
            "attempts": "attempts",
            "nsqd_address": "nsqd_address",
        },
        identity=("topic", "message_id"),
    ),
    "KubeMQRecord": RecordMapping(
        source="kubemq",
        payload="value",
        metadata={
            "channel": "channel",
            "message_id": "id",
            "sequence": "sequence",
            "client_id": "client_id",
        },
        identity=("channel", "message_id"),
    ),
    "NATSRecord": RecordMapping(
        source="nats",
        payload="value",
        metadata={"subject": "subject"},
    ),
    "NATSStreamingRecord": RecordMapping(
        source="nats_streaming",
        payload="value",
        metadata={
            "channel": "channel",
            "subject": "subject",
            "sequence": "sequence",
            "redelivered": "redelivered",
            "redelivery_count": "redelivery_count",
            "crc32": "crc32",
        },
        identity=("channel", "sequence"),
        dated=True,
    ),
    "NATSJetStreamRecord": RecordMapping(
        source="nats_jetstream",
        payload="value",
        metadata={"stream": "stream"},
    ),
}
"""Record type -> where its fields go. `force_dead_letter` is `quarantine` in all of them."""


def events_of(
    records: Iterable[Any],
    mapping: RecordMapping,
    *,
    ids: Sequence[str],
    received_at: Micros,
    limit: int,
    not_from: str | None,
) -> list[Event]:
    """Answer one event for each record, in order.

    `limit` is the largest payload in bytes, `not_from` the collection whose own events a replay
    must not bring back, None if it may. Events whose metadata is the same share it. Needs as many
    ids as there are records.
    """
    # The cost of a record is the number of fields read from it: each is read once, by C.
    fields = attrgetter(
        mapping.payload, mapping.time, "force_dead_letter", *mapping.metadata.values()
    )
    key_of = attrgetter(mapping.key) if mapping.key else None
    type_of = attrgetter(mapping.content_type) if mapping.content_type else None
    headers_of = _header_reader(mapping)
    maps_of = [attrgetter(path) for path in mapping.maps]
    entries_of = _entry_reader(mapping)
    identity_of = _identity_reader(mapping)
    raw_time = _last(mapping.time)

    shared: dict[str, str] = {}
    seen: list[Any] = []
    events = []
    for event_id, record in zip(ids, records, strict=True):
        body, number, wish, *values = fields(record)
        payload = body if isinstance(body, bytes) else body.encode()
        if values != seen:
            seen = values
            shared = _named(mapping, values)

        metadata = shared
        event_time = None
        if number:
            event_time = micros_of(number)
            # It says it all unless it cut something off: only nanoseconds become a smaller number.
            if event_time is None or (
                abs(event_time) < abs(number) and event_time * 1_000 != number
            ):
                metadata = {**metadata, raw_time: str(number)}
        for map_of in maps_of:
            if map_of(record):
                metadata = {**metadata, **entries_of(record)}
                break
        headers = headers_of(record) if headers_of else ()
        given = _given_id(headers, metadata) or identity_of(values, number)
        reason = None
        if len(payload) > limit:
            reason = TOO_LARGE
        elif (headers or ORIGIN in metadata) and replayed_from(not_from, headers, metadata):
            reason = LOOP
        if reason:
            wish = True
            metadata = {**metadata, REASON: reason}

        events.append(
            Event(
                id=given or event_id,
                named=given is not None,
                received_at=received_at,
                payload=payload,
                source=mapping.source,
                content_type=(type_of(record) or None) if type_of else None,
                key=_key(key_of(record)) if key_of else None,
                headers=headers,
                metadata=metadata,
                event_time=event_time,
                quarantine=wish,
            )
        )
    return events


def replayed_from(collection: str | None, headers: Headers, metadata: Mapping[str, str]) -> bool:
    """Say whether a replay took the event from this collection; from None, no event is.

    Generic records have no headers: whoever passes on a replayed event that way puts them into
    the metadata.
    """
    if collection is None:
        return False
    value = collection.encode()
    return metadata.get(ORIGIN) == collection or ORIGIN in [
        name.lower() for name, given in headers if given == value
    ]


def _named(mapping: RecordMapping, values: Sequence[Any]) -> dict[str, str]:
    """Answer the metadata of a record's own fields."""
    return {
        name: "true" if value is True else str(value)
        for name, value in zip(mapping.metadata, values, strict=True)
        if value or name in mapping.positions
    }


def _key(value: str | bytes) -> bytes | None:
    return (value.encode() if isinstance(value, str) else value) or None


def _given_id(headers: Headers, metadata: Mapping[str, str]) -> str | None:
    """Answer the id that came with a record, None without one that can be kept."""
    if not headers and _EVENT_ID not in metadata:
        return None
    given = metadata.get(_EVENT_ID)
    for name, value in headers:
        if name.lower() == _EVENT_ID:
            given = value.decode("utf-8", "replace")
            break
    return given if given and len(given) <= LONGEST_ID else None


def _identity_reader(
    mapping: RecordMapping,
) -> Callable[[Sequence[Any], int], str | None]:
    """Answer what makes an id of a record's own fields and its time; None where some are missing.

    Another record has another id, and the same one sent again has the same.
    """
    if not mapping.identity:
        return lambda _values, _time: None
    names = list(mapping.metadata)
    places = [(names.index(name), name in mapping.positions) for name in mapping.identity]

    def identity(values: Sequence[Any], time: int) -> str | None:
        if mapping.dated and not time:
            return None
        parts = [mapping.source]
        for place, may_be_zero in places:
            value = values[place]
            if not value and not may_be_zero:
                return None
            parts.append(str(value).replace("%", "%25").replace("/", "%2F"))
        if mapping.dated:
            parts.append(str(time))
        made = "/".join(parts)
        return made if len(made) <= LONGEST_ID else None

    return identity


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _header_reader(mapping: RecordMapping) -> Callable[[Any], Headers] | None:
    if mapping.headers is None:
        return None
    path, read = mapping.headers
    field_of = attrgetter(path)
    return lambda record: read(found) if (found := field_of(record)) else ()


def _entry_reader(mapping: RecordMapping) -> Callable[[Any], dict[str, str]]:
    """Answer what reads the sender's own maps into metadata."""
    maps = [(_last(path), attrgetter(path)) for path in mapping.maps]
    taken = {*mapping.metadata, _last(mapping.time)}
    kept_apart = ("penstock_", *(f"{prefix}." for prefix, _ in maps))

    def entries(record: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for prefix, map_of in maps:
            for name, value in map_of(record).items():
                if not isinstance(value, str):
                    # A typed attribute: its value is among the headers, what is left is its type.
                    if value.datatype:
                        found[f"{prefix}.{name}"] = value.datatype
                elif name in taken or name.startswith(kept_apart):
                    found[f"{prefix}.{name}"] = value
                else:
                    found[name] = value
        return found

    return entries


# Field 1 of every request, `repeated … records = 1`, begins with this byte and a length; the length
# has seven bits a byte, the lowest first, and the eighth bit says that more follow.
_RECORD = 0x0A
_MORE = 0x80
_LONGEST_SHIFT = 63


def pieces(request: bytes, size: int, most: int) -> Iterator[bytes]:
    """Cut a serialised request of more than `size` bytes between its records.

    Each piece ends with the record that fills `size` or is the `most`-th. A piece is a serialised
    request itself; joined they are the request. From the first byte on that begins no record (an
    unknown field, or damage) the rest is one piece: whoever parses it decides.
    """
    end = len(request)
    start = at = count = 0
    while end - start > size and at < end and request[at] == _RECORD:
        length = shift = 0
        byte = _MORE
        while byte & _MORE and at + 1 < end and shift <= _LONGEST_SHIFT:
            at += 1
            byte = request[at]
            length |= (byte & ~_MORE) << shift
            shift += 7
        at += 1 + length
        count += 1
        if at - start >= size or count == most:
            yield request[start:at]
            start, count = at, 0
    if start < end:
        yield request[start:]
