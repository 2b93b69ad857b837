"""The lake: one Iceberg table per collection, and one for its quarantine."""

from __future__ import annotations

from lakehouse.catalog import open_catalog
from lakehouse.tables import Lake, TableView

__all__ = ["Lake", "TableView", "open_lake"]


def open_lake(catalog_url: str, warehouse_url: str) -> Lake:
    """Open the lake whose tables are named at `catalog_url` and kept below `warehouse_url`.

    Raises `BadSetting` for an address of a kind that is not known.
    """
    return Lake(open_catalog(catalog_url, warehouse_url))
