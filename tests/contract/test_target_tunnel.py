"""What tunnels keep beyond the promise of every target, to a client as there is in the field."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
import ugly
from builders import NOON, event
from door_builders import BOUND, OTHER_TEAM, READER, REVOKED, TOKEN, UNKNOWN, token_record
from far_sides import TUNNEL as ADDRESS
from far_sides import FarSide, sent
from served import until
from tunnelling import (
    TUNNEL,
    TUNNEL_TOKEN,
    Plumber,
    TunnelDoor,
    headers_of,
    killed,
    payloads,
    plumber,
    tunnel_door,
)

from ingest_api.proto import events_pb2, services_pb2
from ingest_api.proto.services_pb2_grpc import DProxyStub
from penstock.envelope import Event, Position
from penstock.guard import Guard
from penstock.metadata.tokens import new_token
from replay.doorway import Doorway
from replay.targets import ADDED, Delivered, Failed, Message, Outcome, Retry
from replay.targets.tunnel import MOST_BYTES, TunnelTarget

NOBODY = Retry("no tunnel of this name is connected")
ENDED = Retry("the tunnel's connection ended")
BEHIND = Retry("the events before it were not taken")
SLOW = Retry("the tunnel took no more events in time")


@pytest.fixture
def door() -> Iterator[TunnelDoor]:
    with tunnel_door() as made:
        yield made


def to(door: TunnelDoor, name: str = "ships", doorway: Doorway | None = None) -> FarSide:
    url = ADDRESS.replace("ships", name)
    return FarSide("tunnel", url, lambda _: [], Guard(), doorway=doorway or door.doorway)


def some(count: int, size: int = 2) -> list[Event]:
    return [event(b"%06d" % n + b" " * size, id=f"e{n}") for n in range(count)]


def behind(far: FarSide, *sends: Sequence[Event], timeout: float = 20.0) -> list[Sequence[Outcome]]:
    """Begin the sends one behind the other, and wait for all."""

    async def main() -> list[Sequence[Outcome]]:
        target = far.open(timeout=timeout)
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


def test_the_wire_is_the_one_that_clients_were_built_for() -> None:
    """A number that is another one is a field that nobody reads."""
    service = services_pb2.DESCRIPTOR.services_by_name["DProxy"]
    assert service.full_name == "services.DProxy"
    assert [
        (m.name, m.input_type.full_name, m.output_type.full_name, m.server_streaming)
        for m in service.methods
    ] == [
        ("Connect", "events.Tunnel", "events.Tunnel", True),
        ("Auth", "events.AuthRequest", "events.AuthResponse", False),
        ("DeleteTunnel", "events.DeleteTunnelRequest", "events.DeleteTunnelResponse", False),
    ]
    numbers = {
        kind.DESCRIPTOR.name: {each.name: each.number for each in kind.DESCRIPTOR.fields}
        for kind in (
            events_pb2.Tunnel,
            events_pb2.AuthRequest,
            events_pb2.AuthResponse,
            events_pb2.Outbound,
            events_pb2.TunnelEvent,
            events_pb2.DeleteTunnelRequest,
            events_pb2.DeleteTunnelResponse,
        )
    }
    assert numbers == {
        "Tunnel": {
            "type": 1,
            "replay_id": 2,
            "auth_request": 100,
            "auth_response": 101,
            "outbound_message": 102,
            "replay_message": 103,
            "tunnel_event": 104,
        },
        "AuthRequest": {
            "token": 1,
            "message_bus": 2,
            "name": 3,
            "plumber_cluster_id": 4,
            "tunnel_id": 5,
            "plumber_version": 6,
            "plumber_id": 7,
        },
        "AuthResponse": {"authorized": 1, "message": 2},
        "Outbound": {
            "replay_id": 1,
            "blob": 2,
            "last": 3,
            "metadata": 4,
            "ingest_timestamp_nano": 5,
        },
        "TunnelEvent": {"type": 1, "tunnel_id": 2},
        "DeleteTunnelRequest": {"token": 1, "plumber_cluster_id": 2, "tunnel_id": 3},
        "DeleteTunnelResponse": {"success": 1, "message": 2},
    }
    types = events_pb2.Tunnel.DESCRIPTOR.enum_types_by_name["Type"].values
    assert [(each.name, each.number) for each in types] == [
        ("UNSET", 0),
        ("AUTH_REQUEST", 1),
        ("AUTH_RESPONSE", 2),
        ("OUTBOUND_MESSAGE", 3),
        ("REPLAY_EVENT", 4),
        ("TUNNEL_EVENT", 5),
    ]


def test_what_stands_beside_a_payload_arrives_whatever_it_looks_like(door: TunnelDoor) -> None:
    """Clients decode what looks like Base64, and the metadata is text."""
    headers = (
        ("plain", b"hello world"),
        ("looks-encoded", b"abcd"),
        ("number", b"1234"),
        ("bytes", b"\xff\x00\xfe"),
        ("empty", b""),
    )
    events = [event(b"{}", key=b"\x00key", headers=headers, content_type="text/plain")]
    with plumber(door) as client:
        assert sent(to(door).open(replay_id="a1b2c3d4"), events) == [Delivered(None)]
        until(lambda: len(client.written) == 1)

    [outbound] = client.written
    found = dict(headers_of(outbound))
    assert {name: found[name] for name, _ in headers} == dict(headers)
    assert (found["content-type"], found["penstock-key"]) == (b"text/plain", b"\x00key")
    assert set(ADDED) <= set(found)
    assert found["penstock-replay-id"] == b"a1b2c3d4"
    assert client.replays == ["a1b2c3d4"]
    assert outbound.ingest_timestamp_nano == NOON * 1_000


def test_verbatim_adds_nothing(door: TunnelDoor) -> None:
    with plumber(door) as client:
        sent(to(door).open(headers="verbatim"), [event(b"{}", headers=(("a", b"b c"),), key=b"k")])
        until(lambda: len(client.written) == 1)

    found = sorted(headers_of(client.written[0]))
    assert found == [("a", b"b c"), ("content-type", b"application/json")]


def test_events_arrive_in_their_order_at_the_speed_of_batches(door: TunnelDoor) -> None:
    events = some(5_000)
    with plumber(door) as client:
        outcomes = behind(to(door), *(events[n : n + 500] for n in range(0, 5_000, 500)))
        until(lambda: len(client.written) == 5_000)

        metrics = door.door.metrics.registry
        assert metrics.get_sample_value("penstock_door_tunnels") == 1
        assert metrics.get_sample_value("penstock_door_handed_over_total") == 5_000
    assert {type(each) for outcome in outcomes for each in outcome} == {Delivered}
    assert payloads([client]) == [each.payload for each in events]


@pytest.mark.parametrize("size", [MOST_BYTES - 2_000, MOST_BYTES])
def test_the_largest_event_fits_and_a_larger_one_breaks_nothing(
    door: TunnelDoor, size: int
) -> None:
    """Over 4 MiB a client ends its call, and what is on the way goes with it."""
    events = [event(b"a"), event(b"x" * size), event(b"b")]
    with plumber(door) as client:
        outcomes = sent(to(door).open(), events)
        fits = size < MOST_BYTES
        until(lambda: len(client.written) == 2 + fits)

    assert isinstance(outcomes[1], Delivered if fits else Failed)
    assert client.connected == 1
    checked = to(door).open().check(Message(events[1], Position(0, 0), 1))
    assert (checked is None) is fits


# Who is let in


REFUSED = [
    pytest.param("", "unknown, revoked", id="none"),
    pytest.param(UNKNOWN, "unknown, revoked", id="unknown"),
    pytest.param(REVOKED, "unknown, revoked", id="revoked"),
    pytest.param(TOKEN, "scope tunnel", id="sends"),
    pytest.param(READER, "scope tunnel", id="reads and replays"),
    pytest.param(BOUND, "scope tunnel", id="bound to a collection"),
]


@pytest.mark.parametrize(("token", "says"), REFUSED)
def test_only_who_may_be_a_tunnel_gets_events(door: TunnelDoor, token: str, says: str) -> None:
    """A token that sends or searches must not show what others replay."""
    client = Plumber(door.grpc, token=token).start()
    until(lambda: client.refused is not None)
    outcomes = sent(to(door).open(), some(1))
    client.stop()

    assert says in str(client.refused)
    assert outcomes == [NOBODY]
    assert client.written == []


def test_a_name_that_no_destination_has_is_refused_and_none_is_the_bus(door: TunnelDoor) -> None:
    client = Plumber(door.grpc, name="../ships").start()
    until(lambda: client.refused is not None)
    client.stop()
    assert "--name" in str(client.refused)

    nameless = Plumber(door.grpc, name="", bus="AWS SQS").start()
    until(lambda: door.connected("aws_sqs") == 1)
    assert sent(to(door, "aws_sqs").open(), some(1)) == [Delivered(None)]
    nameless.stop()


def test_the_tunnels_of_a_team_are_its_own(door: TunnelDoor) -> None:
    """Neither another team, nor a token that may not replay, sends to them."""
    theirs = new_token(b"u" * 32)
    door.knows(TUNNEL_TOKEN, token_record(theirs, "theirs", team="other", scopes=("replay",)))
    with plumber(door) as client:
        for token, said in ((theirs, NOBODY), (TUNNEL, 403), (OTHER_TEAM, 403), (UNKNOWN, 401)):
            doorway = Doorway(door.url, lambda _: "", tunnels=lambda _, text=token: text)
            [outcome] = sent(to(door, doorway=doorway).open(), some(1))
            assert isinstance(outcome, Retry)
            assert said in (outcome, outcome.status)

    assert client.written == []


def test_a_token_that_is_revoked_ends_its_tunnel_before_the_next_event(door: TunnelDoor) -> None:
    with plumber(door) as client:
        sent(to(door).open(), some(1))
        until(lambda: len(client.written) == 1)
        door.knows()
        outcomes = sent(to(door).open(), some(3))
        until(lambda: client.refused is not None)

    assert outcomes == [ENDED] * 3
    assert len(client.written) == 1


def test_a_silent_tunnel_is_kept_open_and_ends_when_its_token_does() -> None:
    with tunnel_door(keep_alive_seconds=0.02) as door, plumber(door) as client:
        until(lambda: client.silent > 3)
        door.knows()
        until(lambda: client.refused is not None)
        assert door.connected() == 0


def test_a_door_that_knows_nothing_yet_lets_tunnels_call_again(door: TunnelDoor) -> None:
    """Refused, they would give up for ever because of a moment."""
    from ingest_api.auth import Keyring

    knowing = door.door.keyring
    door.door.keyring = Keyring()
    client = Plumber(door.grpc).start()
    for _ in range(20):
        assert client.refused is None
        threading.Event().wait(0.01)
    door.door.keyring = knowing
    until(lambda: client.connected == 1)
    client.stop()


# Which of several


def test_nobody_there_is_a_retry_that_says_so(door: TunnelDoor) -> None:
    assert sent(to(door).open(), some(2)) == [NOBODY, NOBODY]


def test_the_one_that_came_last_gets_the_events_and_the_others_when_it_leaves(
    door: TunnelDoor,
) -> None:
    """One whose machine went away without a word looks alive; its successor is there already."""
    with plumber(door) as first:
        with plumber(door) as second:
            assert {type(one) for one in sent(to(door).open(), some(10))} == {Delivered}
            until(lambda: len(second.written) == 10)
        until(lambda: door.connected() == 1)
        sent(to(door).open(), some(5))
        until(lambda: len(first.written) == 5)

    assert len(second.written) == 10


def test_a_look_says_who_is_there_from_where_and_since_when(door: TunnelDoor) -> None:
    async def look() -> Any:
        target = to(door).open()
        assert isinstance(target, TunnelTarget)
        try:
            return await target.examine(), await target.found()
        finally:
            await target.close()

    assert asyncio.run(look()) == (NOBODY.reason, [])
    with plumber(door, bus="Kafka"), plumber(door, bus="RabbitMQ"):
        wrong, found = asyncio.run(look())

    assert wrong is None
    assert [(one.bus, one.peer) for one in found] == [
        ("RabbitMQ", "127.0.0.1"),
        ("Kafka", "127.0.0.1"),
    ]
    assert found[0].since > found[1].since > NOON


# What goes wrong on the way


def test_what_was_not_taken_is_sent_again_and_nothing_behind_it_before(door: TunnelDoor) -> None:
    """The tunnel that waits behind it must not get the second half of a key before the first."""
    seen = 0

    def write(_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 100:
            raise killed()

    events = some(3_000, size=2_000)
    parts = [events[n : n + 500] for n in range(0, 3_000, 500)]
    with plumber(door) as waiting, plumber(door, write=write):
        outcomes = [one for part in behind(to(door), *parts) for one in part]

    taken = [isinstance(one, Delivered) for one in outcomes]
    first = taken.index(False)
    assert first >= 99
    assert not any(taken[first:]), "something behind it was delivered"
    assert set(outcomes[first:]) <= {ENDED, BEHIND}
    assert waiting.written == []


def test_a_tunnel_that_takes_no_more_says_how_far_it_came(door: TunnelDoor) -> None:
    """A bus that is slow fills the connection; what was not written then never is."""
    gate = threading.Event()
    events = some(1_000, size=40_000)
    with plumber(door, write=lambda _: gate.wait(30)) as client:
        [outcomes] = behind(to(door), events[:1_000], timeout=5.0)
        taken = sum(isinstance(one, Delivered) for one in outcomes)
        gate.set()
        until(lambda: len(client.written) >= taken)
        sent(to(door).open(), [event(b"last")])
        until(lambda: payloads([client])[-1:] == [b"last"])

    assert 0 < taken < 1_000
    assert outcomes[taken:] == [SLOW] * (1_000 - taken) or outcomes[taken] == SLOW
    # The one that was being written when it was given up may have gone, and is sent again.
    assert len(client.written) - 1 in (taken, taken + 1)


def test_a_sender_that_lets_go_leaves_nothing_behind_that_is_sent_later(door: TunnelDoor) -> None:
    """Its successor sends all of it again: twice is enough."""
    gate = threading.Event()
    far = to(door)

    async def main() -> None:
        target = far.open(timeout=30.0)
        messages = [Message(one, Position(0, n), 1) for n, one in enumerate(some(800, 40_000))]
        task = asyncio.ensure_future(target.send(messages))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await target.close()

    with plumber(door, write=lambda _: gate.wait(30)) as client:
        asyncio.run(main())
        gate.set()
        sent(to(door).open(), [event(b"last")])
        until(lambda: payloads([client])[-1:] == [b"last"])

    assert len(client.written) < 800


def test_ids_that_are_no_text_fail_and_the_others_go_on(door: TunnelDoor) -> None:
    with plumber(door):
        odd = event(b"bad", headers=(("\ud800", b""),))
        outcomes = sent(to(door).open(), [event(b"a"), odd, event(b"b")])

    assert [type(each) for each in outcomes] == [Delivered, Failed, Delivered]


def test_a_door_that_ends_lets_its_tunnels_go(door: TunnelDoor) -> None:
    """They hold the end up otherwise, and call another door."""
    client = Plumber(door.grpc).start()
    until(lambda: client.connected == 1)
    door.loop.call_soon_threadsafe(door.tunnels.close)
    until(lambda: door.connected() == 0)

    assert client.refused is None
    client.stop()


def test_the_other_two_calls(door: TunnelDoor) -> None:
    """Auth says whether a token would do; a tunnel that is deleted loses its call, no other."""
    with (
        plumber(door, tunnel_id="t1"),
        plumber(door, name="boats", tunnel_id="t2"),
        grpc.insecure_channel(door.grpc) as channel,
    ):
        stub: Any = DProxyStub(channel)
        assert stub.Auth(events_pb2.AuthRequest(token=TUNNEL)).authorized
        assert not stub.Auth(events_pb2.AuthRequest(token=TOKEN)).authorized
        asked = events_pb2.DeleteTunnelRequest(token=TOKEN, tunnel_id="t1")
        refused = stub.DeleteTunnel(asked)
        assert (refused.success, "scope tunnel" in refused.message) == (False, True)
        asked.token = TUNNEL
        [before] = door.tunnels.connected("main", "ships")
        [other] = door.tunnels.connected("main", "boats")
        assert stub.DeleteTunnel(asked).success
        until(lambda: before not in door.tunnels.connected("main", "ships"))
        assert other in door.tunnels.connected("main", "boats")
        with pytest.raises(grpc.RpcError) as error:
            next(stub.Connect(events_pb2.Tunnel()))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_ugly_bytes_to_the_routes_are_refused(door: TunnelDoor) -> None:
    import httpx

    client = httpx.Client(
        base_url=f"{door.url}/v1/tunnels/", headers={"Authorization": f"Bearer {READER}"}
    )
    with client:
        bodies = [each.payload for each in ugly.events(50, largest=1_000)]
        assert {client.post("ships", content=body).status_code for body in bodies} == {400}
        assert client.post("ships", content=b"x" * (9 << 20)).status_code == 413
        assert client.put("ships").status_code == 405
        assert client.get("a/b").status_code == 404
        assert client.get("").status_code == 404
        assert client.get("ships").json() == {"tunnels": []}
