"""All that is kept in PostgreSQL, in one that has TLS, set up as its page says."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from builders import FLIGHTS
from certificates import make_certificates
from engines.places import HOST, PASSWORD
from own_engines import own_engine
from secured import SecuredPostgres, example, keys_of

from lakehouse import open_lake
from penstock.cli.instance import variables, write_instance
from penstock.errors import EngineUnavailable
from penstock.metadata.store import open_store
from penstock.settings import Settings, load_settings
from penstock.stats import open_stats

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("own engines")]

OPENS: dict[str, Callable[[Settings], object]] = {
    "metadata": lambda settings: open_store(settings.metadata),
    "statistics": lambda settings: open_stats(settings.stats),
    "catalog": lambda settings: open_lake(settings.catalog, settings.warehouse),
}


@pytest.fixture(scope="module")
def server() -> Iterator[SecuredPostgres]:
    # Not below pytest's folder: the server runs as another user, who may not look in there.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    folder.chmod(0o755)
    try:
        with own_engine(SecuredPostgres, folder) as postgres:
            yield postgres
    finally:
        shutil.rmtree(folder)


def settings_of(server: SecuredPostgres, home: Path, **instead: str) -> Settings:
    """Answer the settings of a home that is set up as the page says, but for these parts."""
    parts = {
        "…": PASSWORD,
        "db.example/penstock": "db.example/metadata",
        "db.example/stats": "db.example/metadata",
        "db.example": f"{HOST}:{server.port}",
        "/etc/penstock/ca.pem": str(keys_of(server.run) / "ca.pem"),
    }
    (home / "penstock.toml").write_text(example("metadata_url", {**parts, **instead}))
    return load_settings(home, {})


def test_all_of_them_work_as_the_page_sets_them_up(server: SecuredPostgres, tmp_path: Path) -> None:
    """Each opens its own connections, with its own part of the settings."""
    settings = settings_of(server, tmp_path)
    store, stats = open_store(settings.metadata), open_stats(settings.stats)
    lake = open_lake(settings.catalog, settings.warehouse)

    lake.create(FLIGHTS)
    stats.ping()

    assert store.collections() == []
    assert lake.collections() == [FLIGHTS]
    with psycopg.connect(settings.metadata) as connection:
        encrypted = connection.execute(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = 'penstock'"
        ).fetchall()
    assert encrypted == [(True,)]
    store.close()
    stats.close()


def test_dagster_keeps_its_runs_there(
    server: SecuredPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver is another one than ours; the address is the same."""
    from dagster import DagsterInstance

    settings = settings_of(server, tmp_path)
    write_instance(tmp_path / "dagster.yaml", settings)
    for name, value in variables(settings).items():
        monkeypatch.setenv(name, value)

    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert list(instance.get_runs()) == []


@pytest.mark.parametrize("kind", OPENS)
@pytest.mark.parametrize(
    ("instead", "told"),
    [
        ({"/etc/penstock/ca.pem": "{stranger}/ca.pem"}, "see sslrootcert"),
        (
            {"/etc/penstock/ca.pem": "{stranger}/none.pem"},
            "root certificate file .* does not exist",
        ),
        ({"…": "hidden"}, "password authentication failed for user"),
        ({"verify-full": "disable"}, "no encryption"),
    ],
    ids=["unknown CA", "no such file", "wrong password", "plain text"],
)
def test_what_is_set_up_wrong_is_told(
    server: SecuredPostgres, tmp_path: Path, kind: str, instead: dict[str, str], told: str
) -> None:
    """At once, in one line, and without the password."""
    make_certificates(tmp_path / "stranger")
    wrong = {name: text.format(stranger=tmp_path / "stranger") for name, text in instead.items()}
    settings = settings_of(server, tmp_path, **wrong)
    begun = time.monotonic()

    with (
        structlog.testing.capture_logs() as lines,
        pytest.raises(EngineUnavailable, match=told) as refused,
    ):
        OPENS[kind](settings)

    assert time.monotonic() - begun < 5
    for text in (str(refused.value), str(lines)):
        assert "\n" not in text
        assert "hidden" not in text
        assert f":{PASSWORD}@" not in text
