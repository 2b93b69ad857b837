"""The index on Elasticsearch, or on OpenSearch: they differ in one header of an answer.

An index is made here and nowhere else: by an alias of its own that writes must name, so that one
that was deleted behind our back is not made anew, empty, by the next write.
"""

from __future__ import annotations

import dataclasses
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import elastic_transport
import elasticsearch
import msgspec
import structlog
from elastic_transport import HttpHeaders, NodeConfig, Urllib3HttpNode

from penstock.envelope import CollectionId, Micros
from penstock.errors import BadSetting, EngineUnavailable
from penstock.query import elastic as fields
from penstock.search import Place
from penstock.search.index import (
    Gone,
    Known,
    Moved,
    Question,
    Role,
    Row,
    State,
    Unanswerable,
    day_of,
    lie_apart,
)

log = structlog.get_logger()

PREFIX = "penstock"
_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,39}")

# Every write names an index by this.
_ALIAS = ".open"

_BODY_BYTES = 6 << 20
_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
_NOT_LET_IN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_TRIES = 6

_STATE_SECONDS = 3.0

# Two million documents take some seconds. What takes longer is gone on with by the engine.
_MERGE_SECONDS = 600.0

# Names stand in the address of a request, which engines read up to 4 KB.
_NAMES_AT_ONCE = 20

_TERMS: Mapping[str, object] = {"type": "keyword", "doc_values": False}
_TEXT: Mapping[str, object] = {"type": "text", "analyzer": "whitespace", "norms": False}
_MAPPINGS: Mapping[str, object] = {
    "dynamic": "strict",
    "_source": {"enabled": False},
    "properties": {
        fields.RECEIVED: {"type": "long"},
        fields.EVENT_TIME: {"type": "long"},
        fields.PARTITION: {"type": "integer"},
        fields.OFFSET: {"type": "long"},
        fields.TEXTS: _TERMS,
        fields.NUMBERS: _TERMS,
        fields.PATHS: _TERMS,
        fields.LONG: _TERMS,
        fields.WORDS: _TEXT,
        fields.WORDS_OF: _TEXT,
        fields.UNREAD: {"type": "boolean"},
    },
}
_ORDER = (fields.RECEIVED, fields.PARTITION, fields.OFFSET)


class PlainNode(Urllib3HttpNode):
    """A connection that asks in plain media types.

    The client names its own version in them, which OpenSearch and other versions refuse.
    """

    def perform_request(self, *args: Any, **more: Any) -> Any:
        """Answer what the server answers."""
        headers = HttpHeaders(more["headers"] or {})
        for name in ("accept", "content-type"):
            if name in headers:
                plain = headers[name].partition(";")[0]
                headers[name] = plain.replace("vnd.elasticsearch+", "")
        more["headers"] = headers
        return super().perform_request(*args, **more)


class OpenSearchNode(PlainNode):
    """A connection to OpenSearch, which does not say that it is Elasticsearch."""

    def perform_request(self, *args: Any, **more: Any) -> Any:
        """Answer as the client expects it of the product it was made for."""
        response = super().perform_request(*args, **more)
        headers = HttpHeaders(dict(response.meta.headers.items()))
        headers["x-elastic-product"] = "Elasticsearch"
        meta = dataclasses.replace(response.meta, headers=headers)
        return response._replace(meta=meta)


