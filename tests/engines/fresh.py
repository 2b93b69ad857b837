"""Places of a test's own on engines that all tests share: names, databases, lakes."""

from __future__ import annotations

import json
import re
import secrets
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from engines import trino
from engines.places import BUCKET, DEFAULT_FIRST_PORT, FIRST_PORT, HOST, postgres

_REPOSITORY = Path(__file__).parents[2]
_PORT = re.compile(rf"({re.escape(HOST)}:)(\d+)")


def fresh_name(what: str = "t") -> str:
    """Answer a name that nobody used: fit for topics, databases, indices, queues and prefixes."""
    return f"{what}_{secrets.token_hex(6)}"


@contextmanager
def fresh_database() -> Iterator[str]:
    """Make a database for the block; answer its address, as libpq reads it."""
    name = fresh_name("db")
    with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield postgres(name)
    finally:
        with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@dataclass(frozen=True)
class FreshLake:
    """An empty lake: a database for its catalog, a prefix for its files, its name in Trino."""

    catalog_url: str
    warehouse_url: str
    trino_catalog: str


@contextmanager
def fresh_lake() -> Iterator[FreshLake]:
    """Make a lake for the block that Penstock and Trino both can open."""
    with fresh_database() as catalog_url:
        name = catalog_url.rpartition("/")[2]
        warehouse_url = f"s3://{BUCKET}/{name}"
        trino.create_catalog(name, name, warehouse_url)
        try:
            yield FreshLake(catalog_url, warehouse_url, name)
        finally:
            trino.drop_catalog(name)


def _moved(address: re.Match[str]) -> str:
    return f"{address[1]}{int(address[2]) - DEFAULT_FIRST_PORT + FIRST_PORT}"


@contextmanager
def fresh_settings(file: Path) -> Iterator[Path]:
    """Write the repository's settings for the engines to `file`, with places of their own."""
    text = (_REPOSITORY / "deploy" / "engines.toml").read_text()
    settings = tomllib.loads(_PORT.sub(_moved, text))
    name = fresh_name("penstock")
    with fresh_lake() as lake, fresh_database() as metadata, fresh_database() as dagster:
        settings |= {
            "log_url": settings["log_url"].replace("/penstock", f"/{name}"),
            "warehouse_url": lake.warehouse_url,
            "catalog_url": lake.catalog_url,
            "sql_url": settings["sql_url"].replace("/penstock", f"/{lake.trino_catalog}"),
            "search_url": settings["search_url"].replace("/penstock", f"/{name}"),
            "metadata_url": metadata,
            "dagster_url": dagster,
            "cache_url": settings["cache_url"].replace("/penstock", f"/{name}"),
        }
        file.write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        )
        yield file
