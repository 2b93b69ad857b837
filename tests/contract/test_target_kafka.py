"""What the Kafka target keeps beyond the promise of every target."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_network
from itertools import accumulate
from typing import Any

import pytest
import ugly
from advertising import Cluster
from builders import NOON, event
from far_sides import FarSide, far_at, far_side, sent

from penstock.envelope import Event, Position
from penstock.errors import BadRequest
from penstock.guard import Guard
from replay.targets import ADDED, Delivered, Failed, Message, Outcome, Retry, Target, kafka
from replay.targets.kafka import KafkaTarget


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_broker_that_a_cluster_advertises_is_looked_at_before_it_is_spoken_to(host: str) -> None:
    """Whoever runs a cluster decides what it advertises."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.5)
        cluster = Cluster((host, inside.getsockname()[1]))
        guard = Guard((ip_network("127.0.0.2/32"),), (cluster.port, inside.getsockname()[1]))
        far = far_at("kafka", cluster.port, guard, host="127.0.0.2")
        outcomes = sent(far.open(timeout=5.0), [event(b"{}")])
        reached = True
        try:
            inside.accept()[0].close()
        except TimeoutError:
            reached = False
        cluster.close()

    assert outcomes == [Retry("the address guard refused the destination's address")]
    assert cluster.connections > 0
    assert not reached


@pytest.mark.engines
def test_a_broker_that_appears_later_ends_the_client() -> None:
    """It may be anywhere; the next send looks at all of them again."""

    async def main(target: Target) -> tuple[list[Outcome], object]:
        assert isinstance(target, KafkaTarget)
        outcomes = [*await target.send([Message(event(b"1"), Position(0, 0), 1)])]
        assert target._producer is not None
        target._producer._allowed = frozenset()  # as if this one had not been there
        await asyncio.sleep(0.8)
        await target.send([Message(event(b"2"), Position(0, 1), 1)])
        left = target._producer
        outcomes += await target.send([Message(event(b"3"), Position(0, 2), 1)])
        await target.close()
        return outcomes, left

    with far_side("kafka") as far:
        outcomes, left = asyncio.run(main(far.open()))

    assert outcomes == [Delivered(None)] * 2
    assert left is None


@pytest.mark.engines
def test_events_of_a_key_keep_their_order_and_their_partition() -> None:
    events = [event(b"%d" % n, key=b"k%d" % (n % 5)) for n in range(3_000)]
    with far_side("kafka") as far:
        sent(far.open(), events)
        took = far.took(len(events))

    for key in {each.key for each in events}:
        mine = [each for each in took if each.key == key]
        assert [each.payload for each in mine] == [e.payload for e in events if e.key == key]
        assert len({each.more["partition"] for each in mine}) == 1


def sends_at_once(target: Target, sends: list[list[Event]]) -> list[list[Outcome]]:
    """Begin one behind the other, without waiting for any."""

    async def main() -> list[list[Outcome]]:
        starts = accumulate(map(len, sends), initial=0)
        messages = [
            [Message(each, Position(0, start + n), 1) for n, each in enumerate(events)]
            for start, events in zip(starts, sends, strict=False)
        ]
        try:
            return [[*each] for each in await asyncio.gather(*map(target.send, messages))]
        finally:
            await target.close()

    return asyncio.run(main())


@pytest.mark.engines
def test_sends_that_begin_behind_each_other_keep_the_order() -> None:
    """The first of them opens, and is not overtaken while it does."""
    sends = [
        [event(b"%d" % (1_000 * n + i), key=b"k%d" % (i % 3)) for i in range(1_000)]
        for n in range(8)
    ]
    with far_side("kafka") as far:
        outcomes = sends_at_once(far.open(), sends)
        took = far.took(8_000)

    assert outcomes == [[Delivered(None)] * 1_000] * 8
    for key in (b"k0", b"k1", b"k2"):
        mine = [int(each.payload) for each in took if each.key == key]
        assert mine == sorted(mine)


@pytest.mark.engines
@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.006, 0.01, 0.02, 0.05])
def test_when_the_time_is_over_nothing_arrives_behind_what_was_taken_back(seconds: float) -> None:
    """Neither in the send whose time it is nor in those that were begun behind it."""
    sends = [[event(b"%d" % (2_000 * n + i)) for i in range(2_000)] for n in range(4)]

    async def main(target: Target) -> list[list[Outcome]]:
        assert isinstance(target, KafkaTarget)
        messages = [[Message(each, Position(0, 0), 1) for each in events] for events in sends]
        first = [*await target.send(messages[0])]
        target._seconds = seconds
        others = await asyncio.gather(*map(target.send, messages[1:]))
        await target.close()
        return [first, *map(list, others)]

    with far_side("kafka", partitions=1) as far:
        outcomes = [each for send in asyncio.run(main(far.open())) for each in send]
        delivered = [n for n, each in enumerate(outcomes) if each == Delivered(None)]
        took = far.took(len(delivered))

    assert delivered == [*range(len(delivered))]
    assert {type(each) for each in outcomes[len(delivered) :]} <= {Retry}
    # More may have arrived than was heard of, but with no gap.
    assert [int(each.payload) for each in took] == [*range(len(took))]
    assert len(took) >= len(delivered)


