"""How readers in other processes learn of the durable end."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.buffer.published import SLOT, Published, newest, pack_slot, slot_offset, this_boot

LOG = UUID(int=1)


def state(number: int, *, log_id: UUID = LOG) -> Published:
    return Published(
        log_id, UUID(int=7), number=number, end=number * 100, tip=number * 10, trims=number
    )


def written(data: bytes, *states: Published) -> bytes:
    """Answer the file after these states were published into it."""
    file = bytearray(data.ljust(2 * SLOT, b"\0"))
    for each in states:
        slot = pack_slot(each)
        file[slot_offset(each.number) : slot_offset(each.number) + len(slot)] = slot
    return bytes(file)


def test_the_newest_state_is_read() -> None:
    """A reader must see the end of an acknowledgement that was just given."""
    data = b""
    for number in range(1, 6):
        data = written(data, state(number))
        assert newest(data, str(LOG)) == state(number)


@settings(deadline=None)
@given(st.integers(0, SLOT), st.booleans())
def test_a_state_half_written_is_not_seen(size: int, upper: bool) -> None:
    """The reader gets the one before, which is what was published until then."""
    before = written(b"", state(5), state(6))
    slot = pack_slot(state(7))
    at = slot_offset(7)
    part = slice(size, None) if upper else slice(None, size)
    torn = bytearray(before)
    for index in range(len(slot))[part]:
        torn[at + index] = slot[index]

    assert newest(bytes(torn), str(LOG)) in (state(6), state(7))


def test_every_flipped_bit_is_seen() -> None:
    """A wrong end would show readers what is not durable, or hide what is."""
    data = written(b"", state(6))
    size = len(pack_slot(state(6)))

    for bit in range(size * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert newest(bytes(flipped), str(LOG)) is None


@pytest.mark.parametrize("data", [b"", b"\0" * 2 * SLOT, b"\xff" * 2 * SLOT, b"PsD1" * SLOT])
def test_rubbish_says_nothing(data: bytes) -> None:
    """A power cut leaves the file in any state."""
    assert newest(data, str(LOG)) is None


def test_another_logs_state_says_nothing() -> None:
    """A file that was copied from another home."""
    data = written(b"", state(5), state(6, log_id=UUID(int=2)))

    assert newest(data, str(LOG)) == state(5)


def test_a_boot_has_one_name() -> None:
    """What was published in this boot is exact only if all processes agree on the boot."""
    assert this_boot() == this_boot()
