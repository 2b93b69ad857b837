from __future__ import annotations

import pytest
from builders import FLIGHTS, NOON, event
from metadata_builders import destination
from msgspec.structs import replace

from penstock.envelope import Position
from penstock.guard import Guard
from penstock.metadata.records import Destination
from penstock.vocabulary import Kind
from replay.preview import Preview, previews
from replay.request import HeaderMode
from replay.transform import Transform, read_transform


def preview(to: Destination, mode: HeaderMode = "add") -> Preview:
    """Answer what would be sent of an event with headers."""
    sent = event(
        b"{}",
        id="e1",
        content_type="application/json",
        headers=(("X-Trace", b"7"), ("Authorization", b"Bearer of-the-sender")),
    )
    [found] = previews(
        [(Position(0, 1), sent)],
        to,
        guard=Guard(),
        collection=FLIGHTS,
        clock=lambda: NOON,
        mode=mode,
    )
    return found


def test_over_http_it_is_the_request_without_the_destinations_credentials() -> None:
    """What is shown in a browser must not be what the secret is kept for."""
    told = preview(destination()).headers

    names = [name for name, _ in told]
    assert dict(told)["X-Trace"] == b"7"
    assert dict(told)["authorization"] is None
    assert "Authorization" not in names
    assert {"penstock-event-id", "penstock-replay-id", "Content-Type"} <= set(names)
    assert b"hidden" not in b"".join(value or b"" for _, value in told)


def test_of_a_signature_it_is_the_names() -> None:
    """It will be that of another moment, and whoever has one can send the body again."""
    signing = replace(destination(), options={"signing": "stripe"}, secret="s3cret")

    assert dict(preview(signing, "verbatim").headers)["Stripe-Signature"] is None


def test_with_a_transform_it_is_what_that_makes_beside_what_it_was() -> None:
    """And an event that would fail says why, with no headers that nobody will get."""
    good, broken = event(b'{"a":1,"b":2}', id="e1"), event(b"plain", id="e2")

    one, other = previews(
        [(Position(0, 1), good), (Position(0, 2), broken)],
        destination(),
        guard=Guard(),
        collection=FLIGHTS,
        clock=lambda: NOON,
        mode="add",
        transform=read_transform(["mask a"]),
    )

    assert (one.event.payload, one.original, one.wrong) == (b'{"a":"***","b":2}', good, None)
    assert "penstock-transform" in dict(one.headers)
    assert (other.headers, other.original) == ((), broken)
    assert other.wrong == "the transform: the payload is no JSON"


@pytest.mark.parametrize("kind", ["http", "kafka"])
def test_the_mark_of_an_earlier_replay_is_not_taken_for_this_ones(kind: Kind) -> None:
    """It says what changed an event; of who did not change it now, it would say a wrong thing."""
    to = destination()
    if kind == "kafka":
        to = replace(to, kind=kind, url="kafka://k.example:9092/t", headers=())
    before = event(b"{}", headers=(("Penstock-Transform", b"of another"),))
    masking = read_transform(["mask a"])

    def marks(mode: HeaderMode, transform: Transform | None) -> list[bytes | None]:
        [one] = previews(
            [(Position(0, 1), before)],
            to,
            guard=Guard(),
            collection=FLIGHTS,
            clock=lambda: NOON,
            mode=mode,
            transform=transform,
        )
        return [value for name, value in one.headers if name.lower() == "penstock-transform"]

    assert marks("add", None) == []
    assert marks("add", masking) == [masking.id.encode()]
    assert marks("verbatim", None) == [b"of another"], "what was received"


def test_verbatim_adds_nothing() -> None:
    told = preview(destination(), "verbatim").headers

    assert not [name for name, _ in told if name.startswith("penstock-")]


def test_to_a_bus_it_is_what_was_received_and_what_a_replay_adds() -> None:
    bus = replace(destination(), kind="kafka", url="kafka://k.example:9092/t", headers=())

    told = dict(preview(bus).headers)
    assert told["Authorization"] == b"Bearer of-the-sender"
    assert told["content-type"] == b"application/json"
    assert told["penstock-event-id"] == b"e1"
