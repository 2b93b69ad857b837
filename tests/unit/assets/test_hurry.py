"""What landing hears of who waits for it."""

from __future__ import annotations

import threading
import time

import structlog
from builders import FLIGHTS

from assets.hurry import Hurry
from penstock.envelope import CollectionId


class Hand:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_landing_hurries_for_a_while_with_what_somebody_waits_for() -> None:
    """Who waits says so again; a message that stays would make landing hurry for ever."""
    clock = Hand()
    hurry = Hurry(clock)
    hurry.hear("main.flights")
    clock.now += 2.0
    hurry.hear("penstock_system.replay_attempts")

    clock.now += 0.9
    both = hurry.collections()
    clock.now += 0.2
    one = hurry.collections()
    clock.now += 2.0

    ledger = CollectionId("penstock_system", "replay_attempts")
    assert both == {FLIGHTS, ledger}
    assert one == {ledger}
    assert hurry.collections() == frozenset()


def test_what_is_no_name_is_left_out() -> None:
    hurry = Hurry()
    with structlog.testing.capture_logs() as lines:
        hurry.hear("../etc")

    assert hurry.collections() == frozenset()
    assert [line["event"] for line in lines] == ["message not understood"]


def test_a_message_ends_the_wait() -> None:
    """A plan must not wait for landing to have slept enough."""
    hurry = Hurry()
    threading.Timer(0.05, hurry.hear, ["main.flights"]).start()
    begun = time.monotonic()
    hurry.wait(30.0)

    assert time.monotonic() - begun < 10.0
    assert hurry.collections() == {FLIGHTS}
