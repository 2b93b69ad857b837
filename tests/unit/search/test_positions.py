"""Positions come back from clients: what is read is what was told, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import BadRequest
from penstock.search.positions import Positions, read

OFFSETS = st.dictionaries(st.integers(0, 40), st.integers(0, 10**15), min_size=1, max_size=8)


@given(OFFSETS)
def test_what_was_told_is_read_again(offsets: dict[int, int]) -> None:
    told = Positions("log-1_x", offsets)

    assert read(str(told), log_id="log-1_x", ends=offsets) == Positions(
        "log-1_x", dict(sorted(offsets.items()))
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "log", "log;", "log;0", "log;0=", "log;0=1,", "log;=1", "log;0=-1", "log;0=1,0=1",
        "log;0=1;1=2", "log;0=1\n", " log;0=1", "l\u00f6g;0=1", "log;0=1,x=2", "log;\u0661=1",
    ],
)  # fmt: skip
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        read(text, log_id="log", ends={0: 5, 1: 5})


def test_a_position_of_another_log_is_refused() -> None:
    """Its offsets are other events here: going on from them would skip some silently."""
    with pytest.raises(BadRequest, match="another log"):
        read("old;0=1", log_id="log", ends={0: 5})


def test_a_log_that_was_empty_may_have_another_id_now() -> None:
    assert read("cluster;0=0", log_id="topic", ends={0: 5}) == Positions("topic", {0: 0})


@pytest.mark.parametrize("text", ["log;0=6", "log;0=1,1=1"])
def test_a_position_ahead_of_the_log_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="ahead of the log"):
        read(text, log_id="log", ends={0: 5})


def test_new_partitions_are_read_from_their_beginning() -> None:
    assert read("log;0=3", log_id="log", ends={0: 5, 1: 2}) == Positions("log", {0: 3, 1: 0})
