"""Events to blocks and back: whatever an event holds, it comes out as it went in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from builders import FLIGHTS, NOON, event
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codec import LOG_SCHEMA, Gathering, cut, encode, span_of
from penstock.envelope import Event, Mark, Span
from penstock.errors import LogDamaged

LOG = "00000000-0000-0000-0000-000000000001"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Python's datetime ends with the year 9999; the log itself keeps any 64 bits.
times = st.integers(-60_000_000_000_000_000, 250_000_000_000_000_000)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
events = st.builds(
    Event,
    id=texts,
    received_at=times,
    payload=st.binary(max_size=40),
    source=st.sampled_from(["http", "grpc", "kafka"]),
    content_type=st.none() | st.sampled_from(["", "application/json", "text/plain"]),
    key=st.none() | st.binary(max_size=4),
    headers=st.lists(st.tuples(texts, st.binary(max_size=4)), max_size=3).map(tuple),
    metadata=st.dictionaries(texts, texts, max_size=3),
    event_time=st.none() | times,
    quarantine=st.booleans(),
    named=st.booleans(),
)


def as_row(given_: Event, offset: int) -> dict[str, object]:
    return {
        "event_id": given_.id,
        "received_at": EPOCH + timedelta(microseconds=given_.received_at),
        "event_time": None
        if given_.event_time is None
        else EPOCH + timedelta(microseconds=given_.event_time),
        "source": given_.source,
        "content_type": given_.content_type,
        "key": given_.key,
        "headers": [{"key": k, "value": v} for k, v in given_.headers] or None,
        "metadata": list(given_.metadata.items()) or None,
        "payload": given_.payload,
        "log_id": LOG,
        "log_partition": 0,
        "log_offset": offset,
        "quarantine_wish": given_.quarantine,
        "named": given_.named,
    }


@settings(deadline=None)
@given(st.lists(st.lists(events, min_size=1, max_size=5), min_size=1, max_size=4))
def test_decoding_undoes_encoding(blocks: list[list[Event]]) -> None:
    """Every field of every event, also where blocks fold a column and others do not."""
    gathering = Gathering()
    offset = 0
    for block in blocks:
        gathering.add(encode(block), offset, 0, len(block))
        offset += len(block)
    batch = gathering.batch(LOG, 0)

    batch.validate(full=True)
    assert batch.schema == LOG_SCHEMA
    flat = [each for block in blocks for each in block]
    assert batch.to_pylist() == [as_row(each, number) for number, each in enumerate(flat)]


@settings(deadline=None)
@given(st.lists(events, min_size=1, max_size=8), st.data())
def test_a_part_of_a_block_is_that_part(block: list[Event], data: st.DataObject) -> None:
    """A mark in the midst of a frame must neither skip nor repeat."""
    start = data.draw(st.integers(0, len(block) - 1))
    stop = data.draw(st.integers(start + 1, len(block)))
    gathering = Gathering()

    assert gathering.add(encode(block), 100, start, stop) == stop

    rows = gathering.batch(LOG, 0).to_pylist()
    assert rows == [as_row(block[n], 100 + n) for n in range(start, stop)]
    assert gathering.payload_bytes == sum(len(each.payload) for each in block[start:stop])


@settings(deadline=None)
@given(st.lists(events, min_size=1, max_size=8), st.data())
def test_a_block_that_is_cut_holds_its_part_as_it_was(
    block: list[Event], data: st.DataObject
) -> None:
    """Of a frame some events may be in a table, and the others go to another log."""
    start = data.draw(st.integers(0, len(block) - 1))
    stop = data.draw(st.integers(start + 1, len(block)))

    part = cut(encode(block), start, stop)

    gathering = Gathering()
    gathering.add(part, 100, 0, stop - start)
    rows = gathering.batch(LOG, 0).to_pylist()
    assert rows == [as_row(each, 100 + n) for n, each in enumerate(block[start:stop])]
    assert cut(part, 0, stop - start) == part
    for wrong in ((stop, stop), (0, len(block) + 1), (-1, 1)):
        with pytest.raises(LogDamaged):
            cut(encode(block), *wrong)


@pytest.mark.parametrize(
    ("max_bytes", "stop"), [(0, 1), (1, 1), (3, 1), (4, 3), (5, 4), (6, 4), (99, 4)]
)
def test_a_bound_stops_after_the_event_that_reaches_it(max_bytes: int, stop: int) -> None:
    """At least one event, and no more memory than asked for plus one event."""
    block = encode([event("aaa"), event(""), event("b"), event("cc")])
    gathering = Gathering()

    assert gathering.add(block, 0, 0, 4, max_bytes=max_bytes) == stop
    assert len(gathering) == stop


def test_offsets_with_gaps_stay_where_they_are() -> None:
    """Other logs have markers between records."""
    gathering = Gathering()
    gathering.add(encode([event("a"), event("b")]), 5, 0, 2)
    gathering.add(encode([event("c")]), 7, 0, 1)
    gathering.add(encode([event("d")]), 11, 0, 1)

    assert gathering.batch(LOG, 3).column("log_offset").to_pylist() == [5, 6, 7, 11]
    assert gathering.batch(LOG, 3).column("log_partition").to_pylist() == [3] * 4


def test_nothing_gathered_is_a_batch_without_rows() -> None:
    """A span may hold no record."""
    batch = Gathering().batch(LOG, 0)

    assert batch.schema == LOG_SCHEMA
    assert batch.num_rows == 0


def test_what_all_events_share_is_written_once() -> None:
    """A block of many small events must not be mostly envelope."""
    many = [event("{}", id="i", content_type="application/json; charset=utf-8") for _ in range(999)]

    assert len(encode(many)) < 999 * 12


def damages() -> Sequence[bytes]:
    block = encode([event("abc"), event("de")])
    return [
        b"",
        block[:5],
        block[:-1],
        block + b"x",
        block[:40],
        b"\x01\x00\x00\x00\x00" + block[5:],
        block[:1] + b"\x03" + block[2:],
        block[:9] + b"\xc1" + block[10:],
    ]


@pytest.mark.parametrize("block", damages())
def test_a_block_that_is_none_is_damage(block: bytes) -> None:
    """Landing stops on it with a name, instead of an error of some library."""
    with pytest.raises(LogDamaged):
        Gathering().add(block, 0, 0, 2)


def test_a_block_of_a_newer_release_says_so() -> None:
    """After a downgrade the operator has to know why the log cannot be read."""
    block = encode([event("abc")])

    with pytest.raises(LogDamaged, match="version 2, this release reads 1"):
        Gathering().add(b"\x02" + block[1:], 0, 0, 1)


def test_damage_is_told_without_the_payload() -> None:
    """A payload is the sender's secret, an error message is not."""
    block = encode([event("the secret", id="x")])

    with pytest.raises(LogDamaged) as caught:
        Gathering().add(block[:-1], 0, 0, 1)
    assert "secret" not in str(caught.value)


