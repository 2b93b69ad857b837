"""`penstock key` over a home whose platform need not run."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from cli_home import Penstock
from metadata_builders import collection, destination

from penstock.metadata.keys import KEYS_FILE
from penstock.metadata.records import RegistrySecret
from penstock.metadata.rotation import ensure_key
from penstock.metadata.store import store_of
from penstock.settings import load_settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    settings = load_settings(tmp_path, {})
    ensure_key(settings, chance=secrets.token_bytes)
    store = store_of(settings)
    store.add_destination(destination())
    store.create_collection(collection(), secret=RegistrySecret("s1", "me:hidden"))
    store.close()
    return tmp_path


def test_a_key_is_renewed_and_the_old_one_forgotten(home: Path, penstock: Penstock) -> None:
    [old] = penstock("key", "list", "--json", home=home).json()
    assert old == {
        "id": old["id"],
        "use": "encrypts",
        "destinations": ["main.billing"],
        "collections": ["main.flights"],
    }
    refused = penstock("key", "forget", old["id"], home=home)
    assert (
        refused.code,
        "needed by main.billing, collection main.flights" in " ".join(refused.err.split()),
    ) == (1, True)

    made = penstock("key", "rotate", home=home)
    listed = penstock("key", "list", "--json", home=home).json()
    assert [(one["use"], one["destinations"]) for one in listed] == [
        ("encrypts", ["main.billing"]),
        ("decrypts", []),
    ]
    assert made.out == f"2 credentials are under the key {listed[0]['id']}\n"
    assert penstock("key", "forget", old["id"], home=home).out == f"forgot {old['id']}\n"
    table = penstock("key", "list", home=home).out
    assert (old["id"] in table, listed[0]["id"] in table) == (False, True)
    for text in (home / KEYS_FILE).read_text().split():
        assert text not in made.out + table


def test_a_key_that_is_missing_is_listed_and_the_doctor_says_so(
    home: Path, penstock: Penstock
) -> None:
    (home / KEYS_FILE).rename(home / "elsewhere")

    [missing] = penstock("key", "list", "--json", home=home).json()
    checks = {one["name"]: one for one in penstock("doctor", "--json", home=home).json()["checks"]}

    assert (missing["use"], missing["destinations"]) == ("missing", ["main.billing"])
    assert not checks["credentials"]["ok"]
    assert "needed by main.billing, collection main.flights" in checks["credentials"]["detail"]
    assert checks["metadata"]["ok"]


def test_a_home_without_any_says_how_the_first_is_made(tmp_path: Path, penstock: Penstock) -> None:
    assert "'penstock key rotate' makes the first" in penstock("key", "list", home=tmp_path).out
    assert penstock("key", "rotate", "--json", home=tmp_path).json()["credentials"] == 0
    assert len(penstock("key", "list", "--json", home=tmp_path).json()) == 1
