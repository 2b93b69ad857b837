"""CloudEvents 1.0 over HTTP: what an event says about itself, in all three modes.

- structured: the document as it was received is the payload;
- batch: so are the exact bytes of each element;
- binary: the attributes are ``ce-`` headers and the body is the payload.

Only what frames the event is looked at: JSON that can be taken apart, and the four attributes that
every event must have. Attributes become metadata as ``ce_<name>``, in their text form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

import msgspec

from ingest_api.ids import sender_id
from ingest_api.times import micros_of_text
from penstock.envelope import Micros
from penstock.errors import Malformed, TooMany

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BINARY_MARK = b"ce-specversion"
"""The header that says that the other ``ce-`` headers describe an event."""

_REQUIRED = ("specversion", "id", "source", "type")
_DATA = ("data", "data_base64")


@dataclass(frozen=True, slots=True)
class Described:
    """What a CloudEvent says about itself."""

    id: str
    event_time: Micros | None
    metadata: dict[str, str]


class _Element(msgspec.Struct, gc=False):
    specversion: str


_document = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[_Element])
_raw_elements = msgspec.json.Decoder(list[msgspec.Raw])
_scalar = msgspec.json.Decoder(str | bool | int | float)

# Deep nesting and bad UTF-8 in a name have errors of Python's own.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def described(document: bytes) -> Described:
    """Read one event in structured mode; raise `Malformed` if it is none."""
    try:
        fields = _document.decode(document)
        attributes = {
            name: _text(_scalar.decode(raw), raw)
            for name, raw in fields.items()
            if name not in _DATA and _is_scalar(raw)
        }
    except _UNREADABLE as error:
        raise Malformed("the CloudEvents document is no JSON object that can be read") from error
    return _described(attributes)


def elements(body: bytes, *, most: int) -> list[bytes]:
    """Take a batch apart into the exact bytes of its events.

    Raises `Malformed` if it is no JSON array, or if an element is no object with a specversion:
    nothing in it can be trusted then. Raises `TooMany` over `most` events.
    """
    try:
        # This pass comes first because it gives up at the first foreign element: without it 16 MB
        # of `[1,1,1…` would become half a gigabyte of objects.
        count = len(_elements.decode(body))
        if count > most:
            raise TooMany("batch", count, most)
        return [bytes(raw) for raw in _raw_elements.decode(body)]
    except _UNREADABLE as error:
        raise Malformed("the body is no JSON array of CloudEvents") from error


def described_by_headers(headers: Iterable[tuple[bytes, bytes]]) -> Described:
    """Read the ``ce-`` headers of binary mode; raise `Malformed` if a needed one is missing."""
    return _described(
        {
            name[3:].decode("latin-1"): unquote(value.decode("latin-1"))
            for name, value in headers
            if name.startswith(b"ce-")
        }
    )


def _described(attributes: dict[str, str]) -> Described:
    missing = [name for name in _REQUIRED if not attributes.get(name)]
    if missing:
        raise Malformed(f"the CloudEvent has no {', '.join(missing)}")
    if attributes["specversion"] != "1.0":
        raise Malformed("the CloudEvent has a specversion other than 1.0")
    return Described(
        id=sender_id(attributes["id"]),
        event_time=micros_of_text(attributes.get("time", "")),
        metadata={f"ce_{name}": value for name, value in attributes.items()},
    )


def _is_scalar(raw: msgspec.Raw) -> bool:
    """Say whether the value may be an attribute: objects and lists may not, null means absent."""
    return bytes(memoryview(raw)[:1]) not in (b"{", b"[", b"n")


def _text(value: str | float, raw: msgspec.Raw) -> str:
    """Answer a string's content, and numbers and booleans as they were written."""
    return value if isinstance(value, str) else bytes(raw).decode("ascii")
