"""Avro schemas: from their JSON to what a decoder needs, and to the fingerprint of each.

A name may be used before and inside of what it names, so schemas are graphs. What a specification
of a logical type leaves open, or gets wrong, leaves the type below it, as Avro has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.errors import BadRequest

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED = frozenset({"record", "enum", "fixed"})

LONGEST_SCHEMA = 500_000
"""Bytes of one schema as JSON."""

MOST_DIGITS = 1_000
"""Digits of a decimal; one that may have more is bytes."""

_MOST_NODES = 20_000
_LONGEST_FIXED = 16 << 20

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_SIZES = {"uuid": 16, "duration": 12}

_LOGICAL = {
    "date": {"int"},
    "time-millis": {"int"},
    "time-micros": {"long"},
    "timestamp-millis": {"long"},
    "timestamp-micros": {"long"},
    "timestamp-nanos": {"long"},
    "local-timestamp-millis": {"long"},
    "local-timestamp-micros": {"long"},
    "local-timestamp-nanos": {"long"},
    "uuid": {"string", "fixed"},
    "decimal": {"bytes", "fixed"},
    "duration": {"fixed"},
}
"""Logical types, and the types that they may stand on."""


@dataclass(slots=True, eq=False)
class Field:
    """A field of a record. `default` is what the schema's JSON says, if `has_default`."""

    name: str
    kind: Schema
    aliases: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = None


@dataclass(slots=True, eq=False)
class Schema:
    """A type of Avro; which of the attributes mean something depends on `kind`."""

    kind: str
    """A primitive type, ``record``, ``enum``, ``fixed``, ``array``, ``map`` or ``union``."""
    name: str = ""
    """The full name of a named type."""
    aliases: tuple[str, ...] = ()
    logical: str | None = None
    scale: int = 0
    size: int = 0
    fields: list[Field] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    of: tuple[Schema, ...] = ()
    """The branches of a union; the one type that an array or a map holds."""


def parse(text: bytes | str, named: dict[str, Schema] | None = None) -> Schema:
    """Answer the schema that a JSON text describes.

    It may use the types in `named`, and its own are added there. Raises `BadRequest` with the
    reason for what is no schema of Avro.
    """
    if len(text) > LONGEST_SCHEMA:
        raise BadRequest(f"the schema has more than {LONGEST_SCHEMA:,} bytes")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the schema is no JSON: {str(error)[:200]}") from None
    try:
        return _Parser({} if named is None else named).of(value, "")
    except RecursionError:
        raise BadRequest("the schema is nested too deep") from None


class _Parser:
    def __init__(self, named: dict[str, Schema]) -> None:
        self._named = named
        self._left = _MOST_NODES

    def of(self, value: Any, space: str) -> Schema:
        """Answer the schema of a JSON value inside of a namespace."""
        self._left -= 1
        if self._left < 0:
            raise BadRequest(f"the schema has more than {_MOST_NODES:,} types")
        if isinstance(value, str):
            return self._by_name(value, space)
        if isinstance(value, list):
            branches = tuple(self.of(branch, space) for branch in value)
            if not branches or any(branch.kind == "union" for branch in branches):
                raise BadRequest("a union has branches, and none of them is a union itself")
            return Schema("union", of=branches)
        if isinstance(value, dict):
            return self._object(value, space)
        raise BadRequest(f"a type is a text, a list or an object, and not {value!r:.40}")

    def _object(self, value: dict[str, Any], space: str) -> Schema:
        kind = value.get("type")
        match kind:
            case "record" | "error":
                return self._record(value, space)
            case "enum":
                return self._enum(value, space)
            case "fixed":
                return self._fixed(value, space)
            case "array":
                return Schema("array", of=(self.of(value.get("items"), space),))
            case "map":
                return Schema("map", of=(self.of(value.get("values"), space),))
            case str() if kind in PRIMITIVES:
                return _logical(Schema(kind), value)
            case str() | dict() | list():
                # ``{"type": "a.Name"}`` and ``{"type": {…}}`` are what stands in them.
                return self.of(kind, space)
            case _:
                raise BadRequest("an object in the schema has no type")

    def _by_name(self, name: str, space: str) -> Schema:
        if name in PRIMITIVES:
            return Schema(name)
        for full in (_full(name, space), name):
            if full in self._named:
                return self._named[full]
        raise BadRequest(f"there is no type {name!r:.300} in the schema before its first use")

    def _new(self, value: dict[str, Any], kind: str, space: str) -> tuple[Schema, str]:
        """Answer a named type that is known from here on, and the namespace inside of it."""
        name = value.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadRequest(f"the name of a {kind} is made of letters, digits and _")
        given = value.get("namespace")
        full = _full(name, given if isinstance(given, str) else space)
        if full in self._named:
            raise BadRequest(f"the type {full!r:.300} is there twice in the schema")
        inside = full.rpartition(".")[0]
        aliases = tuple(_full(alias, inside) for alias in _texts(value, "aliases"))
        made = self._named[full] = Schema(kind, name=full, aliases=aliases)
        return made, inside

    def _record(self, value: dict[str, Any], space: str) -> Schema:
        made, inside = self._new(value, "record", space)
        fields = value.get("fields")
        if not isinstance(fields, list):
            raise BadRequest(f"the record {made.name!r:.300} has no list of fields")
        seen: set[str] = set()
        for each in fields:
            name = each.get("name") if isinstance(each, dict) else None
            if not isinstance(name, str) or not name or name in seen:
                raise BadRequest(f"a field of {made.name!r:.300} has no name of its own")
            seen.add(name)
            try:
                kind = self.of(each.get("type"), inside)
            except BadRequest as why:
                raise BadRequest(f"{name:.100}: {why!s:.500}") from None
            made.fields.append(
                Field(
                    name,
                    kind,
                    aliases=tuple(_texts(each, "aliases")),
                    has_default="default" in each,
                    default=each.get("default"),
                )
            )
        return made

    def _enum(self, value: dict[str, Any], space: str) -> Schema:
        made, _ = self._new(value, "enum", space)
        made.symbols = tuple(_texts(value, "symbols"))
        if not made.symbols or len(set(made.symbols)) < len(made.symbols):
            raise BadRequest(f"the enum {made.name!r:.300} has no symbols, or one of them twice")
        return made

    def _fixed(self, value: dict[str, Any], space: str) -> Schema:
        made, _ = self._new(value, "fixed", space)
        size = _whole(value.get("size"))
        if not 0 <= size <= _LONGEST_FIXED:
            raise BadRequest(f"the fixed {made.name!r:.300} has no size")
        made.size = size
        return _logical(made, value)


def _logical(made: Schema, value: Mapping[str, Any]) -> Schema:
    """Note what the type means, if that is said and makes sense."""
    meant = value.get("logicalType")
    if not isinstance(meant, str) or made.kind not in _LOGICAL.get(meant, ()):
        return made
    if meant == "decimal":
        precision, scale = _whole(value.get("precision")), _whole(value.get("scale", 0))
        if not 0 < precision <= MOST_DIGITS or not 0 <= scale <= precision:
            return made
        made.scale = scale
    if made.kind == "fixed" and made.size != _SIZES.get(meant, made.size):
        return made
    made.logical = meant
    return made


def _whole(value: Any) -> int:
    """Answer an integer, -1 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _full(name: str, space: str) -> str:
    return name if "." in name or not space else f"{space}.{name}"


def _texts(value: Mapping[str, Any], key: str) -> list[str]:
    found = value.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadRequest(f"{key} in the schema is no list of texts")
    return found


def canonical(schema: Schema) -> str:
    """Answer the schema in Avro's parsing canonical form."""
    return "".join(_canonical(schema, set()))


def _canonical(schema: Schema, known: set[str]) -> Iterator[str]:
    match schema.kind:
        case "union":
            yield "["
            for number, branch in enumerate(schema.of):
                yield "," if number else ""
                yield from _canonical(branch, known)
            yield "]"
        case "array" | "map":
            inside = "items" if schema.kind == "array" else "values"
            yield f'{{"type":"{schema.kind}","{inside}":'
            yield from _canonical(schema.of[0], known)
            yield "}"
        case kind if kind not in NAMED:
            yield f'"{kind}"'
        case _ if schema.name in known:
            yield _text(schema.name)
        case kind:
            known.add(schema.name)
            yield f'{{"name":{_text(schema.name)},"type":"{kind}"'
            if kind == "fixed":
                yield f',"size":{schema.size}'
            elif kind == "enum":
                yield f',"symbols":[{",".join(map(_text, schema.symbols))}]'
            else:
                yield ',"fields":['
                for number, each in enumerate(schema.fields):
                    yield f'{"," if number else ""}{{"name":{_text(each.name)},"type":'
                    yield from _canonical(each.kind, known)
                    yield "}"
                yield "]"
            yield "}"


def _text(value: str) -> str:
    return msgspec.json.encode(value).decode()


_EMPTY = 0xC15D213AA4D7A795


def fingerprint(schema: Schema) -> bytes:
    """Answer the 8 bytes by which a single object names its schema (CRC-64-AVRO, little end first).

    They are those of the canonical form.
    """
    found = _EMPTY
    for byte in canonical(schema).encode():
        found = (found >> 8) ^ _TABLE[(found ^ byte) & 0xFF]
    return found.to_bytes(8, "little")


def _table() -> list[int]:
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (_EMPTY & -(value & 1))
        table.append(value)
    return table


_TABLE = _table()
