"""What `penstock up` starts, in which order."""

from __future__ import annotations

from pathlib import Path

from penstock.cli.up import programs
from penstock.settings import load_settings


def test_dagsters_programs_start_one_after_the_other(tmp_path: Path) -> None:
    """Each of them makes Dagster's database when there is none.

    Two at a time left it with two versions: the daemon could not open it ever after, and nothing
    landed.
    """
    after = {
        program.name: program.after
        for program in programs(load_settings(tmp_path, {}), code_port=4000)
        if "dagster" in " ".join(program.argv)
    }

    assert after == {
        "code-server": None,
        "dagster-webserver": "code-server",
        "dagster-daemon": "dagster-webserver",
    }
