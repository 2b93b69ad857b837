"""What the target of a collection keeps beyond the promise of every target."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace as replaced

import pytest
import ugly
from builders import FLIGHTS, event
from door_builders import BOUND, ECHO, REVOKED, TOKEN, FailingLog
from far_sides import LIMITS, FarSide, far_side, sent
from metadata_builders import collection
from msgspec.structs import replace

from penstock.envelope import Event, Position
from penstock.errors import AddressRefused, CollectionPaused, LogUnavailable, Overloaded
from replay.targets import ADDED, Delivered, Failed, Message, Outcome, Retry
from replay.targets.collection import BATCH
from replay.targets.places import refuse_its_own


def together(far: FarSide, *sends: Sequence[Event]) -> list[Sequence[Outcome]]:
    """Begin the sends one behind the other, and wait for all."""

    async def main() -> list[Sequence[Outcome]]:
        target = far.open()
        try:
            begun = [
                asyncio.ensure_future(
                    target.send([Message(each, Position(0, n), 1) for n, each in enumerate(events)])
                )
                for events in sends
            ]
            return list(await asyncio.gather(*begun))
        finally:
            await target.close()

    return asyncio.run(main())


def test_everything_beside_the_payload_arrives_as_it_was() -> None:
    """Order and duplicates of headers, bytes of keys, the event's own time, metadata."""
    events = [
        replace(each, metadata={"topic": "t", "penstock_id": "reused"})
        for each in ugly.events(500, largest=10_000)
    ]
    with far_side("collection") as far:
        sent(far.open(), events)
        took = far.took(len(events))

    for before, after in zip(events, took, strict=True):
        assert (after.payload, after.key) == (before.payload, before.key)
        assert after.headers[:-5] == list(before.headers)
        assert tuple(name for name, _ in after.headers[-5:]) == ADDED
        assert after.more == {
            "id": before.id,
            "content_type": before.content_type,
            "event_time": before.event_time,
            "metadata": {"topic": "t"},
        }


def test_verbatim_adds_nothing() -> None:
    events = ugly.events(100, largest=10_000)
    with far_side("collection") as far:
        sent(far.open(headers="verbatim"), events)
        took = far.took(len(events))

    assert [each.headers for each in took] == [list(each.headers) for each in events]


def test_many_events_go_in_one_request() -> None:
    """A request for each would make the way as slow as that to a stranger."""
    calls = Counter[int]()

    class Counting(FailingLog):
        def append(self, collection, events):
            calls[len(events)] += 1
            return super().append(collection, events)

    with far_side("collection", log=Counting()) as far:
        sent(far.open(), [event(b"%d" % n) for n in range(2 * BATCH)])

    assert calls == {BATCH: 2}


def test_a_body_that_the_door_finds_too_large_goes_in_halves() -> None:
    """The door's limit is another one than ours; an event that is too large fails alone."""
    small = replaced(LIMITS, max_event_bytes=5_000, max_body_bytes=20_000)
    events = [event(b"%05d" % n + b" " * 900) for n in range(100)]
    events[50] = event(b"x" * 30_000)
    with far_side("collection", limits=small) as far:
        outcomes = sent(far.open(), events)
        took = far.took(99)

    assert [type(each) for each in outcomes] == [Delivered] * 50 + [Failed] + [Delivered] * 49
    assert [each.payload for each in took] == [e.payload for e in events if e is not events[50]]


def test_nothing_overtakes_what_has_to_be_sent_again() -> None:
    """A send that was begun behind one that failed is not made: its keys would be first."""

    class Once(FailingLog):
        def append(self, collection, events):
            done = super().append(collection, events)
            self.error = None
            return done

    log = Once(error=LogUnavailable("away"))
    first, second = [event(b"1", key=b"k")], [event(b"2", key=b"k")]
    with far_side("collection", log=log) as far:
        outcomes = together(far, first, second)
        assert [[type(each) for each in those] for those in outcomes] == [[Retry], [Retry]]
        assert log.events == []
        assert together(far, first, second) == [[Delivered(202)], [Delivered(202)]]

    assert log.payloads == [b"1", b"2"]


