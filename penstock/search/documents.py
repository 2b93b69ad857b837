"""Rows to the documents of an index: terms of their leaves, made once, as JSON.

This is the hot path of an index, so that it is written out: one pass over the decoded payload, and
what belongs to a path is made when the path is first seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from penstock.envelope import Micros
from penstock.query.text import lower
from penstock.query.tokens import (
    ANY_NUMBER,
    ANY_PATH,
    COLUMNS,
    HEADERS,
    LONGEST_TEXT,
    LONGEST_WORD,
    METADATA,
    REPEATS,
    below,
    double,
    flag_term,
    sortable,
    text_term,
    word_terms,
)
from penstock.schema.convert import Rules
from penstock.schema.gate import NOT_READ, Refused, read, value_of
from penstock.schema.leaves import leaves
from penstock.schema.names import keys_of
from penstock.schema.shape import EMPTY, Struct

_BOUNDS = Rules()

# Paths of all collections that one process indexes. What is over it is made anew.
_MOST_PATHS = 5_000

# Values of a path, and payloads of the same paths, that are kept.
_MOST_VALUES = 32
_MOST_LINES = 256

_TOLD = "told"
"""Whether a row has leaves of its payload."""

COLUMNS_READ = (
    "event_id, epoch_us(received_at) AS at, epoch_us(event_time) AS time, source, content_type, "
    "key, headers, metadata, payload, log_partition, log_offset, duplicate_of"
)
"""What to select from a table to make documents of its rows."""


def told(shape: Struct) -> str:
    """Answer what to select besides, where payloads may have landed as something else than JSON."""
    data = "data IS NOT NULL OR " if shape != EMPTY else ""
    return f"({data}misfits IS NOT NULL) AS {_TOLD}"


class Document(NamedTuple):
    """One row: where it stands, and its document as JSON."""

    at: Micros
    partition: int
    offset: int
    body: bytes


class _Body(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of a document, see `penstock.query.elastic`."""

    at: int
    partition: int
    offset: int
    time: int | None = None
    kv: list[str] = []
    num: list[str] = []
    path: list[str] = []
    words: list[str] = []
    pwords: list[str] = []
    long: list[str] = []
    unread: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(float_hook=float).decode


class _Path:
    """What the leaves of a path have in common, and the paths below it."""

    __slots__ = ("below", "flags", "is_", "line", "name", "numbers", "texts", "word")

    def __init__(self, name: str, line: tuple[str, ...]) -> None:
        self.name = name
        self.line = line
        """Its name and those of everything above it."""
        self.is_ = f"{name}="
        self.word = f" {name}="
        self.flags = (flag_term(name, False), flag_term(name, True))
        self.below: dict[str, _Path] = {}
        # The first values that were seen: many fields have few.
        self.texts: dict[str, tuple[str, str, str]] = {}
        self.numbers: dict[object, tuple[str, str]] = {}


