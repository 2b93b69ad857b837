"""The Iceberg catalog: which database names the tables, and where their files are.

The choice of technology is made here and nowhere else.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataV2
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from sqlalchemy import select

from lakehouse.files import SCHEME, path_of
from penstock.envelope import CollectionId
from penstock.errors import BadSetting
from penstock.settings import S3Options

if TYPE_CHECKING:
    from pyiceberg.table import CommitTableResponse
    from pyiceberg.table.update import TableRequirement, TableUpdate

# Trino sees the same tables only if its iceberg.jdbc-catalog.catalog-name is this.
CATALOG_NAME = "penstock"

QUARANTINE_SUFFIX = "__quarantine"
CLOSED_SUFFIX = "__closed"

# Writers wait for each other this long; a commit holds the database for about a millisecond.
_BUSY_SECONDS = 30

# Parsed metadata kept in memory: that of 600 tables with 50 snapshots and 50 columns. Where it does
# not fit, who lands one after the other parses all of it again: an eighth of a small commit.
_KEPT_BYTES = 256 << 20
# So many tables are asked for by their names, more by their namespaces alone.
_NAMED = 100
# What a snapshot and a field of a schema take there, about.
_SNAPSHOT_BYTES = 6_000
_FIELD_BYTES = 1_000


def main_table(collection: CollectionId) -> Identifier:
    """Answer the name of the collection's table: its team's namespace, its own name."""
    return (collection.team, collection.name)


def quarantine_table(collection: CollectionId) -> Identifier:
    """Answer the name of the table of its events that could not become rows."""
    return (collection.team + QUARANTINE_SUFFIX, collection.name)


def closed_table(collection: CollectionId) -> Identifier:
    """Answer the name of the table that says which events of a quarantine are closed."""
    namespace, name = quarantine_table(collection)
    return (namespace, name + CLOSED_SUFFIX)


class SharedMetadata(TableMetadataV2):
    """Metadata whose copies share their parts.

    The parts are never changed, only replaced. PyIceberg copies every one of them at each commit
    all the same: 6 of 27 ms with 50 snapshots, 80 of 130 with 20 versions of 300 columns.
    """

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.__copy__()


class Kept:
    """The newest metadata that was seen of each table, those used last within about `most` bytes.

    Threads may share it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._guard = threading.Lock()
        self._tables: OrderedDict[Identifier, tuple[str, TableMetadata]] = OrderedDict()
        self._bytes = 0

    def of(self, name: Identifier, location: str) -> TableMetadata | None:
        """Answer the table's metadata if it is the one at that location."""
        with self._guard:
            found = self._tables.get(name)
            if found is None or found[0] != location:
                return None
            self._tables.move_to_end(name)
            return found[1]

    def keep(self, name: Identifier, location: str, metadata: TableMetadata) -> TableMetadata:
        """Keep it in place of what there was; answer it so that its copies share their parts."""
        if type(metadata) is TableMetadataV2:
            metadata = SharedMetadata.model_construct(**metadata.__dict__)
        with self._guard:
            self._drop(name)
            self._tables[name] = location, metadata
            self._bytes += memory_of(metadata)
            while self._bytes > self._most and len(self._tables) > 1:
                self._drop(next(iter(self._tables)))
        return metadata

    def _drop(self, name: Identifier) -> None:
        known = self._tables.pop(name, None)
        if known is not None:
            self._bytes -= memory_of(known[1])


def memory_of(metadata: TableMetadata) -> int:
    """Answer about how many bytes of memory metadata takes."""
    fields = len(metadata.schemas) * metadata.last_column_id
    return _SNAPSHOT_BYTES * len(metadata.snapshots) + _FIELD_BYTES * fields


