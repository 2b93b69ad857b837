"""Records of the metadata store, with everything but the point of the test filled in."""

from __future__ import annotations

from builders import FLIGHTS, NOON

from penstock.envelope import CollectionId, Micros
from penstock.metadata.keys import Key, Keyring
from penstock.metadata.records import (
    CollectionRecord,
    Destination,
    Known,
    ReplayRecord,
    SavedSearch,
    SessionRecord,
    TokenRecord,
)
from penstock.metadata.tokens import digest, hint, new_token
from penstock.vocabulary import Scope, State, Wish

KEYS = Keyring(lambda: [Key(bytes(32))], where="the tests")
"""What stores of tests keep credentials under."""


def collection(
    which: CollectionId = FLIGHTS, *, paused: bool = False, partitions: int = 1
) -> CollectionRecord:
    """Answer a collection."""
    return CollectionRecord(id=which, created_at=NOON, paused=paused, partitions=partitions)


def token_text(number: int) -> str:
    """Answer the text of the token with this number."""
    return new_token(number.to_bytes(32))


def token(
    number: int = 1,
    *,
    team: str = "main",
    scopes: tuple[Scope, ...] = ("ingest",),
    collection: str | None = None,
    expires_at: Micros | None = None,
) -> TokenRecord:
    """Answer the record of the token with this number."""
    text = token_text(number)
    return TokenRecord(
        id=f"t{number}",
        team=team,
        name=f"token {number}",
        scopes=scopes,
        collection=collection,
        digest=digest(text),
        hint=hint(text),
        created_at=NOON,
        expires_at=expires_at,
    )


def session(
    digest: str, *, token_id: str, begins: Micros = NOON, ends: Micros = NOON + 1
) -> SessionRecord:
    """Answer a session that lasts for a moment."""
    return SessionRecord(
        digest=digest, token_id=token_id, sealed=b"\0\xff", created_at=begins, expires_at=ends
    )


def destination(name: str = "billing", *, team: str = "main") -> Destination:
    """Answer a destination with a credential in its headers."""
    return Destination(
        team=team,
        name=name,
        url="https://billing.example/events",
        headers=(("authorization", "Bearer hidden"),),
        created_at=NOON,
    )


def saved_search(
    name: str = "late", *, team: str = "main", query: str = "dep_delay:>120", since: str = "now/d"
) -> SavedSearch:
    """Answer a saved search of today's events."""
    return SavedSearch(
        team=team,
        name=name,
        collection="flights",
        query=query,
        since=since,
        order="oldest",
        created_at=NOON,
        changed_at=NOON,
    )


def replay(
    number: str = "r1",
    *,
    team: str = "main",
    state: State = "requested",
    wish: Wish | None = None,
    plan: dict[str, object] | None = None,
    created_at: Micros = NOON,
    lease_until: Micros | None = None,
    destination: str = "billing",
) -> ReplayRecord:
    """Answer a replay."""
    return ReplayRecord(
        id=number,
        team=team,
        collection="flights",
        query="carrier:UA",
        destination=destination,
        options={"rate": 10.5},
        state=state,
        wish=wish,
        plan=plan,
        created_at=created_at,
        lease_until=lease_until,
    )


def known(version: int = 1, *, tokens: tuple[TokenRecord, ...] = ()) -> Known:
    """Answer what a door is told: one collection, and these tokens."""
    return Known(version=version, collections=(collection(),), tokens=tokens)
