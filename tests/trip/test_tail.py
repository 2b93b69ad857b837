"""A live tail beside landing, with every process that runs, embedded and on the real engines."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest
from served import until

from penstock.client.tail import Shown
from penstock.errors import EngineUnavailable

pytestmark = [pytest.mark.trip, pytest.mark.timeout(600), pytest.mark.xdist_group("trip")]

EVENTS = 600


def test_every_acknowledged_event_is_shown_once_whatever_landing_does(here) -> None:
    """The connection is broken off every hundred events, and taken up where it was."""
    here.cli("collection", "create", "followed")
    shown: list[int] = []
    ready, enough = threading.Event(), threading.Event()

    def follow() -> None:
        after = None
        with here.client() as client:
            while not enough.is_set():
                try:
                    for message in client.tail("followed", "odd:true", after=after):
                        after = message.position or after
                        ready.set()
                        if isinstance(message, Shown):
                            shown.append(json.loads(message.event.payload_bytes())["n"])
                            if len(shown) % 100 == 0:
                                break
                        if enough.is_set():
                            return
                except EngineUnavailable:
                    continue

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert ready.wait(60)
        for first in range(0, EVENTS, 20):
            lines = (
                json.dumps({"n": n, "odd": n % 2 == 1}).encode() for n in range(first, first + 20)
            )
            assert here.post("followed", b"\n".join(lines), "application/x-ndjson").is_success
            if first == EVENTS // 2:
                here.landed("followed")
        until(lambda: len(shown) >= EVENTS // 2, 60)
        here.landed("followed")
    finally:
        enough.set()
        thread.join(60)

    assert Counter(shown) == Counter(range(1, EVENTS, 2))
