"""How far a tail has read: a log and an offset for each of its partitions. Pure.

Its text is what a client gives back to go on: ``<log id>;0=1200,1=873``. It is not signed, because
it gives no right: what it says is checked against the log of the collection that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from penstock.errors import BadRequest

_TEXT = re.compile(r"([A-Za-z0-9_-]{1,64});((?:[0-9]{1,6}=[0-9]{1,18}(?:,(?!\Z)|\Z))+)")
_UNREADABLE = "the position cannot be read; begin without one"


@dataclass(frozen=True, slots=True)
class Positions:
    """The next offset of each partition that has not been looked at; what is not named is at 0."""

    log_id: str
    offsets: Mapping[int, int]

    def __getitem__(self, partition: int) -> int:
        return self.offsets.get(partition, 0)

    def __str__(self) -> str:
        told = (f"{partition}={offset}" for partition, offset in sorted(self.offsets.items()))
        return f"{self.log_id};{','.join(told)}"

    @property
    def key(self) -> tuple[tuple[int, int], ...]:
        """What is the same for positions that are the same."""
        return tuple(sorted((p, offset) for p, offset in self.offsets.items() if offset))

    def moved(self, further: Mapping[int, int]) -> Positions:
        """Answer the positions with these in place of theirs."""
        return Positions(self.log_id, {**self.offsets, **further})

    def behind(self, ends: Mapping[int, int]) -> int:
        """Answer how many positions lie between these and the ends."""
        return sum(max(0, end - self[partition]) for partition, end in ends.items())


def read(text: str, *, log_id: str, ends: Mapping[int, int]) -> Positions:
    """Read the text of positions; raise `BadRequest` unless this log, which ends there, has them.

    A log that had no record yet may have got another id since.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise BadRequest(_UNREADABLE)
    pairs = [pair.split("=") for pair in found[2].split(",")]
    offsets = {int(partition): int(offset) for partition, offset in pairs}
    if len(offsets) < len(pairs):
        raise BadRequest(_UNREADABLE)
    if found[1] != log_id and any(offsets.values()):
        raise BadRequest("the position belongs to another log; begin without one")
    if any(offset > ends.get(partition, 0) for partition, offset in offsets.items()):
        raise BadRequest("the position is ahead of the log; begin without one")
    return Positions(log_id, {partition: offsets.get(partition, 0) for partition in sorted(ends)})


class _Placed(Protocol):
    @property
    def log_partition(self) -> int: ...
    @property
    def log_offset(self) -> int: ...


def along(start: Positions, events: Iterator[_Placed]) -> Iterator[Positions]:
    """Answer for each event the positions from which to go on once it was handed over."""
    at = dict(start.offsets)
    for event in events:
        at[event.log_partition] = event.log_offset + 1
        yield Positions(start.log_id, dict(at))
