"""The way of replays to collections of their own installation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON
from door_builders import ECHO, SHIPS
from metadata_builders import collection
from msgspec.structs import replace
from ready_store import ready_store

from penstock.cache import cache_of
from penstock.envelope import CollectionId
from penstock.errors import AddressRefused, NotFound
from penstock.metadata.records import Destination
from penstock.metadata.store import Store
from penstock.metadata.tokens import digest
from penstock.schema.formats import Format
from penstock.settings import load_settings
from replay.doorway import doorway_of, of_collection
from replay.request import ReplayRequest, read_request


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = ready_store(tmp_path)
    opened.create_collection(collection(FLIGHTS))
    yield opened
    opened.close()


def to(name: str, *, team: str = "main", kind="collection") -> Destination:
    url = f"collection://{name}" if kind == "collection" else "https://a.example/"
    return Destination(team=team, name="d1", kind=kind, url=url, created_at=NOON)


def asked(name: str = "flights", **more) -> ReplayRequest:
    return read_request({"collection": name, "destination": "d1", **more}, team="main")


def test_a_token_is_made_once_and_told_to_the_doors(store: Store, tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {})
    doorway = doorway_of(settings, store)
    text = doorway.token(SHIPS)

    assert doorway.token(SHIPS) == text
    assert doorway.whole
    told = cache_of(settings).read()
    assert told is not None
    [token] = told.tokens
    assert (token.digest, token.collection) == (digest(text), "ships")
    kafka = load_settings(tmp_path, {"PENSTOCK_LOG_URL": "kafka://b:9092"})
    assert not doorway_of(kafka, store).whole


def test_a_team_has_one_token_for_its_tunnels(store: Store, tmp_path: Path) -> None:
    """It may replay, which is what the door asks of who hands over; other teams have another."""
    settings = load_settings(tmp_path, {})
    doorway = doorway_of(settings, store)
    text = doorway.tunnels("main")

    assert doorway.tunnels("main") == text
    told = cache_of(settings).read()
    assert told is not None
    [token] = told.tokens
    assert (token.digest, token.team, token.scopes) == (digest(text), "main", ("replay",))


def test_a_destination_of_another_kind_says_nothing(store: Store) -> None:
    assert of_collection(store, to("", kind="http"), asked()) == ()


def test_another_format_is_told_before_anything_is_sent(store: Store) -> None:
    store.create_collection(collection(SHIPS))
    store.create_collection(replace(collection(ECHO), format=Format(name="plain")))

    assert of_collection(store, to("ships"), asked()) == ()
    [said] = of_collection(store, to("echo"), asked())
    assert "plain" in said


def test_a_collection_that_is_gone_or_another_teams_is_none(store: Store) -> None:
    store.create_collection(collection(CollectionId("other", "theirs")))

    for name in ("gone", "theirs"):
        with pytest.raises(NotFound):
            of_collection(store, to(name), asked())


def test_no_replay_brings_its_events_back(store: Store) -> None:
    store.create_collection(replace(collection(ECHO), allow_loops=True))

    with pytest.raises(AddressRefused):
        of_collection(store, to("flights"), asked())
    with pytest.raises(AddressRefused):
        of_collection(store, to("echo"), asked("echo", headers="verbatim"))
    assert of_collection(store, to("echo"), asked("echo")) == ()
