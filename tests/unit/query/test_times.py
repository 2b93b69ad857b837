"""Times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.query.times import NotATime, span

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


NOW = micros("2026-03-31T15:04:05.678901")


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-02", "2026-02-01", "2026-03-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("2026-11-22T06", "2026-11-22T06:00", "2026-11-22T07:00"),
        ("2026-11-22T06:59", "2026-11-22T06:59", "2026-11-22T07:00"),
        ("2026-11-22 06:59:59Z", "2026-11-22T06:59:59", "2026-11-22T07:00:00"),
        ("2026-11-22T06:00:00.12", "2026-11-22T06:00:00.120000", "2026-11-22T06:00:00.130000"),
        ("2026-11-22T00:30+02:00", "2026-11-21T22:30", "2026-11-21T22:31"),
        ("2026-11-22T00:30-0130", "2026-11-22T02:00", "2026-11-22T02:01"),
        ("now/d", "2026-03-31", "2026-04-01"),
        ("now/h", "2026-03-31T15:00", "2026-03-31T16:00"),
        ("now/w", "2026-03-30", "2026-04-06"),
        ("now/M", "2026-03-01", "2026-04-01"),
        ("now/y", "2026-01-01", "2027-01-01"),
        ("now-1M/d", "2026-02-28", "2026-03-01"),
        ("now-1y/M", "2025-03-01", "2025-04-01"),
        ("now-7d/d", "2026-03-24", "2026-03-25"),
        ("now-1d+2h/h", "2026-03-30T17:00", "2026-03-30T18:00"),
    ],
)
def test_a_coarse_time_stands_for_its_whole_span(text: str, start: str, end: str) -> None:
    """``received_at:2026-11-22`` means that day, and ``>2026-11-22`` what came after it."""
    assert span(text, NOW) == (micros(start), micros(end))


def test_a_moment_is_one_microsecond_long() -> None:
    """So that before, at and after it are three different things."""
    assert span("now", NOW) == (NOW, NOW + 1)
    assert span("now-15m", NOW) == (NOW - 900_000_000, NOW - 900_000_000 + 1)
    start = micros("2026-11-22T06:00:00.123456")
    assert span("2026-11-22T06:00:00.123456789Z", NOW) == (start, start + 1)


def test_the_last_year_has_an_end() -> None:
    """The day after it does not exist in Python."""
    assert (
        span("9999", NOW).end
        == span("9999-12-31", NOW).end
        == micros("9999-12-31") + 86_400_000_000
    )
    assert span("now/y", micros("9999-06-01")).end == span("9999", NOW).end


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "today",
            "now ",
            "now-",
            "now-7",
            "now-7x",
            "now/",
            "now/7d",
            "now-1",
            "-7d",
            "1700000000000",
        ),
        *(
            "2026-00",
            "2026-13",
            "2026-02-29",
            "2026-11-31",
            "2026-1-1",
            "26-01-01",
            "0000",
            "2026-",
        ),
        *("2026-11-22T24", "2026-11-22T06:60", "2026-11-22T06:00:60", "2026-11-22T", "2026-11-22Z"),
        *(
            "2026-11-22T06:00:00.",
            "2026-11-22T06:00:00.1234567890",
            "2026-11-22T06:00:00 Z",
            "\uff12\uff10\uff12\uff16",
        ),
        *("now-9999y", "now+9999y", "now-999999999d", "now+999999999w", "now-999999999M"),
    ],
)
def test_what_is_no_time_is_said_to_be_none(text: str) -> None:
    """Never a guess, never an overflow."""
    with pytest.raises(NotATime):
        span(text, NOW)


@given(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),  # noqa: DTZ001 - hypothesis wants it so
    st.from_regex(r"now([+-][0-9]{1,9}[smhdwMy]){0,3}(/[smhdwMy])?", fullmatch=True),
)
def test_every_relative_time_has_a_span_around_it_or_is_refused(
    moment: datetime, text: str
) -> None:
    """Calendars have corners: 31 March less a month, the first year, the last."""
    try:
        found = span(text, micros(moment.isoformat()))
    except NotATime:
        return
    assert found.start < found.end
