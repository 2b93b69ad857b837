"""Rate, patience, waits and windows: the decisions of a sender, without one."""

from __future__ import annotations

import pytest
from builders import event
from hypothesis import given
from hypothesis import strategies as st
from replaying import in_columns, originals
from shared_rates import excess

from penstock.envelope import Event, Position
from replay.events import Events, Original, one_event
from replay.pacing import BURST_SECONDS, FIRST_DELAY, LONGEST_DELAY, Breaker, Bucket, delay
from replay.progress import Tried
from replay.window import Item, Lanes, Window

FRESH = Tried(0, open=False)


@given(
    st.floats(0.01, 10_000),
    st.lists(st.floats(0, 0.5), min_size=2, max_size=60),
)
def test_a_bucket_never_lets_more_through_than_rate_and_burst(
    rate: float, gaps: list[float]
) -> None:
    """Whatever the times at which somebody asks."""
    bucket, now, taken = Bucket(rate), 0.0, []
    for gap in gaps:
        now += gap
        if bucket.wait(1, now) == 0:
            bucket.take(1, now)
            taken.append(now)
    for start, first in enumerate(taken):
        for end, last in enumerate(taken[start:], start):
            assert end - start <= rate * (last - first + BURST_SECONDS) + 1 + 1e-6


@given(st.floats(0.01, 10_000))
def test_a_bucket_lets_the_rate_through_to_whoever_waits_as_told(rate: float) -> None:
    """A limit that is never reached would be another limit."""
    bucket, now = Bucket(rate), 0.0
    for _ in range(50):
        while wait := bucket.wait(1, now):
            now += wait
        bucket.take(1, now)
    assert now <= 50 / rate + 1e-6


def test_no_rate_is_no_limit() -> None:
    """The usual case costs nothing."""
    bucket = Bucket(None)
    bucket.take(5_000, 0.0)

    assert bucket.wait(5_000, 0.0) == 0.0


def test_a_bucket_that_is_made_faster_does_not_wait_for_its_past() -> None:
    """From one an hour to a thousand a second, without the rest of the hour."""
    bucket = Bucket(1 / 3600)
    bucket.take(1, 0.0)
    bucket.change(1_000, 1.0)

    assert bucket.wait(1, 1.0) < 0.01


@given(st.floats(20, 10_000), st.lists(st.floats(0, 0.3), min_size=2, max_size=30))
def test_a_bucket_lets_several_through_together_within_the_same_bound(
    rate: float, gaps: list[float]
) -> None:
    """A batch goes at once: all of it has to be there, and no more than the burst ever is."""
    bucket, now, taken = Bucket(rate), 0.0, []
    most = bucket.most()
    for gap in gaps:
        now += gap
        now += bucket.wait(most, now)
        bucket.take(most, now)
        taken += [now] * most

    assert excess(taken, rate) <= 1e-6
    # Two more than the whole burst: one more may be a hair below it.
    assert bucket.wait(int(rate * BURST_SECONDS) + 3, now + 1_000) > 0


@pytest.mark.parametrize("attempt", [1, 2, 5, 8, 50, 10_000])
def test_waits_double_up_to_a_minute(attempt: int) -> None:
    """And never overflow, however often."""
    longest = delay(attempt, None, lambda: 0.0)
    shortest = delay(attempt, None, lambda: 0.999999)

    assert longest == min(FIRST_DELAY * 2 ** (min(attempt, 20) - 1), LONGEST_DELAY)
    assert longest / 2 <= shortest <= longest


def test_the_wish_of_a_destination_is_obeyed_but_never_at_once() -> None:
    """Retry-After: 0 from a broken server would be a busy loop."""
    assert delay(1, 120.0, lambda: 0.5) == 120.0
    assert delay(9, 2.0, lambda: 0.5) == 2.0
    assert delay(1, 0.0, lambda: 0.5) == FIRST_DELAY


def test_a_breaker_counts_failures_in_a_row() -> None:
    """One success in between shows that the destination lives."""
    breaker = Breaker(3)

    assert [breaker.failed(), breaker.failed()] == [False, False]
    breaker.reset()
    assert [breaker.failed(), breaker.failed(), breaker.failed()] == [False, False, True]


def window(size: int = 5, **more) -> Window:
    more = {"through": None, "passed": 0, "done": (), **more}
    return Window(size, 1 << 20, **more)


def one(offset: int, what: Event) -> tuple[Events, int, int]:
    return one_event(Position(0, offset), what), 0, 1


def filled(found: Window, count: int) -> list[Item]:
    items = [found.take(*one(n, event(b"12345")), FRESH) for n in range(count)]
    return [item for item in items if item is not None]


