"""Times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from penstock.errors import BadRequest

_AGO = re.compile(r"(\d+)\s*([smhdw])")
_DAYS = re.compile("([1-9][0-9]{0,4})d")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

FOREVER = "forever"

SinceOption = Annotated[
    str | None,
    typer.Option("--since", help="Received at or after: `15m`, `2h`, `7d` ago, or an ISO time."),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", help="Received before: as for --since.")
]


def parse_moment(text: str | None, now: datetime) -> datetime | None:
    """Read ``15m`` (that long ago) or an ISO 8601 time; without a zone it is UTC."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadRequest(
            f"{text!r} is no time: write 15m, 2h, 7d or 2026-11-23T08:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def lasting(text: str | None) -> str | None:
    """Answer a time as a saved search keeps it: ``15m`` stays relative, as ``now-15m``."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return f"now-{int(ago[1])}{ago[2]}"
    moment = parse_moment(text, utc_now())
    assert moment is not None  # noqa: S101 - of a text
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_end(text: str | None, now: datetime) -> datetime | None:
    """Read ``30d`` (from now on) or an ISO 8601 time; without a zone it is UTC."""
    moment = parse_moment(text, now)
    given_as_length = text is not None and _AGO.fullmatch(text.strip())
    return now + (now - moment) if moment and given_as_length else moment


def parse_start(at: str | None, after: str | None, now: datetime) -> datetime | None:
    """Read when something is to begin: an ISO 8601 time, or a length of time from now on."""
    if at is not None and after is not None:
        raise BadRequest("say either when it starts or after how long, not both")
    if at is not None and _AGO.fullmatch(at.strip()):
        raise BadRequest(f"{at!r} is no time: write 2026-11-23T08:00:00Z, or --in {at.strip()}")
    if after is not None and not _AGO.fullmatch(after.strip()):
        raise BadRequest(f"{after!r} is no length of time: write 15m, 2h or 7d")
    return parse_end(at or after, now)


def utc_now() -> datetime:
    """Answer the time of day in UTC."""
    return datetime.now(UTC)


def parse_days(text: str) -> int | None:
    """Read how long something is kept: ``90d`` as days, ``forever`` as None; raise `BadRequest`."""
    if text == FOREVER:
        return None
    found = _DAYS.fullmatch(text)
    if found is None:
        raise BadRequest(f"how long rows are kept is said in days, as 90d, or as {FOREVER!r}")
    return int(found.group(1))
