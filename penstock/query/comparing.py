"""Comparisons of one value with bounds, so that engines can leave out row groups by them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from penstock.query.pieces import NEVER, Sql, all_of, sql, value
from penstock.query.tree import Bound, TextBound


def double(leaf: Sql, low: Bound | None, high: Bound | None) -> Sql:
    """Whether the double lies between the bounds."""
    if low is not None and low == high and low.inclusive:
        return sql("{0} = {1}", leaf, value(low.value))
    return all_of(
        *(
            compared(leaf, sign, inclusive=bound.inclusive, to=bound.value)
            for bound, sign in ((low, ">"), (high, "<"))
            if bound is not None
        )
    )


# Every integer nearer to zero has a double of its own, so that comparing it as an integer is the
# same as comparing doubles, and engines can leave out row groups by it.
_EXACT = 2.0**53


def long(leaf: Sql, low: Bound | None, high: Bound | None) -> Sql:
    """Whether the integer lies between the bounds."""
    if any(bound is not None and abs(bound.value) >= _EXACT for bound in (low, high)):
        return double(sql("CAST({0} AS DOUBLE)", leaf), low, high)
    least = None if low is None else _whole(low, math.ceil, math.floor)
    most = None if high is None else _whole(high, math.floor, math.ceil)
    if least is not None and most is not None and least.value > most.value:
        return NEVER
    return double(leaf, least, most)


def _whole(
    bound: Bound, inclusive: Callable[[float], int], exclusive: Callable[[float], int]
) -> Bound:
    """Answer the bound with a whole number that lets the same integers pass."""
    rounded = inclusive(bound.value) if bound.inclusive else exclusive(bound.value)
    return Bound(rounded, bound.inclusive)


def compared(leaf: Sql, sign: str, *, inclusive: bool, to: object) -> Sql:
    """Whether the leaf is less, or greater, as the sign says."""
    return sql(f"{{0}} {sign}{'=' if inclusive else ''} {{1}}", leaf, value(to))


_ISO_DAY = "-[0-9]{2}"
_ISO_HOUR = "[T ][0-9]{2}"
_ISO_BELOW_HOUR = (":[0-9]{2}", ":[0-9]{2}", r"\.[0-9]+")
_ISO_ZONE = "(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_MONTH, _DAY, _HOUR = 7, 10, 13


def iso_form(bound: TextBound) -> str:
    """Answer the expression of the ISO 8601 texts that can be compared with the bound."""
    zone = re.escape(bound.zone) if bound.zone else _ISO_ZONE
    here = "".join("[0-9]" if c.isdigit() else re.escape(c) for c in bound.text)
    size = len(bound.text)
    if size > _HOUR + 6:
        return f"{here}[0-9]*{zone}"
    if size >= _HOUR:
        return here + _optional(_ISO_BELOW_HOUR[(size - _HOUR) // 3 :]) + zone
    of_day = f"(?:{_ISO_HOUR}{_optional(_ISO_BELOW_HOUR)}{zone})?"
    return here + (of_day if size == _DAY else f"(?:{_ISO_DAY}{of_day})?")


def _optional(steps: Sequence[str]) -> str:
    return f"(?:{steps[0]}{_optional(steps[1:])})?" if steps else ""


# Nothing but these letters themselves becomes one of them in lower case. There is an ``I`` with a
# dot that becomes ``i``, and the Kelvin sign becomes ``k``.
_PLAIN = re.compile(r"[\x00-HJL-hjl-\x7f]*")


def in_any_case(column: str, text: str) -> Iterator[Sql]:
    """Answer bare comparisons that a column passes if it is this text in upper or lower case.

    Others pass as well, but engines leave out row groups by them, which they cannot by `lower`.
    """
    plain = _PLAIN.match(text)
    if plain and plain[0]:
        first, last = plain[0].upper(), plain[0].lower()
        yield sql(f"{column} >= {{0}}", value(first))
        yield sql(f"{column} < {{0}}", value(last[:-1] + chr(ord(last[-1]) + 1)))
