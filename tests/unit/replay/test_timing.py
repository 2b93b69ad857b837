"""Times between events: where each lies in a replay, and when that is due."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.timing import Beat, Stretch, Timeline, lasts, silence, width

SECOND = 1_000_000
TIMES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3_600 * SECOND)), max_size=60)
SPEEDS = st.floats(0.01, 1_000)
GAPS = st.none() | st.floats(0.001, 100)


def places(times: list[tuple[int, int | None]], speed: float, gap: float | None) -> list[float]:
    timeline = Timeline(speed, gap)
    return [timeline.place(partition, at) for partition, at in times]


@pytest.mark.parametrize(("speed", "expected"), [(1.0, [0, 2, 5]), (10.0, [0, 0.2, 0.5])])
def test_a_speed_divides_the_time_between_events(speed: float, expected: list[float]) -> None:
    """10x is a tenth of the time, and the rhythm stays."""
    assert places([(0, 7 * SECOND), (0, 9 * SECOND), (0, 12 * SECOND)], speed, None) == expected


def test_no_silence_is_longer_than_the_gap() -> None:
    """A night without events must not be waited for; what is shorter stays as it was."""
    times = [(0, 0), (0, SECOND), (0, 3_600 * SECOND), (0, 3_601 * SECOND)]

    assert places(times, 1.0, 5.0) == [0, 1, 6, 7]
    assert places(times, 10.0, 5.0) == pytest.approx([0, 0.1, 5.1, 5.2])


@given(TIMES, SPEEDS, GAPS)
def test_places_keep_the_order_of_the_log_whatever_the_times(
    times: list[tuple[int, int]], speed: float, gap: float | None
) -> None:
    """Times go back where clocks differ: nothing overtakes, and no step is longer than allowed."""
    found = places(times, speed, gap)

    assert found == sorted(found)
    for one, following in pairwise(found):
        assert following - one <= (3_600 / speed if gap is None else gap) + 1e-6


def test_time_that_went_back_is_not_counted_twice() -> None:
    """Else two senders whose clocks differ by an hour would make an hour of every pair."""
    assert places([(0, 10 * SECOND), (0, 0), (0, 10 * SECOND), (0, 11 * SECOND)], 1, None) == [
        0,
        0,
        0,
        1,
    ]


def test_an_event_without_a_time_goes_with_the_one_before() -> None:
    """Not every event says when it happened."""
    assert places([(0, None), (0, 5 * SECOND), (0, None), (0, 6 * SECOND)], 1, None) == [0, 0, 0, 1]


def test_each_partition_has_times_of_its_own() -> None:
    """They come one after the other: the second begins when the first ends."""
    times = [(0, 100 * SECOND), (0, 102 * SECOND), (1, 100 * SECOND), (1, 101 * SECOND)]

    assert places(times, 1, None) == [0, 2, 2, 3]


def test_without_a_speed_everything_is_due_at_once() -> None:
    """As fast as the rate allows."""
    timeline = Timeline(0.0, None)

    assert not timeline.on
    assert [timeline.place(0, at * SECOND) for at in (1, 500, 2)] == [0, 0, 0]


@given(TIMES.filter(bool), SPEEDS, GAPS)
def test_a_beat_does_not_drift(
    times: list[tuple[int, int]], speed: float, gap: float | None
) -> None:
    """When something is due depends on the first event, not on when the others were asked for."""
    beat, now = Beat(), 1_000.0
    first = places(times, speed, gap)[0]
    begun = beat.due(first, now)
    for number, place in enumerate(places(times, speed, gap)):
        late = now + number * 17.0
        assert beat.due(place, late) == pytest.approx(begun + place - first)


def test_a_beat_that_was_stopped_begins_anew_with_the_next_place() -> None:
    """After a pause of an hour nothing is an hour late."""
    beat = Beat()
    assert beat.due(0.0, 50.0) == 50.0
    assert beat.due(4.0, 51.0) == 54.0

    beat.stop()
    assert not beat.runs
    assert beat.due(4.0, 3_600.0) == 3_600.0
    assert beat.due(5.0, 3_600.0) == 3_601.0


@given(
    st.lists(st.integers(0, 600 * SECOND), min_size=1, max_size=60),
    st.floats(0.5, 100),
    st.none() | st.floats(0.2, 100),
)
def test_the_estimate_is_how_long_the_timeline_is(
    times: list[int], speed: float, gap: float | None
) -> None:
    """A plan says how long a replay in time will take: from counts by time, not from events."""
    times.sort()
    wide = width(speed, gap)
    stretches: list[Stretch] = []
    for at in times:
        old = stretches[-1] if stretches and stretches[-1].first // wide == at // wide else None
        if old is None:
            stretches.append(Stretch(0, at, at, 1))
        else:
            stretches[-1] = old._replace(last=at, events=old.events + 1)

    whole = lasts(stretches, speed, gap, most=len(times))

    assert whole == pytest.approx(places([(0, at) for at in times], speed, gap)[-1])
    assert lasts(stretches, speed, gap, most=1) <= wide / SECOND / speed


def test_a_silence_between_partitions_is_none() -> None:
    """They go one after the other."""
    stretches = [Stretch(0, 0, SECOND, 2), Stretch(1, 0, 2 * SECOND, 2)]

    assert lasts(stretches, 1.0, None, most=4) == 3.0
    assert silence(5 * SECOND, 2.0, None) == 2.5
