"""What a released event says of itself, and the counting of causes."""

from __future__ import annotations

import pyarrow as pa
import pytest
from builders import NOON
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codec import TIME
from penstock.quarantine.causes import COLUMNS, count_causes, step_for
from penstock.quarantine.release import Origin, Release, marked, read_origin, read_release

MINUTE = 60_000_000


@given(st.text(min_size=1), st.integers(0, 1 << 20), st.integers(0, 1 << 60))
@settings(max_examples=50, deadline=None)
def test_an_origin_is_read_as_it_was_written(log_id: str, partition: int, offset: int) -> None:
    origin = Origin(log_id, partition, offset)

    assert read_origin(str(origin)) == origin


@pytest.mark.parametrize("text", ["", "a/1", "a/1/x", "/1/2", "a/-1/2", "a/1/" + "9" * 40])
def test_other_texts_are_no_origin(text: str) -> None:
    assert read_origin(text) is None


def test_the_marks_of_a_second_release_replace_those_of_the_first() -> None:
    first = Release("r1", Origin("log", 0, 7), "ann", NOON, 2)
    second = Release("r2", Origin("log", 0, 9), "bob", NOON + 1, 3)

    metadata = marked(marked({"topic": "t"}, first), second)

    assert read_release(metadata) == second
    assert metadata["topic"] == "t"
    assert read_release({**metadata, "penstock_attempt": "x"}) is None
    assert read_release({"topic": "t"}) is None


def batch(*rows: tuple[int, str, int]) -> pa.RecordBatch:
    """Answer quarantined events: minutes after noon, reason, offset."""
    values = [
        {
            "received_at": NOON + minute * MINUTE,
            "stage": "gate",
            "reason": reason,
            "log_id": "log",
            "log_partition": 0,
            "log_offset": offset,
        }
        for minute, reason, offset in rows
    ]
    kinds = dict(
        zip(
            COLUMNS,
            (TIME, pa.string(), pa.string(), pa.string(), pa.int32(), pa.int64()),
            strict=True,
        )
    )
    return pa.RecordBatch.from_arrays(
        [pa.array([v[name] for v in values], kinds[name]) for name in COLUMNS],
        schema=pa.schema(kinds),
    )


def test_closed_events_are_left_out_and_bars_are_of_one_length() -> None:
    closed = batch((0, "a", 1)).select(["log_id", "log_partition", "log_offset"])

    found = count_causes(
        [batch((0, "a", 0), (0, "a", 1)), batch((1, "b", 2), (9, "b", 3), (9, "b", 4))],
        pa.Table.from_batches([closed]),
        bars=4,
    )

    assert (found.open, found.closed, found.step) == (4, 1, 5 * MINUTE)
    assert [(c.why.reason, c.count, c.bars) for c in found.causes] == [
        ("b", 3, (1, 2)),
        ("a", 1, (1, 0)),
    ]


@given(st.integers(0, 10**15), st.integers(2, 100))
@settings(max_examples=100, deadline=None)
def test_a_step_needs_no_more_bars_than_asked_for(span: int, bars: int) -> None:
    step = step_for(span, bars)

    # The span may begin just before a bar's end.
    assert (step - 1 + span) // step + 1 <= bars
