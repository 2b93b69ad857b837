"""Values of headers that are made of an event."""

from __future__ import annotations

import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import given
from hypothesis import strategies as st

from penstock.envelope import Event, Position
from penstock.errors import BadRequest
from replay.targets import Message
from replay.targets.templates import FIELDS, template

EVENT = event(
    b"{}",
    id="e1",
    source="http",
    received_at=NOON,
    content_type="application/json",
    key=b"k1",
    headers=(("X-Trace", b"7"), ("x-trace", b"8"), ("X-Bytes", b"\xff"), ("a.b", b"dotted")),
    metadata={"topic": "orders"},
)


def filled(text: str, of: Event = EVENT) -> str | None:
    """Answer the value for an event, which has to be one of a template."""
    fill = template(text, FLIGHTS)
    assert fill is not None
    return fill(Message(of, Position(3, 42), 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{event.id}", "e1"),
        ("id={event.id};k={event.key}", "id=e1;k=k1"),
        ("{event.source} {event.content_type}", "http application/json"),
        ("{event.partition}/{event.offset}", "3/42"),
        ("{event.collection}", str(FLIGHTS)),
        ("{event.header.X-TRACE}", "7"),
        ("{event.header.a.b}", "dotted"),
        ("{event.metadata.topic}", "orders"),
        ("{{event.id}}", "{e1}"),
        ("{x} {event.id} {}", "{x} e1 {}"),
    ],
)
def test_a_placeholder_is_what_the_event_has(text: str, value: str) -> None:
    assert filled(text) == value


@pytest.mark.parametrize(
    "text",
    ["{event.event_time}", "a{event.header.nix}", "{event.metadata.nix}", "{event.header.X-Bytes}"],
)
def test_what_the_event_lacks_leaves_no_half_a_value(text: str) -> None:
    """``Bearer`` with nothing behind it is another request than the one that was meant."""
    assert filled(text) is None


@pytest.mark.parametrize(
    "text", ["", "plain", "{id}", "{", '{"a": {"b": 1}}', "{event}", "{ event.id }"]
)
def test_what_is_no_placeholder_is_text(text: str) -> None:
    """A credential may have braces."""
    assert template(text, FLIGHTS) is None


@pytest.mark.parametrize(
    "name",
    [
        "nix",
        "payload",
        "id.real",
        "__class__",
        "headers",
        "header.",
        "metadata",
        "id!r",
        "id:>9",
        "",
    ],
)
def test_one_that_there_is_not_is_refused_without_being_shown(name: str) -> None:
    """Found when the destination is made; what stands around it may be a credential."""
    with pytest.raises(BadRequest, match=r"behind event\. there may be id, ") as refused:
        template(f"s3cret {{event.{name}}}", FLIGHTS)
    assert "s3cret" not in str(refused.value)


def test_what_is_filled_in_is_not_read_again() -> None:
    """A sender could ask for the headers of others, or for the key."""
    asking = event(b"{}", id="{event.key}", key=b"k", headers=(("a", b"{event.id}"),))

    assert filled("{event.id} {event.header.a}", asking) == "{event.key} {event.id}"


@given(st.text(), st.text())
def test_any_text_is_read_without_trouble(before: str, behind: str) -> None:
    assert filled(f"{before}{{event.id}}{behind}") == f"{before}e1{behind}"


def test_every_field_that_is_told_is_one() -> None:
    for name in FIELDS:
        assert template(f"{{event.{name}}}", FLIGHTS) is not None
