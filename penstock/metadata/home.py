"""What a home has from its first start: an admin token, and Penstock's own collections."""

from __future__ import annotations

from pathlib import Path

from penstock.envelope import DEFAULT_TEAM, SYSTEM_TEAM, CollectionId, Micros
from penstock.errors import AlreadyExists, NotFound
from penstock.metadata import tokens
from penstock.metadata.private import write_private
from penstock.metadata.records import CollectionRecord
from penstock.metadata.store import Store
from penstock.metadata.tokens import Chance
from penstock.vocabulary import Scope

ADMIN_TOKEN = "admin.token"  # noqa: S105 - a file's name
LEDGER_TOKEN = "ledger.token"  # noqa: S105 - a file's name
REPLAY_TOKENS = "replay-tokens"

REPLAY_ATTEMPTS = CollectionId(SYSTEM_TEAM, "replay_attempts")


def ensure_admin_token(store: Store, home: Path, *, now: Micros, chance: Chance) -> str:
    """Answer the token in ``<home>/admin.token``, made first if there is none that still works.

    It is an admin of the default team. Only this user may read the file.
    """
    return _ensure_token(
        store,
        home / ADMIN_TOKEN,
        team=DEFAULT_TEAM,
        name="admin of this home",
        scopes=("admin",),
        collection=None,
        now=now,
        chance=chance,
    )


def ensure_ledger_token(store: Store, home: Path, *, now: Micros, chance: Chance) -> str:
    """Answer the token in ``<home>/ledger.token``, with which replays send their ledger to a door.

    It can do nothing else. Only this user may read the file.
    """
    return _ensure_token(
        store,
        home / LEDGER_TOKEN,
        team=REPLAY_ATTEMPTS.team,
        name="ledger of replays",
        scopes=("ingest",),
        collection=REPLAY_ATTEMPTS.name,
        now=now,
        chance=chance,
    )


def ensure_collection_token(
    store: Store, home: Path, collection: CollectionId, *, now: Micros, chance: Chance
) -> str:
    """Answer the token in ``<home>/replay-tokens/``, with which replays send to this collection.

    It belongs to the collection's team, is in the list of its tokens, and can do nothing else. One
    that was revoked is made anew. Only this user may read the file.
    """
    return _ensure_token(
        store,
        home / REPLAY_TOKENS / f"{collection}.token",
        team=collection.team,
        name=f"replays to {collection.name}",
        scopes=("ingest",),
        collection=collection.name,
        now=now,
        chance=chance,
    )


def ensure_tunnel_token(store: Store, home: Path, team: str, *, now: Micros, chance: Chance) -> str:
    """Answer the token in ``<home>/replay-tokens/``, with which replays go to a team's tunnels.

    It is in the list of the team's tokens; one that was revoked is made anew. Only this user may
    read the file.
    """
    return _ensure_token(
        store,
        home / REPLAY_TOKENS / f"{team}.token",
        team=team,
        name="replays to tunnels",
        scopes=("replay",),
        collection=None,
        now=now,
        chance=chance,
    )


def ensure_system_collections(store: Store, *, now: Micros, partitions: int = 1) -> None:
    """Make the collections that Penstock keeps about itself, where they are missing.

    They are noted to have so many partitions; the log is not asked.
    """
    try:
        store.collection(REPLAY_ATTEMPTS)
    except NotFound:
        record = CollectionRecord(
            id=REPLAY_ATTEMPTS,
            created_at=now,
            notes="every try to deliver an event",
            partitions=partitions,
        )
        try:
            store.create_collection(record)
        except AlreadyExists:
            return  # another process of this home was faster


def _ensure_token(
    store: Store,
    file: Path,
    *,
    team: str,
    name: str,
    scopes: tuple[Scope, ...],
    collection: str | None,
    now: Micros,
    chance: Chance,
) -> str:
    if file.exists():
        text = file.read_text().strip()
        known = store.token_by_digest(tokens.digest(text))
        if known is not None and known.alive(now):
            return text

    text, record = tokens.issue(
        chance, team=team, name=name, scopes=scopes, collection=collection, created_at=now
    )
    store.add_token(record)
    write_private(file, text + "\n")
    return text
