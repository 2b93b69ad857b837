"""Pins that end by themselves: their names say when. Pure."""

from __future__ import annotations

import re

from penstock.envelope import Micros

_ENDS = re.compile(r".+-until-([0-9]{1,12})")
_SECOND = 1_000_000


def pin_until(name: str, end: Micros) -> str:
    """Name a pin that is nobody's any more from `end` on, to the second."""
    return f"{name}-until-{end // _SECOND}"


def over(pin: str, now: Micros) -> bool:
    """Say whether the pin has an end, and that is past."""
    found = _ENDS.fullmatch(pin)
    return found is not None and int(found[1]) * _SECOND <= now
