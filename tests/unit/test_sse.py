"""Messages arrive as they were sent, wherever the network cuts them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import sse
from penstock.sse import Message, Parser, write

LINES = st.text("ab: \u00e9\u2028\U0001f600", max_size=20)
NAMES = st.sampled_from(["event", "heartbeat", "x"])
MESSAGES = st.lists(
    st.builds(
        Message,
        event=NAMES,
        data=LINES.map(str.encode),
        id=st.sampled_from([None, "log-1;0=12,1=5"]),
    ),
    max_size=4,
)


@given(MESSAGES, st.lists(st.integers(0, 400), max_size=8))
@settings(max_examples=50)
def test_what_was_written_is_read_wherever_it_is_cut(
    messages: list[Message], cuts: list[int]
) -> None:
    text = b"".join(map(write, messages))
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parser = Parser()

    read = [message for start, end in pairwise(places) for message in parser.feed(text[start:end])]

    assert read == messages


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_other_writers_are_understood(end: str) -> None:
    """A proxy may write lines anew; comments and unknown fields are passed over."""
    lines = [": hello", "retry: 5", "data:one", "data: two", "", "event: x", "data", "", "data: y"]
    parser = Parser()
    pieces = [bytes([one]) for one in end.join(lines).encode() + 3 * end.encode()]

    read = [message for piece in pieces for message in parser.feed(piece)]

    # The last line end may be half of one.
    read += parser.feed(b"\n")
    assert read == [Message("message", b"one\ntwo"), Message("x", b""), Message("message", b"y")]


def test_a_message_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 100)
    parser = Parser()
    assert [*parser.feed(b"x" * 60)] == []

    with pytest.raises(ValueError, match="too long"):
        list(parser.feed(b"x" * 60))
