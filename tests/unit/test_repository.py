"""Claims about the repository itself: names, documents, settings."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from penstock.errors import BadSetting
from penstock.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
PACKAGES = {"penstock", "ingest_api", "lakehouse", "assets", "replay", "orchestration"}


def test_no_other_distribution_owns_one_of_our_top_level_names() -> None:
    """`assets` and `replay` are plain words: a clash would import the wrong code silently."""
    owners = packages_distributions()

    assert {name: set(owners.get(name, ["penstock"])) for name in PACKAGES} == {
        name: {"penstock"} for name in PACKAGES
    }


def test_the_wheel_holds_every_top_level_package() -> None:
    """A package that is left out works from the checkout and nowhere else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES


def test_the_lock_names_no_address() -> None:
    """Any mirror must be able to serve it."""
    lock = (ROOT / "requirements.lock").read_text()

    assert "://" not in lock
    assert re.findall(r"^[a-z].*==.*[^\\]$", lock, re.MULTILINE) == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    """A reference that went away takes the reader's trust with it."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_setting_is_in_the_reference() -> None:
    """A knob nobody can find is no knob."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()

    assert [name for name in Settings.model_fields if f"`{name}`" not in page] == []


def test_a_misspelt_variable_is_refused_by_name(tmp_path: Path) -> None:
    """Ignored silently, it would leave a limit off that somebody thinks is on."""
    with pytest.raises(BadSetting, match="PENSTOCK_HTPP_PORT"):
        load_settings(tmp_path, {"PENSTOCK_HTPP_PORT": "1"})


def test_settings_come_from_flags_then_environment_then_file(tmp_path: Path) -> None:
    """What is nearer to the person typing wins."""
    (tmp_path / "penstock.toml").write_text("http_port = 1001\ngrpc_port = 1002\nsql_rows = 3\n")

    settings = load_settings(
        tmp_path, {"PENSTOCK_GRPC_PORT": "2002", "PENSTOCK_SQL_ROWS": "4"}, sql_rows=5
    )

    assert (settings.http_port, settings.grpc_port, settings.sql_rows) == (1001, 2002, 5)


def test_a_named_file_stands_in_for_that_of_the_home(tmp_path: Path) -> None:
    """One file in a repository describes many homes; a flag wins over the environment."""
    (tmp_path / "penstock.toml").write_text("sql_rows = 1\n")
    for name, rows in (("variable", 2), ("flag", 3)):
        (tmp_path / name).write_text(f"sql_rows = {rows}\n")
    named = {"PENSTOCK_SETTINGS": str(tmp_path / "variable")}

    assert load_settings(tmp_path, {}).sql_rows == 1
    assert load_settings(tmp_path, named).sql_rows == 2
    assert load_settings(tmp_path, named, file=tmp_path / "flag").sql_rows == 3


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    """Defaults instead would start an empty installation beside the one that was meant."""
    with pytest.raises(BadSetting, match="no settings file"):
        load_settings(tmp_path, {"PENSTOCK_SETTINGS": str(tmp_path / "absent")})


def test_lists_in_the_environment_are_separated_by_commas(tmp_path: Path) -> None:
    """The two settings that are lists guard where replays may go."""
    settings = load_settings(
        tmp_path,
        {"PENSTOCK_ALLOW_NETWORKS": "127.0.0.1/32, ::1/128", "PENSTOCK_ALLOW_PORTS": "1,2"},
    )

    assert [str(network) for network in settings.allow_networks] == ["127.0.0.1/32", "::1/128"]
    assert settings.allow_ports == (1, 2)


def test_help_starts_fast_because_heavy_imports_wait() -> None:
    """`penstock --help` must not load Dagster, PyIceberg or DuckDB."""
    code = (
        "import sys, penstock.cli.main;"
        "print(*sorted({'dagster', 'pyiceberg', 'duckdb', 'grpc', 'pyarrow', 'sqlalchemy'}"
        " & set(sys.modules)))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == []
