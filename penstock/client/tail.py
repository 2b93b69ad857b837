"""Live tails: events as they are acknowledged."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Literal, NamedTuple

import httpx

from penstock import sse
from penstock.client.problems import told
from penstock.client.wire import Wire, path_of, read_json
from penstock.contract.search import EventTold
from penstock.contract.tail import TailBeat, TailGap
from penstock.errors import EngineUnavailable

SILENCE_SECONDS = 30.0
"""After which a connection is taken for broken: the platform speaks every ten seconds."""


class Shown(NamedTuple):
    """An event, and the position behind it, if it tells one."""

    event: EventTold
    position: str | None


class Gone(NamedTuple):
    """So many events at most cannot be shown: they are `expired` or `lost`."""

    reason: Literal["expired", "lost"]
    events: int
    position: None = None


class Beat(NamedTuple):
    """Up to the position everything was shown; `behind` acknowledged events follow."""

    collection: str
    behind: int
    position: str | None


Tailed = Shown | Gone | Beat


class Tail(Wire):
    """What comes into a collection."""

    def tail(
        self,
        collection: str,
        query: str = "",
        *,
        since: datetime | None = None,
        after: str | None = None,
        duplicates: Literal["fold", "include"] = "fold",
        silence: float = SILENCE_SECONDS,
    ) -> Generator[Tailed, None, None]:
        """Yield events as they are acknowledged, from now, `since` a time or `after` a position.

        Raises what ended it: `EngineUnavailable` where a new call with the last position goes on.
        """
        path = path_of(
            "collections",
            collection,
            "tail",
            query=query,
            since=since,
            after=after,
            duplicates=duplicates,
        )
        parser = sse.Parser()
        pieces = self._stream("GET", path, accept=sse.CONTENT_TYPE, silence=silence)
        for piece in pieces:
            for message in parser.feed(piece):
                known = _read(message)
                if known is not None:
                    yield known
        raise EngineUnavailable(f"{self._base} broke off")


def _read(message: sse.Message) -> Tailed | None:
    match message.event:
        case "event":
            return Shown(read_json(message.data, EventTold), message.id)
        case "heartbeat" | "behind":
            beat = read_json(message.data, TailBeat)
            return Beat(beat.collection, beat.behind, message.id)
        case "gap":
            gap = read_json(message.data, TailGap)
            return Gone(gap.reason, gap.events)
        case "end":
            raise told(httpx.Response(_STATUS_OF_END, content=message.data))
        case _:
            return None  # of a later version


# What the problem says decides, but for one of a kind that is not known here.
_STATUS_OF_END = 503
