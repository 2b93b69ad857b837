"""Speeds and silences as people write them."""

from __future__ import annotations

import pytest

from penstock.errors import BadRequest
from penstock.pace import read_gap, read_speed


@pytest.mark.parametrize(
    ("text", "speed"), [(None, None), ("1x", 1.0), ("10", 10.0), (" 0.5x ", 0.5), ("0", 0.0)]
)
def test_a_speed_is_a_number_of_times(text: str | None, speed: float | None) -> None:
    assert read_speed(text) == speed


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("5s", 5.0), ("200ms", 0.2), ("1m", 60.0), ("1.5", 1.5), ("2 h", 7_200.0)],
)
def test_a_gap_is_a_length_of_time(text: str | None, seconds: float | None) -> None:
    assert read_gap(text) == seconds


@pytest.mark.parametrize("text", ["", "fast", "-1x", "x", "1xx", "inf", "1e3"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(BadRequest, match="write 1x"):
        read_speed(text)


@pytest.mark.parametrize("text", ["", "5 parsecs", "-5s", "1m30s"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="write 5s"):
        read_gap(text)