class Documents:
    """Makes documents. One thread uses it."""

    def __init__(self) -> None:
        self._forget()

    def of(self, batch: pa.RecordBatch) -> Iterator[Document]:
        """Answer the documents of rows, which have the columns `COLUMNS_READ`, and `told` perhaps.

        Where that contradicts what the payload is as JSON, whoever searches reads the event.
        """
        names = ("event_id", "at", "time", "source", "content_type", "key", "payload")
        repeats = batch.column("duplicate_of").is_valid().to_pylist()
        columns = [batch.column(name).to_pylist() for name in names]
        places = [batch.column(name).to_pylist() for name in ("log_partition", "log_offset")]
        headers, metadata = _pairs(batch.column("headers")), _pairs(batch.column("metadata"))
        known = batch.column(_TOLD).to_pylist() if _TOLD in batch.schema.names else None
        for number, row in enumerate(zip(*columns, *places, headers, metadata, strict=True)):
            event_id, at, time, source, content_type, key, payload, partition, offset, *pairs = row
            body = _Body(at, partition, offset, time, kv=[], path=[])
            readable = known is None or known[number] == _has_leaves(payload)
            if readable:
                readable = self._fill(body, event_id, source, content_type, key, payload, *pairs)
            if not readable:
                # No landing of today makes such a row: whoever searches reads the event.
                body = _Body(at, partition, offset, unread=True)
            if repeats[number]:
                body.path = [*body.path, REPEATS]
            yield Document(at, partition, offset, _encode(body))
            if self._known > _MOST_PATHS:
                self._forget()

    def _fill(
        self,
        body: _Body,
        event_id: str,
        source: str,
        content_type: str | None,
        key: bytes | None,
        payload: bytes,
        headers: Sequence[tuple[str, Any]] | None,
        metadata: Sequence[tuple[str, Any]] | None,
    ) -> bool:
        """Put a row's terms into its document; answer whether its payload could be read."""
        self._column(body, "event_id", event_id)
        self._column(body, "source", source)
        if content_type is not None:
            self._column(body, "content_type", content_type)
        if key is not None:
            self._column(body, "key", _text(key))
        if headers:
            self._pairs(body, HEADERS, [(lower(name), _text(v)) for name, v in headers])
        if metadata:
            self._pairs(body, METADATA, metadata)
        try:
            self._payload(body, payload)
        except Refused:
            return False
        return True

    def _forget(self) -> None:
        self._top: dict[str, _Path] = {}
        self._document = _Path("", ("", ANY_PATH))
        self._known = 0
        self._lines: dict[tuple[_Path, ...], list[str]] = {}
        self._names: dict[tuple[str, str], str] = {}

    def _column(self, body: _Body, name: str, text: str | None) -> None:
        full = f"{COLUMNS}.{name}"
        body.path.append(full)
        if text is not None:
            self._text_of(body, full, text)

    def _pairs(self, body: _Body, what: str, pairs: Sequence[tuple[str, str | None]]) -> None:
        body.path.append(what)
        for name, text in pairs:
            full = self._names.get((what, name))
            if full is None:
                self._known += 1
                full = self._names[what, name] = f"{what}{below('', name)}"
            body.path.append(full)
            if text is not None:
                self._text_of(body, full, text)

    def _text_of(self, body: _Body, name: str, text: str) -> None:
        body.kv.append(text_term(name, lower(text)))
        if len(text) > LONGEST_TEXT:
            body.long = [*body.long, name]

    def _payload(self, body: _Body, payload: bytes) -> None:
        """Add the leaves of a payload; raise `Refused` where they are not known for certain."""
        try:
            value = _decode(payload)
        except NOT_READ:
            self._slowly(body, payload)
            return
        if (
            payload.count(b"{") + payload.count(b"[") > _BOUNDS.max_depth
            or payload.count(b":") > _BOUNDS.max_keys
        ):
            read(payload, max_depth=_BOUNDS.max_depth, max_keys=_BOUNDS.max_keys)
        found = _Found()
        if isinstance(value, dict):
            self._object(value, self._top, None, found)
        elif isinstance(value, list):
            self._list(value, None, found)
        elif value is not None:
            found.leaf(self._document, value)
        found.put(body, self._lines)

    def _slowly(self, body: _Body, payload: bytes) -> None:
        """Add the leaves of what is no JSON, or has integers of thousands of digits."""
        found = _Found()
        try:
            text = read(payload, max_depth=_BOUNDS.max_depth, max_keys=_BOUNDS.max_keys)
        except Refused as refused:
            if refused.reason != "invalid_json":
                raise
            opaque = _text(payload)
            if opaque is not None:
                found.leaf(self._document, opaque)
        else:
            for path, scalar in leaves(value_of(text)):
                at: _Path | None = None
                for key in keys_of(path):
                    at = self._below(self._top if at is None else at.below, at, key)
                if isinstance(scalar, msgspec.Raw):
                    scalar = double(bytes(scalar).decode())  # noqa: PLW2901 - the same leaf
                found.leaf(at or self._document, scalar)
        found.put(body, self._lines)

    def _below(self, known: dict[str, _Path], parent: _Path | None, key: str) -> _Path:
        path = known.get(key)
        if path is None:
            self._known += 1
            name = below(parent.name if parent else None, key)
            above = parent.line if parent else (ANY_PATH,)
            path = known[key] = _Path(name, (name, *above))
        return path

    def _object(
        self, value: dict[str, object], known: dict[str, _Path], at: _Path | None, found: _Found
    ) -> None:
        for key, item in value.items():
            path = known.get(key) or self._below(known, at, key)
            kind = type(item)
            if kind is dict:
                self._object(item, path.below, path, found)  # type: ignore[arg-type]
            elif kind is list:
                self._list(item, path, found)  # type: ignore[arg-type]
            elif item is not None:
                found.leaf(path, item)

    def _list(self, items: list[object], at: _Path | None, found: _Found) -> None:
        for item in items:
            if isinstance(item, dict):
                self._object(item, at.below if at else self._top, at, found)
            elif isinstance(item, list):
                self._list(item, at, found)
            elif item is not None:
                found.leaf(at or self._document, item)


