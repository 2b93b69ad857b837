"""Events and times for tests, with everything but the point of the test filled in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.envelope import CollectionId, Event, Micros

FLIGHTS = CollectionId("main", "flights")
NOON = 1_764_000_000_000_000
"""2025-11-24 16:00 UTC, in microseconds."""


def event(
    payload: bytes | str = b"{}",
    *,
    id: str = "",  # noqa: A002 - the field's own name
    received_at: Micros = NOON,
    content_type: str | None = "application/json",
    key: bytes | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
    metadata: dict[str, str] | None = None,
    event_time: Micros | None = None,
    source: str = "http",
    quarantine: bool = False,
    named: bool = False,
) -> Event:
    """Answer an event; its id is its payload unless one is given."""
    body = payload.encode() if isinstance(payload, str) else payload
    return Event(
        id=id or body[:40].decode("latin-1"),
        received_at=received_at,
        payload=body,
        source=source,
        content_type=content_type,
        key=key,
        headers=headers,
        metadata=metadata or {},
        event_time=event_time,
        quarantine=quarantine,
        named=named,
    )


def ticking(start: Micros = NOON, step: Micros = 1_000) -> Callable[[], Micros]:
    """Answer a clock that moves by `step` microseconds at each look."""
    now = start - step

    def clock() -> Micros:
        nonlocal now
        now += step
        return now

    return clock


def numbered(prefix: str = "id") -> Callable[[int], Sequence[str]]:
    """Answer a source of ids ``id-1``, ``id-2`` and so on."""
    last = 0

    def ids(count: int) -> Sequence[str]:
        nonlocal last
        first, last = last + 1, last + count
        return [f"{prefix}-{number}" for number in range(first, last + 1)]

    return ids
