"""How much memory events take while they wait for a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.envelope import Event

# What an event costs beside what it carries.
OVERHEAD = 256


def weight(events: Sequence[Event]) -> int:
    """Answer about how many bytes the events hold in memory."""
    heavy = OVERHEAD * len(events)
    shared: Mapping[str, str] = {}
    described = 0
    for event in events:
        heavy += len(event.payload)
        if event.key:
            heavy += len(event.key)
        if event.headers:
            heavy += sum(len(name) + len(value) for name, value in event.headers)
        # Events of one call most often share theirs: it is measured once.
        if event.metadata is not shared:
            shared = event.metadata
            described = sum(len(name) + len(value) for name, value in shared.items())
        heavy += described
    return heavy
