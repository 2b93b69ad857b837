"""The Dagster instance's file follows the settings until somebody edits it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml
from engines.fresh import fresh_database
from rich.console import Console

from penstock.cli import instance, up
from penstock.cli.instance import URL_VARIABLE, instance_file, is_ours, write_instance
from penstock.errors import BadSetting
from penstock.settings import Settings, load_settings

URL = "postgresql://penstock:hidden@db:5432/dagster"


def settings_of(home: Path, url: str = "") -> Settings:
    return load_settings(home, {}, dagster_url=url)


def test_without_a_url_the_file_says_nothing_of_storage(tmp_path: Path) -> None:
    """Dagster keeps SQLite beside it."""
    assert "storage:" not in instance_file(settings_of(tmp_path))


def test_the_file_never_has_the_address(tmp_path: Path) -> None:
    """It is read, copied and pasted by people; the address has a password."""
    text = instance_file(settings_of(tmp_path, URL))

    assert f"env: {URL_VARIABLE}" in text
    assert "hidden" not in text
    handed = up.environment(settings_of(tmp_path, URL), {})[URL_VARIABLE]
    assert handed == "postgresql+psycopg2://penstock:hidden@db:5432/dagster"
    assert URL_VARIABLE not in up.environment(settings_of(tmp_path), {})


def test_what_runs_print_goes_where_the_lake_is(tmp_path: Path) -> None:
    """Pages of another machine have to show it; the keys are not for the file."""
    text = instance_file(
        load_settings(tmp_path, {}, warehouse_url="s3://bucket/lake", s3_secret_key="hidden")
    )
    config = yaml.safe_load(text)["compute_logs"]["config"]

    assert (config["bucket"], config["prefix"]) == ("bucket", "lake/_dagster")
    assert "hidden" not in text
    assert "compute_logs" not in instance_file(settings_of(tmp_path))


def test_the_file_is_renewed_when_settings_change(tmp_path: Path) -> None:
    file = tmp_path / "dagster.yaml"

    assert write_instance(file, settings_of(tmp_path)) == ""
    assert write_instance(file, settings_of(tmp_path, URL)) == ""
    assert URL_VARIABLE in file.read_text()
    assert write_instance(file, settings_of(tmp_path)) == ""
    assert file.read_text() == instance_file(settings_of(tmp_path))


def test_a_file_that_was_edited_is_left_alone_and_what_it_lacks_is_told(tmp_path: Path) -> None:
    """Somebody put their run launcher there."""
    file = tmp_path / "dagster.yaml"
    write_instance(file, settings_of(tmp_path))
    edited = file.read_text() + "\nrun_queue:\n  max_concurrent_runs: 3\n"
    file.write_text(edited)

    assert write_instance(file, settings_of(tmp_path)) == ""
    missing = write_instance(file, settings_of(tmp_path, URL))

    assert file.read_text() == edited
    assert f"env: {URL_VARIABLE}" in missing
    file.write_text(f"{edited}\n{missing}\n")
    assert write_instance(file, settings_of(tmp_path, URL)) == ""


def test_up_says_what_an_edited_file_lacks(tmp_path: Path) -> None:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: true\n")
    shown = io.StringIO()

    up._write_instance(settings_of(tmp_path, URL), Console(file=shown, width=200))

    assert "was edited" in shown.getvalue()
    assert f"env: {URL_VARIABLE}" in shown.getvalue()
    assert "hidden" not in shown.getvalue()


def test_a_file_of_an_earlier_release_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those had no first line that said so."""
    older = "telemetry:\n  enabled: false\n"
    monkeypatch.setattr(instance, "_OLDER", (sha256(older.encode()).hexdigest(),))

    assert is_ours(older)
    assert not is_ours(older + "nux:\n  enabled: true\n")


@pytest.mark.parametrize("url", ["mysql://db/dagster", "sqlite:///file", "postgres"])
def test_other_places_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadSetting, match="dagster_url"):
        instance_file(settings_of(tmp_path, url))


def test_the_database_of_the_metadata_is_refused(tmp_path: Path) -> None:
    """Each would take the other's version of the tables for its own."""
    settings = load_settings(tmp_path, {}, dagster_url=URL, metadata_url=URL)

    with pytest.raises(BadSetting, match="another database"):
        instance_file(settings)


ONE_RUN = """
import dagster as dg

@dg.op
def nothing():
    pass

@dg.job
def something():
    nothing()

with dg.DagsterInstance.get() as instance:
    run = something.execute_in_process(instance=instance)
    print(run.run_id, flush=True)
"""


def _one_run(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ONE_RUN],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def database() -> Iterator[str]:
    with fresh_database() as url:
        yield url


@pytest.mark.engines
def test_processes_that_start_at_once_share_one_database_and_find_each_others_runs(
    tmp_path: Path, database: str
) -> None:
    """Apart, nobody starts Dagster's processes one after the other."""
    settings = settings_of(tmp_path, database)
    up._write_instance(settings, Console(file=io.StringIO()))
    environment = up.environment(settings, dict(os.environ))
    ids: set[str] = set()
    # Dagster tries again where a table is there already, and ends where it is only the type of its
    # rows: another process is about to commit it. What keeps processes up starts it again then.
    while missing := 3 - len(ids):
        started = [_one_run(environment) for _ in range(missing)]
        told = [(one, *one.communicate(timeout=200)) for one in started]
        assert all(one.returncode == 0 or "already exists" in said for one, _, said in told), told
        assert any(one.returncode == 0 for one, *_ in told), told
        ids |= {printed.strip() for one, printed, _ in told if one.returncode == 0}

    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT run_id, status FROM runs").fetchall()
        versions = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
    assert {run for run, _ in found} == ids
    assert {status for _, status in found} == {dg.DagsterRunStatus.SUCCESS.value}
    assert versions == (1,)
    assert not list((tmp_path / "dagster").rglob("*.db"))
