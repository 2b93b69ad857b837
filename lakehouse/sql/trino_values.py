"""From the values that Trino answers, as JSON has them, to columns of Arrow. Pure.

A column is converted as a whole. The client's own conversion makes a Python object of every time
and number: 100,000 rows of four columns cost 0.72 s of a processor with it, 0.13 s without.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate, chain
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

Signature = dict[str, Any]
"""A type as Trino tells it: `rawType`, and `arguments` of it."""

Values = Sequence[Any]

_WHOLE = {
    "boolean": pa.bool_(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
}
_FRACTIONS = {"real": pa.float32(), "double": pa.float64()}
_MICROS = pa.timestamp("us")
_MICROS_UTC = pa.timestamp("us", tz="UTC")

# "2026-11-26 01:02:03.123456": finer fractions are cut off.
_MICROS_TEXT = 26
_ZONE = " UTC"


def arrow_type(signature: Signature) -> pa.DataType:
    """Answer the type of a column; what Arrow has no type for is text."""
    raw, arguments = signature["rawType"], _arguments(signature)
    match raw:
        case "decimal":
            return pa.decimal128(*arguments)
        case "varbinary":
            return pa.binary()
        case "date":
            return pa.date32()
        case "timestamp":
            return _MICROS
        case "timestamp with time zone":
            return _MICROS_UTC
        case "unknown":
            return pa.null()
        case "array":
            return pa.list_(pa.field("element", arrow_type(arguments[0])))
        case "map":
            return pa.map_(_key_type(arguments[0]), arrow_type(arguments[1]))
        case "row":
            return pa.struct([pa.field(name, arrow_type(inner)) for name, inner in arguments])
    return {**_WHOLE, **_FRACTIONS}.get(raw, pa.string())


def arrow_column(signature: Signature, values: Values) -> pa.Array:
    """Answer a column of these values."""
    raw, kind = signature["rawType"], arrow_type(signature)
    if raw in _FRACTIONS:
        # JSON has no NaN and no infinity: those come as texts.
        return pa.array([float(v) if type(v) is str else v for v in values], kind)
    nested = {"array": _lists, "map": _maps, "row": _rows}.get(raw)
    if nested is not None:
        return nested(signature, values)
    texts = {"decimal": _cast, "date": _cast, "timestamp": _times, "varbinary": _bytes}.get(raw)
    if raw == "timestamp with time zone":
        texts = _zoned
    return texts(values, kind) if texts else pa.array(values, kind)


def _key_type(signature: Signature) -> pa.DataType:
    # Of a map that nothing is in, nobody knows what its keys are; Arrow wants keys that can be.
    return pa.string() if signature["rawType"] == "unknown" else arrow_type(signature)


def _arguments(signature: Signature) -> list[Any]:
    """Answer the numbers of a type, the types inside of it, or its fields with their names."""
    told: list[Any] = []
    for number, argument in enumerate(signature["arguments"]):
        value = argument["value"]
        if argument["kind"] == "NAMED_TYPE":
            name = (value.get("fieldName") or {}).get("name") or f"field{number}"
            told.append((name, value["typeSignature"]))
        else:
            told.append(value)
    return told


def _cast(values: Values, kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.string()).cast(kind)


def _bytes(values: Values, kind: pa.DataType) -> pa.Array:
    return pa.array([None if v is None else a2b_base64(v) for v in values], kind)


def _times(values: Values, kind: pa.DataType) -> pa.Array:
    texts = pc.utf8_slice_codeunits(pa.array(values, pa.string()), 0, _MICROS_TEXT)
    return texts.cast(kind)


def _zoned(values: Values, kind: pa.DataType) -> pa.Array:
    texts = pa.array(values, pa.string())
    if pc.all(pc.ends_with(texts, _ZONE), min_count=0).as_py():
        bare = pc.utf8_slice_codeunits(texts, 0, -len(_ZONE))
        return _times(bare, _MICROS).cast(kind)
    return pa.array([None if v is None else _moment(v) for v in values], kind)


def _moment(text: str) -> datetime:
    """Read a time in any zone, which is named or an offset."""
    written, _, zone = text.rpartition(" ")
    moment = datetime.fromisoformat(written[:_MICROS_TEXT])
    if zone[:1] in "+-":
        return datetime.fromisoformat(f"{moment.isoformat()}{zone}").astimezone(UTC)
    return moment.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _lists(signature: Signature, values: Values) -> pa.Array:
    (element,) = _arguments(signature)
    items = arrow_column(element, _chained(values))
    return pa.ListArray.from_arrays(_offsets(values), items, type=arrow_type(signature))


def _maps(signature: Signature, values: Values) -> pa.Array:
    key, item = _arguments(signature)
    # JSON has texts for keys, whatever they are.
    texts = _chained([None if v is None else list(v) for v in values])
    keys = arrow_column(key, texts) if _is_text(key) else _cast(texts, _key_type(key))
    items = arrow_column(item, _chained([None if v is None else list(v.values()) for v in values]))
    return pa.MapArray.from_arrays(_offsets(values), keys, items, type=arrow_type(signature))


def _rows(signature: Signature, values: Values) -> pa.Array:
    kind = arrow_type(signature)
    columns = [
        arrow_column(inner, [None if v is None else v[place] for v in values])
        for place, (_, inner) in enumerate(_arguments(signature))
    ]
    absent = pa.array([v is None for v in values], pa.bool_())
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=absent)


def _is_text(signature: Signature) -> bool:
    return signature["rawType"] not in {*_WHOLE, *_FRACTIONS, "unknown"}


def _chained(values: Values) -> list[Any]:
    return list(chain.from_iterable(v for v in values if v is not None))


def _offsets(values: Values) -> pa.Array:
    """Answer where each list begins among all items; a list that is NULL begins nowhere."""
    ends = accumulate((0 if v is None else len(v) for v in values), initial=0)
    starts = [None if v is None else end for v, end in zip([*values, ()], ends, strict=True)]
    return pa.array(starts, pa.int32())
