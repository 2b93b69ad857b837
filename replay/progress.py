"""How far a replay is, and the account it gives in the end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from penstock.envelope import Micros, Position
from penstock.errors import WrongState


class Tried(msgspec.Struct, frozen=True, gc=False):
    """How often an event was tried, and whether the end of the last attempt is `open`."""

    attempt: int
    open: bool


NOT_TRIED = Tried(0, open=False)
_FIRST_ATTEMPT = Tried(1, open=True)


class Reached(msgspec.Struct, frozen=True, gc=False):
    """How many events had been delivered and had failed at a time."""

    at: Micros
    delivered: int
    failed: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint keeps: where a successor goes on, and the counts so far.

    Events are sent in log order. Everything up to `through` has come to an end; of what follows,
    `done` has too. Nothing after `intended` has been sent by `epoch` or an earlier holder. An event
    between them that is not done is at its first attempt, and nobody knows how that ended, unless
    `tried` says otherwise.
    """

    epoch: int = 0
    through: Position | None = None
    passed: int = 0
    """How many events lie up to `through`."""
    done: tuple[Position, ...] = ()
    intended: Position | None = None
    tried: tuple[tuple[Position, Tried], ...] = ()

    delivered: int = 0
    failed: int = 0
    skipped: int = 0
    """Events that were not sent: by a dry run so far, or for whatever reason in the end."""
    unknown: int = 0
    """Events given up while an attempt was under way, so that nobody knows."""
    repeated: int = 0
    """Events sent again because a sender died between their sending and its books."""
    attempts: int = 0
    bytes: int = 0
    """Payload bytes delivered."""
    late: int = 0
    """Events that were sent more than `LATE_SECONDS` after they were due."""
    differing: int = 0
    """Events that the endpoint which is compared answered in another way."""
    last_failure: str | None = None
    waiting: str | None = None
    """Why nothing is sent just now, if that is not a pause."""
    at: Micros = 0
    course: tuple[Reached, ...] = ()
    """How it came this far: its first checkpoint, its newest, and some at even times between."""

    def history(self, position: Position) -> Tried:
        """Say what was done about an event that none of `through`, `done`, `tried` tells of."""
        intended = self.intended is not None and position <= self.intended
        return _FIRST_ATTEMPT if intended else NOT_TRIED

    def as_dict(self) -> dict[str, object]:
        """Answer what goes into the replay's row."""
        values: dict[str, object] = msgspec.to_builtins(self)
        return values

    @property
    def ended(self) -> int:
        """How many events have come to an end."""
        return self.delivered + self.failed + self.skipped + self.unknown


def read_progress(values: Mapping[str, Any]) -> Progress:
    """Read a row's progress; raise `WrongState` if it was written by something else."""
    try:
        return msgspec.convert(values, Progress)
    except msgspec.ValidationError as error:
        raise WrongState(f"the replay's progress cannot be read: {error}") from error


def with_course(progress: Progress, before: Sequence[Reached]) -> Progress:
    """Answer the progress with the course up to it, given that of the checkpoint before.

    It has `POINTS` and two at most, whatever the length of the replay: between two of them lies at
    least that part of the whole time.
    """
    now = Reached(progress.at, progress.delivered, progress.failed)
    if not before:
        return replace(progress, course=(now,))
    gap = max(_SECOND, (now.at - before[0].at) // POINTS)
    kept = [before[0]]
    for point in before[1:]:
        if point.at - kept[-1].at >= gap:
            kept.append(point)
    return replace(progress, course=(*kept, now))


def next_leg(progress: Progress) -> Progress:
    """Answer the progress with which a continuous replay begins to send what it found next."""
    return replace(progress, through=None, passed=0, done=(), intended=None, tried=(), waiting=None)


LATE_SECONDS = 0.1
POINTS = 120
_SECOND: Micros = 1_000_000


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a replay: `matched` is always the sum of the five numbers below it.

    At the end `waiting` and, unless a cancel cut attempts off, `unknown` are 0.
    """

    matched: int
    delivered: int
    failed: int
    skipped: int
    unknown: int
    waiting: int
    repeated: int
    attempts: int
    late: int
    differing: int


def report(progress: Progress, *, matched: int, ended: bool) -> Report:
    """Account for every event that the plan counted."""
    left = matched - progress.ended
    return Report(
        matched=matched,
        delivered=progress.delivered,
        failed=progress.failed,
        skipped=progress.skipped + (left if ended else 0),
        unknown=progress.unknown,
        waiting=0 if ended else left,
        repeated=progress.repeated,
        attempts=progress.attempts,
        late=progress.late,
        differing=progress.differing,
    )


class Attempt(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One row of the ledger: that an attempt was about to be made, or what came of it.

    The attempt is named by (replay, epoch, partition, offset, attempt): a sender may use an event
    id twice, a log position is given once. Every event of an intent gets an outcome:
    ``delivered``, ``failed`` for good, ``retry``, ``skipped`` if it was not made after all, or,
    written by whoever comes after a sender that died, ``unknown``. Times are RFC 3339.
    """

    replay: str
    epoch: int
    event_id: str
    team: str
    collection: str
    partition: int
    offset: int
    attempt: int
    kind: str
    outcome: str | None = None
    status: int | None = None
    latency_ms: float | None = None
    reason: str | None = None
    at: str
    destination: str
    who: str
    log_id: str = ""
    """The log that partition and offset are of."""
    transform: str | None = None
    """The id of the transform by which the event was changed, if it was."""
    events: int = 1
    """How many events the row is for, from this one on."""
    last: int
    """The offset of the last of them."""


class Attempts(msgspec.Struct, frozen=True, gc=False):
    """Rows of the ledger that are alike but for the event: its id, its offset.

    `ids` and `offsets` are those of the events that follow the first.
    """

    first: Attempt
    ids: Sequence[str] = ()
    offsets: Sequence[int] = ()

    def __len__(self) -> int:
        return 1 + len(self.ids)

    def rows(self) -> Iterator[Attempt]:
        """Answer the rows one by one."""
        yield self.first
        for event_id, offset in zip(self.ids, self.offsets, strict=True):
            yield replace(self.first, event_id=event_id, offset=offset, last=offset)
