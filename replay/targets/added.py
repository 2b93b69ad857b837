"""What a replay says about itself on every event it sends, whatever carries it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.envelope import CollectionId
from replay.request import HeaderMode, rfc3339
from replay.targets import ADDED, Message

_ADDED = frozenset(ADDED)
CONTENT_TYPE = "content-type"


class Added:
    """Makes the headers of one replay; `extra` are names that a target adds beside the five."""

    def __init__(
        self,
        replay_id: str,
        collection: CollectionId,
        mode: HeaderMode,
        *,
        extra: Iterable[str] = (),
    ) -> None:
        self.adds = mode == "add"
        self._replay = ("penstock-replay-id", replay_id)
        self._collection = ("penstock-collection", str(collection))
        self._taken = {*extra, *_ADDED} if self.adds else set()
        self._known: dict[str, bool] = {}

    def pairs(self, message: Message) -> tuple[tuple[str, str], ...]:
        """Answer the five headers; none if the replay is verbatim."""
        if not self.adds:
            return ()
        event = message.event
        return (
            self._replay,
            ("penstock-event-id", event.id),
            self._collection,
            ("penstock-attempt", str(message.attempt)),
            ("penstock-received-at", rfc3339(event.received_at)),
        )

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
