"""Avro: payloads of schemas that somebody uploaded, or that a registry knows, as JSON.

Readers that others wrote follow whatever the bytes say: down any depth, which ends the process,
and along lists of nothing that have no end. This one counts, and says at which byte it stopped.

A payload is read by the schema it was written with and named as the newest one names things; what
only one of the two has is not left out. How types become JSON is told in
``docs/reference/formats.md``.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from fractions import Fraction
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import msgspec
import pyarrow as pa
from msgspec import Raw

from penstock.errors import BadRequest
from penstock.schema.formats import Decoded
from penstock.schema.formats.avro_schema import (
    LONGEST_SCHEMA,
    MOST_DIGITS,
    Field,
    Schema,
    fingerprint,
    parse,
)
from penstock.schema.formats.texts import (
    SECOND,
    Enough,
    Texts,
    Walk,
    base64_of,
    double,
    fraction,
    moment,
    single,
    too_deep,
    too_many,
)
from penstock.schema.gate import Refused
from penstock.vocabulary import Framing

MOST_VERSIONS = 100
LONGEST_SCHEMAS = 700_000
"""Bytes of all versions together; the oldest are left out where they have more."""

_DEEPEST = 100
_CONTAINER = b"Obj\x01"
_SINGLE = b"\xc3\x01"
_SINGLE_HEAD = 10
_WIRE = b"\x00"
_WIRE_HEAD = 5

# What one batch may ask of a registry before it is cut.
_MOST_ASKED, _ASKING_SECONDS = 200, 5.0
_MOST_KNOWN = 4_096

# Keys, symbols and defaults take room in the text that no byte of the payload pays for.
_FREE_TEXT = 64


class Schemas(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection of Avro keeps by its format's digest."""

    versions: tuple[str, ...] = ()
    """Schemas as JSON, the newest last."""
    secret_id: str | None = None
    """Which secret of the collection the registry asks for; of chance, and no hint at it."""


def schemas_of(body: bytes | None) -> Schemas:
    """Answer what a collection keeps; nothing where it keeps nothing."""
    return Schemas() if body is None else msgspec.json.decode(body, type=Schemas)


def with_version(known: Schemas, schema: str) -> Schemas:
    """Answer the schemas with this one as the newest; it is there once.

    The oldest are left out where there are too many. Raises `BadRequest` for what is no schema.
    """
    parse(schema)
    text = msgspec.json.format(schema, indent=-1)
    versions = [version for version in known.versions if version != text][1 - MOST_VERSIONS :]
    size = len(text)
    kept = [text]
    for version in reversed(versions):
        size += len(version)
        if size > LONGEST_SCHEMAS:
            break
        kept.insert(0, version)
    return msgspec.structs.replace(known, versions=tuple(kept))


class RegisteredSchema(msgspec.Struct, frozen=True, kw_only=True):
    """A schema as a registry has it."""

    schema: str
    kind: str = "AVRO"
    references: tuple[str, ...] = ()
    """The schemas that it uses types of, each after those that it uses itself."""


class Registered(Protocol):
    """The schemas of a registry."""

    def schema(self, number: int) -> RegisteredSchema | None:
        """Answer the schema with this id, None where the registry has none.

        Raises `EngineUnavailable` where nobody can say it now, and `Refused` where that was waited
        for long enough.
        """
        ...


