"""Where in a payload lies what made landing refuse it, as far as that can be found."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from penstock.schema.gate import NOT_READ, value_of
from penstock.schema.names import join

AROUND = 40
"""Bytes that are shown on either side of the place."""

_BYTE = re.compile(r"\(byte (\d+)\)")
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_ASCII = 0x80


@dataclass(frozen=True, slots=True)
class PlaceIn:
    """Where a payload is wrong: at a byte or at a path, and what stands around it, escaped.

    `before` and `after` meet at `byte`; what is cut off has a number of bytes in `before_cut` and
    `after_cut`.
    """

    byte: int | None
    path: str | None
    before: str
    after: str
    before_cut: int
    after_cut: int


def place_of(
    payload: bytes, reason: str, detail: str | None, *, max_depth: int, max_keys: int
) -> PlaceIn:
    """Answer where the payload is wrong, given the reason and detail of its quarantine row.

    Without a place that can be named it is the beginning, with neither byte nor path.
    """
    byte: int | None = None
    path: str | None = None
    found = _BYTE.search(detail or "")
    if found is not None:
        byte = min(int(found[1]), len(payload))
    elif reason == "too_deep":
        byte = _too_deep(payload, max_depth)
    elif reason == "too_many_keys":
        path = _too_many_keys(payload, max_keys)
    at = byte or 0
    start, end = max(0, at - AROUND), min(len(payload), at + AROUND)
    return PlaceIn(
        byte=byte,
        path=path,
        before=escaped(payload[start:at]),
        after=escaped(payload[at:end]),
        before_cut=start,
        after_cut=len(payload) - end,
    )


def escaped(content: bytes) -> str:
    r"""Write bytes for a terminal: ASCII as it is, all else as ``\n`` or ``\xNN``."""
    return "".join(map(_escaped_byte, content))


def _escaped_byte(byte: int) -> str:
    return f"\\x{byte:02x}" if byte >= _ASCII else repr(chr(byte))[1:-1]


def _too_deep(payload: bytes, max_depth: int) -> int | None:
    """Answer the byte that opens the first level below `max_depth`."""
    depth = 0
    for found in _TEXT.finditer(payload):
        match found[0][:1]:
            case b"{" | b"[":
                depth += 1
                if depth > max_depth:
                    return found.start()
            case b"}" | b"]":
                depth -= 1
    return None


def _too_many_keys(payload: bytes, max_keys: int) -> str | None:
    """Answer the path of the first object with more than `max_keys` keys; None if none has."""
    try:
        waiting = [("", value_of(payload))]
    except (*NOT_READ, msgspec.ValidationError):
        return None
    while waiting:
        path, value = waiting.pop(0)
        if isinstance(value, dict):
            if len(value) > max_keys:
                return path
            waiting += [(join(path or None, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(path, item) for item in value]
    return None
