"""What the RabbitMQ target keeps beyond the promise of every target."""

from __future__ import annotations

import pytest
import ugly
from builders import event
from far_sides import far_side, sent

from replay.targets import ADDED, Delivered, Failed, Retry


@pytest.mark.engines
def test_two_events_of_one_id_are_two_messages() -> None:
    """A server returns a message by its id: one must not take the outcome of the other."""
    with far_side("rabbitmq") as far:
        queue = str(far.options.pop("routing_key"))
        routed = event(b"1", id="same", metadata={"routing_key": queue})
        lost = event(b"2", id="same", metadata={"routing_key": "nobody"})
        outcomes = sent(far.open(), [routed, lost, routed])
        took = far.took(2)

    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]
    assert [each.payload for each in took] == [b"1", b"1"]


@pytest.mark.engines
def test_a_queue_that_is_full_is_a_retry() -> None:
    """It says no to each, and will have room again."""
    with far_side("rabbitmq", **{"x-max-length": 2, "x-overflow": "reject-publish"}) as far:
        outcomes = sent(far.open(), [event(b"%d" % n) for n in range(4)])

    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, Retry, Retry]


@pytest.mark.engines
@pytest.mark.parametrize("mode", ["add", "verbatim"])
def test_rabbitmq_headers_are_read_back_as_they_were_sent(mode) -> None:
    """But for the order between names, which a table does not have."""
    from replay.targets.rabbitmq import headers_of

    events = ugly.events(300)
    with far_side("rabbitmq") as far:
        sent(far.open(headers=mode), events)
        took = far.took(len(events))

    taken = {*ADDED, "penstock-key"} if mode == "add" else set()
    for each, found in zip(events, took, strict=True):
        own = {name: value for name, value in found.headers if name not in taken}
        wanted = [pair for pair in each.headers if pair[0] not in taken]
        back = headers_of(own)
        assert sorted(back) == sorted(wanted)
        for name in dict(wanted):
            assert [v for n, v in back if n == name] == [v for n, v in wanted if n == name]
        assert found.more["message_id"] == each.id
        assert found.more["content_type"] == each.content_type
        assert found.more["timestamp"].timestamp() == (each.event_time or 0) // 1_000_000
