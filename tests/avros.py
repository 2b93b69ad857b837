"""Schemas of Avro, payloads that another implementation writes, and a registry."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import fastavro
from receiving import Receiver, Reply, Request, receiving

ITEM = {
    "type": "record",
    "name": "Item",
    "fields": [
        {"name": "sku", "type": "string"},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2},
        },
        {"name": "parts", "type": {"type": "array", "items": "Item"}, "default": []},
    ],
}

ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "total", "type": "double"},
        {"name": "weight", "type": "float"},
        {"name": "count", "type": "int"},
        {"name": "gift", "type": "boolean"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "blob", "type": "bytes"},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}},
        {
            "name": "state",
            "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID", "SENT"]},
        },
        {"name": "items", "type": {"type": "array", "items": ITEM}},
        {"name": "labels", "type": {"type": "map", "values": "double"}},
        {"name": "nothing", "type": "null"},
        {"name": "any", "type": ["null", "long", "string", "Item", "boolean"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "clock_us", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "at_us", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "ref", "type": {"type": "string", "logicalType": "uuid"}},
        {
            "name": "rate",
            "type": {
                "type": "fixed",
                "name": "Rate",
                "size": 6,
                "logicalType": "decimal",
                "precision": 12,
                "scale": 4,
            },
        },
    ],
}

# Three versions of a sender, as they grow: a field more, one renamed, and numbers that widen.
FIRST: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [{"name": "value", "type": "int"}, {"name": "place", "type": "string"}],
}
SECOND: dict[str, Any] = {
    **FIRST,
    "fields": [
        {"name": "value", "type": "long"},
        {"name": "place", "type": "string"},
        {"name": "unit", "type": "string", "default": "C"},
    ],
}
THIRD: dict[str, Any] = {
    **FIRST,
    "fields": [
        {"name": "value", "type": "double"},
        {"name": "site", "type": "string", "aliases": ["place"]},
        {"name": "unit", "type": "string", "default": "C"},
        {
            "name": "by",
            "type": {
                "type": "record",
                "name": "Maker",
                "fields": [{"name": "name", "type": "string"}, {"name": "no", "type": "int"}],
            },
            "default": {"name": "?", "no": 7},
        },
    ],
}


def text(schema: Any) -> str:
    """Answer a schema as a file has it."""
    return json.dumps(schema)


def datum(schema: Any, value: Any) -> bytes:
    """Answer a value as its schema's bytes."""
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(schema), value)
    return written.getvalue()


def fingerprint(schema: Any) -> bytes:
    """Answer the fingerprint by which a single object names its schema."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def single(schema: Any, value: Any) -> bytes:
    """Answer a value as a single object."""
    return b"\xc3\x01" + fingerprint(schema) + datum(schema, value)


def wire(number: int, schema: Any, value: Any) -> bytes:
    """Answer a value as Confluent's serialisers write it."""
    return b"\x00" + number.to_bytes(4, "big") + datum(schema, value)


@dataclass
class Shelf:
    """What a registry knows, and how it answers otherwise."""

    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[str, dict[str, Any]] = field(default_factory=dict)
    needs: str | None = None
    """The header ``Authorization`` that it asks for."""
    broken: Reply | None = None
    """What it answers to everything."""
    server: Receiver = field(default_factory=Receiver)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def register(self, number: int, schema: Any, **more: Any) -> None:
        self.schemas[number] = {"schema": text(schema), **more}

    def asked(self) -> list[str]:
        return [request.path for request in self.server.requests]

    def answer(self, request: Request) -> Reply:
        if self.broken is not None:
            return self.broken
        if self.needs is not None and request.header("authorization") != self.needs:
            return _reply(401, {"error_code": 401, "message": "Unauthorized"})
        match request.path.split("/")[1:]:
            case ["schemas", "ids", number] if int(number) in self.schemas:
                return _reply(200, self.schemas[int(number)])
            case ["schemas", "ids", _]:
                return _reply(404, {"error_code": 40403, "message": "Schema not found"})
            case ["subjects", subject, "versions", version] if (
                f"{subject}/{version}" in self.subjects
            ):
                return _reply(200, self.subjects[f"{subject}/{version}"])
            case ["subjects", _, "versions", _]:
                return _reply(404, {"error_code": 40401, "message": "Subject not found"})
            case _:
                return _reply(404, {"error_code": 404, "message": "HTTP 404 Not Found"})


def _reply(status: int, answer: Any) -> Reply:
    kind = "application/vnd.schemaregistry.v1+json"
    return Reply(status, (("content-type", kind),), json.dumps(answer).encode())


@contextmanager
def registry(port: int = 0) -> Iterator[Shelf]:
    """Serve a small schema registry with the two routes of Confluent's API that are used."""
    shelf = Shelf()
    with receiving(shelf.answer, port=port) as shelf.server:
        yield shelf
