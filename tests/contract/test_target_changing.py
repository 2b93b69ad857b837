"""Events are changed before a target has them: whatever it is, and before anything is signed."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence

from builders import FLIGHTS, NOON, event
from far_sides import HERE
from receiving import Receiver, receiving
from replaying import ScriptedTarget, in_columns, run_virtual

from penstock.envelope import Event, Position
from penstock.guard import Guard
from replay.events import Original
from replay.targets import (
    Delivered,
    Failed,
    Message,
    Messages,
    Outcome,
    Parcel,
    Target,
    parcels_of,
)
from replay.targets.http import HttpTarget
from replay.targets.kafka import KafkaTarget
from replay.targets.places import HttpOptions, KafkaOptions, kafka_place
from replay.transform import Transform, read_transform
from replay.transform.target import ChangingTarget

SECRET = "4111222233334444"
MASKING = read_transform(["mask card", "mask headers.x-card", "mask key"])
EVENTS = [
    event(b'{"card":"%s", "n":1.10}' % SECRET.encode(), id="a", key=SECRET.encode()),
    event(b'{"card":"%s"' % SECRET.encode(), id="b", headers=(("X-Card", SECRET.encode()),)),
    event(b'{"n":2}', id="c", headers=(("X-Card", SECRET.encode()),)),
]
NO_JSON = Failed("the transform: the payload is no JSON")


class LettingThrough:
    """A mutant: what cannot be changed is sent as it was received."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def changed(self, sent: Event, position: Position) -> Event:
        try:
            return self._transform.changed(sent, position)
        except Exception:  # noqa: BLE001 - it is the mistake
            return sent


def http(receiver: Receiver, **options) -> HttpTarget:
    return HttpTarget(
        receiver.url,
        options.pop("options", HttpOptions()),
        guard=Guard(allow_networks=(HERE,), allow_ports=(receiver.port,)),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
        **options,
    )


def sent(target: Target, events: Sequence[Event]) -> list[Outcome]:
    async def main() -> list[Outcome]:
        try:
            return [
                outcome
                for number, each in enumerate(events)
                for outcome in await target.send([Message(each, Position(0, number), 1)])
            ]
        finally:
            await target.close()

    return asyncio.run(main())


def over_http(transform: Transform) -> tuple[list[Outcome], Receiver]:
    with receiving() as receiver:
        own = (("X-Of", "{event.key} {event.header.x-card}"), ("X-Key", "{event.key}"))
        target = http(
            receiver, options=HttpOptions(signing="github"), secret="s3cret", own_headers=own
        )
        return sent(ChangingTarget(target, transform), EVENTS), receiver


def all_of(receiver: Receiver) -> bytes:
    """Answer everything that came over the wire but method and path."""
    return b"".join(
        request.body + b"".join(name + value for name, value in request.headers)
        for request in receiver.requests
    )


def test_a_receiver_gets_what_the_transform_made_signed_as_such() -> None:
    """Also the destination's own headers are made of the event that is sent."""
    outcomes, receiver = over_http(MASKING)

    assert outcomes == [Delivered(200), NO_JSON, Delivered(200)]
    first, last = receiver.requests
    assert first.body == b'{"card":"***", "n":1.10}'
    signature = hmac.digest(b"s3cret", first.body, "sha256").hex()
    assert first.header("x-hub-signature-256") == f"sha256={signature}"
    assert first.header("penstock-transform") == MASKING.id
    assert first.header("x-key") == "***"
    assert last.body == b'{"n":2}'
    assert last.header("x-card") == "***"


def test_a_receiver_gets_nothing_of_what_is_masked() -> None:
    """Not in a body, not in a header, also not of an event that could not be read."""
    _, receiver = over_http(MASKING)

    assert SECRET.encode() not in all_of(receiver)
    assert len(receiver.requests) == 2


def test_a_target_that_lets_through_what_cannot_be_changed_is_seen() -> None:
    """The check above finds what it is there for."""
    _, receiver = over_http(LettingThrough(MASKING))  # type: ignore[arg-type]

    assert SECRET.encode() in all_of(receiver)


def test_a_batch_is_handed_on_without_the_events_that_fail() -> None:
    """One send for those that can be sent, in their order, and an outcome for each."""
    events = in_columns([Original(Position(2, 10 + n), each) for n, each in enumerate(EVENTS * 2)])
    target = ScriptedTarget(
        lambda m: Failed("no") if m.position.offset == 13 else Delivered(1), most=9, ordered=True
    )
    changing = ChangingTarget(target, MASKING)

    outcomes = run_virtual(
        changing.send(Messages([Parcel(events, 1, 3, 1), Parcel(events, 3, 6, 2)]))
    )

    assert outcomes == [NO_JSON, Delivered(1), Failed("no"), NO_JSON, Delivered(1)]
    told = [(m.position, m.attempt, m.event.id, m.event.key) for _, m in target.sent]
    assert told == [
        (Position(2, 12), 1, "c", None),
        (Position(2, 13), 2, "a", b"***"),
        (Position(2, 15), 2, "c", None),
    ]
    assert len({at for at, _ in target.sent}) == 1
    assert (changing.most, changing.ordered) == (9, True)
    assert events.payloads[0] == EVENTS[0].payload, "the original is never changed"


def test_records_for_kafka_are_made_of_what_the_transform_made() -> None:
    """Batches go to it as columns, and no event is made an object on the way."""
    handed: list[Parcel] = []

    class Columns(ScriptedTarget):
        async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
            handed.extend(parcels_of(messages))
            return [Delivered(None)] * len(messages)

    kafka = KafkaTarget(
        kafka_place("kafka://127.0.0.1:9092/t", Guard((HERE,))),
        KafkaOptions(),
        None,
        guard=Guard((HERE,)),
        replay_id="r1",
        collection=FLIGHTS,
    )
    events = in_columns([Original(Position(0, n), each) for n, each in enumerate(EVENTS)])
    changing = ChangingTarget(Columns(most=9, ordered=True), MASKING)
    run_virtual(changing.send(Messages([Parcel(events, 0, 3, 1)])))

    records = [record for parcel in handed for record in kafka._records(parcel)]
    assert [(payload, key) for payload, key, *_ in records] == [
        (b'{"card":"***", "n":1.10}', b"***"),
        (b'{"n":2}', None),
    ]
    assert ("penstock-transform", MASKING.id.encode()) in (records[0][2] or ())
    assert SECRET not in str(records)


def test_a_batch_of_which_nothing_can_be_sent_is_not_sent() -> None:
    target = ScriptedTarget(most=9, ordered=True)
    broken = in_columns([Original(Position(0, 0), EVENTS[1])])

    outcomes = run_virtual(
        ChangingTarget(target, MASKING).send(Messages([Parcel(broken, 0, 1, 1)]))
    )

    assert outcomes == [NO_JSON]
    assert target.sent == []


def test_a_check_is_of_what_would_be_sent() -> None:
    changing = ChangingTarget(ScriptedTarget(), MASKING)

    checked = [changing.check(Message(each, Position(0, 0), 1)) for each in EVENTS]
    assert checked == [None, NO_JSON, None]
