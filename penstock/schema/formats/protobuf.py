"""Protobuf: messages of a descriptor set that somebody uploaded, as JSON.

No code is generated. A decoder has a pool of its own, so collections cannot see each other's
messages, and what is not in the set is not there: nothing is looked for on the disk.

How a message becomes JSON is told in ``docs/reference/formats.md``. It is protobuf's own JSON but
for what columns need: names as in the ``.proto``, integers as numbers, and fields without presence
are always there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from penstock.errors import BadRequest
from penstock.schema.formats import Decoded
from penstock.schema.formats.texts import (
    BESIDE,
    SECOND,
    Texts,
    Walk,
    base64_of,
    double,
    fraction,
    moment,
    single,
    too_many,
)
from penstock.schema.gate import Refused

LONGEST_SET = 700_000
"""Bytes of a descriptor set without comments and positions; a body of the API has 1 MiB."""

_MOST_MEMORY = 512 << 20
_FIELD_BYTES, _MESSAGE_BYTES = 16, 64
"""What a message takes in memory at most: for each field it may have, and by itself."""

_NAMES_TOLD = 10

_WELL_KNOWN = {
    file.name: file
    for file in (
        module.DESCRIPTOR
        for module in (
            any_pb2,
            duration_pb2,
            empty_pb2,
            field_mask_pb2,
            struct_pb2,
            timestamp_pb2,
            wrappers_pb2,
        )
    )
}
"""Files that compilers know by heart; a set made without ``--include_imports`` lacks them."""

_WRAPPERS = frozenset(wrappers_pb2.DESCRIPTOR.message_types_by_name)


class Protobuf:
    """Decodes one message of a descriptor set, and another one inside of it where asked."""

    def __init__(
        self,
        descriptors: bytes,
        *,
        message: str,
        payload_field: int | None = None,
        payload_message: str | None = None,
    ) -> None:
        """Take a serialised ``FileDescriptorSet``, and the full name of the payloads' message.

        With `payload_field` that field, of bytes, is decoded as `payload_message`. Raises
        `BadRequest` for a set that is broken, lacks something, or has no such message or field.
        """
        plans = _Plans(_pool_of(descriptors), _messages_of(descriptors))
        self._plan = plans.named(message)
        if payload_field is not None and payload_message is not None:
            self._plan = _Envelope(self._plan, plans, payload_field, plans.named(payload_message))
        self._texts = Texts(self._value, Walk)

    def decode(self, payloads: pa.Array, *, most_text: int | None = None) -> Decoded:
        """Answer what becomes of each payload; see `Decoder`."""
        return self._texts.of(payloads, most_text=most_text)

    def _value(self, payload: bytes, walk: Walk) -> object:
        return self._plan.value(self._plan.parse(payload), walk)


def without_comments(descriptors: bytes) -> bytes:
    """Answer a descriptor set without comments and positions, which nothing here needs.

    Raises `BadRequest` for what is no descriptor set, or has more than `LONGEST_SET` bytes.
    """
    found = _read_set(descriptors)
    for file in found.file:
        file.ClearField("source_code_info")
    bare = found.SerializeToString(deterministic=True)
    if len(bare) > LONGEST_SET:
        raise BadRequest(
            f"the descriptor set has {len(bare):,} bytes without comments, of {LONGEST_SET:,} "
            "at most; leave out files that the message does not import"
        )
    return bare


def _read_set(descriptors: bytes) -> descriptor_pb2.FileDescriptorSet:
    try:
        found = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    except DecodeError:
        raise BadRequest("these bytes are no descriptor set (FileDescriptorSet)") from None
    if not found.file:
        raise BadRequest("the descriptor set is empty")
    return found


def _messages_of(descriptors: bytes) -> list[str]:
    """Answer the full names of the messages at the top of each file."""
    return [
        f"{file.package}.{message.name}".lstrip(".")
        for file in _read_set(descriptors).file
        for message in file.message_type
    ]


def _pool_of(descriptors: bytes) -> descriptor_pool.DescriptorPool:
    """Answer a pool of the files of a set, each after those that it imports."""
    files = {file.name: file.SerializeToString() for file in _read_set(descriptors).file}
    needs = {file.name: list(file.dependency) for file in _read_set(descriptors).file}
    pool = descriptor_pool.DescriptorPool()
    done: set[str] = set()
    for name in list(needs):
        # Not by recursion: a set may have thousands of files that import each other in a row.
        waiting = [name]
        begun: set[str] = set()
        while waiting:
            here = waiting[-1]
            if here not in files:
                if here not in _WELL_KNOWN:
                    raise BadRequest(
                        f"the descriptor set lacks the file {here!r}; make it with "
                        "--include_imports"
                    )
                files[here] = _WELL_KNOWN[here].serialized_pb
                needs[here] = [file.name for file in _WELL_KNOWN[here].dependencies]
            missing = [file for file in needs[here] if file not in done]
            if here in done:
                waiting.pop()
            elif not missing:
                _add(pool, here, files[here])
                done.add(waiting.pop())
            elif here in begun:
                raise BadRequest(f"the file {here!r} of the descriptor set imports itself")
            else:
                begun.add(here)
                waiting += missing
    return pool


def _add(pool: descriptor_pool.DescriptorPool, name: str, file: bytes) -> None:
    try:
        pool.AddSerializedFile(file)
    except (TypeError, ValueError) as error:
        reason = str(error).rpartition("pool: ")[2][:300]
        raise BadRequest(
            f"the file {name!r} of the descriptor set cannot be used: {reason}"
        ) from None


_Make = Callable[[Any, Walk], Any]


class _Plans:
    """The plans of a pool, each made when it is first needed."""

    def __init__(self, pool: descriptor_pool.DescriptorPool, names: Sequence[str]) -> None:
        self._pool = pool
        self._names = names
        self._made: dict[str, _Plan] = {}

    def named(self, name: str) -> _Plan:
        """Answer the plan of a message; raise `BadRequest` if the set has none of that name."""
        found = self.find(name)
        if found is None:
            some = ", ".join(self._names[:_NAMES_TOLD])
            more = ", …" if len(self._names) > _NAMES_TOLD else ""
            raise BadRequest(
                f"there is no message {name!r} in the descriptor set, which has {some}{more}"
            )
        return found

    def find(self, name: str) -> _Plan | None:
        try:
            return self.of(self._pool.FindMessageTypeByName(name))
        except KeyError:
            return None

    def of(self, kind: Descriptor) -> _Plan:
        plan = self._made.get(kind.full_name)
        if plan is None:
            plan = self._made[kind.full_name] = _Plan(kind, self)
        return plan


class _Plan:
    """How the messages of one type become JSON."""

    def __init__(self, kind: Descriptor, plans: _Plans) -> None:
        self.name = kind.full_name
        self.descriptor = kind
        self._plans = plans
        self._class: type[Message] = message_factory.GetMessageClass(kind)
        self._fields: dict[int, tuple[str, _Make]] = {}
        self._template = {
            field.name: _nothing(field)
            for field in kind.fields
            if not field.has_presence and not field.is_repeated
        }
        self._weight = 1 + len(self._template)
        self.size = _MESSAGE_BYTES + _FIELD_BYTES * len(kind.fields)

    def parse(self, payload: bytes) -> Message:
        """Answer the message of these bytes; raise `Refused`."""
        # Two bytes are enough for a message inside of this one.
        if len(payload) // 2 * self._heaviest > _MOST_MEMORY:
            weight = _weigh(payload, 0, len(payload), self, 0)
            if weight > _MOST_MEMORY:
                raise too_many()
        try:
            return self._class.FromString(payload)
        except DecodeError:
            raise Refused("not_protobuf", f"the bytes are no {self.name}") from None

    def value(self, message: Any, walk: Walk) -> dict[Any, Any]:
        """Answer the message as a JSON object, not settled yet if the walk is strange."""
        walk.spend(self._weight)
        made: dict[Any, Any] = self._template.copy()
        for field, value in message.ListFields():
            number = field.number
            known = self._fields.get(number)
            if known is None:
                known = self._fields[number] = _field(field, self._plans)
            made[known[0]] = known[1](value, walk)
        unknown = UnknownFieldSet(message)
        if len(unknown):
            walk.strange = True
            made[BESIDE] = _unknown_of(unknown)
        return made

    def below(self, number: int) -> _Plan | None:
        """Answer the plan of the messages in a field, None if there are none in it."""
        field = self.descriptor.fields_by_number.get(number)
        kind = None if field is None else field.message_type
        return None if kind is None else self._plans.of(kind)

    @cached_property
    def _heaviest(self) -> int:
        """The size of the largest message that may stand anywhere inside of this one."""
        seen: dict[str, Descriptor] = {}
        waiting = [self.descriptor]
        most = 0
        while waiting:
            for field in waiting.pop().fields:
                kind = field.message_type
                if kind is not None and kind.full_name not in seen:
                    seen[kind.full_name] = kind
                    waiting.append(kind)
                    most = max(most, _MESSAGE_BYTES + _FIELD_BYTES * len(kind.fields))
        return most


class _Envelope(_Plan):
    """How messages become JSON that have another one as the bytes of a field."""

    def __init__(self, plan: _Plan, plans: _Plans, number: int, inner: _Plan) -> None:
        super().__init__(plan.descriptor, plans)
        field = self.descriptor.fields_by_number.get(number)
        if field is None:
            raise BadRequest(f"{self.name} has no field {number}")
        if field.type != FieldDescriptor.TYPE_BYTES or field.is_repeated:
            raise BadRequest(f"the field {number} of {self.name} does not hold bytes")
        self._key = field.name
        self._inner = inner
        self._always = self._template.pop(field.name, None) is not None
        self._fields[number] = (field.name, self._decoded)

    def value(self, message: Any, walk: Walk) -> dict[Any, Any]:
        """Answer the envelope with the decoded message in the place of its bytes."""
        made = super().value(message, walk)
        if self._always and self._key not in made:
            # No bytes are a message, too: one of which everything has its default.
            made[self._key] = self._decoded(b"", walk)
        return made

    def _decoded(self, payload: bytes, walk: Walk) -> dict[Any, Any]:
        return self._inner.value(self._inner.parse(payload), walk)


def _field(field: FieldDescriptor, plans: _Plans) -> tuple[str, _Make]:
    """Answer the key of a field, and what makes JSON of its value."""
    key = f"[{field.full_name}]" if field.is_extension else field.name
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        item = _single(kind.fields_by_number[2], plans)
        return key, lambda value, walk: _map(value, item, walk)
    single = _single(field, plans)
    if not field.is_repeated:
        return key, single
    return key, lambda values, walk: _list(values, single, walk)


def _map(values: Mapping[Any, Any], item: _Make, walk: Walk) -> dict[str, Any]:
    walk.spend(len(values))
    return {_map_key(key): item(values[key], walk) for key in values}


def _map_key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _list(values: Any, single: _Make, walk: Walk) -> list[Any]:
    walk.spend(len(values))
    return [single(value, walk) for value in values]


def _single(field: FieldDescriptor, plans: _Plans) -> _Make:
    if field.message_type is not None:
        return _message(field.message_type, plans)
    match field.type:
        case FieldDescriptor.TYPE_DOUBLE:
            return double
        case FieldDescriptor.TYPE_FLOAT:
            return single
        case FieldDescriptor.TYPE_STRING:
            return _string
        case FieldDescriptor.TYPE_BYTES:
            return _bytes
        case FieldDescriptor.TYPE_ENUM:
            return _enum(field.enum_type)
        case _:
            return _as_it_is


def _nothing(field: FieldDescriptor) -> object:
    """Answer what a field without presence is where nothing was sent for it."""
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            return False
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_BYTES:
            return ""
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return 0.0
        case FieldDescriptor.TYPE_ENUM:
            return _names(field.enum_type).get(0, 0)
        case _:
            return 0


def _as_it_is(value: Any, _: Walk) -> Any:
    return value


def _string(value: str | bytes, walk: Walk) -> object:
    if isinstance(value, str):
        return value
    # In proto2 nobody checks that a string is UTF-8.
    return walk.odd(str, {"base64": base64_of(value)})


def _bytes(value: bytes, _: Walk) -> str:
    return base64_of(value)


def _enum(kind: EnumDescriptor | None) -> _Make:
    names = _names(kind)

    def make(value: int, walk: Walk) -> object:
        name = names.get(value)
        return walk.odd(str, value) if name is None else name

    return make


def _names(kind: EnumDescriptor | None) -> dict[int, str]:
    """Answer the names of numbers; of several names of one number the first."""
    names: dict[int, str] = {}
    for value in () if kind is None else kind.values:
        names.setdefault(value.number, value.name)
    return names


def _message(kind: Descriptor, plans: _Plans) -> _Make:
    """Answer what makes JSON of a message, in a way of its own for the well-known types."""
    plan = plans.of(kind)
    if not _is_well_known(kind):
        return plan.value
    match kind.name:
        case "Timestamp":
            return lambda value, walk: _timestamp(value, plan, walk)
        case "Duration":
            return lambda value, walk: _duration(value, plan, walk)
        case "FieldMask":
            return lambda value, walk: _list(value.paths, _as_it_is, walk)
        case "Struct" | "ListValue":
            (field,) = kind.fields
            make = _field(field, plans)[1]
            return lambda value, walk: make(getattr(value, field.name), walk)
        case "Value":
            return lambda value, walk: _any_value(value, plan, walk)
        case "Any":
            return lambda value, walk: _any(value, plans, walk)
        case name if name in _WRAPPERS:
            wrapped = _single(kind.fields_by_number[1], plans)
            return lambda value, walk: wrapped(value.value, walk)
        case _:
            return plan.value


def _is_well_known(kind: Descriptor) -> bool:
    """Say whether a message is the one that everybody means by its name.

    Whoever makes a descriptor set chooses its names, and what is below them.
    """
    for file in _WELL_KNOWN.values():
        real = file.message_types_by_name.get(kind.name)
        if real is not None and real.full_name == kind.full_name:
            return _signature(real) == _signature(kind)
    return False


def _signature(kind: Descriptor) -> list[tuple[object, ...]]:
    return [
        (
            field.number,
            field.name,
            field.type,
            field.is_repeated,
            field.message_type is not None and field.message_type.full_name,
        )
        for field in kind.fields
    ]


def _timestamp(value: Any, plan: _Plan, walk: Walk) -> object:
    text = moment(value.seconds, value.nanos) if 0 <= value.nanos < SECOND else None
    return walk.odd(str, plan.value(value, walk)) if text is None else f"{text}Z"


def _duration(value: Any, plan: _Plan, walk: Walk) -> object:
    seconds, nanos = value.seconds, value.nanos
    if abs(nanos) >= SECOND or seconds * nanos < 0:
        return walk.odd(str, plan.value(value, walk))
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{fraction(abs(nanos))}s"


def _any_value(value: Any, plan: _Plan, walk: Walk) -> object:
    """Answer what a ``google.protobuf.Value`` holds; a number of it is a double."""
    for name, made in plan.value(value, walk).items():
        if name is not BESIDE:
            return None if name == "null_value" else made
    return None


def _any(value: Any, plans: _Plans, walk: Walk) -> dict[Any, Any]:
    """Answer the message of an Any, or its bytes where it is none of the descriptor set."""
    plan = plans.find(value.type_url.rpartition("/")[2])
    if plan is not None:
        try:
            message = plan.parse(value.value)
        except Refused:
            pass
        else:
            made = _message(plan.descriptor, plans)(message, walk)
            inside = made if isinstance(made, dict) else {"value": made}
            return {"@type": value.type_url, **inside}
    return {"@type": value.type_url, "value": base64_of(value.value)}


def _unknown_of(unknown: UnknownFieldSet) -> Iterator[tuple[str, object]]:
    """Answer the unknown fields of a message by number: integers, texts in base64, objects."""
    for field in map(unknown.__getitem__, range(len(unknown))):
        data: Any = field.data
        if isinstance(data, bytes):
            data = base64_of(data)
        elif isinstance(data, UnknownFieldSet):
            groups: dict[str, list[object]] = {}
            for number, inside in _unknown_of(data):
                groups.setdefault(number, []).append(inside)
            data = groups
        yield str(field.field_number), data


_VARINT, _FIXED64, _SIZED, _BEGIN, _END, _FIXED32 = range(6)
_DEEPEST = 100
# Of a byte of a varint, the bit that says that another one follows; 64 bits are all it can have.
_MORE, _LONGEST_SHIFT = 128, 63


def _weigh(data: bytes, at: int, end: int, plan: _Plan | None, depth: int) -> int:
    """Answer how much memory a message takes, roughly and rather too much, without parsing it.

    What is malformed is weighed up to there: parsing will say so.
    """
    weight = plan.size if plan is not None else 0
    groups: list[_Plan | None] = []
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        below = plan.below(number) if plan is not None else None
        if wire == _VARINT:
            _, at = _varint(data, at, end)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _SIZED:
            size, at = _varint(data, at, end)
            if below is not None and depth < _DEEPEST:
                weight += _weigh(data, at, min(end, at + size), below, depth + 1)
            at += size
        elif wire == _BEGIN and len(groups) < _DEEPEST:
            groups.append(plan)
            plan = below
            weight += below.size if below is not None else 0
        elif wire == _END and groups:
            plan = groups.pop()
        else:
            break
    return weight


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Answer the integer there, and where it ends; behind the end, if it does not end before."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < _MORE or shift > _LONGEST_SHIFT:
            return value, at
        shift += 7
    return value, end
