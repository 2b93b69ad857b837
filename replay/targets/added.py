"""What a replay says about itself on every event it sends, whatever carries it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from penstock.envelope import CollectionId, Micros
from replay.request import HeaderMode, rfc3339
from replay.targets import ADDED, Message
from replay.transform import ADDED_HEADER

_ADDED = frozenset(ADDED)
CONTENT_TYPE = "content-type"


class Added:
    """Makes the headers of one replay; `extra` are names that a target adds beside the five.

    Events are `marked` where this replay has changed them: without that a mark that they have is
    an earlier replay's, and says nothing of what is sent now.
    """

    def __init__(
        self,
        replay_id: str,
        collection: CollectionId,
        mode: HeaderMode,
        *,
        extra: Iterable[str] = (),
        marked: bool = True,
    ) -> None:
        self.adds = mode == "add"
        self._replay = ("penstock-replay-id", replay_id)
        self._collection = ("penstock-collection", str(collection))
        self._taken = (
            {*extra, *_ADDED, *(() if marked else (ADDED_HEADER,))} if self.adds else set()
        )
        self._known: dict[str, bool] = {}

    def pairs(self, message: Message) -> tuple[tuple[str, str], ...]:
        """Answer the five headers; none if the replay is verbatim."""
        event = message.event
        [pairs] = self.columns(message.attempt, [event.id], [event.received_at])
        return pairs

    def columns(
        self, attempt: int, ids: Iterable[str], received_at: Iterable[Micros]
    ) -> Iterator[tuple[tuple[str, str], ...]]:
        """Answer the headers of events at the same attempt, one after the other."""
        if not self.adds:
            yield from (() for _ in ids)
            return
        replay, collection = self._replay, self._collection
        tried = ("penstock-attempt", str(attempt))
        last: Micros | None = None
        received = ("", "")
        for event_id, at in zip(ids, received_at, strict=True):
            if at != last:  # events of one request were received together
                last, received = at, ("penstock-received-at", rfc3339(at))
            yield (replay, ("penstock-event-id", event_id), collection, tried, received)

    def kept(self, headers: tuple[tuple[str, bytes], ...]) -> tuple[tuple[str, bytes], ...]:
        """Answer the event's own headers, without those of an earlier replay that we set anew."""
        known = self._known
        for name, _ in headers:
            if name not in known:
                if len(known) > _KNOWN_NAMES:
                    known.clear()
                known[name] = name.lower() not in self._taken
            if not known[name]:
                return tuple(pair for pair in headers if pair[0].lower() not in self._taken)
        return headers


_KNOWN_NAMES = 1_000


def has_type(headers: Iterable[tuple[str, object]]) -> bool:
    """Say whether a content type is among the headers already."""
    return any(name.lower() == CONTENT_TYPE for name, _ in headers)
