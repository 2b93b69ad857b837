"""From decoded values to JSON texts: what binary formats have in common.

Whatever stands in the bytes has a place in the text, or beside it. What a sender can make of few
bytes is bounded by values and by text.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec
import pyarrow as pa
from msgspec import Raw

from penstock.errors import EngineUnavailable
from penstock.schema.discover import Seen
from penstock.schema.fit import Misfits
from penstock.schema.formats import Decoded, TooMuchText
from penstock.schema.gate import Refused
from penstock.schema.names import join

MOST_VALUES = 1_000_000
"""Values of one event, those included that only its schema says. An empty message in a list takes
two bytes, and may have hundreds of fields."""

_MOST_TEXT = 64 << 20

_ROOM_LEAST, _ROOM_RATIO = 1_024, 16

_encode = msgspec.json.Encoder().encode


class Odd:
    """A value that its column cannot hold, with the type that the column has all the same."""

    __slots__ = ("form", "value")

    def __init__(self, form: type, value: object) -> None:
        self.form = form
        self.value = value


class Walk:
    """What is noted while one payload is decoded."""

    __slots__ = ("hints", "left", "strange")

    def __init__(self) -> None:
        self.left = MOST_VALUES
        self.strange = False
        """Whether the value has `Odd` or `BESIDE` in it."""
        self.hints: list[tuple[tuple[str | None, ...], type]] = []

    def spend(self, values: int) -> None:
        """Note that so many values were made; raise `Refused` when there were too many."""
        self.left -= values
        if self.left < 0:
            raise too_many()

    def odd(self, form: type, value: object) -> Odd:
        """Answer the value as one that its column, of another type, cannot hold."""
        self.strange = True
        return Odd(form, value)


BESIDE = object()
"""The key, in an object, of the keys and leaves that are beside it."""

_Walk = TypeVar("_Walk", bound=Walk)


class Enough(Exception):
    """The payload is left for another time; those before it were not for nothing."""


class Texts(Generic[_Walk]):
    """Makes the texts of payloads, given what makes a value of one."""

    def __init__(self, value: Callable[[bytes, _Walk], Any], walk: Callable[[], _Walk]) -> None:
        """Take what answers the value of a payload, or raises `Refused`, and what begins a walk."""
        self._value = value
        self._walk = walk

    def of(self, payloads: pa.Array, *, most_text: int | None = None) -> Decoded:
        """Answer what becomes of each payload; see `Decoder`.

        Where `Enough` is raised for one, or `EngineUnavailable`, those before it are told to be
        done by themselves.
        """
        texts: list[bytes] = []
        refused: dict[int, Refused] = {}
        beside: dict[int, Sequence[tuple[str, str]]] = {}
        seen: Seen | None = None
        size = 0
        for row, payload in enumerate(payloads.to_pylist()):
            walk = self._walk()
            try:
                text, leaves = self._text(payload, walk)
            except Refused as why:
                refused[row] = why
                text, leaves = b"{}", ()
            except RecursionError:
                refused[row] = too_deep()
                text, leaves = b"{}", ()
            except (Enough, EngineUnavailable):
                if row and most_text is not None:
                    raise TooMuchText(row) from None
                raise
            if leaves:
                beside[row] = leaves
            if walk.hints and row not in refused:
                seen = seen or Seen()
                for steps, form in walk.hints:
                    _hint(seen, steps, form, row)
            texts.append(text)
            size += len(text)
            if most_text is not None and size > most_text and row:
                raise TooMuchText(row)
        return Decoded(pa.array(texts, pa.binary()), refused=refused, beside=beside, seen=seen)

    def _text(self, payload: bytes, walk: _Walk) -> tuple[bytes, Sequence[tuple[str, str]]]:
        """Answer the text of a payload, and the leaves beside it."""
        value = self._value(payload, walk)
        leaves: Sequence[tuple[str, str]] = ()
        if walk.strange:
            misfits = Misfits(_ROOM_LEAST + _ROOM_RATIO * len(payload))
            value = _settled(value, (), None, misfits, walk)
            leaves = misfits.leaves
        text = _encode(value)
        if len(text) > _MOST_TEXT:
            raise too_many()
        return text, leaves


def double(value: float, walk: Walk) -> object:
    """Answer a double; NaN and the infinities as texts that a column of doubles cannot hold."""
    if math.isfinite(value):
        return value
    return walk.odd(Raw, "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")


def single(value: float, walk: Walk) -> object:
    """Answer the shortest decimal that is this 32-bit number: 0.1, not 0.10000000149011612."""
    if not math.isfinite(value):
        return double(value, walk)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        # Rounded up, the largest ones are none any more.
        if abs(short) <= _MOST_FLOAT and _narrow(short) == value:
            return short
    return float(f"{value:.9g}")


_MOST_FLOAT = 3.4028234663852886e38


def _narrow(value: float) -> float:
    narrow: float = _FLOAT.unpack(_FLOAT.pack(value))[0]
    return narrow


_FLOAT = struct.Struct("<f")


def base64_of(value: bytes) -> str:
    """Answer bytes as text."""
    return base64.b64encode(value).decode()


SECOND = 1_000_000_000
"""Nanoseconds of a second."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what it is compared with has no zone either


def moment(seconds: int, nanos: int) -> str | None:
    """Write a time as ``2026-11-26T08:00:00.120``; None for one that has no such text."""
    try:
        return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}{fraction(nanos)}"
    except OverflowError:
        return None


def fraction(nanos: int) -> str:
    """Write a fraction of a second with 3, 6 or 9 digits, or none."""
    digits = f"{nanos:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}" if digits else ""


def too_many() -> Refused:
    """Say that an event is too much in columns."""
    return Refused("too_many_values", f"it has more than {MOST_VALUES:,} values, or as much text")


def too_deep() -> Refused:
    """Say that an event goes too deep."""
    return Refused("too_deep", "its values are nested too deep")


def _settled(
    item: Any, keys: tuple[str | None, ...], path: str | None, misfits: Misfits, walk: Walk
) -> Any:
    """Answer the value with only JSON in it, and note what was beside it.

    `keys` are those from the top, None for each list.
    """
    if isinstance(item, Odd):
        walk.hints.append((keys, item.form))
        item = item.value
    if isinstance(item, dict):
        outside: Iterable[tuple[str, object]] = item.pop(BESIDE, ())
        for name, leaf in outside:
            misfits.add(leaf, join(path, name))
        for key, below in _items(item):
            item[key] = _settled(below, (*keys, key), join(path, key), misfits, walk)
    elif isinstance(item, list):
        for position, below in enumerate(item):
            item[position] = _settled(below, (*keys, None), path, misfits, walk)
    return item


def _items(found: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Answer the items that are to be settled: of most objects few are."""
    return ((key, item) for key, item in found.items() if isinstance(item, dict | list | Odd))


def _hint(seen: Seen, keys: tuple[str | None, ...], form: type, row: int) -> None:
    """Note that a value of this type stood there."""
    for key in keys:
        if key is None:
            seen.count(list, row)
            seen.element = seen.element or Seen()
            seen = seen.element
        else:
            seen.count(dict, row)
            seen = seen.fields.setdefault(key, Seen())
    seen.count(form, row)
