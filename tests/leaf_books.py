"""What a row keeps of its payload, leaf by leaf, for tests that write rows anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
from lakes import MAIN
from msgspec import Raw

from lakehouse import Lake
from lakehouse.columns import arrow_schema
from lakehouse.parquet import read
from penstock.schema.gate import value_of
from penstock.schema.leaves import leaves
from penstock.schema.names import join, key_of

Leaves = Counter[tuple[str, str, Any]]


def table_rows(lake: Lake, snapshot: int | None = None) -> tuple[list[dict[str, Any]], pa.Schema]:
    """Answer all rows in the order of the log, as the files of the newest schema have them."""
    table = lake.table(MAIN)
    assert table is not None
    schema = arrow_schema(table.schema())
    found: list[dict[str, Any]] = []
    for task in table.scan(snapshot_id=snapshot).plan_files():
        with table.io.new_input(task.file.file_path).open() as stream:
            found += read(stream, schema).to_pylist(maps_as_pydicts="strict")
    return sorted(found, key=lambda row: (row["log_partition"], row["log_offset"])), schema


def unbalanced(lake: Lake) -> list[bytes]:
    """Answer the payloads whose leaves are not just those in `data` and `misfits`."""
    rows, schema = table_rows(lake)
    data = schema.field("data").type if "data" in schema.names else pa.struct([])
    return [row["payload"] for row in rows if not _balanced(row, data)]


def _balanced(row: dict[str, Any], data: pa.DataType) -> bool:
    sent: Leaves = Counter()
    for path, scalar in leaves(value_of(row["payload"])):
        sent[_leaf(path, scalar)] += 1
    for misfit in row["misfits"] or ():
        sent[_leaf(misfit["path"], value_of(misfit["value"].encode()))] -= 1
    for path, value, kind in _stored(row.get("data"), data, None):
        if not pa.types.is_floating(kind):
            sent[_leaf(path, value)] -= 1
            continue
        # A double stands for any number that is written as it: the nearest is kept.
        same = [
            one
            for one in sent
            if sent[one] > 0 and one[:2] == (path, "number") and float(one[2]) == value
        ]
        sent[same[0] if same else (path, "number", value)] -= 1
    return all(count == 0 for count in sent.values())


def _leaf(path: str, scalar: Any) -> tuple[str, str, Any]:
    if isinstance(scalar, bool | str):
        return path, type(scalar).__name__, scalar
    return path, "number", Decimal(bytes(scalar).decode() if isinstance(scalar, Raw) else scalar)


def _stored(value: Any, kind: pa.DataType, path: str | None) -> Iterator[tuple[str, Any, Any]]:
    if value is None:
        return
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _stored(value[field.name], field.type, join(path, key_of(field.name)))
    elif pa.types.is_list(kind):
        for item in value:
            yield from _stored(item, kind.value_type, path)
    else:
        yield path or "", value, kind