class Avro:
    """Decodes payloads of one framing."""

    def __init__(
        self,
        versions: Sequence[str],
        *,
        framing: Framing = "datum",
        registered: Registered | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the schemas, the newest last, and where others are known where that is a registry.

        Raises `BadRequest` for a schema that cannot be used.
        """
        schemas = [parse(version) for version in versions]
        self.newest = schemas[-1] if schemas else None
        self._framing = framing
        self._registered = registered
        self._steady = steady
        self.registry_plans: dict[bytes, _Read] = {}
        plans = _Plans()
        self._plans = [plans.of(schema, self.newest) for schema in reversed(schemas)]
        if not schemas and framing != "confluent":
            raise BadRequest("avro needs a schema (.avsc), or the address of a registry")
        self._by_print = {
            fingerprint(schema): plan
            for schema, plan in zip(schemas, reversed(self._plans), strict=True)
        }

    def decode(self, payloads: pa.Array, *, most_text: int | None = None) -> Decoded:
        """Answer what becomes of each payload; see `Decoder`.

        Raises `EngineUnavailable` where a schema is needed that cannot be had now.
        """
        value: Callable[[bytes, _Cursor], object]
        match self._framing:
            case "datum":
                value = self._datum
            case "single-object":
                value = self._single
            case "confluent":
                most = _MOST_ASKED if most_text is not None else None
                value = _Learning(self, self._registered, most, self._steady).value
        return Texts(value, _Cursor).of(payloads, most_text=most_text)

    def _datum(self, payload: bytes, cursor: _Cursor) -> object:
        """Answer the value by the newest schema that reads all of the payload and nothing else."""
        try:
            return _whole(self._plans[0], payload, 0, cursor)
        except Refused as why:
            if why.reason != "not_avro":
                raise
            for plan in self._plans[1:]:
                try:
                    return _whole(plan, payload, 0, cursor)
                except Refused as again:
                    if again.reason != "not_avro":
                        raise
            raise _container(payload) or why from None

    def _single(self, payload: bytes, cursor: _Cursor) -> object:
        if payload[:2] != _SINGLE or len(payload) < _SINGLE_HEAD:
            raise _container(payload) or _malformed("it does not begin with C3 01", 0)
        plan = self._by_print.get(payload[2:_SINGLE_HEAD])
        if plan is None:
            shown = payload[_SINGLE_HEAD - 1 : 1 : -1].hex()
            raise Refused(
                "unknown_schema", f"no version of the schema has the fingerprint {shown} (byte 2)"
            )
        return _whole(plan, payload, _SINGLE_HEAD, cursor)


class _Learning:
    """Decodes what names schemas of a registry, and asks for those that are new."""

    def __init__(
        self,
        avro: Avro,
        registered: Registered | None,
        most: int | None,
        steady: Callable[[], float],
    ) -> None:
        self._avro = avro
        self._known = avro.registry_plans
        self._registered = registered
        self._most = most
        self._steady = steady
        self._asked = 0
        self._since = 0.0
        self._refused: dict[bytes, Refused] = {}

    def value(self, payload: bytes, cursor: _Cursor) -> object:
        """Answer the value of one payload."""
        if payload[:1] != _WIRE or len(payload) < _WIRE_HEAD:
            raise _container(payload) or _malformed("it does not begin with 00 and a schema id", 0)
        key = payload[1:_WIRE_HEAD]
        plan = self._known.get(key) or self._learn(key)
        return _whole(plan, payload, _WIRE_HEAD, cursor)

    def _learn(self, key: bytes) -> _Read:
        known = self._refused.get(key)
        if known is not None:
            raise known.with_traceback(None)
        if self._asked == 0:
            self._since = self._steady()
        elif self._most is not None and (
            self._asked >= self._most or self._steady() - self._since > _ASKING_SECONDS
        ):
            raise Enough
        self._asked += 1
        try:
            plan = self._plan(int.from_bytes(key, "big"))
        except Refused as why:
            self._refused[key] = why
            raise
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[key] = plan
        return plan

    def _plan(self, number: int) -> _Read:
        if self._registered is None:
            raise Refused("unknown_schema", f"no registry knows the schema {number} (byte 1)")
        found = self._registered.schema(number)
        if found is None:
            raise Refused("unknown_schema", f"the registry has no schema {number} (byte 1)")
        if found.kind != "AVRO":
            raise Refused("unknown_schema", f"the schema {number} is {found.kind:.20}, not Avro")
        try:
            named: dict[str, Schema] = {}
            for reference in found.references:
                parse(reference, named)
            return _Plans().of(parse(found.schema, named), self._avro.newest)
        except BadRequest as why:
            raise Refused(
                "unknown_schema", f"the schema {number} cannot be used: {why!s:.300}"
            ) from None


class _Cursor(Walk):
    """Where in the bytes of one payload its decoding is."""

    __slots__ = ("at", "data", "depth")

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.at = 0
        self.depth = 0

    def take(self, size: int) -> bytes:
        """Answer so many bytes."""
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise _malformed(f"{size:,} bytes should follow", self.at)
        found = self.data[self.at : end]
        self.at = end
        return found

    def down(self) -> None:
        """Note that a level begins."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise too_deep()


_Read = Callable[[_Cursor], Any]


def _whole(read: _Read, payload: bytes, start: int, cursor: _Cursor) -> object:
    """Answer the value that is all of a payload, behind its head."""
    # What was spent before stays spent: a payload may be tried with many schemas.
    cursor.data, cursor.at, cursor.depth = payload, start, 0
    cursor.strange = False
    cursor.hints.clear()
    try:
        value = read(cursor)
    except IndexError:
        raise _malformed("the bytes end too early", len(payload)) from None
    left = len(payload) - cursor.at
    if left:
        raise _malformed(f"{left:,} bytes are left over", cursor.at)
    return value


def _malformed(what: str, at: int) -> Refused:
    return Refused("not_avro", f"the payload is not of the schema: {what} (byte {at})")


def _container(payload: bytes) -> Refused | None:
    if not payload.startswith(_CONTAINER):
        return None
    return Refused(
        "not_avro", "it is an object container file; send each of its objects as an event (byte 0)"
    )


class _Plans:
    """What reads the values of schemas, made once for each pair of writer's and reader's."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], _Read] = {}
        # The keys are addresses, so nothing may take them in the meantime.
        self._held: list[Schema | None] = []

    def of(self, writer: Schema, reader: Schema | None) -> _Read:
        """Answer what reads the writer's values and names them as the reader does."""
        try:
            return self._of(writer, reader)
        except RecursionError:
            raise BadRequest("the schema is nested too deep") from None

    def _of(self, writer: Schema, reader: Schema | None) -> _Read:
        if writer.kind == "union":
            return _union([self._of(branch, reader) for branch in writer.of])
        reader = _counterpart(writer, reader)
        if writer.kind == "record":
            return self._record(writer, reader)
        inside = None if reader is None or not reader.of else reader.of[0]
        match writer.kind:
            case "array":
                return _array(self._of(writer.of[0], inside))
            case "map":
                return _map(self._of(writer.of[0], inside))
            case "enum":
                return _enum(writer.symbols)
            case "fixed":
                return _bytes_of(writer, reader, lambda c: c.take(writer.size))
            case "bytes":
                return _bytes_of(writer, reader, lambda c: c.take(_long(c)))
            case "string":
                return _string if reader is None or reader.kind == "string" else _string_as_bytes
            case "int" | "long":
                return _number(writer, reader)
            case _:
                return _SCALARS[writer.kind]

    def _record(self, writer: Schema, reader: Schema | None) -> _Read:
        known = self._made.get((id(writer), id(reader)))
        if known is not None:
            return known
        fields: list[tuple[str, _Read]] = []
        names = [field.name for field in writer.fields]
        read = _record(fields, names + ([] if reader is None else [f.name for f in reader.fields]))
        # Known before its fields are: one of them may hold the record itself.
        self._made[id(writer), id(reader)] = read
        self._held += (writer, reader)
        theirs = {} if reader is None else _counterparts(names, reader.fields)
        for field in writer.fields:
            its = theirs.get(field.name)
            key, kind = (field.name, None) if its is None else (its.name, its.kind)
            fields.append((key, self._of(field.kind, kind)))
        taken = {its.name for its in theirs.values()}
        fields += (
            (its.name, self._default(its))
            for its in (() if reader is None else reader.fields)
            if its.name not in taken and its.has_default and its.default is not None
        )
        return read

    def _default(self, field: Field) -> _Read:
        """Answer what a field is that was not written: its default is read like a payload."""
        try:
            data = b"".join(_Default().of(field.kind, field.default))
        except (_NoFit, RecursionError):
            raise BadRequest(f"the default of {field.name!r:.300} is none of its type") from None
        read = self._of(field.kind, field.kind)
        weight = len(data) // _FREE_TEXT

        def default(c: _Cursor) -> Any:
            c.spend(1 + weight)
            before, c.data, at, c.at = c.data, data, c.at, 0
            value = read(c)
            c.data, c.at = before, at
            return value

        return default


def _counterpart(writer: Schema, reader: Schema | None) -> Schema | None:
    """Answer what of the reader's the writer's values are read as, None for themselves."""
    if reader is None:
        return None
    if reader.kind != "union":
        return reader if _matches(writer, reader) else None
    if writer.name:
        for alike in (_same_name, _same_last_name):
            for branch in reader.of:
                if branch.kind == writer.kind and alike(writer, branch):
                    return branch
        return None
    for alike in (lambda one, other: one.kind == other.kind, _matches):
        for branch in reader.of:
            if alike(writer, branch):
                return branch
    return None


def _same_name(writer: Schema, reader: Schema) -> bool:
    return writer.name == reader.name or writer.name in reader.aliases


def _same_last_name(writer: Schema, reader: Schema) -> bool:
    last = writer.name.rpartition(".")[2]
    return any(last == name.rpartition(".")[2] for name in (reader.name, *reader.aliases))


_PROMOTED = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def _matches(writer: Schema, reader: Schema) -> bool:
    return writer.kind == reader.kind or reader.kind in _PROMOTED.get(writer.kind, ())


def _counterparts(names: Iterable[str], fields: Sequence[Field]) -> Mapping[str, Field]:
    """Answer the reader's field for each of the writer's that it has, by name, then by alias."""
    written = set(names)
    found = {field.name: field for field in fields if field.name in written}
    for field in fields:
        if field.name not in written:
            for alias in field.aliases:
                if alias in written and alias not in found:
                    found[alias] = field
                    break
    return found


def _record(fields: list[tuple[str, _Read]], keys: Sequence[str]) -> _Read:
    weight = 1 + max(len(keys), sum(map(len, keys)) // _FREE_TEXT)

    def record(c: _Cursor) -> Any:
        c.left -= weight
        if c.left < 0:
            raise too_many()
        c.down()
        made = {}
        for key, read in fields:
            value = read(c)
            if value is not None:
                made[key] = value
        c.depth -= 1
        return made

    return record


def _union(branches: Sequence[_Read]) -> _Read:
    count = len(branches)

    def union(c: _Cursor) -> Any:
        at = c.at
        branch = _long(c)
        if not 0 <= branch < count:
            raise _malformed(f"a union of {count} has no branch {branch}", at)
        return branches[branch](c)

    return union


def _array(read: _Read) -> _Read:
    def array(c: _Cursor) -> Any:
        c.down()
        made: list[Any] = []
        while count := _block(c):
            made += [read(c) for _ in range(count)]
        c.depth -= 1
        return made

    return array


def _map(read: _Read) -> _Read:
    def map_(c: _Cursor) -> Any:
        c.down()
        made = {}
        while count := _block(c):
            for _ in range(count):
                key = _string(c)
                made[key] = read(c)
        c.depth -= 1
        return made

    return map_


def _block(c: _Cursor) -> int:
    """Answer how many items follow; they are paid for before the first of them is read."""
    count = _long(c)
    if count < 0:
        count = -count
        _long(c)
    c.spend(count)
    return count


def _enum(symbols: Sequence[str]) -> _Read:
    weight = max(map(len, symbols)) // _FREE_TEXT
    count = len(symbols)

    def enum(c: _Cursor) -> Any:
        at = c.at
        symbol = _long(c)
        if not 0 <= symbol < count:
            raise _malformed(f"an enum of {count} has no symbol {symbol}", at)
        c.left -= weight
        if c.left < 0:
            raise too_many()
        return symbols[symbol]

    return enum


def _long(c: _Cursor) -> int:
    at = c.at
    byte = c.data[at]
    if byte < _MORE:
        c.at = at + 1
        return (byte >> 1) ^ -(byte & 1)
    value, shift = byte & 127, 7
    while byte >= _MORE:
        at += 1
        byte = c.data[at]
        value |= (byte & 127) << shift
        shift += 7
        if shift > _LONGEST_SHIFT:
            break
    if byte >= _MORE or value > _MOST_UNSIGNED:
        raise _malformed("a number has more than 64 bits", c.at)
    c.at = at + 1
    return (value >> 1) ^ -(value & 1)


# Of a byte of a number, the bit that says that another one follows; ten bytes are the most.
_MORE, _LONGEST_SHIFT = 128, 63
_MOST_UNSIGNED = 2**64 - 1
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1


def _int(c: _Cursor) -> int:
    at = c.at
    value = _long(c)
    if not _INT_MIN <= value <= _INT_MAX:
        raise _malformed("an int has more than 32 bits", at)
    return value


def _boolean(c: _Cursor) -> bool:
    byte = c.data[c.at]
    if byte > 1:
        raise _malformed("a boolean is neither 0 nor 1", c.at)
    c.at += 1
    return byte == 1


def _string(c: _Cursor) -> str:
    at = c.at
    try:
        return c.take(_long(c)).decode()
    except UnicodeDecodeError:
        raise _malformed("a string is no UTF-8", at) from None


def _string_as_bytes(c: _Cursor) -> str:
    return base64_of(c.take(_long(c)))


_DOUBLE, _FLOAT, _DURATION = struct.Struct("<d"), struct.Struct("<f"), struct.Struct("<III")


def _double(c: _Cursor) -> object:
    value: float = _DOUBLE.unpack(c.take(8))[0]
    return value if value - value == 0 else double(value, c)


def _float(c: _Cursor) -> object:
    return single(_FLOAT.unpack(c.take(4))[0], c)


_SCALARS: dict[str, _Read] = {
    "null": lambda _: None,
    "boolean": _boolean,
    "float": _float,
    "double": _double,
}


def _number(writer: Schema, reader: Schema | None) -> _Read:
    read = _int if writer.kind == "int" else _long
    meant = writer.logical or (None if reader is None else reader.logical)
    make = _MEANINGS.get(meant or "")
    if make is not None:
        return lambda c: make(read(c), c)
    if reader is not None and reader.kind in {"float", "double"}:
        return lambda c: _as_double(read(c), c)
    return read


def _as_double(value: int, walk: Walk) -> object:
    made = float(value)
    return made if made == value else walk.odd(Raw, value)


def _date(days: int, walk: Walk) -> object:
    try:
        return date.fromordinal(_FIRST_DAY + days).isoformat()
    except (ValueError, OverflowError):
        return walk.odd(str, days)


_FIRST_DAY = date(1970, 1, 1).toordinal()
_DAY_SECONDS = 86_400


def _time(per_second: int, value: int, walk: Walk) -> object:
    seconds, rest = divmod(value, per_second)
    if not 0 <= seconds < _DAY_SECONDS:
        return walk.odd(str, value)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{clock}{fraction(rest * (SECOND // per_second))}"


def _timestamp(per_second: int, zone: str, value: int, walk: Walk) -> object:
    seconds, rest = divmod(value, per_second)
    text = moment(seconds, rest * (SECOND // per_second))
    return walk.odd(str, value) if text is None else f"{text}{zone}"


_MEANINGS: dict[str, Callable[[int, Walk], object]] = {
    "date": _date,
    "time-millis": partial(_time, 1_000),
    "time-micros": partial(_time, 1_000_000),
    "timestamp-millis": partial(_timestamp, 1_000, "Z"),
    "timestamp-micros": partial(_timestamp, 1_000_000, "Z"),
    "timestamp-nanos": partial(_timestamp, SECOND, "Z"),
    "local-timestamp-millis": partial(_timestamp, 1_000, ""),
    "local-timestamp-micros": partial(_timestamp, 1_000_000, ""),
    "local-timestamp-nanos": partial(_timestamp, SECOND, ""),
}


def _bytes_of(writer: Schema, reader: Schema | None, read: _Read) -> _Read:
    match writer.logical:
        case "decimal":
            return partial(_decimal, read, writer.scale, 10**writer.scale)
        case "uuid":
            return lambda c: str(UUID(bytes=read(c)))
        case "duration":
            return lambda c: dict(zip(_DURATION_PARTS, _DURATION.unpack(read(c)), strict=True))
    if reader is not None and reader.kind == "string":
        return _string
    return lambda c: base64_of(read(c))


_DURATION_PARTS = ("months", "days", "milliseconds")

# A double tells all numbers of 15 digits apart, unless they are as small as a double can be.
_EXACT, _MOST_SCALE = 10**15, 290
_LONGEST_DECIMAL = MOST_DIGITS // 2


def _decimal(read: _Read, scale: int, power: int, walk: _Cursor) -> object:
    """Answer the double that is written as the decimal, else the decimal as text."""
    value = read(walk)
    if len(value) > _LONGEST_DECIMAL:
        return walk.odd(Raw, {"base64": base64_of(value)})
    unscaled = int.from_bytes(value, "big", signed=True)
    if -_EXACT < unscaled < _EXACT and scale <= _MOST_SCALE:
        return unscaled / power
    try:
        made = unscaled / power
    except OverflowError:
        made = 0.0
    if Fraction(repr(made)) == Fraction(unscaled, power):
        return made
    digits = f"{abs(unscaled):0{scale + 1}}"
    point = len(digits) - scale
    text = f"{digits[:point]}.{digits[point:]}" if scale else digits
    return walk.odd(Raw, f"-{text}" if unscaled < 0 else text)


class _NoFit(Exception):
    """The default is none of its type."""


class _Default:
    """Writes a default, as a schema's JSON says it, as a payload has it."""

    def __init__(self) -> None:
        self._left = LONGEST_SCHEMA

    def of(self, schema: Schema, value: Any) -> Iterable[bytes]:
        """Answer the bytes in parts; raise `_NoFit`."""
        self._left -= 1
        if self._left < 0:
            raise _NoFit
        match schema.kind, value:
            case "union", _:
                return self._union(schema, value)
            case "record", dict():
                return self._record(schema, value)
            case "array", list():
                parts = [part for item in value for part in self.of(schema.of[0], item)]
                return [_varint(len(value)), *parts, b"\x00"] if value else [b"\x00"]
            case "map", dict():
                return self._map(schema, value)
            case "enum", str() if value in schema.symbols:
                return [_varint(schema.symbols.index(value))]
            case _:
                return [_scalar(schema, value)]

    def _union(self, schema: Schema, value: Any) -> Iterable[bytes]:
        for number, branch in enumerate(schema.of):
            try:
                return [_varint(number), *self.of(branch, value)]
            except _NoFit:
                continue
        raise _NoFit

    def _record(self, schema: Schema, value: dict[str, Any]) -> Iterable[bytes]:
        parts: list[bytes] = []
        for field in schema.fields:
            if field.name not in value and not field.has_default:
                raise _NoFit
            parts += self.of(field.kind, value.get(field.name, field.default))
        return parts

    def _map(self, schema: Schema, value: dict[str, Any]) -> Iterable[bytes]:
        if not value:
            return [b"\x00"]
        parts = [_varint(len(value))]
        for key, item in value.items():
            parts += (_sized(key.encode()), *self.of(schema.of[0], item))
        return [*parts, b"\x00"]


def _scalar(schema: Schema, value: Any) -> bytes:
    match schema.kind, value:
        case "null", None:
            return b""
        case "boolean", bool():
            return b"\x01" if value else b"\x00"
        case _, bool():
            raise _NoFit
        case "int" | "long", int() if -(2**63) <= value < 2**63:
            return _varint(value)
        case "float" | "double", int() | float():
            try:
                return (_FLOAT if schema.kind == "float" else _DOUBLE).pack(value)
            except (OverflowError, struct.error):
                raise _NoFit from None
        case "string", str():
            return _sized(value.encode())
        case "bytes", str() if not _NOT_BYTES.search(value):
            return _sized(value.encode("latin-1"))
        case "fixed", str() if not _NOT_BYTES.search(value) and len(value) == schema.size:
            return value.encode("latin-1")
        case _:
            raise _NoFit


_NOT_BYTES = re.compile("[^\x00-\xff]")


def _sized(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _varint(value: int) -> bytes:
    left = (value << 1) ^ (value >> 63)
    made = bytearray()
    while left >= _MORE:
        made.append(left & 127 | _MORE)
        left >>= 7
    made.append(left)
    return bytes(made)
