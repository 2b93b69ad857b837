"""Places of a test's own on engines that all tests share: names, databases, lakes."""

from __future__ import annotations

import json
import re
import secrets
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from engines import trino
from engines.kit import listening
from engines.places import (
    BUCKET,
    DEFAULT_FIRST_PORT,
    ELASTICSEARCH,
    ELASTICSEARCH_PORT,
    FIRST_PORT,
    HOST,
    KAFKA,
    KAFKA_PORT,
    OPENSEARCH,
    OPENSEARCH_PORT,
    postgres,
)

_REPOSITORY = Path(__file__).parents[2]
_PORT = re.compile(rf"({re.escape(HOST)}:)(\d+)")


given: list[str] = []
"""The names that this process was answered."""


def fresh_name(what: str = "t") -> str:
    """Answer a name that nobody used: fit for topics, databases, indices, queues and prefixes."""
    given.append(f"{what}_{secrets.token_hex(6)}")
    return given[-1]


def forget(names: Sequence[str]) -> None:
    """Remove the topics and indices that begin with one of these names, where their engines run.

    Thousands that tests left make each look at all of them slow, and so is a broker that starts
    after a kill: 70 CPU seconds with 3,900 partitions, 5 with none.
    """
    if names and listening(KAFKA_PORT):
        _forget_topics(tuple(names))
    for port, address in ((ELASTICSEARCH_PORT, ELASTICSEARCH), (OPENSEARCH_PORT, OPENSEARCH)):
        if names and listening(port):
            _forget_indices(tuple(names), address)


def _forget_topics(names: tuple[str, ...]) -> None:
    # Only who uses Kafka needs its client.
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": KAFKA})
    ours = [topic for topic in admin.list_topics(timeout=60).topics if topic.startswith(names)]
    for removed in (admin.delete_topics(ours, operation_timeout=60) if ours else {}).values():
        removed.result()


def _forget_indices(names: tuple[str, ...], address: str) -> None:
    with urllib.request.urlopen(f"{address}/_cat/indices?h=index", timeout=60) as answer:
        there = answer.read().decode().split()
    ours = [index for index in there if index.startswith(names)]
    for some in _by_fifty(ours):  # an address has an end
        request = urllib.request.Request(f"{address}/{','.join(some)}", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()


def _by_fifty(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + 50] for start in range(0, len(names), 50))


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
def fresh_settings(file: Path, *, kafka: str = KAFKA) -> Iterator[Path]:
    """Write the repository's settings for the engines to `file`, with places of their own.

    `kafka` is the broker of the log, if it is not the one that all tests share.
    """
    text = (_REPOSITORY / "deploy" / "engines.toml").read_text()
    settings = tomllib.loads(_PORT.sub(_moved, text))
    name = fresh_name("penstock")
    with fresh_lake() as lake, fresh_database() as metadata, fresh_database() as dagster:
        settings |= {
            "log_url": f"kafka://{kafka}/{name}",
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
