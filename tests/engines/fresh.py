"""Places of a test's own on engines that all tests share: names, databases, lakes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from engines import trino
from engines.places import BUCKET, postgres


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
