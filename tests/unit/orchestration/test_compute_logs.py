"""The logs of runs in the lake's object store; no key in what Dagster shows."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType
from engines.fresh import fresh_name
from engines.places import BUCKET, S3, S3_KEY, S3_REGION, S3_SECRET

from assets.stores import Stores
from orchestration.compute_logs import FOLDER, LakeComputeLogs, compute_logs
from orchestration.definitions import resources
from penstock.settings import Settings, load_settings

KEY = ["run", "compute_logs", "step"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "penstock.toml").write_text(
        f'warehouse_url = "s3://{BUCKET}/{fresh_name("logs")}/lake"\n'
        f's3_endpoint = "{S3}"\ns3_region = "{S3_REGION}"\ns3_path_style = true\n'
        f's3_access_key = "{S3_KEY}"\ns3_secret_key = "{S3_SECRET}"\n'
    )
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    return load_settings(tmp_path, {})


def test_dagsters_settings_hold_no_key(settings: Settings, tmp_path: Path) -> None:
    """Its pages show them to everybody."""
    part = compute_logs(settings)

    assert part is not None
    assert yaml.safe_load(yaml.safe_dump(part)) == part
    assert part["config"]["bucket"] == BUCKET
    assert part["config"]["prefix"].endswith(f"/lake/{FOLDER}")
    assert S3_SECRET not in str(part)
    assert S3_SECRET not in repr(settings)


def test_a_lake_on_this_machine_keeps_them_beside_it(tmp_path: Path) -> None:
    """Dagster's own way is good enough there."""
    assert compute_logs(load_settings(tmp_path, {})) is None


@pytest.mark.engines
def test_what_a_run_printed_is_found_from_another_machine(
    settings: Settings, tmp_path: Path
) -> None:
    """The pages run elsewhere than the run did, once there are several machines."""
    part = compute_logs(settings)
    assert part is not None
    ours = LakeComputeLogs.from_config_value(None, part["config"])  # type: ignore[arg-type]  # only kept
    path = Path(ours.local_manager.get_captured_local_path(KEY, "out"))
    path.parent.mkdir(parents=True)
    path.write_text("landed 3 events")

    ours.upload_to_cloud_storage(KEY, ComputeIOType.STDOUT)

    there = {**part["config"], "local_dir": str(tmp_path / "another")}
    theirs = LakeComputeLogs.from_config_value(None, there)  # type: ignore[arg-type]  # only kept
    assert theirs.cloud_storage_has_logs(KEY, ComputeIOType.STDOUT)
    theirs.download_from_cloud_storage(KEY, ComputeIOType.STDOUT)
    found = Path(theirs.local_manager.get_captured_local_path(KEY, "out"))
    assert found.read_text() == "landed 3 events"


@dg.op(required_resource_keys={"s3"})
def look(context):
    """Ask the store for its bucket."""
    return context.resources.s3.list_objects_v2(Bucket=BUCKET, MaxKeys=1)["Name"]


@dg.job
def looking():
    look()


@pytest.mark.engines
def test_an_op_reaches_the_store_and_no_key_is_shown(settings: Settings) -> None:
    """The configuration of a resource is on Dagster's pages, too."""
    given = resources(Stores(settings))

    done = looking.execute_in_process(resources={"s3": given["s3"]})

    assert done.output_for_node("look") == BUCKET
    assert S3_SECRET not in repr(given["s3"])
