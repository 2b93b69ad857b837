"""The lake: one Iceberg table per collection, and one for its quarantine."""

from __future__ import annotations

from lakehouse.catalog import open_catalog
from lakehouse.tables import Lake, Run, TableView
from penstock.settings import S3Options

__all__ = ["Lake", "Run", "TableView", "open_lake"]


def open_lake(catalog_url: str, warehouse_url: str, s3: S3Options | None = None) -> Lake:
    """Open the lake whose tables are named at `catalog_url` and kept below `warehouse_url`.

    `s3` says how a warehouse in an object store is reached. Raises `BadSetting` for an address of
    a kind that is not known, `EngineUnavailable` if the catalog does not answer.
    """
    return Lake(open_catalog(catalog_url, warehouse_url, s3))
