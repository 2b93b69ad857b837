"""Who may send what: the tokens and collections a door knows, and the look-up of a token.

A door learns both from the cache (`penstock.cache`) and keeps the last ones it saw, so it goes on
while everything behind the cache is away.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from penstock.envelope import CollectionId, Micros, parse_collection
from penstock.errors import EngineUnavailable, NotFound, Unauthorized
from penstock.metadata.records import CollectionRecord, Known, TokenRecord
from penstock.metadata.tokens import digest
from penstock.vocabulary import Scope

_EVERY_SCOPE = frozenset(get_args(Scope))

# One text for unknown, revoked and out of date: an answer must not tell which of them it is.
_REFUSAL = "the token is missing, unknown, revoked or out of date"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good token allows. `scopes` are spelt out: whoever has ``admin`` has all of them."""

    team: str
    scopes: frozenset[str]
    collection: CollectionId | None
    token_id: str


@dataclass(frozen=True, slots=True)
class _Key:
    digest: str
    expires_at: Micros | None
    grant: Grant


@dataclass(frozen=True, slots=True)
class _Ring:
    """One `Known`, made ready for look-up."""

    version: int
    keys: Mapping[str, _Key]
    collections: Mapping[CollectionId, CollectionRecord]


# Compared with when the digest is not known, so that a miss does the same work as a hit.
_NOBODY = _Key(digest("nobody"), 0, Grant("", frozenset(), None, ""))


class Keyring:
    """The tokens and collections that a door knows now. Reading is safe from any thread.

    Without a `Known` (the cache has never been written) every look-up raises `EngineUnavailable`:
    a door that knows nothing cannot say that a token is wrong.
    """

    def __init__(self, known: Known | None = None) -> None:
        self._ring = None if known is None else _ring(known)

    @property
    def version(self) -> int | None:
        """The version of what is known, None while nothing is."""
        return None if self._ring is None else self._ring.version

    def replace(self, known: Known) -> None:
        """Know this instead, all at once; look-ups that began before keep what they saw."""
        self._ring = _ring(known)

    def grant(self, token: str, now: Micros) -> Grant:
        """Answer what the token allows; raise `Unauthorized`, the same for every other token."""
        keys = self._known().keys
        given = digest(token)
        key = keys.get(given, _NOBODY)
        same = hmac.compare_digest(key.digest, given)
        if not same or (key.expires_at is not None and key.expires_at <= now):
            raise Unauthorized(_REFUSAL)
        return key.grant

    def collection(self, collection: CollectionId) -> CollectionRecord:
        """Answer what is known of a collection; raise `NotFound`."""
        found = self._known().collections.get(collection)
        if found is None:
            raise NotFound("collection", str(collection))
        return found

    def partitions(self, collection: CollectionId) -> int | None:
        """Answer how many log partitions the collection was given, None if nothing says it."""
        record = None if self._ring is None else self._ring.collections.get(collection)
        return None if record is None else record.partitions

    def _known(self) -> _Ring:
        if self._ring is None:
            raise EngineUnavailable("this door does not know any tokens and collections yet")
        return self._ring


def refuse_missing() -> Unauthorized:
    """Answer the error for a request without a token: the one for a wrong token."""
    return Unauthorized(_REFUSAL)


def _ring(known: Known) -> _Ring:
    # A revocation holds at once, whatever its time says: the clock that gave it was another one.
    return _Ring(
        version=known.version,
        keys={
            token.digest: _Key(token.digest, token.expires_at, _grant(token))
            for token in known.tokens
            if token.revoked_at is None
        },
        collections={record.id: record for record in known.collections},
    )


def _grant(token: TokenRecord) -> Grant:
    bound = token.collection
    return Grant(
        team=token.team,
        scopes=_EVERY_SCOPE if "admin" in token.scopes else frozenset(token.scopes),
        collection=None if bound is None else parse_collection(bound, team=token.team),
        token_id=token.id,
    )
