from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.envelope import Micros
from replay.progress import POINTS, Progress, Reached, read_progress, with_course

SECOND = 1_000_000


def course_of(times: list[Micros]) -> tuple[Reached, ...]:
    """Answer the course after checkpoints at these times, with one event more at each."""
    course: tuple[Reached, ...] = ()
    for number, at in enumerate(times):
        course = with_course(Progress(at=at, delivered=number), course).course
    return course


@given(st.lists(st.integers(0, 3_600 * SECOND), min_size=1, max_size=400))
def test_a_course_is_short_and_keeps_its_ends(steps: list[int]) -> None:
    """It stands in the replay's row, which is written every second, for days."""
    times = [sum(steps[: n + 1]) for n in range(len(steps))]
    course = course_of(times)

    assert len(course) <= POINTS + 2
    assert course[0] == Reached(times[0], 0, 0)
    assert course[-1] == Reached(times[-1], len(times) - 1, 0)
    assert [one.at for one in course] == sorted(one.at for one in course)
    assert [one.delivered for one in course] == sorted(one.delivered for one in course)


def test_a_long_course_has_its_points_at_even_times() -> None:
    """A plot of a day whose last hour is dense and whose beginning is gone says nothing."""
    course = course_of([n * SECOND for n in range(5_000)])

    gaps = [b.at - a.at for a, b in pairwise(course[:-1])]
    assert len(course) > POINTS / 3
    assert max(gaps) <= 4 * min(gaps)


def test_progress_of_an_earlier_release_has_no_course() -> None:
    assert read_progress({"delivered": 3}).course == ()
    values = with_course(Progress(at=5, delivered=3), ()).as_dict()
    assert read_progress(values).course == (Reached(5, 3, 0),)
