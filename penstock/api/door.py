"""The platform's way to a door: released events, as the caller who releases them.

It goes with the caller's own token, so the door decides about it like about any other: it may have
been revoked, the collection may be paused.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import msgspec

from penstock.client.problems import told
from penstock.envelope import CollectionId, Event
from penstock.errors import EngineUnavailable, TooLarge

_ACCEPTED = 202
_TOO_MANY = 429
_SERVER_ERROR = 500
_SECONDS = 30.0


class _Outcome(msgspec.Struct):
    status: int
    detail: str | None = None


class _Answer(msgspec.Struct):
    accepted: int = 0
    outcomes: list[_Outcome] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.json.Decoder(_Answer)


class DoorRoute:
    """The door at `url`. Threads may share it."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        # trust_env off: a proxy of the environment is for other hosts than this one.
        self._http = httpx.Client(
            base_url=url, transport=transport, timeout=_SECONDS, trust_env=False
        )

    def with_token(self, token: str) -> DoorWithToken:
        """Answer the way through this door with a token."""
        return DoorWithToken(self._http, token)

    def close(self) -> None:
        """Let go of every connection."""
        self._http.close()


class DoorWithToken:
    """Keeps the promise of `assets.release.ReleaseDoor`."""

    def __init__(self, http: httpx.Client, token: str) -> None:
        self._http = http
        self._token = token

    def send(self, collection: CollectionId, events: Sequence[Event]) -> Sequence[str | None]:
        """Send the events in one request; answer None for each that is durable, else why not."""
        try:
            answer = self._http.post(
                f"/v1/release/{collection}",
                content=_encoder.encode(events),
                headers={
                    "Authorization": f"Bearer {self._token}",
                    "Content-Type": "application/msgpack",
                },
            )
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                "the door does not answer; release the same again, none is doubled",
                retry_after=5,
            ) from error
        said = _read(answer)
        if said.outcomes is not None and len(said.outcomes) == len(events):
            if any(map(_may_pass, said.outcomes)):
                raise EngineUnavailable(
                    "the door did not take every event; release the same again, none is doubled"
                )
            return [_refusal(outcome) for outcome in said.outcomes]
        if answer.status_code == _ACCEPTED and said.accepted == len(events):
            return [None] * len(events)
        refused = told(answer)
        # A body of a single event is too large because that is.
        if isinstance(refused, TooLarge) and len(events) == 1:
            return [str(refused)]
        raise refused


def _read(answer: httpx.Response) -> _Answer:
    try:
        return _decoder.decode(answer.content)
    except msgspec.DecodeError:
        return _Answer()


def _may_pass(outcome: _Outcome) -> bool:
    return outcome.status == _TOO_MANY or outcome.status >= _SERVER_ERROR


def _refusal(outcome: _Outcome) -> str | None:
    if outcome.status == _ACCEPTED:
        return None
    return outcome.detail or f"the door answered {outcome.status}"
