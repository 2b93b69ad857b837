"""The catalog's tables in AWS Glue, where Athena finds them.

A commit is made here and then swapped in by the version that Glue gave the table, so what a commit
requires is checked against what it replaces, as in a SQL database.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from penstock.errors import BadSetting

try:
    import boto3
    from botocore.config import Config
    from pyiceberg.catalog.glue import GlueCatalog
except ImportError as error:
    raise BadSetting("glue:// needs a client: pip install 'penstock[glue]'") from error

from lakehouse.catalog import CATALOG_NAME
from lakehouse.s3 import OPTIONS

_CONNECT_SECONDS = 3
_READ_SECONDS = 30
_TRIES = 3


def open_glue(url: str, properties: dict[str, Any]) -> GlueCatalog:
    """Open Glue of the region that the address ``glue://region`` names."""
    if OPTIONS not in properties:
        raise BadSetting("a catalog in Glue needs a warehouse_url that starts with s3://")
    options = properties[OPTIONS]
    client = boto3.session.Session(
        aws_access_key_id=options.access_key or None,
        aws_secret_access_key=options.secret_key or None,
    ).client(
        "glue",
        region_name=urlsplit(url).netloc or options.region or None,
        config=Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            # A second try of an update that was made is told as a conflict, and landing looks.
            retries={"mode": "standard", "total_max_attempts": _TRIES},
        ),
    )
    return GlueCatalog(CATALOG_NAME, client, **properties)
