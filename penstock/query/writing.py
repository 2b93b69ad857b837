"""Fields and values as a search has them, so that reading gives them back. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.query.parse import LONGEST, field_of
from penstock.query.tree import Column, Field, Header, Metadata, Payload, Quarantine, Time
from penstock.schema.names import path_text

# What ends a bare text or means something in one; `path_text` writes a backslash before some.
_SPECIAL = re.compile(r'[\s()\[\]{}"]')
_PLAIN = re.compile(r"[^\W_][\w.@/+-]*")
_WORDS = ("AND", "OR", "NOT", "TO", "null")
_EXACT = 2.0**53


def field_text(field: Field) -> str:
    """Answer the shortest text that means the field."""
    match field:
        case Payload(keys):
            path = payload_path(keys)
            bare = path and path[0] not in "-+" and path != "_exists_"
            return path if bare and field_of(path) == field else f"data.{path}" if keys else "data"
        case Header(name):
            return "headers" if name is None else f"headers.{_escaped(_dotted(name))}"
        case Metadata(name):
            return "metadata" if name is None else f"metadata.{_escaped(_dotted(name))}"
        case Quarantine(name):
            return f"quarantine.{name}"
        case Column(name) | Time(name):
            return name


def payload_path(keys: Sequence[str]) -> str:
    """Answer what names a leaf of the payload behind ``data.``."""
    return _escaped(path_text(keys))


def value_text(text: str) -> str:
    """Answer the text as the value of a field, in quotes where it needs them."""
    if _PLAIN.fullmatch(text) and text not in _WORDS:
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def number_text(number: float) -> str:
    """Answer a number as it is written in JSON; one beyond all doubles as ``1e999``."""
    if number in (float("inf"), float("-inf")):
        return "1e999" if number > 0 else "-1e999"
    if number.is_integer() and abs(number) < _EXACT:
        return str(int(number))
    return repr(number)


def condition_text(field: Field, value: str) -> str | None:
    """Answer the search for a value of a field; None if it would be longer than any search."""
    text = f"{field_text(field)}:{value_text(value)}"
    return text if len(text) <= LONGEST else None


def _dotted(name: str) -> str:
    """Answer a name whose dots part nothing."""
    return re.sub(r'([ :"\\])', r"\\\1", name)


def _escaped(path: str) -> str:
    """Write a backslash before what else would end a path, and leave those that are there."""
    return re.sub(r"\\.|" + _SPECIAL.pattern, _with_backslash, path, flags=re.DOTALL)


def _with_backslash(found: re.Match[str]) -> str:
    return found[0] if found[0][0] == "\\" else f"\\{found[0]}"
