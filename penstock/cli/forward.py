"""Deliveries to a URL of the developer's choice, from the machine on which the command runs.

They are those of a replay over HTTP: original bytes and headers, the five ``penstock-…`` headers,
the same reading of answers. The address guard stands between tenants and the platform's network;
here it is the caller's own command on the caller's own machine, so every address may be reached.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import ip_network
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from penstock.cli.console import err, safe
from penstock.cli.home import write_file
from penstock.clock import machine_clock
from penstock.contract.base import micros
from penstock.envelope import CollectionId, Event, Position
from penstock.errors import AddressRefused
from penstock.guard import Guard
from replay.targets import NO_CONNECTION, Delivered, Failed, Message, Outcome, Retry
from replay.targets.http import HttpTarget

if TYPE_CHECKING:
    from penstock.cli.tail import Follow
    from penstock.contract.search import EventTold

_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_LONGEST_WAIT = 5.0
_SHORTEST_WAIT = 0.25

WINDOW = 50
"""Events that are delivered before it is written down how far it came, at most."""
_SAVE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of an event."""

    event_id: str
    attempts: int
    outcome: Outcome

    @property
    def delivered(self) -> bool:
        """Whether the receiver said that it took it."""
        return isinstance(self.outcome, Delivered)

    @property
    def sentence(self) -> str:
        """What to tell a person."""
        if isinstance(self.outcome, Delivered):
            return f"delivered, {self.outcome.status}"
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"failed after {tries}: {getattr(self.outcome, 'reason', '')}"

    def told(self) -> dict[str, object]:
        """Answer what to tell a program."""
        return {
            "event_id": self.event_id,
            "delivered": self.delivered,
            "attempts": self.attempts,
            "status": self.outcome.status,
            "reason": getattr(self.outcome, "reason", None),
        }


class Forwarder:
    """Posts events one after the other; an event waits until the one before it is through."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        attempts: int,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Check the URL; raise `AddressRefused` for one that HTTP cannot be spoken to."""
        self.collection = ""
        """The collection with its team, as the platform names it."""
        self._url = url
        self._guard = Guard(_ANYWHERE, _port_of(url))
        self._name = name
        self._attempts = attempts
        self._wait = wait
        self._target: HttpTarget | None = None
        self._open("main.unknown")
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._target is not None:
            self._runner.run(self._target.close())
        self._runner.close()

    def deliver(self, told: EventTold) -> Sent:
        """Post an event until it is taken, refused, or was tried often enough.

        While nobody listens it waits: that says nothing about the event.
        """
        if self._target is None:
            self._target = self._open(self.collection)
        event, place = event_of(told), Position(told.log_partition, told.log_offset)
        attempt, waited = 1, 0
        while True:
            message = Message(event, place, attempt)
            [outcome] = self._runner.run(self._target.send([message]))
            if not isinstance(outcome, Retry):
                return Sent(event.id, attempt, outcome)
            if outcome is NO_CONNECTION:
                if not waited:
                    err().print(f"[yellow]nobody listens at {safe(self._url)}[/]; waiting")
            elif attempt >= self._attempts:
                return Sent(event.id, attempt, Failed(outcome.reason, outcome.status))
            else:
                attempt += 1
            wished = outcome.after or 0.0
            self._wait(max(wished, min(_SHORTEST_WAIT * 2**waited, _LONGEST_WAIT)))
            waited += 1

    def _open(self, collection: str) -> HttpTarget:
        return HttpTarget(
            self._url,
            guard=self._guard,
            replay_id=self._name,
            collection=CollectionId(*collection.split(".", 1)),
            clock=machine_clock,
            marked=False,
        )


def event_of(told: EventTold) -> Event:
    """Answer the event that the platform tells of, its bytes as they were received."""
    key = None if told.key is None else told.key.encode()
    if told.key_base64 is not None:
        key = base64.b64decode(told.key_base64)
    return Event(
        id=told.event_id,
        received_at=micros(told.received_at),
        payload=told.payload_bytes(),
        source=told.source,
        content_type=told.content_type,
        key=key,
        headers=tuple(
            (name, v.encode() if isinstance(v, str) else base64.b64decode(v.base64))
            for name, v in told.headers
        ),
        metadata=dict(told.metadata),
    )


class Progress:
    """How far the deliveries of one tail to one URL came, in a file of the home.

    After a crash at most `window` events come again.
    """

    window = WINDOW

    def __init__(
        self, follow: Follow, url: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        who = f"{follow.platform}\0{follow.collection}\0{follow.query}\0{url}"
        # URLs may hold secrets, and queries what is nobody's business.
        self.name = "tail-" + blake2b(who.encode(), digest_size=9).hexdigest()
        """What tells this tail from others, as the id of a replay does."""
        self._file = follow.home.expanduser() / "tails" / self.name
        self._clock = clock
        self._position: str | None = None
        self._unsaved = 0
        self._saved = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._save()

    def read(self) -> str | None:
        """Answer the position to go on from; None if there is none."""
        try:
            return self._file.read_text().strip() or None
        except FileNotFoundError:
            return None

    def passed(self, position: str | None) -> None:
        """Note that an event is through, and the position behind it."""
        self._position = position or self._position
        self._unsaved += 1
        if self._unsaved >= self.window or self._clock() - self._saved >= _SAVE_SECONDS:
            self._save()

    def reached(self, position: str | None) -> None:
        """Note that everything before the position is through."""
        if position != self._position:
            self._position = position or self._position
            self._save()

    def _save(self) -> None:
        if self._position is None:
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Were it lost, the next start would begin at what comes then, and miss what came before.
        write_file(self._file, self._position.encode() + b"\n")
        self._unsaved, self._saved = 0, self._clock()


def _port_of(url: str) -> tuple[int, ...]:
    try:
        port = urlsplit(url).port
    except ValueError:
        raise AddressRefused("the port of the URL is no number up to 65535") from None
    return () if port is None else (port,)
