"""Times as people write them in a search. A time stands for a span: a coarse date for all of it.

Everything is UTC, in whole microseconds.
"""

from __future__ import annotations

import re
from datetime import date, time
from typing import NamedTuple

from penstock.envelope import Micros
from penstock.query.tree import TextBound

EXPECTED = "expected a time, as in 2026-11-22, 2026-11-22T06:30:00Z, now, now-15m or now/d"

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH = date(1970, 1, 1).toordinal()
_LEAST = (1 - _EPOCH) * DAY
_MOST = (date.max.toordinal() + 1 - _EPOCH) * DAY

_FIXED = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_YEAR = 12
_MONTHS = {"M": 1, "y": _YEAR}
_MONDAY = date(1969, 12, 29).toordinal() - _EPOCH

_ISO = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2})(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?)?)?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?)?)?"
)
_RELATIVE = re.compile(r"now(?P<steps>(?:[+-][0-9]{1,9}[smhdwMy])*)(?:/(?P<unit>[smhdwMy]))?")
_STEP = re.compile(r"([+-][0-9]+)([smhdwMy])")


class NotATime(ValueError):
    """A text that stands for no time between the years 1 and 9999."""


class Span(NamedTuple):
    """The times from `start` to `end` (exclusive)."""

    start: Micros
    end: Micros


def span(text: str, now: Micros) -> Span:
    """Answer the span that a time stands for; raises `NotATime`."""
    if relative := _RELATIVE.fullmatch(text):
        return _around_now(relative, now)
    if iso := _ISO.fullmatch(text):
        return _written(iso)
    raise NotATime(text)


def moment(text: str, now: Micros) -> Micros:
    """Answer when the span begins that a time stands for; raises `NotATime`."""
    return span(text, now).start


def text_bound(text: str, *, inclusive: bool) -> TextBound | None:
    """Answer the bound that an ISO 8601 text is below a path; None for other text.

    A bare year is a number there.
    """
    iso = _ISO.fullmatch(text)
    if iso is None or iso["month"] is None:
        return None
    try:
        _written(iso)
    except NotATime:
        return None
    zone = iso["zone"] or ""
    return TextBound(text.removesuffix(zone), zone, inclusive)


def _written(iso: re.Match[str]) -> Span:
    year, month, day, hour, minute, second = (
        int(iso[part]) if iso[part] else None
        for part in ("year", "month", "day", "hour", "minute", "second")
    )
    if year is None:
        raise NotATime(iso.string)
    try:
        first = date(year, _or(month, 1), _or(day, 1)).toordinal() - _EPOCH
        time(_or(hour, 0), _or(minute, 0), _or(second, 0))
    except ValueError as error:
        raise NotATime(iso.string) from error
    if month is None:
        return Span(first * DAY, _month_start((year + 1) * _YEAR) * DAY)
    if day is None:
        return Span(first * DAY, _month_start(year * _YEAR + month) * DAY)
    if hour is None:
        return Span(first * DAY, (first + 1) * DAY)

    start = first * DAY + hour * HOUR + _or(minute, 0) * MINUTE + _or(second, 0) * SECOND
    width = HOUR if minute is None else MINUTE if second is None else SECOND
    if fraction := iso["fraction"]:
        start += int(fraction[:6].ljust(6, "0"))
        width = 10 ** max(0, 6 - len(fraction))
    start -= _offset(iso["zone"])
    return Span(start, start + width)


def _or(number: int | None, default: int) -> int:
    return default if number is None else number


def _offset(zone: str | None) -> Micros:
    if zone is None or zone == "Z":
        return 0
    sign = -1 if zone[0] == "-" else 1
    return sign * (int(zone[1:3]) * HOUR + int(zone[-2:]) * MINUTE)


def _around_now(relative: re.Match[str], now: Micros) -> Span:
    moment = now
    for amount, unit in _STEP.findall(relative["steps"]):
        moment = _moved(moment, int(amount), unit)
        if not _LEAST <= moment < _MOST:
            raise NotATime(relative.string)
    unit = relative["unit"]
    return Span(moment, moment + 1) if unit is None else _around(moment, unit)


def _moved(moment: Micros, amount: int, unit: str) -> Micros:
    if unit in _FIXED:
        return moment + amount * _FIXED[unit]
    day, rest = divmod(moment, DAY)
    today = date.fromordinal(day + _EPOCH)
    month = today.year * _YEAR + today.month - 1 + amount * _MONTHS[unit]
    if not _YEAR <= month < _YEAR * (date.max.year + 1):
        raise NotATime(unit)
    start = date(month // _YEAR, month % _YEAR + 1, 1).toordinal() - _EPOCH
    # 31 March less a month is the last day of February.
    length = _month_start(month + 1) - start
    return (start + min(today.day, length) - 1) * DAY + rest


def _around(moment: Micros, unit: str) -> Span:
    """Answer the whole second, minute, hour, day, week, month or year around a moment."""
    if unit in _FIXED:
        offset = _MONDAY * DAY if unit == "w" else 0
        start = (moment - offset) // _FIXED[unit] * _FIXED[unit] + offset
        return Span(start, start + _FIXED[unit])
    today = date.fromordinal(moment // DAY + _EPOCH)
    month = today.year * _YEAR + (today.month - 1 if unit == "M" else 0)
    return Span(_month_start(month) * DAY, _month_start(month + _MONTHS[unit]) * DAY)


def _month_start(month: int) -> int:
    """Answer the first day of a month that is counted from January of the year 0.

    The month behind the last one has a first day, too.
    """
    if month == _YEAR * (date.max.year + 1):
        return date.max.toordinal() + 1 - _EPOCH
    return date(month // _YEAR, month % _YEAR + 1, 1).toordinal() - _EPOCH
