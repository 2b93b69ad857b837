"""Errors as `application/problem+json` (RFC 9457): the one table of status codes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from penstock import errors

CONTENT_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[errors.PenstockError], int], ...] = (
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.AlreadyExists, 409),
    (errors.CollectionPaused, 409),
    (errors.WrongState, 409),
    (errors.Loop, 409),
    (errors.TooSlow, 408),
    (errors.TooLarge, 413),
    (errors.TooMany, 413),
    (errors.UnknownEncoding, 415),
    (errors.TooFast, 429),
    (errors.Rejected, 400),
    (errors.Unavailable, 503),
    (errors.Stopped, 503),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What a client is told; `retry_after` in seconds goes into the header of that name."""

    status: int
    title: str
    detail: str
    retry_after: int | None
    extra: dict[str, object]

    def body(self) -> bytes:
        """Answer the JSON document."""
        return msgspec.json.encode(
            {
                "type": f"urn:penstock:{slug(self.title)}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                **self.extra,
            }
        )


def slug(title: str) -> str:
    """``Too large`` as ``too-large``."""
    return title.lower().replace(" ", "-")


def problem(error: Exception) -> Problem:
    """Tell a client about an error; one that was not raised on purpose shows no detail."""
    if not isinstance(error, errors.PenstockError):
        return Problem(500, "Internal error", "something went wrong; the log says what", None, {})
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).capitalize()
    retry_after = error.retry_after if isinstance(error, errors.Unavailable) else None
    extra: dict[str, object] = {}
    if isinstance(error, errors.Rejected) and error.field:
        extra["field"] = error.field
    if isinstance(error, errors.BadQuery):
        extra |= {"position": error.position, "query": error.text}
    return Problem(status, title, str(error), retry_after, extra)
