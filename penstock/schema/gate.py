r"""The gate: whether bytes are JSON that can be kept in columns, decided in one place.

Its one JSON parser is msgspec, which holds to RFC 8259. So these are not JSON here: a byte order
mark in front, a surrogate without its other half (``"\ud800"`` has no UTF-8), invalid UTF-8, NaN
and Infinity, comments, a second value behind the first, no bytes at all. Duplicate keys are JSON:
the last one counts.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Raw

NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, of another type, or nested too deep."""

decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
"""Answers the fields of an object as the texts that they have in it."""
decode_list = msgspec.json.Decoder(list[Raw]).decode
"""Answers the elements of a list as the texts that they have in it."""

_decode_raw = msgspec.json.Decoder(Raw).decode
# A fraction is kept as its text: a float would lose digits, and 1e400 altogether.
_decode = msgspec.json.Decoder(float_hook=Raw).decode

# Python reads no longer integers (`sys.set_int_max_str_digits`), and so msgspec does not.
_LONGEST_INTEGER = 4_300


class Refused(Exception):
    """These bytes are no JSON within the bounds. `detail` never holds any of them."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@lru_cache(maxsize=256)
def declares_json(content_type: str | None) -> bool:
    """Say whether a content type promises JSON, as ``application/json`` and ``…+json`` do."""
    media_type = (content_type or "").partition(";")[0]
    subtype = media_type.partition("/")[2].strip().lower()
    return subtype == "json" or subtype.endswith("+json")


def read(payload: bytes, *, max_depth: int, max_keys: int) -> bytes:
    """Answer the text of the one JSON value of a payload, without white space around it.

    Raises `Refused` unless it is valid, nested `max_depth` levels at most (``{"a": 1}`` has one)
    and without an object of more than `max_keys` different keys.
    """
    try:
        payload.decode()
        # This reads over strings, numbers and keys, and is as strict as decoding them.
        text = bytes(_decode_raw(payload))
        # Counting brackets is cheaper than decoding, and most documents have few.
        if text.count(b"{") + text.count(b"[") > max_depth or text.count(b":") > max_keys:
            _check_size(value_of(text), max_depth, max_depth=max_depth, max_keys=max_keys)
    except UnicodeDecodeError as error:
        detail = f"JSON is malformed: invalid UTF-8 (byte {error.start})"
        raise Refused("invalid_json", detail) from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except msgspec.DecodeError as error:
        raise Refused("invalid_json", _sentence(error, payload)) from None
    return text


def value_of(text: bytes | Raw) -> object:
    """Answer the value of a valid JSON text; numbers with a point or exponent are `Raw`."""
    try:
        return _decode(text)
    except msgspec.ValidationError:
        # The only thing that msgspec cannot hold here is an integer of thousands of digits.
        # Going down level by level never looks at numbers, but takes ten times as long.
        return _value_by_level(bytes(text))


def _value_by_level(text: bytes) -> object:
    match text[:1]:
        case b"{":
            return {key: _value_by_level(bytes(t)) for key, t in decode_object(text).items()}
        case b"[":
            return [_value_by_level(bytes(t)) for t in decode_list(text)]
        case _ if len(text) > _LONGEST_INTEGER and text.lstrip(b"-").isdigit():
            return Raw(text)
        case _:
            return _decode(text)


def _check_size(value: object, levels: int, *, max_depth: int, max_keys: int) -> None:
    if not isinstance(value, dict | list):
        return
    if levels == 0:
        raise _too_deep(max_depth)
    if isinstance(value, dict) and len(value) > max_keys:
        raise Refused("too_many_keys", f"an object has more than {max_keys:,} keys")
    for item in value.values() if isinstance(value, dict) else value:
        _check_size(item, levels - 1, max_depth=max_depth, max_keys=max_keys)


def _too_deep(max_depth: int) -> Refused:
    return Refused("too_deep", f"nested deeper than {max_depth} levels")


def _sentence(error: msgspec.DecodeError, payload: bytes) -> str:
    """Answer the parser's sentence; it names the byte unless the end came too early."""
    sentence = str(error)
    return sentence if "(byte " in sentence else f"{sentence} (byte {len(payload)})"
