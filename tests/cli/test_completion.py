"""What the tab key offers, asked as the shell asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cli_home import Installation

from penstock.cli.home import write_running


def offered(line: str, home: Path) -> list[str]:
    """Answer what bash would offer at the end of the line."""
    clean = {name: v for name, v in os.environ.items() if not name.startswith("PENSTOCK_")}
    asked = {
        "_PENSTOCK_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "PENSTOCK_HOME": str(home),
    }
    answer = subprocess.run(
        [Path(sys.executable).with_name("penstock")],
        env={**clean, **asked},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stderr == ""
    return answer.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("penstock search fl", ["flights"]),
        ("penstock search x", []),
        ("penstock collection show ", ["flights"]),
        ("penstock replay plan flights --to sh", ["shop"]),
        ("penstock token revoke ad", ["admin"]),
        ("penstock search --saved la", ["late"]),
        ("penstock searches show l", ["late"]),
        ("penstock search flights car", ["carrier:"]),
        ("penstock search flights NOT ca", ["carrier:"]),
        ("penstock search flights a:1 O", ["OR"]),
        ("penstock search flights carrier:U", ["carrier:UA"]),
        ("penstock search flights carrier : U", ["UA"]),
        ("penstock search flights carrier:x", []),
    ],
)
def test_names_of_the_running_platform_are_offered(
    here: Installation, line: str, names: list[str]
) -> None:
    """Nobody remembers ids."""
    from penstock.client import Client

    with Client(here.running.platform, here.running.token) as client:
        client.create_destination("shop", "https://example.com/in")
        client.save_search("late", "flights", "dep_delay:>120")

    assert offered(line, here.home) == names


def test_what_runs_elsewhere_is_not_loaded_to_complete_a_word() -> None:
    """Somebody waits with a finger on the tab key: each of these takes a tenth of a second."""
    script = "import sys, penstock.cli.main, penstock.client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()

    servers = {"uvicorn", "structlog", "asyncio", "multiprocessing", "fastapi", "grpc", "dagster"}
    stores = {"sqlalchemy", "pyarrow", "duckdb", "pyiceberg", "assets", "replay", "lakehouse"}
    assert {"typer", "httpx", "pydantic"} <= set(loaded), "what it needs"
    assert (servers | stores | {"rich.traceback"}) & set(loaded) == set()


def test_nothing_is_said_where_nothing_runs(here: Installation, tmp_path: Path) -> None:
    """A traceback in the middle of a line that is being typed helps nobody."""
    write_running(here.home, msgspec.structs.replace(here.running, platform="http://127.0.0.1:9"))

    assert offered("penstock search fl", tmp_path / "none") == []
    assert offered("penstock search fl", here.home) == []