FIRST = bytes.fromhex(
    "0102000000420000009992a169a16acf0006445941624000a46874747092b06170706c69636174696f6e2f6a"
    "736f6ec09205c092c4016bc0929192a168c40176909281a16da16e8092c3c200000000030000000500000061"
    "62636465"
)


def test_a_block_of_the_first_release_is_readable() -> None:
    """A log outlives the release that wrote it; these bytes must never change."""
    written = [
        event(
            "abc",
            id="i",
            key=b"k",
            headers=(("h", b"v"),),
            metadata={"m": "n"},
            event_time=5,
            quarantine=True,
        ),
        event("de", id="j", content_type=None),
    ]
    gathering = Gathering()
    gathering.add(FIRST, 0, 0, 2)

    assert gathering.batch(LOG, 0).to_pylist() == [
        as_row(each, n) for n, each in enumerate(written)
    ]


def test_a_batch_knows_its_span() -> None:
    """Landing names what it landed by span."""
    gathering = Gathering()
    gathering.add(encode([event("a"), event("b")]), 5, 0, 2)

    assert span_of(gathering.batch(LOG, 0), FLIGHTS, Mark(LOG, 0, 9, "f")) == Span(FLIGHTS, 0, 5, 9)
    empty = Gathering().batch(LOG, 0)
    assert span_of(empty, FLIGHTS, Mark(LOG, 0, 9, "f")) == Span(FLIGHTS, 0, 9, 9)


def test_the_log_keeps_times_to_the_microsecond() -> None:
    """The door's clock orders events that came within one millisecond."""
    gathering = Gathering()
    gathering.add(encode([event("a", received_at=NOON + 1)]), 0, 0, 1)

    column = gathering.batch(LOG, 0).column("received_at")
    assert column.cast(pa.int64()).to_pylist() == [NOON + 1]
