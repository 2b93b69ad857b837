"""The checker of outages finds what it is there to find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from balance import Findings, Place, Row, Sent, compare, look, totals

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
    assert look(sent(), LOG, ENDS, rows()) == Findings(events=4, altered=0)


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
    found = look(sent(), LOG, ENDS, MUTANTS[fault](rows())).said

    assert any(fault in sentence for sentence in found), found


def test_rows_of_a_log_that_was_there_before_are_no_rows_of_this_one() -> None:
    """A topic that was deleted and made again counts from 0 again."""
    before = [row._replace(place=row.place._replace(log_id="log-0")) for row in rows()]

    found = look(sent(), LOG, ENDS, before)
    assert (found.lost, found.phantom) == (5, 5)


def test_an_acknowledged_event_that_is_nowhere_is_found_by_the_log_alone() -> None:
    """An event the log lost leaves no position behind that a row could be missing at."""
    found = look(sent(), LOG, {0: 3, 1: 1}, rows()[:-1])

    assert found.lost == 1
    assert "1 acknowledged events are nowhere" in found.said[0]


def test_a_position_that_was_answered_twice_holds_one_event_only() -> None:
    """The other one is nowhere, however often its sender was told that it is kept."""
    twice = sent()
    twice.tries[4] += 1
    twice.kept.append((4, (1, 1)))

    found = look(twice, LOG, ENDS, rows())
    assert found.altered == 1
    assert "1 acknowledged events are not where the door said" in found.said[0]


TOLD = {n: b"%d" % n for n in range(6)}
HELD = list(TOLD.items())


def test_a_store_that_holds_what_was_acknowledged_has_no_fault() -> None:
    """In one lane and in its order; what was stored and never acknowledged may be there."""
    found = compare(TOLD, [*HELD, (6, b"6")], known={6}, lane=lambda _: 0)

    assert found == Findings(events=6, reordered=0, altered=0)


FAULTY: dict[str, list[tuple[int, bytes]]] = {
    "lost": HELD[:2] + HELD[3:],
    "doubled": [*HELD, HELD[5]],
    "phantom": [*HELD, (7, b"7")],
    "reordered": [HELD[1], HELD[0], *HELD[2:]],
    "altered": [*HELD[:-1], (5, b"6")],
}


@pytest.mark.parametrize("kind", FAULTY)
def test_each_fault_of_a_store_is_found(kind: str) -> None:
    """And counted as what it is, and as nothing else."""
    found = compare(TOLD, FAULTY[kind], lane=lambda _: 0)

    assert [name for name in FAULTY if getattr(found, name)] == [kind]
    assert len(found.said) == 1


def test_what_may_come_again_is_counted_and_does_not_break_the_order() -> None:
    """A sender that was killed leaves a suffix to repeat; more than its window is a fault."""
    taken = [*HELD[:4], *HELD[2:]]

    fine = compare(TOLD, taken, most_again=2, lane=lambda _: 0)
    more = compare(TOLD, taken, most_again=1, lane=lambda _: 0)

    assert (fine.again, fine.doubled, fine.said) == (2, 0, ())
    assert more.doubled == 2


def test_what_was_not_looked_at_is_not_called_right() -> None:
    """Positions alone say nothing of bytes, and a set has no order."""
    found = compare(dict.fromkeys(range(3)), [(n, None) for n in range(3)])

    assert (found.altered, found.reordered) == (None, None)


def test_a_store_that_only_counts_is_compared_by_its_count() -> None:
    assert totals(5, 5).said == ()
    assert (totals(5, 3).lost, totals(5, 7).phantom) == (2, 2)
