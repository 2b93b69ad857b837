"""A slow reading of payloads: which leaves a row has no more, and which it should not have.

It is written from the words of the promise alone and shares no code with what it checks: Python's
own JSON parser, its own paths, its own mapping of column names.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import pyarrow as pa


class Number(NamedTuple):
    """A number by its exact value, however it was spelt."""

    value: Decimal


Scalar = str | bool | Number
BagOfLeaves = Counter[tuple[str, Scalar]]


def leaves_of(value: object, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves_of(item, (*keys, key))
    elif isinstance(value, list):
        for item in value:
            yield from leaves_of(item, keys)
    elif isinstance(value, str | bool | Number):
        yield path(keys), value


def path(keys: tuple[str, ...]) -> str:
    return ".".join("".join(f"\\{c}" if c in '. :"\\' else c for c in key) for key in keys)


def parsed(text: bytes | str) -> object:
    def number(text: str) -> Number:
        return Number(Decimal(text))

    return json.loads(text, parse_int=number, parse_float=number)


def key_of(column: str) -> str:
    return "" if column == "%00" else column.replace("%2E", ".").replace("%25", "%")


def stored(value: object, kind: pa.DataType, keys: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Answer path, value and type of each value that a row has in its columns."""
    if value is None:
        return
    if pa.types.is_struct(kind):
        for field in kind:
            yield from stored(value[field.name], field.type, (*keys, key_of(field.name)))
    elif pa.types.is_list(kind):
        for item in value:
            yield from stored(item, kind.value_type, keys)
    else:
        yield path(keys), value, kind


def missing_and_made_up(row: dict, data: pa.DataType) -> tuple[BagOfLeaves, BagOfLeaves]:
    """Compare a row with its payload: leaves it has no more, and those it should not have."""
    sent: BagOfLeaves = Counter(leaves_of(parsed(row["payload"])))
    kept: BagOfLeaves = Counter()
    doubles = []
    for where, value, kind in stored(row.get("data"), data):
        if pa.types.is_floating(kind):
            doubles.append((where, value))
        elif pa.types.is_integer(kind):
            kept[where, Number(Decimal(value))] += 1
        else:
            kept[where, value] += 1
    for misfit in row["misfits"] or []:
        kept[misfit["path"], parsed(misfit["value"])] += 1
    missing, made_up = sent - kept, kept - sent
    for where, value in doubles:
        # A double stands for any number that is written as it: the nearest is kept.
        same = next((leaf for leaf in missing if is_number(leaf, where, value)), None)
        if same is None:
            made_up[where, Number(Decimal(value))] += 1
        else:
            missing -= Counter([same])
    return missing, made_up


def is_number(leaf: tuple[str, Scalar], where: str, double: float) -> bool:
    return leaf[0] == where and isinstance(leaf[1], Number) and float(leaf[1].value) == double


def rows_data_type(rows: pa.Table) -> pa.DataType:
    return rows.schema.field("data").type if "data" in rows.schema.names else pa.struct([])