class _Found:
    """The leaves of one payload, as terms."""

    __slots__ = ("_kv", "_long", "_num", "_paths", "_pwords", "_words")

    def __init__(self) -> None:
        self._kv: list[str] = []
        self._num: list[str] = []
        self._words: list[str] = []
        self._pwords: list[str] = []
        self._long: list[str] = []
        self._paths: list[_Path] = []

    def leaf(self, path: _Path, scalar: object) -> None:
        """Add a leaf: a text, a bool, or a number."""
        self._paths.append(path)
        kind = type(scalar)
        if kind is str:
            known = path.texts.get(scalar)  # type: ignore[call-overload]  # a str
            if known is None:
                known = self._text(path, scalar)  # type: ignore[arg-type]
            self._kv.append(known[0])
            if known[1]:
                self._words.append(known[1])
                self._pwords.append(known[2])
        elif kind is bool:
            self._kv.append(path.flags[1 if scalar else 0])
        else:
            terms = path.numbers.get(scalar)
            if terms is None:
                number = scalar if kind is float else double(scalar)  # type: ignore[arg-type]
                digits = sortable(number)  # type: ignore[arg-type]
                terms = (path.is_ + digits, ANY_NUMBER + digits)
                if len(path.numbers) < _MOST_VALUES:
                    path.numbers[scalar] = terms
            self._num += terms

    def _text(self, path: _Path, scalar: str) -> tuple[str, str, str]:
        text = lower(scalar)
        size = len(text)
        if size <= LONGEST_TEXT:
            term = path.is_ + text
        else:
            term = text_term(path.name, text)
            self._long.append(path.name)
        if size <= LONGEST_WORD and text.isalnum():
            made = (term, text, term)
        elif terms := word_terms(text):
            made = (term, " ".join(terms), path.is_ + path.word.join(terms))
        else:
            made = (term, "", "")
        if size <= LONGEST_WORD and len(path.texts) < _MOST_VALUES:
            path.texts[scalar] = made
        return made

    def put(self, body: _Body, lines: dict[tuple[_Path, ...], list[str]]) -> None:
        """Give the terms to a document; `lines` are the paths of payloads that were seen."""
        body.kv += self._kv
        body.num = self._num
        paths = tuple(self._paths)
        names = lines.get(paths)
        if names is None:
            names = list({name: None for path in paths for name in path.line})
            if len(paths) <= _MOST_VALUES and len(lines) < _MOST_LINES:
                lines[paths] = names
        body.path += names
        body.words, body.pwords = self._words, self._pwords
        if self._long:
            body.long = [*body.long, *self._long]


def _has_leaves(payload: bytes) -> bool:
    try:
        text = read(payload, max_depth=_BOUNDS.max_depth, max_keys=_BOUNDS.max_keys)
    except Refused:
        return False
    return next(leaves(value_of(text)), None) is not None


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _pairs(column: pa.Array) -> Iterator[list[tuple[str, Any]] | None]:
    """Answer the pairs of each row: of a list of structs with two fields, or of a map."""
    if column.null_count == len(column):
        return iter([None] * len(column))
    if pa.types.is_map(column.type):
        return iter(column.to_pylist())
    return _headers(column)


def _headers(column: pa.Array) -> Iterator[list[tuple[str, Any]] | None]:
    inner = column.flatten()
    pairs = list(zip(inner.field(0).to_pylist(), inner.field(1).to_pylist(), strict=True))
    start = 0
    for length in column.value_lengths().to_pylist():
        if length is None:
            yield None
        else:
            yield pairs[start : start + length]
            start += length
