"""The file that describes the Dagster instance of a home, as its settings want it.

Penstock writes the file and renews it when settings change, until somebody edits it: the first
line says what was written, and a file that is not that is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from penstock.errors import BadSetting
from penstock.settings import Settings

URL_VARIABLE = "DAGSTER_DATABASE_URL"
"""Where Dagster finds the address of its database, password included: never in the file."""

_KIND = "postgresql://"

# Files as they were written before they said so themselves.
_OLDER = ("c0099145e6462eab6bcc41262fb7c2576c76a41010b4ec03719ccc1bee1532a3",)

_FIRST_LINE = re.compile(r"# Written by Penstock, and renewed until it is edited: ([0-9a-f]{64})\n")


def instance_file(settings: Settings) -> str:
    """Answer the whole file: what holds everywhere, then what the settings ask for."""
    text = (files("orchestration") / "dagster.yaml").read_text()
    text += "".join(section(settings) for section in SECTIONS)
    return f"# Written by Penstock, and renewed until it is edited: {_digest(text)}\n{text}"


def storage(settings: Settings) -> str:
    """Say where runs, ticks and event logs are kept; raises `BadSetting` for an unknown place."""
    if not settings.dagster_url:
        return ""
    if not settings.dagster_url.startswith(_KIND):
        raise BadSetting("dagster_url is empty, or postgresql://user:password@host:port/database")
    if settings.dagster_url == settings.metadata:
        # Both note the version of their tables in a table of the same name.
        raise BadSetting("dagster_url has to be another database than that of the metadata")
    if find_spec("dagster_postgres") is None:
        raise BadSetting(
            "dagster_url needs the client of PostgreSQL: pip install 'penstock[postgres]'"
        )
    return (
        "\n# Runs, ticks and event logs are in PostgreSQL; the address is not for this file.\n"
        "storage:\n  postgres:\n    postgres_url:\n"
        f"      env: {URL_VARIABLE}\n"
    )


def variables(settings: Settings) -> dict[str, str]:
    """Answer what the file takes from the environment of Dagster's processes."""
    if not settings.dagster_url:
        return {}
    # Dagster's statements are psycopg2's; where the address names no driver, psycopg 3 is taken,
    # and the first event of a run fails (NOTIFY takes no parameters there).
    rest = settings.dagster_url.removeprefix(_KIND)
    return {URL_VARIABLE: f"postgresql+psycopg2://{rest}"}


def logs_of_runs(settings: Settings) -> str:
    """Say where what runs print is kept: with the lake, where that is in an object store."""
    if settings.s3 is None:
        return ""
    if find_spec("dagster_aws") is None:
        raise BadSetting("a lake in S3 needs its clients: pip install 'penstock[s3]'")
    from orchestration.compute_logs import compute_logs

    # JSON is YAML, too.
    part = json.dumps(compute_logs(settings), indent=2)
    return (
        "\n# What runs print is kept beside the lake, for the pages of any machine.\n"
        f"compute_logs: {part}\n"
    )


# What settings add to the file, one function each.
SECTIONS: tuple[Callable[[Settings], str], ...] = (storage, logs_of_runs)


def is_ours(text: str) -> bool:
    """Say whether nobody changed the file since Penstock wrote it."""
    first = _FIRST_LINE.match(text)
    if first is None:
        return _digest(text) in _OLDER
    return _digest(text[first.end() :]) == first[1]


def write_instance(file: Path, settings: Settings) -> str:
    """Write the file, or renew it; one that was edited is left alone.

    Answers what settings ask for and an edited file does not say, as it should stand there; an
    empty text where nothing is missing.
    """
    wanted = instance_file(settings)
    there = file.read_text() if file.exists() else None
    if there is None or is_ours(there):
        if there != wanted:
            _replace(file, wanted)
        return ""
    asked = (section(settings).strip() for section in SECTIONS)
    return "\n\n".join(section for section in asked if section not in there)


def _replace(file: Path, text: str) -> None:
    fresh = file.with_name(f"{file.name}.fresh")
    fresh.write_text(text)
    fresh.replace(file)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
