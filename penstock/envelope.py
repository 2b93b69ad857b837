"""The shapes between door and lake: what an event is, and where it is on the log.

Times are whole microseconds since 1970-01-01 UTC (``Micros``): they are compared, stored and
counted in bulk, and an ``int`` costs a tenth of a ``datetime``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from penstock.errors import BadName

Micros = int
Clock = Callable[[], Micros]
NewIds = Callable[[int], Sequence[str]]

DEFAULT_TEAM = "main"
SYSTEM_TEAM = "penstock_system"

# No double underscore: `<team>__quarantine` and `<collection>__distinct` are ours.
_NAME = re.compile(r"[a-z](?:_?[a-z0-9])*_?")
_LONGEST_NAME = 63


class CollectionId(NamedTuple):
    """Which collection: a team and a name within it. Its text is ``team.name``."""

    team: str
    name: str

    def __str__(self) -> str:
        return f"{self.team}.{self.name}"


def check_name(text: str, *, what: str) -> str:
    """Answer the name; raise `BadName` unless it may be a Kafka topic, a table and a URL part."""
    if len(text) > _LONGEST_NAME or not _NAME.fullmatch(text) or text.startswith("penstock"):
        raise BadName(text, what=what)
    return text


def parse_collection(text: str, *, team: str = DEFAULT_TEAM) -> CollectionId:
    """Read ``flights`` (in `team`) or ``other_team.flights``."""
    owner, dot, name = text.rpartition(".")
    if not dot:
        return CollectionId(team, check_name(text, what="collection"))
    if owner == SYSTEM_TEAM:
        return CollectionId(SYSTEM_TEAM, check_name(name, what="collection"))
    return CollectionId(check_name(owner, what="team"), check_name(name, what="collection"))


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One message as it was received, plus the id and time given to it at the door."""

    id: str
    received_at: Micros
    payload: bytes
    source: str
    content_type: str | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    metadata: dict[str, str] = {}
    event_time: Micros | None = None
    quarantine: bool = False
    """The sender's wish (``force_dead_letter``): land in quarantine, whatever the payload."""
    named: bool = False
    """Whether the sender gave the id: its repetitions come to the same log partition, and landing
    looks for what they repeat."""


ENVELOPES = "application/vnd.penstock.events+msgpack"
"""The type of a body of events that bring their envelopes: MessagePack, a list of `Enveloped`."""


class Enveloped(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """An event as its sender has it: all that a door does not say by itself."""

    payload: bytes
    id: str = ""
    """Empty: the door gives one."""
    content_type: str | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    metadata: dict[str, str] = {}
    event_time: Micros | None = None


class Position(NamedTuple):
    """Where an accepted event is on the log. To hold one means that the event is durable."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Span:
    """A contiguous part of one log partition; `end` is exclusive."""

    collection: CollectionId
    partition: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.collection}[{self.partition}]:{self.start}-{self.end}"


@dataclass(frozen=True, slots=True)
class Mark:
    """The next log position that a table (or index) has not absorbed yet.

    `fingerprint` belongs to the record just before `next` and is opaque to everyone but the log
    that gave it (embedded: incarnation and CRC; Kafka: leader epoch). A log that kept its id but
    lost or replaced records no longer matches it. It is empty only where nothing was absorbed.
    """

    log_id: str
    partition: int
    next: int
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.next}:{self.fingerprint}"


class Extent(NamedTuple):
    """What a log partition holds: offsets `start` (first kept) to `end` (exclusive, durable)."""

    start: int
    end: int
