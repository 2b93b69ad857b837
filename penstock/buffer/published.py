"""Where the writer tells readers in other processes how far the log is durable.

The file holds two slots, written in turn, each with a number that grows and a CRC. A reader takes
the valid slot with the higher number, so a slot it met half written costs nothing: that one was
not yet published. The file is not synced: after a power cut it may hold any past state, or none.
What it says remains true, because a durable end never moves back, but it may say too little;
`boot` tells which of the two it is.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

import psutil

FILE = "durable"
# Each slot in a disk sector of its own.
SLOT = 512
_SLOT = struct.Struct("<4sI16s16sQQQQ")
_MAGIC = b"PsD1"
_CHECKED = 8


class Published(NamedTuple):
    """One state of the log."""

    log_id: UUID
    boot: UUID
    """The machine's boot in which this was written: in that boot it is exact, later a minimum."""
    number: int
    end: int
    """Durable end of the log, an address."""
    tip: int
    """Base of the newest segment that holds something durable."""
    trims: int
    """Grows whenever old segments were let go."""


def pack_slot(state: Published) -> bytes:
    """Answer the bytes of the state's slot."""
    slot = _SLOT.pack(_MAGIC, 0, state.log_id.bytes, state.boot.bytes, *state[2:])
    return slot[:4] + zlib.crc32(slot[_CHECKED:]).to_bytes(4, "little") + slot[_CHECKED:]


def slot_offset(number: int) -> int:
    """Answer where in the file the state of that number goes."""
    return number % 2 * SLOT


def newest(data: bytes, log_id: str) -> Published | None:
    """Answer the newest whole state of this log that the file's bytes hold, if any."""
    states = [_parse(data, slot_offset(turn)) for turn in range(2)]
    mine = [state for state in states if state and str(state.log_id) == log_id]
    return max(mine, key=lambda state: state.number, default=None)


def log_ids(data: bytes) -> list[UUID]:
    """Answer the logs that the file's whole slots are of, that of the newest first."""
    states = [state for turn in range(2) if (state := _parse(data, slot_offset(turn)))]
    return [state.log_id for state in sorted(states, key=lambda one: one.number, reverse=True)]


def _parse(data: bytes, at: int) -> Published | None:
    slot = data[at : at + _SLOT.size]
    if len(slot) != _SLOT.size:
        return None
    magic, crc, log_id, boot, number, end, tip, trims = _SLOT.unpack(slot)
    if magic != _MAGIC or zlib.crc32(slot[_CHECKED:]) != crc:
        return None
    return Published(UUID(bytes=log_id), UUID(bytes=boot), number, end, tip, trims)


def this_boot() -> UUID:
    """Name the boot of this machine: what was written since is seen by all, synced or not."""
    linux = Path("/proc/sys/kernel/random/boot_id")
    if linux.exists():
        return UUID(linux.read_text().strip())
    return uuid5(NAMESPACE_OID, f"{psutil.boot_time():.0f}")
