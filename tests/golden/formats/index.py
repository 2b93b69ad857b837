"""What is said to the engine that keeps a search index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import msgspec
import pyarrow as pa
from builders import FLIGHTS, NOON, event
from indexing import index_url
from log_batches import log_batch
from receiving import Reply, Request, receiving

from golden.formats.given import EVENTS, Format
from penstock.query import parse
from penstock.query.elastic import Dsl, compile_elastic
from penstock.search import Place
from penstock.search.documents import Documents
from penstock.search.elastic import ElasticIndex
from penstock.search.index import Row, State

LOG_ID = "log-1"
STATE = State(
    generation="g1",
    log_id=LOG_ID,
    table="table-1",
    marks={0: 2, 3: 17},
    days={"penstock-main-flights-2025.11.24-g1": "u-1"},
    since=NOON,
)
REPEATED = event('{"n": 1}', id="e-3", received_at=NOON + 2)
FINDS = {
    "city:Zürich": [0],
    "n:1": [0, 2],
    "n:>=2": [],
    'at.gate:"A 1"': [0],
    "event_id:e-2": [1],
    "headers.x-shop:north": [0],
    "metadata.topic:orders": [0],
    "zürich": [0],
    "NOT n:1": [1],
    "log_offset:1": [1],
}
"""Which of the documents a search finds."""

_HEADERS = (("content-type", "application/json"), ("x-elastic-product", "Elasticsearch"))


@contextmanager
def _asked(
    found: Callable[[Request], object] = lambda _: {},
) -> Iterator[tuple[ElasticIndex, list[Request]]]:
    """Answer an index on an engine that answers so, and what that was asked."""
    answer = lambda one: Reply(200, _HEADERS, msgspec.json.encode(found(one)))  # noqa: E731
    with receiving(answer) as receiver:
        index = ElasticIndex(index_url("elasticsearch", f"127.0.0.1:{receiver.port}"))
        with closing(index):
            yield index, receiver.requests


def _in_lines(request: Request) -> bytes:
    body = request.body if request.body.endswith(b"\n") else request.body + b"\n"
    return f"{request.method} {request.path}\n".encode() + body


def _write_mapping() -> bytes:
    with _asked() as (index, requests):
        index.create(index.name(FLIGHTS, "g1", NOON))
        [request] = requests
        return _in_lines(request)


def _read_mapping(data: bytes) -> object:
    return sorted(msgspec.json.decode(data.partition(b"\n")[2])["mappings"]["properties"])


def _batch() -> pa.RecordBatch:
    """Answer rows as they are selected for an index, of which the last repeats the first."""
    batch = log_batch(*EVENTS, REPEATED)
    for name, source in (("at", "received_at"), ("time", "event_time")):
        batch = batch.append_column(name, batch.column(source).cast(pa.int64()))
    return batch.append_column("duplicate_of", pa.array([None, None, "e-1"], pa.string()))


def _write_documents() -> bytes:
    with _asked(lambda _: {"errors": False, "took": 1}) as (index, requests):
        index.add(
            [
                Row(
                    index.name(FLIGHTS, "g1", one.at),
                    f"{LOG_ID}:{one.partition}:{one.offset}",
                    Place(*one[:3]),
                    one.body,
                )
                for one in Documents().of(_batch())
            ]
        )
        [request] = requests
        return _in_lines(request)


def _read_documents(data: bytes) -> object:
    """Answer which documents a search finds, and which fields they have."""
    documents = [msgspec.json.decode(line) for line in data.splitlines()[2::2]]
    queries = {text: compile_elastic(parse(text, now=NOON)).certain for text in FINDS}
    finds = {
        text: [n for n, one in enumerate(documents) if _matches(query, one)]
        for text, query in queries.items()
    }
    return finds, sorted({name for one in documents for name in one})


_ENDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gte": lambda value, end: value >= end,
    "gt": lambda value, end: value > end,
    "lte": lambda value, end: value <= end,
    "lt": lambda value, end: value < end,
}


def _matches(query: Dsl, document: Mapping[str, Any]) -> bool:
    """Say whether an engine would find the document."""
    [(kind, of)] = query.items()
    match kind:
        case "bool":
            some = of.get("should", [])
            return (
                all(_matches(one, document) for one in of.get("filter", []))
                and not any(_matches(one, document) for one in of.get("must_not", []))
                and (not some or any(_matches(one, document) for one in some))
            )
        case "term":
            [(name, wanted)] = of.items()
            return wanted in _terms(document, name)
        case "match_phrase":
            [(name, wanted)] = of.items()
            return any(f" {wanted} " in f" {text} " for text in document.get(name, []))
        case "range":
            [(name, ends)] = of.items()
            return any(
                all(_ENDS[sign](value, end) for sign, end in ends.items())
                for value in _terms(document, name)
            )
    raise AssertionError(kind)


def _terms(document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name, [])
    if name in ("words", "pwords"):
        return [word for text in found for word in text.split()]
    return found if isinstance(found, list) else [found]


_DONE = {"_seq_no": 4, "_primary_term": 1}


def _write_state() -> bytes:
    with _asked(lambda _: _DONE) as (index, requests):
        index.write(FLIGHTS, STATE, None)
        return b"".join(map(_in_lines, requests))


def _read_state(data: bytes) -> object:
    source = msgspec.json.decode(data.splitlines()[-1])
    with _asked(lambda _: {**_DONE, "_source": source}) as (index, _):
        known = index.state(FLIGHTS)
        assert known is not None
        return known.state


FIELDS = ["at", "kv", "long", "num", "offset", "partition", "path", "pwords", "time", "unread",
          "words"]  # fmt: skip
FORMATS = (
    Format("index-mapping.txt", _write_mapping, _read_mapping, FIELDS),
    Format(
        "index-documents.txt",
        _write_documents,
        _read_documents,
        (FINDS, [name for name in FIELDS if name not in ("long", "unread")]),
    ),
    Format("index-state.txt", _write_state, _read_state, STATE),
)
