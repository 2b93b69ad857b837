"""Where a replay can go: the promise, and one file per kind of destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, overload

import msgspec

from penstock.envelope import Event, Position
from penstock.errors import BadRequest
from replay.events import Events, one_event


class Message(msgspec.Struct, frozen=True, gc=False):
    """One attempt to deliver one event. `attempt` counts from 1 within the replay."""

    event: Event
    position: Position
    attempt: int


class Parcel(NamedTuple):
    """The same attempt for neighbouring events: `start` to `stop` (exclusive) of the columns."""

    events: Events
    start: int
    stop: int
    attempt: int

    def message(self, number: int) -> Message:
        """Answer one of them, by its number in the columns."""
        events = self.events
        return Message(events.event(number), events.position(number), self.attempt)


class Messages(Sequence[Message]):
    """What a sender gives to a target; a `Message` is made where one is asked for.

    A target that has no need of them takes the columns of the `parcels`.
    """

    __slots__ = ("parcels",)

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self.parcels = parcels

    def __len__(self) -> int:
        return sum(parcel.stop - parcel.start for parcel in self.parcels)

    def __iter__(self) -> Iterator[Message]:
        for parcel in self.parcels:
            for number in range(parcel.start, parcel.stop):
                yield parcel.message(number)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            return list(self)[index]
        left = index if index >= 0 else index + len(self)
        for parcel in self.parcels:
            length = parcel.stop - parcel.start
            if 0 <= left < length:
                return parcel.message(parcel.start + left)
            left -= length
        raise IndexError(index)


def parcels_of(messages: Sequence[Message]) -> Sequence[Parcel]:
    """Answer the columns of messages, whoever made them."""
    if isinstance(messages, Messages):
        return messages.parcels
    return [Parcel(one_event(m.position, m.event), 0, 1, m.attempt) for m in messages]


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """The destination took the event. `differs` says how another, compared with it, did not."""

    status: int | None
    differs: str | None = None


class Retry(msgspec.Struct, frozen=True, gc=False):
    """The destination did not take the event this time, or it is not known whether it did.

    `after` is the destination's own wish, in seconds, for how long it wants to be left alone.
    """

    reason: str
    status: int | None = None
    after: float | None = None


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The destination will never take this event as it is. For `differs` see `Delivered`."""

    reason: str
    status: int | None = None
    differs: str | None = None


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """Nothing was sent, on purpose."""

    status: int | None = None


Outcome = Delivered | Retry | Failed | Skipped


class Target(Protocol):
    """A destination, opened for one replay."""

    @property
    def most(self) -> int:
        """The number of messages that one `send` may take."""
        ...

    @property
    def ordered(self) -> bool:
        """Whether events of one key may go in one `send`, and in another that begins behind it.

        Messages then arrive in the order in which they were given, and whatever was answered with
        `Retry` had none of its key delivered behind it: neither in the same `send` nor in one that
        was begun before the answer came.
        """
        ...

    def check(self, message: Message) -> Failed | None:
        """Make a message ready as `send` would, and say what would make it fail already here."""
        ...

    async def examine(self) -> str | None:
        """Look whether the destination is there and would take events; send none.

        Answers a sentence that says what is wrong, without address or credential.
        """
        ...

    async def send(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """Try once to deliver each of the messages; answer an outcome for each, in order.

        A sender gives `Messages`, whose columns are there to be taken (`parcels_of`).
        `Delivered` means that the destination has said so. Everything that can go wrong on the
        way is an outcome, never an exception; an outcome's `reason` is a short fixed sentence
        without payload, credential or address. If the call is cancelled, nothing is known of the
        messages. Retries nothing by itself.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


ADDED = (
    "penstock-replay-id",
    "penstock-event-id",
    "penstock-collection",
    "penstock-attempt",
    "penstock-received-at",
)
"""What a replay adds to the headers of an event, unless it is verbatim."""

REFUSED = Retry("the address guard refused the destination's address")
NOT_CONFIRMED = Retry("the destination did not confirm in time")
NO_CONNECTION = Retry("no connection")
NO_HOST = Retry("the host was not found")
NO_TLS = Retry("TLS failed")
NOT_TRUSTED = Retry("the destination's certificate does not pass; see the option ca")
BROKEN = Retry("the connection broke")
TOO_LARGE = Failed("the destination takes no events of this size")
NOT_LET_IN = Retry("the destination did not let us in")
GONE = Retry("the destination is not there")


def needs(package: str, extra: str) -> BadRequest:
    """Answer the error for a client that is not installed."""
    return BadRequest(f"{package} is not installed: pip install 'penstock[{extra}]'")
