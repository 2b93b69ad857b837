"""A lake on the real engines: its catalog in PostgreSQL, its files on S3, its tables in Trino."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engines.fresh import fresh_lake
from engines.places import HOST, S3, S3_KEY, S3_REGION, S3_SECRET, TRINO_PORT
from lakes import HASTY

from lakehouse import Lake
from lakehouse.catalog import CATALOG_NAME, RememberingCatalog


@contextmanager
def trino_lake() -> Iterator[tuple[Lake, str]]:
    """Make an empty lake for the block; answer it, and its address in Trino for its own user."""
    with fresh_lake() as fresh:
        catalog = RememberingCatalog(
            CATALOG_NAME,
            uri=fresh.catalog_url.replace("postgresql:", "postgresql+psycopg:", 1),
            warehouse=fresh.warehouse_url,
            **{
                "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
                "s3.endpoint": S3,
                "s3.access-key-id": S3_KEY,
                "s3.secret-access-key": S3_SECRET,
                "s3.region": S3_REGION,
            },
        )
        try:
            yield (
                Lake(catalog, HASTY),
                (f"trino://{fresh.trino_catalog}@{HOST}:{TRINO_PORT}/{fresh.trino_catalog}"),
            )
        finally:
            catalog.engine.dispose()
