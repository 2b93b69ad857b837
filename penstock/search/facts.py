"""What only payloads tell, as columns: explicit nulls, lengths of lists, leaves in quarantine.

Reading a payload costs some microseconds. It is done for searches that ask for it, and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from penstock.query import Fact
from penstock.schema.convert import Rules
from penstock.schema.gate import Refused, read, value_of
from penstock.schema.leaves import json_text, leaves
from penstock.schema.names import join
from penstock.schema.rows import MISFITS

_BOUNDS = Rules()

_LENGTHS = pa.list_(pa.struct([pa.field("path", pa.string()), pa.field("length", pa.int64())]))
_TYPES = {Fact.NULLS: pa.list_(pa.string()), Fact.LENGTHS: _LENGTHS}

# What a payload has to contain to tell anything at all: most need not be read.
_SIGNS = {Fact.NULLS: b"null", Fact.LENGTHS: b"["}


def with_facts(batch: pa.RecordBatch, facts: frozenset[Fact]) -> pa.RecordBatch:
    """Answer the batch with a column for each fact."""
    for fact in sorted(facts, key=lambda fact: fact.value):
        tells = [_tells(payload, fact) for payload in batch.column("payload").to_pylist()]
        batch = batch.append_column(fact.value, pa.array(tells, _TYPES[fact]))
    return batch


def with_leaves(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Answer quarantined events with their leaves in a column `misfits`.

    A payload that landing could not read as JSON is one leaf with the empty path, if it is text.
    """
    found = [_leaves_of(payload) for payload in batch.column("payload").to_pylist()]
    return batch.append_column("misfits", pa.array(found, MISFITS))


def told(
    batches: pa.RecordBatchReader, facts: frozenset[Fact], *, quarantine: bool
) -> pa.RecordBatchReader:
    """Answer rows with the columns that only payloads can tell, a batch at a time.

    So a table of any size is searched in the memory of a batch. Nothing is read before it is
    asked for.
    """

    def tell(batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_facts(with_leaves(batch) if quarantine else batch, facts)

    nothing = pa.RecordBatch.from_pylist([], schema=batches.schema)
    return pa.RecordBatchReader.from_batches(
        tell(nothing).schema, (tell(batch) for batch in batches)
    )


def _tells(payload: bytes, fact: Fact) -> list[object] | None:
    if _SIGNS[fact] not in payload:
        return None
    try:
        document = _read(payload)
    except Refused:
        return None
    walk: Callable[[object, str | None], Iterator[object]]
    walk = _nulls if fact is Fact.NULLS else _lengths
    return list(walk(document, None))


def _leaves_of(payload: bytes) -> list[dict[str, str]]:
    try:
        found = leaves(_read(payload))
    except Refused:
        try:
            found = iter([("", payload.decode())])
        except UnicodeDecodeError:
            return []
    return [{"path": path, "value": json_text(scalar)} for path, scalar in found]


def _read(payload: bytes) -> object:
    return value_of(read(payload, max_depth=_BOUNDS.max_depth, max_keys=_BOUNDS.max_keys))


def _nulls(value: object, path: str | None) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _nulls(item, join(path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _nulls(item, path)
    elif value is None:
        yield path or ""


def _lengths(value: object, path: str | None) -> Iterator[dict[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lengths(item, join(path, key))
    elif isinstance(value, list):
        yield {"path": path or "", "length": len(value)}
        for item in value:
            yield from _lengths(item, path)
