from __future__ import annotations

import math

import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st

from ingest_api.times import micros_of, micros_of_text

YEAR = 365 * 86_400 * 1_000_000


@pytest.mark.parametrize(
    "number",
    [
        NOON // 1_000_000,
        NOON // 1_000,
        NOON,
        NOON * 1_000,
        NOON * 1_000 + 999,
        NOON / 1_000_000,
    ],
)
def test_the_unit_is_told_by_the_size(number: float) -> None:
    """Senders use all four and say which nowhere."""
    assert micros_of(number) == NOON


@given(st.integers(4 * YEAR, 3_000 * YEAR))
def test_any_time_of_three_thousand_years_is_read_in_every_unit(micros: int) -> None:
    """A bound in the wrong place would move events by a factor of a thousand."""
    assert micros_of(micros) == micros
    assert micros_of(micros * 1_000) == micros
    assert micros_of(micros // 1_000) == micros // 1_000 * 1_000
    assert micros_of(micros // 1_000_000) == micros // 1_000_000 * 1_000_000


@pytest.mark.parametrize(
    "number", [0, 0.0, math.nan, math.inf, -math.inf, 10**20, 10**400, -(10**11) + 1]
)
def test_what_is_no_time_is_none(number: float) -> None:
    """Unset fields are 0 on many wires; readers of the lake cannot show the year -1200."""
    assert micros_of(number) is None


def test_times_before_1970_are_kept() -> None:
    """A wrong time is flagged later, never lost."""
    assert micros_of(-1) == -1_000_000


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2025-11-24T16:00:00Z", NOON),
        ("2025-11-24T18:00:00.000001+02:00", NOON + 1),
        ("2025-11-24T16:00:00.123456789Z", NOON + 123_456),
        ("1764000000", NOON),
        ("1764000000.5", NOON + 500_000),
        ("1764000000000", NOON),
        ("2025-11-24T16:00:00", None),
        ("2025-11-24", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9" * 5_000, None),
        ("1_000", None),
        ("nan", None),
        ("today", None),
        ("", None),
    ],
)
def test_texts_are_numbers_or_moments_with_an_offset(text: str, micros: int | None) -> None:
    """A local time without an offset would be wrong by hours."""
    assert micros_of_text(text) == micros


@given(st.text())
def test_no_text_raises(text: str) -> None:
    """The text is the sender's; a time that cannot be read must not refuse an event."""
    micros_of_text(text)