def test_of_a_send_that_takes_several_requests_the_rest_waits_for_the_first() -> None:
    calls = iter(range(10))

    class Second(FailingLog):
        def append(self, collection, events):
            self.error = LogUnavailable("away") if next(calls) == 1 else None
            return super().append(collection, events)

    log = Second()
    events = [event(b"%d" % n + b" " * 500_000, id=f"e{n}", key=b"k") for n in range(30)]
    with far_side("collection", log=log) as far:
        outcomes = sent(far.open(), events)

    assert len(log.events) == 8
    assert [type(each) for each in outcomes] == [Delivered] * 8 + [Retry] * 22


def test_where_the_log_may_take_a_part_no_order_is_promised() -> None:
    """Then the sender lets one event of a key go at a time."""
    with far_side("collection", whole=False) as far:
        assert far.open().ordered is False
    with far_side("collection") as far:
        assert far.open().ordered is True


def test_what_a_log_did_not_take_of_a_batch_is_sent_again() -> None:
    log = FailingLog(broken={b"2": LogUnavailable("away")})
    with far_side("collection", log=log, whole=False) as far:
        outcomes = sent(far.open(), [event(b"1"), event(b"2"), event(b"3")])

    assert [type(each) for each in outcomes] == [Delivered, Retry, Delivered]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Overloaded("too much", retry_after=7), Retry("answered 503", 503, 7.0)),
        (CollectionPaused("main.ships"), Retry("the collection is paused", 409)),
    ],
)
def test_what_the_door_says_of_all_holds_for_all(error: Exception, said: Retry) -> None:
    with far_side("collection", log=FailingLog(error=error)) as far:
        assert sent(far.open(), [event(b"1"), event(b"2")]) == [said, said]


def test_an_event_that_was_taken_from_there_fails_for_good() -> None:
    """Verbatim, with the header of an earlier replay."""
    came_back = event(b"1", headers=(("penstock-collection", b"main.ships"),))
    with far_side("collection") as far:
        outcomes = sent(far.open(headers="verbatim"), [came_back, event(b"2")])

    assert outcomes == [Failed("the event was taken from this collection", 409), Delivered(202)]


def test_an_event_that_no_text_can_hold_fails_alone() -> None:
    with far_side("collection") as far:
        outcomes = sent(far.open(), [event(b"1", headers=(("\ud800", b""),)), event(b"2")])

    assert [type(each) for each in outcomes] == [Failed, Delivered]


def test_a_token_that_is_refused_is_asked_for_anew() -> None:
    """Somebody revoked it, and the next one is as good."""
    tokens = [REVOKED, BOUND, TOKEN]
    with far_side("collection") as far:
        assert far.doorway is not None
        far.doorway = far.doorway._replace(token=lambda _: tokens.pop(0))

        async def main() -> list[Outcome]:
            target = far.open()
            message = Message(event(b"1"), Position(0, 0), 1)
            try:
                return [(await target.send([message]))[0] for _ in range(3)]
            finally:
                await target.close()

        outcomes = asyncio.run(main())

    refused = "the destination did not let us in"
    assert outcomes == [Retry(refused, 401), Retry(refused, 403), Delivered(202)]


def test_a_collection_is_not_replayed_into_itself() -> None:
    """Its events would come back as new ones, to be replayed with the next plan."""
    itself, echo = collection(FLIGHTS), replace(collection(ECHO), allow_loops=True)

    with pytest.raises(AddressRefused, match="itself"):
        refuse_its_own(itself, FLIGHTS, "add")
    with pytest.raises(AddressRefused):
        refuse_its_own(echo, ECHO, "verbatim")
    refuse_its_own(echo, ECHO, "add")
    refuse_its_own(itself, ECHO, "verbatim")


def test_the_ids_of_a_replay_are_those_of_the_events() -> None:
    """So that a repeat folds, after a crash and in another replay."""
    events = [event(b"1", id="e1"), event(b"2", id="e2")]
    with far_side("collection") as far:
        for replay in ("r1", "r1", "r2"):
            sent(far.open(replay_id=replay), events)
        took = far.took(6)

    assert [each.more["id"] for each in took] == ["e1", "e2"] * 3
