"""The layout of the embedded log: what is a frame, and what only looks like one."""

from __future__ import annotations

from uuid import UUID

import pytest
from builders import FLIGHTS
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.buffer.frames import (
    HEAD,
    LONGEST_HEADER,
    NOTHING,
    RECORDS,
    Frame,
    Tail,
    base_of,
    pack_head,
    pack_header,
    parse_head,
    parse_header,
    seed_of,
    segment_name,
    whole,
)
from penstock.envelope import CollectionId

SEED = seed_of(str(UUID(int=1)))
LONG = CollectionId("t" * 63, "n" * 63)


def packed(
    body: bytes = b"the body",
    *,
    collection: CollectionId | None = FLIGHTS,
    address: int = 1_000,
    seed: int = SEED,
) -> tuple[bytes, Frame]:
    header, frame = pack_header(
        body,
        kind=RECORDS if collection else HEAD,
        collection=collection,
        address=address,
        durable=900,
        incarnation=3,
        first=70,
        events=5,
        seed=seed,
    )
    return header + body, frame


@settings(deadline=None)
@given(
    body=st.binary(max_size=50),
    collection=st.sampled_from([FLIGHTS, LONG, None]),
    address=st.integers(0, (1 << 64) - 1),
    before=st.binary(max_size=20),
    after=st.binary(max_size=20),
)
def test_parsing_undoes_packing(
    body: bytes, collection: CollectionId | None, address: int, before: bytes, after: bytes
) -> None:
    """A frame is found wherever it stands in what was read."""
    data, frame = packed(body, collection=collection, address=address)

    assert parse_header(before + data + after, len(before), address, SEED) == frame
    assert whole(frame, data + after) == body
    assert frame.size == len(data)
    assert frame.header_size <= LONGEST_HEADER


def test_every_flipped_bit_is_seen() -> None:
    """Damage must be loud, wherever it is."""
    data, _ = packed()

    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        found = parse_header(bytes(flipped), 0, 1_000, SEED)
        assert found is None or whole(found, bytes(flipped)) is None


def test_every_torn_frame_is_seen() -> None:
    """A power cut leaves any part of what was being written."""
    data, frame = packed()

    for size in range(len(data)):
        found = parse_header(data[:size], 0, 1_000, SEED)
        assert found is None or whole(frame, data[:size]) is None


def test_a_frame_belongs_to_its_address() -> None:
    """Old blocks of a deleted file can appear in a new one."""
    data, _ = packed(address=1_000)

    assert parse_header(data, 0, 1_001, SEED) is None


def test_a_frame_belongs_to_its_log() -> None:
    """A payload that copies a frame, guessing its address, is no frame: it cannot know the id."""
    data, _ = packed(seed=seed_of(str(UUID(int=2))))

    assert parse_header(data, 0, 1_000, SEED) is None


def test_a_fingerprint_depends_on_content_and_life() -> None:
    """Two frames at one place, in two lives of a log, must not look the same."""
    prints = {packed(body)[1].tail.fingerprint for body in (b"a", b"b", b"c")}
    _, frame = packed(b"a")
    prints.add(frame._replace(incarnation=4).tail.fingerprint)

    assert len(prints) == 4


def test_a_tail_is_behind_the_frame() -> None:
    """The next frame of the collection goes on there."""
    _, frame = packed()

    assert frame.tail == Tail(75, 3, frame.crc)
    assert frame.end == 1_000 + frame.size
    assert NOTHING.fingerprint == ""


def test_a_head_keeps_every_collection() -> None:
    """With the segments before it gone, it alone knows that offsets were given out."""
    ends = {FLIGHTS: Tail(75, 3, 0xFFFFFFFF), LONG: Tail(1 << 40, 1, 0)}

    assert parse_head(memoryview(pack_head(ends))) == ends
    assert parse_head(memoryview(pack_head({}))) == {}


@pytest.mark.parametrize("base", [0, 1, 64 << 20, (1 << 63) - 1])
def test_a_segments_name_is_its_base(base: int) -> None:
    """Names sort like addresses, in any listing."""
    assert base_of(segment_name(base)) == base
    assert segment_name(base) < segment_name(base + 1)


@pytest.mark.parametrize("name", ["1.log", "x.log", f"{0:020d}", f"{0:020d}.log.new", "²" * 20])
def test_other_files_are_no_segments(name: str) -> None:
    """What an operator left in the folder is not the log."""
    assert base_of(name) is None
