"""`penstock doctor` and the engines that the settings name."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import FLIGHTS, NOON
from cli_home import Penstock
from engines import trino
from engines.fresh import fresh_lake, fresh_name, fresh_settings
from engines.places import HOST, S3, S3_KEY, S3_REGION, S3_SECRET, TRINO_PORT
from lakes import STORE
from ports import free_ports

from lakehouse import open_lake
from penstock.buffer import open_keeper
from penstock.cache import cache_of
from penstock.metadata.home import ensure_system_collections
from penstock.metadata.store import open_store
from penstock.settings import load_settings

ENGINES = {
    "log": "log_url",
    "catalog": "catalog_url",
    "lake": "warehouse_url",
    "metadata": "metadata_url",
    "statistics": "stats_url",
    "cache": "cache_url",
    "bus": "bus_url",
    "SQL": "sql_url",
    "merging": "compact_url",
    "search": "search_url",
    "Dagster's runs": "dagster_url",
}
SECRET = "hunter2%40"
READ = "hunter2@"
FILES = ("penstock.toml", "other.toml")


def settings_at(address: str) -> dict[str, str]:
    """Answer settings whose engines are all there, and have a password where one can be given."""
    database = f"postgresql://me:{SECRET}@{address}"
    return {
        "log_url": f"kafka://{address}/penstock",
        "warehouse_url": "s3://bucket/lake",
        "s3_endpoint": f"http://{address}",
        "s3_region": "us-east-1",
        "s3_access_key": "me",
        "s3_secret_key": READ,
        "catalog_url": f"{database}/lake",
        "metadata_url": f"{database}/metadata",
        "stats_url": f"{database}/stats",
        "dagster_url": f"{database}/dagster",
        "cache_url": f"etcd://{address}/penstock",
        "cache_user": "me",
        "cache_password": READ,
        "bus_url": f"amqp://me:{SECRET}@{address}/%2F",
        "sql_url": f"trino+https://me@{address}/penstock",
        "sql_password": READ,
        "compact_url": f"trino+https://me@{address}/operators",
        "compact_password": READ,
        "search_url": f"elasticsearch://{address}/penstock",
        "search_user": "me",
        "search_password": READ,
    }


def write(home: Path, settings: dict[str, str]) -> None:
    home.mkdir(mode=0o700, exist_ok=True)
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    (home / "penstock.toml").write_text("".join(lines))


def found(penstock: Penstock, home: Path) -> dict[str, Any]:
    said = penstock("doctor", "--json", home=home)
    assert said.err == ""
    assert "hunter2" not in said.out
    return {one["name"]: one for one in said.json()["checks"]}


def test_each_engine_that_is_away_is_told_in_a_line_with_its_setting(
    tmp_path: Path, penstock: Penstock
) -> None:
    """Where ten addresses are set, `something does not answer` names none of them."""
    write(tmp_path / "home", settings_at(f"127.0.0.1:{free_ports(1)[0]}"))

    checks = found(penstock, tmp_path / "home")

    for name, setting in ENGINES.items():
        one = checks[name]
        assert not one["ok"], one
        assert "\n" not in one["detail"].strip(), one
        # Catalog and lake are found by the same database.
        assert setting in one["do"], one
        assert one["seconds"] < 20, one


@pytest.fixture
def silent() -> Iterator[str]:
    """Answer an address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_engine_that_says_nothing_is_not_waited_for(
    tmp_path: Path, penstock: Penstock, silent: str
) -> None:
    """Such a server keeps its connections: halted, or behind a firewall that drops."""
    write(tmp_path / "home", settings_at(silent))

    checks = found(penstock, tmp_path / "home")

    assert [name for name in ENGINES if checks[name]["ok"]] == []
    assert max(one["seconds"] for one in checks.values()) < 25


@pytest.mark.engines
def test_whether_trino_may_merge_files_is_told(tmp_path: Path, penstock: Penstock) -> None:
    """The user for callers may not, and upkeep would say so only when there is much to merge."""
    home = tmp_path / "home"

    def merging(catalog: str) -> dict[str, Any]:
        ours = {"catalog_url": fresh.catalog_url, "warehouse_url": fresh.warehouse_url}
        store = {
            "s3_endpoint": S3,
            "s3_region": S3_REGION,
            "s3_access_key": S3_KEY,
            "s3_secret_key": S3_SECRET,
            "compact_url": f"trino://tests@{HOST}:{TRINO_PORT}/{catalog}",
        }
        write(home, ours | store)
        one: dict[str, Any] = found(penstock, home)["merging"]
        return one

    name = fresh_name("readonly")
    with fresh_lake() as fresh:
        database = fresh.catalog_url.rpartition("/")[2]
        read_only = {"iceberg.security": "read_only"}
        trino.create_catalog(name, database, fresh.warehouse_url, read_only)
        try:
            empty = merging(fresh.trino_catalog)
            open_lake(fresh.catalog_url, fresh.warehouse_url, STORE).create(FLIGHTS)
            may, may_not = merging(fresh.trino_catalog), merging(name)
        finally:
            trino.drop_catalog(name)

    assert empty["ok"], empty
    assert empty["detail"].startswith("answers; there is no table yet (trino://")
    assert may["ok"], may
    assert may["detail"].startswith("may merge files (trino://")
    assert not may_not["ok"]
    assert "it does not merge files of main.flights: PERMISSION_DENIED" in may_not["detail"]
    assert "docs/howto/trino.md" in may_not["do"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Answer a home on the real engines, with one table in its lake."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with fresh_settings(home / "penstock.toml"):
        file = home / "penstock.toml"
        merges = load_settings(home, {}).sql_url
        file.write_text(file.read_text() + f'compact_url = "{merges}"\n')
        settings = load_settings(home, {})
        with closing(open_keeper(settings.log)) as keeper:
            keeper.ensure(FLIGHTS)
        with closing(open_store(settings.metadata)) as store, closing(cache_of(settings)) as cache:
            ensure_system_collections(store, now=NOON)
            cache.publish(store.known)
        open_lake(settings.catalog, settings.warehouse, settings.s3).create(FLIGHTS)
        yield home


@pytest.mark.engines
def test_engines_that_are_well_say_where_they_are(home: Path, penstock: Penstock) -> None:
    """A doctor that finds fault with the healthy is not asked again."""
    checks = found(penstock, home)

    assert {name: checks[name]["detail"] for name in ENGINES if not checks[name]["ok"]} == {}
    assert "penstock:penstock@" not in json.dumps(checks)
    assert checks["bus"]["detail"].startswith("carries messages (amqp://127.0.0.1:")
    assert checks["SQL"]["detail"].startswith("reads the tables (trino://127.0.0.1:")
    assert checks["merging"]["detail"].startswith("may merge files (trino://127.0.0.1:")


@pytest.mark.engines
def test_trino_that_answers_and_sees_other_tables_is_found(home: Path, penstock: Penstock) -> None:
    """Its catalog has a name of its own for our tables: with another one it finds none."""
    with fresh_settings(home / "other.toml"):
        ours, other = (load_settings(home, {}, file=home / name) for name in FILES)
        open_lake(other.catalog, other.warehouse, other.s3)
        text = (home / "penstock.toml").read_text()
        (home / "penstock.toml").write_text(text.replace(ours.sql_url, other.sql_url))

        checks = found(penstock, home)

    assert not checks["SQL"]["ok"]
    assert "it does not read the table of main.flights" in checks["SQL"]["detail"]
    assert "docs/howto/trino.md" in checks["SQL"]["do"]
