"""Records of the gRPC contract for tests, made from their descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from ingest_api.proto import services_pb2

SERVICE = services_pb2.DESCRIPTOR.services_by_name["GRPCCollector"]

METHOD_OF: dict[str, str] = {
    method.input_type.fields_by_name["records"].message_type.name: method.name
    for method in SERVICE.methods
    if method.input_type.fields
}
"""Record type -> the method that takes it."""

RECORDS: dict[str, type[Message]] = {
    method.input_type.fields_by_name["records"].message_type.name: GetMessageClass(
        method.input_type.fields_by_name["records"].message_type
    )
    for method in SERVICE.methods
    if method.input_type.fields
}
"""Record type -> its class."""

_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def request(kind: str, records: list[Any]) -> Any:
    """Answer the request that carries these records."""
    method = SERVICE.methods_by_name[METHOD_OF[kind]]
    return GetMessageClass(method.input_type)(records=records)


def is_map(field: FieldDescriptor) -> bool:
    """Say whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def paths(descriptor: Descriptor) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Answer the way to every field that holds values, through the messages that hold those."""
    for field in descriptor.fields:
        if field.message_type is None or field.is_repeated:
            yield (field,)
        else:
            yield from ((field, *rest) for rest in paths(field.message_type))


def put(record: Any, path: tuple[FieldDescriptor, ...], value: Any) -> None:
    """Set the field at the end of the path, in place of what it held."""
    *outer, field = path
    for step in outer:
        record = getattr(record, step.name)
    record.ClearField(field.name)
    if not field.is_repeated:
        setattr(record, field.name, value)
    elif not is_map(field):
        getattr(record, field.name).extend(value)
    elif field.message_type.fields_by_name["value"].message_type is None:
        getattr(record, field.name).update(value)
    else:
        for name, entry in value.items():
            getattr(record, field.name)[name].CopyFrom(entry)


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Answer what a field may hold on the wire, its default included."""
    if is_map(field):
        entry = field.message_type.fields_by_name
        return st.dictionaries(st.text(max_size=8), values(entry["value"]), max_size=3)
    if field.is_repeated:
        return st.lists(messages(field.message_type), max_size=3)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_STRING:
            text = field.type == FieldDescriptor.TYPE_STRING
            return st.text(max_size=20) if text else st.binary(max_size=20)
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return messages(field.message_type)
        case number:
            return st.integers(*_NUMBERS[number])


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Any:
    """Answer messages of a type, any of their fields set to anything."""
    message = GetMessageClass(descriptor)()
    for path in paths(descriptor):
        if draw(st.booleans()):
            put(message, path, draw(values(path[-1])))
    return message
