"""Senders' times: numbers whose unit is told by their size, and texts of RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from penstock.envelope import Micros

# A number below each bound is in that unit. As seconds 10**11 is the year 5138, as milliseconds
# 1973: no clock that is nearly right comes near a bound, in either unit.
_UNITS: tuple[tuple[int, int, int], ...] = (
    (10**11, 1_000_000, 1),  # seconds
    (10**14, 1_000, 1),  # milliseconds
    (10**17, 1, 1),  # microseconds
    (10**20, 1, 1_000),  # nanoseconds
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# What readers of the lake can show: the years 1 to 9999.
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def micros_of(number: float) -> Micros | None:
    """Read seconds, milliseconds, microseconds or nanoseconds since 1970, whole or with a fraction.

    Answers None for what is no time: 0 (unset, with most senders), NaN, infinite, before the year 1
    or 10**20 and more. Integers are exact, cut to microseconds; fractions are rounded to them.
    """
    if number == 0:
        return None
    for bound, times, over in _UNITS:
        if abs(number) < bound:
            exact = isinstance(number, int)
            return shown(number * times // over if exact else round(number * times / over))
    return None


def micros_of_text(text: str) -> Micros | None:
    """Read a number as `micros_of` does, or a date and time with its offset as in RFC 3339.

    Answers None for everything else. Digits beyond microseconds are cut off.
    """
    if _NUMBER.fullmatch(text):
        return micros_of(float(text) if "." in text else int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else shown((moment - _EPOCH) // _MICROSECOND)


def shown(micros: float) -> Micros | None:
    """Answer a time that readers of the lake can show; None for one that they cannot."""
    return int(micros) if _FIRST <= micros <= _LAST else None
