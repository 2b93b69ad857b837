"""Every target keeps the promise of `replay.targets.Target`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence

import pytest
import ugly
from builders import FLIGHTS, NOON, event
from far_sides import ADDRESSES, HERE, FarSide, Took, far_at, far_side, sent, silence
from msgspec.structs import replace
from ports import free_port
from receiving import Reply, receiving

from penstock.envelope import Event, Position
from penstock.errors import AddressRefused
from penstock.guard import Guard
from replay.targets import Delivered, Failed, Message, Retry, Target
from replay.targets.opening import open_target

ENGINES = pytest.mark.engines
KINDS = [
    pytest.param("http"),
    pytest.param("kafka", marks=ENGINES),
    pytest.param("rabbitmq", marks=ENGINES),
    pytest.param("sqs", marks=ENGINES),
    pytest.param("collection"),
    pytest.param("tunnel"),
    pytest.param("file"),
]
LOOKED_AT = KINDS[1:-1]
WITHIN = [*ADDRESSES, "collection", "tunnel"]
MIB = 1 << 20


def ids_of(far: FarSide, took: Sequence[Took]) -> dict[str, Took]:
    """Answer what arrived by the id of its event."""
    found = {}
    for each in took:
        values = dict(each.headers)
        name = values.get("penstock-event-id", b"")
        found[name.decode() if isinstance(name, bytes) else name] = each
    return found


def payload_at(far: FarSide, each: Took) -> bytes:
    if far.kind != "sqs":
        return each.payload
    from replay.targets.sqs import payload_of

    return payload_of(each.payload.decode(), dict(each.headers).get("penstock-encoding"))


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_ugly_events_arrive_byte_for_byte(kind) -> None:
    """Each once, whatever it looks like; more than any client takes in one call."""
    # The engine that stands for SQS takes 256 KiB, and Base64 is a third longer.
    events = ugly.events(10_000, largest=150_000 if kind == "sqs" else MIB // 2)
    with far_side(kind) as far:
        outcomes = sent(far.open(), events)
        took = far.took(len(events))

    assert {type(outcome) for outcome in outcomes} == {Delivered}
    assert len(took) == len(events)
    arrived = ids_of(far, took)
    wrong = [e.id for e in events if payload_at(far, arrived[e.id]) != e.payload]
    assert wrong == []
    keys = [(each.id, each.key) for each in events if each.key is not None]
    match kind:
        case "http":
            return
        case "kafka":
            assert [(e.id, arrived[e.id].key) for e in events] == [(e.id, e.key) for e in events]
        case "collection" | "file":
            assert [(e.id, arrived[e.id].key) for e in events] == [(e.id, e.key) for e in events]
        case "rabbitmq" | "tunnel":
            told = [(name, bytes(dict(arrived[name].headers)["penstock-key"])) for name, _ in keys]
            assert told == keys
        case _:
            keys = [(name, key) for name, key in keys if key]
            told = [(name, dict(arrived[name].headers)["penstock-key"]) for name, _ in keys]
            assert [(n, t if isinstance(t, bytes) else t.encode()) for n, t in told] == keys


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_is_sent_on_where_it_is_this_replays_alone(kind) -> None:
    """An event of a replay may be replayed again, and then nothing of it was changed."""
    events = [event(b"{}", id="a", headers=(("penstock-transform", b"0123"),))]
    for marked, told in ((True, True), (False, False)):
        with far_side(kind) as far:
            assert [type(one) for one in sent(far.open(marked=marked), events)] == [Delivered]
            [took] = far.took(1)

        assert ("penstock-transform" in dict(took.headers)) is told


def picky(kind: str) -> Iterator[tuple[FarSide, list[Event], type]]:
    """Make a far side that takes two of three events, and the three."""
    good = [event(b"good", id="a"), event(b"good too", id="c")]
    match kind:
        case "http":
            with receiving(lambda r: Reply(400 if r.body == b"bad" else 200)) as receiver:
                guard = Guard((HERE,), (receiver.port,))
                far = FarSide("http", receiver.url, lambda _: [], guard)
                yield far, [good[0], event(b"bad", id="b"), good[1]], Failed
        case "kafka":
            with far_side("kafka", **{"max.message.bytes": "20000"}) as far:
                yield far, [good[0], event(os.urandom(30_000), id="b"), good[1]], Failed
        case "rabbitmq":
            with far_side("rabbitmq") as far:
                queue = far.options.pop("routing_key")
                assert isinstance(queue, str)
                routed = [replace(each, metadata={"routing_key": queue}) for each in good]
                lost = event(b"bad", id="b", metadata={"routing_key": "nobody"})
                yield far, [routed[0], lost, routed[1]], Failed
        case "collection":
            with far_side("collection") as far:
                yield far, [good[0], event(os.urandom(MIB + 1), id="b"), good[1]], Failed
        case "tunnel":
            with far_side("tunnel") as far:
                yield far, [good[0], event(os.urandom(4 * MIB), id="b"), good[1]], Failed
        case "file":
            with far_side("file") as far:
                odd = event(b"bad", id="b", headers=(("\ud800", b""),))
                yield far, [good[0], odd, good[1]], Failed
        case _:
            with far_side("sqs") as far:
                yield far, [good[0], event(b"x" * (MIB + 1), id="b"), good[1]], Failed


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_far_side_refuses_does_not_take_the_others_with_it(kind) -> None:
    """An outcome for each event, in order."""
    for far, events, refused in picky(kind):
        outcomes = sent(far.open(), events)

        assert [type(outcome) for outcome in outcomes] == [Delivered, refused, Delivered]


@pytest.mark.parametrize("kind", WITHIN)
def test_a_far_side_that_is_away_is_a_retry(kind: str) -> None:
    """Within a bounded time, and closing does not wait for it either."""
    far = far_at(kind, free_port())
    begun = time.monotonic()
    outcomes = sent(far.open(timeout=1.0), [event(b"1"), event(b"2")])

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry]
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("kind", WITHIN)
def test_a_far_side_that_says_nothing_is_a_retry(kind: str) -> None:
    """A machine that hangs keeps its port open."""
    with silence() as port:
        begun = time.monotonic()
        outcomes = sent(far_at(kind, port).open(timeout=1.0), [event(b"1"), event(b"2")])

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry]
    assert time.monotonic() - begun < 8
    assert all("127.0.0.1" not in str(outcome) for outcome in outcomes)


@pytest.mark.parametrize("kind", WITHIN)
def test_a_send_can_be_cancelled(kind: str) -> None:
    """A sender that loses its lease lets go at once."""

    async def main(port: int) -> float:
        target = far_at(kind, port).open(timeout=5.0)
        task = asyncio.ensure_future(target.send([Message(event(b"{}"), Position(0, 0), 1)]))
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await target.close()
        return time.monotonic() - begun

    with silence() as port:
        assert asyncio.run(main(port)) < 7


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_addresses_inside_are_refused_before_anything_is_opened(kind: str) -> None:
    with silence() as port, pytest.raises(AddressRefused):
        far_at(kind, port, Guard(allow_ports=(port,))).open()


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_a_name_with_one_answer_inside_is_refused(kind: str) -> None:
    """One bad answer refuses all: a name that leads to both has no honest reason to."""

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.216.34", "127.0.0.1"]

    far = far_at(kind, 9092, Guard(), host="inside.example")
    target = open_target(
        far.destination(),
        guard=Guard(),
        replay_id="r1",
        collection=FLIGHTS,
        clock=lambda: NOON,
        lookup=lookup,
    )
    outcomes = sent(target, [event(b"{}")])

    assert outcomes == [Retry("the address guard refused the destination's address")]


@pytest.mark.parametrize("kind", WITHIN)
def test_any_target_is_closed_without_having_been_used(kind: str) -> None:
    with silence() as port:
        assert sent(far_at(kind, port).open(), []) == []


@pytest.mark.parametrize("kind", LOOKED_AT)
@pytest.mark.parametrize("right", [True, False])
def test_a_look_says_whether_the_place_is_there(kind, right) -> None:
    """And sends nothing."""
    sentences = {
        "kafka": "there is no such topic",
        "rabbitmq": "there is no such queue",
        "sqs": "there is no such queue",
        "collection": "the destination is not there",
        "tunnel": "no tunnel of this name is connected",
    }

    async def look(target: Target) -> str | None:
        try:
            return await target.examine()
        finally:
            await target.close()

    with far_side(kind) as far:
        if not right:
            far.url = far.url.replace("/t_", "/u_").replace("/t-", "/u-").replace("ships", "none")
            if kind == "rabbitmq":
                far.options["routing_key"] = "nobody"
        said = asyncio.run(look(far.open()))

    assert said == (None if right else sentences[kind])
