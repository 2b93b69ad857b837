"""What a plan says of the place that events go to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import FLIGHTS, NOON
from door_builders import ECHO
from metadata_builders import collection
from msgspec.structs import replace
from ready_store import ready_store

from penstock.errors import AddressRefused, BadRequest
from penstock.metadata.records import Destination
from penstock.metadata.store import Store
from penstock.schema.formats import Format
from penstock.vocabulary import Kind
from replay.beforehand import UNCONFIRMED, known_of
from replay.request import read_request

ASKED = read_request({"collection": "flights", "destination": "d1"}, team="main")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = ready_store(tmp_path)
    opened.create_collection(collection(FLIGHTS))
    yield opened
    opened.close()


def to(kind: Kind, url: str) -> Destination:
    return Destination(team="main", name="d1", kind=kind, url=url, created_at=NOON)


def test_the_size_of_a_file_is_told_beforehand(store: Store, tmp_path: Path) -> None:
    """And that it will not fit."""
    warned = known_of(store, to("file", "file://out"), ASKED, tmp_path / "replay-files")

    [small] = warned(1_000, 2_000_000)
    assert small.startswith("the file takes about 2.6 MB of the disk")
    assert "pause" not in small
    [tiny] = warned(2, 43)
    assert tiny.startswith("the file takes about 1.2 kB of the disk")
    [large] = warned(1_000, 1 << 60)
    assert large.endswith("the replay will pause when it is full")


def test_a_collection_of_another_format_is_told_and_its_own_refused(store: Store) -> None:
    store.create_collection(replace(collection(ECHO), format=Format(name="plain")))

    [said] = known_of(store, to("collection", "collection://echo"), ASKED, None)(1, 1)
    assert "plain" in said
    with pytest.raises(AddressRefused):
        known_of(store, to("collection", "collection://flights"), ASKED, None)


def test_what_a_tunnel_does_not_say_is_told_beforehand(store: Store) -> None:
    assert known_of(store, to("tunnel", "tunnel://out"), ASKED, None)(1, 1) == (UNCONFIRMED,)


def test_what_is_missing_is_no_question_to_a_file(store: Store, tmp_path: Path) -> None:
    """A file of a replay that was cut off may be gone, and its events with it."""
    missing = replace(ASKED, options=replace(ASKED.options, missing=True))

    with pytest.raises(BadRequest, match="leave out missing"):
        known_of(store, to("file", "file://out"), missing, tmp_path)


def test_of_other_kinds_nothing_is_known(store: Store, tmp_path: Path) -> None:
    assert known_of(store, to("http", "https://a.example/"), ASKED, tmp_path)(1, 1) == ()