class Fragile(KafkaTarget):
    """Its client ends for good with the first record that a broker refuses."""

    def _settings(self, bootstrap: str) -> dict[str, Any]:
        return {**super()._settings(bootstrap), "enable.gapless.guarantee": True}


@pytest.mark.engines
def test_a_client_that_ended_for_good_is_an_outcome_and_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka, "KafkaTarget", Fragile)
    sends = [[event(b"%d" % (2_000 * n + i)) for i in range(2_000)] for n in range(3)]
    sends[1][700] = event(b"x" * 50_000)  # the topic takes no more than 20,000 bytes
    with far_side("kafka", partitions=1, **{"max.message.bytes": "20000"}) as far:
        outcomes = [each for send in sends_at_once(far.open(), sends) for each in send]
        refused = next(n for n, each in enumerate(outcomes) if each != Delivered(None))
        took = far.took(refused)
        again = sent(far.open(), [event(b"again")])

    assert [int(each.payload) for each in took] == [*range(len(took))]
    assert refused <= len(took) <= 2_700
    # Whether the client still says why is a matter of moments.
    too_large = Failed("the destination takes no events of this size")
    assert {type(each) for n, each in enumerate(outcomes) if refused <= n != 2_700} == {Retry}
    assert outcomes[2_700] == too_large or isinstance(outcomes[2_700], Retry)
    assert again == [Delivered(None)]


@pytest.mark.engines
def test_partition_and_time_are_kept_where_that_is_asked() -> None:
    events = [
        event(b"%d" % n, event_time=NOON + n * 1_000, metadata={"partition": str(n % 3)})
        for n in range(30)
    ]
    events.append(event(b"none such", metadata={"partition": "9"}))
    # Retention goes by the time of the records: this broker would delete them in a second.
    with far_side("kafka", **{"retention.ms": "-1"}) as far:
        outcomes = sent(far.open(partition="kept", timestamps="original"), events)
        took = far.took(30)

    assert outcomes[-1] == Failed("the topic has no such partition")
    assert {(e.payload, e.more["partition"], e.more["timestamp"]) for e in took} == {
        (b"%d" % n, n % 3, NOON // 1_000 + n) for n in range(30)
    }


@pytest.mark.engines
def test_a_header_name_that_the_client_would_cut_fails_its_event() -> None:
    """A header under another name is another header."""
    cut = event(b"1", headers=(("a\0b", b"1"),))
    with far_side("kafka") as far:
        assert sent(far.open(), [cut, event(b"2")]) == [
            Failed("Kafka cannot carry this event's headers"),
            Delivered(None),
        ]


def test_topics_of_our_own_log_are_refused() -> None:
    """Only doors write those."""
    far = FarSide(
        "kafka", "kafka://93.184.216.34:9092/penstock.main.flights", lambda _: [], Guard()
    )
    with pytest.raises(BadRequest, match="own log"):
        far.open()


def expected_in_kafka(each: Event) -> list[tuple[str, bytes]]:
    """Order, duplicates and bytes, as they came; and a content type if none did."""
    kind = each.content_type
    typed = any(name.lower() == "content-type" for name, _ in each.headers)
    return [*each.headers, *([("content-type", kind.encode())] if kind and not typed else [])]


@pytest.mark.engines
@pytest.mark.parametrize("mode", ["add", "verbatim"])
def test_kafka_headers_are_the_same_in_number_order_and_bytes(mode) -> None:
    events = ugly.events(300)
    with far_side("kafka", partitions=1) as far:
        sent(far.open(headers=mode), events, attempt=3)
        took = far.took(len(events))

    for each, found in zip(events, took, strict=True):
        own = [(n, v) for n, v in found.headers if mode == "verbatim" or n not in ADDED]
        assert own == expected_in_kafka(each)
        if mode == "add":
            assert found.headers[-5:] == [
                ("penstock-replay-id", b"r1"),
                ("penstock-event-id", each.id.encode()),
                ("penstock-collection", b"main.flights"),
                ("penstock-attempt", b"3"),
                ("penstock-received-at", b"2025-11-24T16:00:00.000000Z"),
            ]