@given(st.permutations(range(8)))
def test_the_low_watermark_passes_what_is_done_without_a_gap(order: list[int]) -> None:
    """Passing a gap would lose the event in it when the sender dies."""
    found = window(size=8)
    items = filled(found, 8)
    done: set[int] = set()
    for number in order:
        found.finish(items[number])
        done.add(number)
        low = next((n for n in range(8) if n not in done), 8)
        assert found.passed == low
        assert found.through == (Position(0, low - 1) if low else None)
        assert set(found.done()) == {Position(0, n) for n in done if n >= low}
        assert [i.first.offset for i in found.unfinished()] == [
            n for n in range(low, 8) if n not in done
        ]


def test_a_window_opens_when_the_mark_is_durable_and_not_before() -> None:
    """What was sent since the last checkpoint is what a successor repeats."""
    found = window(size=5)
    items = filled(found, 5)
    assert not found.room()
    for item in items:
        found.finish(item)

    assert not found.room()
    found.saved(3)
    assert found.room()


def test_a_window_is_full_of_bytes_too() -> None:
    """Counted until the watermark has passed them, for so long they are in memory."""
    found = Window(100, 10, through=None, passed=0, done=())
    first, second = filled(found, 2)
    assert not found.room()
    found.finish(second)
    assert not found.room()
    found.finish(first)
    assert found.room()


def test_what_an_earlier_holder_finished_is_not_taken_again() -> None:
    """It counts as done from the moment it is read, and before that in every checkpoint."""
    found = window(through=Position(0, 0), passed=1, done=(Position(0, 2), Position(0, 4)))
    assert found.done() == (Position(0, 2), Position(0, 4))

    items = [found.take(*one(n, event(b"{}")), FRESH) for n in (1, 2, 3)]

    assert [item is None for item in items] == [False, True, False]
    assert found.done() == (Position(0, 2), Position(0, 4))
    found.finish(items[0])
    assert (found.through, found.passed) == (Position(0, 2), 3)


def test_events_taken_together_count_one_by_one() -> None:
    """The window bounds what is repeated, in events, however few items they make."""
    found = window(size=12)
    events = in_columns(originals(10))
    together = found.take(events, 0, 8, FRESH)
    assert together is not None
    assert (len(found), found.room()) == (8, 4)

    first, *others = found.part(together, length=3)
    assert [len(item) for item in (first, *others)] == [3, 3, 2]
    assert list(found.unfinished()) == [first, *others]
    found.finish(others[0])
    assert found.done() == tuple(Position(0, n) for n in (3, 4, 5))
    found.finish(first)

    assert (found.through, found.passed, len(found), found.done()) == (Position(0, 5), 6, 2, ())


def test_parts_stand_where_the_whole_stood() -> None:
    """The low watermark has to meet them in the order of the log."""
    found = window(size=30)
    events = in_columns(originals(30))
    items = [found.take(events, start, start + 10, FRESH) for start in (0, 10, 20)]
    assert items[1] is not None
    found.part(items[1], length=1)

    assert [p for item in found.unfinished() for p in item.positions()] == [
        Position(0, n) for n in range(30)
    ]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 40))
def test_large_events_are_not_taken_together_beyond_the_bytes(sizes: list[int], most: int) -> None:
    """As many as one by one: the last may go beyond, and one is always let in."""
    events = in_columns(
        [Original(Position(0, n), event(b"x" * size)) for n, size in enumerate(sizes)]
    )
    single = Window(100, most, through=None, passed=0, done=())
    count = 0
    while count < len(sizes) and single.room():
        single.take(events, count, count + 1, FRESH)
        count += 1

    together = Window(100, most, through=None, passed=0, done=()).take(events, 0, len(sizes), FRESH)

    assert together is not None
    assert len(together) == count


def items_of(*keys: bytes | None) -> list[Item]:
    return [Item(*one(n, event(b"{}", key=key)), FRESH) for n, key in enumerate(keys)]


def test_a_lane_lets_one_event_of_a_key_go_at_a_time() -> None:
    """Order per key is this and nothing else."""
    lanes = Lanes("key")
    a, b, other, none, nothing = items_of(b"k", b"k", b"l", None, None)

    assert [lanes.enter(item) for item in (a, b, other, none, nothing)] == [
        True,
        False,
        True,
        True,
        True,
    ]
    assert lanes.enter(a), "an event that is tried again keeps its place"
    assert lanes.leave(a) is b
    assert lanes.leave(b) is None
    assert lanes.leave(none) is None


def test_an_empty_key_is_a_key_and_no_key_is_none() -> None:
    """Senders do tell them apart."""
    lanes = Lanes("key")
    first, second, keyless = items_of(b"", b"", None)

    assert [lanes.enter(first), lanes.enter(second), lanes.enter(keyless)] == [True, False, True]


def test_log_order_is_one_lane_for_everything() -> None:
    """Keys, none at all: one after the other."""
    lanes = Lanes("log")
    a, b, c = items_of(b"k", None, b"l")

    assert [lanes.enter(item) for item in (a, b, c)] == [True, False, False]
    assert lanes.leave(a) is b
    assert lanes.leave(b) is c
    assert lanes.leave(c) is None
