"""What the SQS target keeps beyond the promise of every target."""

from __future__ import annotations

from collections import Counter

import pytest
import ugly
from builders import event
from far_sides import far_side, sent

from replay.targets import ADDED, Delivered


@pytest.mark.engines
def test_fifo_queues_keep_the_order_of_a_key_and_fold_what_is_sent_again() -> None:
    """The same attempt again, as after a lost answer; another replay is another message."""
    events = [event(b"%d" % n, key=b"k %d" % (n % 2)) for n in range(6)]
    with far_side("sqs", fifo=True) as far:
        for replay in ("r1", "r1", "r2"):
            assert sent(far.open(replay_id=replay), events) == [Delivered(200)] * 6
        took = far.took(12)

    for key in (0, 1):
        mine = [int(each.payload) for each in took if int(each.payload) % 2 == key]
        assert mine == [n for n in range(6) if n % 2 == key] * 2
    assert len(took) == 12


@pytest.mark.engines
@pytest.mark.parametrize("mode", ["add", "verbatim"])
def test_sqs_headers_are_attributes_or_all_in_one(mode) -> None:
    """Ten attributes are all there are."""
    from replay.targets.sqs import headers_of

    events = ugly.events(300, largest=150_000)
    with far_side("sqs") as far:
        sent(far.open(headers=mode), events)
        took = far.took(len(events))

    ours = {"penstock-key", "penstock-encoding", "content-type", *ADDED}
    arrived = Counter(
        tuple(sorted(headers_of([p for p in found.headers if p[0] not in ours]))) for found in took
    )
    skipped = {"penstock-key", "penstock-encoding", *ADDED} if mode == "add" else set()
    wanted = Counter(
        tuple(sorted(pair for pair in each.headers if pair[0] not in skipped)) for each in events
    )
    if mode == "add":
        wanted = Counter(
            tuple(sorted(p for p in e.headers if p[0] not in {*skipped, "penstock-headers"}))
            for e in events
        )
    assert arrived == wanted
