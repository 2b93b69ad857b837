"""What senders are told over HTTP.

One event, or a batch that was stored whole, is answered with 202 and::

    {"accepted": 2, "ids": ["…", "…"], "positions": [[0, 17, 19]]}

`ids` and `positions` are in the order of the body; a position stands for a run of events:
partition, first offset, and the offset after the last. A batch of which some parts failed also has
`outcomes`, an entry for every part in order: ``{"status": 202, "id", "position": [0, 17]}``, or the
fields of a problem (RFC 9457) with the id, and for NDJSON the line. A batch of which nothing was
stored is a problem itself, the one with the highest status, and has the `outcomes` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import msgspec

from ingest_api.accept import Outcomes, all_stored
from ingest_api.encoding import CODINGS
from ingest_api.framing import Framed
from penstock.envelope import Event, Position
from penstock.problem import CONTENT_TYPE, Problem, problem, slug

Header = tuple[bytes, bytes]

_JSON: Header = (b"content-type", b"application/json")
_PROBLEM: Header = (b"content-type", CONTENT_TYPE.encode())
_ACCEPTED = 202
_RUN = tuple[int, int, int]

# A log that has stopped waits for a person, and its error does not say how long.
_STOPPED_SECONDS = 60


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Status, headers and body of one response."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


class _Stored(msgspec.Struct, frozen=True, gc=False):
    accepted: int
    ids: Sequence[str]
    positions: Sequence[_RUN]


class _Part(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of one part of a batch."""

    status: int
    id: str | None = None
    line: int | None = None
    position: Position | None = None
    type: str | None = None
    title: str | None = None
    detail: str | None = None


class _PartlyStored(msgspec.Struct, frozen=True, gc=False):
    accepted: int
    ids: Sequence[str]
    positions: Sequence[_RUN]
    outcomes: Sequence[_Part]


_encode = msgspec.json.Encoder().encode

COLLECTED = Answer(200, (_JSON,), b'{"message":"event has been successfully collected"}')
"""The answer of Batch's HTTP collector, to the letter."""


def answer_to(framed: Framed, outcomes: Outcomes) -> Answer:
    """Tell what became of a body; `outcomes` are those of its events, in order."""
    if not framed.broken and all_stored(outcomes):
        ids = [event.id for event in framed.events]
        return Answer(_ACCEPTED, (_JSON,), _encode(_Stored(len(ids), ids, runs(outcomes))))
    return _answer_in_parts(framed, outcomes)


def refusal(error: Exception) -> Answer:
    """Tell that a whole request failed."""
    return problem_answer(problem(error))


def wrong_method(allowed: str) -> Answer:
    """Answer that the address exists, for another method."""
    told = Problem(405, "Method not allowed", f"this address takes {allowed} only", None, {})
    return problem_answer(told, (b"allow", allowed.encode()))


def problem_answer(told: Problem, *more: Header) -> Answer:
    """Answer a problem with the headers that belong to its status."""
    headers = [_PROBLEM, *more]
    if told.status == 401:  # noqa: PLR2004
        headers.append((b"www-authenticate", b"Bearer"))
    if told.status == 415:  # noqa: PLR2004
        headers.append((b"accept-encoding", ", ".join(CODINGS).encode()))
    if told.status in (429, 503):
        headers.append((b"retry-after", b"%d" % (told.retry_after or _STOPPED_SECONDS)))
    return Answer(told.status, tuple(headers), told.body())


def runs(positions: Iterable[Position]) -> list[_RUN]:
    """Fold positions into runs of neighbours: partition, first offset, offset after the last."""
    found: list[_RUN] = []
    partition, start, end = -1, 0, 0
    for at, offset in positions:
        if at == partition and offset == end:
            end += 1
            continue
        if partition >= 0:
            found.append((partition, start, end))
        partition, start, end = at, offset, offset + 1
    if partition >= 0:
        found.append((partition, start, end))
    return found


def _answer_in_parts(framed: Framed, outcomes: Outcomes) -> Answer:
    parts = list(_parts(framed, outcomes))
    failures = [became for _, became in parts if isinstance(became, Exception)]
    if not framed.batch:
        return refusal(failures[0])
    told = [
        _told(event, became, None if framed.lines is None else framed.lines[place])
        for place, (event, became) in enumerate(parts)
    ]
    ids = [event.id for event, became in parts if event and not isinstance(became, Exception)]
    if ids:
        positions = runs(became for _, became in parts if not isinstance(became, Exception))
        return Answer(_ACCEPTED, (_JSON,), _encode(_PartlyStored(len(ids), ids, positions, told)))
    worst = max(map(problem, failures), key=lambda told: told.status)
    return problem_answer(replace(worst, extra={**worst.extra, "outcomes": told}))


def _parts(
    framed: Framed, outcomes: Outcomes
) -> Iterator[tuple[Event | None, Position | Exception]]:
    """Go through the body in order: events with their outcomes, broken parts with their errors."""
    stored = zip(framed.events, outcomes, strict=True)
    for place in range(len(framed.events) + len(framed.broken)):
        if place in framed.broken:
            yield None, framed.broken[place]
        else:
            yield next(stored)


def _told(event: Event | None, became: Position | Exception, line: int | None) -> _Part:
    id_ = event.id if event else None
    if not isinstance(became, Exception):
        return _Part(_ACCEPTED, id=id_, line=line, position=became)
    told = problem(became)
    return _Part(
        told.status,
        id=id_,
        line=line,
        type=f"urn:penstock:{slug(told.title)}",
        title=told.title,
        detail=told.detail,
    )
