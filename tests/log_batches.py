"""Batches as they are read from a log, for tests of what happens to them afterwards."""

from __future__ import annotations

import pyarrow as pa
from builders import event

from penstock.codec import Gathering, encode
from penstock.envelope import Event


def log_batch(*events: Event | bytes | str) -> pa.RecordBatch:
    """Answer these events as they stand on a log from offset 0; payloads become JSON events."""
    full = [e if isinstance(e, Event) else event(e) for e in events]
    gathering = Gathering()
    if full:
        gathering.add(encode(full), 0, 0, len(full))
    return gathering.batch("log-1", 0)
