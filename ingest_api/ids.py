"""Event ids: version 7 UUIDs (RFC 9562) that grow within a process, and ids that senders give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.envelope import Clock
from penstock.errors import BadRequest

LONGEST_ID = 1024
"""Characters a sender's id may have: it is in answers, in a column and in an index."""

_START_BITS = 47
_HIGH_BITS = 26
_ENDINGS = 1 << 12
_BLOCKS = 1 << 36


class Uuid7:
    """A source of ids: ``new_ids(n)`` answers n of them, each greater than every one before.

    The first id of a millisecond has 73 random bits; those after it count up in the last 48.
    Belongs to one thread.
    """

    def __init__(self, clock: Clock, random_bits: Callable[[int], int]) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self._millisecond = -1
        self._prefix = ""
        # The last three digits, written once: joining two strings takes a tenth of formatting one.
        self._endings = [f"{ending:03x}" for ending in range(_ENDINGS)]
        # All digits but those, and which ending comes next.
        self._stem = ""
        self._block = 0
        self._next = 0

    def __call__(self, count: int) -> Sequence[str]:
        """Answer `count` new ids, in growing order."""
        millisecond = self._clock() // 1_000
        if millisecond > self._millisecond:
            self._begin(millisecond)
        ids: list[str] = []
        while True:
            first, self._next = self._next, self._next + count - len(ids)
            ids += map(self._stem.__add__, self._endings[first : self._next])
            if self._next <= _ENDINGS:
                return ids
            self._next_block()

    def _begin(self, millisecond: int) -> None:
        """Take this millisecond, a new random part, and a place to count from with much room."""
        self._millisecond = millisecond
        high = self._random_bits(_HIGH_BITS)
        time = f"{millisecond:012x}"
        version = 0x7000 | high >> 14
        variant = 0x8000 | high & 0x3FFF
        self._prefix = f"{time[:8]}-{time[8:]}-{version:04x}-{variant:04x}-"
        self._block, self._next = divmod(self._random_bits(_START_BITS), _ENDINGS)
        self._stem = f"{self._prefix}{self._block:09x}"

    def _next_block(self) -> None:
        if self._block + 1 == _BLOCKS:
            self._begin(self._millisecond + 1)
            return
        self._block += 1
        self._next = 0
        self._stem = f"{self._prefix}{self._block:09x}"


def sender_id(text: str) -> str:
    """Answer the id a sender gave; raise `BadRequest` if it is too long to be kept."""
    if len(text) > LONGEST_ID:
        raise BadRequest(f"an event id may have {LONGEST_ID:,} characters, this one has more")
    return text
