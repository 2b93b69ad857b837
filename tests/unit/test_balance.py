"""The checker of outages finds what it is there to find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from balance import Place, Row, Sent, faults

LOG = "log-1"
ENDS = {0: 3, 1: 2}


def sent() -> Sent:
    """Answer what senders know: 2 was sent again after its first answer got lost."""
    kept = [(0, (0, 0)), (1, (0, 1)), (2, (1, 0)), (3, (1, 1))]
    return Sent(Counter({0: 1, 1: 1, 2: 2, 3: 1}), kept)


def rows() -> list[Row]:
    """Answer rows that balance with it."""
    numbers = {(0, 0): 0, (0, 1): 1, (0, 2): 2, (1, 0): 2, (1, 1): 3}
    return [Row(Place(LOG, *at), number) for at, number in numbers.items()]


def test_books_that_balance_have_no_fault() -> None:
    """What was sent twice may be there twice, as two positions."""
    assert faults(sent(), LOG, ENDS, rows()) == []


MUTANTS: dict[str, Callable[[list[Row]], Sequence[Row]]] = {
    "positions are rows more than once": lambda rows: [*rows, rows[1]],
    "positions of the log are no row": lambda rows: rows[:2] + rows[3:],
    "rows are where the log has nothing": lambda rows: [*rows, Row(Place(LOG, 1, 2), 3)],
    "acknowledged events are not where the door said": lambda rows: [
        rows[0]._replace(number=1),
        rows[1]._replace(number=0),
        *rows[2:],
    ],
    "events are there more often than they were sent": lambda rows: [
        *rows[:2],
        rows[2]._replace(number=3),
        *rows[3:],
    ],
}


@pytest.mark.parametrize("fault", MUTANTS)
def test_each_fault_is_found(fault: str) -> None:
    """A checker that cannot fail proves nothing."""
    found = faults(sent(), LOG, ENDS, MUTANTS[fault](rows()))

    assert any(fault in sentence for sentence in found), found


def test_rows_of_a_log_that_was_there_before_are_no_rows_of_this_one() -> None:
    """A topic that was deleted and made again counts from 0 again."""
    before = [row._replace(place=row.place._replace(log_id="log-0")) for row in rows()]

    assert len(faults(sent(), LOG, ENDS, before)) == 3


def test_an_acknowledged_event_that_is_nowhere_is_found_by_the_log_alone() -> None:
    """An event the log lost leaves no position behind that a row could be missing at."""
    found = faults(sent(), LOG, {0: 3, 1: 1}, rows()[:-1])

    assert len(found) == 1
    assert "1 acknowledged events are not where the door said" in found[0]


def test_a_position_that_was_answered_twice_holds_one_event_only() -> None:
    """The other one is nowhere, however often its sender was told that it is kept."""
    twice = sent()
    twice.tries[4] += 1
    twice.kept.append((4, (1, 1)))

    [found] = faults(twice, LOG, ENDS, rows())
    assert "1 acknowledged events are not where the door said" in found