class ElasticIndex:
    """Keeps the promise of `penstock.search.index.Index`."""

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        api_key: str = "",
        ca_file: str = "",
        replicas: int = 0,
        seconds: float = 10.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the address ``elasticsearch://host:9200/prefix``; nothing is asked of it yet."""
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise BadSetting(
                "search_url holds credentials; use search_user and search_password, or "
                "search_api_key"
            )
        self._prefix = parts.path.strip("/") or PREFIX
        if not _PREFIX.fullmatch(self._prefix):
            raise BadSetting(
                f"search_url ends with {self._prefix!r}; the prefix of indices is up to 40 of a-z, "
                "0-9 and _, and begins with a letter"
            )
        secure = parts.scheme.endswith("+https")
        try:
            port = parts.port or 9200
        except ValueError as error:
            raise BadSetting("search_url has a port that is no number") from error
        if not parts.hostname:
            raise BadSetting("search_url names no host")
        self._place = f"{parts.hostname}:{port}"
        node = NodeConfig(
            "https" if secure else "http",
            parts.hostname,
            port,
            ssl_context=_trust(ca_file) if secure else None,
            http_compress=False,
        )
        auth: dict[str, Any] = {}
        if api_key:
            auth["api_key"] = api_key
        elif user:
            auth["basic_auth"] = (user, password)
        self._client = elasticsearch.Elasticsearch(
            [node],
            node_class=OpenSearchNode if parts.scheme.startswith("opensearch") else PlainNode,
            max_retries=0,
            request_timeout=seconds,
            retry_on_timeout=False,
            **auth,
        )
        self._replicas = replicas
        self._seconds = seconds
        self._wait = wait
        self._has_marks = False

    # States

    @property
    def _marks(self) -> str:
        return f"{self._prefix}-marks"

    def _document(self, collection: CollectionId, role: Role) -> str:
        return f"/{self._marks}/_doc/{collection}.{role}"

    def state(self, collection: CollectionId, role: Role = "used") -> Known | None:
        """Answer how far the index is, as it was written last."""
        # Every search waits for this one; an engine that is well takes some milliseconds.
        path, seconds = self._document(collection, role), min(self._seconds, _STATE_SECONDS)
        status, found = self._ask("GET", path, seconds=seconds)
        if status == HTTPStatus.NOT_FOUND:
            return None
        self._expect(status, found)
        try:
            state = msgspec.convert(found["_source"], State, str_keys=True)
        except (msgspec.ValidationError, KeyError) as error:
            raise Unanswerable("the index was made by another version of Penstock") from error
        return Known(state, (found["_seq_no"], found["_primary_term"]))

    def write(
        self, collection: CollectionId, state: State, before: Known | None, role: Role = "used"
    ) -> Known:
        """Write a state in place of the one before; raise `Moved` if that is not there any more."""
        self._make_marks()
        status, found = self._ask(
            "PUT",
            f"{self._document(collection, role)}?{_only_after(before)}",
            msgspec.json.encode(state),
        )
        if status == HTTPStatus.CONFLICT:
            raise Moved
        self._expect(status, found)
        return Known(state, (found["_seq_no"], found["_primary_term"]))

    def forget(self, collection: CollectionId, before: Known, role: Role) -> None:
        """Take a state away; raise `Moved` if it is not the one."""
        path = f"{self._document(collection, role)}?{_only_after(before)}"
        status, found = self._ask("DELETE", path)
        if status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
            raise Moved
        self._expect(status, found)

    def _make_marks(self) -> None:
        if self._has_marks:
            return
        self._put_index(
            self._marks,
            {"settings": self._settings("1s"), "mappings": {"dynamic": False, "properties": {}}},
        )
        self._has_marks = True

    # Indices

    def name(self, collection: CollectionId, generation: str, at: Micros) -> str:
        """Answer which index the rows received at this time are for."""
        return f"{self._prefix}-{collection.team}-{collection.name}-{day_of(at)}-{generation}"

    def create(self, name: str) -> None:
        """Make an index unless it is there."""
        self._put_index(
            name,
            {
                # Documents become searchable when the indexer says so, and not before.
                "settings": self._settings("-1"),
                "mappings": _MAPPINGS,
                "aliases": {f"{name}{_ALIAS}": {}},
            },
        )

    def _settings(self, refresh: str) -> dict[str, object]:
        return {
            "number_of_shards": 1,
            "number_of_replicas": self._replicas,
            "refresh_interval": refresh,
        }

    def _put_index(self, name: str, definition: Mapping[str, object]) -> None:
        status, found = self._ask("PUT", f"/{name}", definition)
        if status == HTTPStatus.BAD_REQUEST and _kind(found) == "resource_already_exists_exception":
            return
        self._expect(status, found)

    def ids(self, collection: CollectionId, generation: str = "*") -> Mapping[str, str]:
        """Answer the indices of a collection that there are, with their unique ids."""
        pattern = f"{self._prefix}-{collection.team}-{collection.name}-*-{generation}"
        status, found = self._ask("GET", f"/{pattern}/_settings/index.uuid?flat_settings=true")
        self._expect(status, found)
        return {name: about["settings"]["index.uuid"] for name, about in found.items()}

    def drop(self, names: Sequence[str]) -> None:
        """Delete indices; what is not there is no error."""
        for some in _some(names):
            status, found = self._ask("DELETE", f"/{','.join(some)}?ignore_unavailable=true")
            if status != HTTPStatus.NOT_FOUND:
                self._expect(status, found)

    def refresh(self, names: Sequence[str]) -> None:
        """Make everything that was added to these indices searchable."""
        for some in _some(names):
            status, found = self._ask("POST", f"/{','.join(some)}/_refresh")
            self._expect(status, found)
            shards = found["_shards"]
            if shards["failed"] or shards["successful"] < len(some):
                raise EngineUnavailable(f"{self._place} could not refresh every shard")

    def merge(self, names: Sequence[str]) -> int:
        """Put each of these indices together where its documents lie apart; answer how many did."""
        merged = 0
        for some in _some(names):
            for name in self._apart(some):
                path = f"/{name}/_forcemerge?max_num_segments=1&ignore_unavailable=true"
                status, found = self._ask("POST", path, seconds=_MERGE_SECONDS)
                self._expect(status, found)
                # OpenSearch goes on searching what lay apart until it is told to look again.
                path = f"/{name}/_refresh?ignore_unavailable=true"
                self._expect(*self._ask("POST", path))
                merged += 1
        return merged

    def _apart(self, names: Sequence[str]) -> list[str]:
        told = "indices.*.shards.*.segments.*.num_docs,indices.*.shards.*.segments.*.search"
        path = f"/{','.join(names)}/_segments?ignore_unavailable=true&filter_path={told}"
        status, found = self._ask("GET", path)
        self._expect(status, found)
        # Without a document an index has no segments, and is not told about at all.
        return [
            name
            for name, index in found.get("indices", {}).items()
            if any(
                lie_apart(
                    # What is not searched yet, or no more, is told about, too.
                    [one["num_docs"] for one in copy["segments"].values() if one["search"]]
                )
                for copies in index["shards"].values()
                for copy in copies
            )
        ]

    # Documents

    def add(self, rows: Sequence[Row]) -> int:
        """Store documents; those that are there already stay."""
        refused = 0
        for some in _bodies(rows):
            refused += self._add(some)
        return refused

    def _add(self, rows: Sequence[Row]) -> int:
        """Store what one request takes, again and again until every document is settled."""
        waiting, refused = list(rows), 0
        for attempt in range(_TRIES):
            if attempt:
                self._wait(min(0.25 * 2**attempt, 5.0))
            status, found = self._bulk(waiting, "errors,took")
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                return refused + self._halved(waiting)
            if status in _BUSY:
                continue
            self._expect(status, found)
            if not found["errors"]:
                return refused
            # Asked again, those that were stored say so.
            status, found = self._bulk(
                waiting, "errors,items.*.status,items.*.error.type,items.*.error.reason"
            )
            if status in _BUSY:
                continue
            self._expect(status, found)
            waiting, bad = _unsettled(waiting, found.get("items", []))
            if bad:
                self._put_unread(bad)
                refused += len(bad)
            if not waiting:
                return refused
        raise EngineUnavailable(f"{self._place} is too busy to store documents", retry_after=10)

    def _halved(self, rows: Sequence[Row]) -> int:
        if len(rows) == 1:
            self._put_unread(rows)
            return 1
        middle = len(rows) // 2
        return self._add(rows[:middle]) + self._add(rows[middle:])

    def _put_unread(self, rows: Sequence[Row]) -> None:
        """Store documents without terms, which every search has to look up."""
        log.warning("the search engine refuses documents", count=len(rows), first=rows[0].id)
        bare = [row._replace(body=_unread(row.place)) for row in rows]
        status, found = self._bulk(bare, "errors,items.*.status,items.*.error.type")
        self._expect(status, found)
        waiting, bad = _unsettled(bare, found.get("items", [])) if found["errors"] else ([], [])
        if waiting or bad:
            raise EngineUnavailable(f"{self._place} takes no documents now", retry_after=10)

    def _bulk(self, rows: Sequence[Row], told: str) -> tuple[int, Any]:
        parts = []
        for row in rows:
            parts.append(b'{"create":{"_index":"%b%b","_id":"%b"}}\n' % _address(row))
            parts.append(row.body)
            parts.append(b"\n")
        path = f"/_bulk?require_alias=true&filter_path={told}"
        return self._ask("POST", path, b"".join(parts), seconds=6 * self._seconds)

    # Questions

    def places(self, questions: Sequence[Question]) -> list[list[Place]]:
        """Answer the first places of each question."""
        bodies = []
        for question in questions:
            order = "desc" if question.descending else "asc"
            body: dict[str, Any] = {
                "query": question.query,
                "size": question.size,
                "sort": [{name: order} for name in _ORDER],
                "track_total_hits": False,
            }
            if question.after is not None:
                body["search_after"] = list(question.after)
            bodies.append(body)
        answers = self._search(questions, bodies, "hits.hits.sort")
        return [
            [Place(*hit["sort"][:3]) for hit in answer.get("hits", {}).get("hits", [])]
            for answer in answers
        ]

    def count(self, question: Question) -> int:
        """Answer how many documents there are."""
        body = {"query": question.query, "size": 0, "track_total_hits": True}
        (answer,) = self._search([question], [body], "hits.total")
        found: int = answer["hits"]["total"]["value"]
        return found

    def parts(self, question: Question, of: Sequence[fields.Dsl]) -> list[int]:
        """Answer how many documents each of these queries finds among those of the question."""
        if not of:
            return []
        body = {
            "query": question.query,
            "size": 0,
            "track_total_hits": False,
            "aggs": {"parts": {"filters": {"filters": list(of)}}},
        }
        (answer,) = self._search([question], [body], "aggregations")
        return [bucket["doc_count"] for bucket in answer["aggregations"]["parts"]["buckets"]]

    def bars(self, question: Question, step: Micros) -> dict[int, int]:
        """Answer how many documents there are in each step of time that has any."""
        histogram = {"field": fields.RECEIVED, "interval": step, "min_doc_count": 1}
        body = {
            "query": question.query,
            "size": 0,
            "track_total_hits": False,
            "aggs": {"bars": {"histogram": histogram}},
        }
        (answer,) = self._search([question], [body], "aggregations")
        buckets = answer["aggregations"]["bars"].get("buckets", [])
        return {int(bucket["key"]) // step: bucket["doc_count"] for bucket in buckets}

    def _search(
        self, questions: Sequence[Question], bodies: Sequence[Mapping[str, Any]], told: str
    ) -> list[Any]:
        """Ask several questions at once. The names of indices are in the body: any number fits."""
        lines = []
        for question, body in zip(questions, bodies, strict=True):
            names = [f"{name}{_ALIAS}" for name in question.indices]
            lines.append(msgspec.json.encode({"index": names}))
            lines.append(msgspec.json.encode({**body, "timeout": f"{self._seconds:.0f}s"}))
        told = ",".join(
            f"responses.{part}"
            for part in (told, "status", "timed_out", "_shards", "error.type", "error.root_cause")
        )
        path = f"/_msearch?filter_path={told}"
        status, found = self._ask("POST", path, b"\n".join([*lines, b""]))
        self._expect(status, found)
        answers: list[Any] = found["responses"]
        for answer in answers:
            self._expect(answer["status"], answer)
            shards = answer["_shards"]
            if answer["timed_out"] or shards["successful"] < shards["total"]:
                raise EngineUnavailable(f"{self._place} did not search every shard in time")
        return answers

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    # Requests

    def _ask(
        self, method: str, path: str, body: object = None, *, seconds: float | None = None
    ) -> tuple[int, Any]:
        """Answer status and body, whatever the status is."""
        headers = {"accept": "application/json"}
        if body is not None:
            lines = path.startswith(("/_bulk", "/_msearch"))
            headers["content-type"] = f"application/{'x-ndjson' if lines else 'json'}"
        client = self._client.options(request_timeout=seconds) if seconds else self._client
        try:
            answer = client.perform_request(method, path, headers=headers, body=body)
        except elasticsearch.ApiError as error:
            return error.status_code, error.body
        except (elastic_transport.TransportError, elasticsearch.UnsupportedProductError) as error:
            raise EngineUnavailable(
                f"the search engine at {self._place} does not answer: {_reason(error)}"
            ) from error
        return answer.meta.status, answer.body

    def _expect(self, status: int, found: Any) -> None:
        """Raise what a status means to whoever asked, unless it is that all is well."""
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return
        kind = _kind(found)
        if kind == "index_not_found_exception":
            raise Gone
        # Without the engine's own words, which may quote a search or a document.
        said = f"the search engine at {self._place} answered {status} {kind}"
        if status == HTTPStatus.BAD_REQUEST:
            raise Unanswerable(said)
        if status in _NOT_LET_IN:
            said += "; see search_user and its password, or search_api_key"
        raise EngineUnavailable(said)


def _trust(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise BadSetting(f"search_ca_file cannot be read: {error}") from error


def _reason(error: Exception) -> str:
    """Answer which setting to look at, where TLS tells it, else the error's class."""
    if not isinstance(error, elastic_transport.TlsError):
        return type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in error.message:  # its `str` leaves that out
        return "its certificate does not pass; see search_ca_file"
    return "it does not speak TLS; without it search_url has no +https"


def _kind(found: Any) -> str:
    """Answer the name of an error, nothing if it has none."""
    error = found.get("error") if isinstance(found, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def _only_after(before: Known | None) -> str:
    if before is None:
        return "op_type=create"
    return f"if_seq_no={before.version[0]}&if_primary_term={before.version[1]}"


def _address(row: Row) -> tuple[bytes, bytes, bytes]:
    return row.into.encode(), _ALIAS.encode(), json.dumps(row.id)[1:-1].encode()


def _bodies(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Answer the rows in the portions of a request each."""
    some: list[Row] = []
    size = 0
    for row in rows:
        if some and size + len(row.body) > _BODY_BYTES:
            yield some
            some, size = [], 0
        some.append(row)
        size += len(row.body)
    if some:
        yield some


def _unsettled(rows: Sequence[Row], items: Sequence[Any]) -> tuple[list[Row], list[Row]]:
    """Answer the rows to send again, and those that the engine refuses for what is in them."""
    again, bad = [], []
    for row, item in zip(rows, items, strict=True):
        told = item["create"]
        status, kind = told["status"], _kind(told)
        # "Already there" is as good as stored.
        if status < HTTPStatus.MULTIPLE_CHOICES or status == HTTPStatus.CONFLICT:
            continue
        if kind == "index_not_found_exception":
            raise Gone
        if status in _REFUSED and not kind.startswith(("index_", "cluster_")):
            bad.append(row)
        else:
            again.append(row)
    return again, bad


def _unread(place: Place) -> bytes:
    return msgspec.json.encode(
        {
            fields.RECEIVED: place.received_at,
            fields.PARTITION: place.partition,
            fields.OFFSET: place.offset,
            fields.UNREAD: True,
        }
    )


def _some(names: Sequence[str]) -> Iterator[list[str]]:
    """Answer the names in portions that fit into an address; no name has a sign to be escaped."""
    rest = iter(names)
    while some := list(islice(rest, _NAMES_AT_ONCE)):
        yield some
