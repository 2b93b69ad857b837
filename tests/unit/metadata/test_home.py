from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON

from penstock.envelope import CollectionId
from penstock.metadata.home import (
    REPLAY_ATTEMPTS,
    ensure_admin_token,
    ensure_collection_token,
    ensure_ledger_token,
    ensure_system_collections,
)
from penstock.metadata.store import Store, open_store
from penstock.metadata.tokens import digest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'metadata.db'}")
    yield opened
    opened.close()


def admin(store: Store, home: Path, now: int = NOON) -> str:
    return ensure_admin_token(store, home, now=now, chance=secrets.token_bytes)


def test_the_first_start_makes_an_admin_token_and_later_ones_keep_it(
    store: Store, tmp_path: Path
) -> None:
    token = admin(store, tmp_path)

    assert admin(store, tmp_path) == token
    assert [record.scopes for record in store.tokens("main")] == [("admin",)]
    assert (tmp_path / "admin.token").read_text() == token + "\n"
    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600


def test_an_admin_token_that_no_longer_works_is_replaced(store: Store, tmp_path: Path) -> None:
    """Else the home could not be used after its token was revoked or its database lost."""
    token = admin(store, tmp_path)
    [record] = store.tokens("main")
    store.revoke_token("main", record.id, NOON)

    fresh = admin(store, tmp_path)

    assert fresh != token
    found = store.token_by_digest(digest(fresh))
    assert found is not None
    assert found.alive(NOON)


def test_the_ledgers_token_can_do_nothing_else(store: Store, tmp_path: Path) -> None:
    text = ensure_ledger_token(store, tmp_path, now=NOON, chance=secrets.token_bytes)

    found = store.token_by_digest(digest(text))
    assert found is not None
    assert (found.team, found.scopes, found.collection) == (
        REPLAY_ATTEMPTS.team,
        ("ingest",),
        REPLAY_ATTEMPTS.name,
    )


def test_each_collection_has_a_token_for_replays_that_can_do_nothing_else(
    store: Store, tmp_path: Path
) -> None:
    """Of its own team: a replay must not write where its team could not."""
    theirs = CollectionId("other", "flights")

    def token(which: CollectionId) -> str:
        return ensure_collection_token(store, tmp_path, which, now=NOON, chance=secrets.token_bytes)

    texts = [token(FLIGHTS), token(theirs)]

    assert texts == [token(FLIGHTS), token(theirs)]
    for text, which in zip(texts, (FLIGHTS, theirs), strict=True):
        found = store.token_by_digest(digest(text))
        assert found is not None
        assert (found.team, found.scopes, found.collection) == (
            which.team,
            ("ingest",),
            which.name,
        )
        store.revoke_token(which.team, found.id, NOON)
    assert token(FLIGHTS) != texts[0]
    file = tmp_path / "replay-tokens" / "main.flights.token"
    assert file.stat().st_mode & 0o777 == 0o600


def test_penstocks_own_collections_are_made_once(store: Store) -> None:
    ensure_system_collections(store, now=NOON, partitions=3)
    ensure_system_collections(store, now=NOON + 1)

    assert [
        (record.id, record.created_at, record.partitions) for record in store.collections()
    ] == [(REPLAY_ATTEMPTS, NOON, 3)]
