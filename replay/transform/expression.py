"""Expressions of JMESPath over an event: without side effects, and with a bound. Pure.

JMESPath has no loops, and its cost is that of the event times that of the expression, but for
two things. A list made of another's parts twice (``[@, @][] | [@, @][] | …``) doubles with each
step: that is refused when the expression is read. ``join`` and ``to_string`` write text as long as
the event says: they stop at a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Self

import jmespath
import msgspec
from jmespath import functions
from jmespath.exceptions import JMESPathError
from jmespath.visitor import Options as JmespathOptions

from replay.transform.document import Unchangeable

MOST_BYTES = 1 << 20
"""Of what one expression answers, as JSON."""

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?P<rest>\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_LITERAL = re.compile(r"\s*`\s*(-?\d[\d.eE+-]*)\s*`\s*", re.ASCII)
_CHAINS = frozenset(
    {
        *("pipe", "subexpression", "index_expression"),
        *("projection", "value_projection", "filter_projection"),
    }
)
_CONTAINERS = frozenset({"multi_select_list", "multi_select_dict"})
_OVER_PARTS = frozenset({"map", "sort_by", "min_by", "max_by"})

_encode = msgspec.json.Encoder().encode


class NotAnExpression(Exception):
    """A text is no expression, or none that may be used. `at` counts its characters from 0."""

    def __init__(self, said: str, at: int = 0) -> None:
        super().__init__(said)
        self.at = at


class Number(float):
    """A number with a point or an exponent, and the text that it was sent as."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Keep the text beside the number."""
        made = super().__new__(cls, text)
        made.text = text
        return made


# jmespath goes by the names of types.
Number.__name__ = "float"

_decode = msgspec.json.Decoder(float_hook=Number).decode


def value_of(text: bytes) -> object:
    """Answer the value of a JSON text; numbers are written again as they were."""
    try:
        return _decode(text)
    except msgspec.ValidationError:
        # An integer of thousands of digits.
        raise Unchangeable("a number of the payload is too long to compute with") from None


def json_of(value: object) -> bytes:
    """Answer a value as JSON; raise `Unchangeable` for one that has none, or is too long."""
    parts: list[bytes] = []
    room = MOST_BYTES
    for part in _parts(value):
        room -= len(part)
        if room < 0:
            raise Unchangeable("an expression answers too much")
        parts.append(part)
    return b"".join(parts)


def _parts(value: object) -> Iterator[bytes]:
    match value:
        case Number():
            yield value.text.encode()
        case float() if not isfinite(value):
            raise Unchangeable("an expression answers what is no number")
        case dict():
            yield b"{"
            for number, (key, each) in enumerate(value.items()):
                yield (b"," if number else b"") + _encode(key) + b":"
                yield from _parts(each)
            yield b"}"
        case list():
            yield b"["
            for number, each in enumerate(value):
                if number:
                    yield b","
                yield from _parts(each)
            yield b"]"
        case None | bool() | int() | float() | str():
            # msgspec would write integers beyond 64 bits, too, but refuses them.
            yield str(value).encode() if type(value) is int else _encode(value)
        case _:
            raise Unchangeable("an expression answers what is no JSON")


class _Functions(functions.Functions):  # type: ignore[misc]  # it has no types
    """Those of JMESPath, with numbers that keep their digits and texts that have a bound."""

    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})  # type: ignore[untyped-decorator]
    def _func_join(self, separator: str, array: Sequence[str]) -> str:
        if len(separator) * len(array) + sum(map(len, array)) > MOST_BYTES:
            raise Unchangeable("an expression answers too much")
        return separator.join(array)

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_to_string(self, value: object) -> str:
        return value if isinstance(value, str) else json_of(value).decode()

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_to_number(self, value: object) -> float | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return None
        number = value_of(found[0].encode())
        return number if isinstance(number, int | float) else None


_OPTIONS = JmespathOptions(custom_functions=_Functions())
_FUNCTIONS = frozenset(_Functions.FUNCTION_TABLE)


class Expression:
    """An expression that was read."""

    def __init__(self, text: str) -> None:
        """Read it; raise `NotAnExpression`."""
        try:
            self._parsed = jmespath.compile(text)
            nodes = list(_nodes(self._parsed.parsed))
            spread = _spread(self._parsed.parsed)
        except JMESPathError as error:
            raise NotAnExpression(_said(error), getattr(error, "lex_position", 0)) from None
        except RecursionError:
            raise NotAnExpression("it is nested too deep") from None
        for node in nodes:
            if node["type"] == "function_expression" and node["value"] not in _FUNCTIONS:
                raise NotAnExpression(f"there is no function {node['value']}()")
        if spread > 1:
            raise NotAnExpression(
                "it makes a list or an object of parts of another that it made, which could grow "
                "without end"
            )
        self.constant: bytes | None = None
        """What it answers for every event, as JSON, if that is always the same."""
        if all(node["type"] == "literal" for node in nodes):
            try:
                self.constant = json_of(self._parsed.parsed["value"])
            except Unchangeable as error:
                raise NotAnExpression(str(error)) from None
            # What stands between backquotes is JSON, and its numbers keep their digits.
            if (found := _LITERAL.fullmatch(text)) is not None:
                self.constant = found[1].encode()

    def value(self, root: Mapping[str, object]) -> object:
        """Answer what it says of the event; raise `Unchangeable` if it says nothing of it."""
        try:
            return self._parsed.search(root, _OPTIONS)
        except Unchangeable:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, its text may hold values of the event
            raise Unchangeable("an expression cannot be computed") from None

    def holds(self, root: Mapping[str, object]) -> bool:
        """Say whether it answers anything but false, null, and what is empty."""
        value = self.value(root)
        return value is not None and value is not False and value not in ("", [], {})


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("children", ()):
        if isinstance(child, dict):
            yield from _nodes(child)


def _spread(node: Mapping[str, Any]) -> int:
    """Answer how often, one upon the other, it makes several values of one."""
    below = [_spread(child) for child in node.get("children", ()) if isinstance(child, dict)]
    kind = node["type"]
    if kind in _CHAINS or (kind == "function_expression" and node["value"] in _OVER_PARTS):
        return sum(below)
    return max([*below, int(kind in _CONTAINERS)])


def _said(error: JMESPathError) -> str:
    """Answer what jmespath has against a text, in one line; it is the caller's own text."""
    first = str(error).partition("\n")[0]
    return first.partition(": Parse error")[0][:200].rstrip(":")
