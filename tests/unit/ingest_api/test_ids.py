from __future__ import annotations

import random
from collections.abc import Callable
from uuid import RFC_4122, UUID

import pytest
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st

from ingest_api.ids import LONGEST_ID, Uuid7, sender_id
from penstock.errors import BadRequest


def source(clock: Callable[[], int] = lambda: NOON) -> Uuid7:
    return Uuid7(clock, random.Random(7).getrandbits)


def test_an_id_is_a_version_7_uuid_of_the_clocks_millisecond() -> None:
    """Other tools read the time out of it, and tables keep neighbours together."""
    (text,) = source()(1)

    id_ = UUID(text)
    assert (str(id_), id_.version, id_.variant) == (text, 7, RFC_4122)
    assert id_.int >> 80 == NOON // 1_000


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 9_000)), min_size=1, max_size=8))
def test_ids_grow_whatever_the_clock_does(calls: list[tuple[int, int]]) -> None:
    """Two events with one id would be folded into one."""
    now = NOON

    def clock() -> int:
        return now

    new_ids = source(clock)
    seen: list[str] = []
    for step, count in calls:
        now += step * 1_000
        seen += new_ids(count)

    assert seen == sorted(set(seen))
    assert len(seen) == sum(count for _, count in calls)


def test_ids_go_on_in_the_next_millisecond_when_one_is_used_up() -> None:
    """Counting over the end would begin again below ids that were given out."""
    new_ids = source()
    new_ids(1)
    new_ids._block, new_ids._next = (1 << 36) - 1, (1 << 12) - 2

    ids = [*new_ids(5), *new_ids(1)]

    assert ids == sorted(set(ids))
    assert [UUID(id_).int >> 80 for id_ in ids] == [NOON // 1_000] * 2 + [NOON // 1_000 + 1] * 4


def test_two_processes_do_not_give_the_same_ids() -> None:
    """Doors run side by side, and restart within a millisecond."""
    one = Uuid7(lambda: NOON, random.Random(1).getrandbits)
    other = Uuid7(lambda: NOON, random.Random(2).getrandbits)

    assert not set(one(5_000)) & set(other(5_000))


def test_a_senders_id_has_a_longest_length() -> None:
    """It goes into answers, a column and an index, so it cannot be a payload of its own."""
    assert sender_id("x" * LONGEST_ID) == "x" * LONGEST_ID
    with pytest.raises(BadRequest, match="1,024"):
        sender_id("x" * (LONGEST_ID + 1))
