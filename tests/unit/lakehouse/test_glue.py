"""The catalog in AWS Glue: the same commit, and tables as Athena wants to find them.

Glue is played in this process; the files are in the real store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError
from builders import FLIGHTS
from engines.fresh import fresh_name
from engines.places import BUCKET, S3, S3_REGION
from lakes import (
    BROKEN,
    HASTY,
    MAIN,
    STORE,
    Tampered,
    append,
    batch_of,
    everywhere,
    landing,
    log_of,
    mark_of,
    numbered,
    put,
)
from moto import mock_aws
from ports import free_port

from lakehouse import Lake, open_lake
from lakehouse.upkeep import expire
from penstock.errors import BadSetting, EngineUnavailable, NotFound

WITH_STORE = {"core": {"mock_credentials": False, "passthrough": {"urls": [f"{S3}/.*"]}}}


@pytest.fixture
def lake() -> Iterator[Lake]:
    with mock_aws(config=WITH_STORE):
        yield opened(f"s3://{BUCKET}/{fresh_name('glue')}")


def opened(warehouse_url: str) -> Lake:
    lake = open_lake(f"glue://{S3_REGION}", warehouse_url, STORE)
    lake.patience = HASTY
    return lake


@pytest.mark.engines
def test_events_land_in_tables_that_athena_finds(lake: Lake) -> None:
    """Athena takes the schema from Glue and the rest from the metadata that Glue points at."""
    log = log_of(*numbered(3), BROKEN, '{"n": 9, "city": {"name": "Oslo"}}')
    work = landing(log, lake)
    while work.land_once(FLIGHTS):
        pass

    assert everywhere(lake) == Counter(range(5))
    assert mark_of(lake).next == 5
    assert lake.collections() == [FLIGHTS]
    glue = boto3.client(
        "glue", region_name=S3_REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )
    entry = glue.get_table(DatabaseName="main", Name="flights")["Table"]
    table = lake.table(MAIN)
    assert table is not None
    assert entry["Parameters"]["table_type"] == "ICEBERG"
    assert entry["Parameters"]["metadata_location"] == table.metadata_location
    columns = {column["Name"]: column["Type"] for column in entry["StorageDescriptor"]["Columns"]}
    assert columns["data"] == "struct<n:bigint,city:struct<name:string>>"
    assert columns["received_at"] == "timestamp"
    assert STORE.secret_key not in str(entry)


@pytest.mark.engines
def test_a_commit_that_landed_and_was_reported_as_failed_is_made_once(lake: Lake) -> None:
    """AWS's client tries again by itself, and its second try meets the first."""
    log = log_of(*numbered(4))
    view = lake.create(FLIGHTS)

    def lost(_number: int) -> None:
        raise ClientError({"Error": {"Code": "ConcurrentModificationException"}}, "UpdateTable")

    between = Tampered(lake.catalog, after=lost)
    put(Lake(between, HASTY), batch_of(log, view))  # type: ignore[arg-type]  # a stand-in

    assert everywhere(lake) == Counter(range(4))


@pytest.mark.engines
def test_pins_and_expiry_stay_apart(lake: Lake) -> None:
    """What only this process checks is checked against the version that the commit replaces."""
    log = log_of(*numbered(2))
    view = lake.create(FLIGHTS)
    put(lake, batch_of(log, view))
    first = lake.view(FLIGHTS)
    assert first is not None
    append(log, *numbered(1, 2))
    put(lake, batch_of(log, first))

    lake.pin(FLIGHTS, first.snapshot_id or 0, "replay")
    assert expire(lake, MAIN, keep=1) == 0
    lake.unpin(FLIGHTS, "replay")
    assert expire(lake, MAIN, keep=1) == 1
    with pytest.raises(NotFound):
        lake.pin(FLIGHTS, first.snapshot_id or 0, "replay")


def test_files_on_this_machine_are_refused() -> None:
    """Athena could not read them."""
    with pytest.raises(BadSetting):
        open_lake("glue://eu-west-1", "file:///tmp/x")


def test_a_catalog_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like any other one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", f"http://127.0.0.1:{free_port()}")
    lake = open_lake("glue://eu-west-1", "s3://bucket/x", STORE)

    for ask in (lambda: lake.table(MAIN), lake.collections, lambda: lake.create(FLIGHTS)):
        with pytest.raises(EngineUnavailable):
            ask()
