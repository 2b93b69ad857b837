from __future__ import annotations

import gzip
import resource
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest_api.encoding import coding_of, decoded
from penstock.errors import Malformed, TooLarge, UnknownEncoding


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


CODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd}
both = pytest.mark.parametrize("coding", CODERS)


def undo(body: bytes, coding: str, *, max_bytes: int = 1 << 20, max_ratio: int = 200) -> bytes:
    return decoded(body, coding, max_bytes=max_bytes, max_ratio=max_ratio)


@given(st.sampled_from(sorted(CODERS)), st.lists(st.binary(max_size=2_000), min_size=1, max_size=4))
def test_members_one_after_the_other_are_one_body(coding: str, members: list[bytes]) -> None:
    """`cat a.gz b.gz` is a gzip file; stopping at the first member would lose events silently."""
    body = b"".join(CODERS[coding](member) for member in members)

    assert undo(body, coding) == b"".join(members)


def test_a_zstd_frame_that_does_not_say_its_size_is_read() -> None:
    """Streaming senders do not know it."""
    coder = zstandard.ZstdCompressor(write_content_size=False).compressobj()

    assert undo(coder.compress(b"x" * 1_000) + coder.flush(), "zstd") == b"x" * 1_000


@both
def test_a_stream_cut_anywhere_is_refused(coding: str) -> None:
    """An upload that broke off would be acknowledged as a shorter event, or as fewer lines."""
    whole = CODERS[coding](bytes(range(256)) * 4)

    for end in range(len(whole)):
        with pytest.raises(Malformed, match=coding):
            undo(whole[:end], coding)


@both
@pytest.mark.parametrize("body", [b"{}", b"\x00" * 40, b"\xff" * 1_000])
def test_bytes_in_no_such_coding_are_refused(coding: str, body: bytes) -> None:
    """The sender named the coding; storing the bytes as they are would store something else."""
    with pytest.raises(Malformed):
        undo(body, coding)


@both
def test_bytes_after_the_last_member_are_refused(coding: str) -> None:
    """They are part of the body, and nobody can say what they mean."""
    with pytest.raises(Malformed):
        undo(CODERS[coding](b"x") + b"junk and more junk", coding)


@both
def test_a_changed_byte_is_noticed_by_gzip_and_never_crashes(coding: str) -> None:
    whole = CODERS[coding](bytes(range(256)) * 4)

    for place in range(0, len(whole), 7):
        changed = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        try:
            undo(changed, coding)
        except Malformed:
            continue


@both
def test_a_bomb_is_stopped_at_the_ratio(coding: str) -> None:
    """Zstd turns 8 kB into 256 MB; the door has to stop long before."""
    bomb = CODERS[coding](bytes(64 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(TooLarge, match=coding) as refused:
        undo(bomb, coding, max_bytes=1 << 30, max_ratio=20)

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert refused.value.limit == max(64 << 10, 20 * len(bomb))
    assert grown < 32 << 10  # kilobytes


@both
def test_a_bomb_is_stopped_at_the_size(coding: str) -> None:
    """A body that shrinks by little can still be too large."""
    with pytest.raises(TooLarge) as refused:
        undo(CODERS[coding](bytes(300_000)), coding, max_bytes=200_000, max_ratio=1_000_000)

    assert refused.value.limit == 200_000
    assert refused.value.size <= 200_000 + (64 << 10)


@both
def test_small_bodies_are_not_judged_by_ratio(coding: str) -> None:
    """A few lines that repeat themselves shrink by any factor and hurt nobody."""
    assert undo(CODERS[coding](bytes(64 << 10)), coding, max_ratio=2) == bytes(64 << 10)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        (b"", None),
        (b"identity", None),
        (b"gzip", "gzip"),
        (b" GZIP ", "gzip"),
        (b"x-gzip", "gzip"),
        (b"zstd", "zstd"),
    ],
)
def test_codings_are_named_as_in_http(header: bytes | None, coding: str | None) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", [b"br", b"deflate", b"gzip, gzip", b"\xff\xfe", b"x" * 900])
def test_other_codings_are_refused_by_name(header: bytes) -> None:
    """Keeping the coded bytes would make them the payload, and nobody could search them."""
    with pytest.raises(UnknownEncoding, match="none of gzip, zstd"):
        coding_of(header)
