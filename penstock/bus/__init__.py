"""Messages between Penstock's own processes: that something changed, and its name.

A message is a hint and nothing else. Losing one may cost seconds, never correctness: who listens
also looks at the truth (metadata, cache, log) now and then. So it carries names and versions only,
never a payload or a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from penstock.errors import BadSetting

if TYPE_CHECKING:  # doors use a bus and no database: SQLAlchemy takes a second and 30 MB
    from penstock.metadata.store import Store

KNOWN = "known"
"""Tokens or collections changed; the text is their version. For doors."""

REPLAY = "replay"
"""Somebody wishes something of a replay; the text is its id. For who sends it."""

LAND = "land"
"""Somebody waits for a collection to land; the text is its name. For landing."""

LONGEST = 512
"""Characters of the longest message."""

MOST_WAITING = 10_000
"""Messages that wait, for a listener or on their way out; of more, the oldest are gone."""


class Subscription(Protocol):
    """What `subscribe` answers."""

    def close(self) -> None:
        """Hear of nothing any more."""
        ...


class Bus(Protocol):
    """Brings a message to everybody who subscribed to its topic before, or loses it.

    Threads may share a bus. Nothing but `ping` raises or waits because nobody carries messages now:
    that is logged once.
    """

    def publish(self, topic: str, text: str) -> None:
        """Send this to everybody who subscribed to `topic`; those of one publisher stay in order.

        May return before it is sent. Raises `ValueError` for a text that is too long.
        """
        ...

    def subscribe(self, topic: str, told: Callable[[str], None]) -> Subscription:
        """Call `told` with each text that is published to `topic` after this returned.

        One after the other, in a thread of the subscription. Where `told` is slow the oldest
        messages over `MOST_WAITING` are lost; where it raises that one message is.
        """
        ...

    def ping(self) -> None:
        """Return if messages are carried; raise `EngineUnavailable` within seconds if not."""
        ...

    def close(self) -> None:
        """Send what is on its way, for a second at most, and let go of connections."""
        ...


def open_bus(url: str, store: Callable[[], Store]) -> Bus:
    """Open the bus at `url` (``amqp://user:password@host/vhost?exchange=penstock``).

    Empty: messages are rows of the metadata that `store` opens.
    """
    match urlsplit(url).scheme:
        case "":
            from penstock.bus.embedded import EmbeddedBus

            return EmbeddedBus(store)
        case "amqp" | "amqps":
            try:
                from penstock.bus.rabbitmq import open_rabbitmq
            except ImportError as error:
                raise BadSetting(
                    "bus_url needs a client that is not installed: pip install 'penstock[rabbitmq]'"
                ) from error
            return open_rabbitmq(url)
        case other:
            raise BadSetting(
                f"bus_url starts with {other!r}; use amqp://host, or leave it empty for the "
                "metadata"
            )


def fit(text: str) -> str:
    """Answer the text; raise `ValueError` if it is no name."""
    if len(text) > LONGEST:
        raise ValueError(f"a message has at most {LONGEST} characters")
    return text
