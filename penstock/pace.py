"""Speeds and silences as people write them. Pure."""

from __future__ import annotations

import re

from penstock.errors import BadRequest

_NUMBER = r"(\d+(?:\.\d+)?)"
_SPEED = re.compile(_NUMBER + "x?")
_LENGTH = re.compile(_NUMBER + r"\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def read_speed(text: str | None) -> float | None:
    """Read ``10x`` or ``0.5``; raise `BadRequest`."""
    if text is None:
        return None
    found = _SPEED.fullmatch(text.strip())
    if found is None:
        raise BadRequest(f"{text!r} is no speed: write 1x, 10x, 0.5x, or 0 for as fast as it goes")
    return float(found[1])


def read_gap(text: str | None) -> float | None:
    """Read ``5s``, ``200ms``, ``1m``, or seconds without a unit; raise `BadRequest`."""
    if text is None:
        return None
    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        raise BadRequest(f"{text!r} is no length of time: write 5s, 200ms or 1m")
    return float(found[1]) * _SECONDS[found[2]]
