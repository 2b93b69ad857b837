"""What the metadata store keeps, one shape a noun.

Times are `Micros`. Who may see a record is decided by its team, which a caller gets from a token
only.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from penstock.envelope import CollectionId, Micros
from penstock.schema.formats import Format
from penstock.vocabulary import Contract, Credential, Kind, Scope, State, Wish


class CollectionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A named group of events, and what its owner decided about it.

    Doors refuse an event that a replay brings back to the collection it was taken from, unless
    `allow_loops`.
    """

    id: CollectionId
    created_at: Micros
    paused: bool = False
    contract: Contract = "evolve"
    format: Format = Format()
    notes: str = ""
    allow_loops: bool = False
    partitions: int = 1
    """How many partitions the log was asked to have for it."""
    keep_days: int | None = None
    """How many days its rows are kept at the least; None is for ever."""


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its text: `digest` recognises it (SHA-256, hex), `hint` names it to people.

    `collection` binds an ingest token to one collection of the team; null is every one of them.
    """

    id: str
    team: str
    name: str
    scopes: tuple[Scope, ...]
    collection: str | None = None
    digest: str
    hint: str
    created_at: Micros
    expires_at: Micros | None = None
    revoked_at: Micros | None = None

    def may(self, scope: Scope) -> bool:
        """Say whether the token's scopes cover this one."""
        return scope in self.scopes or "admin" in self.scopes

    def alive(self, now: Micros) -> bool:
        """Say whether the token is neither revoked nor out of date."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is signed in to the dashboard with a token.

    `digest` (SHA-256, hex) recognises the secret that the browser holds; `sealed` is the token's
    text, which can be read with that secret alone.
    """

    digest: str
    token_id: str
    sealed: bytes
    created_at: Micros
    expires_at: Micros


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A named place that replays go to.

    `headers` may hold credentials, `secret` is one, and `credentials` are more of them by name: its
    text shows none, and the store keeps them encrypted. `options` are those of the kind, without
    secrets.
    """

    team: str
    name: str
    kind: Kind = "http"
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    options: dict[str, object] = {}
    secret: str | None = None
    credentials: dict[Credential, str] = {}
    created_at: Micros
    tried_at: Micros | None = None
    tried: dict[str, object] | None = None
    """What became of the last trial."""
    rate: float | None = None
    """Sends a second at most, of all replays together."""

    def __repr__(self) -> str:
        return f"Destination({self.team!r}, {self.name!r}, {self.kind!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Answer what `repr` says."""
        return [("team", self.team), ("name", self.name), ("kind", self.kind)]


class ListedDestination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination without its credentials: their names, and whether it has a secret.

    No key is needed for it.
    """

    team: str
    name: str
    kind: Kind
    url: str
    headers: tuple[str, ...]
    options: dict[str, object]
    secret: bool
    credentials: tuple[str, ...]
    created_at: Micros
    tried_at: Micros | None
    tried: dict[str, object] | None
    """What became of the last trial."""
    rate: float | None
    """Sends a second at most, of all replays together."""


class ReplayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One replay: what was asked, what was planned, how far it is, and who is sending now.

    Who sends holds a lease: `epoch` counts the holders, `lease_until` is when this one lapses.
    `wish` is what a person asked and the holder has not answered yet.
    """

    id: str
    team: str
    collection: str
    query: str
    since: Micros | None = None
    until: Micros | None = None
    destination: str
    options: dict[str, object] = {}
    state: State = "requested"
    plan: dict[str, object] | None = None
    progress: dict[str, object] = {}
    wish: Wish | None = None
    error: str | None = None
    epoch: int = 0
    lease_until: Micros | None = None
    created_at: Micros
    started_at: Micros | None = None
    finished_at: Micros | None = None
    run_id: str | None = None
    asked_by: str | None = None
    """Who asked for it, as people know them; None where that is not known."""
    why: str | None = None
    start_at: Micros | None = None
    """When it is to start; None for at once."""

    def held(self, now: Micros) -> bool:
        """Say whether somebody's lease is alive."""
        return self.lease_until is not None and now < self.lease_until


class SavedSearch(msgspec.Struct, frozen=True, kw_only=True):
    """A search that a team keeps under a name.

    `since` and `until` are texts, as ``now-24h``: what they mean is found out when it is made.
    """

    team: str
    name: str
    collection: str
    query: str = ""
    since: str | None = None
    until: str | None = None
    order: Literal["newest", "oldest"] = "newest"
    view: Literal["main", "quarantine"] = "main"
    duplicates: Literal["fold", "include", "only"] = "fold"
    closed: bool = False
    created_at: Micros
    changed_at: Micros


class RegistrySecret(msgspec.Struct, frozen=True):
    """What the schema registry of a collection asks for, and by which id its schemas name it."""

    id: str
    text: str

    def __repr__(self) -> str:
        return f"RegistrySecret({self.id!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Answer what `repr` says."""
        return [("id", self.id)]


class SchemaVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a collection's columns; versions count from 1."""

    collection: CollectionId
    version: int
    at: Micros
    changes: tuple[dict[str, object], ...]


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who does a thing that only one should do at a time; alive while now < `until`."""

    name: str
    holder: str
    epoch: int
    until: Micros


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a door needs: every collection, and every token that is not revoked.

    `version` grows with each change of either.
    """

    version: int
    collections: tuple[CollectionRecord, ...]
    tokens: tuple[TokenRecord, ...]
