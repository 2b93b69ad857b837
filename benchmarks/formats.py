"""`python -m benchmarks.formats`: what one event costs to convert, by the format it comes in.

The same orders, with 20 leaves in four objects, as JSON, Protobuf and Avro, through landing's own
conversion. CPU time of one thread, so that a busy machine disturbs it less.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import fastavro
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from penstock.codec import Gathering, encode
from penstock.envelope import Event
from penstock.schema.convert import Rules, convert
from penstock.schema.formats.avro import Avro
from penstock.schema.formats.protobuf import Protobuf
from penstock.schema.shape import EMPTY

EVENTS, RUNS = 5_000, 5
NOON = 1_764_000_000_000_000

ITEM = {
    "type": "record",
    "name": "Item",
    "fields": [
        {"name": "sku", "type": "string"},
        {"name": "price", "type": "double"},
        {"name": "count", "type": "long"},
        {"name": "gift", "type": "boolean"},
    ],
}
ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "total", "type": "double"},
        {"name": "city", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "note", "type": ["null", "string"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "items", "type": {"type": "array", "items": ITEM}},
    ],
}


def orders() -> Iterator[dict[str, Any]]:
    """Answer orders that differ in their numbers."""
    for number in range(EVENTS):
        items = [
            {"sku": f"sku-{number % 97}", "price": 1.25 * each, "count": each, "gift": each > 1}
            for each in range(1, 4)
        ]
        yield {
            "id": number,
            "total": number / 4,
            "city": "Ulm",
            "at": NOON + number,
            "note": "leave it at the door",
            "tags": ["a", "b", "c"],
            "items": items,
        }


def descriptors() -> bytes:
    """Answer the same as a descriptor set."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="o.proto", package="o", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    item, order = (file.message_type.add(name=name) for name in ("Item", "Order"))
    for number, (name, kind) in enumerate(
        (
            ("sku", kinds.TYPE_STRING),
            ("price", kinds.TYPE_DOUBLE),
            ("count", kinds.TYPE_INT64),
            ("gift", kinds.TYPE_BOOL),
        ),
        1,
    ):
        item.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    for number, (name, kind, of) in enumerate(
        (
            ("id", kinds.TYPE_INT64, ""),
            ("total", kinds.TYPE_DOUBLE, ""),
            ("city", kinds.TYPE_STRING, ""),
            ("at", kinds.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
            ("note", kinds.TYPE_STRING, ""),
            ("tags", kinds.TYPE_STRING, ""),
            ("items", kinds.TYPE_MESSAGE, ".o.Item"),
        ),
        1,
    ):
        many = kinds.LABEL_REPEATED if name in ("tags", "items") else kinds.LABEL_OPTIONAL
        order.field.add(name=name, number=number, type=kind, label=many, type_name=of or None)
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def payloads(name: str) -> Iterator[bytes]:
    """Answer the orders in a format."""
    if name == "avro":
        schema = fastavro.parse_schema(ORDER)
        for order in orders():
            written = io.BytesIO()
            fastavro.schemaless_writer(written, schema, order)
            yield written.getvalue()
    elif name == "protobuf":
        from google.protobuf import timestamp_pb2

        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
        (file,) = descriptor_pb2.FileDescriptorSet.FromString(descriptors()).file
        pool.Add(file)
        made = message_factory.GetMessageClass(pool.FindMessageTypeByName("o.Order"))
        for order in orders():
            message = made(**{key: value for key, value in order.items() if key != "at"})
            message.at.FromMicroseconds(order["at"])
            yield message.SerializeToString()
    else:
        for order in orders():
            at = f"2025-11-24T16:00:00.{order['id']:06}Z"
            yield json.dumps({**order, "at": at}).encode()


def measured(name: str) -> tuple[int, float]:
    """Answer the bytes of a payload, and the microseconds of CPU that one takes."""
    decoder = {
        "json": lambda: None,
        "protobuf": lambda: Protobuf(descriptors(), message="o.Order"),
        "avro": lambda: Avro([json.dumps(ORDER)]),
    }[name]()
    events = [
        Event(
            id=str(number),
            received_at=NOON,
            payload=payload,
            source="http",
            content_type="application/json" if decoder is None else None,
            key=None,
            headers=(),
            metadata={},
            event_time=None,
            quarantine=False,
            named=False,
        )
        for number, payload in enumerate(payloads(name))
    ]
    gathering = Gathering()
    gathering.add(encode(events), 0, 0, len(events))
    batch = gathering.batch("log", 0)
    rules = Rules(decoder=decoder)
    shape = convert(batch.slice(0, 100), EMPTY, rules).shape
    best = float("inf")
    for _ in range(RUNS):
        started = time.process_time()
        found = convert(batch, shape, rules)
        best = min(best, time.process_time() - started)
        if found.rows.num_rows != EVENTS or found.shape != shape:
            raise RuntimeError(f"{name} is not converted as it should be")
    return len(events[0].payload), best / EVENTS * 1e6


def main() -> None:
    """Measure and print."""
    for name in ("json", "protobuf", "avro"):
        size, micros = measured(name)
        print(f"{name:<9} {size:>4} bytes {micros:6.1f} us an event", flush=True)


if __name__ == "__main__":
    main()
