"""The API's own description, OpenAPI, as a page can show it. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")

_PLACES = {"c": "flights", "event_id": "01J…", "id": "ID", "name": "NAME"}
"""What stands for the parts of a path in an example."""

_DEPTH = 3
"""Objects in objects that are shown field by field."""

_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "more than {}"),
    ("maximum", "at most {}"),
    ("minLength", "{} characters or more"),
    ("maxLength", "up to {} characters"),
    ("maxItems", "up to {}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A parameter, or a field of a body or an answer; `path` is dotted."""

    path: str
    type: str
    needed: bool = False
    default: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method on a path."""

    id: str
    method: str
    path: str
    said: str
    scope: str
    """What the token must be good for; ``''`` where none is needed."""
    parameters: list[Field]
    body: list[Field]
    answer: list[Field]
    media: list[str]
    """What it answers, as media types."""
    curl: str

    @property
    def names(self) -> list[str]:
        """Every name that it takes or answers, once."""
        found = (one.path for one in (*self.parameters, *self.body, *self.answer))
        return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The operations on one noun."""

    name: str
    operations: list[Operation]


def groups(document: Document, *, url: str) -> list[Group]:
    """Answer the operations by noun, in the order of the document; examples call `url`."""
    found: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                told = methods[method]
                noun = (told.get("tags") or ["other"])[0]
                found.setdefault(noun, []).append(_operation(document, method, path, told, url))
    return [Group(name=name, operations=operations) for name, operations in found.items()]


def _operation(
    document: Document, method: str, path: str, told: Mapping[str, Any], url: str
) -> Operation:
    body = _content(told.get("requestBody", {}))
    good: Mapping[str, Any] = next(
        (one for status, one in told["responses"].items() if status.startswith("2")), {}
    )
    scope = str(told.get("x-scope", ""))
    parameters = [
        Field(
            path=one["name"],
            type=type_of(document, one["schema"]),
            needed=one.get("required", False),
            default=_default(one["schema"]),
            said=_with_bounds(one.get("description", ""), one["schema"]),
        )
        for one in told.get("parameters", [])
    ]
    example = None if body is None else _example(document, body)
    return Operation(
        id=f"{told['operationId']}",
        method=method.upper(),
        path=path,
        said=told.get("description", ""),
        scope=scope,
        parameters=parameters,
        body=[] if body is None else list(_fields(document, body)),
        answer=list(_fields(document, _content(good) or {})),
        media=list(good.get("content", {})),
        curl=_curl(method, path, url, signed=bool(scope), example=example),
    )


def _content(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Answer the schema of the JSON in a request or an answer, None where there is none."""
    for media, content in part.get("content", {}).items():
        if media.endswith("json"):
            schema: Mapping[str, Any] = content.get("schema", {})
            return schema
    return None


def _resolved(document: Document, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, and leave out that a value may be null."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _resolved(document, document["components"]["schemas"][name])
    kinds = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    return {**schema, **_resolved(document, kinds[0])} if len(kinds) == 1 else schema


def type_of(document: Document, schema: Mapping[str, Any]) -> str:
    """Answer what a value may be, in a few words: ``integer or null``, ``list of string``."""
    if "$ref" in schema:
        return type_of(document, _resolved(document, schema))
    if "anyOf" in schema:
        return " or ".join(type_of(document, one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {type_of(document, schema.get('items', {}))}"
    if kind == "string" and schema.get("format") == "date-time":
        return "time"
    return str(kind or "anything")


def _fields(document: Document, schema: Mapping[str, Any], prefix: str = "") -> Iterator[Field]:
    schema = _resolved(document, schema)
    if schema.get("type") == "array":
        yield from _fields(document, schema.get("items", {}), f"{prefix.rstrip('.')}[].")
        return
    needed = schema.get("required", [])
    for name, one in schema.get("properties", {}).items():
        path = prefix + name
        yield Field(
            path=path,
            type=type_of(document, one),
            needed=name in needed,
            default=_default(one),
            said=_with_bounds(one.get("description", ""), _resolved(document, one)),
        )
        if path.count(".") + 1 < _DEPTH:
            inner = _resolved(document, one)
            if inner.get("properties") or inner.get("type") == "array":
                yield from _fields(document, inner, f"{path}.")


def _default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    return "" if value in (None, "") else json.dumps(value, ensure_ascii=False)


def _with_bounds(said: str, schema: Mapping[str, Any]) -> str:
    bounds = [text.format(f"{schema[name]:,.12g}") for name, text in _BOUNDS if name in schema]
    told = ", ".join(bounds)
    return f"{said} {told[:1].upper()}{told[1:]}.".strip() if told else said


def _example(document: Document, schema: Mapping[str, Any]) -> object:
    """Answer a body: the one that the schema gives, else what it cannot do without."""
    schema = _resolved(document, schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        needed = schema.get("required", [])
        return {
            name: _example(document, one)
            for name, one in schema.get("properties", {}).items()
            if name in needed
        }
    if schema.get("type") == "array":
        return [_example(document, schema.get("items", {}))]
    values = {"string": "…", "integer": 1, "number": 1.0, "boolean": True}
    return values.get(str(schema.get("type")))


def _curl(method: str, path: str, url: str, *, signed: bool, example: object) -> str:
    place = re.sub(r"\{(\w+)\}", lambda found: _PLACES.get(found[1], found[1].upper()), path)
    words = ["curl"]
    # With a body curl takes POST for meant.
    if method != ("get" if example is None else "post"):
        words.append(f"-X {method.upper()}")
    if signed:
        words.append('-H "Authorization: Bearer $PENSTOCK_TOKEN"')
    if example is not None:
        body = json.dumps(example, ensure_ascii=False)
        words.append(f"-H 'Content-Type: application/json' \\\n     -d {shlex.quote(body)}")
    return " ".join([*words, shlex.quote(url + place)])
