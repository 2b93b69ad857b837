"""Times that a search reads one after the other: all of them, and none twice."""

from __future__ import annotations

from itertools import pairwise

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.listing import EVER, Group, Listed
from penstock.query.pieces import ALWAYS
from penstock.schema.shape import EMPTY
from penstock.search.spans import (
    MOST_SPANS,
    WHOLE,
    Piece,
    Window,
    next_step,
    readings,
    whole_files,
    windows,
    with_id,
)


def file(number: int, first: int, last: int, rows: int = 10) -> Listed:
    groups = (Group(rows, first, last),)
    return Listed(f"/{number}.parquet", rows, rows, first, last, EMPTY, groups)


def piece(number: int, first: int, last: int, rows: int = 10) -> Piece:
    return Piece(file(number, first, last, rows), 0, first, last, rows)


spans = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 60), st.integers(1, 40)), max_size=30
)


@given(spans, st.booleans())
@settings(max_examples=100, deadline=None)
def test_windows_are_all_of_time_and_have_nothing_in_common(found, newest_first: bool) -> None:
    pieces = [piece(n, first, first + width, rows) for n, (first, width, rows) in enumerate(found)]

    told = list(windows(pieces, newest_first=newest_first, steps=(20, 50, 100)))

    in_order = told[::-1] if newest_first else told
    assert (in_order[0].first, in_order[-1].last) == EVER
    assert all(one.last + 1 == other.first for one, other in pairwise(in_order))
    assert all(one.first <= one.last for one in told)


def test_the_newest_rows_come_first_and_no_more_than_a_page_may_need() -> None:
    pieces = [piece(n, n * 100, n * 100 + 99, rows=10) for n in range(10)]

    newest, more, rest = windows(pieces, newest_first=True, steps=(20, 30))
    assert newest == Window(800, EVER[1])
    assert more == Window(500, 799)
    assert rest == Window(EVER[0], 499)

    oldest, *_ = windows(pieces, newest_first=False, steps=(20, 30))
    assert oldest == Window(EVER[0], 199)


def holds(condition: str, at: int) -> bool:
    # The engine itself says what its text means.
    answer = duckdb.execute(
        f"SET TimeZone = 'UTC'; SELECT {condition} FROM (SELECT make_timestamptz({at}) "
        "AS received_at)"
    ).fetchone()
    assert answer is not None
    return bool(answer[0])


@given(spans, st.integers(0, 300), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_what_is_read_of_a_time_has_every_row_of_the_pieces_and_none_of_another_time(
    found, first: int, width: int
) -> None:
    window = Window(first, first + width)
    # Half of a file each, so that conditions are needed.
    pieces = [
        Piece(file(n, start, start + 2 * wide + 1, 100), 0, start, start + wide, rows)
        for n, (start, wide, rows) in enumerate(found)
    ]

    read = {path: one.within for one in readings(pieces, window) for path in one.paths}

    for one in pieces:
        for at in {max(one.first, window.first), min(one.last, window.last)}:
            if one.first <= at <= one.last and window.first <= at <= window.last:
                assert holds(read[one.file.path].text, at)
    for condition in set(read.values()):
        assert not holds(condition.text, window.first - 1)
        assert not holds(condition.text, window.last + 1)


def test_many_spans_become_few_by_closing_the_smallest_gaps() -> None:
    whole = file(0, 0, 100_000, 10_000)
    pieces = [Piece(whole, 0, n * 10, n * 10 + 3, 4) for n in range(200)]
    pieces.append(Piece(whole, 0, 50_000, 50_003, 4))

    (one,) = readings(pieces, WHOLE)

    assert one.within.text.count(">=") <= MOST_SPANS + 1
    assert not holds(one.within.text, 30_000)
    assert holds(one.within.text, 50_001)


def test_spans_are_fewer_where_they_leave_out_little() -> None:
    """A row is compared with each: to leave out one row in ten is not worth 48 comparisons."""
    whole = file(0, 0, 10_000, 1_000)
    pieces = [Piece(whole, 0, n * 100, n * 100 + 89, 9) for n in range(100)]

    (one,) = readings(pieces, WHOLE)

    assert one.within.text.count(">=") <= MOST_SPANS // 10 + 2
    assert all(holds(one.within.text, at) for at in (0, 89, 5_000, 9_989))


def test_whole_files_are_read_without_a_condition() -> None:
    (one,) = readings(whole_files([file(0, 0, 9), file(1, 20, 29)]), WHOLE)

    assert one.within == ALWAYS
    assert one.paths == ("/0.parquet", "/1.parquet")


def test_steps_go_by_what_was_found_in_those_before() -> None:
    """A page that lacks little reads little more, and where nothing was much more."""
    assert next_step(50_000, 45, 51) == 25_000
    assert next_step(50_000, 10, 51) == 307_500
    assert next_step(1_000_000, 50, 51) == 500_000
    assert next_step(50_000, 1, 51) == next_step(50_000, 0, 51) == 400_000


ids = st.text(min_size=1, max_size=4)


@given(st.lists(st.tuples(ids, ids), min_size=1), ids)
def test_an_id_is_looked_for_wherever_it_may_be(ends: list[tuple[str, str]], wanted: str) -> None:
    """Engines compare the bytes of ids; a row group that does not say its ids may have any."""
    groups = tuple(
        Group(10, 0, 9, None, None if "?" in a else (min(a, b), max(a, b))) for a, b in ends
    )
    told = Listed("/0.parquet", 10, 10, 0, 9, EMPTY, groups)

    assert [piece.group for piece in with_id([told], wanted)] == [
        number
        for number, (a, b) in enumerate(ends)
        if "?" in a or min(a.encode(), b.encode()) <= wanted.encode() <= max(a.encode(), b.encode())
    ]
