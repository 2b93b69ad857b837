"""What repeats what: the decision alone, against one that looks at every pair."""

from __future__ import annotations

import pyarrow as pa
import pytest
from builders import NOON, event
from hypothesis import given
from hypothesis import strategies as st
from log_batches import log_batch

from penstock.schema.repeats import CANDIDATE, Judged, hashes_of, judge, mark, named_in

WINDOW = 10

Row = tuple[str, str | None, bytes, int, bool]

ROWS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from([None, "shop"]),
        st.sampled_from([b"1", b"2"]),
        st.integers(0, 25),
        st.booleans(),
    ),
    max_size=12,
)


def candidates(rows: list[Row]) -> pa.Table:
    ids, sources, payloads, times = (
        list(column) for column in zip(*(r[:4] for r in rows), strict=True)
    )
    return pa.table([ids, sources, payloads, times], schema=CANDIDATE)


def by_pairs(rows: list[Row]) -> Judged:
    """Judge as the sentences in the reference say it."""
    judged = Judged([], [])
    for place, (id_, source, payload, received, named) in enumerate(rows):
        earlier = [
            other[2]
            for other in rows[:place]
            if other[:2] == (id_, source) and other[3] >= received - WINDOW
        ]
        if named and payload in earlier:
            judged.repeats.append(place)
        elif named and earlier:
            judged.reused.append(place)
    return judged


@given(ROWS.filter(bool))
def test_rows_are_judged_as_if_each_was_compared_with_every_one_before(rows: list[Row]) -> None:
    assert judge(candidates(rows), [row[4] for row in rows], WINDOW) == by_pairs(rows)


@pytest.mark.parametrize(("later", "repeats"), [(0, [1]), (WINDOW, [1]), (WINDOW + 1, [])])
def test_the_window_ends_where_it_says(later: int, repeats: list[int]) -> None:
    """A sender that reads in the reference how long it may retry has to be able to rely on it."""
    rows: list[Row] = [("a", None, b"1", 100, True), ("a", None, b"1", 100 + later, True)]

    assert judge(candidates(rows), [True, True], WINDOW) == Judged(repeats, [])


IDS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), max_size=30)


@given(IDS, st.integers(-(1 << 63), (1 << 63) - 1))
def test_equal_ids_have_equal_hashes_and_others_do_not(ids: list[str], seed: int) -> None:
    """A hash that depended on the neighbours would miss repetitions in another batch."""
    together = hashes_of(pa.array(ids, pa.string()), seed).to_pylist()

    assert together == [hashes_of(pa.array([i], pa.string()), seed)[0].as_py() for i in ids]
    assert len(set(together)) == len(set(ids))


def test_ids_of_a_thousand_characters_are_hashed_to_their_end() -> None:
    """Ids of one sender often differ in their last digits only."""
    ids = ["x" * 1_023 + last for last in "abc"] + ["short"]

    assert len(set(hashes_of(pa.array(ids * 3_000), 7).to_pylist())) == 4


def test_rows_know_whether_their_senders_named_them_also_when_some_are_in_quarantine() -> None:
    """Rows are fewer than the records they come from: counting along would name others."""
    events = [event("{}", id=f"e{n}", named=n in (1, 3)) for n in range(5)]
    batch = log_batch(*events)
    rows = pa.Table.from_batches([batch]).take([0, 2, 3, 4])

    named = named_in(rows, batch)

    assert named is not None
    assert named.to_pylist() == [False, False, True, False]
    assert named_in(rows, log_batch(event(), event())) is None


def test_marks_stand_in_the_columns_and_everything_else_stays() -> None:
    batch = log_batch(
        event("1", id="a", metadata={"topic": "t"}), event("2", id="a"), event("1", id="a")
    )
    rows = pa.Table.from_batches([batch]).append_column("duplicate_of", pa.nulls(3, pa.string()))

    marked = mark(rows, Judged([2], [1]))

    assert marked["duplicate_of"].to_pylist() == [None, None, "a"]
    assert marked["metadata"].to_pylist() == [
        [("topic", "t")],
        [("penstock_id", "reused")],
        None,
    ]
    same = [name for name in rows.column_names if name not in ("duplicate_of", "metadata")]
    assert marked.select(same) == rows.select(same)
    assert rows["received_at"].cast(pa.int64()).to_pylist() == [NOON] * 3