class RememberingCatalog(SqlCatalog):
    """A catalog in a SQL database that parses the newest version of a table's metadata once.

    A version never changes after it was written. Parsing one with 50 snapshots costs 5 ms, asking
    the database which one is current 0.5 ms. About `kept_bytes` of memory are used for it.
    """

    def __init__(self, name: str, *, kept_bytes: int = _KEPT_BYTES, **properties: Any) -> None:
        self._kept = Kept(kept_bytes)
        super().__init__(name, **properties)

    def locations(self, names: Collection[Identifier]) -> dict[Identifier, str]:
        """Answer where the metadata of those tables is that there are, all at one moment.

        In one statement, however many they are.
        """
        rows = select(
            IcebergTables.table_namespace, IcebergTables.table_name, IcebergTables.metadata_location
        ).where(IcebergTables.catalog_name == self.name)
        spaces = {Catalog.namespace_to_string(name[:-1]) for name in names}
        rows = rows.where(IcebergTables.table_namespace.in_(spaces))
        if len(names) <= _NAMED:
            rows = rows.where(IcebergTables.table_name.in_({name[-1] for name in names}))
        if (tables_alone := self._iceberg_type_filter()) is not None:
            rows = rows.where(tables_alone)
        with self.engine.connect() as connection:
            told = connection.execute(rows).all()
        found = {
            (*Catalog.identifier_to_tuple(space), name): location for space, name, location in told
        }
        return {name: location for name in names if (location := found.get(name))}

    def table_at(self, name: Identifier, location: str) -> Table:
        """Answer the table with the metadata at that location, which need not be the newest."""
        return self._convert_orm_to_iceberg(
            IcebergTables(
                catalog_name=self.name,
                table_namespace=Catalog.namespace_to_string(name[:-1]),
                table_name=name[-1],
                metadata_location=location,
                previous_metadata_location=None,
            )
        )

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        location = orm_table.metadata_location
        name = (*Catalog.identifier_to_tuple(orm_table.table_namespace), orm_table.table_name)
        metadata = self._kept.of(name, location) if location else None
        if metadata is None or location is None:
            table = super()._convert_orm_to_iceberg(orm_table)
            location = table.metadata_location
            metadata = self._kept.keep(name, location, table.metadata)
        return Table(
            identifier=name,
            metadata=metadata,
            metadata_location=location,
            io=self._load_file_io(metadata.properties, location),
            catalog=self,
        )

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Commit, and keep the new metadata at hand for the next load."""
        response = super().commit_table(table, requirements, updates)
        self._kept.keep(table.name(), response.metadata_location, response.metadata)
        return response

    def create_namespace(
        self, namespace: str | Identifier, properties: Properties = EMPTY_DICT
    ) -> None:
        """Create the namespace; raise `NamespaceAlreadyExistsError` also where somebody was faster.

        PyIceberg looks and then inserts, so the loser of a race gets the database's own error.
        """
        try:
            super().create_namespace(namespace, properties)
        except NamespaceAlreadyExistsError:
            raise
        except Exception as error:
            if not self.namespace_exists(namespace):
                raise
            raise NamespaceAlreadyExistsError(f"namespace {namespace} exists already") from error


def open_catalog(catalog_url: str, warehouse_url: str, s3: S3Options | None = None) -> Catalog:
    """Open the catalog at `catalog_url` for tables whose files lie below `warehouse_url`.

    Raises `BadSetting` for an address of a kind that is not known, or whose client is not
    installed, and `EngineUnavailable` if the catalog does not answer.
    """
    warehouse = _warehouse(warehouse_url, s3)
    match urlsplit(catalog_url).scheme:
        case "sqlite":
            return _open_sqlite(catalog_url, warehouse)
        case "postgresql" | "postgres" | "postgresql+psycopg":
            from lakehouse.postgres import open_postgres

            return open_postgres(catalog_url, warehouse)
        case "rest+http" | "rest+https":
            from lakehouse.rest import open_rest

            return open_rest(catalog_url, warehouse)
        case "glue":
            from lakehouse.glue import open_glue

            return open_glue(catalog_url, warehouse)
        case other:
            raise BadSetting(
                f"catalog_url starts with {other!r}; "
                "use sqlite:///file, postgresql://, rest+https:// or glue://region"
            )


def _warehouse(url: str, s3: S3Options | None) -> dict[str, Any]:
    """Answer the catalog properties that say where files are and how they are reached."""
    match urlsplit(url).scheme:
        case "file":
            return {
                "warehouse": SCHEME + str(Path(path_of(url))).rstrip("/"),
                "py-io-impl": "lakehouse.files.LocalFiles",
            }
        case "s3":
            from lakehouse.s3 import OPTIONS

            return {
                "warehouse": url.rstrip("/"),
                "py-io-impl": "lakehouse.s3.S3Files",
                OPTIONS: s3 or S3Options(),
            }
        case other:
            raise BadSetting(
                f"warehouse_url starts with {other!r}; use file:///folder or s3://bucket/prefix"
            )


def _open_sqlite(url: str, properties: dict[str, Any]) -> Catalog:
    """Open or make the database; processes that come at the same time make it once."""
    file = Path(url.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file.with_name(file.name + ".lock")):
        with sqlite3.connect(file, timeout=_BUSY_SECONDS) as connection:
            # Readers and the one writer do not wait for each other; the mode stays with the file.
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        return RememberingCatalog(
            CATALOG_NAME, uri=f"sqlite:///{file}?timeout={_BUSY_SECONDS}", **properties
        )


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Let one process at a time through."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
