"""Events as lines of JSON: whatever an event is, it comes back as it was."""

from __future__ import annotations

import json

import msgspec
import pytest
import ugly
from builders import NOON, event
from hypothesis import given
from hypothesis import strategies as st

from penstock.envelope import Event, Position
from penstock.errors import Malformed
from penstock.lines import enveloped, line_of, micros_of, read_line, stands_as_it_is
from replay.request import rfc3339


def line(one: Event, offset: int = 7) -> bytes:
    return line_of(
        one,
        Position(0, offset),
        headers=one.headers,
        received_at=rfc3339(one.received_at),
        event_time=None if one.event_time is None else rfc3339(one.event_time),
    )


def test_every_ugly_event_comes_back_as_it_was() -> None:
    for one in ugly.events(3_000, largest=20_000):
        written = line(one)

        assert written.count(b"\n") == 1
        assert isinstance(json.loads(written), dict)
        told = read_line(written)
        assert (told.partition, told.offset, micros_of(told.received_at)) == (0, 7, NOON)
        back = enveloped(told)
        assert (back.payload, back.id, back.key) == (one.payload, one.id, one.key)
        assert (back.headers, back.content_type) == (one.headers, one.content_type)
        assert (back.event_time, back.metadata) == (one.event_time, one.metadata)


@given(payload=st.binary(max_size=60) | st.from_regex(rb'[ \t{}\[\]",:0-9a-z\\.eE+-]{0,20}'))
def test_every_payload_comes_back_byte_for_byte(payload: bytes) -> None:
    assert enveloped(read_line(line(event(payload, id="e")))).payload == payload


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_stands_in_the_line_as_it_is(value: object) -> None:
    """Else nobody could look at a file with the tools that they have."""
    payload = json.dumps(value).encode()
    written = line(event(payload, id="e"))

    if stands_as_it_is(payload):
        assert b'"payload":' + payload in written
    else:
        # A lone surrogate is no text.
        assert b"\\ud" in payload
    assert enveloped(read_line(written)).payload == payload


@pytest.mark.parametrize(
    "payload",
    [b"", b" {}", b"{}\n", b'{"a":\n1}', b"NaN", b'{"a": 1,}', b"\xff", b"[" * 100_000],
)
def test_what_cannot_stand_in_a_line_is_packed(payload: bytes) -> None:
    written = line(event(payload, id="e"))

    assert b"payload_base64" in written
    assert enveloped(read_line(written)).payload == payload


def test_a_line_that_somebody_wrote_needs_a_payload_only() -> None:
    told = enveloped(read_line(b'{"payload": {"n": 1.10}, "key": "k", "headers": [["a", "b"]]}'))

    assert (told.payload, told.key, told.headers) == (b'{"n": 1.10}', b"k", (("a", b"b"),))
    assert (told.id, told.event_time) == ("", None)


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"[]",
        b"{}",
        b'{"payload": 1, "payload_base64": ""}',
        b'{"payload_base64": "!"}',
        b'{"payload": 1, "key": {"base64": "!"}}',
        b'{"payload": 1, "event_time": "noon"}',
        b'{"payload": 1, "event_time": "2026-11-22"}',
        b'{"payload": 1, "headers": {"a": "b"}}',
        b'{"payload": \xff}',
    ],
)
def test_what_is_no_line_is_refused(written: bytes) -> None:
    with pytest.raises(Malformed):
        enveloped(read_line(written))


def test_the_place_stands_first() -> None:
    """Whoever puts segments together reads no further than that."""
    assert line(event(b"{}", id="e")).startswith(b'{"partition":0,"offset":7,"id":"e"')
    assert msgspec.json.decode(line(event(b"{}", id="e")))["payload"] == {}
