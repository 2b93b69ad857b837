"""What the RabbitMQ target keeps beyond the promise of every target."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import ugly
from builders import event
from far_sides import far_side, sent

from penstock.envelope import Position
from replay.targets import ADDED, Delivered, Failed, Message, Outcome, Retry, Target


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
def test_each_of_many_sends_at_once_hears_of_its_own_events() -> None:
    """They share a channel, which counts all of them and says for many at a time what became."""
    lost = {"routing_key": "nobody"}
    with far_side("rabbitmq") as far:
        there = {"routing_key": str(far.options.pop("routing_key"))}
        messages = [
            Message(
                event(b"%d" % n, id=f"e{n}", metadata=there if n % 7 else lost), Position(0, n), 1
            )
            for n in range(2_000)
        ]

        async def main(target: Target) -> list[Sequence[Outcome]]:
            sends = (target.send(messages[start : start + 50]) for start in range(0, 2_000, 50))
            try:
                return await asyncio.gather(*sends)
            finally:
                await target.close()

        outcomes = [each for some in asyncio.run(main(far.open())) for each in some]
        took = far.took(len([n for n in range(2_000) if n % 7]))

    wanted = [Delivered if n % 7 else Failed for n in range(2_000)]
    assert [type(outcome) for outcome in outcomes] == wanted
    assert sorted(int(each.payload) for each in took) == [n for n in range(2_000) if n % 7]


@pytest.mark.engines
def test_sends_at_once_of_one_id_do_not_take_each_others_outcome() -> None:
    """Three sends of it are under way, and one of them is what no queue takes."""
    with far_side("rabbitmq") as far:
        there = {"routing_key": str(far.options.pop("routing_key"))}
        messages = [
            Message(event(b"1", id="same", metadata=metadata), Position(0, n), 1)
            for n, metadata in enumerate((there, {"routing_key": "nobody"}, there))
        ]

        async def main(target: Target) -> list[Sequence[Outcome]]:
            try:
                return await asyncio.gather(*(target.send([each]) for each in messages))
            finally:
                await target.close()

        for _ in range(10):
            told = [type(one) for [one] in asyncio.run(main(far.open()))]
            assert told == [Delivered, Failed, Delivered]


@pytest.mark.engines
def test_a_channel_that_the_server_ends_is_a_retry_for_all_that_wait() -> None:
    """It ends when there is no such exchange; none of them waits for its time to be over."""
    with far_side("rabbitmq") as far:
        target = far.open(exchange="nowhere", timeout=60.0)
        outcomes = sent(target, [event(b"%d" % n) for n in range(150)])

    assert {type(outcome) for outcome in outcomes} == {Retry}
    assert Retry("the destination is not there") in outcomes


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
