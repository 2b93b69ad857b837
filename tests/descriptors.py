"""A descriptor set as compilers make them, and payloads of its messages."""

from __future__ import annotations

from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

Field = descriptor_pb2.FieldDescriptorProto
_WELL_KNOWN = (any_pb2, duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)

SCALARS = {
    "double": Field.TYPE_DOUBLE,
    "float": Field.TYPE_FLOAT,
    "int64": Field.TYPE_INT64,
    "uint64": Field.TYPE_UINT64,
    "int32": Field.TYPE_INT32,
    "fixed64": Field.TYPE_FIXED64,
    "fixed32": Field.TYPE_FIXED32,
    "bool": Field.TYPE_BOOL,
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
    "uint32": Field.TYPE_UINT32,
    "sfixed32": Field.TYPE_SFIXED32,
    "sfixed64": Field.TYPE_SFIXED64,
    "sint32": Field.TYPE_SINT32,
    "sint64": Field.TYPE_SINT64,
}


def _field(
    message: descriptor_pb2.DescriptorProto,
    number: int,
    name: str,
    kind: str,
    *,
    repeated: bool = False,
    optional: bool = False,
    oneof: int | None = None,
) -> None:
    field = message.field.add(name=name, number=number)
    field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type = Field.TYPE_ENUM if kind.endswith("State") else Field.TYPE_MESSAGE
        field.type_name = f".{kind}"
    if oneof is not None:
        field.oneof_index = oneof
    if optional:
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")
        field.proto3_optional = True


def _map(
    message: descriptor_pb2.DescriptorProto, number: int, name: str, key: str, value: str, of: str
) -> None:
    entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
    entry.options.map_entry = True
    _field(entry, 1, "key", key)
    _field(entry, 2, "value", value)
    _field(message, number, name, f"{of}.{entry.name}", repeated=True)


def _shop() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.extend(f"google/protobuf/{name}.proto" for name in _NEEDED)
    state = file.enum_type.add(name="State")
    for number, name in enumerate(("STATE_UNSPECIFIED", "PAID", "SENT")):
        state.value.add(name=name, number=number)
    item = file.message_type.add(name="Item")
    _field(item, 1, "sku", "string")
    _field(item, 2, "price", "double")
    _field(item, 3, "parts", "shop.Item", repeated=True)
    order = file.message_type.add(name="Order")
    order.oneof_decl.add(name="payment")
    _field(order, 1, "id", "int64")
    _field(order, 2, "total", "double")
    _field(order, 3, "weight", "float")
    _field(order, 4, "state", "shop.State")
    _field(order, 5, "items", "shop.Item", repeated=True)
    _field(order, 6, "first", "shop.Item")
    _field(order, 7, "tags", "string", repeated=True)
    _field(order, 8, "hash", "uint64")
    _field(order, 9, "blob", "bytes")
    _field(order, 10, "gift", "bool")
    _field(order, 11, "card", "string", oneof=0)
    _field(order, 12, "invoice", "int32", oneof=0)
    _map(order, 14, "labels", "string", "double", "shop.Order")
    _map(order, 15, "flags", "bool", "shop.Item", "shop.Order")
    _field(order, 16, "at", "google.protobuf.Timestamp")
    _field(order, 17, "took", "google.protobuf.Duration")
    _field(order, 18, "extra", "google.protobuf.Struct")
    _field(order, 19, "limit", "google.protobuf.Int64Value")
    _field(order, 20, "any", "google.protobuf.Any")
    _field(order, 21, "sizes", "double", repeated=True)
    _field(order, 22, "states", "shop.State", repeated=True)
    _field(order, 13, "note", "string", optional=True)
    return file


_NEEDED = ("any", "duration", "struct", "timestamp", "wrappers")


def _old() -> descriptor_pb2.FileDescriptorProto:
    """Answer a file of proto2, where every field has presence."""
    file = descriptor_pb2.FileDescriptorProto(name="old.proto", package="old", syntax="proto2")
    state = file.enum_type.add(name="State")
    state.value.add(name="ON", number=1)
    thing = file.message_type.add(name="Thing")
    thing.extension_range.add(start=100, end=200)
    _field(thing, 1, "name", "string")
    _field(thing, 2, "count", "int64")
    thing.field[1].default_value = "7"
    _field(thing, 3, "state", "old.State")
    must = thing.field.add(name="must", number=4, type=Field.TYPE_BOOL)
    must.label = Field.LABEL_REQUIRED
    group = thing.nested_type.add(name="Box")
    _field(group, 1, "size", "int32")
    box = thing.field.add(name="box", number=5, type=Field.TYPE_GROUP, type_name=".old.Thing.Box")
    box.label = Field.LABEL_OPTIONAL
    extension = file.extension.add(name="colour", number=100, type=Field.TYPE_STRING)
    extension.label = Field.LABEL_OPTIONAL
    extension.extendee = ".old.Thing"
    return file


def _bus() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="bus.proto", package="bus", syntax="proto3")
    envelope = file.message_type.add(name="Envelope")
    _field(envelope, 1, "topic", "string")
    _field(envelope, 2, "body", "bytes")
    return file


def _wide(fields: int) -> descriptor_pb2.FileDescriptorProto:
    """Answer a message whose lists hold messages with many fields."""
    file = descriptor_pb2.FileDescriptorProto(name="wide.proto", package="wide", syntax="proto3")
    row = file.message_type.add(name="Row")
    for number in range(1, fields + 1):
        _field(row, number, f"field_{number}", "int64")
    table = file.message_type.add(name="Table")
    _field(table, 1, "rows", "wide.Row", repeated=True)
    return file


def descriptor_set(*, well_known: bool = True) -> descriptor_pb2.FileDescriptorSet:
    """Answer the set, in an order in which no file is after those that it imports."""
    found = descriptor_pb2.FileDescriptorSet(file=[_shop(), _old(), _bus(), _wide(300)])
    if well_known:
        for module in _WELL_KNOWN:
            file = found.file.add()
            module.DESCRIPTOR.CopyToProto(file)
    return found


SHOP = descriptor_set().SerializeToString()


def _classes(*names: str) -> list[Any]:
    """Answer the classes of messages of the set, made apart from what is tested."""
    pool = descriptor_pool.DescriptorPool()
    for module in _WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in (_shop(), _old(), _bus(), _wide(300)):
        pool.AddSerializedFile(file.SerializeToString())
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names]


Order, Item, Thing, Envelope = _classes("shop.Order", "shop.Item", "old.Thing", "bus.Envelope")


def order(**fields: Any) -> bytes:
    """Answer an order on the wire."""
    payload: bytes = Order(**fields).SerializeToString()
    return payload
